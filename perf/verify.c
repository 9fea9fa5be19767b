/* verify.c - one operation with known inputs into poisoned buffers between guard bands; every rank looks at every element.
 *
 * Also checked: that an out-of-place call leaves its input alone, and that nothing around the buffers was written. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "types.h"

enum { MOST_COMPLAINTS = 8 }; /* lines on stderr per process; the count goes on */

static void complain(struct perf_process *process, const struct perf_rank *rank, const struct perf_case *c,
                     const char *what, uint64_t wrong)
{
    if (atomic_fetch_add(&process->complaints, 1) >= MOST_COMPLAINTS) return;
    fprintf(stderr, "rank %d: %s %zu x %s %s %s: %s (%" PRIu64 " wrong)\n", rank->rank, process->collective->name,
            c->shape.parameter, perf_type_name(c->type), process->collective->uses_op ? perf_op_name(c->op) : "",
            c->in_place ? "in place" : "out of place", what, wrong);
}

static uint64_t check_range(struct perf_process *process, const struct perf_rank *rank, const struct perf_case *c,
                            const union values_table *table, struct values_range range, const void *have, const char *where)
{
    size_t at = 0;
    uint64_t wrong = values_check(c->type, table, range, have, &at);
    if (!wrong) return 0;
    char what[160];
    uint64_t bits = 0, want = values_at(c->type, table, range, at);
    memcpy(&bits, (const char *)have + at * perf_type_bytes(c->type), perf_type_bytes(c->type));
    snprintf(what, sizeof what, "%s element %zu is 0x%" PRIx64 ", expected 0x%" PRIx64, where, at, bits, want);
    complain(process, rank, c, what, wrong);
    return wrong;
}

static void prepare(const struct perf_rank *rank, const struct perf_case *c, uint64_t iteration)
{
    struct perf_rank *r = (struct perf_rank *)(uintptr_t)rank;
    size_t send_bytes = c->shape.send * perf_type_bytes(c->type);
    perf_buffer_poison(&r->receive, perf_case_receive_bytes(c));
    if (!c->in_place) perf_buffer_poison(&r->send, send_bytes);
    struct values_range range = {0, c->shape.send, iteration};
    values_fill(c->type, &rank->input, range, perf_case_send_seen(c, rank));
}

static void spoil(const struct perf_rank *rank, const struct perf_case *c, enum perf_break what, bool after)
{
    size_t bytes = perf_type_bytes(c->type);
    uint8_t *receive = perf_case_receive_seen(c, rank), *send = perf_case_send_seen(c, rank);
    if (what == PERF_BREAK_OUTPUT && after && c->shape.receive) receive[c->shape.receive / 2 * bytes] ^= 0x10;
    if (what == PERF_BREAK_GUARD && after) rank->receive.seen[perf_case_receive_bytes(c)] ^= 0x10;
    /* The highest bit: a sign, or half the range, so that no sum can swallow it by rounding. */
    if (what == PERF_BREAK_INPUT && !after && c->shape.send) send[(c->shape.send / 2 + 1) * bytes - 1] ^= 0x80;
}

static uint64_t check(struct perf_process *process, const struct perf_rank *rank, const struct perf_case *c,
                      uint64_t iteration)
{
    const struct perf_collective *collective = process->collective;
    const uint8_t *receive = perf_case_receive_seen(c, rank);
    uint64_t wrong = 0;
    struct perf_block block;
    for (int i = 0; collective->expect(c->elements, process->n_ranks, rank->rank, c->root, i, &block); i++) {
        struct values_range range = {block.first, block.count, iteration};
        const void *have = receive + block.offset * perf_type_bytes(c->type);
        if (block.source == VALUES_REDUCED) {
            wrong += check_range(process, rank, c, &rank->reduced, range, have, "output");
            continue;
        }
        union values_table table;
        if (values_tables(c->type, c->op, process->n_ranks, block.source, &table, NULL)) perf_die(1, "out of memory");
        wrong += check_range(process, rank, c, &table, range, have, "output");
    }
    size_t guards = perf_buffer_guard_wrong(&rank->receive, perf_case_receive_bytes(c));
    if (guards) complain(process, rank, c, "bytes outside of the receive buffer were written", guards);
    wrong += guards;
    if (!c->in_place) {
        struct values_range range = {0, c->shape.send, iteration};
        wrong += check_range(process, rank, c, &rank->input, range, rank->send.seen, "the input was changed: its");
        guards = perf_buffer_guard_wrong(&rank->send, c->shape.send * perf_type_bytes(c->type));
        if (guards) complain(process, rank, c, "bytes outside of the send buffer were written", guards);
        wrong += guards;
    }
    return wrong;
}

/* Whom --break hits: the last rank, or the root where it alone gets something. */
static int victim_of(const struct perf_process *process, const struct perf_case *c)
{
    struct perf_block block;
    int last = process->n_ranks - 1;
    return process->collective->expect(c->elements, process->n_ranks, last, c->root, 0, &block) ? last : c->root;
}

double perf_verify(struct perf_thread *thread, const struct perf_case *c)
{
    struct perf_process *process = thread->process;
    const struct perf_options *o = process->options;
    uint64_t wrong = 0;
    int victim = victim_of(process, c);
    for (int i = 0; i < o->checks; i++) {
        uint64_t iteration = c->serial * 1000003 + (uint64_t)i;
        for (int r = 0; r < o->ranks_per_thread; r++) {
            prepare(&thread->ranks[r], c, iteration);
            if (thread->ranks[r].rank == victim) spoil(&thread->ranks[r], c, o->break_what, false);
            perf_case_push(c, &thread->ranks[r]);
        }
        perf_issue(thread, c, 1);
        perf_finish(thread);
        for (int r = 0; r < o->ranks_per_thread; r++) {
            perf_case_pull(c, &thread->ranks[r]);
            if (thread->ranks[r].rank == victim) spoil(&thread->ranks[r], c, o->break_what, true);
            wrong += check(process, &thread->ranks[r], c, iteration);
        }
    }
    atomic_fetch_add(&process->wrong, wrong);
    double total = (double)wrong;
    perf_side_reduce(thread, &total, 1, PERF_SIDE_SUM);
    return total >= (double)wrong ? total : (double)wrong; /* a broken sum must not hide what was seen here */
}
