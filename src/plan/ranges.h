/* ranges.h - the one function that maps (count, channel, round, piece) to element ranges. All engines share it.
 *
 * Where a buffer has a block per rank, channels and rounds cut every block alike, and a round takes its share of each:
 *
 *     block   0                1                2                 a round's range is counted from its block's start;
 *             [..|round r|..]  [..|round r|..]  [..|round r|..]   a piece lies in one block (collective.h)
 *
 * Every level splits evenly in units of a grain (64 bytes of elements, so that pieces start on cache lines when the
 * buffer does), the first parts one unit longer: no short tail anywhere. Freestanding. */
#ifndef RAIL_PLAN_RANGES_H
#define RAIL_PLAN_RANGES_H

#include <stdint.h>

#include "plan/plan.h"

struct plan_range {
    uint64_t first; /* element */
    uint64_t count; /* elements, may be 0 */
};

struct plan_split {
    uint64_t count;     /* elements of the whole operation; of one block where buffers have several */
    uint64_t grain;     /* elements per unit: 64 / bytes per element */
    uint64_t piece_max; /* elements, a multiple of grain, >= grain: no piece is longer */
    uint32_t n_channels;
    uint32_t n_pieces; /* of one block */
};

/* a / b. Division of 64 bits is a subroutine on a GPU, of some hundred instructions; most numbers here have 32. */
PLAN_FN uint64_t plan_quotient(uint64_t a, uint64_t b)
{
    return (a | b) >> 32 ? a / b : (uint32_t)a / (uint32_t)b;
}

PLAN_FN uint64_t plan_units(uint64_t count, uint64_t grain)
{
    uint64_t whole = plan_quotient(count, grain);
    return whole + (whole * grain != count);
}

/* Part `index` of `parts` of `whole`, cut on grains counted from whole.first. */
PLAN_FN struct plan_range plan_part(struct plan_range whole, uint64_t parts, uint64_t index, uint64_t grain)
{
    uint64_t units = plan_units(whole.count, grain);
    uint64_t each = plan_quotient(units, parts), extra = units - each * parts;
    uint64_t first = (each * index + (index < extra ? index : extra)) * grain;
    uint64_t count = (each + (index < extra)) * grain;
    if (first > whole.count) first = whole.count;
    if (count > whole.count - first) count = whole.count - first;
    struct plan_range part = {whole.first + first, count};
    return part;
}

PLAN_FN struct plan_range plan_channel_range(const struct plan_split *s, uint32_t channel)
{
    struct plan_range whole = {0, s->count};
    return plan_part(whole, s->n_channels, channel, s->grain);
}

/* Rounds that this channel runs; 0 when it has no elements. */
PLAN_FN uint64_t plan_round_count(const struct plan_split *s, uint32_t channel)
{
    uint64_t units = plan_units(plan_channel_range(s, channel).count, s->grain);
    uint64_t per_round = plan_quotient(s->piece_max, s->grain) * s->n_pieces;
    return plan_units(units, per_round);
}

PLAN_FN struct plan_range plan_round_range(const struct plan_split *s, uint32_t channel, uint64_t round)
{
    return plan_part(plan_channel_range(s, channel), plan_round_count(s, channel), round, s->grain);
}

PLAN_FN struct plan_range plan_piece_range(const struct plan_split *s, uint32_t channel, uint64_t round, uint32_t piece)
{
    return plan_part(plan_round_range(s, channel, round), s->n_pieces, piece % s->n_pieces, s->grain);
}

/* Where blocks stand: order[k] is the rank whose block is number k of a round. */
struct plan_blocks {
    const uint32_t *order; /* NULL when no buffer has several */
    uint8_t input, output; /* that buffer has a block per rank */
};

/* The element of a buffer at which `first` of a piece's block stands. */
PLAN_FN uint64_t plan_in_buffer(const struct plan_split *s, const struct plan_blocks *blocks, int several,
                                uint32_t piece, uint64_t first)
{
    return several ? s->count * blocks->order[piece / s->n_pieces] + first : first;
}

/* The same in a window, which holds one round of each block of the buffer that it stands for, each from a grain on. */
PLAN_FN uint64_t plan_in_window(const struct plan_split *s, struct plan_range round, int several, uint32_t piece,
                                uint64_t first)
{
    uint64_t block = several ? piece / s->n_pieces * (plan_units(round.count, s->grain) * s->grain) : 0;
    return block + first - round.first;
}

#endif
