/* value.h - symbolic values: which expression over the ranks' inputs a piece of memory holds.
 *
 * An expression is an input (already scaled), an ordered combination, or a finished reduction. Equal expressions have
 * equal numbers (hash consing), so "identical bits on all ranks" is "the same number". Rules that no right plan breaks
 * are checked as expressions are made. */
#ifndef RAIL_PLAN_VALUE_H
#define RAIL_PLAN_VALUE_H

#include <stdbool.h>
#include <stdint.h>

/* A value's number. */
typedef uint32_t value_id;
enum {
    VALUE_NONE = 0, /* never written */
    VALUE_RAW = 1,  /* the caller's own input, not yet scaled */
};

/* Which part of which operation a value belongs to. */
struct value_part {
    uint32_t call, round, piece;
};

struct values;
struct values *values_open(uint32_t n_ranks); /* NULL: out of memory */
void values_close(struct values *values);

value_id values_input(struct values *values, struct value_part part, uint32_t rank);
/* On a broken rule VALUE_NONE, and *problem says which (a static text). One source is a copy. */
value_id values_combine(struct values *values, const value_id *source, uint32_t n, const char **problem);
/* The same as a balanced tree over the sources' order, split at the largest power of two below their number. */
value_id values_balance(struct values *values, const value_id *source, uint32_t n, const char **problem);
value_id values_finish(struct values *values, value_id value, const char **problem);

/* The rank tree, finished: what an element's value is where results may depend on nothing but ranks and their number:
 * the balanced tree over the inputs of ranks 0 .. n-1, split at the largest power of two below n, each inner node a
 * combination of two, rounded. VALUE_NONE: out of memory. */
value_id values_rank_tree(struct values *values, struct value_part part);

struct value_part values_part(const struct values *values, value_id value);
bool values_complete(const struct values *values, value_id value); /* of every rank's input, finished or not */
bool values_final(const struct values *values, value_id value);
uint64_t values_hash(const struct values *values, value_id value); /* of the expression, not of its number */

#endif
