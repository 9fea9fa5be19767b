/* values.h - inputs whose reduction is known exactly, whatever the order in which it is done.
 *
 * An element's value is a function of (rank, element, iteration): a hash of element and iteration picks one of 1024
 * patterns, and a pattern gives every rank its value. So what the reduction must be is computed once per pattern, by
 * plainly combining all ranks' values, and filling or checking an array is one hash and one look-up per element however
 * many ranks there are.
 *
 * The values of a pattern are chosen such that no order of combination, and no rounding to the element type between two
 * steps, can change the result:
 *   integers   sum, prod, mulsum wrap, so anything goes (prod: odd numbers, which keep all bits alive); max and min too;
 *              avg: a sum that does not overflow and divides by the number of ranks
 *   floats     sum, avg, mulsum: whole multiples of one unit whose magnitudes together stay within the significand,
 *              so every partial sum is exact (avg: after each value was multiplied by the rounded 1/n);
 *              prod: one odd factor that fills the significand, a few powers of two and signs, else 1;
 *              max, min: anything finite
 */
#ifndef PERF_VALUES_H
#define PERF_VALUES_H

#include <stddef.h>
#include <stdint.h>

enum { VALUES_PATTERNS = 1024 };

/* All ranks' values of one pattern and what they reduce to, as bits of the element type in the low bytes. */
void values_column(int type, int op, int n_ranks, int pattern, uint64_t *value, uint64_t *reduced);

/* PreMulSum's scalar of a rank (1 or 2: exact in every type), as a number and as the type's bits. */
int values_scalar(int rank);
uint64_t values_scalar_bits(int type, int rank);

/* One value per pattern, in the element type. */
union values_table {
    uint8_t b1[VALUES_PATTERNS];
    uint16_t b2[VALUES_PATTERNS];
    uint32_t b4[VALUES_PATTERNS];
    uint64_t b8[VALUES_PATTERNS];
};
enum { VALUES_REDUCED = -1 }; /* as a rank: the reduction over all of them */
/* The inputs of one rank (a plain copy of them is what gather-like collectives must show), or the reduction. For
 * collectives without an operator the op is PERF_MAX: anything finite. Returns 0, or -1 without memory. */
int values_tables(int type, int op, int n_ranks, int rank, union values_table *input, union values_table *reduced);

/* Which elements: `first` is the number of the element at the array's start, in its owner's whole input. */
struct values_range { uint64_t first; size_t count; uint64_t iteration; };
void values_fill(int type, const union values_table *table, struct values_range range, void *to);
/* Counts the elements that differ in any bit; index of the first one in *first_wrong (untouched when none is). */
uint64_t values_check(int type, const union values_table *table, struct values_range range, const void *have,
                      size_t *first_wrong);
/* What element `index` of the range should be, as bits. */
uint64_t values_at(int type, const union values_table *table, struct values_range range, size_t index);

#endif
