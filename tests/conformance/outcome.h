/* outcome.h - buffers of one call at one rank, and whether what it left there is right.
 *
 * Inputs are hashed from (rank, element, iteration) and repeat after PERIOD elements, a prime: what lands at the wrong
 * place shows, and the oracle needs that many elements only. What is copied is any bits. What is combined is chosen so
 * that the result does not depend on order, to the bit: any bits where the operator does not mind (integers, min, max);
 * else floats whose partial results are all exact in their type.
 *
 * Outputs are poisoned, and stand with the inputs between poisoned guard bands; a rank that gets nothing must find all of
 * it untouched, and inputs must not change but where an output in place covers them. */
#ifndef TESTS_CONFORMANCE_OUTCOME_H
#define TESTS_CONFORMANCE_OUTCOME_H

#include <stdio.h>
#include <stdlib.h>

#include "conformance/operations.h"
#include "device/host_oracle.h"
#include "support/gpu.h"

enum { PERIOD = 4099, GUARD = 192, POISON = 0xa5 };

static inline size_t element_bytes(const struct call *c) { return rail_type_bytes((enum rail_type)c->type); }
static inline bool reduces(const struct call *c) { return collective_kind(c->what->layout).reduces; }

/* ---- inputs ---- */

static inline uint64_t hash_of(const struct call *c, int rank, size_t k)
{
    uint64_t h = ((uint64_t)c->iteration << 44) + ((uint64_t)rank << 32) + k;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

/* Sums of integers up to here are exact for 16 ranks, twice as much after PreMulSum's 2. */
static inline int64_t summand_limit(int type)
{
    switch (type) {
    case ncclFloat16: return 60;
    case ncclBfloat16: return 7;
    case ncclFloat32: return 1 << 18;
    case ncclFloat64: return (int64_t)1 << 46;
    default: return 1; /* the 8-bit ones, of 8 ranks at most */
    }
}

static inline double exact_float(const struct call *c, int n, int rank, size_t k)
{
    uint64_t h = hash_of(c, rank, k);
    int64_t limit = summand_limit(c->type);
    if (c->op == ncclProd) return rank < 8 ? (double[]){1, 2, 0.5, -1}[h % 4] : h % 2 ? -1 : 1;
    if (c->op == OP_AVG && hash_of(c, 63, k) % (uint64_t)n != (uint64_t)rank) return 0; /* 1/n rounds: one summand */
    if (limit == 1 && rank >= 8) return 0;
    return (double)((int64_t)(h % (uint64_t)(2 * limit + 1)) - limit);
}

static inline uint64_t input_bits(const struct call *c, int n, int rank, size_t k)
{
    bool any = !reduces(c) || !oracle_is_float((enum rail_type)c->type) || c->op == ncclMin || c->op == ncclMax;
    return any ? hash_of(c, rank, k) : oracle_bits((enum rail_type)c->type, exact_float(c, n, rank, k));
}

static inline struct rail_combine combine_of(const struct call *c, int n)
{
    enum rail_type type = (enum rail_type)c->type;
    struct rail_combine how = {.type = type, .op = c->op < OP_AVG ? (enum rail_op)c->op : RAIL_SUM};
    bool is_float = oracle_is_float(type);
    how.scaled = c->op == OP_PREMUL || (c->op == OP_AVG && is_float);
    if (c->op == OP_AVG && is_float) how.scale = rail_reciprocal_bits(type, (uint64_t)n);
    if (c->op == OP_AVG && !is_float) how.divide = (uint64_t)n;
    if (c->op == OP_PREMUL) how.scale = is_float ? oracle_bits(type, 2) : 3;
    return how;
}

/* ---- tables of one period ---- */

struct period {
    unsigned char bytes[PERIOD * 8];
};

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* What rank `rank` gives, first to last. */
static inline void period_input(const struct call *c, int n, int rank, size_t elements, struct period *p)
{
    for (size_t k = 0; k < least(elements, PERIOD); k++) {
        uint64_t bits = input_bits(c, n, rank, k);
        memcpy(p->bytes + k * element_bytes(c), &bits, element_bytes(c));
    }
}

/* What all give, combined. */
static inline void period_combined(const struct call *c, int n, size_t elements, struct period *p)
{
    struct rail_combine how = combine_of(c, n);
    for (size_t k = 0; k < least(elements, PERIOD); k++) {
        uint64_t x[64] = {0};
        for (int r = 0; r < n; r++) {
            x[r] = input_bits(c, n, r, k);
            if (element_bytes(c) < 8) x[r] &= ((uint64_t)1 << 8 * element_bytes(c)) - 1;
        }
        uint64_t bits = oracle_combine(&how, x, n, UINT64_MAX, true);
        memcpy(p->bytes + k * element_bytes(c), &bits, element_bytes(c));
    }
}

/* The first of `count` elements at `at` that is not the period's from element `first` on; `count`: all are. */
static inline size_t differs(const struct call *c, const unsigned char *at, size_t first, size_t count, const struct period *p)
{
    size_t size = element_bytes(c);
    for (size_t k = 0; k < count;) {
        size_t phase = (first + k) % PERIOD, run = least(PERIOD - phase, count - k);
        if (memcmp(at + k * size, p->bytes + phase * size, run * size) != 0) {
            while (memcmp(at + k * size, p->bytes + (first + k) % PERIOD * size, size) == 0) k++;
            return k;
        }
        k += run;
    }
    return count;
}

/* ---- buffers ---- */

struct buffers {
    unsigned char *room[2];
    bool lent;               /* rooms that are not ours to free */
    size_t room_bytes;
    unsigned char *in, *out; /* in place: inside one another */
    unsigned char *device[2]; /* the rooms' like in a GPU's memory, where the call works; NULL: it works here */
    cudaStream_t stream;
    size_t n_in, n_out;      /* elements; 0: none */
    size_t block;            /* bytes */
};

/* A room's bytes at most. */
enum { ROOM_MOST = 5 << 20 };

/* `rooms`: memory for two rooms of ROOM_MOST, or NULL. */
static inline struct buffers buffers_make(const struct call *c, int n, int rank, unsigned char *rooms)
{
    struct collective_kind kind = collective_kind(c->what->layout);
    struct buffers b = {.block = c->count * element_bytes(c), .lent = rooms != NULL};
    struct period *p = malloc(sizeof *p);
    size_t mine = b.block * (size_t)rank;
    b.room_bytes = b.block * (kind.input_blocks || kind.output_blocks ? (size_t)n : 1) + 2 * GUARD + 64;
    if (b.room_bytes > ROOM_MOST) abort();
    for (int k = 0; k < 2; k++) {
        b.room[k] = rooms ? rooms + (size_t)k * ROOM_MOST : aligned_alloc(64, (b.room_bytes + 63) / 64 * 64);
        memset(b.room[k], POISON, b.room_bytes);
    }
    bool gives = !kind.root_gives || rank == c->root, gets = !kind.root_gets || rank == c->root;
    if (gives) b.n_in = c->count * (kind.input_blocks ? (size_t)n : 1);
    if (gets) b.n_out = c->count * (kind.output_blocks ? (size_t)n : 1);
    b.out = b.room[0] + GUARD + c->misaligned;
    b.in = b.room[1] + GUARD + c->misaligned;
    if (c->in_place && kind.input_blocks) b.in = b.out, b.out += gets && gives ? mine : 0;
    else if (c->in_place) b.in = b.out + (kind.output_blocks && gets && gives ? mine : 0);
    period_input(c, n, rank, b.n_in, p);
    for (size_t k = 0; k < b.n_in; k += PERIOD)
        memcpy(b.in + k * element_bytes(c), p->bytes, least(PERIOD, b.n_in - k) * element_bytes(c));
    free(p);
    return b;
}

/* The same place in the GPU's memory; an address here where there is none. */
static inline unsigned char *there(const struct buffers *b, unsigned char *at)
{
    for (int k = 0; k < 2; k++)
        if (b->device[k] && at >= b->room[k] && at <= b->room[k] + b->room_bytes) return b->device[k] + (at - b->room[k]);
    return at;
}

/* To the GPU, at `at`, of ROOM_MOST bytes for each room; and back, when the stream has come to it. */
static inline void buffers_upload(struct buffers *b, unsigned char *at, cudaStream_t stream)
{
    b->stream = stream;
    for (int k = 0; k < 2; k++) {
        b->device[k] = at + (size_t)k * ROOM_MOST;
        gpu_copy_in(b->device[k], b->room[k], b->room_bytes);
    }
}
static inline void buffers_fetch(struct buffers *b)
{
    if (!b->device[0]) return;
    gpu_wait(b->stream);
    for (int k = 0; k < 2; k++) gpu_copy_out(b->room[k], b->device[k], b->room_bytes);
}

static inline void buffers_free(struct buffers *b)
{
    for (int k = 0; k < 2 && !b->lent; k++) free(b->room[k]);
}

static inline ncclResult_t call_make(const struct call *c, const struct job_rank *rank, const struct buffers *b, ncclRedOp_t op)
{
    struct hand h = {.in = b->n_in == 0 && c->null ? NULL : there(b, b->in), .stream = b->stream,
                     .out = b->n_out == 0 && c->null ? NULL : there(b, b->out),
                     .count = c->count, .type = (ncclDataType_t)c->type, .op = op, .root = c->root, .rank = rank->rank,
                     .n_ranks = rank->n_ranks, .comm = rank->comm};
    return c->what->make(&h);
}

/* ---- what came of it ---- */

/* Whose input block k of the output comes from, and the element of it at which it starts. */
static inline size_t origin_of(const struct call *c, int rank, size_t k, int *giver)
{
    struct collective_kind kind = collective_kind(c->what->layout);
    *giver = kind.output_blocks ? (int)k : c->root;
    return kind.input_blocks ? (size_t)rank * c->count : 0;
}

static inline bool poisoned(const unsigned char *from, const unsigned char *to)
{
    return from >= to || (*from == POISON && memcmp(from, from + 1, (size_t)(to - from) - 1) == 0);
}

/* Nothing was written outside of the two buffers. */
static inline bool guards_hold(const struct buffers *b, size_t size)
{
    for (int r = 0; r < 2; r++) {
        const unsigned char *from = b->room[r], *end = from + b->room_bytes;
        const unsigned char *low = b->in < b->out ? b->in : b->out, *high = b->in < b->out ? b->out : b->in;
        size_t low_bytes = (low == b->in ? b->n_in : b->n_out) * size, high_bytes = (high == b->in ? b->n_in : b->n_out) * size;
        if (low == high) low_bytes = high_bytes = (b->n_in > b->n_out ? b->n_in : b->n_out) * size;
        if (low >= b->room[r] && low < end) {
            if (!poisoned(from, low)) return false;
            from = low + low_bytes;
        }
        if (high >= b->room[r] && high < end) {
            if (!poisoned(from, high)) return false;
            from = high + high_bytes > from ? high + high_bytes : from;
        }
        if (!poisoned(from, end)) return false;
    }
    return true;
}

/* Writes what is wrong into `why` and returns it, or NULL. */
static inline const char *outcome_wrong(const struct call *c, int n, int rank, const struct buffers *b, char *why, size_t bytes)
{
    size_t size = element_bytes(c), blocks = c->count ? b->n_out / c->count : 0, k, first, at = 0;
    struct period *p = malloc(sizeof *p);
    const char *wrong = NULL;
    for (size_t j = 0; j < blocks && !wrong; j++) {
        int giver;
        first = origin_of(c, rank, j, &giver);
        if (reduces(c)) period_combined(c, n, first + c->count, p);
        else period_input(c, n, giver, first + c->count, p);
        k = differs(c, b->out + j * b->block, first, c->count, p);
        at = j * c->count + k;
        if (k < c->count) wrong = "output element";
    }
    period_input(c, n, rank, b->n_in, p);
    for (size_t j = 0; c->count && j < b->n_in / c->count && !wrong; j++) { /* in place, what the output did not cover */
        const unsigned char *block = b->in + j * b->block;
        if (block >= b->out && block < b->out + b->n_out * size) continue;
        k = differs(c, block, j * c->count, c->count, p);
        at = j * c->count + k;
        if (k < c->count) wrong = "changed input element";
    }
    free(p);
    if (!wrong && !guards_hold(b, size)) wrong = "write outside of the buffers; element";
    if (!wrong) return NULL;
    snprintf(why, bytes, "%s type %d op %d root %d count %zu%s, misaligned %u, iteration %u: %s %zu", c->what->name, c->type,
             c->op, c->root, c->count, c->in_place ? " in place" : "", c->misaligned, c->iteration, wrong, at);
    return why;
}

#endif
