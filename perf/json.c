/* json.c - see json.h. */
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>

bool perf_json_create(struct perf_json *json, const char *path, char *used, size_t used_bytes)
{
    *json = (struct perf_json){0};
    snprintf(used, used_bytes, "%s", path);
    for (int i = 0; !(json->file = fopen(used, "wxe")); i++) {
        if (errno != EEXIST || i == 10000) return false;
        snprintf(used, used_bytes, "%s.%d", path, i);
    }
    return true;
}

bool perf_json_close(struct perf_json *json)
{
    fputc('\n', json->file);
    bool good = !ferror(json->file);
    return fclose(json->file) == 0 && good;
}

/* Only ASCII goes out as it is: control characters and bytes of unknown encodings are escaped, so the file always parses. */
static void quoted(FILE *file, const char *text)
{
    fputc('"', file);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') fprintf(file, "\\%c", *p);
        else if (*p < 0x20 || *p > 0x7e) fprintf(file, "\\u%04x", *p);
        else fputc(*p, file);
    }
    fputc('"', file);
}

static void begin(struct perf_json *json, const char *key)
{
    if (json->comma[json->depth]) fputc(',', json->file);
    json->comma[json->depth] = true;
    if (!key) return;
    if (json->depth <= 2) fprintf(json->file, "\n%*s", 2 * json->depth, "");
    quoted(json->file, key);
    fputs(": ", json->file);
}

void perf_json_open(struct perf_json *json, const char *key, char bracket)
{
    begin(json, key);
    fputc(bracket, json->file);
    if (json->depth + 1 < (int)(sizeof json->comma / sizeof *json->comma)) json->depth++;
    json->comma[json->depth] = false;
}

void perf_json_end(struct perf_json *json, char bracket)
{
    json->depth--;
    fputc(bracket, json->file);
}

void perf_json_text(struct perf_json *json, const char *key, const char *value)
{
    begin(json, key);
    quoted(json->file, value);
}

void perf_json_number(struct perf_json *json, const char *key, double value)
{
    begin(json, key);
    if (isfinite(value)) fprintf(json->file, "%.9g", value);
    else fputs("null", json->file);
}

void perf_json_whole(struct perf_json *json, const char *key, int64_t value)
{
    begin(json, key);
    fprintf(json->file, "%lld", (long long)value);
}

void perf_json_null(struct perf_json *json, const char *key)
{
    begin(json, key);
    fputs("null", json->file);
}
