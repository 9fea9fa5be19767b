/* AlltoAll over links (algos/pairwise.h): for every number of ranks up to 64 and uneven nodes, every block goes to the one
 * rank that it is for, every step is a permutation; and run with two, or one, slots per link, blocks of any number of
 * pieces, and ranks that take turns in any order, it never blocks.
 *
 * The run is a model of engine/messages.h: per direction the first PAIRWISE_AHEAD unfinished steps of a rank move pieces
 * whenever a slot is free, or full. It must be able to fail: in a schedule in which ranks disagree about the order of
 * steps it does. */
#include "plan/plans.h"

#include <stdio.h>

#include "algos/pairwise.h"

enum { N_MAX = 64, MOST_PIECES = 9 };

typedef struct pairwise_step schedule(const struct shape *shape, uint32_t rank, uint32_t step);

static struct pairwise_step as_planned(const struct shape *shape, uint32_t rank, uint32_t step)
{
    return pairwise_step(shape, rank, step);
}

static void every_block_is_sent_and_received_once_in_the_same_step(void **state)
{
    (void)state;
    static const uint32_t shapes[][8] = {{2}, {3}, {64}, {1, 1}, {5, 3, 1}, {13, 11, 7, 3}, {1, 7}, {40, 24}};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++)
        for (int dealt = 0; dealt < 2; dealt++) {
            struct shape shape = shape_of_nodes(shapes[k], dealt);
            uint32_t n = shape.n_ranks;
            for (uint32_t rank = 0; rank < n; rank++) {
                bool sent[N_MAX] = {false}, received[N_MAX] = {false};
                for (uint32_t d = 1; d < n; d++) {
                    struct pairwise_step step = pairwise_step(&shape, rank, d);
                    assert_true(step.to < n && step.from < n && step.to != rank && step.from != rank);
                    assert_false(sent[step.to] || received[step.from]);
                    sent[step.to] = received[step.from] = true;
                    assert_int_equal(pairwise_step(&shape, step.to, d).from, rank); /* so a step is a permutation */
                }
            }
            shape_clear(&shape);
        }
}

/* ---- running it ---- */

struct way { uint32_t step, pieces; }; /* of the first unfinished step: pieces moved */

struct model {
    const struct shape *shape;
    schedule *steps;
    uint32_t n, slots, pieces; /* of a block */
    uint32_t moved[2][N_MAX][N_MAX]; /* [sent, received][rank][step]: pieces */
    uint32_t in_link[N_MAX][N_MAX];  /* [from][to]: slots that are full */
    uint64_t delivered[N_MAX];       /* [to]: bit of each rank whose block is complete */
    uint32_t random;
};

static uint32_t below(struct model *m, uint32_t limit)
{
    return ((m->random = m->random * 1664525u + 1013904223u) >> 8) % limit;
}

/* One rank's turn in one direction: a piece for each of its first unfinished steps. */
static bool turn(struct model *m, uint32_t rank, bool receives, uint32_t ahead)
{
    bool moved = false;
    uint32_t open = 0;
    for (uint32_t d = 1; d < m->n && open < ahead; d++) {
        uint32_t *pieces = &m->moved[receives][rank][d];
        if (*pieces == m->pieces) continue;
        open++;
        struct pairwise_step step = m->steps(m->shape, rank, d);
        uint32_t *full = receives ? &m->in_link[step.from][rank] : &m->in_link[rank][step.to];
        if (receives ? *full == 0 : *full == m->slots) continue;
        *full = receives ? *full - 1 : *full + 1;
        ++*pieces;
        moved = true;
        if (receives && *pieces == m->pieces) m->delivered[rank] |= 1ull << step.from;
    }
    return moved;
}

/* Runs until nothing moves; true when every rank has every block. */
static bool completes(struct model *m, uint32_t ahead)
{
    bool moved = true;
    while (moved) {
        moved = false;
        uint32_t start = below(m, m->n);
        for (uint32_t k = 0; k < 2 * m->n; k++) /* any order of turns: what blocks, blocks in all of them */
            moved |= turn(m, (start + k / 2) % m->n, (k + start) % 2, ahead);
    }
    for (uint32_t rank = 0; rank < m->n; rank++)
        for (uint32_t other = 0; other < m->n; other++)
            if (other != rank && (!(m->delivered[rank] >> other & 1) || m->in_link[other][rank])) return false;
    return true;
}

static bool run(const struct shape *shape, schedule *steps, uint32_t slots, uint32_t pieces, uint32_t ahead)
{
    static struct model m;
    m = (struct model){.shape = shape, .steps = steps, .n = shape->n_ranks, .slots = slots, .pieces = pieces,
                       .random = shape->n_ranks * 31 + pieces};
    return completes(&m, ahead);
}

static void it_never_blocks_with_one_slot_or_more(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= N_MAX; n++) {
        const uint32_t one[] = {n, 0}, uneven[] = {n - n / 3, n / 3, 0};
        struct shape shapes[2] = {shape_of_nodes(one, false), shape_of_nodes(uneven, n % 2)};
        for (int k = 0; k < 2; k++)
            for (uint32_t slots = 1; slots <= PLAN_SLOTS_GUARANTEED; slots++)
                for (uint32_t pieces = 1; pieces <= MOST_PIECES; pieces += 1 + n % 4)
                    for (uint32_t ahead = 1; ahead <= PAIRWISE_AHEAD; ahead += PAIRWISE_AHEAD - 1)
                        if (!run(&shapes[k], as_planned, slots, pieces, ahead))
                            fail_msg("n = %u, %u nodes, %u slots, %u pieces, %u ahead", n, shapes[k].n_nodes, slots, pieces, ahead);
        shape_clear(&shapes[0]);
        shape_clear(&shapes[1]);
    }
}

/* Every rank sends downwards from its own number: ranks have different ideas of which step comes first. */
static struct pairwise_step in_another_order(const struct shape *shape, uint32_t rank, uint32_t step)
{
    uint32_t n = shape->n_ranks;
    return (struct pairwise_step){.to = (rank + step) % n, .from = (rank + step) % n};
}

static void a_schedule_without_a_common_order_is_found_to_block(void **state)
{
    (void)state;
    struct shape shape = shape_of_one_node(9);
    assert_true(run(&shape, as_planned, 2, 5, 1));
    assert_false(run(&shape, in_another_order, 2, 5, 1));
    shape_clear(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_is_sent_and_received_once_in_the_same_step),
        cmocka_unit_test(it_never_blocks_with_one_slot_or_more),
        cmocka_unit_test(a_schedule_without_a_common_order_is_found_to_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
