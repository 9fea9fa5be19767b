/* watch_verdict.c - see watch_verdict.h. What is sure comes first: a rank that does not answer, one that has not
 * called, a lane that is down; only where all are in the call and all lanes up do the waits themselves tell: follow
 * them to the rank that waits for nobody. */
#include "core/watch_verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "bootstrap/tree.h"

enum { NAMED_MOST = 2 };                       /* ranks described; the others are listed */
#define FRESH_MS 600                           /* who waits looks every 50 ms: older, and the rank waits no more */
#define INSIDE_NS RAIL_NS_PER_S                /* before a rank that came is expected to do something, or to wait */
#define STILL_MS 1000                          /* nothing moved for this long: a stall */
#define RING_MS 3000                           /* before "all wait for one "
                                                         "another": lanes are repaired within a second */
#define SLOW_MS 3000                           /* a rank that is starved for a second is no slow one: three in a row */
#define WAITS_MUCH 600                         /* thousandths of a second: above, a rank waits for others */
#define ABSENT_MUCH 400                        /* above, it is not there to wait, and not there to go on */
#define ABSENT_LITTLE 200

/* ---- what is known of a rank ---- */

static const struct watch_note *note_of(const struct watch_view *v, uint32_t rank) { return &v->notes[rank]; }

static bool answered(const struct watch_view *v, uint32_t rank)
{
    return note_of(v, rank)->at_ns && note_of(v, rank)->at_ns >= v->asked_ns;
}

static uint64_t silent_ns(const struct watch_view *v, uint32_t rank)
{
    uint64_t at_ns = note_of(v, rank)->at_ns, since_ns = at_ns > v->first_asked_ns ? at_ns : v->first_asked_ns;
    return answered(v, rank) || v->now_ns < since_ns ? 0 : v->now_ns - since_ns;
}

/* In the call that this is about, as far as was heard last. */
static bool inside(const struct watch_view *v, uint32_t rank)
{
    const struct watch_report *r = &note_of(v, rank)->last;
    if (v->number == WATCH_UNCOUNTED) return r->state.number == WATCH_UNCOUNTED;
    return note_of(v, rank)->at_ns && r->history.number == v->number && r->history.left_ms == 0;
}

static bool has_called(const struct watch_view *v, uint32_t rank)
{
    return note_of(v, rank)->at_ns && note_of(v, rank)->last.history.number >= v->number;
}

/* For whom it waits in whatever call it is in; NULL: it does not. */
static const struct waits *waits_of(const struct watch_view *v, uint32_t rank)
{
    const struct watch_report *r = &note_of(v, rank)->last;
    bool there = r->state.number == WATCH_UNCOUNTED || (r->state.number == r->history.number && r->history.left_ms == 0);
    uint64_t age_ms = r->state.looked_ms;
    there &= r->state.number && age_ms < FRESH_MS && r->state.waits.n;
    return note_of(v, rank)->at_ns && there ? &r->state.waits : NULL;
}

static const struct watch_report *waiter_of(const struct watch_view *v)
{
    for (uint32_t r = 0; r < v->n_ranks; r++)
        if (inside(v, r)) return &note_of(v, r)->last;
    return NULL;
}

bool watch_is_over(const struct watch_view *v)
{
    for (uint32_t r = 0; r < v->n_ranks; r++)
        if (inside(v, r) && (!answered(v, r) || v->number != WATCH_UNCOUNTED || waits_of(v, r))) return false;
    return true;
}

/* ---- a list of culprits ---- */

struct list {
    const struct watch_view *view;
    struct words words;
    const char *more; /* between the described ones and the listed */
    uint32_t n, first;
};

static struct list list_begin(const struct watch_view *v, struct watch_line *out, const char *more)
{
    struct list l = {.view = v, .words = {out->text, sizeof out->text, 0}, .more = more};
    const struct watch_report *waiter = waiter_of(v);
    char call[128];
    if (v->number == WATCH_UNCOUNTED || !waiter) return l;
    watch_call_words(waiter->history.signature[v->number % SHM_CALLS], v->number, call, sizeof call);
    watch_say_words(&l.words, "%s: ", call);
    return l;
}

/* True: to be described; else its number is enough. */
static bool list_add(struct list *l, uint32_t rank)
{
    if (l->n) watch_say_words(&l->words, "%s", l->n < NAMED_MOST ? "; " : l->n == NAMED_MOST ? l->more : ", ");
    if (!l->n) l->first = rank;
    if (l->n++ >= NAMED_MOST) {
        watch_say_words(&l->words, "%u", rank);
        return false;
    }
    watch_rank_words(&l->words, l->view->members, rank);
    return true;
}

static bool list_end(const struct list *l, enum watch_kind kind, struct watch_line *out)
{
    if (l->n == 0) return false;
    out->key = watch_key(kind, l->first);
    out->last = kind == WATCH_MISSING || kind == WATCH_SILENT || kind == WATCH_STUCK ? l->first : UINT32_MAX;
    return true;
}

/* ---- who does not answer ---- */

static bool is_silent(const struct watch_view *v, uint32_t rank)
{
    uint64_t ns = silent_ns(v, rank);
    if (ns <= (note_of(v, rank)->stopped ? WATCH_STOPPED_NS : WATCH_SILENT_NS)) return false;
    return v->number == WATCH_UNCOUNTED || !has_called(v, rank) || inside(v, rank);
}

/* Answers come up the tree: who is below a silent rank cannot be heard. */
static bool behind_a_silent_one(const struct watch_view *v, uint32_t rank)
{
    for (uint32_t above = rank; above != 0;) {
        above = tree_parent(above);
        if (!answered(v, above) && silent_ns(v, above) > 0) return true;
    }
    return false;
}

static bool silence(const struct watch_view *v, struct watch_line *out)
{
    struct list l = list_begin(v, out, "; nor has rank ");
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        if (!is_silent(v, r) || (behind_a_silent_one(v, r) && !note_of(v, r)->stopped)) continue;
        if (!list_add(&l, r)) continue;
        watch_say_words(&l.words, " has not answered for %.1f s: its process is "
                                  "stopped%s", (double)silent_ns(v, r) / 1e9,
                        note_of(v, r)->stopped ? " (SIGSTOP, or a debugger)" : ", or its host is not reachable");
    }
    char why[200];
    bool unreachable = l.n && !note_of(v, l.first)->stopped && watch_blame(v, true, why, sizeof why);
    if (unreachable) watch_say_words(&l.words, "; %s", why);
    return list_end(&l, WATCH_SILENT, out);
}

/* ---- who has not called ---- */

static bool missing(const struct watch_view *v, uint32_t rank) { return answered(v, rank) && !has_called(v, rank); }

/* In an earlier call of this communicator. */
static bool behind(const struct watch_view *v, uint32_t rank)
{
    const struct watch_report *r = &note_of(v, rank)->last;
    return missing(v, rank) && r->history.number && !r->history.left_ms;
}

static uint32_t of_process(const struct watch_view *v, uint64_t process, uint32_t *rank)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < v->n_ranks; r++)
        if (watch_process_of(&v->members[r]) == process && n++ == 0) *rank = r;
    return n;
}

/* A rank that waits here and that `late` waits for elsewhere; false: none surely. */
static bool crossed_with(const struct watch_view *v, uint32_t late, uint32_t *out)
{
    const struct watch_elsewhere *e = &note_of(v, late)->last.state.elsewhere;
    uint32_t first = 0, n = e->number ? of_process(v, e->process, &first) : 0;
    if (n == 0) return false;
    if (!e->thread) {
        *out = first;
        return n == 1 && first != late && inside(v, first);
    }
    for (uint32_t r = first; r < v->n_ranks; r++)
        if (r != late && inside(v, r) && note_of(v, r)->last.state.thread == e->thread &&
            watch_process_of(&v->members[r]) == e->process) {
            *out = r;
            return true;
        }
    return false;
}

static bool crossed(const struct watch_view *v, struct watch_line *out)
{
    char call[128], other[128];
    uint32_t waiting;
    for (uint32_t late = 0; late < v->n_ranks; late++) {
        if (v->number == WATCH_UNCOUNTED || !missing(v, late) || !crossed_with(v, late, &waiting)) continue;
        const struct watch_report *w = &note_of(v, waiting)->last;
        const struct watch_elsewhere *e = &note_of(v, late)->last.state.elsewhere;
        struct words words = {out->text, sizeof out->text, 0};
        watch_call_words(w->history.signature[v->number % SHM_CALLS], v->number, call, sizeof call);
        watch_call_words(e->signature, e->number, other, sizeof other);
        watch_say_words(&words, "%s: deadlock between communicators: ", call);
        watch_rank_words(&words, v->members, waiting);
        watch_say_words(&words, " waits in it for ");
        watch_rank_words(&words, v->members, late);
        watch_say_words(&words, ", which waits for that one in %s of another communicator. Make the calls in the same "
                        "order on all ranks", other);
        out->key = watch_key(WATCH_CROSSED, late);
        out->last = UINT32_MAX;
        return true;
    }
    return false;
}

/* The earliest call that a missing rank is still in. */
static uint64_t earliest(const struct watch_view *v)
{
    uint64_t number = UINT64_MAX;
    for (uint32_t r = 0; r < v->n_ranks; r++)
        if (behind(v, r) && note_of(v, r)->last.history.number < number) number = note_of(v, r)->last.history.number;
    return number;
}

/* Who is still in a call may wait there for one that has left none yet: those furthest back are to blame. */
static bool absence(const struct watch_view *v, struct watch_line *out)
{
    if (v->number == WATCH_UNCOUNTED) return false;
    struct list l = list_begin(v, out, "; nor did rank ");
    uint64_t first = earliest(v);
    bool some_outside = false;
    for (uint32_t r = 0; r < v->n_ranks; r++) some_outside |= missing(v, r) && !behind(v, r);
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        bool waits = behind(v, r) && (some_outside || note_of(v, r)->last.history.number > first);
        if (!missing(v, r) || waits || !list_add(&l, r)) continue;
        watch_say_words(&l.words, " has not called it");
        watch_last_call_words(&l.words, &note_of(v, r)->last);
    }
    return list_end(&l, WATCH_MISSING, out);
}

/* Those who are missing are in an earlier call themselves: what holds them up there is what holds up all. */
static bool earlier(const struct watch_view *v, struct watch_view *out)
{
    uint64_t number = v->number;
    for (uint32_t r = 0; r < v->n_ranks && v->number != WATCH_UNCOUNTED; r++) {
        if (!missing(v, r)) continue;
        if (!behind(v, r)) return false;
        if (note_of(v, r)->last.history.number < number) number = note_of(v, r)->last.history.number;
    }
    *out = *v;
    out->number = number;
    return number != v->number;
}

/* ---- lanes ---- */

static bool lanes(const struct watch_view *v, struct watch_line *out)
{
    struct list l = list_begin(v, out, "");
    char text[WATCH_TEXT];
    if (!watch_blame(v, true, text, sizeof text)) return false;
    for (uint32_t r = 0; r < v->n_ranks; r++) { /* one wait that runs into it, as an example */
        const struct watch_report *rep = &note_of(v, r)->last;
        const struct waits *w = waits_of(v, r);
        for (uint32_t t = 0; w && t < rep->state.n_troubles && t < WATCH_TROUBLES && l.n == 0; t++)
            for (uint32_t i = 0; i < w->n && i < WAITS_MOST && l.n == 0; i++)
                if (rep->state.troubles[t].unreachable && w->on[i].rank == rep->state.troubles[t].rank &&
                    w->on[i].rank < v->n_ranks) {
                    list_add(&l, r);
                    watch_say_words(&l.words, " waits for ");
                    watch_rank_words(&l.words, v->members, w->on[i].rank);
                    watch_say_words(&l.words, ": ");
                }
    }
    watch_say_words(&l.words, "%s", text);
    out->key = (uint16_t)(watch_key(WATCH_LANES, 0) | (rail_hash64(text, strcspn(text, "0123456789"), 0) & 0xff));
    out->last = UINT32_MAX;
    return true;
}

/* ---- whom do all wait for ---- */

static bool is_awaited(const struct watch_view *v, uint32_t rank)
{
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        const struct waits *w = r == rank ? NULL : waits_of(v, r);
        for (uint32_t i = 0; w && i < w->n && i < WAITS_MOST; i++)
            if (w->on[i].rank == rank) return true;
    }
    return false;
}

/* Every rank in the call has stood still for a second; nobody who only left it counts. */
static bool stands_still(const struct watch_view *v, uint32_t *still_ms)
{
    *still_ms = UINT32_MAX;
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        if (!answered(v, r)) return false;
        if (!inside(v, r) || !waits_of(v, r)) continue;
        uint32_t ms = note_of(v, r)->last.state.still_ms;
        if (ms < *still_ms) *still_ms = ms;
    }
    return *still_ms != UINT32_MAX && *still_ms >= STILL_MS;
}

static unsigned percent(const struct waits *w)
{
    return w->total && w->done <= w->total ? (unsigned)(100 * ((double)w->done / (double)w->total)) : 0;
}

/* Of those in the call, who has come furthest. */
static const struct waits *furthest(const struct watch_view *v)
{
    const struct waits *most = NULL;
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        const struct waits *w = inside(v, r) ? waits_of(v, r) : NULL;
        if (w && w->total && (!most || w->done > most->done)) most = w;
    }
    return most;
}

/* It did not come only just now. */
static bool is_settled(const struct watch_view *v, uint32_t rank)
{
    const struct watch_note *n = note_of(v, rank);
    return n->inside_ns && v->now_ns >= n->inside_ns + INSIDE_NS;
}

/* In the call, waits for nobody, and is waited for: it is stuck where we cannot see, or gets no core. */
static bool stuck(const struct watch_view *v, uint32_t still_ms, struct watch_line *out)
{
    struct list l = list_begin(v, out, "; nor does rank ");
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        if (!inside(v, r) || waits_of(v, r) || !is_awaited(v, r)) continue;
        if (!is_settled(v, r) || !list_add(&l, r)) continue;
        watch_say_words(&l.words, " has called it, waits for nobody, and has done nothing for %.1f "
                                  "s", (double)still_ms / 1e3);
    }
    if (l.n && furthest(v)) watch_say_words(&l.words, "; the others stand at %u %%", percent(furthest(v)));
    return list_end(&l, WATCH_STUCK, out);
}

/* All wait for others that wait. */
static bool ring(const struct watch_view *v, uint32_t still_ms, struct watch_line *out)
{
    struct list l = list_begin(v, out, "");
    char text[200];
    uint32_t n = 0;
    if (still_ms < RING_MS) return false;
    watch_say_words(&l.words, "all wait for one another and nothing has moved for %.1f s: ", (double)still_ms / 1e3);
    for (uint32_t r = 0; r < v->n_ranks && n < 4; r++) {
        const struct waits *w = inside(v, r) ? waits_of(v, r) : NULL;
        if (!w || w->on[0].rank >= v->n_ranks) continue;
        watch_say_words(&l.words, "%srank %u (host %s) for %s rank %u (host "
                                  "%s)", n++ ? ", " : "", r, v->members[r].host_name,
                        w->on[0].kind == WAITS_FOR_DATA ? "data of" : "room at", w->on[0].rank,
                        v->members[w->on[0].rank].host_name);
    }
    if (n == 0) return false;
    if (watch_blame(v, false, text, sizeof text)) watch_say_words(&l.words, "; %s", text);
    out->key = watch_key(WATCH_RING, 0);
    out->last = UINT32_MAX;
    return true;
}

/* Whether a rank waits for others, holds them up, or neither can be told. Who waits comes by every 50 ms at the
 * latest; who has its data and works does not, nor who is not running. Between nodes data take their time on the
 * way, and everybody waits for the network: nobody is called slow there who comes by. */
enum pace { PACE_UNKNOWN, PACE_WAITS, PACE_HOLDS_UP };

static enum pace pace_of(const struct watch_view *v, uint32_t rank)
{
    const struct watch_state *s = &note_of(v, rank)->last.state;
    bool came = s->number == v->number, gone = !came || s->looked_ms >= SLOW_MS;
    if (gone) return v->now_ns >= note_of(v, rank)->inside_ns + SLOW_MS * RAIL_NS_PER_MS ? PACE_HOLDS_UP : PACE_UNKNOWN;
    if (s->absent == UINT32_MAX || s->waited == UINT32_MAX) return PACE_UNKNOWN;
    if (s->absent >= ABSENT_MUCH) return PACE_HOLDS_UP;
    if (s->waited >= WAITS_MUCH && s->absent <= ABSENT_LITTLE) return PACE_WAITS;
    return PACE_UNKNOWN;
}

/* One holds up all others, which wait for most of the time: they would be faster. */
static bool slow(const struct watch_view *v, struct watch_line *out)
{
    uint32_t culprit = UINT32_MAX, least = 1000;
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        if (!answered(v, r) || !inside(v, r) || !is_settled(v, r)) return false;
        enum pace pace = pace_of(v, r);
        uint32_t waited = note_of(v, r)->last.state.waited;
        if (pace == PACE_UNKNOWN || (pace == PACE_HOLDS_UP && culprit != UINT32_MAX)) return false;
        if (pace == PACE_HOLDS_UP) culprit = r;
        else least = waited < least ? waited : least;
    }
    if (culprit == UINT32_MAX || !is_awaited(v, culprit)) return false;
    const struct watch_state *s = &note_of(v, culprit)->last.state;
    struct list l = list_begin(v, out, "");
    list_add(&l, culprit);
    watch_say_words(&l.words, " is slow: ");
    bool known = s->number == v->number && s->waits.total; /* else it was looked at between two steps */
    if (known) watch_say_words(&l.words, "it has done %u %% ", percent(&s->waits));
    if (known && s->bytes_per_s_k) watch_say_words(&l.words, "at %.1f MB/s ", s->bytes_per_s_k / 1e3);
    if (known) watch_say_words(&l.words, "while ");
    if (furthest(v)) watch_say_words(&l.words, "the others stand at %u %% and wait", percent(furthest(v)));
    else watch_say_words(&l.words, "the others wait");
    watch_say_words(&l.words, " for it %u %% of the time", least / 10);
    return list_end(&l, WATCH_SLOW, out);
}

/* ---- the order ---- */

/* Of a send or a receive each rank knows itself whom it waits for; what is said here is why that one does not come. */
static bool beyond_a_message(const struct watch_view *v, uint32_t still_ms, struct watch_line *out)
{
    char call[128];
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        const struct watch_elsewhere *e = &note_of(v, r)->last.state.elsewhere;
        if (!answered(v, r) || inside(v, r) || !is_awaited(v, r)) continue;
        struct list l = list_begin(v, out, "");
        list_add(&l, r);
        watch_call_words(e->signature, e->number, call, sizeof call);
        if (e->number) watch_say_words(&l.words, " waits in %s of another communicator", call);
        else if (behind(v, r) || note_of(v, r)->last.history.left_ms == 0) watch_last_call_words(&l.words, &note_of(v, r)->last);
        else watch_say_words(&l.words, " is in no call");
        return list_end(&l, WATCH_MISSING, out);
    }
    return ring(v, still_ms, out);
}

static bool within(const struct watch_view *v, struct watch_line *out)
{
    uint32_t still_ms;
    if (lanes(v, out)) return true;
    bool still = stands_still(v, &still_ms);
    if (v->number == WATCH_UNCOUNTED) return still_ms != UINT32_MAX && beyond_a_message(v, still_ms, out);
    if (still && stuck(v, still_ms, out)) return true;
    if (still && ring(v, still_ms, out)) return true;
    return slow(v, out);
}

bool watch_conclude(const struct watch_view *view, struct watch_line *out)
{
    struct watch_view v;
    *out = (struct watch_line){.last = UINT32_MAX};
    if (!waiter_of(view)) return false;
    if (silence(view, out) || crossed(view, out)) return true;
    out->text[0] = 0;
    if (earlier(view, &v) && (silence(&v, out) || within(&v, out))) return true;
    out->text[0] = 0;
    if (absence(view, out) || within(view, out)) return true;
    out->text[0] = 0;
    return false;
}
