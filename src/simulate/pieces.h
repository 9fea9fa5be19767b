/* pieces.h - how many bytes each piece of a plan carries over a whole operation, and sums of these over loops without
 * walking them: a ring of 131072 ranks has loops of 131070 iterations in each of its plans. */
#ifndef RAIL_SIMULATE_PIECES_H
#define RAIL_SIMULATE_PIECES_H

#include <stdint.h>

#include "base/result.h"
#include "plan/plan.h"
#include "plan/ranges.h"

enum { PIECES_STRIDES = 4 };

struct pieces {
    uint32_t n;        /* of a round, all blocks */
    uint64_t rounds;
    uint64_t *bytes;   /* [n], all rounds */
    uint64_t total;    /* of all pieces */
    struct {
        uint32_t stride;
        uint64_t *sum; /* [n] bytes[i] + bytes[i - stride] + bytes[i - 2 stride] ... down to i mod stride */
    } strides[PIECES_STRIDES];
};

/* Pieces of `channel`, of plans whose rounds have `blocks` times split->n_pieces pieces. pieces_clear frees. */
enum rail_result pieces_make(struct pieces *out, const struct plan_split *split, uint32_t channel, uint32_t blocks,
                             uint32_t element_bytes);
void pieces_clear(struct pieces *pieces);

/* Bytes of the pieces that `index` names in a loop (NULL: outside of one), over all rounds. */
uint64_t pieces_sum(struct pieces *pieces, struct plan_index index, const struct plan_step *loop);

#endif
