/* redop.h - operators: NCCL's five, and those that the user creates (PreMulSum). */
#ifndef RAIL_CORE_REDOP_H
#define RAIL_CORE_REDOP_H

#include <stdint.h>

#include "base/result.h"
#include "device/host.h"

enum { REDOP_AVG = 4, REDOP_FIRST_CREATED = 5, REDOP_MAX_CREATED = 4096 };

/* Created operators of one communicator. Used by the communicator's thread only. */
struct redops {
    struct redop_created *created; /* [capacity] */
    uint32_t capacity;
};

/* PreMulSum: `scalar` points at one element of `type`. The handle is >= REDOP_FIRST_CREATED. */
enum rail_result redop_create(struct redops *ops, enum rail_type type, const void *scalar, int *handle_out);
enum rail_result redop_destroy(struct redops *ops, int handle);
void redops_clear(struct redops *ops);

/* How to combine `type` under operator `op` over n ranks. Errors name `call`. */
enum rail_result redop_resolve(const struct redops *ops, const char *call, int op, int type, uint32_t n_ranks,
                               struct rail_combine *out);

#endif
