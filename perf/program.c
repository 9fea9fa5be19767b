/* program.c - what every part uses: where a case's buffers lie, issuing it, and giving up. See program.h. */
#include "program.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "types.h"

void *perf_case_send(const struct perf_case *c, const struct perf_rank *rank)
{
    if (!c->in_place) return rank->send.data;
    return rank->receive.data + c->shape.inplace_send_rank * (size_t)rank->rank * perf_type_bytes(c->type);
}

void *perf_case_receive(const struct perf_case *c, const struct perf_rank *rank)
{
    if (!c->in_place) return rank->receive.data;
    return rank->receive.data + c->shape.inplace_receive_rank * (size_t)rank->rank * perf_type_bytes(c->type);
}

size_t perf_case_receive_bytes(const struct perf_case *c)
{
    size_t elements = c->in_place && c->shape.send > c->shape.receive ? c->shape.send : c->shape.receive;
    return elements * perf_type_bytes(c->type);
}

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
            .n_ranks = process->n_ranks, .round = round, .comm = rank->comm, .stream = rank->stream.handle,
            .window = process->collective->one_sided ? (ncclWindow_t)rank->registered[1] : NULL,
        };
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
    for (int r = 0; r < thread->process->options->ranks_per_thread; r++) perf_stream_wait(thread->ranks[r].stream);
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
