/* ncclSend and ncclRecv through the public interface, over every way in which ranks can be placed.
 *
 * What travels is bytes that only its message and its place in it determine; receive buffers are poisoned and stand
 * between guard bytes. Random sets of messages are drawn by a printed seed (RAILCCL_TEST_SEED repeats it), the same set on
 * every rank; the order in which a rank posts them is its own, but for the messages of one pair and direction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "device/host.h"
#include "support/job.h"
#include "support/trouble.h"

enum { GUARD = 64, POISON = 0xa5, MESSAGES_MOST = 12000 };

static bool long_run(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 8; }

static unsigned test_seed(void)
{
    static unsigned seed;
    if (seed) return seed;
    seed = getenv("RAILCCL_TEST_SEED") ? (unsigned)atoi(getenv("RAILCCL_TEST_SEED")) : (unsigned)time(NULL);
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    return seed;
}

/* ---- messages ---- */

struct message {
    int from, to, type;
    size_t count;
    unsigned salt;
};

static size_t bytes_of(const struct message *m) { return m->count * rail_type_bytes((enum rail_type)m->type); }

static unsigned char byte_of(const struct message *m, size_t k)
{
    uint32_t h = (uint32_t)k * 2246822519u ^ m->salt * 2654435761u;
    return (unsigned char)((h ^ h >> 15) * 2654435769u >> 24);
}

/* One end of a message: its buffer inside guards. */
struct end {
    const struct message *message;
    unsigned char *room, *at;
    bool sends;
};

static struct end end_make(const struct message *m, bool sends)
{
    size_t bytes = bytes_of(m);
    struct end e = {m, malloc(bytes + 2 * GUARD + 8), NULL, sends};
    memset(e.room, POISON, bytes + 2 * GUARD + 8);
    e.at = e.room + GUARD + m->salt % 8;
    for (size_t k = 0; sends && k < bytes; k++) e.at[k] = byte_of(m, k);
    return e;
}

static ncclResult_t end_post(const struct end *e, ncclComm_t comm)
{
    const struct message *m = e->message;
    void *buffer = m->count || m->salt % 2 ? e->at : NULL; /* no elements: no buffer is needed */
    return e->sends ? ncclSend(buffer, m->count, (ncclDataType_t)m->type, m->to, comm, NULL)
                    : ncclRecv(buffer, m->count, (ncclDataType_t)m->type, m->from, comm, NULL);
}

static void end_check(struct job_rank *rank, const struct end *e)
{
    const struct message *m = e->message;
    size_t bytes = bytes_of(m);
    for (size_t k = 0; k < bytes; k++)
        JOB_EXPECT(e->at[k] == byte_of(m, k), "%d -> %d, %zu elements of type %d: byte %zu %s", m->from, m->to, m->count,
                   m->type, k, e->sends ? "of the sender's buffer was changed" : "is wrong");
    for (const unsigned char *at = e->room; at < e->room + bytes + 2 * GUARD + 8; at++)
        JOB_EXPECT((at >= e->at && at < e->at + bytes) || *at == POISON, "%d -> %d: a byte outside of the buffer was written",
                   m->from, m->to);
}

/* ---- a set of messages, posted by every rank in its own order ---- */

struct set {
    int n;
    unsigned seed;
    enum { ANY_ORDER, SENDS_FIRST, PEERS_REVERSED } order; /* on odd ranks the peers are reversed */
    struct message messages[MESSAGES_MOST];
};

static int flow_of(const struct end *e) { return e->sends ? e->message->to : -1 - e->message->from; }

/* Shuffles, then puts the messages of each flow back into their common order. */
static void shuffle(struct end *ends, int n, unsigned seed)
{
    struct end *original = malloc((size_t)n * sizeof *original + 1);
    memcpy(original, ends, (size_t)n * sizeof *ends);
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(next(&seed) % (unsigned)(i + 1));
        struct end swap = ends[i];
        ends[i] = ends[k];
        ends[k] = swap;
    }
    int taken[2 * 64 + 1] = {0}; /* per flow: how far its messages in `original` have been given out */
    for (int i = 0; i < n; i++) {
        int flow = flow_of(&ends[i]), *from = &taken[flow + 64];
        while (flow_of(&original[*from]) != flow) ++*from;
        ends[i] = original[(*from)++];
    }
    free(original);
}

static int before(const struct end *a, const struct end *b, const struct set *set, int rank)
{
    if (set->order == SENDS_FIRST) return b->sends - a->sends;
    int by_flow = flow_of(a) - flow_of(b);
    return rank % 2 ? -by_flow : by_flow;
}

static void sort(struct end *ends, int n, const struct set *set, int rank) /* stable */
{
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && before(&ends[k - 1], &ends[k], set, rank) > 0; k--) {
            struct end swap = ends[k];
            ends[k] = ends[k - 1];
            ends[k - 1] = swap;
        }
}

static struct end *ends_of(const struct set *set, int rank, int *n_out)
{
    struct end *ends = malloc((size_t)set->n * 2 * sizeof *ends + 1);
    int n = 0;
    for (int i = 0; i < set->n; i++) {
        if (set->messages[i].from == rank) ends[n++] = end_make(&set->messages[i], true);
        if (set->messages[i].to == rank) ends[n++] = end_make(&set->messages[i], false);
    }
    if (set->order == ANY_ORDER)
        shuffle(ends, n, set->seed * 31u + (unsigned)rank);
    else
        sort(ends, n, set, rank);
    *n_out = n;
    return ends;
}

static void exchange(struct job_rank *rank, const struct set *set)
{
    int n;
    struct end *ends = ends_of(set, rank->rank, &n);
    ncclResult_t result = ncclGroupStart();
    for (int i = 0; i < n && result == ncclSuccess; i++) result = end_post(&ends[i], rank->comm);
    if (result == ncclSuccess) result = ncclGroupEnd();
    if (result != ncclSuccess) job_fail(rank, "%d messages: %s", set->n, ncclGetLastError(NULL));
    for (int i = 0; i < n; i++) {
        if (!rank->why[0]) end_check(rank, &ends[i]);
        free(ends[i].room);
    }
    free(ends);
}

static void body_exchange(struct job_rank *rank) { exchange(rank, rank->arg); }

/* ---- random sets, everywhere ---- */

static const size_t counts[] = {0, 0, 1, 2, 3, 10, 64, 1000, 4097, 20000};

static struct message draw(unsigned *seed, int n)
{
    struct message m = {.from = (int)(next(seed) % (unsigned)n), .to = (int)(next(seed) % (unsigned)n),
                        .type = (int)(next(seed) % ncclNumTypes), .salt = next(seed)};
    m.count = counts[next(seed) % (sizeof counts / sizeof *counts)];
    if (next(seed) % 40 == 0) m.count = 300001 + next(seed) % 1000; /* takes more than all slots of a link */
    return m;
}

static struct set *random_set(unsigned seed, int n_ranks, int n_messages)
{
    static struct set set;
    memset(&set, 0, sizeof set);
    set.n = n_messages;
    set.seed = seed;
    for (int i = 0; i < n_messages; i++) set.messages[i] = draw(&seed, n_ranks);
    return &set;
}

static const int rank_counts[] = {1, 2, 3, 4, 5, 8};

static void placed(int ranks_per_process, int n_hosts)
{
    for (size_t i = 0; i < sizeof rank_counts / sizeof *rank_counts; i++) {
        int n = rank_counts[i];
        if (n_hosts > 1 && n < 2) continue;
        struct job job = {.n_ranks = n, .ranks_per_process = ranks_per_process, .n_hosts = n_hosts, .limit_s = 100};
        for (int times = 0; times < (long_run() ? 20 : 2); times++)
            job_must(&job, body_exchange, random_set(test_seed() + 100 * (unsigned)times + (unsigned)i, n, 40 * n));
    }
}

static void random_messages_between_threads(void **state) { (void)state; placed(0, 1); }
static void random_messages_between_processes(void **state) { (void)state; placed(1, 1); }
static void random_messages_between_processes_of_two_threads(void **state) { (void)state; placed(2, 1); }
static void random_messages_between_two_hosts(void **state) { (void)state; placed(1, 2); }
static void random_messages_with_every_rank_a_host(void **state) { (void)state; placed(1, 8); }

static const struct job four[] = {{.n_ranks = 4, .ranks_per_process = 1, .limit_s = 100},
                                  {.n_ranks = 4, .ranks_per_process = 1, .n_hosts = 2, .limit_s = 100},
                                  {.n_ranks = 4, .limit_s = 100}};
enum { FORKED = 2 }; /* the first of four[]: threads last, forked ranks must not inherit a process that used the library */

static void every_type_and_count_from_everybody_to_everybody(const struct job *job)
{
    static struct set set;
    memset(&set, 0, sizeof set);
    for (int type = 0; type < ncclNumTypes; type++)
        for (size_t c = 1; c < sizeof counts / sizeof *counts; c += 2)
            for (int pair = 0; pair < 16; pair++)
                set.messages[set.n++] = (struct message){pair / 4, pair % 4, type, counts[c], (unsigned)set.n};
    for (int order = ANY_ORDER; order <= PEERS_REVERSED; order++) {
        set.order = order;
        set.seed = test_seed();
        job_must(job, body_exchange, &set);
    }
}

static void every_type_in_whatever_order_is_posted(void **state)
{
    (void)state;
    for (int i = 0; i < FORKED; i++) every_type_and_count_from_everybody_to_everybody(&four[i]);
}

static void every_type_in_whatever_order_on_threads(void **state)
{
    (void)state;
    every_type_and_count_from_everybody_to_everybody(&four[FORKED]);
}

/* ---- ten thousand in one group ---- */

static void ten_thousand_on(const struct job *job)
{
    static struct set set;
    unsigned seed = test_seed();
    memset(&set, 0, sizeof set);
    for (set.n = 0; set.n < 10000; set.n++) {
        struct message m = draw(&seed, job->n_ranks);
        if (m.count > 100) m.count = 100;
        set.messages[set.n] = m;
    }
    job_must(job, body_exchange, &set);
}

static void ten_thousand_messages_in_one_group(void **state)
{
    (void)state;
    for (int i = 0; i < FORKED; i++) ten_thousand_on(&four[i]);
}

/* ---- one at a time ---- */

/* Ranks pass what they got on, around and around; every tenth time it is long. */
static void pass_around(struct job_rank *rank)
{
    int n = rank->n_ranks, me = rank->rank, right = (me + 1) % n, left = (me + n - 1) % n;
    enum { LONG = 200000 };
    int *data = calloc(LONG, sizeof *data);
    for (int turn = 0; turn < 100 && !rank->why[0]; turn++) {
        size_t count = turn % 10 == 0 ? LONG : (size_t)turn % 7;
        if (me == 0) {
            for (size_t k = 0; k < count; k++) data[k] = turn * 1000 + (int)k;
            JOB_TRY(ncclSend(data, count, ncclInt32, right, rank->comm, NULL));
            memset(data, 0, count * sizeof *data);
        }
        JOB_TRY(ncclRecv(data, count, ncclInt32, left, rank->comm, NULL));
        for (size_t k = 0; k < count; k++)
            JOB_EXPECT(data[k] == turn * 1000 + (int)k + (me ? me - 1 : n - 1), "turn %d: element %zu is %d", turn, k, data[k]);
        for (size_t k = 0; k < count; k++) data[k]++;
        if (me) JOB_TRY(ncclSend(data, count, ncclInt32, right, rank->comm, NULL));
    }
    free(data);
}

static void a_blocking_call_is_complete_when_it_returns(void **state)
{
    (void)state;
    for (int i = 0; i < FORKED; i++) job_must(&four[i], pass_around, NULL);
    job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .n_hosts = 2}, pass_around, NULL);
}

static void a_blocking_call_on_threads(void **state)
{
    (void)state;
    job_must(&four[FORKED], pass_around, NULL);
}

/* The sender may be as late as it likes, and its data may be sent before the receiver asks. */
static void late(struct job_rank *rank)
{
    int word = 17;
    if (rank->rank == 0) {
        trouble_sleep_s(0.4);
        JOB_TRY(ncclSend(&word, 1, ncclInt32, 1, rank->comm, NULL));
        word = 0;
        JOB_TRY(ncclRecv(&word, 1, ncclInt32, 1, rank->comm, NULL));
        JOB_EXPECT(word == 18, "got %d", word);
    } else if (rank->rank == 1) {
        JOB_TRY(ncclRecv(&word, 1, ncclInt32, 0, rank->comm, NULL));
        JOB_EXPECT(word == 17, "got %d", word);
        word++;
        trouble_sleep_s(0.4);
        JOB_TRY(ncclSend(&word, 1, ncclInt32, 0, rank->comm, NULL));
    }
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 100));
}

static void late_is_not_dead(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts}, late, NULL);
}

/* Sent is sent: a message that nobody has asked for yet is still there when the communicator was suspended meanwhile. */
static void suspended_meanwhile(struct job_rank *rank)
{
    enum { COUNT = 20000 };
    static int data[COUNT];
    int me = rank->rank, to = (me + 1) % rank->n_ranks, from = (me + rank->n_ranks - 1) % rank->n_ranks;
    for (int turn = 0; turn < 3; turn++) {
        if (turn != 1) { /* the links are there by then, or are not */
            for (int k = 0; k < COUNT; k++) data[k] = me * COUNT + k + turn;
            if (me != 1) JOB_TRY(ncclSend(data, COUNT, ncclInt32, to, rank->comm, NULL));
        }
        JOB_TRY(ncclCommSuspend(rank->comm, NCCL_SUSPEND_MEM));
        JOB_TRY(ncclCommResume(rank->comm));
        memset(data, 0, sizeof data);
        if (turn != 1 && from != 1) {
            JOB_TRY(ncclRecv(data, COUNT, ncclInt32, from, rank->comm, NULL));
            for (int k = 0; k < COUNT; k++) JOB_EXPECT(data[k] == from * COUNT + k + turn, "turn %d: element %d is %d", turn, k, data[k]);
        }
        JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 1000));
    }
}

static void a_message_under_way_survives_a_suspension(void **state)
{
    (void)state;
    for (int n = 2; n < 5; n++) job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1}, suspended_meanwhile, NULL);
}

/* ---- with other calls ---- */

/* In one group: p2p in a ring on two communicators, and collectives of both among them, started in different orders. */
static void mixed(struct job_rank *rank)
{
    enum { N = 50000, TURNS = 10 };
    ncclComm_t comms[2] = {rank->comm};
    int me = rank->rank, n = rank->n_ranks, right = (me + 1) % n, left = (me + n - 1) % n;
    static _Thread_local float out[2][N], in[2][N], sum[2][N], one[N];
    JOB_TRY(trouble_second_comm(rank, &comms[1]));
    for (int k = 0; k < N; k++) one[k] = 1;
    for (int turn = 0; turn < TURNS; turn++) {
        size_t count = turn % 2 ? N : 10;
        JOB_TRY(ncclGroupStart());
        for (int i = 0; i < 2; i++) {
            int c = me % 2 ? 1 - i : i;
            for (size_t k = 0; k < count; k++) out[c][k] = (float)(me * 1000 + c * 100 + turn);
            if (me % 3) JOB_TRY(ncclAllReduce(one, sum[c], count, ncclFloat32, ncclSum, comms[c], NULL));
            JOB_TRY(ncclGroupStart());
            JOB_TRY(ncclSend(out[c], count, ncclFloat32, right, comms[c], NULL));
            JOB_TRY(ncclRecv(in[c], count, ncclFloat32, left, comms[c], NULL));
            JOB_TRY(ncclGroupEnd());
            if (me % 3 == 0) JOB_TRY(ncclAllReduce(one, sum[c], count, ncclFloat32, ncclSum, comms[c], NULL));
        }
        JOB_TRY(ncclGroupEnd());
        for (int c = 0; c < 2; c++)
            for (size_t k = 0; k < count; k++)
                JOB_EXPECT(in[c][k] == (float)(left * 1000 + c * 100 + turn) && sum[c][k] == (float)n,
                           "turn %d, communicator %d, element %zu: %g, %g", turn, c, k, (double)in[c][k], (double)sum[c][k]);
    }
    JOB_TRY(ncclCommDestroy(comms[1]));
}

static void two_communicators_and_collectives_in_one_group(void **state)
{
    (void)state;
    for (int n = 2; n < 6; n++)
        for (int hosts = 1; hosts < 3; hosts++)
            job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1, .n_hosts = hosts}, mixed, NULL);
}

static void two_communicators_and_collectives_on_threads(void **state)
{
    (void)state;
    job_must(&(struct job){.n_ranks = 3}, mixed, NULL);
}

/* ---- to oneself ---- */

static void oneself(struct job_rank *rank)
{
    int from[4] = {1, 2, 3, 4}, to[4] = {0}, me = rank->rank;
    ncclComm_t comm = rank->comm;
    for (int turn = 0; turn < 2; turn++) { /* either may be posted first */
        JOB_TRY(ncclGroupStart());
        if (turn) JOB_TRY(ncclRecv(to, 4, ncclInt32, me, comm, NULL));
        JOB_TRY(ncclSend(from, 4, ncclInt32, me, comm, NULL));
        if (!turn) JOB_TRY(ncclRecv(to, 4, ncclInt32, me, comm, NULL));
        JOB_TRY(ncclGroupEnd());
        JOB_EXPECT(memcmp(from, to, sizeof to) == 0, "got %d %d %d %d", to[0], to[1], to[2], to[3]);
        memset(to, 0, sizeof to);
    }
    if (!trouble_says(rank, "outside of a group", ncclSend(from, 4, ncclInt32, me, comm, NULL), ncclInvalidUsage,
                      "ncclSend: rank|and itself|ncclGroupStart")) return;
    if (!trouble_says(rank, "outside of a group", ncclRecv(to, 4, ncclInt32, me, comm, NULL), ncclInvalidUsage,
                      "ncclRecv: rank|and itself|ncclGroupStart")) return;
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclSend(from, 4, ncclInt32, me, comm, NULL));
    if (!trouble_says(rank, "half of it", ncclGroupEnd(), ncclInvalidUsage, "ncclSend of 4 int32|itself|ncclRecv")) return;
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclRecv(to, 4, ncclInt32, me, comm, NULL));
    if (!trouble_says(rank, "the other half", ncclGroupEnd(), ncclInvalidUsage, "ncclRecv of 4 int32|itself|ncclSend")) return;
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclSend(from, 4, ncclInt32, me, comm, NULL));
    JOB_TRY(ncclRecv(to, 3, ncclInt32, me, comm, NULL));
    if (!trouble_says(rank, "other counts", ncclGroupEnd(), ncclInvalidUsage, "4 int32|3 int32|itself")) return;
    JOB_EXPECT(to[0] == 0, "something was copied");
    JOB_TRY(trouble_allreduce(comm, rank->n_ranks, 8)); /* and it works on */
}

static void to_oneself_in_a_group_and_never_outside(void **state)
{
    (void)state;
    for (int n = 1; n < 3; n++) job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1}, oneself, NULL);
}

/* ---- sends and receives that do not match ---- */

struct mismatch {
    const char *name;
    size_t sent, wanted;
    int type_sent, type_wanted;
    bool grouped;
    const char *words;
};

static const struct mismatch mismatches[] = {
    {"fewer", 100, 200, ncclFloat32, ncclFloat32, false, "ncclSend of 100 float32 to rank 1|ncclRecv of 200 float32 from rank 0"},
    {"more", 200, 100, ncclFloat32, ncclFloat32, true, "ncclSend of 200 float32 to rank 1|ncclRecv of 100 float32 from rank 0"},
    {"other type", 100, 100, ncclInt32, ncclFloat32, false, "of 100 int32|of 100 float32"},
    {"nothing", 0, 1, ncclInt8, ncclInt8, true, "of 0 int8|of 1 int8"},
    {"for nothing", 1, 0, ncclInt8, ncclInt8, false, "of 1 int8|of 0 int8"},
    {"long, fewer", 2999999, 3000000, ncclInt64, ncclInt64, false, "of 2999999 int64|of 3000000 int64"},
    {"long, more", 3000000, 5, ncclInt64, ncclInt64, true, "of 3000000 int64|of 5 int64"},
};

static void does_not_match(struct job_rank *rank, const struct mismatch *m)
{
    ncclComm_t comm;
    char *data = calloc(3000001, 8), words[300];
    JOB_TRY(trouble_second_comm(rank, &comm));
    JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 3)); /* all have joined */
    double start_s = trouble_now_s();
    ncclResult_t result = ncclSuccess;
    snprintf(words, sizeof words, "rank 0: ncclSend|rank 1: ncclRecv|%s|message 1 from rank 0 to rank 1", m->words);
    if (m->grouped) result = ncclGroupStart();
    if (rank->rank == 0) result = ncclSend(data, m->sent, (ncclDataType_t)m->type_sent, 1, comm, NULL);
    if (rank->rank == 1) result = ncclRecv(data, m->wanted, (ncclDataType_t)m->type_wanted, 0, comm, NULL);
    if (m->grouped && result == ncclSuccess) result = ncclGroupEnd();
    while (result == ncclSuccess && trouble_now_s() - start_s < 5) { /* a short message is sent before anybody looks */
        trouble_sleep_s(0.005);
        JOB_TRY(ncclCommGetAsyncError(comm, &result));
        if (result != ncclSuccess) result = ncclSend(data, 1, ncclInt8, 1, comm, NULL); /* says why, again */
    }
    if (trouble_says(rank, m->name, result, ncclInvalidUsage, words))
        JOB_EXPECT(trouble_now_s() - start_s < 3, "%s: took %.1f s", m->name, trouble_now_s() - start_s);
    if (!rank->why[0]) JOB_TRY(trouble_allreduce(rank->comm, rank->n_ranks, 3)); /* all have heard */
    ncclCommAbort(comm);
    free(data);
}

static void all_mismatches(struct job_rank *rank)
{
    for (size_t i = 0; i < sizeof mismatches / sizeof *mismatches && !rank->why[0]; i++)
        does_not_match(rank, &mismatches[i]);
}

static void what_does_not_match_is_named_on_both_ranks(void **state)
{
    (void)state;
    for (int n = 2; n < 4; n++)
        for (int hosts = 1; hosts < 3; hosts++)
            job_must(&(struct job){.n_ranks = n, .ranks_per_process = 1, .n_hosts = hosts, .limit_s = 40}, all_mismatches, NULL);
}

/* ---- what a caller can get wrong ---- */

struct bad_call {
    const char *name;
    bool no_buffer;
    size_t count;
    int type, peer;
    void *stream;
    const char *words; /* after the call's name */
};

static int some_stream;
static const struct bad_call bad_calls[] = {
    {"peer -1", false, 4, ncclInt32, -1, NULL, "peer -1|valid are 0 to 1"},
    {"peer n", false, 4, ncclInt32, 2, NULL, "peer 2|valid are 0 to 1"},
    {"peer huge", false, 4, ncclInt32, INT32_MAX, NULL, "peer 2147483647|valid are"},
    {"type -1", false, 4, -1, 0, NULL, "datatype -1|valid are"},
    {"type 12", false, 0, 12, 0, NULL, "datatype 12|valid are"},
    {"no buffer", true, 4, ncclInt32, 0, NULL, "buff is NULL|count 4|pass the buffer"},
    {"count huge", false, SIZE_MAX, ncclInt32, 0, NULL, "count 18446744073709551615|at most|split"},
    {"count * 8 wraps", false, SIZE_MAX / 8 + 2, ncclInt64, 0, NULL, "count|at most|split"},
    {"stream", false, 4, ncclInt32, 0, &some_stream, "stream|pass NULL"},
};

static void call_badly(struct job_rank *rank, const struct bad_call *b, bool sends, bool grouped)
{
    static _Thread_local int buffer[16];
    char words[160];
    void *at = b->no_buffer ? NULL : buffer;
    int peer = b->peer == 0 ? 1 - rank->rank : b->peer; /* 0: a good one */
    snprintf(words, sizeof words, "%s: |%s", sends ? "ncclSend" : "ncclRecv", b->words);
    if (grouped) JOB_TRY(ncclGroupStart());
    ncclResult_t result = sends ? ncclSend(at, b->count, (ncclDataType_t)b->type, peer, rank->comm, b->stream)
                                : ncclRecv(at, b->count, (ncclDataType_t)b->type, peer, rank->comm, b->stream);
    if (!trouble_says(rank, b->name, result, ncclInvalidArgument, words)) return;
    if (grouped) {
        JOB_TRY(ncclSend(buffer, 1, ncclInt32, 1 - rank->rank, rank->comm, NULL)); /* never started: nobody receives */
        trouble_says(rank, b->name, ncclGroupEnd(), ncclInvalidArgument, words);
    }
}

static void all_bad_calls(struct job_rank *rank)
{
    for (size_t i = 0; i < sizeof bad_calls / sizeof *bad_calls; i++)
        for (int how = 0; how < 4 && !rank->why[0]; how++) call_badly(rank, &bad_calls[i], how & 1, how & 2);
    int word = rank->rank, got = -1;
    trouble_says(rank, "no communicator", ncclSend(&word, 1, ncclInt32, 0, NULL, NULL), ncclInvalidArgument,
                 "ncclSend: the communicator is NULL");
    JOB_TRY(ncclGroupStart());
    JOB_TRY(ncclSend(&word, 1, ncclInt32, 1 - rank->rank, rank->comm, NULL));
    JOB_TRY(ncclRecv(&got, 1, ncclInt32, 1 - rank->rank, rank->comm, NULL));
    JOB_TRY(ncclGroupEnd());
    JOB_EXPECT(got == 1 - rank->rank, "the communicator does not work on: %d", got);
    JOB_TRY(ncclCommFinalize(rank->comm));
    trouble_says(rank, "after the end", ncclSend(&word, 1, ncclInt32, 1 - rank->rank, rank->comm, NULL), ncclInvalidUsage,
                 "ncclSend: the communicator was finalized");
}

static void bad_arguments_are_named_and_harmless(void **state)
{
    (void)state;
    for (int hosts = 1; hosts < 3; hosts++)
        job_must(&(struct job){.n_ranks = 2, .ranks_per_process = 1, .n_hosts = hosts}, all_bad_calls, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_messages_between_processes),
        cmocka_unit_test(random_messages_between_processes_of_two_threads),
        cmocka_unit_test(random_messages_between_two_hosts),
        cmocka_unit_test(random_messages_with_every_rank_a_host),
        cmocka_unit_test(every_type_in_whatever_order_is_posted),
        cmocka_unit_test(ten_thousand_messages_in_one_group),
        cmocka_unit_test(a_blocking_call_is_complete_when_it_returns),
        cmocka_unit_test(late_is_not_dead),
        cmocka_unit_test(a_message_under_way_survives_a_suspension),
        cmocka_unit_test(two_communicators_and_collectives_in_one_group),
        cmocka_unit_test(to_oneself_in_a_group_and_never_outside),
        cmocka_unit_test(what_does_not_match_is_named_on_both_ranks),
        cmocka_unit_test(bad_arguments_are_named_and_harmless),
        cmocka_unit_test(random_messages_between_threads), /* from here on this process uses the library: no more forks */
        cmocka_unit_test(every_type_in_whatever_order_on_threads),
        cmocka_unit_test(a_blocking_call_on_threads),
        cmocka_unit_test(two_communicators_and_collectives_on_threads),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
