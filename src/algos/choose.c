/* choose.c - which plan, on how many channels, with how long pieces: a pure function of the message size, the
 * shape and a table that all ranks agreed on, so that all ranks answer alike.
 *
 * AllReduce:
 *     one node, n <= 64:      one-shot  |  two-shot  |  ring         by size: fewest exchanges first, then fewest bytes
 *     several ranks per node: hierarchy  |  rails          one message per node and hop while hops count, then bytes
 *     everything else:             doubling  |  tree  |  ring        by size: fewest hops first, then fewest bytes */
#include "algos/algos.h"

#include <string.h>

#include "plan/collective.h"

/* Pieces are cut on cache lines; also the shortest piece worth naming. */
#define LINE_BYTES 64u
/* What a hop could have moved during its fixed cost; (seconds per hop) x (bytes per second). Network: some 25 us
 * (TCP loopback, sleeping receiver) x 3 GB/s (each way, both ways busy), and rounded. Memory: a hand-over between
 * threads that share cores, 1 us by yielding, x 10 GB/s. Development machine, 2 cores of a virtual machine. */
#define NET_HOP_BYTES 65536u
#define SHM_HOP_BYTES 8192u
#define ONE_SHOT_HOPS 10u
#define ONE_SHOT_DIRECT_BYTES 2048u
/* A channel below one hop's worth costs more than it carries. */
#define CHANNEL_MIN_BYTES NET_HOP_BYTES
/* No longer pieces of a tree between nodes: who is inside waits for two children, piece by piece. 64 MiB among 4 hosts of one
 * rank, 4 rails of 200 Mbit/s: pieces of 128 KiB 97.6 and 98.6 % of the wire, of 256 KiB 94.4 and 95.7 %. */
#define TREE_PIECE_HOPS 2u
#define PEERS_MAX 64u
/* Rails have k rings and some channels under way at once: with these pieces 8 of them hide a hop twice over. */
#define RAILS_PIECE_BYTES 16384u
/* Below that, 32 rings hide it; with shorter ones they do not, and the windows have grown as far as they may. */
#define RAILS_PIECE_MIN_BYTES 4096u
#define RAILS_WINDOW_MIN (1u << 20)
#define RAILS_WINDOW_MAX (8u << 20)
/* doubling.c has links for 7 partners and a fold; doubling_blocks.c steps for 64 ranks. */
#define DOUBLING_END 256u
#define DOUBLING_BLOCKS_END 65u

static uint32_t log2_floor(uint32_t x)
{
    uint32_t k = 0;
    while (x >>= 1) k++;
    return k;
}

static uint64_t square_root(uint64_t x)
{
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 31; bit > 0; bit >>= 1)
        if ((root + bit) * (root + bit) <= x) root += bit;
    return root;
}

static uint64_t line_floor(uint64_t bytes) { return bytes < LINE_BYTES ? LINE_BYTES : bytes / LINE_BYTES * LINE_BYTES; }
static bool fits_windows(const struct shape *shape) { return shape->n_nodes == 1 && shape->n_ranks <= PEERS_MAX; }
static uint32_t hop_bytes(const struct shape *shape) { return shape->n_nodes > 1 ? NET_HOP_BYTES : SHM_HOP_BYTES; }

/* Pieces of a round of rails, in each window. */
static uint32_t rails_pieces(const struct shape *shape) { return shape->n_nodes * rails_rings(shape); }

static uint64_t rails_piece(const struct choice_table *table, const struct shape *shape)
{
    uint64_t most = table->window_bytes / rails_pieces(shape);
    return line_floor(most < table->net_slot_bytes ? most : table->net_slot_bytes);
}

/* Whether the shape has rails, and its windows have room for them; `least`: bytes of a piece that is worth its hop. */
static bool rails_serve(enum plan_collective collective, const struct choice_table *table, const struct shape *shape,
                        uint64_t least)
{
    bool fits = collective == PLAN_ALLREDUCE ? rails_fit(shape) : rails_fit_blocks(shape);
    return fits && table->window_bytes / rails_pieces(shape) >= least;
}

static uint64_t hierarchy_limit(const struct shape *shape, uint64_t tree_max_bytes)
{
    uint32_t nodes = log2_floor(shape->n_nodes), ranks = log2_floor(shape->n_ranks);
    if (shape->n_nodes <= 2) return UINT64_MAX;
    if (nodes <= 3) return tree_max_bytes;
    uint64_t limit = (uint64_t)hop_bytes(shape) * (2 * ranks - nodes) / (nodes - 3);
    return limit < tree_max_bytes ? limit : tree_max_bytes;
}

static uint64_t rails_from(const struct shape *shape) { return 2 * (uint64_t)hop_bytes(shape) * rails_pieces(shape); }

/* Where one ends the other begins: at the smaller size. */
static void meet(uint64_t *max, uint64_t *min)
{
    if (*min <= *max) *max = *min - 1;
    else *min = *max + 1;
}

static uint64_t blocks_doubling_beside_rails(const struct shape *shape)
{
    uint64_t n = shape->n_ranks, m = shape->n_nodes, hops = 1 + log2_floor(shape->n_ranks - 1);
    return m - 1 > hops ? hop_bytes(shape) * (m - 1 - hops) / (rails_rings(shape) * (n - m)) : 0;
}

/* Inside one host a round costs two exchanges, which are switches where ranks outnumber cores, so that long rounds win up
 * to 1 MiB: 4 MiB a rank, 8 ranks on 2 cores, took 3.8 ms with 256 KiB, 2.3 with 512, 2.1 with 1 MiB, 2.3 with 2. A rank has
 * two windows each way; those of one host (64 ranks at most have any) stay below HOST_WINDOWS_BYTES together, what a large L3
 * holds. */
#define HOST_WINDOWS_BYTES (64u << 20)
#define HOST_WINDOW_MIN (256u << 10)
#define HOST_WINDOW_MAX (1u << 20)

static uint32_t window_in_host(uint32_t n_ranks)
{
    uint32_t share = HOST_WINDOWS_BYTES / (4 * n_ranks) & ~65535u;
    return share > HOST_WINDOW_MAX ? HOST_WINDOW_MAX : share < HOST_WINDOW_MIN ? HOST_WINDOW_MIN : share;
}

/* Slots of links in memory, which Send and Recv take: a message longer than all slots of its link costs ranks that outnumber
 * cores a switch for each further slotful. 1 MiB each way among 8 ranks on 2 cores took 492 us with 4 slots of 64 KiB, 346 of 256, 199 of
 * 512; 16 MiB among 4 3.9 ms and 2.4. Every pair may have a link each way: while slots are longer than the shortest, those for
 * Send and Recv of a host stay below HOST_SLOTS_BYTES together. */
#define HOST_SLOTS_BYTES (128u << 20)
#define HOST_SLOT_MIN (32u << 10)
#define HOST_SLOT_MAX (256u << 10)
#define HOSTS_SLOT (64u << 10)

static uint32_t slot_in_host(const struct shape *shape)
{
    uint64_t n = shape->n_ranks ? shape->n_ranks : 1;
    if (shape->n_nodes != 1) return HOSTS_SLOT;
    uint64_t share = HOST_SLOTS_BYTES / (HOST_LINK_SLOTS * n * n) & ~(uint64_t)(HOST_SLOT_MIN - 1);
    return share > HOST_SLOT_MAX ? HOST_SLOT_MAX : share < HOST_SLOT_MIN ? HOST_SLOT_MIN : (uint32_t)share;
}

static uint32_t window_default(const struct shape *shape)
{
    if (shape->n_nodes == 1) return window_in_host(shape->n_ranks ? shape->n_ranks : 1);
    if (!rails_fit(shape)) return 256 << 10;
    uint64_t round = (uint64_t)rails_pieces(shape) * RAILS_PIECE_BYTES;
    return round < RAILS_WINDOW_MIN ? RAILS_WINDOW_MIN : round > RAILS_WINDOW_MAX ? RAILS_WINDOW_MAX : (uint32_t)round;
}

static uint64_t one_shot_default(const struct shape *shape)
{
    uint64_t n = shape->n_ranks > 0 ? shape->n_ranks : 1;
    uint64_t bytes = (uint64_t)ONE_SHOT_HOPS * SHM_HOP_BYTES * n / (n * n - 2 * n + 2);
    return bytes > 1024 ? bytes : 1024;
}

/* one_shot_max: staged, one-shot moves S in and reads n S for S out, (n + 3) S; two-shot moves (n-1)/n S in, S to 2/n S,
 *   (n-1)/n S out, (5 - 2/n) S. The exchange that one-shot saves is worth ONE_SHOT_HOPS SHM_HOP_BYTES of that: measured
 *   crossings at 3, 4, 8 ranks on 2 cores 48, 28, 20 KiB (formula 48, 32, 13); 2 ranks 256 (80). Not below 1 KiB.
 * two_shot_max: no limit; it moves the fewest bytes there are, in two exchanges instead of a ring's 2(n-1).
 * tree_max: ring 2(n-1)(h + S/n), tree 2 log2(n) h + 3 S or so (in bytes at link speed, h = hop bytes): the tree's
 *   fewer hops pay until S = 2 h (n - 1 - log2 n); never at n = 2.
 * doubling_max: log2(n) hops of S bytes against the tree's 2 log2(n) hops and 2 S a rank: (log2 n - 2) S / h hops more
 *   bytes against log2(n) hops fewer, so up to S = h log2(n) / (log2(n) - 2), never less than h. Two ranks swap S each
 *   way whatever they do, and doubling does it in one hop: no limit.
 * blocks_doubling_max: AllGather and ReduceScatter of blocks of b by ring (n-1)(h + b); by doubling log2(n) h + (n-1) b
 *   (a little more h above 8 ranks),
 *   but every rank's bytes cross between nodes, not one rank's: r (n-1) b with r ranks a node. So up to
 *   b = h (n - 1 - log2 n) / ((n-1) (r-1)), r-1 taken as 1 at least: never for n <= 3, where the steps are the same.
 * hierarchy_max: log2 m hops of S among m nodes, in lockstep, and what is inside the nodes, little beside them.
 *   Against the tree's 2 log2(n) h + 3 S it pays up to S = h (2 log2 n - log2 m) / (log2 m - 3), and always for up to 8
 *   nodes; there the ring is what comes next, at tree_max. Two nodes swap S each way, the least there is: no limit.
 * rails_min: 2(m-1) hops of pieces, in all 2 S (m-1)/m per node, against the hierarchy's log2 m hops of S: by that
 *   alone it pays from some 10 h on (m = 4: 8 h, m = 16: 12 h). But the message is cut into m k pieces for k rings: with
 *   two hops' worth in each, one is on the wire while the next is in its hop. So from 2 h m k on, where the hierarchy
 *   then ends, or from where that ends by itself.
 *   Measured (docs/PERFORMANCE.md): 2 x 2 between 512 KiB and 2 MiB, 2 x 4 sooner, 3 x 2 at some MiB.
 * blocks_doubling_max with rails: those take m - 1 hops and send k (m-1) b per node, doubling log2 n hops and k (n-1) b:
 *   it pays only where it saves hops, up to b = h (m - 1 - log2 n) / (k (n-m)).
 * window: between nodes a round of rails, of pieces that are worth their hop when many are under way. In one node
 *   a staged round is an exchange per window, so it wants many hops' worth; it is meant to stay in L2 (1 to 2 MiB
 *   a core) together with the peers' windows it is read with.
 * slots: the unit of pipelining of a link: several hops' worth (network), and a fraction of L2 (memory). */
void choice_table_default(struct choice_table *out, const struct shape *shape)
{
    uint32_t n = shape->n_ranks > 0 ? shape->n_ranks : 1;
    uint32_t hops_saved = n - 1 - log2_floor(n);
    memset(out, 0, sizeof *out);
    out->one_shot_max_bytes = out->one_shot_reduce_max_bytes = one_shot_default(shape);
    out->two_shot_max_bytes = UINT64_MAX;
    out->doubling_max_bytes = n <= 2 ? UINT64_MAX : hop_bytes(shape);
    out->tree_max_bytes = 2 * (uint64_t)hop_bytes(shape) * hops_saved;
    uint64_t ranks_per_node = (n + shape->n_nodes - 1) / (shape->n_nodes ? shape->n_nodes : 1);
    uint64_t crossing = ranks_per_node > 2 ? ranks_per_node - 1 : 1;
    out->blocks_doubling_max_bytes = n > 3 ? hop_bytes(shape) * (uint64_t)(n - 2 - log2_floor(n - 1)) / ((n - 1) * crossing) : 0;
    if (rails_fit_blocks(shape)) out->blocks_doubling_max_bytes = blocks_doubling_beside_rails(shape);
    out->hierarchy_max_bytes = hierarchy_limit(shape, out->tree_max_bytes);
    out->rails_min_bytes = rails_from(shape);
    if (rails_fit(shape) && hierarchy_fits(shape)) meet(&out->hierarchy_max_bytes, &out->rails_min_bytes);
    out->window_bytes = window_default(shape);
    out->shm_slot_bytes = slot_in_host(shape);
    out->net_slot_bytes = 256 << 10;
    out->net_channels = 4;
    out->forced_algorithm = -1;
    out->forced_channels = 0;
}

/* Reduce. One-shot: n - 1 ranks copy S in, the root reads n S and writes S, 3n - 1 in all; two-shot is 2 - 2/n more, for its results
 * pass windows as well. Where every rank has a core of its own what counts is the longest way, of one-shot the root's 2 + n + 1 (it
 * waits for one copy), of two-shot 5 or so: up to 3 ranks one-shot is no longer. 2 cores, two-shot over one-shot, 64
 * KiB, 1, 16 MiB: 2 ranks 1.74, 1.33, 1.17; 3 ranks 1.64, 1.04, 1.32; 4 ranks 1.34, 1.16, 1.18; 8 ranks 1.30, 1.22, 1.02. */
#define REDUCE_ONE_SHOT_RANKS 3u
void choice_table_staged(struct choice_table *table, const struct shape *shape, bool crowded)
{
    if (crowded || shape->n_ranks <= REDUCE_ONE_SHOT_RANKS) table->one_shot_reduce_max_bytes = UINT64_MAX;
}

/* With nothing to copy in, all read n S and write S; two-shot shares that among the cores. 2 ranks on 2 cores, one-shot over
 * two-shot: 64 KiB 0.5 to 1.6, 256 KiB 0.8 to 1.9, 1 MiB 1.1 to 5, 16 MiB 1.6 to 2.0; 4 ranks 64 KiB 0.9, 256 KiB 1.7, 16 MiB 1.9. */
void choice_table_shared(struct choice_table *table, const struct shape *shape)
{
    uint64_t most = one_shot_default(shape);
    if (table->one_shot_reduce_max_bytes > most) table->one_shot_reduce_max_bytes = most;
}

/* Two-shot then reads S and writes S, one-shot reads n S, and both must know that everybody has read before they return: no
 * exchange is saved. 2 ranks as threads: 4 KiB 0.31 and 0.30 us, 16 KiB 0.48 and 0.40, 64 KiB 1.31 and 0.99. A Reduce saves one
 * still: its root alone has to wait for others. */
void choice_table_direct(struct choice_table *table)
{
    if (table->one_shot_max_bytes > ONE_SHOT_DIRECT_BYTES) table->one_shot_max_bytes = ONE_SHOT_DIRECT_BYTES;
}

/* FNV-1a, 64 bits, over the fields as little-endian 64-bit words. */
uint64_t choice_table_hash(const struct choice_table *table)
{
    const uint64_t words[] = {
        table->one_shot_max_bytes, table->one_shot_reduce_max_bytes, table->two_shot_max_bytes, table->doubling_max_bytes,
        table->tree_max_bytes,     table->blocks_doubling_max_bytes,
        table->window_bytes,       table->shm_slot_bytes,     table->net_slot_bytes,
        table->net_channels,       (uint64_t)(int64_t)table->forced_algorithm,
        table->forced_channels,    table->deterministic,
        table->hierarchy_max_bytes, table->rails_min_bytes,
    };
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
        for (int byte = 0; byte < 8; byte++) hash = (hash ^ (words[k] >> (8 * byte) & 0xff)) * 0x100000001b3u;
    return hash;
}

/* In rank order: windows by their limits; where there are none, doubling while it is admitted and short, or the rank
 * tree. Two ranks swap in one hop whatever the size. */
static enum plan_algorithm natural_in_rank_order(enum plan_collective collective, const struct choice_table *table,
                                                 const struct shape *shape, uint64_t bytes)
{
    uint64_t most = collective == PLAN_REDUCE ? table->one_shot_reduce_max_bytes : table->one_shot_max_bytes;
    bool one = collective == PLAN_REDUCESCATTER || bytes <= most;
    if (fits_windows(shape)) return one ? PLAN_ONE_SHOT : PLAN_TWO_SHOT;
    bool doubling = bytes <= table->doubling_max_bytes && shape->n_ranks < DOUBLING_END &&
                    plan_exists_in_rank_order(collective, PLAN_DOUBLING, shape->n_ranks);
    return doubling ? PLAN_DOUBLING : PLAN_RANK_TREE;
}

/* Whether a communicator that wants results in rank order may take it. */
static bool admitted(enum plan_collective collective, const struct choice_table *table, const struct shape *shape,
                     enum plan_algorithm algorithm)
{
    return !table->deterministic || !collective_kind(collective).reduces ||
           plan_exists_in_rank_order(collective, algorithm, shape->n_ranks);
}

static enum plan_algorithm natural_algorithm(const struct choice_table *table, const struct shape *shape,
                                             uint64_t bytes)
{
    if (table->deterministic) return natural_in_rank_order(PLAN_ALLREDUCE, table, shape, bytes);
    if (fits_windows(shape)) {
        if (bytes <= table->one_shot_max_bytes) return PLAN_ONE_SHOT;
        return bytes <= table->two_shot_max_bytes ? PLAN_TWO_SHOT : PLAN_RING;
    }
    if (bytes <= table->hierarchy_max_bytes && hierarchy_fits(shape)) return PLAN_HIERARCHY;
    if (bytes >= table->rails_min_bytes && rails_serve(PLAN_ALLREDUCE, table, shape, RAILS_PIECE_MIN_BYTES))
        return PLAN_RAILS;
    if (bytes <= table->doubling_max_bytes && shape->n_ranks < DOUBLING_END) return PLAN_DOUBLING;
    return bytes <= table->tree_max_bytes ? PLAN_TREE : PLAN_RING;
}

static enum plan_algorithm algorithm_choose(const struct choice_table *table, const struct shape *shape, uint64_t bytes)
{
    int32_t forced = table->forced_algorithm;
    bool needs_windows = forced == PLAN_ONE_SHOT || forced == PLAN_TWO_SHOT;
    if (forced < 0 || forced >= PLAN_ALGORITHMS || (needs_windows && !fits_windows(shape)) ||
        (forced == PLAN_DOUBLING && shape->n_ranks >= DOUBLING_END) ||
        (forced == PLAN_HIERARCHY && !hierarchy_fits(shape)) ||
        (forced == PLAN_RAILS && !rails_serve(PLAN_ALLREDUCE, table, shape, LINE_BYTES)) ||
        !admitted(PLAN_ALLREDUCE, table, shape, (enum plan_algorithm)forced))
        return natural_algorithm(table, shape, bytes);
    return (enum plan_algorithm)forced;
}

/* Every channel of rails has windows of its own. As many as a round of good pieces each is there for. */
static uint32_t rails_channels(const struct choice_table *table, const struct shape *shape, uint64_t bytes)
{
    uint32_t most = table->forced_channels ? table->forced_channels : table->net_channels;
    if (most > RAILS_CHANNELS_MAX) most = RAILS_CHANNELS_MAX;
    uint64_t full = table->forced_channels ? most : bytes / ((uint64_t)rails_pieces(shape) * RAILS_PIECE_BYTES);
    uint32_t n = full < most ? (uint32_t)full : most;
    return n > 0 ? n : 1;
}

/* In one node only channel 0 has windows. There a ring gains nothing from a second channel either (the same cores copy),
 * a tree its second tree. */
static uint32_t channels_choose(const struct choice_table *table, const struct shape *shape,
                                enum plan_algorithm algorithm, uint64_t bytes)
{
    if (algorithm == PLAN_ONE_SHOT || algorithm == PLAN_TWO_SHOT) return 1;
    if (algorithm == PLAN_RAILS) return rails_channels(table, shape, bytes);
    if (table->forced_channels > 0) return table->forced_channels;
    uint32_t most = shape->n_nodes > 1 ? table->net_channels : algorithm == PLAN_TREE ? 2 : 1;
    uint64_t full = bytes / CHANNEL_MIN_BYTES;
    uint32_t n = full < most ? (uint32_t)full : most;
    if (algorithm == PLAN_TREE && n > 1) n -= n % 2; /* both trees carry the same */
    return n > 0 ? n : 1;
}

/* The longest piece of a ring or tree.
 * A ring in lockstep keeps all ranks busy at every step, and a round of p-byte pieces takes 2(n-1)(h + p): T = S/(n p)
 * rounds of that, which only shrinks as p grows. So pieces are as long as a slot; channels do the overlapping.
 * A tree is a pipeline D = 2 log2 n hops deep (with tiers a few more, which weigh little under the root): the first piece
 * takes D (h + p), the S/p - 1 others h + p each. With T(p) = D p + S h / p + constants, the best p is sqrt(S h / D);
 * longer pieces drain badly, shorter ones pay hops. Where C channels share a wire, each is C times as slow and hides the
 * others' hops: sqrt(S h / (D C)). It does not hide what a hop costs the processor, so not for pieces below h. */
static uint64_t link_piece(const struct choice_table *table, const struct shape *shape, enum plan_algorithm algorithm,
                           uint32_t n_channels, uint64_t channel_bytes)
{
    uint64_t slot = shape->n_nodes > 1 ? table->net_slot_bytes : table->shm_slot_bytes;
    if (algorithm == PLAN_RING || algorithm == PLAN_DOUBLING || algorithm == PLAN_HIERARCHY) return line_floor(slot);
    uint64_t hop = hop_bytes(shape), depth = 2 * (uint64_t)log2_floor(shape->n_ranks), shared = depth * n_channels;
    if (shape->n_nodes > 1 && slot > TREE_PIECE_HOPS * hop) slot = TREE_PIECE_HOPS * hop;
    if (depth == 0 || channel_bytes / shared >= slot * slot / hop) return line_floor(slot);
    uint64_t many = line_floor(square_root(channel_bytes / shared * hop));
    uint64_t alone = channel_bytes / depth >= slot * slot / hop ? slot : square_root(channel_bytes * hop / depth);
    uint64_t best = many >= hop ? many : line_floor(alone < hop ? alone : hop);
    return best < slot ? best : line_floor(slot);
}

struct choice choose_allreduce(const struct choice_table *table, const struct shape *shape, uint64_t bytes)
{
    struct choice c = {.algorithm = algorithm_choose(table, shape, bytes)};
    c.n_channels = channels_choose(table, shape, c.algorithm, bytes);
    switch (c.algorithm) {
    case PLAN_ONE_SHOT:
        c.piece_bytes = line_floor(table->window_bytes);
        break;
    case PLAN_TWO_SHOT:
        c.piece_bytes = line_floor(table->window_bytes / shape->n_ranks);
        break;
    case PLAN_RAILS:
        c.piece_bytes = rails_piece(table, shape);
        break;
    default:
        c.piece_bytes = link_piece(table, shape, c.algorithm, c.n_channels, bytes / c.n_channels);
        break;
    }
    return c;
}

/* ---- the other collectives ----
 *
 * The same considerations with other numbers. S is count's bytes: one block.
 *     one node:  one exchange moves each byte once (AllGather, Broadcast, Gather, Scatter, AlltoAll: every rank copies
 *                what it gets; ReduceScatter: every rank combines its block), so it serves every size; Reduce like AllReduce
 *                shares the combining in two exchanges when that is worth one more.
 *     Broadcast, Reduce elsewhere: 1 + log2(n-1) hops on trees against n - 1 on the chain, S sent per rank on both, but
 *                the chain crosses from node to node once: the tree up to what its hops save, as for AllReduce.
 *     AllGather, ReduceScatter elsewhere: doubling while blocks are short, for its hops; then the ring, for its bytes.
 *     Gather, Scatter elsewhere: the chain, the least bytes.
 *     AlltoAll elsewhere: everybody with everybody, pairwise. */

static enum plan_algorithm natural_plan(enum plan_collective collective, const struct choice_table *table,
                                        const struct shape *shape, uint64_t bytes)
{
    if (table->deterministic && collective_kind(collective).reduces)
        return natural_in_rank_order(collective, table, shape, bytes);
    bool windows = fits_windows(shape) && bytes <= table->two_shot_max_bytes;
    bool tree = collective == PLAN_BROADCAST || collective == PLAN_REDUCE;
    if (windows && (collective != PLAN_REDUCE || bytes <= table->one_shot_reduce_max_bytes)) return PLAN_ONE_SHOT;
    if (windows) return PLAN_TWO_SHOT;
    if (collective == PLAN_ALLTOALL) return PLAN_PAIRWISE;
    bool everybody = collective == PLAN_ALLGATHER || collective == PLAN_REDUCESCATTER;
    if (everybody && bytes <= table->blocks_doubling_max_bytes && shape->n_ranks < DOUBLING_BLOCKS_END) return PLAN_DOUBLING;
    if (everybody && rails_serve(collective, table, shape, RAILS_PIECE_MIN_BYTES)) return PLAN_RAILS;
    return tree && bytes <= table->tree_max_bytes ? PLAN_TREE : PLAN_RING;
}

static enum plan_algorithm plan_choose(enum plan_collective collective, const struct choice_table *table,
                                       const struct shape *shape, uint64_t bytes)
{
    int32_t forced = table->forced_algorithm;
    bool needs_windows = forced == PLAN_ONE_SHOT || forced == PLAN_TWO_SHOT;
    if (forced < 0 || forced >= PLAN_ALGORITHMS || !plan_exists(collective, (enum plan_algorithm)forced) ||
        (needs_windows && !fits_windows(shape)) || (forced == PLAN_DOUBLING && shape->n_ranks >= DOUBLING_BLOCKS_END) ||
        (forced == PLAN_RAILS && !rails_serve(collective, table, shape, LINE_BYTES)) ||
        !admitted(collective, table, shape, (enum plan_algorithm)forced))
        return natural_plan(collective, table, shape, bytes);
    return (enum plan_algorithm)forced;
}

/* Chains and trees are pipelines; blocks walk a ring in lockstep. As in link_piece, with other depths. */
static uint64_t pipeline_piece(const struct choice_table *table, const struct shape *shape, uint64_t depth,
                               uint64_t channel_bytes)
{
    uint64_t slot = shape->n_nodes > 1 ? table->net_slot_bytes : table->shm_slot_bytes, hop = hop_bytes(shape);
    if (depth == 0 || channel_bytes / depth >= slot * slot / hop) return line_floor(slot);
    uint64_t best = line_floor(square_root(channel_bytes * hop / depth));
    return best < slot ? best : line_floor(slot);
}

static uint64_t piece_choose(enum plan_collective collective, const struct choice_table *table,
                             const struct shape *shape, enum plan_algorithm algorithm, uint64_t channel_bytes)
{
    uint32_t n = shape->n_ranks;
    /* a window holds a round: of every rank's block where the input has them, of its own elsewhere */
    if (algorithm == PLAN_TWO_SHOT) return line_floor(table->window_bytes / n);
    if (algorithm == PLAN_RAILS) return rails_piece(table, shape);
    if (algorithm == PLAN_ONE_SHOT)
        return line_floor(collective_kind(collective).input_blocks ? table->window_bytes / n : table->window_bytes);
    if (collective != PLAN_BROADCAST && collective != PLAN_REDUCE) return pipeline_piece(table, shape, 0, 0);
    bool tree = algorithm == PLAN_TREE || algorithm == PLAN_RANK_TREE;
    return pipeline_piece(table, shape, tree ? 1 + log2_floor(n - 1) : n - 1, channel_bytes);
}

/* The trees are two, and every root has its own links: no more channels than trees. */
#define TREE_CHANNELS 2u

struct choice choose_plan(enum plan_collective collective, const struct choice_table *table, const struct shape *shape,
                          uint64_t bytes)
{
    if (collective == PLAN_ALLREDUCE) return choose_allreduce(table, shape, bytes);
    uint64_t moved = bytes * collective_blocks(collective, shape->n_ranks);
    struct choice c = {.algorithm = plan_choose(collective, table, shape, bytes)};
    if (c.algorithm == PLAN_PAIRWISE) return c;
    c.n_channels = channels_choose(table, shape, c.algorithm, moved);
    if (c.algorithm == PLAN_TREE && c.n_channels > TREE_CHANNELS) c.n_channels = TREE_CHANNELS;
    c.piece_bytes = piece_choose(collective, table, shape, c.algorithm, bytes / c.n_channels);
    return c;
}
