/* json.h - writing JSON by hand: a stream of keys and values with the commas in the right places. */
#ifndef PERF_JSON_H
#define PERF_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct perf_json {
    FILE *file;
    int depth;
    bool comma[16]; /* per depth: a comma is due before the next member */
};

/* Creates PATH, or PATH.0, PATH.1 ... when it exists (as nccl-tests does: results are never overwritten). False with
 * errno. The name used is written to `used`. */
bool perf_json_create(struct perf_json *json, const char *path, char *used, size_t used_bytes);
/* Closes; false when anything could not be written. */
bool perf_json_close(struct perf_json *json);

/* `key` is NULL inside a list. */
void perf_json_open(struct perf_json *json, const char *key, char bracket); /* '{' or '[' */
void perf_json_end(struct perf_json *json, char bracket);                   /* '}' or ']' */
void perf_json_text(struct perf_json *json, const char *key, const char *value);
void perf_json_number(struct perf_json *json, const char *key, double value); /* not finite: null */
void perf_json_whole(struct perf_json *json, const char *key, int64_t value);
void perf_json_null(struct perf_json *json, const char *key);

#endif
