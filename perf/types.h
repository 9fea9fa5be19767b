/* types.h - element types, operators and sizes: their names in nccl-tests, and the exact arithmetic of the types.
 *
 * The benchmark must be able to say what a collective has to answer without asking the library: so the conversions here
 * are its own, slow and plain. */
#ifndef PERF_TYPES_H
#define PERF_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nccl.h"

enum { PERF_TYPES = 12 };

/* Operators of nccl-tests: the five of ncclRedOp_t and, last, PreMulSum with a scalar of each rank's own. */
enum perf_op { PERF_SUM, PERF_PROD, PERF_MAX, PERF_MIN, PERF_AVG, PERF_MULSUM, PERF_OPS };

const char *perf_type_name(int type);
const char *perf_op_name(int op);
/* -1 when there is no such name. */
int perf_type_find(const char *name);
int perf_op_find(const char *name);

size_t perf_type_bytes(int type);
bool perf_type_is_float(int type);
bool perf_type_is_signed(int type);

/* Significand bits including the hidden one: every whole number up to 2^digits is a value of the type. */
int perf_type_digits(int type);

/* The nearest value of a floating type, ties to even, no overflow expected (far below the largest value). */
double perf_round(int type, double value);
/* The bits of a value that the type holds exactly (perf_round(value) == value), and back. */
uint64_t perf_encode(int type, double value);
double perf_decode(int type, uint64_t bits);

/* "128", "4K", "1.5M", "2G" in bytes (powers of 1024); false when it is something else, negative, or too large. */
bool perf_size_parse(const char *text, size_t *bytes);
/* A whole number from `least` to `most`; false when it is something else. */
bool perf_whole_parse(const char *text, int least, int most, int *out);

#endif
