/* program.c - what every part uses: where a case's buffers lie, issuing it, and giving up. See program.h. */
#include "program.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "types.h"

/* How far behind the beginning of the receive buffer an in-place call's buffers begin. */
static size_t send_at(const struct perf_case *c, const struct perf_rank *rank)
{
    return c->in_place ? c->shape.inplace_send_rank * (size_t)rank->rank * perf_type_bytes(c->type) : 0;
}
static size_t receive_at(const struct perf_case *c, const struct perf_rank *rank)
{
    return c->in_place ? c->shape.inplace_receive_rank * (size_t)rank->rank * perf_type_bytes(c->type) : 0;
}

void *perf_case_send(const struct perf_case *c, const struct perf_rank *rank)
{
    return (c->in_place ? rank->receive.data : rank->send.data) + send_at(c, rank);
}

void *perf_case_receive(const struct perf_case *c, const struct perf_rank *rank)
{
    return rank->receive.data + receive_at(c, rank);
}

void *perf_case_send_seen(const struct perf_case *c, const struct perf_rank *rank)
{
    return (c->in_place ? rank->receive.seen : rank->send.seen) + send_at(c, rank);
}

void *perf_case_receive_seen(const struct perf_case *c, const struct perf_rank *rank)
{
    return rank->receive.seen + receive_at(c, rank);
}

void perf_case_push(const struct perf_case *c, struct perf_rank *rank)
{
    perf_buffer_push(&rank->receive, perf_case_receive_bytes(c));
    if (!c->in_place) perf_buffer_push(&rank->send, c->shape.send * perf_type_bytes(c->type));
}

void perf_case_pull(const struct perf_case *c, struct perf_rank *rank)
{
    perf_buffer_pull(&rank->receive, perf_case_receive_bytes(c));
    if (!c->in_place) perf_buffer_pull(&rank->send, c->shape.send * perf_type_bytes(c->type));
}

size_t perf_case_receive_bytes(const struct perf_case *c)
{
    size_t elements = c->in_place && c->shape.send > c->shape.receive ? c->shape.send : c->shape.receive;
    return elements * perf_type_bytes(c->type);
}

void perf_threads_meet(struct perf_thread *thread) { pthread_barrier_wait(&thread->process->meeting); }

void perf_die(int status, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fflush(stdout);
    fprintf(stderr, "%s\n", text);
    _exit(status); /* other threads may be inside the library: no destructors */
}

void perf_must(const struct perf_rank *rank, const char *call, ncclResult_t result)
{
    if (result == ncclSuccess) return;
    perf_die(1, "rank %d: %s: %s: %s", rank ? rank->rank : -1, call, ncclGetErrorString(result), ncclGetLastError(NULL));
}

/* One operation, or one round of it, on all ranks of the thread. */
static void call_all(struct perf_thread *thread, const struct perf_case *c, int round)
{
    const struct perf_process *process = thread->process;
    for (int r = 0; r < process->options->ranks_per_thread; r++) {
        struct perf_rank *rank = &thread->ranks[r];
        struct perf_call call = {
            .send = perf_case_send(c, rank), .receive = perf_case_receive(c, rank), .count = c->shape.parameter,
            .type = (ncclDataType_t)c->type, .op = rank->op, .root = c->root, .rank = rank->rank,
            .n_ranks = process->n_ranks, .round = round, .comm = rank->comm, .stream = rank->stream, .gpu = rank->gpu,
            .window = process->collective->one_sided ? (ncclWindow_t)rank->registered[1] : NULL,
        };
        perf_gpu_use(rank->gpu);
        perf_must(rank, process->collective->name, process->collective->call(&call));
    }
}

static void group_start(struct perf_thread *thread, bool grouped)
{
    if (grouped) perf_must(&thread->ranks[0], "ncclGroupStart", ncclGroupStart());
}

static void group_end(struct perf_thread *thread, bool grouped)
{
    if (grouped) perf_must(&thread->ranks[0], "ncclGroupEnd", ncclGroupEnd());
}

static void must_be_well(const struct perf_rank *rank)
{
    ncclResult_t failed = ncclSuccess;
    perf_must(rank, "ncclCommGetAsyncError", ncclCommGetAsyncError(rank->comm, &failed));
    if (failed != ncclInProgress) perf_must(rank, "while operations run", failed);
}

/* The stream goes on where an operation has failed: the communicator knows. */
static void finish(const struct perf_rank *rank)
{
    for (unsigned turn = 1; !perf_gpu_done(rank->gpu); turn++)
        if (turn % 1024 == 0) must_be_well(rank);
    must_be_well(rank);
}

void perf_finish(struct perf_thread *thread)
{
    for (int r = 0; r < thread->process->options->ranks_per_thread; r++)
        if (thread->ranks[r].gpu) finish(&thread->ranks[r]);
}

void perf_issue(struct perf_thread *thread, const struct perf_case *c, int aggregate)
{
    const struct perf_collective *collective = thread->process->collective;
    int n = thread->process->options->ranks_per_thread;
    if (collective->rounds) {
        for (int k = 0; k < aggregate * collective->rounds(thread->process->n_ranks); k++) {
            group_start(thread, true);
            call_all(thread, c, k % collective->rounds(thread->process->n_ranks));
            group_end(thread, true);
        }
        return;
    }
    bool grouped = n * aggregate > 1 || collective->several;
    group_start(thread, grouped);
    for (int i = 0; i < aggregate; i++) call_all(thread, c, 0);
    group_end(thread, grouped);
}
