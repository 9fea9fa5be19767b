/* bootstrap.c - failure news, watching, and closing; waiting for the service thread.
 *
 * News: the first failure a rank learns of, from a neighbour, from its own caller, or because it was the one to decide
 * (verdict.c), is kept and sent on to all its other neighbours once. */
#include "bootstrap/bootstrap.h"

#include <limits.h>
#include <sodium/utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "bootstrap/reception.h"
#include "bootstrap/state.h"

#define STOP_LOOK_NS (20 * RAIL_NS_PER_MS) /* how often a sleeping caller looks at its stop flag */
/* A goodbye is 16 bytes, and nearly always fits the socket's buffer at once; if not, the far end does not read. */
#define GOODBYE_NS (50 * RAIL_NS_PER_MS)

/* ---- waiting ---- */

void bootstrap_wake(struct bootstrap *b)
{
    atomic_fetch_add_explicit(&b->turn, 1, memory_order_release);
    rail_futex_wake(&b->turn, INT_MAX);
}

enum rail_result bootstrap_sleep(struct bootstrap *b, uint32_t seen, struct rail_deadline deadline)
{
    while (atomic_load_explicit(&b->turn, memory_order_acquire) == seen) {
        if (b->stop && atomic_load_explicit(b->stop, memory_order_relaxed)) return RAIL_E_ABORTED;
        uint64_t now = rail_now_ns(), left = UINT64_MAX;
        if (deadline.at_ns != UINT64_MAX) {
            if (now >= deadline.at_ns) return RAIL_E_TIMEOUT;
            left = deadline.at_ns - now;
        }
        if (b->stop && left > STOP_LOOK_NS) left = STOP_LOOK_NS;
        (void)rail_futex_wait(&b->turn, seen, left);
    }
    return RAIL_OK;
}

/* ---- news ---- */

void bootstrap_record(struct bootstrap *b, uint32_t culprit, enum rail_result result, const char *text)
{
    b->failed = true;
    memset(&b->verdict, 0, sizeof b->verdict);
    b->verdict.culprit = culprit;
    b->verdict.result = (uint32_t)result;
    snprintf(b->verdict.text, sizeof b->verdict.text, "%s", text);
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap: rank %u hears: %s", b->rank, b->verdict.text);
}

void bootstrap_spread_news(struct bootstrap *b, const struct tree_peer *from)
{
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct tree_peer *peer = &b->peers[i];
        if (peer == from || !peer->present || peer->left) continue;
        (void)peer_queue_copy(peer, FRAME_NEWS, 0, &b->verdict, sizeof b->verdict);
        conn_flush(&peer->conn);
    }
    verdict_spread(b, from);
    if (b->phase == PHASE_JOINING_TREE && conn_is_open(&b->root)) { /* the root tells those who are still joining */
        (void)conn_queue_copy(&b->root, FRAME_NEWS, 0, &b->verdict, sizeof b->verdict);
        conn_flush(&b->root);
    }
}

void bootstrap_fail(struct bootstrap *b, uint32_t culprit, enum rail_result result, const char *text,
                    const struct tree_peer *from)
{
    if (b->failed) return;
    bootstrap_record(b, culprit, result, text);
    bootstrap_spread_news(b, from);
    bootstrap_wake(b);
}

void bootstrap_fail_gone(struct bootstrap *b, uint32_t culprit, const char *text, const struct tree_peer *from)
{
    if (b->failed) return;
    bootstrap_record(b, culprit, RAIL_E_REMOTE, text);
    b->verdict.gone = 1;
    bootstrap_spread_news(b, from);
    bootstrap_wake(b);
}

void bootstrap_leave(struct bootstrap *b)
{
    bool due = b->failed && !b->failed_here && !b->reported && !b->closing && b->watch.lost;
    b->reported = b->reported || due;
    struct bootstrap_watch watch = b->watch;
    uint8_t reports[REPORTS_MAX][BOOTSTRAP_REPORT_BYTES];
    uint32_t n_reports = watch.reported && !b->failed && !b->closing ? b->n_reports : 0;
    if (n_reports) memcpy(reports, b->reports, n_reports * sizeof *reports);
    b->n_reports = 0;
    struct wire_word words[WORDS_MAX];
    uint32_t n_words = watch.word && !b->failed && !b->closing ? b->n_words : 0;
    memcpy(words, b->words, n_words * sizeof *words);
    b->n_words = 0;
    pthread_mutex_unlock(&b->lock);
    for (uint32_t i = 0; i < n_reports; i++) watch.reported(watch.owner, reports[i]);
    for (uint32_t i = 0; i < n_words; i++) watch.word(watch.owner, words[i].number, words[i].text);
    /* The verdict does not change any more, and closing waits for this callback. */
    if (due && b->verdict.gone && watch.gone) watch.gone(watch.owner, b->verdict.culprit, b->verdict.text);
    if (due) watch.lost(watch.owner, b->verdict.culprit, (enum rail_result)b->verdict.result, b->verdict.text);
}

void bootstrap_tell(struct bootstrap *b, uint32_t culprit, enum rail_result result, const char *text)
{
    if (b->pid != getpid()) return;
    pthread_mutex_lock(&b->lock);
    b->failed_here = b->failed_here || !b->failed;
    bootstrap_fail(b, culprit, result, text, NULL);
    pthread_mutex_unlock(&b->lock);
}

void bootstrap_know(struct bootstrap *b, bool (*who)(void *owner, uint32_t rank, struct bootstrap_who *out),
                    void *owner)
{
    pthread_mutex_lock(&b->lock);
    b->who = who;
    b->who_owner = owner;
    pthread_mutex_unlock(&b->lock);
}

void bootstrap_hear(struct bootstrap *b, uint64_t (*heard)(void *owner, uint32_t rank), void *owner)
{
    pthread_mutex_lock(&b->lock);
    b->heard = heard;
    b->heard_owner = owner;
    pthread_mutex_unlock(&b->lock);
}

void bootstrap_accuse(struct bootstrap *b, uint32_t culprit, enum bootstrap_finding kind, const char *text)
{
    if (b->pid != getpid()) return;
    pthread_mutex_lock(&b->lock);
    verdict_found(b, kind == BOOTSTRAP_UNREACHABLE ? FINDING_UNREACHABLE : FINDING_LINK, culprit, NULL, text);
    pthread_mutex_unlock(&b->lock);
}

void bootstrap_report(struct bootstrap *b, const uint8_t report[BOOTSTRAP_REPORT_BYTES])
{
    if (b->pid != getpid()) return;
    pthread_mutex_lock(&b->lock);
    report_up(b, report);
    pthread_mutex_unlock(&b->lock);
}

void bootstrap_word(struct bootstrap *b, uint64_t number, const char *text)
{
    struct wire_word word = {.number = number};
    if (b->pid != getpid() || b->rank != 0) return;
    snprintf(word.text, sizeof word.text, "%s", text);
    pthread_mutex_lock(&b->lock);
    word_down(b, &word);
    pthread_mutex_unlock(&b->lock);
}

/* ---- the service thread's turn ---- */

static bool all_flushed(const struct bootstrap *b)
{
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        if (conn_is_open(&b->peers[i].conn) && !conn_is_flushed(&b->peers[i].conn)) return false;
    return true;
}

static void say_goodbye(struct bootstrap *b)
{
    b->said_goodbye = true;
    b->close_until_ns = rail_now_ns() + GOODBYE_NS;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (!b->peers[i].present) continue;
        (void)peer_queue_copy(&b->peers[i], FRAME_GOODBYE, 0, NULL, 0);
        conn_flush(&b->peers[i].conn);
    }
}

static void tear_down(struct bootstrap *b)
{
    acceptor_close(&b->door);
    dialer_close(&b->dialer);
    conn_close(&b->root);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        redial_end(&b->peers[i]);
        conn_close(&b->peers[i].conn);
    }
    if (b->pulse_due_ns) service_timer_cancel(&b->pulse);
    verdict_close(b);
    b->torn_down = true;
    bootstrap_wake(b);
}

static void kicked(struct service_timer *timer)
{
    struct bootstrap *b = (struct bootstrap *)(void *)((char *)timer - offsetof(struct bootstrap, kick));
    pthread_mutex_lock(&b->lock);
    if (b->closing && !b->torn_down) {
        if (!b->said_goodbye) say_goodbye(b);
        if (all_flushed(b) || rail_now_ns() >= b->close_until_ns)
            tear_down(b);
        else
            service_timer_set(&b->kick, b->close_until_ns);
    }
    bootstrap_leave(b);
}

enum rail_result bootstrap_watch(struct bootstrap *b, struct bootstrap_watch watch)
{
    if (b->pid != getpid())
        return rail_fail(RAIL_E_USAGE, "bootstrap: watch in a forked child of the communicator's process");
    pthread_mutex_lock(&b->lock);
    b->watch = watch;
    b->kick.fire = kicked;
    if (b->failed && !b->failed_here && !b->reported) service_timer_set(&b->kick, 1); /* it came before */
    pthread_mutex_unlock(&b->lock);
    return RAIL_OK;
}

void bootstrap_close(struct bootstrap *b)
{
    if (!b) return;
    if (b->pid == getpid()) {
        pthread_mutex_lock(&b->lock);
        b->closing = true;
        b->kick.fire = kicked;
        bool torn_down = b->torn_down;
        pthread_mutex_unlock(&b->lock);
        if (!torn_down) service_timer_set(&b->kick, 1);
        while (!torn_down) {
            uint32_t seen = atomic_load_explicit(&b->turn, memory_order_acquire);
            pthread_mutex_lock(&b->lock);
            torn_down = b->torn_down;
            pthread_mutex_unlock(&b->lock);
            if (!torn_down) (void)rail_futex_wait(&b->turn, seen, UINT64_MAX);
        }
        reception_forget(b);
        service_timer_cancel(&b->kick); /* returns when the callback that tore down has, too */
        pthread_mutex_destroy(&b->lock);
    } /* else a forked child: its descriptors were closed at the fork, and the connections are its parent's */
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        blob_drop(b->peers[i].gathered);
        session_drop(&b->peers[i]);
    }
    verdict_free(b);
    free(b->reports);
    sodium_memzero(b, sizeof *b);
    free(b);
}

const uint8_t *bootstrap_secret(const struct bootstrap *b) { return b->secret; }
