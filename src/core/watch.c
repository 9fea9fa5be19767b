/* watch.c - the thread that waits: looks, reports, speaks (watch.h has the whole). */
#include "core/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"
#include "bootstrap/tree.h"
#include "core/comm_store.h"
#include "core/watch_verdict.h"

#define PATIENCE_NS RAIL_NS_PER_S               /* a wait this long is spoken of */
#define REPORT_NS (500 * RAIL_NS_PER_MS)        /* and told to rank 0 from here on; between nodes at once: rank 0
                                                   compares calls there, too */
#define REPORT_EVERY_NS (200 * RAIL_NS_PER_MS)  /* survivors are to be released, mismatches told, within a second */
#define LONG_NS (100 * RAIL_NS_PER_MS)          /* what the engine calls long, when it first tells us */
#define LOOK_EVERY_NS (40 * RAIL_NS_PER_MS)     /* a sleep lasts 50 ms: each one ends with a look */
#define SPEAK_EVERY_NS (500 * RAIL_NS_PER_MS)
#define WINDOW_NS RAIL_NS_PER_S                 /* rates and shares are of the last second */
#define ONE_LOOK_NS (60 * RAIL_NS_PER_MS)       /* what a look stands for at most: a sleep, and waking up */
#define LANES_EVERY_NS (400 * RAIL_NS_PER_MS)
#define SAID_MOST 8                             /* INFO lines of one stall */

void watch_init(struct watch *w) { pthread_mutex_init(&w->lock, NULL); }

void watch_clear(struct watch *w)
{
    free(w->notes);
    w->notes = NULL;
}

static bool is_set(const struct watch_line *line) { return line->text[0] && line->text[0] != ' '; }

/* ---- this rank in a report ---- */

void watch_describe_self(struct comm *comm, uint64_t waited_ns, struct watch_report *out)
{
    struct watch *w = &comm->watch;
    uint64_t now_ns = rail_now_ns(), thread = atomic_load_explicit(&w->caller, memory_order_relaxed);
    calls_history_of(&comm->node, comm->node.self, &out->history);
    out->history.waited_ms = (uint32_t)(waited_ns / RAIL_NS_PER_MS);
    pthread_mutex_lock(&w->lock);
    out->state = w->state;
    if (w->state_ns && now_ns > w->state_ns) {
        uint32_t ago_ms = (uint32_t)((now_ns - w->state_ns) / RAIL_NS_PER_MS);
        out->state.looked_ms = ago_ms;
        out->state.still_ms += ago_ms;
    }
    pthread_mutex_unlock(&w->lock);
    out->state.thread = thread;
    out->state.elsewhere = watch_elsewhere_of(comm, thread);
}

static void report(struct comm *comm, uint64_t now_ns)
{
    struct watch *w = &comm->watch;
    union {
        struct watch_report report;
        uint8_t bytes[BOOTSTRAP_REPORT_BYTES];
    } r = {.bytes = {0}};
    if (now_ns - w->began_ns < REPORT_NS && comm->shape.n_nodes == 1) return;
    if (now_ns - w->reported_ns < REPORT_EVERY_NS) return;
    w->reported_ns = now_ns;
    watch_describe_self(comm, now_ns - w->began_ns, &r.report);
    bootstrap_report(comm->bootstrap, r.bytes);
}

/* ---- looking ---- */

static void call_of(const struct comm *comm, uint64_t number, char *out, size_t bytes)
{
    struct calls_history mine;
    calls_history_of(&comm->node, comm->node.self, &mine);
    watch_call_words(mine.signature[mine.number % SHM_CALLS], number, out, bytes);
}

static void begin(struct comm *comm, uint64_t number, uint64_t now_ns)
{
    struct watch *w = &comm->watch;
    w->number = number;
    w->began_ns = now_ns - LONG_NS;
    w->looked_ns = w->spoke_ns = w->reported_ns = w->asked_lanes_ns = w->waited_ns = w->absent_ns = 0;
    w->grew_ns = w->window_ns = now_ns;
    w->window_done = 0;
    w->absent[0] = w->absent[1] = UINT32_MAX;
    w->said_key = w->n_said = 0;
    w->late = UINT32_MAX;
    w->warned = false;
    pthread_mutex_lock(&w->lock);
    w->stalled = number;
    call_of(comm, number, w->what, sizeof w->what);
    w->line = (struct watch_line){.last = UINT32_MAX};
    w->by_all = false;
    w->state = (struct watch_state){.number = number, .waited = UINT32_MAX, .absent = UINT32_MAX};
    w->state_ns = 0;
    pthread_mutex_unlock(&w->lock);
}

struct sought { uint64_t self, caller; };

static bool is_other(const struct comm *comm, void *owner)
{
    struct sought *sought = owner;
    if (atomic_load_explicit(&comm->watch.self, memory_order_relaxed) != sought->self) return true;
    sought->caller = atomic_load_explicit(&comm->watch.caller, memory_order_relaxed);
    return false;
}

/* The rank's thread, as it calls itself in reports, where the rank is of my process. */
static uint64_t thread_of(const struct comm *comm, uint32_t rank)
{
    if (memcmp(comm->members[rank].process, comm->members[comm->rank].process, NET_PROCESS_ID_BYTES) != 0) return 0;
    struct sought sought = {.self = watch_rank_hash(comm, rank)};
    comm_store_each(is_other, &sought);
    return sought.caller;
}

static void tell_elsewhere(const struct comm *comm, const struct waits *waits)
{
    const struct watch *w = &comm->watch;
    struct watch_elsewhere e = {.number = w->number};
    struct calls_history mine;
    if (waits->n == 0 || waits->on[0].rank >= comm->n_ranks) return;
    calls_history_of(&comm->node, comm->node.self, &mine);
    e.signature = mine.signature[mine.number % SHM_CALLS];
    e.process = watch_process_of(&comm->members[waits->on[0].rank]);
    e.thread = thread_of(comm, waits->on[0].rank);
    watch_elsewhere_set(comm, atomic_load_explicit(&w->caller, memory_order_relaxed), &e);
}

/* A member of that process; the one that I wait for, if it is there. */
static uint32_t rank_in(const struct comm *comm, const uint8_t *process, const struct waits *waits)
{
    const struct member *members = comm->members;
    for (uint32_t i = 0; i < waits->n; i++)
        if (memcmp(members[waits->on[i].rank].process, process, NET_PROCESS_ID_BYTES) == 0) return waits->on[i].rank;
    for (uint32_t r = 0; r < comm->n_ranks; r++)
        if (memcmp(members[r].process, process, NET_PROCESS_ID_BYTES) == 0) return r;
    return UINT32_MAX;
}

/* "rail 2 (eth2) 10.0.2.1:4711 - 10.0.2.3:4712: the NIC has no carrier": what comes after the lane's name. */
static const char *reason_of(const char *text)
{
    const char *reason = strstr(text, ": ");
    return reason ? reason + 2 : text;
}

static void look_at_lanes(struct comm *comm, struct watch_state *s, uint64_t now_ns)
{
    struct net_trouble found[WATCH_TROUBLES];
    uint32_t n = net_troubles(comm->wires.comm_key, found, WATCH_TROUBLES);
    s->n_troubles = 0;
    s->why[0] = 0;
    for (uint32_t i = 0; i < n && i < WATCH_TROUBLES; i++) {
        uint32_t rank = rank_in(comm, found[i].process, &s->waits);
        if (rank == UINT32_MAX) continue;
        if (s->n_troubles == 0) snprintf(s->why, sizeof s->why, "%.*s", WATCH_WHY - 1, reason_of(found[i].text));
        uint64_t since_ns = now_ns > found[i].since_ns ? now_ns - found[i].since_ns : 0;
        s->troubles[s->n_troubles++] = (struct watch_trouble){
            .rank = rank,
            .nic = (uint8_t)found[i].rail,
            .unreachable = found[i].unreachable,
            .since_ms = (uint32_t)(since_ns / RAIL_NS_PER_MS),
        };
    }
}

static uint32_t least_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Takes rates over the last second, or since the wait began. */
static void measure(struct watch *w, struct watch_state *s, uint64_t now_ns)
{
    uint64_t passed_ns = now_ns - w->window_ns;
    uint64_t gap_ns = w->looked_ns ? now_ns - w->looked_ns : 0, one_ns = gap_ns < ONE_LOOK_NS ? gap_ns : ONE_LOOK_NS;
    if (s->waits.n) w->waited_ns += one_ns;
    w->absent_ns += gap_ns - one_ns;
    if (s->waited == UINT32_MAX && now_ns > w->began_ns)
        s->bytes_per_s_k = (uint32_t)((double)s->waits.done / ((double)(now_ns - w->began_ns) / 1e9) / 1e3);
    if (passed_ns < WINDOW_NS) return;
    s->bytes_per_s_k = (uint32_t)((double)(s->waits.done - w->window_done) / ((double)passed_ns / 1e9) / 1e3);
    s->waited = (uint32_t)(1000 * w->waited_ns / passed_ns);
    uint32_t absent = (uint32_t)(1000 * w->absent_ns / passed_ns);
    bool three = w->absent[0] != UINT32_MAX;
    s->absent = !three ? UINT32_MAX : least_of(absent, least_of(w->absent[0], w->absent[1]));
    w->absent[0] = w->absent[1];
    w->absent[1] = absent;
    w->window_ns = now_ns;
    w->window_done = s->waits.done;
    w->waited_ns = w->absent_ns = 0;
}

static void look(struct comm *comm, const struct waits *waits, uint64_t now_ns)
{
    struct watch *w = &comm->watch;
    struct watch_state s = w->state; /* only this thread writes it */
    if (waits->done != s.waits.done) w->grew_ns = now_ns;
    s.waits = *waits;
    s.still_ms = (uint32_t)((now_ns - w->grew_ns) / RAIL_NS_PER_MS);
    measure(w, &s, now_ns);
    if (comm->networked && now_ns - w->asked_lanes_ns >= LANES_EVERY_NS) {
        look_at_lanes(comm, &s, now_ns);
        w->asked_lanes_ns = now_ns;
    }
    w->looked_ns = now_ns;
    pthread_mutex_lock(&w->lock);
    w->state = s;
    w->state_ns = now_ns;
    pthread_mutex_unlock(&w->lock);
    tell_elsewhere(comm, waits);
}

/* ---- when rank 0 says nothing ---- */

/* The ranks of my node that have not begun my call. False: nobody is missing. */
static bool look_around(const struct comm *comm, struct watch_line *out)
{
    struct calls_history mine, theirs;
    struct words words = {out->text, sizeof out->text, 0};
    char call[128];
    uint32_t n = 0;
    calls_history_of(&comm->node, comm->node.self, &mine);
    watch_call_words(mine.signature[mine.number % SHM_CALLS], mine.number, call, sizeof call);
    watch_say_words(&words, "%s: ", call);
    for (uint32_t p = 0; p < comm->node.segment.geometry.n_peers; p++) {
        calls_history_of(&comm->node, p, &theirs);
        if (theirs.number >= mine.number) continue;
        struct watch_report r = {.history = theirs};
        if (n++ == 0) out->last = theirs.rank;
        if (n > 1) watch_say_words(&words, "%s", n == 2 ? "; nor did rank " : ", ");
        if (n > 1) watch_say_words(&words, "%u", theirs.rank);
        if (n > 1) continue;
        watch_rank_words(&words, comm->members, theirs.rank);
        watch_say_words(&words, " has not called it");
        watch_last_call_words(&words, &r);
    }
    out->key = watch_key(WATCH_MISSING, out->last);
    return n > 0;
}

/* Words of rank 0 come down the tree: nothing for so long, and somebody on the way does not pass them on. */
static bool cut_off(const struct comm *comm, uint64_t heard_ns, uint64_t now_ns, struct watch_line *out)
{
    const struct watch *w = &comm->watch;
    uint64_t since_ns = w->began_ns + REPORT_NS > heard_ns ? w->began_ns + REPORT_NS : heard_ns;
    struct words words = {out->text, sizeof out->text, 0};
    uint32_t n_stopped = 0, culprit = UINT32_MAX;
    if (comm->rank == 0 || now_ns < since_ns + WATCH_SILENT_NS) return false;
    for (uint32_t r = comm->rank; r != 0 && !n_stopped;) {
        r = tree_parent(r);
        bool here = comm->members[r].machine == comm->members[comm->rank].machine;
        n_stopped += here && watch_is_stopped(comm->members[r].pid);
        if (n_stopped || culprit == UINT32_MAX) culprit = r;
        if (here && !n_stopped && culprit == r && r != 0) culprit = UINT32_MAX; /* it runs: somebody behind it */
    }
    if (w->number != WATCH_UNCOUNTED) watch_say_words(&words, "%s: ", w->what);
    watch_rank_words(&words, comm->members, culprit);
    watch_say_words(&words, " has not answered for %.1f s: its process is stopped%s", (double)(now_ns - since_ns) / 1e9,
                    n_stopped ? " (SIGSTOP, or a debugger)" : ", or its host is not reachable");
    if (!n_stopped && culprit) watch_say_words(&words, "; or this is so of one between it and rank 0");
    if (!n_stopped && w->state.n_troubles) watch_say_words(&words, "; lanes of this rank are down: %s", w->state.why);
    out->key = watch_key(WATCH_SILENT, culprit);
    out->last = culprit;
    return true;
}

/* Lock held. What rank 0 says, who knows more, and where it says nothing, what this rank sees itself. */
static void renew(struct comm *comm, uint64_t now_ns)
{
    struct watch *w = &comm->watch;
    struct watch_line line = {.last = UINT32_MAX}, cut = {.last = UINT32_MAX};
    bool fresh = w->by_all && now_ns - w->heard_ns < WATCH_SILENT_NS;
    if (fresh || (w->by_all && comm->rank == 0)) return;
    if (cut_off(comm, w->heard_ns, now_ns, &cut)) {
        w->line = cut;
        w->by_all = false;
    } else if (!w->by_all && w->number != WATCH_UNCOUNTED) {
        if (!look_around(comm, &line)) line.text[0] = 0;
        w->line = line;
    }
}

void watch_told(struct comm *comm, uint64_t number, uint16_t key, const char *text)
{
    struct watch *w = &comm->watch;
    pthread_mutex_lock(&w->lock);
    if (w->stalled && (w->stalled == number || (number != WATCH_UNCOUNTED && w->stalled < number))) {
        const char *rank = strstr(text, "rank "); /* the first that it names */
        bool late = key >> 12 == WATCH_MISSING || key >> 12 == WATCH_SILENT;
        snprintf(w->line.text, sizeof w->line.text, "%s", text);
        w->line.key = key;
        w->line.last = late && rank ? (uint32_t)strtoul(rank + 5, NULL, 10) : UINT32_MAX;
        w->by_all = true;
        w->heard_ns = rail_now_ns();
    }
    pthread_mutex_unlock(&w->lock);
}

/* ---- speaking ---- */

#define OWN_KEY 1 /* what only this rank says */

/* Of a send or a receive: whom for, and what rank 0 knows of why. */
static void waiting_words(const char *what, const struct watch_line *line, char *out, size_t bytes)
{
    struct words words = {out, bytes, 0};
    watch_say_words(&words, "%s%s%s", what, is_set(line) ? "; " : "", is_set(line) ? line->text : "");
}

static void speak(struct watch *w, uint64_t waited_ns, const char *text, const struct watch_line *line)
{
    uint16_t key = is_set(line) ? line->key : OWN_KEY;
    double waited_s = (double)waited_ns / 1e9;
    uint64_t patience_ns = (uint64_t)rail_param_int(RAIL_PARAM_WATCH_S) * RAIL_NS_PER_S;
    bool news = w->said_key != key && w->n_said < SAID_MOST;
    if (news) RAIL_INFO(RAIL_INIT | RAIL_RAS, "waiting %.1f s: %s", waited_s, text);
    if (news) w->said_key = key;
    if (news) w->n_said++;
    if (line->last != UINT32_MAX) w->late = line->last;
    if (!w->warned && patience_ns && waited_ns >= patience_ns) {
        RAIL_WARN("waiting %.1f s: %s", waited_s, text);
        w->warned = true;
    }
    (void)rail_fail_quietly(RAIL_NOT_YET, "waiting %.1f s: %s", waited_s, text);
}

bool watch_due(const struct comm *comm) { return rail_now_ns() - comm->watch.looked_ns >= LOOK_EVERY_NS; }

/* Looks and reports. True when it is time to speak. */
static bool look_and_report(struct comm *comm, uint64_t number, const struct waits *waits, uint64_t now_ns)
{
    struct watch *w = &comm->watch;
    if (w->number != number) begin(comm, number, now_ns);
    look(comm, waits, now_ns);
    if (comm->rank != 0) report(comm, now_ns);
    else if (now_ns - w->began_ns >= REPORT_NS) watch_inquire(comm, number);
    if (now_ns - w->began_ns < PATIENCE_NS || now_ns - w->spoke_ns < SPEAK_EVERY_NS) return false;
    w->spoke_ns = now_ns;
    return true;
}

void watch_look(struct comm *comm, const struct waits *waits)
{
    struct watch *w = &comm->watch;
    struct watch_line line;
    uint64_t now_ns = rail_now_ns();
    if (comm->node.calls == 0) return; /* it waits for a message or a signal, and no collective was called yet */
    if (!look_and_report(comm, comm->node.calls, waits, now_ns)) return;
    pthread_mutex_lock(&w->lock);
    renew(comm, now_ns);
    line = w->line;
    pthread_mutex_unlock(&w->lock);
    if (is_set(&line)) speak(w, now_ns - w->began_ns, line.text, &line);
}

void watch_say(struct comm *comm, const struct waits *waits, const char *text)
{
    struct watch *w = &comm->watch;
    struct watch_line line;
    char all[2 * WATCH_TEXT];
    uint64_t now_ns = rail_now_ns();
    if (!look_and_report(comm, WATCH_UNCOUNTED, waits, now_ns)) return;
    pthread_mutex_lock(&w->lock);
    snprintf(w->what, sizeof w->what, "%s", text);
    renew(comm, now_ns);
    line = w->line;
    pthread_mutex_unlock(&w->lock);
    waiting_words(text, &line, all, sizeof all);
    speak(w, now_ns - w->began_ns, all, &line);
}

/* ---- the end ---- */

/* Who held it up now, and how often lately: ": rank 2 (host h1, pid 77) held it up, in 3 of the last 4 stalls, 12.5 s
 * in all". */
static void straggler_words(struct comm *comm, uint32_t rank, double waited_s, char *out, size_t bytes)
{
    struct watch *w = &comm->watch;
    struct words words = {out, bytes, 0};
    uint32_t n = 0, kept;
    double all_s = 0;
    out[0] = 0;
    if (rank >= comm->n_ranks) return;
    w->stalls[w->n_stalls % WATCH_STALLS].rank = rank;
    w->stalls[w->n_stalls++ % WATCH_STALLS].s = waited_s;
    kept = w->n_stalls < WATCH_STALLS ? w->n_stalls : WATCH_STALLS;
    for (uint32_t i = 0; i < kept; i++)
        if (w->stalls[i].rank == rank) n++, all_s += w->stalls[i].s;
    watch_say_words(&words, ": ");
    watch_rank_words(&words, comm->members, rank);
    watch_say_words(&words, " held it up");
    if (n > 1) watch_say_words(&words, ", in %u of the last %u stalls, %.1f s in all", n, kept, all_s);
}

void watch_over(struct comm *comm)
{
    struct watch *w = &comm->watch;
    char call[WATCH_TEXT], straggler[160];
    double waited_s = (double)(rail_now_ns() - w->began_ns) / 1e9;
    bool failed = atomic_load(&comm->fault.stop) != 0, said = w->n_said || w->warned;
    watch_elsewhere_drop(comm);
    if (failed) return; /* an abort may want the words yet */
    pthread_mutex_lock(&w->lock);
    snprintf(call, sizeof call, "%s", w->what);
    w->stalled = 0;
    w->line = (struct watch_line){.last = UINT32_MAX};
    w->state = (struct watch_state){0};
    w->state_ns = 0;
    pthread_mutex_unlock(&w->lock);
    uint64_t number = w->number;
    w->number = 0;
    if (!said) return;
    call[strcspn(call, ":")] = 0;
    straggler_words(comm, number == WATCH_UNCOUNTED ? UINT32_MAX : w->late, waited_s, straggler, sizeof straggler);
    if (w->warned) RAIL_WARN("%s went on after %.1f s%s", call, waited_s, straggler);
    else RAIL_INFO(RAIL_INIT | RAIL_RAS, "%s went on after %.1f s%s", call, waited_s, straggler);
    (void)rail_fail_quietly(RAIL_NOT_YET, "%s went on after %.1f s%s", call, waited_s, straggler);
}

void watch_words(struct comm *comm, char *out, size_t bytes)
{
    struct watch *w = &comm->watch;
    struct watch_line line = {.last = UINT32_MAX};
    char all[2 * WATCH_TEXT];
    out[0] = 0;
    pthread_mutex_lock(&w->lock);
    bool counted = w->stalled && w->stalled != WATCH_UNCOUNTED;
    if (counted && !is_set(&w->line) && !w->by_all && look_around(comm, &line)) w->line = line;
    if (counted) snprintf(all, sizeof all, "%s", is_set(&w->line) ? w->line.text : "");
    else waiting_words(w->what, &w->line, all, sizeof all);
    if (w->stalled && all[0]) snprintf(out, bytes, "; it waited in %.*s", WATCH_TEXT, all);
    pthread_mutex_unlock(&w->lock);
}
