/* Two ranks that the scheduler puts on one core although the machine has more: whoever spins keeps the other from arriving.
 * They must notice, whatever they call. The measure is a communicator of the same ranks that never spins, in the same
 * run: the fastest of several turns of each, so that a busy machine does not matter. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/params.h"
#include "support/trouble.h"

enum { TURNS = 10, CALLS = 30, MOST = 1 << 20 };

enum what { SWAP, SWAP_LONG, SWAP_TWICE, PASS, ALLGATHER, ALLREDUCE, KINDS };
static const char *const names[KINDS] = {"Send and Recv", "Send and Recv of 1 MiB", "Send and Recv on two communicators",
                                         "Send, then Recv", "AllGather", "AllReduce"};

static ncclResult_t call(enum what what, ncclComm_t comm, ncclComm_t other, int me, char *out, char *in)
{
    size_t count = what == SWAP_LONG ? MOST : 64;
    ncclResult_t result;
    if (what == ALLREDUCE) return ncclAllReduce(out, in, 2, ncclFloat32, ncclSum, comm, NULL);
    if (what == ALLGATHER) return ncclAllGather(out, in, 64, ncclInt8, comm, NULL);
    if (what == PASS) {
        result = me ? ncclRecv(in, 64, ncclInt8, 0, comm, NULL) : ncclSend(out, 64, ncclInt8, 1, comm, NULL);
        if (result != ncclSuccess) return result;
        return me ? ncclSend(out, 64, ncclInt8, 0, comm, NULL) : ncclRecv(in, 64, ncclInt8, 1, comm, NULL);
    }
    ncclGroupStart();
    result = ncclSend(out, count, ncclInt8, 1 - me, comm, NULL);
    if (result == ncclSuccess) result = ncclRecv(in, count, ncclInt8, 1 - me, comm, NULL);
    if (result == ncclSuccess && what == SWAP_TWICE) result = ncclSend(out, count, ncclInt8, 1 - me, other, NULL);
    if (result == ncclSuccess && what == SWAP_TWICE) result = ncclRecv(in + count, count, ncclInt8, 1 - me, other, NULL);
    return result == ncclSuccess ? ncclGroupEnd() : result;
}

static cpu_set_t set; /* where we may run */

/* Onto one core, though the library was told otherwise when the communicators were made. */
static bool go_to_one_core(void)
{
    cpu_set_t one;
    if (sched_getaffinity(0, sizeof set, &set)) return false;
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &set)) {
            CPU_ZERO(&one);
            CPU_SET(c, &one);
            return sched_setaffinity(0, sizeof one, &one) == 0;
        }
    return false;
}

static bool go_back(void) { return sched_setaffinity(0, sizeof set, &set) == 0; }

static ncclResult_t fastest(struct job_rank *rank, enum what what, const ncclComm_t comms[2], double *best_s)
{
    static char out[MOST], in[MOST];
    int calls = what == SWAP_LONG ? CALLS / 10 : CALLS;
    *best_s = 1e9;
    for (int turn = 0; turn < TURNS; turn++) {
        double start_s = trouble_now_s();
        for (int k = 0; k < calls; k++) {
            ncclResult_t result = call(what, comms[0], comms[1], rank->rank, out, in);
            if (result != ncclSuccess) return result;
        }
        double took_s = (trouble_now_s() - start_s) / calls;
        if (took_s < *best_s) *best_s = took_s;
    }
    return ncclSuccess;
}

static ncclResult_t communicator(struct job_rank *rank, const char *spin_us, ncclComm_t *out)
{
    if (spin_us) setenv("RAILCCL_SPIN_US", spin_us, 1);
    else unsetenv("RAILCCL_SPIN_US");
    rail_params_reload();
    return trouble_second_comm(rank, out);
}

/* A communicator learns for all its calls: a fresh one for each kind. */
static void on_one_core(struct job_rank *rank)
{
    for (int what = 0; what < KINDS && !rank->why[0]; what++) {
        ncclComm_t spins[2], yields[2];
        double spins_s, yields_s;
        for (int i = 0; i < 2; i++) JOB_TRY(communicator(rank, NULL, &spins[i]));
        for (int i = 0; i < 2; i++) JOB_TRY(communicator(rank, "0", &yields[i]));
        JOB_EXPECT(go_to_one_core(), "sched_setaffinity");
        JOB_TRY(fastest(rank, what, spins, &spins_s));
        JOB_TRY(fastest(rank, what, yields, &yields_s));
        JOB_TRY(go_back() ? ncclSuccess : ncclSystemError);
        if (getenv("TROUBLE_SHOW") && !rank->rank)
            fprintf(stderr, "%s: %.1f us, without spinning %.1f us\n", names[what], spins_s * 1e6, yields_s * 1e6);
        JOB_EXPECT(spins_s < 8 * yields_s + 20e-6, "%s: %.1f us, without spinning %.1f us", names[what], spins_s * 1e6,
                   yields_s * 1e6);
        for (int i = 0; i < 2; i++) {
            JOB_TRY(ncclCommDestroy(spins[i]));
            JOB_TRY(ncclCommDestroy(yields[i]));
        }
    }
}

static void two_ranks_on_one_core_do_not_spin_against_each_other(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1}, on_one_core, NULL);
}

static void nor_do_two_pretended_hosts(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .n_hosts = 2}, on_one_core, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_on_one_core_do_not_spin_against_each_other),
        cmocka_unit_test(nor_do_two_pretended_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
