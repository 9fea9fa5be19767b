/* The chooser: the same natural answers by size and shape, forced ones that fit, pieces that fit windows and slots. */
#include "plan/plans.h"

static const uint32_t KIB = 1024, MIB = 1 << 20;

static struct choice choose(const uint32_t *nodes, int32_t forced, uint64_t bytes)
{
    struct shape shape = shape_of_nodes(nodes, false);
    struct choice_table table;
    choice_table_default(&table, &shape);
    table.forced_algorithm = forced;
    struct choice c = choose_allreduce(&table, &shape, bytes);
    shape_clear(&shape);
    return c;
}

#define NODES(...) ((const uint32_t[]){__VA_ARGS__, 0})

static void one_node_goes_from_one_shot_to_two_shot(void **state)
{
    (void)state;
    assert_int_equal(choose(NODES(4), -1, 0).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(NODES(4), -1, 8).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(NODES(4), -1, MIB).algorithm, PLAN_TWO_SHOT);
    assert_int_equal(choose(NODES(64), -1, (uint64_t)MIB * MIB).algorithm, PLAN_TWO_SHOT);
    assert_int_equal(choose(NODES(4), -1, MIB).n_channels, 1);
    assert_int_equal(choose(NODES(2), -1, 64 * KIB).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(NODES(8), -1, 64 * KIB).algorithm, PLAN_TWO_SHOT);
}

static void one_shot_ends_early_where_ranks_read_one_anothers_buffers(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(2);
    struct choice_table table;
    choice_table_default(&table, &shape);
    choice_table_direct(&table);
    assert_int_equal(choose_allreduce(&table, &shape, KIB).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose_allreduce(&table, &shape, 4 * KIB).algorithm, PLAN_TWO_SHOT);
    assert_int_equal(choose_plan(PLAN_REDUCE, &table, &shape, 64 * KIB).algorithm, PLAN_ONE_SHOT);
    shape_clear(&shape);
}

/* One-shot moves fewer bytes in all; its root moves more of them. */
static void a_staged_reduce_takes_one_exchange_where_ranks_are_few_or_share_cores(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 16; n++) {
        struct shape shape = shape_of_one_node(n);
        for (int crowded = 0; crowded < 2; crowded++) {
            struct choice_table table;
            choice_table_default(&table, &shape);
            choice_table_staged(&table, &shape, crowded);
            bool one = crowded || n <= 3;
            assert_int_equal(choose_plan(PLAN_REDUCE, &table, &shape, 64 * MIB).algorithm, one ? PLAN_ONE_SHOT : PLAN_TWO_SHOT);
            table.deterministic = 1;
            assert_int_equal(choose_plan(PLAN_REDUCE, &table, &shape, 64 * MIB).algorithm, one ? PLAN_ONE_SHOT : PLAN_TWO_SHOT);
            assert_int_equal(choose_plan(PLAN_ALLREDUCE, &table, &shape, 64 * MIB).algorithm, PLAN_TWO_SHOT);
        }
        shape_clear(&shape);
    }
}

static void a_reduce_of_registered_buffers_is_shared_among_the_ranks(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 16; n++) {
        struct shape shape = shape_of_one_node(n);
        struct choice_table table, built_in;
        choice_table_default(&table, &shape);
        built_in = table;
        choice_table_staged(&table, &shape, true);
        choice_table_shared(&table, &shape);
        assert_int_equal(choice_table_hash(&table), choice_table_hash(&built_in));
        table.one_shot_reduce_max_bytes = 1; /* somebody wants less */
        choice_table_shared(&table, &shape);
        assert_int_equal(table.one_shot_reduce_max_bytes, 1);
        shape_clear(&shape);
    }
}

static void windows_and_slots_of_a_host_are_bounded_together(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 64; n++) {
        struct shape shape = shape_of_one_node(n);
        struct choice_table table;
        choice_table_default(&table, &shape);
        assert_in_range(table.window_bytes, 256 * KIB, MIB);
        assert_true(4ull * n * table.window_bytes <= 64ull * MIB);
        assert_int_equal(table.window_bytes == MIB, n <= 16);
        assert_in_range(table.shm_slot_bytes, 32 * KIB, 256 * KIB);
        assert_true(8ull * n * n * table.shm_slot_bytes <= 128ull * MIB || table.shm_slot_bytes == 32 * KIB);
        assert_int_equal(table.shm_slot_bytes == 256 * KIB, n <= 8);
        shape_clear(&shape);
    }
}

static void a_limit_on_two_shot_gives_way_to_the_ring(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(4);
    struct choice_table table;
    choice_table_default(&table, &shape);
    table.two_shot_max_bytes = MIB;
    assert_int_equal(choose_allreduce(&table, &shape, MIB).algorithm, PLAN_TWO_SHOT);
    assert_int_equal(choose_allreduce(&table, &shape, MIB + 1).algorithm, PLAN_RING);
    assert_int_equal(choose_allreduce(&table, &shape, MIB + 1).piece_bytes, table.shm_slot_bytes);
    shape_clear(&shape);
}

static void several_nodes_go_from_doubling_to_tree_to_ring(void **state)
{
    (void)state;
    const uint32_t *eight = NODES(1, 1, 1, 1, 1, 1, 1, 1);
    assert_int_equal(choose(eight, -1, 8).algorithm, PLAN_DOUBLING);
    assert_int_equal(choose(eight, -1, 256 * KIB).algorithm, PLAN_TREE);
    assert_int_equal(choose(eight, -1, 8).n_channels, 1);
    assert_int_equal(choose(eight, -1, 64 * MIB).algorithm, PLAN_RING);
    assert_int_equal(choose(eight, -1, 64 * MIB).n_channels, 4);
    assert_int_equal(choose(NODES(1, 1), -1, 64 * MIB).algorithm, PLAN_DOUBLING); /* two ranks: one hop, the same bytes */
    assert_int_equal(choose(NODES(65), -1, 8).algorithm, PLAN_DOUBLING);          /* too many for windows */
    assert_int_equal(choose(NODES(256), -1, 8).algorithm, PLAN_TREE);             /* too many for doubling's links */
    assert_int_equal(choose(NODES(65), -1, 64 * MIB).algorithm, PLAN_RING);
}

static void several_ranks_per_node_take_the_hierarchy_while_hops_count(void **state)
{
    (void)state;
    assert_int_equal(choose(NODES(4, 4), -1, 8).algorithm, PLAN_HIERARCHY);
    assert_int_equal(choose(NODES(64, 4), -1, 64 * MIB).algorithm, PLAN_HIERARCHY); /* two nodes: the fewest bytes, too */
    assert_int_equal(choose(NODES(64, 4), -1, 64 * MIB).n_channels, 4);
    assert_int_equal(choose(NODES(1, 2), -1, 8).algorithm, PLAN_HIERARCHY);
    assert_int_equal(choose(NODES(2, 2, 64, 2), -1, 7 * MIB).algorithm, PLAN_HIERARCHY); /* one has too many for rails */
    assert_int_equal(choose(NODES(2, 2, 64, 2), -1, 9 * MIB).algorithm, PLAN_RING);
    uint32_t many[65] = {0};
    for (int k = 0; k < 63; k++) many[k] = 2;
    assert_int_equal(choose(many, -1, 8).algorithm, PLAN_HIERARCHY);
    many[63] = 1; /* its leaders run out of links */
    assert_int_equal(choose(many, -1, 8).algorithm, PLAN_DOUBLING);
}

/* From two hops' worth for each of the m k pieces on. */
static void large_messages_of_several_ranks_per_node_take_the_rails(void **state)
{
    (void)state;
    assert_int_equal(choose(NODES(2, 2), -1, 512 * KIB - 1).algorithm, PLAN_HIERARCHY);
    assert_int_equal(choose(NODES(2, 2), -1, 512 * KIB).algorithm, PLAN_RAILS);
    assert_int_equal(choose(NODES(4, 4, 4, 4), -1, 22 * 64 * KIB).algorithm, PLAN_HIERARCHY); /* ends by itself */
    assert_int_equal(choose(NODES(4, 4, 4, 4), -1, 22 * 64 * KIB + 1).algorithm, PLAN_RAILS);
    assert_int_equal(choose(NODES(3, 5, 1), -1, 384 * KIB).algorithm, PLAN_RAILS); /* the smallest node has one ring */
    assert_int_equal(choose(NODES(1, 1, 1), -1, 64 * MIB).algorithm, PLAN_RING);
    struct shape shape = shape_of_nodes(NODES(4, 4, 4, 4), false);
    struct choice_table table;
    choice_table_default(&table, &shape);
    assert_int_equal(table.hierarchy_max_bytes, table.rails_min_bytes - 1);
    table.rails_min_bytes = 16 * MIB; /* as RAILCCL_RAILS_MIN_BYTES: tree and ring have what is between */
    assert_int_equal(choose_allreduce(&table, &shape, 8 * MIB).algorithm, PLAN_RING);
    assert_int_equal(choose_allreduce(&table, &shape, 16 * MIB).algorithm, PLAN_RAILS);
    table.window_bytes = 16 * 1024; /* pieces of 1 KiB are not worth their hops, unless one insists */
    assert_int_equal(choose_allreduce(&table, &shape, 16 * MIB).algorithm, PLAN_RING);
    table.forced_algorithm = PLAN_RAILS;
    assert_int_equal(choose_allreduce(&table, &shape, 16 * MIB).algorithm, PLAN_RAILS);
    table.window_bytes = 15 * 64; /* nor is there a line for each of 16 pieces then */
    assert_int_equal(choose_allreduce(&table, &shape, 16 * MIB).algorithm, PLAN_RING);
    shape_clear(&shape);
}

static void rails_have_channels_with_windows_of_their_own(void **state)
{
    (void)state;
    struct shape shape = shape_of_nodes(NODES(4, 4, 4, 4), false);
    struct choice_table table;
    choice_table_default(&table, &shape);
    table.forced_algorithm = PLAN_RAILS;
    assert_int_equal(choose_allreduce(&table, &shape, 8).n_channels, 1);
    assert_int_equal(choose_allreduce(&table, &shape, 512 * KIB).n_channels, 2); /* 16 pieces of 16 KiB in each */
    assert_int_equal(choose_allreduce(&table, &shape, 64 * MIB).n_channels, 4);
    assert_int_equal(choose_allreduce(&table, &shape, 64 * MIB).piece_bytes, 64 * KIB);
    table.forced_channels = 16;
    assert_int_equal(choose_allreduce(&table, &shape, 8).n_channels, RAILS_CHANNELS_MAX);
    shape_clear(&shape);
}

static void small_messages_take_fewer_channels_and_a_tree_an_even_number(void **state)
{
    (void)state;
    assert_int_equal(choose(NODES(4, 4), PLAN_RING, 64 * KIB).n_channels, 1);
    assert_int_equal(choose(NODES(4, 4), PLAN_RING, 192 * KIB).n_channels, 3);
    assert_int_equal(choose(NODES(4, 4), PLAN_TREE, 192 * KIB).n_channels, 2);
    assert_int_equal(choose(NODES(4, 4), PLAN_TREE, 127 * KIB).n_channels, 1);
    assert_int_equal(choose(NODES(8), PLAN_TREE, MIB).n_channels, 2);
    assert_int_equal(choose(NODES(8), PLAN_RING, MIB).n_channels, 1);
}

static void what_is_forced_is_taken_when_it_fits(void **state)
{
    (void)state;
    for (int a = 0; a < PLAN_ALGORITHMS; a++) {
        const uint32_t *nodes = a == PLAN_HIERARCHY || a == PLAN_RAILS ? NODES(4, 4) : NODES(8);
        assert_int_equal(choose(nodes, a, 100).algorithm, a);
        assert_int_equal(choose(nodes, a, MIB).algorithm, a);
    }
    assert_int_equal(choose(NODES(1, 1, 1), PLAN_TWO_SHOT, 8).algorithm, PLAN_DOUBLING);
    assert_int_equal(choose(NODES(8), PLAN_HIERARCHY, 8).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(NODES(8), PLAN_RAILS, 8).algorithm, PLAN_ONE_SHOT);
    assert_int_equal(choose(NODES(1, 1), PLAN_RAILS, 8).algorithm, PLAN_DOUBLING);
    assert_int_equal(choose(NODES(65), PLAN_ONE_SHOT, 64 * MIB).algorithm, PLAN_RING);
    struct shape shape = shape_of_one_node(4);
    struct choice_table table;
    choice_table_default(&table, &shape);
    table.forced_channels = 3;
    assert_int_equal(choose_allreduce(&table, &shape, MIB).n_channels, 1); /* windows: one channel */
    table.forced_algorithm = PLAN_RING;
    assert_int_equal(choose_allreduce(&table, &shape, 8).n_channels, 3);
    shape_clear(&shape);
}

static void pieces_are_whole_lines_and_fit_their_window_or_slot(void **state)
{
    (void)state;
    static const uint32_t nodes[][4] = {{2}, {3}, {7}, {64}, {65}, {1, 1}, {4, 4}, {3, 5, 1}, {32, 32}};
    for (size_t k = 0; k < sizeof nodes / sizeof nodes[0]; k++)
        for (int forced = -1; forced < PLAN_ALGORITHMS; forced++)
            for (uint64_t bytes = 0; bytes < ((uint64_t)1 << 62); bytes = bytes * 3 + 1) {
                struct shape shape = shape_of_nodes(nodes[k], false);
                struct choice_table t;
                choice_table_default(&t, &shape);
                t.forced_algorithm = forced;
                struct choice c = choose_allreduce(&t, &shape, bytes);
                uint64_t slot = shape.n_nodes > 1 ? t.net_slot_bytes : t.shm_slot_bytes;
                assert_true(c.piece_bytes >= 64 && c.piece_bytes % 64 == 0);
                assert_true(c.n_channels >= 1);
                if (c.algorithm == PLAN_ONE_SHOT) assert_true(c.piece_bytes <= t.window_bytes);
                else if (c.algorithm == PLAN_TWO_SHOT) assert_true(c.piece_bytes * shape.n_ranks <= t.window_bytes);
                else assert_true(c.piece_bytes <= slot);
                struct plan plan;
                assert_true(plan_writers_allreduce[c.algorithm](&shape, 0, 0, &plan));
                shape_clear(&shape);
            }
}

static void a_tree_cuts_a_medium_message_into_several_pieces(void **state)
{
    (void)state;
    struct choice c = choose(NODES(4, 4), PLAN_TREE, 16 * MIB); /* 4 channels of 4 MiB, 6 hops: sqrt(2^22 2^16 / (6 4)) */
    assert_int_equal(c.n_channels, 4);
    assert_in_range(c.piece_bytes, 104 * KIB, 105 * KIB);
    c = choose(NODES(4, 4), PLAN_TREE, 4 * MIB); /* half of that would be below a hop's worth */
    assert_int_equal(c.n_channels, 4);
    assert_int_equal(c.piece_bytes, 64 * KIB);
    c = choose(NODES(4, 4), PLAN_TREE, 256 * KIB); /* 4 channels of 64 KiB: sqrt(2^16 2^16 / 6) */
    assert_int_equal(c.n_channels, 4);
    assert_in_range(c.piece_bytes, 26 * KIB, 27 * KIB);
}

static void the_hash_sees_every_field(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(4);
    struct choice_table t, u;
    choice_table_default(&t, &shape);
    uint64_t hash = choice_table_hash(&t);
    u = t;
    assert_int_equal(choice_table_hash(&u), hash);
    for (size_t byte = 0; byte < sizeof t; byte++) {
        u = t;
        ((unsigned char *)&u)[byte] ^= 1;
        assert_int_not_equal(choice_table_hash(&u), hash);
    }
    shape_clear(&shape);
}

static void shapes_number_nodes_by_first_appearance(void **state)
{
    (void)state;
    static const uint64_t keys[] = {70, 30, 70, 90, 30, 70}; /* the drawing in shape.c */
    static const uint32_t node_of[] = {0, 1, 0, 2, 1, 0}, peer_of[] = {0, 0, 1, 0, 1, 2}, order[] = {0, 2, 5, 1, 4, 3},
                          node_start[] = {0, 3, 5, 6};
    struct shape s;
    assert_int_equal(shape_build(&s, 6, keys, 2), 0);
    assert_int_equal(s.n_ranks, 6);
    assert_int_equal(s.n_nodes, 3);
    assert_int_equal(s.n_rails, 2);
    assert_int_equal(s.node_least, 1);
    assert_int_equal(s.node_most, 3);
    assert_memory_equal(s.node_of, node_of, sizeof node_of);
    assert_memory_equal(s.peer_of, peer_of, sizeof peer_of);
    assert_memory_equal(s.order, order, sizeof order);
    assert_memory_equal(s.node_start, node_start, sizeof node_start);
    for (uint32_t p = 0; p < 6; p++) assert_int_equal(s.position[s.order[p]], p);
    shape_clear(&s);
    assert_null(s.order);
    shape_clear(&s); /* twice is harmless */
    assert_int_equal(shape_build(&s, 0, NULL, 1), 0);
    assert_int_equal(s.n_nodes, 0);
    assert_int_equal(s.node_most, 0);
    shape_clear(&s);
}

static void names_match_numbers(void **state)
{
    (void)state;
    assert_string_equal(plan_algorithm_names[PLAN_ONE_SHOT], "oneshot");
    assert_string_equal(plan_algorithm_names[PLAN_TWO_SHOT], "twoshot");
    assert_string_equal(plan_algorithm_names[PLAN_RING], "ring");
    assert_string_equal(plan_algorithm_names[PLAN_TREE], "tree");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_number_nodes_by_first_appearance),
        cmocka_unit_test(names_match_numbers),
        cmocka_unit_test(one_node_goes_from_one_shot_to_two_shot),
        cmocka_unit_test(one_shot_ends_early_where_ranks_read_one_anothers_buffers),
        cmocka_unit_test(a_staged_reduce_takes_one_exchange_where_ranks_are_few_or_share_cores),
        cmocka_unit_test(a_reduce_of_registered_buffers_is_shared_among_the_ranks),
        cmocka_unit_test(windows_and_slots_of_a_host_are_bounded_together),
        cmocka_unit_test(a_limit_on_two_shot_gives_way_to_the_ring),
        cmocka_unit_test(several_nodes_go_from_doubling_to_tree_to_ring),
        cmocka_unit_test(several_ranks_per_node_take_the_hierarchy_while_hops_count),
        cmocka_unit_test(large_messages_of_several_ranks_per_node_take_the_rails),
        cmocka_unit_test(rails_have_channels_with_windows_of_their_own),
        cmocka_unit_test(small_messages_take_fewer_channels_and_a_tree_an_even_number),
        cmocka_unit_test(what_is_forced_is_taken_when_it_fits),
        cmocka_unit_test(pieces_are_whole_lines_and_fit_their_window_or_slot),
        cmocka_unit_test(a_tree_cuts_a_medium_message_into_several_pieces),
        cmocka_unit_test(the_hash_sees_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
