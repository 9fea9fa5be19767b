/* client.c - a client that knows nccl.h and nothing of railccl: four ranks as threads call what its header has, on
 * ordinary memory, and check every result. Built against NVIDIA's header, of whatever version is found, and against ours. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nccl.h>

enum { RANKS = 4, COUNT = 1000 };

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        ncclResult_t result_ = (call);                                                                                 \
        if (result_ != ncclSuccess) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, ncclGetErrorString(result_),             \
                    ncclGetLastError(NULL));                                                                           \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static ncclUniqueId id;

static void fill(int *data, size_t count, int rank)
{
    for (size_t i = 0; i < count; i++) data[i] = (int)i * 10 + rank;
}

static void reductions(ncclComm_t comm, int rank, int *in, int *out)
{
    const int ranks = RANKS * (RANKS - 1) / 2;
    fill(in, RANKS * COUNT, rank);
    TRY(ncclAllReduce(in, out, COUNT, ncclInt32, ncclSum, comm, NULL));
    for (int i = 0; i < COUNT; i++) MUST(out[i] == RANKS * 10 * i + ranks);
    TRY(ncclAllReduce(in, out, COUNT, ncclInt32, ncclMax, comm, NULL));
    for (int i = 0; i < COUNT; i++) MUST(out[i] == 10 * i + RANKS - 1);
    TRY(ncclReduceScatter(in, out, COUNT, ncclInt32, ncclSum, comm, NULL));
    for (int i = 0; i < COUNT; i++) MUST(out[i] == RANKS * 10 * (rank * COUNT + i) + ranks);
    TRY(ncclReduce(in, out, COUNT, ncclInt32, ncclMin, 2, comm, NULL));
    if (rank == 2)
        for (int i = 0; i < COUNT; i++) MUST(out[i] == 10 * i);

    float x = (float)rank, factor = 2, sum = 0;
    ncclRedOp_t twice;
    TRY(ncclRedOpCreatePreMulSum(&twice, &factor, ncclFloat32, ncclScalarHostImmediate, comm));
    TRY(ncclAllReduce(&x, &sum, 1, ncclFloat32, twice, comm, NULL));
    TRY(ncclRedOpDestroy(twice, comm));
    MUST(sum == 2 * ranks);
    double average = 0, mine = rank;
    TRY(ncclAllReduce(&mine, &average, 1, ncclFloat64, ncclAvg, comm, NULL));
    MUST(average == (double)ranks / RANKS);
}

static void moves(ncclComm_t comm, int rank, int *in, int *out)
{
    fill(in, RANKS * COUNT, rank);
    TRY(ncclAllGather(in, out, COUNT, ncclInt32, comm, NULL));
    for (int i = 0; i < RANKS * COUNT; i++) MUST(out[i] == i % COUNT * 10 + i / COUNT);
    TRY(ncclBroadcast(in, out, COUNT, ncclInt32, 1, comm, NULL));
    for (int i = 0; i < COUNT; i++) MUST(out[i] == 10 * i + 1);
    TRY(ncclBcast(out, 1, ncclInt32, 3, comm, NULL));

    int right = (rank + 1) % RANKS, left = (rank + RANKS - 1) % RANKS;
    TRY(ncclGroupStart());
    TRY(ncclSend(in, COUNT, ncclInt32, right, comm, NULL));
    TRY(ncclRecv(out, COUNT, ncclInt32, left, comm, NULL));
    TRY(ncclGroupEnd());
    for (int i = 0; i < COUNT; i++) MUST(out[i] == 10 * i + left);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0)
    TRY(ncclAlltoAll(in, out, COUNT, ncclInt32, comm, NULL));
    for (int i = 0; i < RANKS * COUNT; i++) MUST(out[i] == (rank * COUNT + i % COUNT) * 10 + i / COUNT);
    TRY(ncclGather(in, out, COUNT, ncclInt32, 0, comm, NULL));
    if (rank == 0)
        for (int i = 0; i < RANKS * COUNT; i++) MUST(out[i] == i % COUNT * 10 + i / COUNT);
    TRY(ncclScatter(in, out, COUNT, ncclInt32, 3, comm, NULL));
    for (int i = 0; i < COUNT; i++) MUST(out[i] == (rank * COUNT + i) * 10 + 3);
#endif
}

static void windows(ncclComm_t comm, int rank)
{
    int *memory;
    void *handle;
    TRY(ncclMemAlloc((void **)&memory, 4096));
    TRY(ncclCommRegister(comm, memory, 4096, &handle));
    TRY(ncclCommDeregister(comm, handle));
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 29, 0)
    ncclWindow_t window;
    void *mine = NULL;
    memory[0] = -1;
    TRY(ncclCommWindowRegister(comm, memory, 4096, &window, NCCL_WIN_DEFAULT));
    TRY(ncclWinGetUserPtr(comm, window, &mine));
    MUST(mine == memory);
    ncclWaitSignalDesc_t from_left = {.opCnt = 1, .peer = (rank + RANKS - 1) % RANKS};
    TRY(ncclPutSignal(&rank, 1, ncclInt32, (rank + 1) % RANKS, window, 0, 0, 0, 0, comm, NULL));
    TRY(ncclWaitSignal(1, &from_left, comm, NULL));
    MUST(memory[0] == from_left.peer);
    TRY(ncclCommWindowDeregister(comm, window));
#else
    (void)rank;
#endif
    TRY(ncclMemFree(memory));
}

static void communicators(ncclComm_t comm, int rank)
{
    ncclComm_t half;
    int n, index, device, sum = rank;
    TRY(ncclCommSplit(comm, rank % 2, rank, &half, NULL));
    TRY(ncclCommCount(half, &n));
    TRY(ncclCommUserRank(half, &index));
    TRY(ncclCommCuDevice(half, &device));
    MUST(n == RANKS / 2 && index == rank / 2);
    TRY(ncclAllReduce(&sum, &sum, 1, ncclInt32, ncclSum, half, NULL));
    MUST(sum == (rank % 2 ? 1 + 3 : 0 + 2));
    TRY(ncclCommDestroy(half));
}

static void *work(void *argument)
{
    int rank = (int)(size_t)argument, n = 0;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    config.minCTAs = 1;
    config.maxCTAs = 4;
    config.netName = "Socket";
    ncclComm_t comm;
    TRY(ncclCommInitRankConfig(&comm, RANKS, id, rank, &config));
    TRY(ncclCommCount(comm, &n));
    MUST(n == RANKS);

    int *in = malloc(RANKS * COUNT * sizeof *in), *out = malloc(RANKS * COUNT * sizeof *out);
    reductions(comm, rank, in, out);
    moves(comm, rank, in, out);
    windows(comm, rank);
    communicators(comm, rank);
    free(in);
    free(out);

    ncclResult_t state;
    TRY(ncclCommGetAsyncError(comm, &state));
    MUST(state == ncclSuccess);
    TRY(ncclCommFinalize(comm));
    TRY(ncclCommDestroy(comm));
    return NULL;
}

int main(void)
{
    int version;
    pthread_t threads[RANKS];
    TRY(ncclGetVersion(&version));
    MUST(version >= NCCL_VERSION_CODE); /* the library is not older than the header */
    TRY(ncclGetUniqueId(&id));
    for (size_t r = 0; r < RANKS; r++) MUST(pthread_create(&threads[r], NULL, work, (void *)r) == 0);
    for (int r = 0; r < RANKS; r++) pthread_join(threads[r], NULL);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 30, 0)
    const char *text;
    TRY(ncclParamGetParameter("NCCL_SOCKET_RETRY_CNT", &text, NULL));
    MUST(strcmp(text, "34") == 0);
#endif
    MUST(ncclCommInitAll(NULL, 0, NULL) == ncclInvalidArgument);
    printf("compiled against %d, ran with %d\n", NCCL_VERSION_CODE, version);
    return 0;
}
