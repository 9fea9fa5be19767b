/* result.c - the last failure's text, written and read without a lock.
 *
 * A lock here would be held across fork() by some other thread sooner or later, and a failing child would then hang
 * instead of saying why. So: a ring of slots, each with a sequence number (odd while it is written). A writer takes the
 * next slot it can claim; a reader copies the newest and looks at the sequence number again. A slot whose writer was
 * lost in a fork stays odd and is skipped. The text is kept as relaxed atomic words, so a copy that turns out torn was
 * never a data race. */
#include "base/result.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* 1 KiB holds any of our lines with two addresses and a path in it; 16 slots: more writers at one instant than that
 * lose a text, never the result. */
enum { TEXT_BYTES = 1024, TEXT_WORDS = TEXT_BYTES / 8, SLOTS = 16 };

struct slot {
    _Atomic uint32_t sequence; /* odd: being written */
    _Atomic uint64_t ticket;   /* which failure it holds; 0: none yet */
    _Atomic uint64_t words[TEXT_WORDS];
};

static struct slot slots[SLOTS];
static _Atomic uint64_t tickets; /* handed out so far */
static _Atomic uint64_t newest;  /* the highest ticket whose text is complete; 0: none */

static _Thread_local char own[TEXT_BYTES];
static _Thread_local int blamed = RAIL_NOBODY;

static void keep(const char *text)
{
    uint64_t words[TEXT_WORDS] = {0};
    memcpy(words, text, strnlen(text, TEXT_BYTES - 1));
    for (int attempt = 0; attempt < SLOTS; attempt++) {
        uint64_t ticket = atomic_fetch_add(&tickets, 1) + 1;
        struct slot *s = &slots[ticket % SLOTS];
        uint32_t sequence = atomic_load(&s->sequence);
        if ((sequence & 1) || !atomic_compare_exchange_strong(&s->sequence, &sequence, sequence + 1)) continue;
        atomic_store(&s->ticket, ticket);
        for (int i = 0; i < TEXT_WORDS; i++) atomic_store_explicit(&s->words[i], words[i], memory_order_release);
        atomic_store(&s->sequence, sequence + 2);
        uint64_t seen = atomic_load(&newest);
        while (seen < ticket && !atomic_compare_exchange_weak(&newest, &seen, ticket)) {}
        return;
    }
}

/* The acquire loads pair with the release stores in keep(): who sees a word of a later text also sees its odd sequence
 * number. */
static bool copy(uint64_t ticket, uint64_t words[TEXT_WORDS])
{
    struct slot *s = &slots[ticket % SLOTS];
    uint32_t before = atomic_load(&s->sequence);
    if ((before & 1) || atomic_load(&s->ticket) != ticket) return false;
    for (int i = 0; i < TEXT_WORDS; i++) words[i] = atomic_load_explicit(&s->words[i], memory_order_acquire);
    return atomic_load(&s->sequence) == before;
}

const char *rail_last_error(void)
{
    static _Thread_local uint64_t mine[TEXT_WORDS];
    uint64_t words[TEXT_WORDS];
    /* A copy fails only when 16 failures came in between, so the next attempt nearly always works; after 64 the
     * thread's previous text is the honest answer. */
    for (int attempt = 0; attempt < 64; attempt++) {
        uint64_t ticket = atomic_load(&newest);
        if (ticket == 0) break;
        if (!copy(ticket, words)) continue;
        memcpy(mine, words, sizeof mine);
        break;
    }
    return (const char *)mine;
}

__attribute__((format(printf, 2, 0)))
static void fail(bool loud, const char *format, va_list arguments)
{
    int saved = errno;
    char text[TEXT_BYTES];
    if (vsnprintf(text, sizeof text, format, arguments) < 0) snprintf(text, sizeof text, "%s", format);
    keep(text);
    memcpy(own, text, sizeof own);
    blamed = RAIL_NOBODY;
    if (loud) rail_log_line(RAIL_LOG_WARN, 0, NULL, 0, "%s", text);
    errno = saved;
}

enum rail_result rail_fail(enum rail_result result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail(true, format, arguments);
    va_end(arguments);
    return result;
}

enum rail_result rail_fail_quietly(enum rail_result result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail(false, format, arguments);
    va_end(arguments);
    return result;
}

enum rail_result rail_fail_privately(enum rail_result result, const char *format, ...)
{
    int saved = errno;
    char text[TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(text, sizeof text, format, arguments) < 0) snprintf(text, sizeof text, "%s", format);
    va_end(arguments);
    memcpy(own, text, sizeof own);
    blamed = RAIL_NOBODY;
    errno = saved;
    return result;
}

const char *rail_own_error(void) { return own; }

enum rail_result rail_blame(int rank, enum rail_result result)
{
    blamed = rank;
    return result;
}

int rail_blamed(void) { return blamed; }

const char *rail_result_name(enum rail_result result)
{
    static const char *const names[] = {
        [RAIL_OK] = "ok",           [RAIL_NOT_YET] = "not yet",       [RAIL_E_CUDA] = "cuda",
        [RAIL_E_SYSTEM] = "system", [RAIL_E_INTERNAL] = "internal",   [RAIL_E_ARGUMENT] = "argument",
        [RAIL_E_USAGE] = "usage",   [RAIL_E_REMOTE] = "remote",       [RAIL_E_TIMEOUT] = "timeout",
        [RAIL_E_REVOKED] = "revoked", [RAIL_E_ABORTED] = "aborted", [RAIL_IN_PROGRESS] = "in progress",
    };
    return (unsigned)result < sizeof names / sizeof names[0] ? names[result] : "unknown";
}
