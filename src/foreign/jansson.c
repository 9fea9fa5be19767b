/* jansson.c - reading JSON with libjansson, within bounds. */
#include <stdint.h>

#include <jansson.h>

#include "foreign/jansson.h"

/* Stands for stdin inside libjansson.a (Makefile): only json_loadf, which nobody calls, looks at it. */
extern void *rail_jansson_stdin;
__attribute__((visibility("hidden"))) void *rail_jansson_stdin;

/* Its functions ask for pointers to what may change, though looking changes nothing. */
static json_t *changeable(const struct json_t *value) { return (json_t *)(uintptr_t)value; }

enum rail_result jansson_read(const char *text, size_t bytes, const char *source, struct json_t **out)
{
    json_error_t error;
    if (bytes > JANSSON_MOST_BYTES)
        return rail_fail(RAIL_E_ARGUMENT, "%s: %zu bytes; at most %d are read", source, bytes, JANSSON_MOST_BYTES);
    json_t *root = json_loadb(text, bytes, JSON_ALLOW_NUL, &error);
    if (!root)
        return rail_fail(RAIL_E_ARGUMENT, "%s:%d: %.100s; this is no JSON, or it was cut off", source, error.line,
                         error.text);
    *out = root;
    return RAIL_OK;
}

void jansson_free(struct json_t *root) { json_decref(root); }

const struct json_t *jansson_member(const struct json_t *value, const char *name)
{
    if (json_is_array(value)) value = json_array_get(value, 0);
    return json_object_get(value, name);
}

const char *jansson_text(const struct json_t *value) { return json_string_value(value); }
bool jansson_is_true(const struct json_t *value) { return json_is_true(value); }
double jansson_number(const struct json_t *value, double otherwise)
{
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

void jansson_each(const struct json_t *value, jansson_visit visit, void *context)
{
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
        visit(context, NULL, json_array_get(value, i));
    if (!json_is_object(value)) return;
    json_t *object = changeable(value);
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at))
        visit(context, json_object_iter_key(at), json_object_iter_value(at));
}
