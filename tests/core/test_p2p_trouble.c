/* Send and Recv when things go wrong at the other end: a wait that an abort of another thread ends, a peer that dies, a
 * peer that has closed its communicator. Whatever it is, the one that waits returns within seconds and names it; and
 * what was sent before a peer closed is still received. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/trouble.h"

/* An abort promises 0.1 s on a machine that is not busy (test_abort.c); here a busy one is meant to pass, too. */
#define ABORT_S 2.0
/* News take some hundred milliseconds on a crowded machine; what nobody tells is looked for after 0.1 s. */
#define NEWS_S 5.0

enum { LONG = 2000000, MANY = 50 };

/* What rank 1 waits in for rank 0. */
enum wait { RECV, SEND_LONG, RECV_IN_GROUP, MANY_IN_GROUP, BESIDE_A_COLLECTIVE, WAITS };
static const char *const wait_names[WAITS] = {"in Recv", "in a long Send", "in Recv in a group", "in many calls of a group",
                                              "in Recv beside an AllReduce"};

static ncclResult_t wait_in(enum wait how, ncclComm_t comm, char *buffer)
{
    static float one[2];
    ncclResult_t result = ncclSuccess;
    if (how == RECV) return ncclRecv(buffer, 100, ncclInt32, 0, comm, NULL);
    if (how == SEND_LONG) return ncclSend(buffer, LONG, ncclInt32, 0, comm, NULL);
    ncclGroupStart();
    for (int i = 0; i < (how == MANY_IN_GROUP ? MANY : 1) && result == ncclSuccess; i++) {
        result = ncclRecv(buffer + 100 * i, 100, ncclInt8, 0, comm, NULL);
        if (how == MANY_IN_GROUP && result == ncclSuccess)
            result = ncclSend(buffer + LONG + 100 * i, 100, ncclInt8, 0, comm, NULL);
    }
    if (how == BESIDE_A_COLLECTIVE && result == ncclSuccess)
        result = ncclAllReduce(one, one, 2, ncclFloat32, ncclSum, comm, NULL);
    return result == ncclSuccess ? ncclGroupEnd() : result;
}

/* ---- aborted ---- */

struct aborter {
    ncclComm_t comm;
    double took_s, done_s;
    ncclResult_t result;
};

static void *aborts(void *arg)
{
    struct aborter *a = arg;
    trouble_sleep_s(0.05);
    double start_s = trouble_now_s();
    a->result = ncclCommAbort(a->comm);
    a->done_s = trouble_now_s();
    a->took_s = a->done_s - start_s;
    return NULL;
}

struct abort_after {
    ncclComm_t comm;
    useconds_t after_us;
};

static void *aborts_after(void *arg)
{
    struct abort_after *a = arg;
    usleep(a->after_us);
    ncclCommAbort(a->comm);
    return NULL;
}

static void aborted(struct job_rank *rank, enum wait how, ncclComm_t comm, char *buffer)
{
    struct aborter a = {.comm = comm};
    pthread_t thread;
    pthread_create(&thread, NULL, aborts, &a);
    ncclResult_t result = wait_in(how, comm, buffer);
    double returned_s = trouble_now_s();
    pthread_join(thread, NULL);
    JOB_EXPECT(a.result == ncclSuccess && a.took_s < ABORT_S, "%s: abort: %d, %.3f s", wait_names[how], a.result, a.took_s);
    JOB_EXPECT(returned_s - a.done_s < ABORT_S, "%s: returned %.3f s after the abort", wait_names[how], returned_s - a.done_s);
    JOB_EXPECT(result != ncclSuccess, "%s: the call was successful", wait_names[how]);
}

static void hears(struct job_rank *rank, enum wait how, ncclComm_t comm)
{
    ncclResult_t result = ncclSuccess;
    double start_s = trouble_now_s();
    while (result == ncclSuccess && trouble_now_s() - start_s < 2 * NEWS_S) {
        usleep(1000);
        JOB_TRY(ncclCommGetAsyncError(comm, &result));
    }
    if (result == ncclSuccess) job_fail(rank, "%s: heard nothing", wait_names[how]);
    JOB_TRY(ncclCommAbort(comm));
}

static void all_aborts(struct job_rank *rank)
{
    char *buffer = calloc(LONG + MANY * 100, 4);
    for (int how = 0; how < WAITS && !rank->why[0]; how++) {
        ncclComm_t comm;
        JOB_TRY(trouble_second_comm(rank, &comm));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1)); /* all have joined */
        if (rank->rank == 1)
            aborted(rank, how, comm, buffer);
        else
            hears(rank, how, comm);
        if (!rank->why[0]) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    }
    free(buffer);
}

static void an_abort_of_another_thread_ends_every_wait(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        for (int n = 2; n < 4; n++)
            job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1, .n_hosts = hosts}, all_aborts, NULL);
}

/* A long message is read where it lies, by threads of the process or by the kernel. When the send returns, whatever the reason,
 * its buffer is the caller's: it is written over and unmapped at once. A late thread would die of that; and what a receiver
 * has got is what was sent, or it hears of the abort. */
static void send_is_aborted(struct job_rank *rank)
{
    enum { BYTES = 16 << 20, EVERY = 4001 };
    unsigned seed = 17;
    char *in = calloc(BYTES, 1);
    for (int i = 1; i <= (getenv("RAILCCL_TEST_LONG") ? 400 : 40) && !rank->why[0]; i++) {
        ncclComm_t comm;
        ncclResult_t result = ncclSuccess;
        pthread_t thread;
        useconds_t after_us = (useconds_t)(rand_r(&seed) % 6000);
        char *out = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        JOB_TRY(trouble_second_comm(rank, &comm));
        memset(out, i, BYTES);
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
        struct abort_after a = {comm, after_us};
        if (rank->rank == 1) pthread_create(&thread, NULL, aborts_after, &a);
        while (result == ncclSuccess) {
            result = rank->rank == 1 ? ncclSend(out, BYTES, ncclInt8, 0, comm, NULL) : ncclRecv(in, BYTES, ncclInt8, 1, comm, NULL);
            for (int k = 0; rank->rank == 0 && result == ncclSuccess && k < BYTES; k += EVERY)
                JOB_EXPECT(in[k] == (char)i, "abort %d: byte %d is %d", i, k, in[k]);
        }
        memset(out, 0, BYTES);
        munmap(out, BYTES);
        if (rank->rank == 1) pthread_join(thread, NULL);
        else JOB_TRY(ncclCommAbort(comm));
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    }
    free(in);
}

static void an_aborted_send_between_threads_takes_its_buffer_back(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 2}, send_is_aborted, NULL);
}

static void an_aborted_send_between_processes_is_received_whole_or_not(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1}, send_is_aborted, NULL);
}

/* ---- late ---- */

static _Atomic int *said; /* of all processes: the one that waits has said for whom */

static void *await_words(void *words)
{
    double start_s = trouble_now_s();
    while (trouble_lacks(ncclGetLastError(NULL), words) && trouble_now_s() - start_s < 20) usleep(5000);
    atomic_store(said, trouble_lacks(ncclGetLastError(NULL), words) ? -1 : 1);
    return NULL;
}

/* Rank 0 comes when rank 1 has said what it waits for, to whoever asks for the last error. */
static void late(struct job_rank *rank)
{
    enum wait how = *(enum wait *)rank->arg;
    static char buffer[(LONG + MANY * 100) * 4];
    const char *words = how == SEND_LONG ? "ncclSend of 2000000 int32 to rank 0: rank 0 (host|has not received it"
                                         : "ncclRecv of 100|from rank 0: rank 0 (host|has not sent it";
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    if (rank->rank == 1) {
        pthread_t thread;
        pthread_create(&thread, NULL, await_words, (void *)(uintptr_t)words);
        JOB_TRY(wait_in(how, rank->comm, buffer));
        pthread_join(thread, NULL);
    } else {
        double start_s = trouble_now_s();
        while (!atomic_load(said) && trouble_now_s() - start_s < 25) usleep(5000);
        JOB_EXPECT(atomic_load(said) == 1, "%s: rank 1 did not say for whom it waits", wait_names[how]);
        if (how == SEND_LONG) JOB_TRY(ncclRecv(buffer, LONG, ncclInt32, 1, rank->comm, NULL));
        else JOB_TRY(ncclSend(buffer, 100, how == RECV ? ncclInt32 : ncclInt8, 1, rank->comm, NULL));
    }
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
}

static void a_late_peer_is_named_and_waited_for(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        for (int how = RECV; how <= RECV_IN_GROUP; how++) {
            if (how != RECV && hosts > 1 && !getenv("RAILCCL_TEST_LONG")) continue;
            struct job job = {.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts};
            said = trouble_shared(sizeof *said);
            job_must(&job, late, &how);
            munmap((void *)(uintptr_t)said, sizeof *said);
        }
}

/* ---- died ---- */

static void rank_0_dies(struct job_rank *rank)
{
    enum wait how = *(enum wait *)rank->arg;
    char *buffer = calloc(LONG + MANY * 100, 4);
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    if (rank->rank == 0) {
        trouble_sleep_s(0.1);
        raise(SIGKILL);
    }
    double start_s = trouble_now_s();
    ncclResult_t result = wait_in(how, rank->comm, buffer);
    if (trouble_says(rank, wait_names[how], result, ncclRemoteError, "rank 0|died: its process is gone"))
        if (trouble_now_s() - start_s > NEWS_S) job_fail(rank, "%s: took %.1f s", wait_names[how], trouble_now_s() - start_s);
    ncclCommAbort(rank->comm);
    free(buffer);
}

static void on_bare_ranks(struct job_rank *rank)
{
    JOB_TRY(ncclCommInitRank(&rank->comm, rank->n_ranks, rank->id, rank->rank));
    rank_0_dies(rank);
}

static void a_peer_that_dies_is_named(void **state)
{
    (void)state;
    for (int how = 0; how < WAITS; how++)
        for (int hosts = 1; hosts < 3; hosts++) {
            struct job job = {.n_ranks = 2 + how % 2, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .may_die = true};
            job_must(&job, on_bare_ranks, &how);
        }
}

/* ---- closed ---- */

struct closing {
    bool met;  /* messages went both ways before */
    bool late; /* the wait begins when the other has closed */
    enum wait how;
};

static void meet(struct job_rank *rank, ncclComm_t comm)
{
    int mine = rank->rank, theirs = -1, peer = 1 - rank->rank;
    if (rank->rank > 1) return;
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclSend(&mine, 1, ncclInt32, peer, comm, NULL));
    JOB_TRY(ncclRecv(&theirs, 1, ncclInt32, peer, comm, NULL));
    JOB_TRY(ncclGroupEnd());
    JOB_EXPECT(theirs == peer, "got %d", theirs);
}

static void rank_0_closes(struct job_rank *rank)
{
    const struct closing *c = rank->arg;
    char *buffer = calloc(LONG + MANY * 100, 4);
    ncclComm_t comm;
    JOB_TRY(trouble_second_comm(rank, &comm));
    if (c->met) meet(rank, comm);
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    if (rank->rank == 0) {
        trouble_sleep_s(c->late ? 0 : 0.15);
        JOB_TRY(ncclCommDestroy(comm));
    } else if (rank->rank == 1) {
        trouble_sleep_s(c->late ? 0.15 : 0);
        double start_s = trouble_now_s();
        ncclResult_t result = wait_in(c->how, comm, buffer);
        if (trouble_says(rank, wait_names[c->how], result, ncclRemoteError, "rank 0|closed its|rank 1|waits") &&
            trouble_now_s() - start_s > NEWS_S)
            job_fail(rank, "%s: took %.1f s", wait_names[c->how], trouble_now_s() - start_s);
        ncclCommAbort(comm);
    }
    if (!rank->why[0]) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    if (rank->rank > 1) ncclCommAbort(comm);
    free(buffer);
}

static void a_peer_that_closed_its_communicator_is_named(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        for (int k = 0; k < 4; k++)
            for (int how = RECV; how <= RECV_IN_GROUP; how++) {
                if (how == RECV_IN_GROUP && hosts > 1 && !getenv("RAILCCL_TEST_LONG")) continue;
                struct closing c = {.met = k & 1, .late = k & 2, .how = (enum wait)how};
                struct job job = {.n_ranks = 2 + k % 2, .ranks_per_process = 1, .n_hosts = hosts};
                job_must(&job, rank_0_closes, &c);
            }
}

/* ---- sent, then closed ---- */

static void sent_then_closed(struct job_rank *rank)
{
    enum { N = 1000 };
    int data[N];
    ncclComm_t comm;
    JOB_TRY(trouble_second_comm(rank, &comm));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1));
    for (int k = 0; k < N; k++) data[k] = rank->rank == 0 ? k * 3 : -1;
    if (rank->rank == 0) {
        for (int i = 0; i < 3; i++) JOB_TRY(ncclSend(data, N, ncclInt32, 1, comm, NULL));
    } else if (rank->rank == 1) {
        trouble_sleep_s(0.3);
        for (int i = 0; i < 3; i++) {
            memset(data, 0xff, sizeof data);
            JOB_TRY(ncclRecv(data, N, ncclInt32, 0, comm, NULL));
            for (int k = 0; k < N; k++) JOB_EXPECT(data[k] == k * 3, "message %d: element %d is %d", i, k, data[k]);
            if (i == 0) trouble_sleep_s(0.3); /* the other has left long ago, if it could */
        }
    }
    JOB_TRY(ncclCommDestroy(comm));
}

static void what_was_sent_before_a_peer_closed_is_received(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts}, sent_then_closed, NULL);
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 2}, sent_then_closed, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_abort_of_another_thread_ends_every_wait),
        cmocka_unit_test(an_aborted_send_between_threads_takes_its_buffer_back),
        cmocka_unit_test(an_aborted_send_between_processes_is_received_whole_or_not),
        cmocka_unit_test(a_late_peer_is_named_and_waited_for),
        cmocka_unit_test(a_peer_that_dies_is_named),
        cmocka_unit_test(a_peer_that_closed_its_communicator_is_named),
        cmocka_unit_test(what_was_sent_before_a_peer_closed_is_received),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
