/* pieces.c - sizes of pieces by rounds of three kinds, sums of arithmetic progressions by running sums. */
#include "simulate/pieces.h"

#include <stdlib.h>
#include <string.h>

/* Rounds differ by a grain: the first `extra` are a unit longer, and the last one may end within a grain. */
static void add_rounds(struct pieces *p, const struct plan_split *s, uint32_t channel, uint64_t round, uint64_t times,
                       uint32_t element_bytes)
{
    if (times == 0) return;
    for (uint32_t k = 0; k < p->n; k++)
        p->bytes[k] += times * element_bytes * plan_piece_range(s, channel, round, k).count;
}

enum rail_result pieces_make(struct pieces *out, const struct plan_split *s, uint32_t channel, uint32_t blocks,
                             uint32_t element_bytes)
{
    struct pieces p = {.n = s->n_pieces * blocks, .rounds = plan_round_count(s, channel)};
    p.bytes = calloc(p.n ? p.n : 1, sizeof *p.bytes);
    if (!p.bytes) return rail_fail(RAIL_E_SYSTEM, "simulate: out of memory for %u pieces", p.n);
    if (p.rounds > 0) {
        uint64_t extra = plan_units(plan_channel_range(s, channel).count, s->grain) % p.rounds;
        add_rounds(&p, s, channel, 0, extra, element_bytes);
        add_rounds(&p, s, channel, extra, p.rounds - extra - 1, element_bytes);
        add_rounds(&p, s, channel, p.rounds - 1, 1, element_bytes);
    }
    for (uint32_t k = 0; k < p.n; k++) p.total += p.bytes[k];
    *out = p;
    return RAIL_OK;
}

void pieces_clear(struct pieces *p)
{
    free(p->bytes);
    for (int k = 0; k < PIECES_STRIDES; k++) free(p->strides[k].sum);
    memset(p, 0, sizeof *p);
}

/* Running sums of that stride, made when they are asked for first. NULL: no room for more strides, or no memory. */
static const uint64_t *running(struct pieces *p, uint32_t stride)
{
    int k = 0;
    while (k < PIECES_STRIDES && p->strides[k].sum && p->strides[k].stride != stride) k++;
    if (k == PIECES_STRIDES) return NULL;
    if (p->strides[k].sum) return p->strides[k].sum;
    uint64_t *sum = malloc(p->n * sizeof *sum);
    if (!sum) return NULL;
    for (uint32_t i = 0; i < p->n; i++) sum[i] = p->bytes[i] + (i >= stride ? sum[i - stride] : 0);
    p->strides[k].stride = stride;
    return p->strides[k].sum = sum;
}

static uint64_t walk(const struct pieces *p, struct plan_index x, uint64_t times)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < times; i++) sum += p->bytes[plan_index_at(x, (uint32_t)i)];
    return sum;
}

/* bytes[(a i + b) mod m] for i = 0 .. times - 1. With stride |a| a divisor of m, the pieces are those of b's residue
 * in a circle of m / |a|: whole turns, and a run that may pass the circle's end. Going down from b is going up to b. */
static uint64_t progression(struct pieces *p, struct plan_index x, uint64_t times)
{
    if (times == 0) return 0;
    if (x.a == 0 || x.m == 1) return times * p->bytes[x.m == 1 ? 0 : x.b];
    uint32_t stride = (uint32_t)(x.a < 0 ? -(int64_t)x.a : x.a);
    const uint64_t *sum = x.m % stride == 0 && x.m <= p->n ? running(p, stride) : NULL;
    if (!sum) return walk(p, x, times);
    uint32_t circle = x.m / stride, residue = x.b % stride, rest = (uint32_t)(times % circle), at = x.b / stride;
    uint64_t top = sum[residue + (uint64_t)(circle - 1) * stride], all = times / circle * top;
    if (rest == 0) return all;
    uint32_t first = x.a > 0 ? at : (at + circle - (rest - 1)) % circle, last = (first + rest - 1) % circle;
    uint64_t to_last = sum[residue + (uint64_t)last * stride];
    uint64_t before = first ? sum[residue + (uint64_t)(first - 1) * stride] : 0;
    return all + (first <= last ? to_last - before : top - before + to_last);
}

uint64_t pieces_sum(struct pieces *p, struct plan_index x, const struct plan_step *loop)
{
    if (!loop) return p->bytes[plan_index_at(x, 0)];
    uint64_t sum = progression(p, x, loop->times);
    if (!loop->period || loop->skip >= loop->times) return sum;
    uint64_t left_out = (loop->times - loop->skip - 1) / loop->period + 1;
    int64_t first = ((int64_t)x.a * loop->skip + x.b) % (int64_t)x.m, a = (int64_t)x.a * loop->period % (int64_t)x.m;
    struct plan_index skipped = {(int32_t)a, (uint32_t)(first < 0 ? first + (int64_t)x.m : first), x.m};
    return sum - progression(p, skipped, left_out);
}
