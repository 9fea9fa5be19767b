/* The kernel, built for the host, does what the host engine does, to the bit: every collective by every algorithm that one
 * node has, over the same segment, alone and with ranks of the host engine among its own; it finds calls that do not
 * match, stops when it is told to, and keeps its counters over thousands of launches. */
#include "engine/kernel_ranks.h"

#include "base/clock.h"
#include "engine/calls.h"

enum { GUARD = 64 };

struct setup {
    uint32_t n;
    enum plan_collective collective;
    enum plan_algorithm algorithm;
    uint32_t root, n_channels;
    bool direct, in_place, in_rank_order, scaled;
    bool express;     /* the kernel's way is that of small collectives, whatever the host engine's plan */
    enum rail_type type;
    enum rail_op op;
    uint64_t divide;
    size_t count;
    size_t window_bytes, slot_bytes, piece_bytes;
    uint32_t threads; /* of a block */
    uint32_t kernels; /* ranks that the kernel runs, a bit each */
    int repeats;
    size_t offset;    /* of buffers, in elements: none of them aligned to 16 bytes */
};

struct extent {
    size_t input, output; /* bytes */
};

static struct extent extent_of(const struct setup *s, uint32_t rank)
{
    struct collective_kind kind = collective_kind(s->collective);
    size_t block = s->count * rail_type_bytes(s->type);
    struct extent e = {0, 0};
    if (!kind.root_gives || rank == s->root) e.input = kind.input_blocks ? block * s->n : block;
    if (!kind.root_gets || rank == s->root) e.output = kind.output_blocks ? block * s->n : block;
    return e;
}

struct trial {
    struct setup s;
    struct ranks all;
    unsigned char *result[RANKS_MAX]; /* [repeats][output with guards] */
    pthread_mutex_t lock;
    char why[400];
};

struct rank {
    struct trial *run;
    uint32_t rank;
    struct kernel_rank k;
};

static void say(struct trial *run, const char *why)
{
    pthread_mutex_lock(&run->lock);
    if (!run->why[0]) snprintf(run->why, sizeof run->why, "%s", why);
    pthread_mutex_unlock(&run->lock);
}

/* Any bits: NaNs, infinities and subnormals among them. The same for every engine. */
static void fill(unsigned char *at, size_t bytes, uint32_t rank, int repeat)
{
    uint64_t x = 0x9e3779b97f4a7c15ull * (rank + 1) + (uint64_t)repeat;
    for (size_t k = 0; k < bytes; k++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        at[k] = (unsigned char)(x >> 32);
    }
}

static struct rail_combine how_of(const struct setup *s)
{
    struct rail_combine how = {.type = s->type, .op = s->op, .scaled = s->scaled, .divide = s->divide};
    if (s->scaled) how.scale = rail_reciprocal_bits(s->type, s->n);
    return how;
}

static size_t bytes_with_guards(const struct setup *s, uint32_t rank)
{
    struct extent e = extent_of(s, rank);
    return (e.input > e.output ? e.input : e.output) + s->offset * 8 + 2 * GUARD;
}

/* The buffers of one rank, at addresses that its engine is given. */
struct buffers {
    unsigned char *in, *out, *scratch;
    struct instance *const *instances;
    struct host_call call;
};

static unsigned char *take(struct rank *me, bool device, size_t bytes)
{
    return device ? ranks_take(&me->run->all, bytes) : aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static bool prepare(struct rank *me, bool device, struct buffers *b)
{
    const struct setup *s = &me->run->s;
    size_t element = rail_type_bytes(s->type);
    struct collective_kind kind = collective_kind(s->collective);
    struct choice choice = {.algorithm = s->algorithm, .n_channels = s->n_channels, .piece_bytes = s->piece_bytes};
    me->k.wires.in_rank_order = s->in_rank_order;
    if (wires_instances(&me->k.wires, s->collective, kind.rooted ? s->root : 0, &choice, &b->instances) != RAIL_OK) {
        say(me->run, rail_last_error());
        return false;
    }
    const struct plan *plan = &b->instances[0]->plan;
    b->in = take(me, device, bytes_with_guards(s, me->rank)) + GUARD + s->offset * element;
    b->out = take(me, device, bytes_with_guards(s, me->rank)) + GUARD + s->offset * element;
    b->call = (struct host_call){.how = how_of(s), .signature = 7, .direct = s->direct,
                                 .blocks = {me->run->all.shape.order, kind.input_blocks, kind.output_blocks}};
    b->call.split = (struct plan_split){s->count, 64 / element, s->piece_bytes / element, s->n_channels,
                                        plan->n_pieces / collective_blocks(s->collective, s->n)};
    size_t scratch = host_scratch_bytes(&b->call, plan);
    b->call.scratch = b->scratch = scratch ? take(me, device, scratch) : NULL;
    return true;
}

static bool is_in_place(const struct setup *s, uint32_t rank)
{
    struct extent e = extent_of(s, rank);
    return s->in_place && e.input && e.output;
}

/* In place my own block stands at the same address in both. */
static void place(struct rank *me, struct buffers *b)
{
    const struct setup *s = &me->run->s;
    struct collective_kind kind = collective_kind(s->collective);
    size_t mine = me->rank * s->count * rail_type_bytes(s->type);
    b->call.input = b->in;
    b->call.output = b->out;
    if (!is_in_place(s, me->rank)) return;
    if (kind.input_blocks) b->call.output = b->in + mine;
    else b->call.input = b->out + (kind.output_blocks ? mine : 0);
}

static void one_call(struct rank *me, struct buffers *b, const struct kernel_call *call, int repeat)
{
    struct trial *run = me->run;
    const struct setup *s = &run->s;
    struct extent e = extent_of(s, me->rank);
    const struct device *device = &run->all.device;
    size_t whole = bytes_with_guards(s, me->rank), lead = GUARD + s->offset * rail_type_bytes(s->type);
    unsigned char *in = device_real(device, b->in), *out = device_real(device, b->out);
    memset(in - lead, 0xa5, whole);
    memset(out - lead, 0xa5, whole);
    fill(device_real(device, b->call.input), e.input, me->rank, repeat);
    if (call) {
        launch(device, call, s->threads);
        if (me->k.report->trouble) {
            char why[200];
            snprintf(why, sizeof why, "rank %u: trouble %u who %u theirs %llx mine %llx", me->rank, me->k.report->trouble,
                     me->k.report->who, (unsigned long long)me->k.report->theirs, (unsigned long long)me->k.report->mine);
            say(run, why);
        }
        if (me->k.report->finished != (uint64_t)repeat + 1 || me->k.report->begun != (uint64_t)repeat + 1)
            say(run, "launches are not counted");
    } else if (host_run(&me->k, &b->call, b->instances) != RAIL_OK) {
        say(run, rail_last_error());
    }
    const unsigned char *got = is_in_place(s, me->rank) && collective_kind(s->collective).input_blocks ? in : out;
    memcpy(run->result[me->rank] + (size_t)repeat * whole, got - lead, whole);
}

static void *rank_main(void *arg)
{
    struct rank *me = arg;
    const struct setup *s = &me->run->s;
    bool kernel = s->kernels >> me->rank & 1, device = s->kernels == (1u << s->n) - 1;
    struct buffers b;
    kernel_rank_open(&me->k, &me->run->all, me->rank, s->threads);
    if (prepare(me, device, &b)) {
        place(me, &b);
        struct kernel_call call;
        if (kernel)
            call = s->express ? kernel_express(&me->k, &b.call, s->collective, s->root, s->in_rank_order)
                              : kernel_collective(&me->k, &b.call, b.instances);
        for (int repeat = 0; repeat < s->repeats; repeat++) one_call(me, &b, kernel ? &call : NULL, repeat);
    }
    kernel_rank_close(&me->k);
    if (!device) {
        free(b.in - GUARD - s->offset * rail_type_bytes(s->type));
        free(b.out - GUARD - s->offset * rail_type_bytes(s->type));
        free(b.scratch);
    }
    return NULL;
}

static void trial_open(struct trial *run, const struct setup *s)
{
    struct rank ranks[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    *run = (struct trial){.s = *s};
    pthread_mutex_init(&run->lock, NULL);
    ranks_open(&run->all, s->n, s->window_bytes, s->slot_bytes, s->n_channels);
    for (uint32_t r = 0; r < s->n; r++) {
        run->result[r] = malloc(bytes_with_guards(s, r) * (size_t)s->repeats);
        ranks[r] = (struct rank){.run = run, .rank = r};
        assert_int_equal(pthread_create(&threads[r], NULL, rank_main, &ranks[r]), 0);
    }
    for (uint32_t r = 0; r < s->n; r++) pthread_join(threads[r], NULL);
    ranks_close(&run->all);
    pthread_mutex_destroy(&run->lock);
}

static void trial_close(struct trial *run)
{
    for (uint32_t r = 0; r < run->s.n; r++) free(run->result[r]);
}

static void same(struct setup s, uint32_t kernels)
{
    struct trial host, kernel;
    char what[200];
    snprintf(what, sizeof what, "%s%s by %s, %u ranks, kernels %x, type %d, op %d, count %zu, %s%s, %u threads, %u channels, root %u",
             s.express ? "small " : "", collective_name(s.collective), plan_algorithm_names[s.algorithm], s.n, kernels, s.type, s.op, s.count,
             s.direct ? "direct" : "staged", s.in_place ? " in place" : "", s.threads, s.n_channels, s.root);
    s.kernels = 0;
    trial_open(&host, &s);
    s.kernels = kernels;
    trial_open(&kernel, &s);
    if (host.why[0]) fail_msg("host: %s (%s)", host.why, what);
    if (kernel.why[0]) fail_msg("%s (%s)", kernel.why, what);
    for (uint32_t r = 0; r < s.n; r++)
        for (size_t k = 0; k < bytes_with_guards(&s, r) * (size_t)s.repeats; k++)
            if (host.result[r][k] != kernel.result[r][k])
                fail_msg("rank %u: byte %zu of %zu is %02x, the host engine's %02x (%s)", r, k, bytes_with_guards(&s, r),
                         kernel.result[r][k], host.result[r][k], what);
    trial_close(&host);
    trial_close(&kernel);
}

static struct setup usual(uint32_t n, enum plan_collective collective, enum plan_algorithm a)
{
    struct setup s = {.n = n, .collective = collective, .algorithm = a, .n_channels = 1, .type = RAIL_F32, .op = RAIL_SUM,
                      .count = 1000, .window_bytes = 64 * 64, .slot_bytes = 1024, .repeats = 3, .threads = 2};
    bool windows = a == PLAN_ONE_SHOT || a == PLAN_TWO_SHOT;
    s.piece_bytes = !windows ? s.slot_bytes
                    : collective == PLAN_ALLREDUCE && a == PLAN_ONE_SHOT ? s.window_bytes : s.window_bytes / n / 64 * 64;
    return s;
}

static uint32_t all_of(uint32_t n) { return (1u << n) - 1; }

static void each(void (*body)(struct setup s))
{
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (int a = 0; a < PLAN_HIERARCHY; a++)
            if (plan_exists((enum plan_collective)c, (enum plan_algorithm)a))
                for (uint32_t n = 2; n <= 5; n++) {
                    struct shape shape;
                    uint64_t keys[RANKS_MAX] = {0};
                    struct plan plan;
                    assert_int_equal(shape_build(&shape, n, keys, 1), 0);
                    bool fits = plan_write((enum plan_collective)c, (enum plan_algorithm)a, &shape, 0, 0, 0, &plan);
                    shape_clear(&shape);
                    if (fits) body(usual(n, (enum plan_collective)c, (enum plan_algorithm)a));
                }
}

static void awkward_counts(struct setup s)
{
    static const size_t counts[] = {1, 17, 1000, 7001};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        s.count = counts[k];
        s.root = (uint32_t)k % s.n;
        s.threads = k % 2 ? 1 : 3;
        s.offset = k % 3;
        same(s, all_of(s.n));
    }
}

static void every_collective_by_every_algorithm_gives_the_bits_of_the_host_engine(void **state)
{
    (void)state;
    each(awkward_counts);
}

static void modes(struct setup s)
{
    if (s.n != 3) return;
    for (int mode = 1; mode < 4; mode++) {
        s.in_place = (mode & 1) && s.collective != PLAN_ALLTOALL;
        s.direct = mode & 2;
        if (s.algorithm == PLAN_ONE_SHOT && s.direct && s.in_place) continue; /* the plan does not claim it */
        s.count = 1003;
        same(s, all_of(s.n));
    }
}

static void in_place_and_direct_buffers_change_nothing(void **state)
{
    (void)state;
    each(modes);
}

static void mixed(struct setup s)
{
    if (s.n != 4) return;
    for (uint32_t kernels = 1; kernels < all_of(s.n); kernels += 4) {
        s.root = kernels % s.n;
        same(s, kernels);
    }
}

static void ranks_of_both_engines_share_a_plan(void **state)
{
    (void)state;
    each(mixed);
}

static void every_type_and_operator(void **state)
{
    (void)state;
    static const enum plan_algorithm algorithms[] = {PLAN_ONE_SHOT, PLAN_RING, PLAN_RANK_TREE};
    for (int type = 0; type < RAIL_TYPES; type++)
        for (int op = 0; op < RAIL_OPS; op++)
            for (int a = 0; a < 3; a++) {
                struct setup s = usual(3, PLAN_ALLREDUCE, algorithms[a]);
                s.type = (enum rail_type)type;
                s.op = (enum rail_op)op;
                s.count = 777;
                s.repeats = 1;
                s.piece_bytes = a == 0 ? s.window_bytes : s.slot_bytes;
                same(s, all_of(3));
            }
}

static void averages_scale_floats_before_and_divide_integers_after(void **state)
{
    (void)state;
    for (int type = 0; type < RAIL_TYPES; type++)
        for (int a = 0; a < PLAN_HIERARCHY; a++) {
            struct setup s = usual(3, PLAN_ALLREDUCE, (enum plan_algorithm)a);
            s.type = (enum rail_type)type;
            s.scaled = type > RAIL_U64;
            s.divide = type > RAIL_U64 ? 0 : 3;
            s.count = 501;
            same(s, all_of(3));
        }
}

static void balanced_trees_in_rank_order(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 8; n++)
        for (int a = 0; a < PLAN_HIERARCHY; a++) {
            if (!plan_exists_in_rank_order(PLAN_ALLREDUCE, (enum plan_algorithm)a, n)) continue;
            struct setup s = usual(n, PLAN_ALLREDUCE, (enum plan_algorithm)a);
            s.in_rank_order = true;
            s.type = n % 2 ? RAIL_F16 : RAIL_F32;
            s.count = 333;
            same(s, all_of(n));
        }
}

static void several_channels_run_side_by_side(void **state)
{
    (void)state;
    for (uint32_t channels = 2; channels <= 8; channels += 3)
        for (int a = 0; a < PLAN_HIERARCHY; a++) {
            struct setup s = usual(3, PLAN_ALLREDUCE, (enum plan_algorithm)a);
            s.n_channels = channels;
            s.count = 9000 + 16 * channels + 1;
            s.threads = 1;
            same(s, all_of(3));
        }
}

/* The arguments never change, as in a graph that is replayed. */
static void thousands_of_launches_with_the_same_arguments(void **state)
{
    (void)state;
    for (int a = 0; a < PLAN_HIERARCHY; a++) {
        struct setup s = usual(2, PLAN_ALLREDUCE, (enum plan_algorithm)a);
        s.count = 65;
        s.repeats = 1000;
        s.threads = 1;
        s.piece_bytes = 64;
        same(s, all_of(2));
    }
}

/* ---- small collectives, in one hop --------------------------------------------------------------------------------------- */

/* Every collective by the plan of one exchange, which combines in the order of the ranks. */
static void each_small(void (*body)(struct setup s))
{
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        for (uint32_t n = 2; n <= RANKS_MAX; n += n > 3 ? 2 : 1) {
            if (!plan_exists((enum plan_collective)c, PLAN_ONE_SHOT)) continue;
            struct setup s = usual(n, (enum plan_collective)c, PLAN_ONE_SHOT);
            s.window_bytes = n * SMALL_MOST;
            s.piece_bytes = SMALL_MOST;
            s.express = true;
            body(s);
        }
}

static void small_counts(struct setup s)
{
    static const enum rail_type types[] = {RAIL_F32, RAIL_U8, RAIL_F16, RAIL_I64, RAIL_F64};
    for (int k = 0; k < 5; k++) {
        size_t most = SMALL_MOST / rail_type_bytes(types[k]);
        const size_t counts[] = {1, 3, most / 2 - 1, most - 1, most};
        s.type = types[k];
        s.count = counts[(k + (int)s.n) % 5];
        s.root = (uint32_t)k % s.n;
        s.threads = k % 2 ? 1 : 3;
        s.offset = (size_t)k % 3;
        s.in_place = k % 2 && s.collective != PLAN_ALLTOALL;
        same(s, all_of(s.n));
    }
}

static void small_collectives_give_the_bits_of_the_plans(void **state)
{
    (void)state;
    int collectives = 0;
    for (int c = 0; c < PLAN_COLLECTIVES; c++) collectives += plan_exists((enum plan_collective)c, PLAN_ONE_SHOT);
    assert_true(collectives >= 7); /* all but AlltoAll, whose test stands in test_kernel_express.c */
    each_small(small_counts);
}

static void small_ones_of_every_type_and_operator(void **state)
{
    (void)state;
    for (int type = 0; type < RAIL_TYPES; type++)
        for (int op = 0; op <= RAIL_OPS; op++) { /* the last: an average */
            struct setup s = usual(3 + (uint32_t)(type + op) % 3, op % 2 ? PLAN_ALLREDUCE : PLAN_REDUCESCATTER, PLAN_ONE_SHOT);
            s.express = true;
            s.type = (enum rail_type)type;
            s.op = op < RAIL_OPS ? (enum rail_op)op : RAIL_SUM;
            if (op == RAIL_OPS) s.scaled = type > RAIL_U64, s.divide = s.scaled ? 0 : s.n;
            s.count = 333;
            s.repeats = 2;
            s.window_bytes = s.n * SMALL_MOST;
            s.piece_bytes = SMALL_MOST;
            same(s, all_of(s.n));
        }
}

static void small_ones_in_balanced_rank_order(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= RANKS_MAX; n++) {
        assert_true(plan_exists_in_rank_order(PLAN_ALLREDUCE, PLAN_ONE_SHOT, n));
        struct setup s = usual(n, PLAN_ALLREDUCE, PLAN_ONE_SHOT);
        s.express = s.in_rank_order = true;
        s.type = n % 2 ? RAIL_F16 : RAIL_F32;
        s.count = 333;
        same(s, all_of(n));
    }
}

/* ---- trouble ------------------------------------------------------------------------------------------------------------ */

/* A world in which each rank is what its body makes of it. */
struct lone {
    struct ranks all;
    uint32_t n, threads;
    void *(*body)(void *rank);
};
struct lone_rank {
    struct lone *world;
    uint32_t rank;
    struct kernel_rank k;
    struct kernel_report report;
    uint64_t stopped_ns, took_ns;
};

static void lone_run(struct lone *world, struct lone_rank *ranks)
{
    pthread_t threads[RANKS_MAX];
    ranks_open(&world->all, world->n, 64 * 64, 1024, 1);
    for (uint32_t r = 0; r < world->n; r++) {
        ranks[r] = (struct lone_rank){.world = world, .rank = r};
        assert_int_equal(pthread_create(&threads[r], NULL, world->body, &ranks[r]), 0);
    }
    for (uint32_t r = 0; r < world->n; r++) pthread_join(threads[r], NULL);
    ranks_close(&world->all);
}

static struct kernel_call allreduce(struct lone_rank *me, enum plan_algorithm a, size_t count, uint64_t signature)
{
    struct choice choice = {.algorithm = a, .n_channels = 1, .piece_bytes = 1024};
    struct instance *const *instances;
    assert_int_equal(wires_instances(&me->k.wires, PLAN_ALLREDUCE, 0, &choice, &instances), RAIL_OK);
    struct host_call host = {.how = {.type = RAIL_F32, .op = RAIL_SUM}, .signature = signature,
                             .split = {count, 16, 256, 1, instances[0]->plan.n_pieces}};
    host.input = ranks_take(&me->world->all, count * 4);
    host.output = ranks_take(&me->world->all, count * 4);
    size_t scratch = host_scratch_bytes(&host, &instances[0]->plan);
    if (scratch) host.scratch = ranks_take(&me->world->all, scratch);
    return kernel_collective(&me->k, &host, instances);
}

/* Both ranks wait for data of the other: both find it. */
static const enum plan_algorithm one_of_each[] = {PLAN_ONE_SHOT, PLAN_TWO_SHOT, PLAN_RING, PLAN_DOUBLING};
static enum plan_algorithm chosen;

static void *differing_body(void *arg)
{
    struct lone_rank *me = arg;
    kernel_rank_open(&me->k, &me->world->all, me->rank, me->world->threads);
    struct kernel_call call = allreduce(me, chosen, 1000, 100 + me->rank);
    launch(&me->world->all.device, &call, me->world->threads);
    me->report = *me->k.report;
    launch(&me->world->all.device, &call, me->world->threads); /* after trouble: ends at once */
    assert_int_equal(me->k.report->finished, 2);
    kernel_rank_close(&me->k);
    return NULL;
}

static void calls_that_differ_are_found_by_both(void **state)
{
    (void)state;
    for (int a = 0; a < 4; a++) {
        struct lone world = {.n = 2, .threads = 2, .body = differing_body};
        struct lone_rank ranks[2];
        chosen = one_of_each[a];
        lone_run(&world, ranks);
        for (uint32_t r = 0; r < 2; r++) {
            assert_int_equal(ranks[r].report.trouble, chosen <= PLAN_TWO_SHOT ? KERNEL_SIGNATURE_PEER : KERNEL_SIGNATURE_LINK);
            assert_int_equal(ranks[r].report.mine, 100 + r);
            assert_int_equal(ranks[r].report.theirs, 101 - r);
            assert_int_equal(ranks[r].report.who, 1 - r);
            assert_int_equal(ranks[r].report.finished, 1);
        }
    }
}

/* Of all threads of the process: a yielding wait that shares its cores with other programs has its turn when they let it. */
static uint64_t processor_ns(void)
{
    struct timespec t;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return (uint64_t)t.tv_sec * RAIL_NS_PER_S + (uint64_t)t.tv_nsec;
}

static void *stopping_main(void *arg)
{
    struct lone_rank *me = arg;
    struct timespec while_it_waits = {.tv_nsec = 50000000};
    nanosleep(&while_it_waits, NULL);
    me->stopped_ns = processor_ns();
    __atomic_store_n(me->k.stop, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Rank 0 waits for rank 1, which never comes. */
static void *waiting_body(void *arg)
{
    struct lone_rank *me = arg;
    kernel_rank_open(&me->k, &me->world->all, me->rank, me->world->threads);
    struct kernel_call call = allreduce(me, chosen, 100000, 1);
    if (me->rank == 0) {
        pthread_t stopper;
        assert_int_equal(pthread_create(&stopper, NULL, stopping_main, me), 0);
        launch(&me->world->all.device, &call, me->world->threads);
        uint64_t ended_ns = processor_ns();
        pthread_join(stopper, NULL);
        me->took_ns = ended_ns - me->stopped_ns;
        assert_int_equal(me->k.report->finished, 1);
        assert_int_equal(me->k.report->trouble, KERNEL_FINE);
    }
    kernel_rank_close(&me->k);
    return NULL;
}

static void a_wait_ends_when_it_is_told_to(void **state)
{
    (void)state;
    for (int a = 0; a < PLAN_HIERARCHY; a++) {
        struct lone world = {.n = 2, .threads = 2, .body = waiting_body};
        struct lone_rank ranks[2];
        chosen = (enum plan_algorithm)a;
        lone_run(&world, ranks);
        assert_in_range(ranks[0].took_ns, 0, 100 * RAIL_NS_PER_MS);
    }
}

/* ---- messages ----------------------------------------------------------------------------------------------------------- */

enum { PER_FLOW = 5 };
static const size_t message_bytes[PER_FLOW] = {0, 1, 4097, 70001, 300000};
static uint32_t host_ranks, message_blocks;

static unsigned char byte_of(uint32_t from, uint32_t to, uint32_t m, size_t k)
{
    return (unsigned char)(from * 131 + to * 31 + m * 7 + k * 3 + (k >> 8));
}

/* What every rank sends every other, itself included, and gets. */
struct exchange {
    unsigned char *out[RANKS_MAX][PER_FLOW], *in[RANKS_MAX][PER_FLOW];
};

static void exchange_fill(struct lone_rank *me, struct exchange *x, bool device)
{
    for (uint32_t p = 0; p < me->world->n; p++)
        for (uint32_t m = 0; m < PER_FLOW; m++) {
            x->out[p][m] = device ? ranks_take(&me->world->all, message_bytes[m] + 1) : malloc(message_bytes[m] + 1);
            x->in[p][m] = device ? ranks_take(&me->world->all, message_bytes[m] + 1) : calloc(1, message_bytes[m] + 1);
            unsigned char *out = device_real(&me->world->all.device, x->out[p][m]);
            for (size_t k = 0; k < message_bytes[m]; k++) out[k] = byte_of(me->rank, p, m, k);
        }
}

static void exchange_check(struct lone_rank *me, const struct exchange *x)
{
    for (uint32_t p = 0; p < me->world->n; p++)
        for (uint32_t m = 0; m < PER_FLOW; m++) {
            const unsigned char *in = device_real(&me->world->all.device, x->in[p][m]);
            for (size_t k = 0; k < message_bytes[m]; k++)
                if (in[k] != byte_of(p, me->rank, m, k))
                    fail_msg("rank %u: byte %zu of message %u from %u", me->rank, k, m, p);
            assert_int_equal(in[message_bytes[m]], 0);
        }
}

static uint64_t link_to(struct lone_rank *me, uint32_t peer, enum plan_direction direction)
{
    struct link *link;
    assert_int_equal(wires_pair(&me->k.wires, peer, direction, LINK_CHANNEL_P2P, &link), RAIL_OK);
    return kernel_link_of(&me->k, link);
}

static void exchange_by_kernel(struct lone_rank *me, const struct exchange *x)
{
    struct kernel_flow flows[2 * RANKS_MAX];
    struct kernel_message messages[2 * RANKS_MAX * PER_FLOW];
    uint32_t n_flows = 0, n_messages = 0;
    for (uint32_t p = 0; p < me->world->n; p++)
        for (uint32_t receives = 0; receives < 2; receives++) {
            bool self = p == me->rank;
            if (self && receives) continue;
            flows[n_flows++] = (struct kernel_flow){
                .link = self ? 0 : link_to(me, p, receives ? PLAN_LINK_IN : PLAN_LINK_OUT), .first = n_messages,
                .n = self ? 2 * PER_FLOW : PER_FLOW, .receives = receives};
            for (uint32_t m = 0; m < PER_FLOW; m++) {
                uint64_t out = (uint64_t)(uintptr_t)x->out[p][m], in = (uint64_t)(uintptr_t)x->in[p][m];
                messages[n_messages++] = (struct kernel_message){self || !receives ? out : in, message_bytes[m], message_bytes[m]};
                if (self) messages[n_messages++] = (struct kernel_message){in, message_bytes[m], message_bytes[m]};
            }
        }
    struct kernel_call call = {.node = me->k.kernel_node, .work = KERNEL_MESSAGES, .n_blocks = message_blocks, .n_flows = n_flows,
                               .counts = 1, .number = 9, .flows = ranks_copy(&me->k, flows, sizeof flows),
                               .messages = ranks_copy(&me->k, messages, sizeof messages)};
    launch(&me->world->all.device, &call, me->world->threads);
    assert_int_equal(me->k.report->trouble, KERNEL_FINE);
    assert_int_equal(me->k.report->ended, 9);
    assert_true(me->k.report->moved >= n_messages);
}

static void exchange_by_host(struct lone_rank *me, const struct exchange *x)
{
    struct messages messages;
    struct message all[2][RANKS_MAX][PER_FLOW];
    assert_int_equal(messages_open(&messages, &me->k.node, me->rank, me->world->n, UINT32_MAX, MESSAGES_NO_OFFERS), RAIL_OK);
    for (uint32_t p = 0; p < me->world->n; p++)
        for (int d = 0; d < MESSAGE_DIRECTIONS && p != me->rank; d++) {
            assert_int_equal(wires_pair(&me->k.wires, p, d == MESSAGE_SEND ? PLAN_LINK_OUT : PLAN_LINK_IN, LINK_CHANNEL_P2P,
                                        &messages_flow(&messages, (enum message_direction)d, p)->link), RAIL_OK);
            for (uint32_t m = 0; m < PER_FLOW; m++) {
                all[d][p][m] = (struct message){.buffer = d == MESSAGE_SEND ? x->out[p][m] : x->in[p][m],
                                                .bytes = message_bytes[m], .signature = message_bytes[m]};
                messages_append(&messages, (enum message_direction)d, p, &all[d][p][m]);
            }
            messages_begin(&messages, (enum message_direction)d, p);
        }
    while (messages_progress(&messages) == RAIL_NOT_YET) sched_yield();
    for (uint32_t m = 0; m < PER_FLOW; m++) memcpy(x->in[me->rank][m], x->out[me->rank][m], message_bytes[m]);
    messages_close(&messages);
}

static void *exchanging_body(void *arg)
{
    struct lone_rank *me = arg;
    bool device = !(host_ranks >> me->rank & 1);
    struct exchange x;
    kernel_rank_open(&me->k, &me->world->all, me->rank, me->world->threads);
    exchange_fill(me, &x, device);
    if (device) exchange_by_kernel(me, &x);
    else exchange_by_host(me, &x);
    exchange_check(me, &x);
    kernel_rank_close(&me->k);
    for (uint32_t p = 0; p < me->world->n && !device; p++)
        for (uint32_t m = 0; m < PER_FLOW; m++) free(x.out[p][m]), free(x.in[p][m]);
    return NULL;
}

static void messages_of_all_lengths_go_to_everybody(void **state)
{
    (void)state;
    for (host_ranks = 0; host_ranks < 7; host_ranks += 2)
        for (message_blocks = 1; message_blocks <= 6; message_blocks += 5) {
            struct lone world = {.n = 3, .threads = message_blocks == 1 ? 3 : 1, .body = exchanging_body};
            struct lone_rank ranks[3];
            lone_run(&world, ranks);
        }
}

static void *mismatching_body(void *arg)
{
    struct lone_rank *me = arg;
    kernel_rank_open(&me->k, &me->world->all, me->rank, 1);
    uint64_t buffer = (uint64_t)(uintptr_t)ranks_take(&me->world->all, 100);
    struct kernel_flow flow = {.link = link_to(me, 1 - me->rank, me->rank ? PLAN_LINK_IN : PLAN_LINK_OUT), .n = 2,
                               .receives = me->rank, .finished = 40};
    struct kernel_message messages[2] = {{buffer, 100, 100}, {buffer, 50 + me->rank, 50 + me->rank}};
    struct kernel_call call = {.node = me->k.kernel_node, .work = KERNEL_MESSAGES, .n_blocks = 1, .n_flows = 1,
                               .flows = ranks_copy(&me->k, &flow, sizeof flow),
                               .messages = ranks_copy(&me->k, messages, sizeof messages)};
    launch(&me->world->all.device, &call, 1);
    me->report = *me->k.report;
    kernel_rank_close(&me->k);
    return NULL;
}

static void a_message_that_is_another_than_expected_is_told_with_its_number(void **state)
{
    (void)state;
    struct lone world = {.n = 2, .threads = 1, .body = mismatching_body};
    struct lone_rank ranks[2];
    lone_run(&world, ranks);
    const struct kernel_report *r = &ranks[1].report;
    assert_int_equal(ranks[0].report.trouble, KERNEL_FINE);
    assert_int_equal(r->trouble, KERNEL_SIGNATURE_MESSAGE);
    assert_int_equal(r->theirs, 50);
    assert_int_equal(r->mine, 51);
    assert_int_equal(r->count, 41);
    assert_int_equal(r->link_from, 0);
    assert_int_equal(r->link_to, 1);
}

/* ---- one rank ------------------------------------------------------------------------------------------------------------ */

static void *alone_body(void *arg)
{
    struct lone_rank *me = arg;
    kernel_rank_open(&me->k, &me->world->all, me->rank, 2);
    enum { COUNT = 1003 };
    uint64_t in = (uint64_t)(uintptr_t)ranks_take(&me->world->all, 4 * COUNT), out = (uint64_t)(uintptr_t)ranks_take(&me->world->all, 4 * COUNT + 4);
    float third = 1.0f / 3, want[COUNT];
    uint32_t bits;
    memcpy(&bits, &third, 4);
    for (int k = 0; k < COUNT; k++) ((float *)real_of(&me->k, in))[k] = (float)k, want[k] = (float)k * third;
    struct kernel_call call = {.node = me->k.kernel_node, .work = KERNEL_COPY, .n_blocks = 3, .input = in, .output = out,
                               .how = {.type = RAIL_F32, .scaled = 1, .scale_at = ranks_copy(&me->k, &bits, sizeof bits)},
                               .split = {.count = COUNT, .grain = 16, .n_channels = 1, .n_pieces = 1}};
    launch(&me->world->all.device, &call, 2);
    assert_memory_equal(real_of(&me->k, out), want, sizeof want);
    assert_int_equal(((uint32_t *)real_of(&me->k, out))[COUNT], 0);
    call.how.scaled = 0;
    launch(&me->world->all.device, &call, 2);
    assert_memory_equal(real_of(&me->k, out), real_of(&me->k, in), sizeof want);
    kernel_rank_close(&me->k);
    return NULL;
}

static void a_rank_alone_copies_and_scales_by_a_scalar_in_the_device(void **state)
{
    (void)state;
    struct lone world = {.n = 1, .threads = 2, .body = alone_body};
    struct lone_rank rank;
    lone_run(&world, &rank);
}

enum { INPUTS = 5, LONG_COUNT = 70001, APART = 4 * LONG_COUNT + 60 };

static void launch_and_compare(struct lone_rank *me, struct kernel_call *call, const float *want)
{
    static const uint32_t blocks[] = {1, 8, 37};
    for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++) {
        float *got = real_of(&me->k, call->output);
        memset(got, 0xa5, 4 * LONG_COUNT + 4);
        call->n_blocks = blocks[k];
        launch(&me->world->all.device, call, 2);
        assert_memory_equal(got, want, 4 * LONG_COUNT);
        assert_int_equal(((uint32_t *)got)[LONG_COUNT], 0xa5a5a5a5);
        assert_int_equal(me->k.report->trouble, KERNEL_FINE);
    }
}

static void *several_body(void *arg)
{
    struct lone_rank *me = arg;
    kernel_rank_open(&me->k, &me->world->all, me->rank, 2);
    uint64_t in = (uint64_t)(uintptr_t)ranks_take(&me->world->all, INPUTS * APART);
    uint64_t out = (uint64_t)(uintptr_t)ranks_take(&me->world->all, 4 * LONG_COUNT + 4);
    float *want = calloc(LONG_COUNT, sizeof *want);
    assert_non_null(want);
    struct kernel_call call = {.node = me->k.kernel_node, .work = KERNEL_COPY, .input = in, .output = out,
                               .inputs_apart = APART, .how = {.type = RAIL_F32, .op = RAIL_SUM},
                               .split = {.count = LONG_COUNT, .grain = 16, .n_channels = 1, .n_pieces = 1}};
    for (uint32_t n = 1; n <= INPUTS; n++) {
        float *input = (float *)(void *)((unsigned char *)real_of(&me->k, in) + (n - 1) * APART);
        for (int k = 0; k < LONG_COUNT; k++) input[k] = (float)((k + 1) * (int)n % 1009), want[k] += input[k];
        call.n_inputs = n;
        launch_and_compare(me, &call, want);
    }
    free(want);
    call.n_inputs = RAIL_COMBINE_MAX + 1;
    launch(&me->world->all.device, &call, 2);
    assert_int_equal(me->k.report->trouble, KERNEL_PLAN);
    kernel_rank_close(&me->k);
    return NULL;
}

static void a_rank_alone_combines_several_inputs_by_any_number_of_blocks(void **state)
{
    (void)state;
    struct lone world = {.n = 1, .threads = 2, .body = several_body};
    struct lone_rank rank;
    lone_run(&world, &rank);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_by_every_algorithm_gives_the_bits_of_the_host_engine),
        cmocka_unit_test(in_place_and_direct_buffers_change_nothing),
        cmocka_unit_test(ranks_of_both_engines_share_a_plan),
        cmocka_unit_test(every_type_and_operator),
        cmocka_unit_test(averages_scale_floats_before_and_divide_integers_after),
        cmocka_unit_test(balanced_trees_in_rank_order),
        cmocka_unit_test(several_channels_run_side_by_side),
        cmocka_unit_test(thousands_of_launches_with_the_same_arguments),
        cmocka_unit_test(small_collectives_give_the_bits_of_the_plans),
        cmocka_unit_test(small_ones_of_every_type_and_operator),
        cmocka_unit_test(small_ones_in_balanced_rank_order),
        cmocka_unit_test(calls_that_differ_are_found_by_both),
        cmocka_unit_test(a_wait_ends_when_it_is_told_to),
        cmocka_unit_test(messages_of_all_lengths_go_to_everybody),
        cmocka_unit_test(a_message_that_is_another_than_expected_is_told_with_its_number),
        cmocka_unit_test(a_rank_alone_copies_and_scales_by_a_scalar_in_the_device),
        cmocka_unit_test(a_rank_alone_combines_several_inputs_by_any_number_of_blocks),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
