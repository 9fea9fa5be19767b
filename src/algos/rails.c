/* rails.c - AllReduce, ReduceScatter and AllGather of large messages between nodes of several ranks. Rank j of every
 * node walks a ring over the nodes, "rail ring j", with its share of the data; what is inside a node goes through
 * windows, in the same moves. Drawn for 3 nodes of 2 ranks; k = ranks of the smallest node, m = nodes:
 *
 *         node 0     node 1     node 2
 *     +->  0 ------->  2 ------->  4 --+      rail ring 0: pieces 0, k, 2k, ...
 *     |    :           :           :   |
 *     +----:-----------:-----------:---+      : peers read one another's inputs, and write one another's outputs,
 *     +->  1 ------->  3 ------->  5 --+        by address or through windows
 *     +--------------------------------+      rail ring 1: pieces 1, k+1, 2k+1, ...
 *
 * Piece v k + j is ring j's piece of node v: a round has m k pieces (in ReduceScatter and AllGather that is the block
 * of rank j of node v, so there all nodes must have k ranks). A rank has four strands that meet by counters: while one
 * round goes round for the second time, the next does for the first, the one after it is staged, the one before it
 * fetched. AllReduce at node v, nodes counted mod m:
 *
 *     stage    WAIT all DONE, two rounds ago;  if staged: input -> peer-input(self), all pieces but my ring's
 *              SIGNAL STAGED
 *     reduce   WAIT all STAGED
 *              peer-input(all)[v]                      -> slot-out
 *              slot-in + peer-input(all)[v-1-i]        -> slot-out                                   i = 0 .. m-3
 *              slot-in + peer-input(all)[v+1]   FINAL  -> peer-output(all)
 *              SIGNAL REDUCED
 *     spread   WAIT my REDUCED
 *              output[v+1]                             -> slot-out, way 1
 *              slot-in, way 1                          -> peer-output(all)[v-i], slot-out, way 1     i = 0 .. m-3
 *              slot-in, way 1                          -> peer-output(all)[v+2]
 *              SIGNAL DELIVERED
 *     fetch    WAIT all rings' DELIVERED;  if staged: peer-output(j) -> output, all pieces but my ring's
 *              SIGNAL DONE
 *
 * ReduceScatter is the first half, one node earlier, AllGather the second, as in ring_blocks.c, with a strand less. In
 * a node with more than k ranks the others have no ring: they stage and fetch.
 *
 * Steps: 2(m-1) hops between nodes (half of it for the other two), an exchange before and one after. Bytes sent per
 * node: AllReduce 2 S (m-1)/m, the least there can be; ReduceScatter, AllGather k (m-1) blocks. The ring over all ranks
 * sends 2 S (n-1)/n, or n-1 blocks, in n-1 hops each way. Reduction inside the node is part of the moves of the ring,
 * so it costs no pass over memory of its own; staging, where ranks are processes, costs one on either side.
 *
 * Why no wait is missing. STAGED of round W of all peers, myself included, says that all were DONE with round W-2: by
 * then nobody reads the windows of W-2 any more, mine to write again, nor what was exposed then. What spreads comes
 * after my REDUCED, which comes after STAGED of all. DONE follows DELIVERED of all rings: a direct owner leaves when
 * nobody is at its buffers any more. Direct in place: a piece is read and written at a node by its ring alone, by what
 * spreads after what reduces; in place through windows, my other pieces are read before STAGED, and written after
 * DELIVERED. Two slots a link, for ring.c's reason.
 *
 * Two strands and not one for the two halves, because a ring in lockstep has one piece under way: so it has two, with
 * the same windows. */
#include "algos/begin.h"

/* Sources of one move: a slot and every peer's input; rail_combine takes 64. */
#define RAILS_PEERS_MAX (WINDOW_PEERS_MAX - 1)

struct seat {
    const struct shape *shape;
    struct plan *out;
    uint32_t m, k; /* nodes, rings */
    uint32_t v, j; /* my node, my ring; j >= k: none */
    uint32_t n_peers;
    uint16_t from, to; /* links of the strand that is being written */
};

/* Asked once per plan: the shape keeps the answer, for a walk over m nodes by each of m k ranks is m^2 k steps. */
uint32_t rails_rings(const struct shape *shape) { return shape->node_least; }

bool rails_fit(const struct shape *shape)
{
    return shape->n_nodes >= 2 && shape->n_ranks != shape->n_nodes && shape->node_most <= RAILS_PEERS_MAX;
}

bool rails_fit_blocks(const struct shape *shape)
{
    return rails_fit(shape) && shape->n_ranks == shape->n_nodes * rails_rings(shape);
}

uint32_t rails_home(const struct shape *shape, uint32_t rank, uint32_t channel)
{
    uint32_t rails = shape->n_rails ? shape->n_rails : 1;
    return (uint32_t)((shape->rail_of[rank] + (uint64_t)channel * rails_rings(shape)) % rails);
}

/* My ring's piece of node v + a i. */
static struct plan_index at_node(const struct seat *s, int32_t a, uint64_t v)
{
    return plan_index_mod(a * (int32_t)s->k, v * s->k + s->j, s->m * s->k);
}

static struct plan_operand inputs(const struct seat *s, struct plan_index piece)
{
    return plan_peer(PLAN_PEER_INPUT, plan_index_mod(0, 0, s->n_peers), (uint16_t)s->n_peers, piece);
}
static struct plan_operand outputs(const struct seat *s, struct plan_index piece)
{
    return plan_peer(PLAN_PEER_OUTPUT, plan_index_mod(0, 0, s->n_peers), (uint16_t)s->n_peers, piece);
}
static struct plan_operand arriving(const struct seat *s, struct plan_index piece)
{
    return plan_slot(PLAN_SLOT_IN, s->from, piece);
}
static struct plan_operand leaving(const struct seat *s, struct plan_index piece)
{
    return plan_slot(PLAN_SLOT_OUT, s->to, piece);
}

static uint32_t rank_at(const struct seat *s, uint32_t node)
{
    return s->shape->order[s->shape->node_start[node % s->m] + s->j];
}

static struct seat begin(struct plan *out, enum plan_collective collective, const struct shape *shape, uint32_t rank,
                         uint32_t channel)
{
    struct seat s = {.shape = shape, .out = out, .m = shape->n_nodes, .k = rails_rings(shape),
                     .v = shape->node_of[rank], .j = shape->peer_of[rank]};
    begin_links(out, collective, PLAN_RAILS, shape, rank, channel, 0);
    s.n_peers = out->n_peers;
    out->flags |= PLAN_WINDOWS;
    out->node = s.v;
    out->n_pieces = s.m * s.k;
    out->slots_min = 2;
    return s;
}

static void wait_for(const struct seat *s, enum plan_counter counter, uint32_t peers, uint8_t lag)
{
    plan_add_wait(s->out, 0, counter, plan_index_mod(0, 0, peers), (uint16_t)peers, lag);
}

/* All pieces but those of my own ring. */
static void add_loop_of_others(const struct seat *s)
{
    bool mine = s->j < s->k;
    if (mine && s->k > 1)
        plan_add_loop_except(s->out, s->m * s->k, 1, (uint8_t)s->k, (uint8_t)s->j);
    else
        plan_add_loop(s->out, mine ? 0 : s->m * s->k, 1);
}

static void write_stage(const struct seat *s, bool inputs_are_read)
{
    struct plan_index each = plan_index_mod(1, 0, s->m * s->k), self = plan_index_mod(0, s->out->peer, s->n_peers);
    plan_add_strand(s->out);
    wait_for(s, PLAN_DONE, s->n_peers, PLAN_WINDOW_DEPTH);
    if (inputs_are_read) {
        add_loop_of_others(s);
        plan_add_move(s->out, PLAN_IF_STAGED, &(struct plan_operands){
            1, 1, {plan_own(PLAN_INPUT, each)}, {plan_peer(PLAN_PEER_INPUT, self, 1, each)}});
    }
    plan_add_signal(s->out, PLAN_STAGED);
}

static void write_fetch(const struct seat *s, bool outputs_are_written)
{
    struct plan_index each = plan_index_mod(1, 0, s->m * s->k), giver = plan_index_mod(1, 0, s->k);
    plan_add_strand(s->out);
    wait_for(s, PLAN_DELIVERED, s->k, 0);
    if (outputs_are_written) {
        add_loop_of_others(s);
        plan_add_move(s->out, PLAN_IF_STAGED, &(struct plan_operands){
            1, 1, {plan_peer(PLAN_PEER_OUTPUT, giver, 1, each)}, {plan_own(PLAN_OUTPUT, each)}});
    }
    plan_add_signal(s->out, PLAN_DONE);
}

static void begin_ring(struct seat *s)
{
    s->from = plan_add_link(s->out, rank_at(s, s->v + s->m - 1), PLAN_LINK_IN);
    s->to = plan_add_link(s->out, rank_at(s, s->v + 1), PLAN_LINK_OUT);
    plan_add_strand(s->out);
    wait_for(s, PLAN_STAGED, s->n_peers, 0);
}

/* Combines the node's part of the piece that starts at `start` into what goes round, m - 2 times on. */
static void add_gathering(const struct seat *s, uint64_t start)
{
    struct plan_index first = at_node(s, 0, start), partial = at_node(s, -1, start + s->m - 1);
    plan_add_move(s->out, 0, &(struct plan_operands){1, 1, {inputs(s, first)}, {leaving(s, first)}});
    plan_add_loop(s->out, s->m - 2, 1);
    plan_add_move(s->out, 0, &(struct plan_operands){
        2, 1, {arriving(s, partial), inputs(s, partial)}, {leaving(s, partial)}});
}

/* Passes m - 2 finished pieces on, the first of them that of node `start`, and keeps the last. */
static void add_passing(const struct seat *s, uint64_t start)
{
    struct plan_index passing = at_node(s, -1, start), last = at_node(s, 0, start + 2);
    plan_add_loop(s->out, s->m - 2, 1);
    plan_add_move(s->out, 0, &(struct plan_operands){
        1, 2, {arriving(s, passing)}, {outputs(s, passing), leaving(s, passing)}});
    plan_add_move(s->out, 0, &(struct plan_operands){1, 1, {arriving(s, last)}, {outputs(s, last)}});
}

static void write_reduce(struct seat *s)
{
    struct plan_index complete = at_node(s, 0, (uint64_t)s->v + 1);
    begin_ring(s);
    add_gathering(s, s->v);
    plan_add_move(s->out, PLAN_FINAL, &(struct plan_operands){
        2, 1, {arriving(s, complete), inputs(s, complete)}, {outputs(s, complete)}});
    plan_add_signal(s->out, PLAN_REDUCED);
}

static void write_spread(struct seat *s)
{
    struct plan_index complete = at_node(s, 0, (uint64_t)s->v + 1);
    s->from = plan_add_link_back(s->out, rank_at(s, s->v + s->m - 1), PLAN_LINK_IN);
    s->to = plan_add_link_back(s->out, rank_at(s, s->v + 1), PLAN_LINK_OUT);
    plan_add_strand(s->out);
    plan_add_wait(s->out, 0, PLAN_REDUCED, plan_index_mod(0, s->out->peer, s->n_peers), 1, 0);
    plan_add_move(s->out, 0, &(struct plan_operands){1, 1, {plan_own(PLAN_OUTPUT, complete)}, {leaving(s, complete)}});
    add_passing(s, s->v);
    plan_add_signal(s->out, PLAN_DELIVERED);
}

bool rails_allreduce(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!rails_fit(shape)) return false;
    struct seat s = begin(out, PLAN_ALLREDUCE, shape, rank, channel);
    write_stage(&s, true);
    if (s.j < s.k) {
        write_reduce(&s);
        write_spread(&s);
    }
    write_fetch(&s, true);
    return true;
}

bool rails_reducescatter(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!rails_fit_blocks(shape)) return false;
    struct seat s = begin(out, PLAN_REDUCESCATTER, shape, rank, channel);
    struct plan_index mine = at_node(&s, 0, s.v);
    write_stage(&s, true);
    begin_ring(&s);
    add_gathering(&s, (uint64_t)s.v + s.m - 1);
    plan_add_move(out, PLAN_FINAL, &(struct plan_operands){
        2, 1, {arriving(&s, mine), inputs(&s, mine)}, {plan_own(PLAN_OUTPUT, mine)}});
    plan_add_signal(out, PLAN_DELIVERED);
    write_fetch(&s, false);
    return true;
}

bool rails_allgather(const struct shape *shape, uint32_t rank, uint32_t channel, struct plan *out)
{
    if (!rails_fit_blocks(shape)) return false;
    struct seat s = begin(out, PLAN_ALLGATHER, shape, rank, channel);
    struct plan_index mine = at_node(&s, 0, s.v);
    write_stage(&s, false);
    begin_ring(&s);
    plan_add_move(out, 0, &(struct plan_operands){
        1, 2, {plan_own(PLAN_INPUT, mine)}, {outputs(&s, mine), leaving(&s, mine)}});
    add_passing(&s, (uint64_t)s.v + s.m - 1);
    plan_add_signal(out, PLAN_DELIVERED);
    write_fetch(&s, true);
    return true;
}
