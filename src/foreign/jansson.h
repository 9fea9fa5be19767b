/* jansson.h - reading JSON as a tree. The one door to libjansson, which is linked statically and hidden.
 *
 * Bounds, for texts that anybody may have written: JANSSON_MOST_BYTES, and jansson's own 2048 values inside one
 * another. What exceeds them, or is no JSON, fails with source, line and remedy. Values belong to the tree. */
#ifndef RAIL_FOREIGN_JANSSON_H
#define RAIL_FOREIGN_JANSSON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

enum { JANSSON_MOST_BYTES = 4 << 20 };

struct json_t; /* jansson's: a value */

/* `source` names the text in errors. jansson_free frees the whole tree; takes NULL. */
enum rail_result jansson_read(const char *text, size_t bytes, const char *source, struct json_t **out);
void jansson_free(struct json_t *root);

/* NULL when the value is NULL, no object, or has no such member; of an array, its first item's. */
const struct json_t *jansson_member(const struct json_t *value, const char *name);
/* NULL when the value is NULL or no string. Zero bytes inside end it. */
const char *jansson_text(const struct json_t *value);
bool jansson_is_true(const struct json_t *value);
/* `otherwise` when the value is NULL or no number. */
double jansson_number(const struct json_t *value, double otherwise);

/* Calls for every member of an object (with its name) or item of an array (with NULL); nothing for other values. */
typedef void (*jansson_visit)(void *context, const char *name, const struct json_t *value);
void jansson_each(const struct json_t *value, jansson_visit visit, void *context);

#endif
