/* test_trees.c - trees over tiers: they leave nodes, leaves and pods as seldom as any tree, load nodes as evenly as any two
 * trees, are as deep as algos/tree.c says, and are right. */
#include "plan/plans.h"

#include <stdio.h>

#include "algos/family.h"
#include "plan/collective.h"
#include "topo/order.h"

enum { CHANNELS = 4 };

static bool is_long(void) { return getenv("RAILCCL_TEST_LONG") != NULL; }

/* Everybody's parent, a rank; the root's is n. Exactly one is the root. */
static uint32_t *parents_of(const struct shape *shape, enum plan_collective collective, uint32_t channel, uint32_t root)
{
    uint32_t n = shape->n_ranks, *parent = calloc(n, sizeof *parent), roots = 0;
    assert_non_null(parent);
    for (uint32_t r = 0; r < n; r++) {
        struct family f = collective == PLAN_ALLREDUCE ? family_of(shape, r, channel)
                                                       : family_below(shape, r, root, channel);
        parent[r] = f.has_parent ? f.parent : n;
        roots += !f.has_parent;
    }
    assert_int_equal(roots, 1);
    if (collective != PLAN_ALLREDUCE) assert_int_equal(parent[root], n);
    return parent;
}

static uint32_t group_of(const struct shape *shape, uint32_t tier, uint32_t rank)
{
    return tier == 0 ? shape->node_of[rank] : shape_group(shape, tier - 1, shape->node_of[rank]);
}

/* ---- one tree ---- */

static void crossings_are_least(const struct shape *shape, const uint32_t *parent)
{
    for (uint32_t tier = 0; tier <= shape->n_tiers; tier++) {
        uint32_t crossings = 0;
        for (uint32_t r = 0; r < shape->n_ranks; r++)
            crossings += parent[r] < shape->n_ranks && group_of(shape, tier, r) != group_of(shape, tier, parent[r]);
        assert_int_equal(crossings, (tier == 0 ? shape->n_nodes : shape->tiers[tier - 1].n_groups) - 1);
    }
}

static void depth_is_as_promised(const struct shape *shape, const uint32_t *parent, bool rooted)
{
    uint32_t promised = tree_steps(shape, rooted);
    for (uint32_t r = 0; r < shape->n_ranks; r++) {
        uint32_t depth = 0;
        for (uint32_t at = r; parent[at] < shape->n_ranks; at = parent[at])
            if (++depth > promised) fail_msg("rank %u of %u is deeper than %u", r, shape->n_ranks, promised);
    }
}

/* ---- both trees ---- */

/* Slots that a node sends to others per round and pair of channels, in units of S / 2: up once per edge to a parent, down
 * once per edge to a child. */
static uint32_t busiest_node(const struct shape *shape, uint32_t *const parent[2], bool up, bool down)
{
    uint32_t *sent = calloc(shape->n_nodes, sizeof *sent), most = 0;
    for (int tree = 0; tree < 2; tree++)
        for (uint32_t r = 0; r < shape->n_ranks; r++) {
            if (parent[tree][r] == shape->n_ranks) continue;
            uint32_t below = shape->node_of[r], above = shape->node_of[parent[tree][r]];
            if (below == above) continue;
            sent[below] += up;
            sent[above] += down;
        }
    for (uint32_t k = 0; k < shape->n_nodes; k++) most = sent[k] > most ? sent[k] : most;
    free(sent);
    return most;
}

static void nobody_has_more_than_two_children_in_both(const struct shape *shape, uint32_t *const parent[2])
{
    uint32_t n = shape->n_ranks, *children = calloc(n, sizeof *children);
    for (int tree = 0; tree < 2; tree++)
        for (uint32_t r = 0; r < n; r++)
            if (parent[tree][r] < n) assert_true(++children[parent[tree][r]] <= 2);
    free(children);
}

static void trees_are_as_promised(const struct shape *shape, uint32_t root)
{
    uint32_t m = shape->n_nodes, *parent[2];
    for (int c = PLAN_ALLREDUCE; c <= PLAN_REDUCE; c++)
        for (uint32_t channel = 0; channel < (c == PLAN_ALLREDUCE ? CHANNELS : 2); channel += 2) {
            for (uint32_t tree = 0; tree < 2; tree++) {
                parent[tree] = parents_of(shape, (enum plan_collective)c, channel + tree, root);
                crossings_are_least(shape, parent[tree]);
                depth_is_as_promised(shape, parent[tree], c != PLAN_ALLREDUCE);
                if (c == PLAN_ALLREDUCE)
                    for (uint32_t tier = 0; tier <= shape->n_tiers; tier++)
                        assert_int_equal(family_crossings(shape, channel + tree, tier),
                                         (tier ? shape->tiers[tier - 1].n_groups : m) - 1);
            }
            nobody_has_more_than_two_children_in_both(shape, parent);
            uint32_t busiest = busiest_node(shape, parent, c != PLAN_BROADCAST, c != PLAN_REDUCE);
            /* AllReduce: 2 (m-1) edges, two ends each, over m nodes: some node has the mean, rounded up. None has more; but
             * where 4 nodes are dealt to leaves of 3 and 1 (the one has an edge in each tree: 2), another must have 4. */
            uint32_t mean = (4 * (m - 1) + m - 1) / m;
            if (c == PLAN_ALLREDUCE) assert_true(busiest == mean || (busiest == 4 && m == 4 && shape->n_tiers > 0));
            if (c == PLAN_BROADCAST) assert_true(busiest <= 2); /* S: in two halves */
            if (c == PLAN_REDUCE) assert_true(busiest == (m > 1 ? 2 : 0)); /* everybody but the root's node */
            free(parent[0]);
            free(parent[1]);
        }
}

static struct shape some_shape(int round)
{
    uint32_t tiers = (uint32_t)round % 4;
    return shape_of_chance(tiers, tiers < 2 ? 9 : tiers == 2 ? 5 : 3, round % 3 ? 1 + (uint32_t)round % 5 : 1);
}

static void crossings_load_and_depth_on_shapes_of_chance(void **state)
{
    (void)state;
    srand(21);
    for (int round = 0; round < (is_long() ? 100000 : 3000); round++) {
        struct shape shape = some_shape(round);
        if (shape.n_ranks > 1) trees_are_as_promised(&shape, (uint32_t)rand() % shape.n_ranks);
        shape_clear(&shape);
    }
}

static void crossings_load_and_depth_of_1_to_64_nodes_under_one_leaf(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 4; ranks += 3)
        for (uint32_t m = 1; m <= 64; m++) {
            uint32_t size[65] = {0};
            for (uint32_t k = 0; k < m; k++) size[k] = ranks;
            struct shape shape = shape_of_nodes(size, false);
            if (shape.n_ranks > 1) trees_are_as_promised(&shape, m / 3);
            shape_clear(&shape);
        }
}

/* 16 hosts under each of 8 leaves of 4 pods: 512. */
static void a_deep_fabric_costs_a_few_steps(void **state)
{
    (void)state;
    static uint64_t key[512];
    static uint32_t leaf[512], pod[512];
    struct shape flat, tall;
    for (uint32_t k = 0; k < 512; k++) key[k] = k, leaf[k] = k / 16, pod[k] = k / 128;
    assert_int_equal(shape_build(&flat, 512, key, 1), 0);
    assert_int_equal(shape_build(&tall, 512, key, 1), 0);
    assert_int_equal(shape_add_tier(&tall, leaf), 0);
    assert_int_equal(shape_add_tier(&tall, pod), 0);
    for (int which = 0; which < 2; which++) {
        const struct shape *shape = which ? &tall : &flat;
        uint32_t *parent = parents_of(shape, PLAN_ALLREDUCE, 0, 0), deepest = 0;
        for (uint32_t r = 0; r < 512; r++) {
            uint32_t depth = 0;
            for (uint32_t at = r; parent[at] < 512; at = parent[at]) depth++;
            deepest = depth > deepest ? depth : deepest;
        }
        assert_int_equal(deepest, which ? 11 : 9);
        free(parent);
    }
    shape_clear(&flat);
    shape_clear(&tall);
}

/* Ranks of a node take turns at the network. */
static void channels_have_heads_of_their_own(void **state)
{
    (void)state;
    for (uint32_t k = 1; k <= 16; k++) {
        struct shape shape = shape_of_nodes((const uint32_t[]){k, k, k, 0}, false);
        for (uint32_t node = 0; node < 3; node++) {
            uint32_t seen = 0, even = k - k % 2;
            for (uint32_t channel = 0; channel < (k == 1 ? 1 : even); channel++)
                for (uint32_t r = node * k; r < (node + 1) * k; r++) {
                    struct family f = family_of(&shape, r, channel);
                    if (!f.has_parent || shape.node_of[f.parent] != node) seen |= 1u << (r - node * k);
                }
            assert_int_equal(__builtin_popcount(seen), k == 1 ? 1 : even);
        }
        shape_clear(&shape);
    }
}

/* ---- no tree does better ---- */

/* The spanning tree that a Pruefer sequence stands for: n - 2 numbers below n. */
static void tree_of(const uint32_t *sequence, uint32_t n, uint32_t (*edge)[2])
{
    uint32_t degree[10];
    for (uint32_t i = 0; i < n; i++) degree[i] = 1;
    for (uint32_t i = 0; i + 2 < n; i++) degree[sequence[i]]++;
    for (uint32_t i = 0; i + 2 < n; i++) {
        uint32_t leaf = 0;
        while (degree[leaf] != 1) leaf++;
        edge[i][0] = leaf, edge[i][1] = sequence[i];
        degree[leaf]--, degree[sequence[i]]--;
    }
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++)
        if (degree[i] == 1) edge[n - 2][k++] = i;
}

/* The fewest edges, over all spanning trees of n nodes, that leave a group, tier by tier. */
static void search_all_trees(const struct place *places, uint32_t n, uint32_t least[PLACE_TIERS])
{
    uint32_t sequence[10] = {0}, edge[10][2];
    bool apart[PLACE_TIERS][10][10];
    for (uint32_t t = 0; t < PLACE_TIERS; t++)
        for (uint32_t a = 0; a < n; a++)
            for (uint32_t b = 0; b < n; b++) apart[t][a][b] = place_differs(&places[a], &places[b], t);
    memset(least, 0xff, PLACE_TIERS * sizeof *least);
    for (bool more = true; more;) {
        tree_of(sequence, n, edge);
        for (uint32_t t = 0; t < PLACE_TIERS; t++) {
            uint32_t crossings = 0;
            for (uint32_t i = 0; i + 1 < n; i++) crossings += apart[t][edge[i][0]][edge[i][1]];
            if (crossings < least[t]) least[t] = crossings;
        }
        uint32_t digit = 0;
        while (digit + 2 < n && ++sequence[digit] == n) sequence[digit++] = 0;
        more = digit + 2 < n;
    }
}

/* As core/rails.c does it, from places in any order. */
static struct shape shape_of_places(const struct place *places, uint32_t n, uint32_t *order)
{
    uint64_t key[10];
    struct shape s;
    for (uint32_t i = 0; i < n; i++) key[i] = i;
    assert_int_equal(shape_build(&s, n, key, 1), 0);
    assert_int_equal(place_order(n, places, order), 0);
    assert_int_equal(shape_reorder(&s, order), 0);
    assert_int_equal(place_tiers(&s, places, order), 0);
    return s;
}

static void no_spanning_tree_crosses_less_often(void **state)
{
    (void)state;
    srand(31);
    for (int round = 0; round < 150; round++) {
        uint32_t n = round == 0 ? is_long() ? 9 : 8 : 2 + (uint32_t)rand() % (round < 20 ? 6 : 5);
        uint32_t depth = 1 + (uint32_t)rand() % 3, order[10], least[PLACE_TIERS];
        struct place places[10] = {{{0}}};
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t t = 0; t < depth && rand() % 8; t++) places[i].tier[t] = 1 + (uint64_t)rand() % 3;
        search_all_trees(places, n, least);
        struct shape shape = shape_of_places(places, n, order);
        for (uint32_t root = 0; root <= n; root++) /* n: AllReduce */
            for (uint32_t channel = 0; channel < 2; channel++) {
                uint32_t *parent = parents_of(&shape, root == n ? PLAN_ALLREDUCE : PLAN_BROADCAST, channel, root);
                for (uint32_t t = 0; t < PLACE_TIERS; t++) {
                    uint32_t crossings = 0;
                    for (uint32_t r = 0; r < n; r++)
                        crossings += parent[r] < n && place_differs(&places[r], &places[parent[r]], t);
                    if (crossings != least[t])
                        fail_msg("round %d: %u nodes, tier %u, root %u: %u crossings, %u are possible", round, n, t, root,
                                 crossings, least[t]);
                }
                free(parent);
            }
        trees_are_as_promised(&shape, 0);
        shape_clear(&shape);
    }
}

/* ---- they are right ---- */

static void prove(const struct shape *shape, enum plan_collective collective, uint32_t channel, uint32_t root)
{
    struct plan *plans = collective_plans(collective, shape, PLAN_TREE, channel, root);
    struct plan_check_call call = {plans, 2, NULL, NULL};
    struct plan_check_report report;
    assert_non_null(plans);
    for (int schedule = PLAN_CHECK_FORWARD; schedule <= PLAN_CHECK_RANDOM; schedule++) {
        struct plan_check check = {.calls = &call, .n_calls = 1, .slots = 1, .seed = 7,
                                   .schedule = (enum plan_check_schedule)schedule};
        if (!is_long() && schedule != (int)(shape->n_ranks % 4)) continue;
        if (plan_check_run(&check, &report, NULL) != PLAN_RIGHT)
            fail_msg("%s, %u ranks, %u nodes, %u tiers, channel %u, root %u: %s", collective_name(collective),
                     shape->n_ranks, shape->n_nodes, shape->n_tiers, channel, root, report.why);
        uint32_t steps = collective == PLAN_ALLREDUCE ? 2 * tree_steps(shape, false) : tree_steps(shape, true);
        assert_true(report.steps <= 2 * steps); /* two rounds at most one after another, with one slot */
    }
    free(plans);
}

static void they_are_right_with_one_slot_on_shapes_of_chance(void **state)
{
    (void)state;
    srand(41);
    for (int round = 0, done = 0; done < (is_long() ? 3000 : 250); round++) {
        struct shape shape = some_shape(round);
        uint32_t n = shape.n_ranks;
        for (uint32_t channel = 0; channel < CHANNELS && n > 1 && n <= 64; channel++) {
            prove(&shape, PLAN_ALLREDUCE, channel, 0);
            if (channel > 1) continue;
            prove(&shape, PLAN_BROADCAST, channel, (uint32_t)rand() % n);
            prove(&shape, PLAN_REDUCE, channel, (uint32_t)rand() % n);
        }
        done += n > 1 && n <= 64;
        shape_clear(&shape);
    }
}

/* A plan has as many links as a rank has edges, both ways; a node sends no more than its trees' edges. */
static void only_the_trees_edges_leave_a_node(void **state)
{
    (void)state;
    srand(51);
    for (int round = 0; round < 300; round++) {
        struct shape shape = some_shape(round);
        for (uint32_t channel = 0; channel < CHANNELS && shape.n_ranks > 1; channel++) {
            struct plan *plans = plans_write(&shape, PLAN_TREE, channel);
            uint32_t out = 0;
            for (uint32_t r = 0; r < shape.n_ranks; r++) {
                assert_true(plans[r].n_links <= 6);
                for (uint32_t l = 0; l < plans[r].n_links; l++)
                    out += plans[r].links[l].direction == PLAN_LINK_OUT &&
                           shape.node_of[r] != shape.node_of[plans[r].links[l].peer];
            }
            assert_int_equal(out, 2 * (shape.n_nodes - 1));
            free(plans);
        }
        shape_clear(&shape);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crossings_load_and_depth_of_1_to_64_nodes_under_one_leaf),
        cmocka_unit_test(crossings_load_and_depth_on_shapes_of_chance),
        cmocka_unit_test(a_deep_fabric_costs_a_few_steps),
        cmocka_unit_test(channels_have_heads_of_their_own),
        cmocka_unit_test(no_spanning_tree_crosses_less_often),
        cmocka_unit_test(they_are_right_with_one_slot_on_shapes_of_chance),
        cmocka_unit_test(only_the_trees_edges_leave_a_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
