/* 14_go_on.c - a process dies, and the others go on; a new one takes its place.
 *
 *     build/bin/examples/14_go_on [RANKS=4]
 *
 * The first process only starts the ranks, kills one, and starts its successor. The survivors' call fails and says who
 * it was; they ask who is gone, shrink around it, and work on. Then they grow by the new process. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "example.h"

enum { COUNT = 1 << 18, STEPS = 20, VICTIM = 1 };

/* What the processes see of one another. In a cluster a store, or the launcher, carries the ids. */
static struct { ncclUniqueId first, growing; volatile int starts, works, grows; volatile double killed; } *board;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* The work: sums that are checked, for so many steps (-1: for ever) or until one fails. */
static ncclResult_t train(ncclComm_t comm, int rank, int n, int steps)
{
    static float x[COUNT];
    for (int step = 0; step != steps; step++) {
        for (int i = 0; i < COUNT; i++) x[i] = 1;
        ncclResult_t result = ncclAllReduce(x, x, COUNT, ncclFloat32, ncclSum, comm, NULL);
        if (result != ncclSuccess) return result;
        for (int i = 0; i < COUNT; i++) MUST(x[i] == (float)n);
        board->works |= step == 2;
    }
    if (rank == 0) printf("after %.0f ms: %d ranks have made %d steps\n", now_ms() - board->killed, n, steps);
    return ncclSuccess;
}

static void live(int rank, int n, int is_new)
{
    int gone[64], n_gone;
    ncclComm_t comm, fewer, many;
    if (is_new) {
        TRY(ncclCommGrow(NULL, n, &board->growing, rank, &many, NULL));
    } else {
        if (rank == 0) TRY(ncclGetUniqueId(&board->first));
        for (board->starts |= rank == 0; !board->starts;) usleep(1000);
        TRY(ncclCommInitRank(&comm, n, board->first, rank));
        MUST(train(comm, rank, n, -1) == ncclRemoteError);
        if (rank == 0) printf("after %.0f ms: %s\n", now_ms() - board->killed, ncclGetLastError(comm));
        TRY(railCommGone(comm, gone, &n_gone));
        TRY(ncclCommShrink(comm, gone, n_gone, &fewer, NULL, NCCL_SHRINK_ABORT));
        TRY(ncclCommAbort(comm));
        TRY(train(fewer, rank, n - n_gone, STEPS));
        if (rank == 0) TRY(ncclCommGetUniqueId(fewer, &board->growing));
        board->grows |= rank == 0;
        TRY(ncclCommGrow(fewer, n, rank == 0 ? &board->growing : NULL, -1, &many, NULL));
        TRY(ncclCommDestroy(fewer));
    }
    TRY(train(many, rank, n, STEPS));
    TRY(ncclCommDestroy(many));
    exit(0);
}

int main(int argc, char **argv)
{
    int status, n = argc > 1 ? atoi(argv[1]) : 4;
    pid_t pid[64];
    MUST(n > 2 && n <= 64);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int r = 0; r < n; r++)
        if ((pid[r] = fork()) == 0) live(r, n, 0);
    for (alarm(60); !board->works;) usleep(1000);
    board->killed = now_ms();
    kill(pid[VICTIM], SIGKILL);
    waitpid(pid[VICTIM], NULL, 0);
    while (!board->grows) usleep(1000);
    if ((pid[VICTIM] = fork()) == 0) live(n - 1, n, 1); /* new ranks come last */
    for (int r = 0; r < n; r++) MUST(waitpid(pid[r], &status, 0) == pid[r] && status == 0);
    printf("%d processes went on without the one that died, and then with a new one\n", n - 1);
    return 0;
}
