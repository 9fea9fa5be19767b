/* signature.h - what a rank called, in 64 bits that travel with the first bytes of every operation, so that ranks which
 * called different things find out instead of mixing their data. */
#ifndef RAIL_ENGINE_SIGNATURE_H
#define RAIL_ENGINE_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

#include "plan/plan.h"

/* Bits 60 to 63 of a collective: 1 + its enum plan_collective. */
static inline unsigned signature_collective(enum plan_collective collective) { return 1u + (unsigned)collective; }

/* The same bits of a message from rank to rank (messages.h): no collective. */
#define SIGNATURE_P2P 15u

#define SIGNATURE_COUNT_MAX ((1ull << 40) - 1)

/* collective 4 bits | type 4 | operator 3 (0..4 as in ncclRedOp_t, 5 = a created one) | root 13 (modulo) | count 40 */
static inline uint64_t signature_make(unsigned collective, unsigned type, unsigned op, uint32_t root, uint64_t count)
{
    return (uint64_t)(collective & 15) << 60 | (uint64_t)(type & 15) << 56 | (uint64_t)(op & 7) << 53 |
           (uint64_t)(root & 8191) << 40 | (count & SIGNATURE_COUNT_MAX);
}

/* "AllReduce of 100 float32, sum"; "Broadcast of 7 int8, root 2" */
void signature_describe(uint64_t signature, char *out, size_t bytes);
/* "100 float32" */
void signature_describe_elements(uint64_t signature, char *out, size_t bytes);

#endif
