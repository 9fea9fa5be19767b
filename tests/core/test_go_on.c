/* A job outlives its ranks, in the same processes: a rank dies, the survivors hear who it was, abort or revoke, shrink
 * around it, add up right, grow by a new process to the old size, and add up right again; many times over, and hold
 * nothing afterwards that they did not hold before. Several may die at once, rank 0 too, a whole host, and one more
 * while the others are shrinking; and other processes get the ports of the dead. */
#include <malloc.h>
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
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/params.h"
#include "railccl.h"
#include "support/trouble.h"

#if defined(__SANITIZE_ADDRESS__)
#define HEARD_S 5.0
#else
#define HEARD_S 1.0
#endif
enum { MOST = 12, DEAD_MOST = 4, LIMIT_S = 100 };

enum end { BY_DEFAULT, BY_ABORT_FLAG, BY_REVOKE };

/* How a series goes on. */
struct plan {
    const char *name;
    int n, hosts, n_dead, rounds;
    int lasting;       /* the first so many live through all rounds */
    int first_victim;  /* of round 0, from `lasting` on; the next round's is the next rank */
    bool idle;         /* when they die the others only ask how it is; else they are in a large call */
};

/* Shared by all processes of a series: the test itself forks them, new ones too, and never uses the library. */
struct board {
    struct plan plan;
    ncclUniqueId id;
    _Atomic int id_of_round; /* the id above is for growing in this round; -1 the first */
    _Atomic int at_size;     /* round r has begun at full size: n * (r + 1) */
    _Atomic int pids[MOST];  /* by rank of the present communicator */
    int dead[DEAD_MOST];     /* of this round */
    _Atomic int round;       /* these die, or have died, in it */
    _Atomic long died_us;
    _Atomic int done;
    double heard_s, going_s, grown_s; /* the slowest */
    char why[JOB_WHY];
};

static struct board *board;

static long now_us(void) { return (long)(trouble_now_s() * 1e6); }

#define MUST(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            if (!board->why[0]) snprintf(board->why, sizeof board->why, __VA_ARGS__);                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define WELL(call, round, rank)                                                                                        \
    do {                                                                                                               \
        ncclResult_t r_ = (call);                                                                                      \
        MUST(r_ == ncclSuccess, "round %d, rank %d: %s: %d: %s", round, rank, #call, r_, ncclGetLastError(NULL));      \
    } while (0)

static bool dies(int rank)
{
    for (int i = 0; i < board->plan.n_dead; i++)
        if (board->dead[i] == rank) return true;
    return false;
}

/* Until it hears of the death. */
static ncclResult_t work(ncclComm_t comm, int n)
{
    ncclResult_t result = ncclSuccess, state;
    while (result == ncclSuccess && board->plan.idle) {
        usleep(1000);
        result = ncclCommGetAsyncError(comm, &state) == ncclSuccess ? state : ncclInternalError;
    }
    while (result == ncclSuccess) result = trouble_allreduce(comm, n, 300000);
    return result;
}

static ncclComm_t shrunk(ncclComm_t comm, int round, int rank, enum end end)
{
    ncclComm_t fewer = NULL;
    int list[DEAD_MOST], n_dead = board->plan.n_dead;
    int flags = end == BY_ABORT_FLAG ? NCCL_SHRINK_ABORT : NCCL_SHRINK_DEFAULT;
    memcpy(list, board->dead, sizeof list);
    if (end == BY_REVOKE) WELL(ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT), round, rank);
    WELL(ncclCommShrink(comm, list, n_dead, &fewer, NULL, flags), round, rank);
    double start_s = trouble_now_s();
    WELL(ncclCommAbort(comm), round, rank);
    MUST(trouble_now_s() - start_s < HEARD_S / 5, "round %d, rank %d: abort took %.0f ms", round, rank,
         (trouble_now_s() - start_s) * 1e3);
    WELL(trouble_allreduce(fewer, board->plan.n - n_dead, 50000), round, rank);
    WELL(trouble_allreduce(fewer, board->plan.n - n_dead, 2), round, rank);
    return fewer;
}

static void slowest(double *most_s, long since_us)
{
    double s = (double)(now_us() - since_us) / 1e6;
    if (s > *most_s) *most_s = s;
}

static void all_the_dead_are_known(ncclComm_t comm, int round, int rank)
{
    int gone[MOST], n_gone = 0;
    WELL(railCommGone(comm, gone, &n_gone), round, rank);
    MUST(n_gone == board->plan.n_dead, "round %d, rank %d: knows of %d dead", round, rank, n_gone);
    for (int i = 0; i < n_gone; i++)
        MUST(dies(gone[i]), "round %d, rank %d: rank %d is called dead", round, rank, gone[i]);
}

/* One rank at full size, in round `round`: until somebody dies. Returns the communicator of the next round. */
static ncclComm_t one_round(ncclComm_t comm, int round, int *rank)
{
    int n = board->plan.n, n_dead = board->plan.n_dead, fewer_rank;
    ncclComm_t fewer, many = NULL;
    ncclUniqueId id;
    char name[24];
    WELL(trouble_allreduce(comm, n, 2), round, *rank);
    WELL(trouble_allreduce(comm, n, 100000), round, *rank);
    int nobody[MOST], n_gone = -1;
    WELL(railCommGone(comm, nobody, &n_gone), round, *rank);
    MUST(n_gone == 0, "round %d, rank %d: %d are called dead, the first is %d", round, *rank, n_gone, nobody[0]);
    atomic_store(&board->pids[*rank], (int)getpid());
    atomic_fetch_add(&board->at_size, 1);
    ncclResult_t result = work(comm, n);
    while (atomic_load(&board->round) < round) usleep(200);
    MUST(result == ncclRemoteError, "round %d, rank %d: the death: %d: %s", round, *rank, result,
         ncclGetLastError(NULL));
    bool named = false;
    for (int i = 0; i < n_dead; i++) {
        snprintf(name, sizeof name, "rank %d (", board->dead[i]);
        named |= strstr(ncclGetLastError(NULL), name) != NULL;
    }
    MUST(named, "round %d, rank %d: names somebody else: %s", round, *rank, ncclGetLastError(NULL));
    all_the_dead_are_known(comm, round, *rank);
    slowest(&board->heard_s, board->died_us);
    MUST(board->heard_s < HEARD_S, "round %d, rank %d: heard after %.3f s", round, *rank, board->heard_s);
    fewer = shrunk(comm, round, *rank, (enum end)(round % 3));
    slowest(&board->going_s, board->died_us);
    WELL(ncclCommUserRank(fewer, &fewer_rank), round, *rank);
    if (fewer_rank == 0) {
        WELL(ncclCommGetUniqueId(fewer, &id), round, *rank);
        memcpy(&board->id, &id, sizeof id);
        atomic_store(&board->id_of_round, round);
    }
    WELL(ncclCommGrow(fewer, n, fewer_rank == 0 ? &id : NULL, -1, &many, NULL), round, *rank);
    WELL(ncclCommDestroy(fewer), round, *rank);
    slowest(&board->grown_s, board->died_us);
    *rank = fewer_rank;
    return many;
}

static void set_host(int host)
{
    char name[32];
    snprintf(name, sizeof name, "go-on-host-%d", host);
    if (board->plan.hosts > 1) setenv("NCCL_HOSTID", name, 1);
    rail_params_reload();
}

/* A survivor's descriptors, threads and memory after some rounds, against those at the end. */
struct holding { int fds, threads; long kib; };

static struct holding holding(void)
{
    return (struct holding){trouble_fds(), trouble_threads(), (long)mallinfo2().uordblks / 1024};
}

/* Handles of ended communicators stay for a while, 32 of 4 KiB (core/comm_store.c); a peer process that was not
 * forgotten is 30 KiB per round. */
enum { HEAP_KIB = 350 };

static void live(int rank, int round, int host)
{
    ncclComm_t comm = NULL;
    struct holding then = {0};
    int born = round, rounds = board->plan.rounds;
    set_host(host);
    if (round == 0)
        WELL(ncclCommInitRank(&comm, board->plan.n, board->id, rank), 0, rank);
    else
        WELL(ncclCommGrow(NULL, board->plan.n, &board->id, rank, &comm, NULL), round, rank);
    for (; round < rounds; round++) {
        if (round == born + 3) then = holding();
        comm = one_round(comm, round, &rank);
    }
    WELL(trouble_allreduce(comm, board->plan.n, 100000), round, rank);
    if (then.fds) {
        struct holding now = holding();
        for (int i = 0; i < 100 && now.fds > then.fds; i++, now = holding()) usleep(10000);
        MUST(now.fds <= then.fds + 2, "rank %d: %d descriptors after round %d, %d after %d", rank, now.fds, rounds,
             then.fds, born + 3);
        MUST(now.threads <= then.threads, "rank %d: %d threads, %d before", rank, now.threads, then.threads);
        MUST(now.kib < then.kib + HEAP_KIB, "rank %d: %ld KiB of the heap, %ld before", rank, now.kib, then.kib);
    }
    WELL(ncclCommDestroy(comm), round, rank);
    atomic_fetch_add(&board->done, 1);
    exit(0);
}

static pid_t start(int rank, int round, int host)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) live(rank, round, host);
    return pid;
}

/* Waits for a word to reach a value; false when a rank has failed or time is over. */
static bool await(_Atomic int *word, int value)
{
    double start_s = trouble_now_s();
    while (atomic_load(word) < value && !board->why[0] && trouble_now_s() - start_s < LIMIT_S) usleep(500);
    return atomic_load(word) >= value && !board->why[0];
}

static int host_of(int rank) { return board->plan.hosts > 1 ? rank * board->plan.hosts / board->plan.n : 0; }

static void series(const struct plan *plan)
{
    int n = plan->n, id_pipe[2];
    static pid_t all[1000];
    int hosts[MOST], started = 0;
    board = trouble_shared(sizeof *board);
    board->plan = *plan;
    atomic_store(&board->id_of_round, -1);
    atomic_store(&board->round, -1);
    /* The first id's root lives in a process of its own: any rank may die. */
    assert_int_equal(pipe(id_pipe), 0);
    pid_t root = fork();
    if (root == 0) {
        ncclUniqueId id;
        rail_params_reload();
        if (ncclGetUniqueId(&id) != ncclSuccess || write(id_pipe[1], &id, sizeof id) != (ssize_t)sizeof id) _exit(1);
        pause();
    }
    assert_int_equal(read(id_pipe[0], &board->id, sizeof board->id), (int)sizeof board->id);
    for (int r = 0; r < n; r++) hosts[r] = host_of(r);
    for (int r = 0; r < n; r++) all[started++] = start(r, 0, hosts[r]);
    bool well = true;
    for (int round = 0; well && round < plan->rounds; round++) {
        int gone[DEAD_MOST], n_kept = 0, kept[MOST];
        well = await(&board->at_size, n * (round + 1));
        if (!well) break;
        for (int i = 0; i < plan->n_dead; i++)
            board->dead[i] = plan->lasting + (plan->first_victim + round + i) % (n - plan->lasting);
        usleep((useconds_t)(1000 + round * 7919 % 20000)); /* somewhere in a call */
        atomic_store(&board->died_us, now_us());
        for (int i = 0; i < plan->n_dead; i++) {
            gone[i] = hosts[board->dead[i]];
            kill(atomic_load(&board->pids[board->dead[i]]), SIGKILL);
        }
        atomic_store(&board->round, round);
        for (int r = 0; r < n; r++)
            if (!dies(r)) kept[n_kept++] = hosts[r];
        memcpy(hosts, kept, (size_t)n_kept * sizeof *kept);
        well = await(&board->id_of_round, round);
        for (int i = 0; well && i < plan->n_dead; i++) {
            hosts[n_kept + i] = gone[i];
            all[started++] = start(n_kept + i, round + 1, gone[i]);
        }
    }
    well = well && await(&board->done, n);
    kill(root, SIGKILL);
    waitpid(root, NULL, 0);
    for (int i = 0; i < started; i++) {
        if (!well) kill(all[i], SIGKILL);
        waitpid(all[i], NULL, 0);
    }
    close(id_pipe[0]);
    close(id_pipe[1]);
    if (!well) fail_msg("%s: %s", plan->name, board->why[0] ? board->why : "not done in time");
    print_message("%s: %d rounds; slowest: heard after %.0f ms, went on after %.0f ms, at full size after %.0f ms\n",
                  plan->name, plan->rounds, board->heard_s * 1e3, board->going_s * 1e3, board->grown_s * 1e3);
}

static void skip_where_forking_is_not_allowed(void)
{
#if defined(__SANITIZE_THREAD__)
    skip();
#endif
}

static void run(struct plan plan) { skip_where_forking_is_not_allowed(); series(&plan); }

static void twenty_deaths_within_a_host(void **state)
{
    (void)state;
    run((struct plan){.name = "4 ranks of a host", .n = 4, .n_dead = 1, .rounds = 20});
    run((struct plan){.name = "4 ranks of a host, two outlive all", .n = 4, .n_dead = 1, .rounds = 23, .lasting = 2});
}

static void twenty_deaths_between_hosts(void **state)
{
    (void)state;
    run((struct plan){.name = "4 ranks of 2 hosts", .n = 4, .hosts = 2, .n_dead = 1, .rounds = 20, .first_victim = 1});
    run((struct plan){.name = "4 ranks of 3 hosts, two outlive all", .n = 4, .hosts = 3, .n_dead = 1, .rounds = 23,
                      .lasting = 2});
}

static void deaths_of_idle_ranks(void **state)
{
    (void)state;
    run((struct plan){.name = "idle ranks of a host", .n = 3, .n_dead = 1, .rounds = 6, .idle = true});
    run((struct plan){.name = "idle ranks of 3 hosts", .n = 3, .hosts = 3, .n_dead = 1, .rounds = 6, .idle = true});
}

static void two_deaths_at_once(void **state)
{
    (void)state;
    run((struct plan){.name = "two of 5 ranks", .n = 5, .n_dead = 2, .rounds = 8});
    run((struct plan){.name = "two of 11 ranks of 2 hosts", .n = 11, .hosts = 2, .n_dead = 2, .rounds = 8});
}

static void a_whole_host_dies(void **state)
{
    (void)state;
    run((struct plan){.name = "a host of 3, 2 ranks each", .n = 6, .hosts = 3, .n_dead = 2, .rounds = 1,
                      .first_victim = 2});
    run((struct plan){.name = "the host of rank 0", .n = 6, .hosts = 3, .n_dead = 2, .rounds = 1, .first_victim = 0});
}

/* ---- and one more while they shrink ---- */

struct second { int first, second, after_us; };

static void *dies_soon(void *arg)
{
    usleep((useconds_t)((struct second *)arg)->after_us);
    raise(SIGKILL);
    kill(getpid(), SIGKILL);
    return NULL;
}

/* The first shrink fails with a text, or what it made fails; leaving out both then works. */
static void shrink_twice(struct job_rank *rank)
{
    struct second *d = rank->arg;
    ncclComm_t fewer = NULL;
    pthread_t thread;
    int both[] = {d->first, d->second}, n = rank->n_ranks;
    JOB_TRY(ncclCommInitRank(&rank->comm, n, rank->id, rank->rank));
    ncclResult_t result = trouble_allreduce(rank->comm, n, 2000);
    if (rank->rank == d->first) raise(SIGKILL);
    while (result == ncclSuccess) result = trouble_allreduce(rank->comm, n, 2000);
    JOB_EXPECT(result == ncclRemoteError, "the death: %d: %s", result, ncclGetLastError(NULL));
    if (rank->rank == d->second) pthread_create(&thread, NULL, dies_soon, d);
    double start_s = trouble_now_s();
    result = ncclCommShrink(rank->comm, both, 1, &fewer, NULL, NCCL_SHRINK_ABORT);
    JOB_EXPECT(trouble_now_s() - start_s < 3, "the first shrink took %.1f s", trouble_now_s() - start_s);
    bool made = result == ncclSuccess;
    while (result == ncclSuccess) result = trouble_allreduce(fewer, n - 1, 2000);
    if (rank->rank == d->second) pause();
    JOB_EXPECT(result == ncclRemoteError, "the first shrink: %d: %s", result, ncclGetLastError(NULL));
    JOB_EXPECT(made || strstr(ncclGetLastError(NULL), "ncclCommShrink"), "the first shrink says %s",
               ncclGetLastError(NULL));
    if (made) JOB_TRY(ncclCommAbort(fewer));
    JOB_TRY(ncclCommShrink(rank->comm, both, 2, &fewer, NULL, NCCL_SHRINK_DEFAULT));
    JOB_TRY(trouble_allreduce(fewer, n - 2, 100000));
    JOB_TRY(ncclCommDestroy(fewer));
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void another_dies_while_they_shrink(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    struct second *d = trouble_shared(sizeof *d);
    for (int i = 0; i < 24; i++) {
        *d = (struct second){.first = i % 5, .second = (i % 5 + 1 + i % 4) % 5, .after_us = i / 2 * 700};
        struct job job = {.n_ranks = i % 3 ? 5 : 11, .ranks_per_process = 1, .n_hosts = i % 2 + 1, .bare = true,
                          .may_die = true, .limit_s = 60};
        const char *why = job_run(&job, shrink_twice, d);
        if (why)
            fail_msg("%d ranks, %d hosts, rank %d dies, then rank %d after %d us of shrinking: %s", job.n_ranks,
                     job.n_hosts, d->first, d->second, d->after_us, why);
    }
}

/* ---- and another process has got its ports ---- */

enum { FDS = 256, KEPT_S = 30 };

static bool listens(int fd)
{
    int does = 0;
    socklen_t bytes = sizeof does;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &does, &bytes) == 0 && does;
}

/* A process that has nothing of ours but our listeners, and never says a word. */
static pid_t leave_listeners_behind(void)
{
    int kept[FDS], n = 0;
    for (int fd = 3; fd < FDS; fd++)
        if (listens(fd) && n < FDS) kept[n++] = dup(fd); /* the library closes its own in a child */
    pid_t pid = fork();
    if (pid != 0) return pid;
    alarm(KEPT_S);
    for (int fd = 3; fd < 2 * FDS; fd++) {
        bool is_kept = false;
        for (int i = 0; i < n; i++) is_kept |= kept[i] == fd;
        if (!is_kept) close(fd);
    }
    for (;;) pause();
}

static void dies_and_its_ports_are_taken(struct job_rank *rank)
{
    _Atomic int *taker = rank->arg;
    ncclComm_t fewer = NULL;
    int dead[] = {1}, gone[MOST], n_gone = -1, n = rank->n_ranks;
    JOB_TRY(ncclCommInitRank(&rank->comm, n, rank->id, rank->rank));
    JOB_TRY(trouble_allreduce(rank->comm, n, 2000));
    if (rank->rank == dead[0]) {
        atomic_store(taker, (int)leave_listeners_behind());
        raise(SIGKILL);
    }
    ncclResult_t result = ncclSuccess;
    while (result == ncclSuccess) result = trouble_allreduce(rank->comm, n, 2000);
    JOB_EXPECT(result == ncclRemoteError, "the death: %d: %s", result, ncclGetLastError(NULL));
    JOB_TRY(railCommGone(rank->comm, gone, &n_gone));
    JOB_EXPECT(n_gone == 1 && gone[0] == dead[0], "knows of %d dead", n_gone);
    JOB_TRY(ncclCommShrink(rank->comm, dead, 1, &fewer, NULL, NCCL_SHRINK_ABORT));
    JOB_TRY(trouble_allreduce(fewer, n - 1, 2000));
    JOB_TRY(ncclCommDestroy(fewer));
    JOB_TRY(ncclCommAbort(rank->comm));
}

static void the_ports_of_the_dead_are_taken(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    _Atomic int *taker = trouble_shared(sizeof *taker);
    for (int hosts = 1; hosts <= 3; hosts += 2) {
        struct job job = {.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .may_die = true,
                          .limit_s = 20};
        const char *why = job_run(&job, dies_and_its_ports_are_taken, taker);
        kill(atomic_load(taker), SIGKILL);
        if (why) fail_msg("%d hosts: %s", hosts, why);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_deaths_within_a_host),
        cmocka_unit_test(twenty_deaths_between_hosts),
        cmocka_unit_test(deaths_of_idle_ranks),
        cmocka_unit_test(two_deaths_at_once),
        cmocka_unit_test(a_whole_host_dies),
        cmocka_unit_test(another_dies_while_they_shrink),
        cmocka_unit_test(the_ports_of_the_dead_are_taken),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
