/* watch.c - see watch.h. */
#include "core/watch.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"
#include "core/comm.h"
#include "engine/signature.h"

#define PATIENCE_NS RAIL_NS_PER_S                /* a wait this long is looked into */
#define LONG_NS (100 * RAIL_NS_PER_MS)           /* what the engine calls long, when it first tells us */
#define LOOK_EVERY_NS (500 * RAIL_NS_PER_MS)
#define ASK_EVERY_NS RAIL_NS_PER_S
#define ANSWERS_NS (300 * RAIL_NS_PER_MS)        /* for the answers to come up the tree */
#define SILENT_NS (4 * RAIL_NS_PER_S)            /* asked this long, a service thread answers on any machine */
enum { NAMED_MOST = 2 };                         /* missing ranks described; the others are listed */

void watch_init(struct watch *w) { pthread_mutex_init(&w->lock, NULL); }

void watch_clear(struct watch *w)
{
    free(w->notes);
    w->notes = NULL;
}

/* ---- words ---- */

/* "AllReduce #42 of 1000 float32, sum" */
static void call_words(uint64_t signature, uint64_t number, char *out, size_t bytes)
{
    char text[96];
    signature_describe(signature, text, sizeof text);
    size_t name = strcspn(text, " ");
    snprintf(out, bytes, "%.*s #%" PRIu64 "%s", (int)name, text, number, text + name);
}

struct words { char *out; size_t bytes, used; };

__attribute__((format(printf, 2, 3))) static void say(struct words *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(w->out + w->used, w->bytes - w->used, format, args);
    va_end(args);
    if (n > 0) w->used = w->used + (size_t)n < w->bytes ? w->used + (size_t)n : w->bytes - 1;
}

static void describe(struct words *w, const struct comm *comm, uint32_t rank, const struct calls_history *last,
                     uint64_t silent_ns)
{
    char call[128];
    const struct member *m = &comm->members[rank];
    say(w, "rank %u (host %s, pid %d)", rank, m->host_name, m->pid);
    if (silent_ns) {
        say(w, " has not answered for %.1f s: its process is stopped, or its host is not reachable",
            (double)silent_ns / 1e9);
        return;
    }
    say(w, " has not called it");
    if (last->number == 0) {
        say(w, " (it has made no call yet)");
        return;
    }
    call_words(last->signature[last->number % SHM_CALLS], last->number, call, sizeof call);
    if (last->left_ms)
        say(w, " (its last call was %s; it left that %.1f s ago)", call, (double)(last->left_ms - 1) / 1e3);
    else
        say(w, " (it is still in %s)", call);
}

/* The missing ranks of a stall, one after the other. */
struct missing {
    const struct comm *comm;
    struct words words;
    uint32_t n;
};

static void add_missing(struct missing *m, uint32_t rank, const struct calls_history *last, uint64_t silent_ns)
{
    say(&m->words, m->n == 0 ? ": " : m->n < NAMED_MOST ? "; " : m->n == NAMED_MOST ? "; nor did rank " : ", ");
    if (m->n < NAMED_MOST)
        describe(&m->words, m->comm, rank, last, silent_ns);
    else
        say(&m->words, "%u", rank);
    m->n++;
}

static struct missing missing_begin(const struct comm *comm, uint64_t signature, uint64_t number, char *out,
                                    size_t bytes)
{
    struct missing m = {.comm = comm, .words = {out, bytes, 0}};
    char call[128];
    call_words(signature, number, call, sizeof call);
    say(&m.words, "%s", call);
    return m;
}

/* ---- what this rank sees ---- */

void watch_history(struct comm *comm, uint64_t waited_ns, struct calls_history *out)
{
    calls_history_of(&comm->node, comm->node.self, out);
    out->waited_ms = (uint32_t)(waited_ns / RAIL_NS_PER_MS);
}

/* The ranks of my node that have not begun my call. False: nobody is missing. */
static bool look_around(const struct comm *comm, char *out, size_t bytes)
{
    struct calls_history mine, theirs;
    calls_history_of(&comm->node, comm->node.self, &mine);
    struct missing m = missing_begin(comm, mine.signature[mine.number % SHM_CALLS], mine.number, out, bytes);
    for (uint32_t p = 0; p < comm->node.segment.geometry.n_peers; p++) {
        calls_history_of(&comm->node, p, &theirs);
        if (theirs.number < mine.number) add_missing(&m, theirs.rank, &theirs, 0);
    }
    return m.n > 0;
}

/* ---- what rank 0 hears ---- */

/* Lock held. */
static void note(struct comm *comm, const struct calls_history *h)
{
    struct watch *w = &comm->watch;
    if (!w->notes) w->notes = calloc(comm->n_ranks, sizeof *w->notes);
    if (!w->notes || h->rank >= comm->n_ranks) return;
    w->notes[h->rank] = (struct watch_note){*h, rail_now_ns()};
}

/* Lock held. The first rank found that waits in the call asked about: it knows the signature. */
static const struct calls_history *waiter_of(const struct comm *comm)
{
    const struct watch *w = &comm->watch;
    for (uint32_t r = 0; r < comm->n_ranks; r++)
        if (w->notes[r].at_ns && w->notes[r].last.number == w->asked_number) return &w->notes[r].last;
    return NULL;
}

/* Lock held. Who is missing, as far as was answered. */
static bool conclude(struct comm *comm, uint64_t now_ns, char *out, size_t bytes)
{
    struct watch *w = &comm->watch;
    const struct calls_history *waiter = waiter_of(comm);
    if (!waiter) return false;
    struct missing m = missing_begin(comm, waiter->signature[waiter->number % SHM_CALLS], waiter->number, out, bytes);
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        const struct watch_note *n = &w->notes[r];
        uint64_t since_ns = n->at_ns > w->first_asked_ns ? n->at_ns : w->first_asked_ns;
        if (n->at_ns >= w->asked_ns && n->last.number < waiter->number)
            add_missing(&m, r, &n->last, 0);
        else if (n->at_ns < w->asked_ns && now_ns - since_ns > SILENT_NS && n->last.number < waiter->number)
            add_missing(&m, r, &n->last, now_ns - since_ns);
    }
    return m.n > 0;
}

/* Rank 0, any thread. `number`: somebody has waited for PATIENCE_NS in that call. */
static void inquire(struct comm *comm, uint64_t number)
{
    struct watch *w = &comm->watch;
    char text[WATCH_TEXT];
    uint64_t now_ns = rail_now_ns();
    bool ask = false, tell = false;
    pthread_mutex_lock(&w->lock);
    if (number > w->asked_number) {
        w->asked_number = number;
        w->first_asked_ns = now_ns;
        w->asked_ns = w->concluded_ns = 0;
    }
    if (w->asked_ns && now_ns - w->asked_ns >= ANSWERS_NS && w->concluded_ns < w->asked_ns) {
        w->concluded_ns = now_ns;
        tell = conclude(comm, now_ns, text, sizeof text);
    } else if (!w->asked_ns || now_ns - w->asked_ns >= ASK_EVERY_NS) {
        ask = true;
        w->asked_ns = now_ns;
    }
    pthread_mutex_unlock(&w->lock);
    if (tell) {
        watch_word(comm, number, text);
        bootstrap_word(comm->bootstrap, number, text);
    }
    if (!ask) return;
    struct calls_history mine;
    watch_history(comm, 0, &mine);
    pthread_mutex_lock(&w->lock);
    note(comm, &mine);
    pthread_mutex_unlock(&w->lock);
    bootstrap_word(comm->bootstrap, number, "");
}

void watch_reported(struct comm *comm, const struct calls_history *theirs)
{
    pthread_mutex_lock(&comm->watch.lock);
    note(comm, theirs);
    pthread_mutex_unlock(&comm->watch.lock);
    if ((uint64_t)theirs->waited_ms * RAIL_NS_PER_MS >= PATIENCE_NS) inquire(comm, theirs->number);
}

/* Rank 0 asks, with no words, or says who is missing. */
void watch_word(struct comm *comm, uint64_t number, const char *text)
{
    struct watch *w = &comm->watch;
    if (!text[0]) {
        union {
            struct calls_history history;
            uint8_t bytes[BOOTSTRAP_REPORT_BYTES];
        } r = {.bytes = {0}};
        _Static_assert(sizeof r == BOOTSTRAP_REPORT_BYTES, "a history fits a report");
        watch_history(comm, 0, &r.history);
        bootstrap_report(comm->bootstrap, r.bytes);
        return;
    }
    pthread_mutex_lock(&w->lock);
    if (w->stalled == number) {
        snprintf(w->verdict, sizeof w->verdict, "%s", text);
        w->by_all = true;
    }
    pthread_mutex_unlock(&w->lock);
}

/* ---- the thread that waits ---- */

static void begin(struct watch *w, uint64_t number, uint64_t now_ns)
{
    w->number = number;
    w->began_ns = now_ns - LONG_NS;
    w->looked_ns = 0;
    w->warned = false;
    pthread_mutex_lock(&w->lock);
    w->stalled = number;
    w->verdict[0] = 0;
    w->by_all = w->said = false;
    pthread_mutex_unlock(&w->lock);
}

/* Lock held. True when somebody is missing who was not known before, or this is the first word of it. */
static bool renew(struct comm *comm)
{
    struct watch *w = &comm->watch;
    char text[WATCH_TEXT];
    if (!w->by_all) {
        bool missing = look_around(comm, text, sizeof text);
        snprintf(w->verdict, sizeof w->verdict, "%s", missing ? text : "");
    }
    bool first = w->verdict[0] && !w->said;
    w->said |= first;
    return first;
}

static void speak(struct watch *w, uint64_t waited_ns, const char *text, bool first)
{
    double waited_s = (double)waited_ns / 1e9;
    uint64_t patience_ns = (uint64_t)rail_param_int(RAIL_PARAM_WATCH_S) * RAIL_NS_PER_S;
    if (first) RAIL_INFO(RAIL_INIT | RAIL_RAS, "waiting %.1f s: %s", waited_s, text);
    if (!w->warned && patience_ns && waited_ns >= patience_ns) {
        RAIL_WARN("waiting %.1f s: %s", waited_s, text);
        w->warned = true;
    }
    (void)rail_fail_quietly(RAIL_NOT_YET, "waiting %.1f s: %s", waited_s, text);
}

/* False: not so soon after the last time. */
static bool due(struct watch *w, uint64_t number, uint64_t now_ns)
{
    if (w->number != number) begin(w, number, now_ns);
    if (now_ns - w->began_ns < PATIENCE_NS || now_ns - w->looked_ns < LOOK_EVERY_NS) return false;
    w->looked_ns = now_ns;
    return true;
}

void watch_look(struct comm *comm)
{
    struct watch *w = &comm->watch;
    char text[WATCH_TEXT];
    uint64_t now_ns = rail_now_ns();
    if (comm->node.calls == 0) return; /* it waits for a message or a signal, and no collective was called yet */
    bool look = due(w, comm->node.calls, now_ns);
    if (comm->shape.n_nodes > 1 && comm->rank == 0 && now_ns - w->began_ns >= PATIENCE_NS) inquire(comm, w->number);
    if (!look) return;
    pthread_mutex_lock(&w->lock);
    bool first = renew(comm);
    snprintf(text, sizeof text, "%s", w->verdict);
    pthread_mutex_unlock(&w->lock);
    if (text[0]) speak(w, now_ns - w->began_ns, text, first);
}

void watch_say(struct comm *comm, const char *text)
{
    struct watch *w = &comm->watch;
    uint64_t now_ns = rail_now_ns();
    if (!due(w, WATCH_UNCOUNTED, now_ns)) return;
    pthread_mutex_lock(&w->lock);
    bool first = !w->said;
    w->said = true;
    snprintf(w->verdict, sizeof w->verdict, "%s", text);
    pthread_mutex_unlock(&w->lock);
    speak(w, now_ns - w->began_ns, text, first);
}

void watch_over(struct comm *comm)
{
    struct watch *w = &comm->watch;
    char text[WATCH_TEXT];
    double waited_s = (double)(rail_now_ns() - w->began_ns) / 1e9;
    bool failed = atomic_load(&comm->fault.stop) != 0;
    if (failed) return; /* an abort may want the words yet */
    pthread_mutex_lock(&w->lock);
    bool said = w->said;
    snprintf(text, sizeof text, "%s", w->verdict);
    w->stalled = 0;
    w->verdict[0] = 0;
    pthread_mutex_unlock(&w->lock);
    w->number = 0;
    text[strcspn(text, ":")] = 0;
    if (!said) return;
    if (w->warned) RAIL_WARN("%s went on after %.1f s", text, waited_s);
    else RAIL_INFO(RAIL_INIT | RAIL_RAS, "%s went on after %.1f s", text, waited_s);
    (void)rail_fail_quietly(RAIL_NOT_YET, "%s went on after %.1f s", text, waited_s);
}

void watch_words(struct comm *comm, char *out, size_t bytes)
{
    struct watch *w = &comm->watch;
    char text[WATCH_TEXT] = "";
    out[0] = 0;
    pthread_mutex_lock(&w->lock);
    bool counted = w->stalled && w->stalled != WATCH_UNCOUNTED;
    if (counted && !w->verdict[0] && !w->by_all && look_around(comm, text, sizeof text))
        snprintf(w->verdict, sizeof w->verdict, "%s", text);
    if (w->stalled && w->verdict[0]) snprintf(out, bytes, "; it waited in %s", w->verdict);
    pthread_mutex_unlock(&w->lock);
}
