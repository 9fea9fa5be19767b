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
/* The same with a scalar in a GPU's memory, which is read whenever an operation runs; for redop_scalar_at. */
enum rail_result redop_create_at(struct redops *ops, enum rail_type type, uint64_t address, int *handle_out);
/* Where that scalar is; 0: it is immediate. */
uint64_t redop_scalar_at(const struct redops *ops, int op);
enum rail_result redop_destroy(struct redops *ops, int handle);
void redops_clear(struct redops *ops);

/* How to combine `type` under operator `op` over n ranks. Errors name `call`. */
enum rail_result redop_resolve(const struct redops *ops, const char *call, int op, int type, uint32_t n_ranks,
                               struct rail_combine *out);

#endif
