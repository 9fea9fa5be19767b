/* json.h - writing JSON: members of what is open, in order. A name is NULL for an item of a list. */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *out;
    bool comma; /* something stands before what comes next */
};

void json_text(struct json *j, const char *name, const char *value);
void json_number(struct json *j, const char *name, double value);
void json_whole(struct json *j, const char *name, int64_t value);
void json_truth(struct json *j, const char *name, bool value);
void json_open(struct json *j, const char *name, char bracket);  /* { or [ */
void json_close(struct json *j, char bracket);                   /* } or ] */

#endif
