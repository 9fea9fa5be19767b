/* test_stress.c - order under load: threads put random work into streams of two devices, and the work itself checks
 * that what had to be before it was. RAILCCL_TEST_SEED repeats a run. */
#include "emulated_cuda/fixture.h"

#include <pthread.h>
#include <time.h>

enum { STREAMS = 6, THREADS = 3, STEPS = 400 };

/* Stream s counts its steps in done[s], by writes of the stream; issued[s] is how many were put into it. */
static struct line {
    CUstream stream;
    struct client client;
    bool blocking;
    uint32_t issued;
    CUevent event;
    uint32_t recorded; /* step that the event marks */
} lines[STREAMS];
static uint32_t *done;
static unsigned wrong;
static unsigned seed;

struct claim {
    uint32_t least[STREAMS];
};

static void verify(void *data)
{
    struct claim *claim = data;
    for (int s = 0; s < STREAMS; s++)
        if (__atomic_load_n(&done[s], __ATOMIC_ACQUIRE) < claim->least[s])
            __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
    free(claim);
}

static void step(int s)
{
    uint32_t next = lines[s].issued + 1;
    must(cuStreamWriteValue32_v2(lines[s].stream, (uintptr_t)&done[s], next, 0));
    __atomic_store_n(&lines[s].issued, next, __ATOMIC_RELEASE);
}

/* What a stream of its own thread does next. */
static void act(int s, unsigned *random, struct claim *claim)
{
    int other = rand_r(random) % STREAMS;
    switch (rand_r(random) % 6) {
    case 0:
        claim->least[s] = lines[s].issued;
        must(cuLaunchHostFunc(lines[s].stream, verify, claim));
        return;
    case 1:
        if (other % THREADS == s % THREADS && lines[other].recorded > 0) { /* a stream of this thread, too */
            must(cuStreamWaitEvent(lines[s].stream, lines[other].event, 0));
            claim->least[other] = lines[other].recorded;
            must(cuLaunchHostFunc(lines[s].stream, verify, claim));
            return;
        }
        break;
    case 2:
        must(cuEventRecord(lines[s].event, lines[s].stream));
        lines[s].recorded = lines[s].issued;
        break;
    case 3:
        if (rand_r(random) % 4 == 0) {
            must(cuCtxSetCurrent(lines[s].client.context));
            for (int b = 0; b < STREAMS; b++)
                if (lines[b].blocking && lines[b].client.context == lines[s].client.context)
                    claim->least[b] = __atomic_load_n(&lines[b].issued, __ATOMIC_ACQUIRE);
            must(cuLaunchHostFunc(NULL, verify, claim)); /* the legacy stream */
            return;
        }
        break;
    default: step(s);
    }
    free(claim);
}

static void *issue(void *argument)
{
    int me = (int)(intptr_t)argument;
    unsigned random = seed + (unsigned)me;
    for (int i = 0; i < STEPS; i++) {
        int s = me + THREADS * (rand_r(&random) % (STREAMS / THREADS));
        must(cuCtxSetCurrent(lines[s].client.context));
        act(s, &random, calloc(1, sizeof(struct claim)));
        if (i % 100 == 99)
            must(cuStreamSynchronize(lines[s].stream));
    }
    return NULL;
}

static void order_holds_under_load(void)
{
    pthread_t threads[THREADS];
    const char *given = getenv("RAILCCL_TEST_SEED");
    seed = given != NULL ? (unsigned)atoi(given) : (unsigned)time(NULL);
    struct client c[2] = {client_of(0), client_of(1)};
    done = pinned_words(STREAMS);
    for (int s = 0; s < STREAMS; s++) {
        lines[s].client = c[s / THREADS];
        lines[s].blocking = s % 2 == 0;
        must(cuCtxSetCurrent(lines[s].client.context));
        lines[s].stream = stream_with(lines[s].blocking ? 0 : CU_STREAM_NON_BLOCKING);
        must(cuEventCreate(&lines[s].event, 0));
    }
    for (int t = 0; t < THREADS; t++)
        check(pthread_create(&threads[t], NULL, issue, (void *)(intptr_t)t) == 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (int i = 0; i < 2; i++) {
        must(cuCtxSetCurrent(c[i].context));
        must(cuCtxSynchronize());
    }
    for (int s = 0; s < STREAMS; s++)
        check(done[s] == lines[s].issued);
    if (wrong > 0)
        fprintf(stderr, "RAILCCL_TEST_SEED=%u: %u times something ran too early\n", seed, wrong);
    check(wrong == 0);
}

static void *meet_often(void *argument)
{
    int me = (int)(intptr_t)argument;
    CUstream s;
    must(cuCtxSetCurrent(lines[me].client.context));
    s = stream_with(CU_STREAM_NON_BLOCKING);
    CUfunction meet = kernel_of(&lines[me].client, "kernel_meet");
    for (uint32_t i = 1; i <= 300; i++) {
        struct meet_argument a = {(uintptr_t)&done[me], (uintptr_t)&done[(me + 1) % THREADS], i};
        launch_it(meet, 1, s, &a);
    }
    must(cuStreamSynchronize(s));
    return NULL;
}

/* Ranks that share a device: each one's kernels wait for those of the next, all of them from threads of their own. */
static void threads_meet_on_one_device(void)
{
    pthread_t threads[THREADS];
    struct client c = client_of(0);
    done = pinned_words(THREADS);
    kernel_of(&c, "kernel_meet");
    for (int t = 0; t < THREADS; t++) {
        lines[t].client = c;
        check(pthread_create(&threads[t], NULL, meet_often, (void *)(intptr_t)t) == 0);
    }
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    check(done[0] == 300 && done[1] == 300 && done[2] == 300);
}

int main(void)
{
    static const struct test tests[] = {
        {"order holds under load", order_holds_under_load, NULL, 0},
        {"threads meet on one device", threads_meet_on_one_device, NULL, 0},
    };
    return run_cases("stress", tests, sizeof tests / sizeof *tests);
}
