/* json.c - JSON by hand, with the commas in the right places. */
#include "json.h"

#include <inttypes.h>

static void quote(struct json *j, const char *text)
{
    fputc('"', j->out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(j->out, "\\%c", c);
        else if (c < ' ' || c == 0x7f) fprintf(j->out, "\\u%04x", c);
        else fputc(c, j->out);
    }
    fputc('"', j->out);
}

static void key(struct json *j, const char *name)
{
    if (j->comma) fputs(", ", j->out);
    j->comma = true;
    if (!name) return;
    quote(j, name);
    fputs(": ", j->out);
}

void json_text(struct json *j, const char *name, const char *value) { key(j, name), quote(j, value); }
void json_number(struct json *j, const char *name, double value) { key(j, name), fprintf(j->out, "%.10g", value); }
void json_whole(struct json *j, const char *name, int64_t value) { key(j, name), fprintf(j->out, "%" PRId64, value); }
void json_truth(struct json *j, const char *name, bool value)
{
    key(j, name), fputs(value ? "true" : "false", j->out);
}

void json_open(struct json *j, const char *name, char bracket)
{
    key(j, name);
    fputc(bracket, j->out);
    j->comma = false;
}

void json_close(struct json *j, char bracket)
{
    fputc(bracket, j->out);
    j->comma = true;
}
