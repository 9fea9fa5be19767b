/* watch_words.c - ranks and calls in words. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/watch_verdict.h"
#include "engine/signature.h"

void watch_say_words(struct words *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(w->out + w->used, w->bytes - w->used, format, args);
    va_end(args);
    if (n > 0) w->used = w->used + (size_t)n < w->bytes ? w->used + (size_t)n : w->bytes - 1;
}

void watch_call_words(uint64_t signature, uint64_t number, char *out, size_t bytes)
{
    char text[96];
    if (number == WATCH_UNCOUNTED) {
        snprintf(out, bytes, "a send, a receive or a signal");
        return;
    }
    signature_describe(signature, text, sizeof text);
    size_t name = strcspn(text, " ");
    snprintf(out, bytes, "%.*s #%" PRIu64 "%s", (int)name, text, number, text + name);
}

void watch_rank_words(struct words *w, const struct member *members, uint32_t rank)
{
    watch_say_words(w, "rank %u (host %s, pid %d)", rank, members[rank].host_name, members[rank].pid);
}

void watch_last_call_words(struct words *w, const struct watch_report *last)
{
    char call[128];
    const struct calls_history *h = &last->history;
    const struct watch_elsewhere *e = &last->state.elsewhere;
    if (e->number) {
        watch_call_words(e->signature, e->number, call, sizeof call);
        watch_say_words(w, " (it waits in %s of another communicator)", call);
        return;
    }
    if (h->number == 0) {
        watch_say_words(w, " (it has made no call yet)");
        return;
    }
    watch_call_words(h->signature[h->number % SHM_CALLS], h->number, call, sizeof call);
    if (h->left_ms)
        watch_say_words(w, " (its last call was %s; it left that %.1f s ago)", call, (double)(h->left_ms - 1) / 1e3);
    else
        watch_say_words(w, " (it is still in %s)", call);
}

uint16_t watch_key(enum watch_kind kind, uint32_t culprit)
{
    return (uint16_t)(((uint32_t)kind << 12) | ((culprit * 40503u >> 4) & 0xfff));
}
