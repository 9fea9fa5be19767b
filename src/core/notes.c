/* notes.c - see notes.h. Everything but notes_watch runs on the service thread. */
#include "core/notes.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/calls.h"

/* Told within a second: a look after the call, one more when it came just after a look, and the news. With very many
 * nodes rank 0 must not drown: a millisecond per node. */
#define LOOK_NS (250 * RAIL_NS_PER_MS)
#define LOOK_PER_NODE_NS RAIL_NS_PER_MS
/* Looks after the last call: reports may be lost, and others may be late. */
enum { LAST_LOOKS = 4 };

static uint64_t next_look(const struct comm *comm)
{
    return rail_now_ns() + LOOK_NS + comm->shape.n_nodes * LOOK_PER_NODE_NS;
}

static void told(struct comm *comm, uint32_t culprit, enum rail_result result)
{
    char text[512];
    snprintf(text, sizeof text, "%s", rail_own_error());
    if (!fault_raise(&comm->fault, result, text)) return;
    bootstrap_tell(comm->bootstrap, culprit, result, text);
    shm_ring(&comm->node.segment, comm->node.self);
}

/* ---- inside the node ---- */

static enum rail_result compare_neighbours(const struct comm *comm, const struct calls_history *mine)
{
    uint32_t n = comm->node.segment.geometry.n_peers, self = comm->node.self;
    struct calls_history theirs;
    calls_history_of(&comm->node, (self + 1) % n, &theirs);
    RAIL_TRY(calls_compare(mine, &theirs));
    calls_history_of(&comm->node, (self + n - 1) % n, &theirs);
    return calls_compare(mine, &theirs);
}

/* ---- between nodes ---- */

static void report(struct comm *comm)
{
    union {
        struct watch_report report;
        uint8_t bytes[BOOTSTRAP_REPORT_BYTES];
    } r = {.bytes = {0}};
    watch_describe_self(comm, 0, &r.report);
    bootstrap_report(comm->bootstrap, r.bytes);
}

/* Rank 0 may have been late when a report came. */
static enum rail_result compare_kept(const struct comm *comm, const struct calls_history *mine)
{
    for (int i = 0; comm->notes.kept && i < COMM_REPORTS; i++)
        if (comm->notes.kept[i].number) RAIL_TRY(calls_compare(mine, &comm->notes.kept[i]));
    return RAIL_OK;
}

/* Compared with my calls, and with those of others that reported: I may be late myself. */
void notes_received(struct comm *comm, const struct calls_history *theirs)
{
    struct calls_history mine, *kept = comm->notes.kept;
    if (!kept) kept = comm->notes.kept = calloc(COMM_REPORTS, sizeof *kept);
    calls_history_of(&comm->node, comm->node.self, &mine);
    enum rail_result result = calls_compare(&mine, theirs);
    for (int i = 0; kept && i < COMM_REPORTS && result == RAIL_OK; i++)
        if (kept[i].rank != theirs->rank) result = calls_compare(&kept[i], theirs);
    if (kept) kept[theirs->rank % COMM_REPORTS] = *theirs;
    if (result != RAIL_OK) told(comm, theirs->rank, result);
}

/* ---- the timer ---- */

static void look(struct service_timer *timer)
{
    struct comm *comm = (struct comm *)(void *)((char *)timer - offsetof(struct comm, notes.timer));
    struct notes *notes = &comm->notes;
    struct calls_history mine;
    if (atomic_load_explicit(&comm->fault.stop, memory_order_relaxed)) return; /* stays `watching`: no more looks */
    calls_history_of(&comm->node, comm->node.self, &mine);
    notes->quiet = mine.number == notes->seen ? notes->quiet + 1 : 0;
    notes->seen = mine.number;
    enum rail_result result = compare_neighbours(comm, &mine);
    bool first = comm->node.self == 0 && comm->shape.n_nodes > 1;
    if (result == RAIL_OK && first && comm->rank == 0) result = compare_kept(comm, &mine);
    if (result != RAIL_OK) {
        told(comm, comm->rank, result);
        return;
    }
    if (first && comm->rank != 0) report(comm);
    bool on = notes->quiet < LAST_LOOKS || atomic_load_explicit(&comm->inside, memory_order_relaxed);
    if (on) service_timer_set(timer, next_look(comm));
    else atomic_store_explicit(&notes->watching, false, memory_order_release);
}

__attribute__((cold)) void notes_watch_slow(struct comm *comm)
{
    if (comm->n_ranks < 2 || !atomic_load_explicit(&comm->joined, memory_order_relaxed)) return;
    atomic_store_explicit(&comm->notes.watching, true, memory_order_relaxed);
    comm->notes.quiet = 0;
    comm->notes.timer.fire = look;
    service_timer_set(&comm->notes.timer, next_look(comm));
}

void notes_stop(struct comm *comm)
{
    if (comm->notes.timer.fire) service_timer_cancel(&comm->notes.timer);
}

void notes_clear(struct comm *comm)
{
    free(comm->notes.kept);
    comm->notes.kept = NULL;
}
