/* test_lent.c - whole communicators whose RDMA devices send from registered memory where it lies: what arrives is right, and when
 * a call has returned, well or not, nobody reads the caller's memory any more.
 *
 * The devices are fault_verbs.h's, which exist in one process only: rank 0 is this program's library, rank 1 a second one's
 * (twin.c), on another pretended host. Memory that a call gave back is taken away at once: who reads it then, falls. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <nccl.h>

#include "base/params.h"
#include "support/fault_verbs.h"
#include "support/trouble.h"

#ifdef RAIL_HAVE_VERBS

/* A message is longer than all slots of a link, so that a Send is lent, and waits for its receiver. */
enum { COUNT = 1 << 20, BYTES = COUNT * (int)sizeof(float) };
static const char *const environment[][2] = {
    {"NCCL_SOCKET_IFNAME", "=lo"},         {"RAILCCL_TOPO", "0"},      {"RAILCCL_ALGO", "ring"},
    {"RAILCCL_NET_SLOT_BYTES", "262144"},  {"RAILCCL_NET_SLOTS", "4"},
};

/* A device that keeps a buffer is waited for 0.3 s, then fenced; the rest is a busy machine's. */
#define GIVES_UP_S 3.0
/* News of a peer, which more than one rank may have to agree on. */
#define NEWS_S 6.0
#define SOON_S 20.0
/* What was to be read late would be by then. */
#define LATE_S 0.2

/* ---- two libraries ---- */

#define CALLS(X)                                                                                                       \
    X(CommInitRank) X(CommAbort) X(CommDestroy) X(AllReduce) X(AlltoAll) X(Send) X(Recv) X(GroupStart) X(GroupEnd) X(GetLastError)

struct library {
#define X(name) __typeof__(&nccl##name) name;
    CALLS(X)
#undef X
};

static const struct library own = {
#define X(name) .name = nccl##name,
    CALLS(X)
#undef X
};
static struct library twin;
static char sys[] = "/tmp/railccl-lent-XXXXXX";

static void *found(void *library, const char *name)
{
    void *at = dlsym(library, name);
    if (!at) fail_msg("%s", dlerror());
    return at;
}

static void open_twin(void)
{
    char path[600];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    assert_true(n > 0);
    path[n] = '\0';
    strcpy(strrchr(path, '/'), "/twin.so");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
#define X(name) *(void **)&twin.name = found(library, "nccl" #name);
    CALLS(X)
#undef X
    void (*wake)(const struct ibverbs *);
    const char *why;
    *(void **)&wake = found(library, "twin_wake");
    wake(ibverbs_functions(NULL, &why));
}

/* The loopback interface is that of a device's only port. */
static void make_sys(void)
{
    static const char *const folders[] = {"sys", "sys/class", "sys/class/infiniband", "sys/class/infiniband/fault0",
                                          "sys/class/infiniband/fault0/ports", "sys/class/infiniband/fault0/ports/1"};
    char path[200];
    assert_non_null(mkdtemp(sys));
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", sys, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    snprintf(path, sizeof path, "%s/sys/class/infiniband/fault0/parent", sys);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("lo\n", f);
    fclose(f);
}

static int two_hosts(void **state)
{
    (void)state;
    make_sys();
    fault_verbs_install();
    for (size_t i = 0; i < sizeof environment / sizeof *environment; i++) setenv(environment[i][0], environment[i][1], 1);
    setenv("RAILCCL_SYSFS_ROOT", sys, 1);
    setenv("NCCL_HOSTID", "lent-host-1", 1);
    open_twin();
    setenv("NCCL_HOSTID", "lent-host-0", 1);
    rail_params_reload();
    return 0;
}

static int leave(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", sys);
    return system(command);
}

/* ---- two ranks ---- */

enum what { ALL_REDUCE, ALL_TO_ALL, SEND, EXCHANGE, WHATS };
static const char *const what_names[WHATS] = {"AllReduce", "AlltoAll", "Send", "Send in a group with Recv"};
/* What rank 0 sends of it; of an AllReduce no partial sum between two ranks. */
static const uint64_t sent_bytes[WHATS] = {BYTES, BYTES / 2, BYTES, BYTES};

struct pair { ncclComm_t mine, theirs; };

/* Of rank 1, and never registered. */
static float theirs_in[COUNT], theirs_out[COUNT];

static ncclResult_t exchange(const struct library *l, ncclComm_t comm, int peer, float *in, float *out)
{
    l->GroupStart();
    l->Send(in, COUNT, ncclFloat, peer, comm, NULL);
    l->Recv(out, COUNT, ncclFloat, peer, comm, NULL);
    return l->GroupEnd();
}

static ncclResult_t call(const struct library *l, enum what what, ncclComm_t comm, float *in, float *out)
{
    int rank = l == &twin;
    switch (what) {
    case ALL_REDUCE: return l->AllReduce(in, out, COUNT, ncclFloat, ncclSum, comm, NULL);
    case ALL_TO_ALL: return l->AlltoAll(in, out, COUNT / 2, ncclFloat, comm, NULL);
    case EXCHANGE: return exchange(l, comm, 1 - rank, in, out);
    default: return rank ? l->Recv(out, COUNT, ncclFloat, 0, comm, NULL) : l->Send(in, COUNT, ncclFloat, 1, comm, NULL);
    }
}

static float mine_at(int i, int seed) { return (float)(i % 1000 + seed); }

/* Element i of a rank's output, where rank 1 gives ones; -1: as it was. */
static float right_at(enum what what, int rank, int i, int seed)
{
    int half = COUNT / 2;
    switch (what) {
    case ALL_REDUCE: return mine_at(i, seed) + 1;
    case ALL_TO_ALL: return i >= half ? 1 : mine_at(rank ? half + i : i, seed);
    case EXCHANGE: return rank ? mine_at(i, seed) : 1;
    default: return rank ? mine_at(i, seed) : -1;
    }
}

/* What rank 1 does meanwhile. */
struct other {
    pthread_t thread;
    enum what what;
    ncclComm_t *comm;
    const ncclUniqueId *id; /* given: it joins */
    bool again;             /* until a call fails */
    ncclResult_t result;
};

static void *other_main(void *arg)
{
    struct other *o = arg;
    if (o->id) o->result = twin.CommInitRank(o->comm, 2, *o->id, 1);
    else do o->result = call(&twin, o->what, *o->comm, theirs_in, theirs_out); while (o->again && o->result == ncclSuccess);
    return NULL;
}

static void begins(struct other *o) { assert_int_equal(pthread_create(&o->thread, NULL, other_main, o), 0); }

static void ends_well(struct other *o)
{
    pthread_join(o->thread, NULL);
    if (o->result != ncclSuccess) fail_msg("rank 1: %d: %s", o->result, twin.GetLastError(NULL));
}

static void well(ncclResult_t result)
{
    if (result != ncclSuccess) fail_msg("rank 0: %d: %s", result, ncclGetLastError(NULL));
}

/* A whole call of both, to the last element. */
static void both(enum what what, struct pair *p, float *memory, int seed)
{
    struct other o = {.what = what, .comm = &p->theirs};
    float *out = memory + COUNT;
    for (int i = 0; i < COUNT; i++) memory[i] = mine_at(i, seed), theirs_in[i] = 1, theirs_out[i] = out[i] = -1;
    begins(&o);
    ncclResult_t result = call(&own, what, p->mine, memory, out);
    ends_well(&o);
    well(result);
    for (int i = 0; i < COUNT; i++)
        if (out[i] != right_at(what, 0, i, seed) || theirs_out[i] != right_at(what, 1, i, seed))
            fail_msg("%s: element %d is %g and %g", what_names[what], i, (double)out[i], (double)theirs_out[i]);
}

static float *map(void)
{
    float *at = mmap(NULL, 2 * (size_t)BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

static void take(float *memory) { assert_int_equal(munmap(memory, 2 * (size_t)BYTES), 0); }

static uint64_t sent_from_registered(void) { return fault_verbs_figures().read_only_bytes; }

static void pair_begin(struct pair *p)
{
    ncclUniqueId id;
    struct other o = {.comm = &p->theirs, .id = &id};
    fault_verbs_hold(-1, false); /* a case that failed may have left it so */
    well(ncclGetUniqueId(&id));
    begins(&o);
    ncclResult_t result = ncclCommInitRank(&p->mine, 2, id, 0);
    ends_well(&o);
    well(result);
    float *plain = map(); /* once both ways, so that all lanes are there */
    uint64_t before = sent_from_registered();
    for (int what = 0; what < WHATS; what++) both((enum what)what, p, plain, 0);
    assert_int_equal(sent_from_registered(), before);
    take(plain);
}

static void *destroys(void *comm) { return (void *)(uintptr_t)twin.CommDestroy(comm); }

static void pair_end(struct pair *p)
{
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, destroys, p->theirs);
    well(ncclCommDestroy(p->mine));
    pthread_join(thread, &result);
    assert_null(result);
}

static bool becomes(bool (*is)(void))
{
    double start_s = trouble_now_s();
    while (!is() && trouble_now_s() - start_s < SOON_S) usleep(1000);
    return is();
}

static bool nothing_is_registered(void) { return fault_verbs_figures().read_only == 0; }

/* ---- well ---- */

static void what_is_registered_is_sent_from_where_it_lies(void **state)
{
    (void)state;
    struct pair p;
    void *handle;
    float *memory = map();
    pair_begin(&p);
    well(ncclCommRegister(p.mine, memory, 2 * (size_t)BYTES, &handle));
    for (int seed = 0; seed < 3; seed++)
        for (int what = 0; what < WHATS; what++) {
            uint64_t before = sent_from_registered();
            both((enum what)what, &p, memory, seed);
            assert_int_equal(sent_from_registered() - before, sent_bytes[what]);
        }
    well(ncclCommDeregister(p.mine, handle));
    pair_end(&p);
    take(memory);
}

static void memory_of_ours_needs_no_registration(void **state)
{
    (void)state;
    struct pair p;
    void *memory;
    pair_begin(&p);
    well(ncclMemAlloc(&memory, 2 * (size_t)BYTES));
    for (int what = 0; what < WHATS; what++) {
        uint64_t before = sent_from_registered();
        both((enum what)what, &p, memory, 3);
        assert_int_equal(sent_from_registered() - before, sent_bytes[what]);
    }
    well(ncclMemFree(memory));
    assert_true(becomes(nothing_is_registered));
    pair_end(&p);
}

/* The same addresses, and not registered: other memory. */
static void after_a_call_memory_may_go_and_the_communicator_lives_on(void **state)
{
    (void)state;
    struct pair p;
    pair_begin(&p);
    for (int what = 0; what < WHATS; what++) {
        void *handle;
        float *memory = map();
        well(ncclCommRegister(p.mine, memory, 2 * (size_t)BYTES, &handle));
        both((enum what)what, &p, memory, 5);
        well(ncclCommDeregister(p.mine, handle));
        uint64_t before = sent_from_registered();
        take(memory);
        assert_true(becomes(nothing_is_registered));
        assert_ptr_equal(mmap(memory, 2 * (size_t)BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), memory);
        for (int next = 0; next < WHATS; next++) both((enum what)next, &p, memory, 6);
        assert_int_equal(sent_from_registered(), before);
        take(memory);
    }
    pair_end(&p);
}

/* ---- given up ---- */

/* Why a call does not come to its end; IN_FULL_SWING it does, and the next one begins. */
enum stall { SILENT_DEVICE, LATE_PEER, STALLS, IN_FULL_SWING = STALLS };
static const char *const stall_names[] = {"the device is silent", "the peer does not call", "in full swing"};

/* What ends it. */
enum end { ABORT, REVOKE, PEER_ABORTS, ENDS };
static const char *const end_names[ENDS] = {"aborted", "revoked", "the peer aborts"};

struct cut {
    enum what what;
    enum stall stall;
    enum end end;
    struct pair pair;
    float *memory;
    void *handle;
    useconds_t after_us; /* that it is lent; in full swing after the beginning */
    pthread_t thread;
    uint64_t before;
    bool was_lent;
    double ended_s, returned_s;
    ncclResult_t result;
};

#define CUT_EXPECT(c, condition, ...)                                                                                  \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            print_message("%s, %s, %s:\n", what_names[(c)->what], stall_names[(c)->stall], end_names[(c)->end]);       \
            fail_msg(__VA_ARGS__);                                                                                     \
        }                                                                                                              \
    } while (0)

/* Of a silent device the buffer is still to be read; for a late peer it has been, and would be again if a lane died. */
static bool is_lent(const struct cut *c)
{
    struct fault_verbs_figures f = fault_verbs_figures();
    return c->stall == SILENT_DEVICE ? f.read_only_out > 0 : f.read_only_bytes > c->before;
}

static void *ends(void *arg)
{
    struct cut *c = arg;
    double start_s = trouble_now_s();
    while (c->stall != IN_FULL_SWING && !is_lent(c) && trouble_now_s() - start_s < SOON_S) usleep(1000);
    c->was_lent = is_lent(c);
    usleep(c->after_us);
    c->ended_s = trouble_now_s();
    if (c->end == ABORT) ncclCommAbort(c->pair.mine);
    else if (c->end == REVOKE) ncclCommRevoke(c->pair.mine, NCCL_REVOKE_DEFAULT);
    else twin.CommAbort(c->pair.theirs);
    return NULL;
}

/* The memory is the caller's own again, so it goes. Whatever was held up moves now. */
static void nobody_reads(const struct cut *c)
{
    struct fault_verbs_figures f = fault_verbs_figures();
    CUT_EXPECT(c, f.read_only_out == 0, "a device has still to read %llu bytes", (unsigned long long)f.read_only_out);
    memset(c->memory, 0xee, 2 * (size_t)BYTES);
    assert_int_equal(mprotect(c->memory, 2 * (size_t)BYTES, PROT_NONE), 0);
    fault_verbs_hold(-1, false);
    trouble_sleep_s(c->stall == IN_FULL_SWING ? 0.01 : LATE_S);
    f.read_only_bytes = sent_from_registered() - f.read_only_bytes;
    CUT_EXPECT(c, f.read_only_bytes == 0, "a device read %llu bytes too late", (unsigned long long)f.read_only_bytes);
}

static void says_why(const struct cut *c, const char *text)
{
    CUT_EXPECT(c, c->stall == IN_FULL_SWING || c->was_lent, "nothing was lent");
    CUT_EXPECT(c, c->returned_s - c->ended_s < (c->end == PEER_ABORTS ? NEWS_S : GIVES_UP_S), "returned after %.1f s",
               c->returned_s - c->ended_s);
    CUT_EXPECT(c, c->result != ncclSuccess, "the call was successful");
    if (c->end == REVOKE) CUT_EXPECT(c, c->result == ncclInvalidUsage && !trouble_lacks(text, "rank 0|revoked"), "%d: %s", c->result, text);
    if (c->end == PEER_ABORTS) CUT_EXPECT(c, c->result == ncclRemoteError && !trouble_lacks(text, "rank 1"), "%d: %s", c->result, text);
}

/* A registration of a communicator that failed may end before it does, and with it. */
static void clear(struct cut *c, bool deregister)
{
    if (c->end != ABORT && deregister) well(ncclCommDeregister(c->pair.mine, c->handle));
    if (c->end != ABORT) well(ncclCommAbort(c->pair.mine));
    if (c->end != PEER_ABORTS) twin.CommAbort(c->pair.theirs);
    assert_true(becomes(nothing_is_registered));
    take(c->memory);
}

static void cut(struct cut *c)
{
    struct other o = {.what = c->what, .comm = &c->pair.theirs, .again = c->stall == IN_FULL_SWING};
    char text[1024];
    c->memory = map();
    pair_begin(&c->pair);
    well(ncclCommRegister(c->pair.mine, c->memory, 2 * (size_t)BYTES, &c->handle));
    c->before = sent_from_registered();
    if (c->stall == SILENT_DEVICE) fault_verbs_hold(-1, true);
    if (c->stall != LATE_PEER) begins(&o);
    assert_int_equal(pthread_create(&c->thread, NULL, ends, c), 0);
    do c->result = call(&own, c->what, c->pair.mine, c->memory, c->memory + COUNT);
    while (c->stall == IN_FULL_SWING && c->result == ncclSuccess);
    c->returned_s = trouble_now_s();
    nobody_reads(c);
    snprintf(text, sizeof text, "%s", ncclGetLastError(NULL));
    pthread_join(c->thread, NULL);
    if (c->stall != LATE_PEER) pthread_join(o.thread, NULL);
    says_why(c, text);
    if (c->stall != LATE_PEER) CUT_EXPECT(c, o.result != ncclSuccess, "rank 1 was successful");
    clear(c, c->what % 2 == 0);
}

static void all_cuts(enum stall stall)
{
    for (int end = 0; end < ENDS; end++)
        for (int what = 0; what < WHATS; what++)
            cut(&(struct cut){.what = (enum what)what, .stall = stall, .end = (enum end)end, .after_us = 50000});
}

static void when_the_device_is_silent_memory_comes_back_with_the_call(void **state)
{
    (void)state;
    all_cuts(SILENT_DEVICE);
}

static void when_the_peer_does_not_call_memory_comes_back_with_the_call(void **state)
{
    (void)state;
    all_cuts(LATE_PEER);
}

static ncclResult_t group(enum what what, ncclComm_t one, float *plain, ncclComm_t other, float *memory)
{
    ncclGroupStart();
    call(&own, ALL_REDUCE, one, plain, plain + COUNT);
    call(&own, what, other, memory, memory + COUNT);
    return ncclGroupEnd();
}

/* Nothing ails the communicator that has lent it. */
static void a_group_that_fails_gives_back_what_its_other_communicators_lent(void **state)
{
    (void)state;
    for (int what = 0; what < WHATS; what++) {
        struct pair other;
        struct cut c = {.what = (enum what)what, .stall = LATE_PEER, .end = ABORT, .after_us = 50000, .memory = map()};
        float *plain = map();
        pair_begin(&c.pair);
        pair_begin(&other);
        well(ncclCommRegister(other.mine, c.memory, 2 * (size_t)BYTES, &c.handle));
        c.before = sent_from_registered();
        assert_int_equal(pthread_create(&c.thread, NULL, ends, &c), 0);
        c.result = group(c.what, c.pair.mine, plain, other.mine, c.memory);
        c.returned_s = trouble_now_s();
        nobody_reads(&c);
        pthread_join(c.thread, NULL);
        says_why(&c, "");
        well(ncclCommDeregister(other.mine, c.handle));
        well(ncclCommAbort(other.mine));
        twin.CommAbort(other.theirs);
        clear(&c, false);
        take(plain);
    }
}

static void at_any_moment_memory_comes_back_with_the_call(void **state)
{
    unsigned seed = 23;
    (void)state;
    for (int i = 0; i < (getenv("RAILCCL_TEST_LONG") ? 400 : 2 * ENDS * WHATS); i++)
        cut(&(struct cut){.what = (enum what)(i % WHATS), .stall = IN_FULL_SWING, .end = (enum end)(i / WHATS % ENDS),
                          .after_us = (useconds_t)(rand_r(&seed) % 10000)});
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_registered_is_sent_from_where_it_lies),
        cmocka_unit_test(memory_of_ours_needs_no_registration),
        cmocka_unit_test(after_a_call_memory_may_go_and_the_communicator_lives_on),
        cmocka_unit_test(when_the_device_is_silent_memory_comes_back_with_the_call),
        cmocka_unit_test(when_the_peer_does_not_call_memory_comes_back_with_the_call),
        cmocka_unit_test(a_group_that_fails_gives_back_what_its_other_communicators_lent),
        cmocka_unit_test(at_any_moment_memory_comes_back_with_the_call),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, two_hosts, leave);
}

#else
int main(void) { return print_message("1..0 # SKIP built without infiniband/verbs.h\n"), 77; }
#endif
