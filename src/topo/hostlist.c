/* hostlist.c - expands one bracket at a time: what stands before it is fixed, what follows is expanded for each number.
 */
#include "topo/hostlist.h"

#include <stdio.h>
#include <string.h>

enum { DIGITS_MAX = 9 };

struct expansion {
    enum rail_result (*each)(void *owner, const char *name);
    void *owner;
    char *why;
    uint32_t count;
    char name[HOSTLIST_NAME_BYTES];
};

static enum rail_result malformed(struct expansion *x, const char *what, const char *at, const char *end)
{
    int n = (int)(end - at < 40 ? end - at : 40);
    snprintf(x->why, HOSTLIST_WHY_BYTES, "%s at \"%.*s\"", what, n, at);
    return RAIL_E_ARGUMENT;
}

static enum rail_result put(struct expansion *x, size_t *used, const char *from, size_t bytes)
{
    if (*used + bytes >= sizeof x->name) return malformed(x, "a host name is too long", from, from + bytes);
    memcpy(x->name + *used, from, bytes);
    *used += bytes;
    return RAIL_OK;
}

/* "007": 7, width 3. NULL when there is no number of at most DIGITS_MAX digits. */
static const char *number(const char *at, const char *end, uint32_t *value, int *width)
{
    *value = 0;
    *width = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++, ++*width) {
        if (*width == DIGITS_MAX) return NULL;
        *value = *value * 10 + (uint32_t)(*at - '0');
    }
    return *width ? at : NULL;
}

static enum rail_result expand(struct expansion *x, size_t used, const char *at);

static enum rail_result expand_range(struct expansion *x, size_t used, const char *from, const char *close,
                                     const char *end)
{
    uint32_t first, last;
    int width, other;
    const char *at = number(from, close, &first, &width);
    if (!at) return malformed(x, "a number of up to 9 digits is missing", from, end);
    last = first;
    if (at < close && *at == '-' && !(at = number(at + 1, close, &last, &other)))
        return malformed(x, "a number of up to 9 digits is missing", from, end);
    if (at != close) return malformed(x, "a range is FIRST-LAST", from, end);
    if (last < first) return malformed(x, "a range runs backwards", from, end);
    for (uint32_t i = first; i <= last; i++) {
        char digits[16];
        size_t kept = used;
        int n = snprintf(digits, sizeof digits, "%0*u", width, i);
        RAIL_TRY(put(x, &kept, digits, (size_t)n));
        RAIL_TRY(expand(x, kept, end));
    }
    return RAIL_OK;
}

static const char *item_end(const char *at)
{
    int depth = 0;
    for (; *at && (depth || *at != ','); at++) depth += *at == '[' ? 1 : *at == ']' ? -1 : 0;
    return at;
}

/* `at`: the rest of one item. */
static enum rail_result expand(struct expansion *x, size_t used, const char *at)
{
    const char *end = item_end(at);
    size_t plain = strcspn(at, "[],");
    if (plain > (size_t)(end - at)) plain = (size_t)(end - at);
    RAIL_TRY(put(x, &used, at, plain));
    at += plain;
    if (at == end) {
        if (used == 0) return malformed(x, "a host name is empty", at, at + strlen(at));
        if (++x->count > HOSTLIST_HOSTS_MAX) return malformed(x, "more than 1048576 hosts", x->name, x->name + used);
        x->name[used] = '\0';
        return x->each(x->owner, x->name);
    }
    if (*at != '[') return malformed(x, "a bracket is closed that was not opened", at, end);
    const char *close = at + strcspn(at, "]");
    if (close >= end || !*close) return malformed(x, "a bracket is not closed", at, end);
    for (const char *from = at + 1;; from++) {
        const char *comma = from;
        while (comma < close && *comma != ',') comma++;
        RAIL_TRY(expand_range(x, used, from, comma, close + 1));
        from = comma;
        if (comma == close) return RAIL_OK;
    }
}

enum rail_result hostlist_each(const char *list, enum rail_result (*each)(void *owner, const char *name), void *owner,
                               char why[HOSTLIST_WHY_BYTES])
{
    struct expansion x = {.each = each, .owner = owner, .why = why};
    why[0] = '\0';
    for (const char *at = list;;) {
        RAIL_TRY(expand(&x, 0, at));
        at = item_end(at);
        if (!*at++) return RAIL_OK;
    }
}
