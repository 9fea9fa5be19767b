/* job.h - runs the same function on n ranks of a communicator: as threads, as processes, as both, on one host or on
 * several pretended ones (ranks of different NCCL_HOSTID reach one another over the network only). TEST_HOST_2="NAME=value
 * NAME=value", where it is set, is what processes of host 2 have in their environment: NICs of their own. */
#ifndef TESTS_SUPPORT_JOB_H
#define TESTS_SUPPORT_JOB_H

#include <nccl.h>
#include <stdbool.h>
#include <stdint.h>

struct job {
    int n_ranks;
    int ranks_per_process; /* threads of one process; 0 = all ranks in the test's own process */
    int n_hosts;           /* processes are dealt to hosts in blocks; 0 or 1 = one host */
    bool bare;             /* the body makes its own communicators: rank->comm is NULL */
    double limit_s;        /* the job fails and is killed after this; 0 = 60 */
    bool may_die;          /* ranks kill themselves: a process that SIGKILL ended is no failure */
    const char *const *env;/* "NAME=value" for all ranks, NULL-terminated; may be NULL */
};

struct job_rank {
    int rank, n_ranks;
    ncclUniqueId id;
    ncclComm_t comm;
    void *arg;
    char *why; /* first failure's text, JOB_WHY bytes, "" while all is well */
};

enum { JOB_WHY = 400 };

/* Makes the communicator, runs body(rank) on every rank, destroys it. Returns NULL when every rank is well, else the
 * first failure's text (static). */
const char *job_run(const struct job *job, void (*body)(struct job_rank *rank), void *arg);

/* The same, as a cmocka assertion. */
void job_must(const struct job *job, void (*body)(struct job_rank *rank), void *arg);

void job_fail(struct job_rank *rank, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For use inside a body: records the failure and leaves the body. */
#define JOB_TRY(call)                                                                                                  \
    do {                                                                                                               \
        ncclResult_t job_result_ = (call);                                                                             \
        if (job_result_ != ncclSuccess) {                                                                              \
            job_fail(rank, "%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, ncclGetErrorString(job_result_),            \
                     ncclGetLastError(NULL));                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

#define JOB_EXPECT(condition, ...)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            job_fail(rank, __VA_ARGS__);                                                                               \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

#endif
