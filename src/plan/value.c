/* value.c - see value.h. Expressions live in one growing array; a hash table finds equal ones; each carries the set of
 * ranks whose input it holds, one bit a rank, so that counting one twice shows at once. */
#include "plan/value.h"

#include <stdlib.h>
#include <string.h>

enum value_kind { VALUE_INPUT, VALUE_COMBINED, VALUE_FINAL };

struct value {
    uint64_t hash;
    struct value_part part;
    uint32_t kind;
    uint32_t first, n; /* children; for an input, first = rank */
};

struct values {
    uint32_t n_ranks, n_words;
    uint32_t n, room;
    struct value *value;
    uint64_t *ranks; /* [room][n_words] */
    uint32_t n_children, children_room;
    value_id *children;
    uint32_t table_room; /* a power of two, > 2 n */
    value_id *table;
};

static const char *const out_of_memory = "out of memory";

static uint64_t mix(uint64_t hash, uint64_t x)
{
    hash = (hash ^ x) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static bool room_double(struct values *v)
{
    uint32_t room = v->room * 2;
    struct value *value = realloc(v->value, room * sizeof *value);
    if (value) v->value = value;
    uint64_t *ranks = realloc(v->ranks, (size_t)room * v->n_words * sizeof *ranks);
    if (ranks) v->ranks = ranks;
    value_id *table = calloc((size_t)room * 4, sizeof *table);
    if (!value || !ranks || !table) {
        free(table);
        return false;
    }
    free(v->table);
    v->room = room;
    v->table = table;
    v->table_room = room * 4;
    for (value_id id = VALUE_RAW + 1; id < v->n; id++) {
        uint64_t at = v->value[id].hash;
        while (v->table[at & (v->table_room - 1)] != VALUE_NONE) at++;
        v->table[at & (v->table_room - 1)] = id;
    }
    return true;
}

struct values *values_open(uint32_t n_ranks)
{
    struct values *v = calloc(1, sizeof *v);
    if (v == NULL) return NULL;
    v->n_ranks = n_ranks;
    v->n_words = (n_ranks + 63) / 64;
    v->room = 512;
    v->n = VALUE_RAW + 1;
    v->children_room = 1024;
    v->children = calloc(v->children_room, sizeof *v->children);
    if (v->children && room_double(v)) return v;
    values_close(v);
    return NULL;
}

void values_close(struct values *v)
{
    if (v == NULL) return;
    free(v->value);
    free(v->ranks);
    free(v->children);
    free(v->table);
    free(v);
}

static bool same(const struct values *v, const struct value *a, const struct value *b, const value_id *children)
{
    return a->hash == b->hash && a->kind == b->kind && a->n == b->n &&
           memcmp(&a->part, &b->part, sizeof a->part) == 0 &&
           (a->kind == VALUE_INPUT ? a->first == b->first
                                   : memcmp(v->children + a->first, children, a->n * sizeof *children) == 0);
}

/* The number of this expression, new or known; VALUE_NONE when out of memory. The caller fills a new one's ranks. */
static value_id intern(struct values *v, struct value wanted, const value_id *children, bool *is_new)
{
    *is_new = false;
    uint64_t at = wanted.hash;
    for (value_id id; (id = v->table[at & (v->table_room - 1)]) != VALUE_NONE; at++)
        if (same(v, &v->value[id], &wanted, children)) return id;
    if (v->n == v->room) {
        if (!room_double(v)) return VALUE_NONE;
        for (at = wanted.hash; v->table[at & (v->table_room - 1)] != VALUE_NONE;) at++;
    }
    if (wanted.kind != VALUE_INPUT) {
        if (v->children_room - v->n_children < wanted.n) {
            uint32_t room = v->children_room * 2 + wanted.n;
            value_id *grown = realloc(v->children, room * sizeof *grown);
            if (grown == NULL) return VALUE_NONE;
            v->children = grown;
            v->children_room = room;
        }
        wanted.first = v->n_children;
        memcpy(v->children + v->n_children, children, wanted.n * sizeof *children);
        v->n_children += wanted.n;
    }
    v->table[at & (v->table_room - 1)] = v->n;
    v->value[v->n] = wanted;
    *is_new = true;
    return v->n++;
}

static uint64_t *ranks_of(const struct values *v, value_id id) { return v->ranks + (size_t)id * v->n_words; }

static uint64_t part_hash(uint32_t kind, struct value_part part)
{
    return mix(mix(mix(mix(kind + 1, part.call), part.round), part.piece), 0);
}

value_id values_input(struct values *v, struct value_part part, uint32_t rank)
{
    bool is_new;
    struct value wanted = {mix(part_hash(VALUE_INPUT, part), rank), part, VALUE_INPUT, rank, 0};
    value_id id = intern(v, wanted, NULL, &is_new);
    if (!is_new) return id;
    memset(ranks_of(v, id), 0, v->n_words * sizeof(uint64_t));
    ranks_of(v, id)[rank / 64] |= (uint64_t)1 << rank % 64;
    return id;
}

/* The rules: every source holds something, of the same part, not yet finished, and no input twice. */
static const char *combine_problem(const struct values *v, const value_id *source, uint32_t n)
{
    uint64_t seen[64] = {0}; /* up to 4096 ranks */
    for (uint32_t k = 0; k < n; k++) {
        struct value_part a = v->value[source[k]].part, b = v->value[source[0]].part;
        if (v->value[source[k]].kind == VALUE_FINAL) return "combines a value that is already final";
        if (memcmp(&a, &b, sizeof a) != 0) return "combines values of different pieces or rounds";
        for (uint32_t w = 0; w < v->n_words; w++) {
            if (seen[w] & ranks_of(v, source[k])[w]) return "counts an input twice";
            seen[w] |= ranks_of(v, source[k])[w];
        }
    }
    return NULL;
}

value_id values_combine(struct values *v, const value_id *source, uint32_t n, const char **problem)
{
    for (uint32_t k = 0; k < n; k++) {
        if (source[k] == VALUE_NONE) *problem = "reads memory that was never written";
        if (source[k] == VALUE_RAW) *problem = "reads an input that was not scaled";
        if (source[k] <= VALUE_RAW) return VALUE_NONE;
    }
    if (n == 1) return source[0];
    if ((*problem = combine_problem(v, source, n)) != NULL) return VALUE_NONE;

    struct value_part part = v->value[source[0]].part;
    uint64_t hash = part_hash(VALUE_COMBINED, part);
    for (uint32_t k = 0; k < n; k++) hash = mix(hash, v->value[source[k]].hash);
    bool is_new;
    value_id id = intern(v, (struct value){hash, part, VALUE_COMBINED, 0, n}, source, &is_new);
    if (id == VALUE_NONE) *problem = out_of_memory;
    if (!is_new) return id;
    memset(ranks_of(v, id), 0, v->n_words * sizeof(uint64_t));
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t w = 0; w < v->n_words; w++) ranks_of(v, id)[w] |= ranks_of(v, source[k])[w];
    return id;
}

static uint32_t split_of(uint32_t n)
{
    uint32_t p = 1;
    while (p * 2 < n) p *= 2;
    return p;
}

value_id values_balance(struct values *v, const value_id *source, uint32_t n, const char **problem)
{
    if (n < 2) return values_combine(v, source, n, problem);
    uint32_t left = split_of(n);
    value_id half[2] = {values_balance(v, source, left, problem), VALUE_NONE};
    if (half[0] != VALUE_NONE) half[1] = values_balance(v, source + left, n - left, problem);
    return half[1] == VALUE_NONE ? VALUE_NONE : values_combine(v, half, 2, problem);
}

static value_id tree_over(struct values *v, struct value_part part, uint32_t first, uint32_t n)
{
    const char *problem;
    if (n == 1) return values_input(v, part, first);
    uint32_t left = split_of(n);
    value_id half[2] = {tree_over(v, part, first, left), tree_over(v, part, first + left, n - left)};
    return half[0] && half[1] ? values_combine(v, half, 2, &problem) : VALUE_NONE;
}

value_id values_rank_tree(struct values *v, struct value_part part)
{
    const char *problem;
    value_id tree = tree_over(v, part, 0, v->n_ranks);
    return tree == VALUE_NONE ? VALUE_NONE : values_finish(v, tree, &problem);
}

value_id values_finish(struct values *v, value_id value, const char **problem)
{
    if (values_final(v, value)) {
        *problem = "FINAL on a value that is already final";
        return VALUE_NONE;
    }
    if (!values_complete(v, value)) {
        *problem = "FINAL on an incomplete value";
        return VALUE_NONE;
    }
    struct value_part part = v->value[value].part;
    uint64_t hash = mix(part_hash(VALUE_FINAL, part), v->value[value].hash);
    bool is_new;
    value_id id = intern(v, (struct value){hash, part, VALUE_FINAL, 0, 1}, &value, &is_new);
    if (id == VALUE_NONE) *problem = out_of_memory;
    if (is_new) memcpy(ranks_of(v, id), ranks_of(v, value), v->n_words * sizeof(uint64_t));
    return id;
}

struct value_part values_part(const struct values *v, value_id value) { return v->value[value].part; }
uint64_t values_hash(const struct values *v, value_id value) { return v->value[value].hash; }

bool values_complete(const struct values *v, value_id value)
{
    if (value <= VALUE_RAW) return false;
    for (uint32_t rank = 0; rank < v->n_ranks; rank++)
        if (!(ranks_of(v, value)[rank / 64] >> rank % 64 & 1)) return false;
    return true;
}

bool values_final(const struct values *v, value_id value)
{
    return value > VALUE_RAW && v->value[value].kind == VALUE_FINAL;
}
