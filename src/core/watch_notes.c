/* watch_notes.c - rank 0: a report of somebody who waits makes it ask everybody, and conclude from the answers. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "core/watch_verdict.h"

#define ASK_EVERY_NS (500 * RAIL_NS_PER_MS)
#define ASK_PER_RANK_NS (200 * RAIL_NS_PER_US)  /* an answer is 1 KB: a thousand ranks are asked every 700 ms, */
#define ASK_EVERY_MOST_NS RAIL_NS_PER_S         /* and more as often as tells the silent from the unasked */
#define ANSWERS_NS (180 * RAIL_NS_PER_MS)       /* for answers to come up the tree: 40 us a hop, and a busy machine */
#define FORGET_NS (3 * RAIL_NS_PER_S)           /* nobody has waited meanwhile: what is asked next is something else */
/* Reports of waiting ranks make rank 0 ask from here on: so that the verdict is there when a second has passed. */
#define WAITED_NS (500 * RAIL_NS_PER_MS)

/* A word to all is a number and a text: the call, and on top of it the line's key. "": a question. " ": nobody is to
 * blame. */
#define KEY_SHIFT 48
#define NUMBER_MASK ((1ull << KEY_SHIFT) - 1)

/* Lock held. */
static void note(struct comm *comm, const struct watch_report *theirs)
{
    struct watch *w = &comm->watch;
    if (!w->notes) w->notes = calloc(comm->n_ranks, sizeof *w->notes);
    if (!w->notes || theirs->history.rank >= comm->n_ranks) return;
    struct watch_note *n = &w->notes[theirs->history.rank];
    uint64_t now_ns = rail_now_ns(), inside_ns = theirs->history.left_ms == 0 && theirs->history.number ? now_ns : 0;
    if (inside_ns && n->inside_ns && n->last.history.number == theirs->history.number) inside_ns = n->inside_ns;
    *n = (struct watch_note){.last = *theirs, .at_ns = now_ns, .inside_ns = inside_ns};
    n->last.state.why[WATCH_WHY - 1] = 0;
}

/* The kernel knows of the processes of this machine. Lock held. */
static void look_at_the_silent(struct comm *comm)
{
    struct watch *w = &comm->watch;
    for (uint32_t r = 0; r < comm->n_ranks; r++) {
        bool here = comm->members[r].machine == comm->members[comm->rank].machine;
        w->notes[r].stopped = here && w->notes[r].at_ns < w->asked_ns && watch_is_stopped(comm->members[r].pid);
    }
}

/* Lock held. False: nothing to be told. */
static bool conclude(struct comm *comm, uint64_t now_ns, struct watch_line *out)
{
    struct watch *w = &comm->watch;
    if (!w->notes) return false;
    look_at_the_silent(comm);
    const struct watch_view view = {
        .members = comm->members,
        .addresses = comm->addresses,
        .notes = w->notes,
        .n_ranks = comm->n_ranks,
        .number = w->asked_number,
        .now_ns = now_ns,
        .asked_ns = w->asked_ns,
        .first_asked_ns = w->first_asked_ns,
    };
    bool found = watch_conclude(&view, out), told = w->told;
    if (!found) snprintf(out->text, sizeof out->text, " ");
    if (!found && watch_is_over(&view)) w->asked_ns = 0; /* what is reported next is asked about anew */
    w->told = found;
    return found || told;
}

/* Lock held. Collectives before messages; the latest call that somebody waits in. */
static void asked_about(struct watch *w, uint64_t number, uint64_t now_ns)
{
    bool anew = !w->asked_ns || now_ns - w->asked_ns > FORGET_NS;
    bool later = number != WATCH_UNCOUNTED && (w->asked_number == WATCH_UNCOUNTED || number > w->asked_number);
    if (!anew && !later) return;
    w->asked_number = number;
    w->first_asked_ns = now_ns;
    w->asked_ns = w->concluded_ns = 0;
}

static uint64_t ask_every_ns(const struct comm *comm)
{
    uint64_t every_ns = ASK_EVERY_NS + comm->n_ranks * ASK_PER_RANK_NS;
    return every_ns < ASK_EVERY_MOST_NS ? every_ns : ASK_EVERY_MOST_NS;
}

static void tell(struct comm *comm, uint64_t number, const struct watch_line *line)
{
    watch_told(comm, number, line->key, line->text);
    bootstrap_word(comm->bootstrap, (number & NUMBER_MASK) | (uint64_t)line->key << KEY_SHIFT, line->text);
}

void watch_inquire(struct comm *comm, uint64_t number)
{
    struct watch *w = &comm->watch;
    struct watch_line line;
    struct watch_report mine;
    uint64_t now_ns = rail_now_ns();
    bool ask = false, told = false;
    pthread_mutex_lock(&w->lock);
    asked_about(w, number, now_ns);
    number = w->asked_number;
    if (w->asked_ns && now_ns - w->asked_ns >= ANSWERS_NS && w->concluded_ns < w->asked_ns) {
        w->concluded_ns = now_ns;
        told = conclude(comm, now_ns, &line);
    } else if (!w->asked_ns || now_ns - w->asked_ns >= ask_every_ns(comm)) {
        ask = true;
        w->asked_ns = now_ns;
    }
    pthread_mutex_unlock(&w->lock);
    if (told) tell(comm, number, &line);
    if (!ask) return;
    watch_describe_self(comm, 0, &mine);
    pthread_mutex_lock(&w->lock);
    note(comm, &mine);
    pthread_mutex_unlock(&w->lock);
    bootstrap_word(comm->bootstrap, number & NUMBER_MASK, "");
}

void watch_reported(struct comm *comm, const struct watch_report *theirs)
{
    pthread_mutex_lock(&comm->watch.lock);
    note(comm, theirs);
    pthread_mutex_unlock(&comm->watch.lock);
    if ((uint64_t)theirs->history.waited_ms * RAIL_NS_PER_MS >= WAITED_NS)
        watch_inquire(comm, theirs->state.number == WATCH_UNCOUNTED ? WATCH_UNCOUNTED : theirs->history.number);
}

/* At any other rank: rank 0 asks, or tells. */
void watch_word(struct comm *comm, uint64_t number, const char *text)
{
    union {
        struct watch_report report;
        uint8_t bytes[BOOTSTRAP_REPORT_BYTES];
    } r = {.bytes = {0}};
    uint64_t call = number & NUMBER_MASK;
    pthread_mutex_lock(&comm->watch.lock);
    comm->watch.heard_ns = rail_now_ns();
    pthread_mutex_unlock(&comm->watch.lock);
    if (text[0]) {
        watch_told(comm, call == NUMBER_MASK ? WATCH_UNCOUNTED : call, (uint16_t)(number >> KEY_SHIFT), text);
        return;
    }
    watch_describe_self(comm, 0, &r.report);
    bootstrap_report(comm->bootstrap, r.bytes);
}
