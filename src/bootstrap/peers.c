/* peers.c - the tree's connections: what neighbours send, and what it means when one falls silent.
 *
 *   absent --CHILD/ADOPTED--> present --GOODBYE--> left
 *                                |                   |
 *                           end of file         end of file
 *                                |                   |
 *                        "rank 3 died": NEWS     nothing */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "bootstrap/state.h"

static bool peer_admits(struct conn *conn, const struct frame_head *head)
{
    const struct tree_peer *peer = (const struct tree_peer *)(const void *)conn;
    struct bootstrap *b = peer->owner;
    switch (head->type) {
    case FRAME_ADOPTED: return peer == &b->peers[PARENT] && !peer->present && head->bytes == 0;
    case FRAME_NEWS: return peer->present && head->bytes == sizeof(struct wire_news);
    case FRAME_GOODBYE: return peer->present && head->bytes == 0;
    case FRAME_WORD:
        return peer == &b->peers[PARENT] && peer->present && head->bytes == sizeof(struct wire_word);
    case FRAME_REPORT:
        return peer->present && peer != &b->peers[PARENT] && head->bytes == BOOTSTRAP_REPORT_BYTES;
    case FRAME_AWAITS:
    case FRAME_GATHER:
    case FRAME_SPREAD: return peer->present && collect_admits(b, peer, head);
    default: return false;
    }
}

void report_up(struct bootstrap *b, const uint8_t report[BOOTSTRAP_REPORT_BYTES])
{
    struct tree_peer *parent = &b->peers[PARENT];
    if (b->failed || b->closing) return;
    if (b->rank == 0) {
        if (!b->reports) b->reports = calloc(REPORTS_MAX, sizeof *b->reports);
        if (b->reports && b->n_reports < REPORTS_MAX)
            memcpy(b->reports[b->n_reports++], report, BOOTSTRAP_REPORT_BYTES);
    } else if (parent->present && !parent->left && conn_is_flushed(&parent->conn)) { /* reports never queue up */
        (void)conn_queue_copy(&parent->conn, FRAME_REPORT, 0, report, BOOTSTRAP_REPORT_BYTES);
        conn_flush(&parent->conn);
    }
}

void word_down(struct bootstrap *b, const struct wire_word *word)
{
    if (b->failed || b->closing) return;
    for (uint32_t i = FIRST_CHILD; i < PEERS_MAX; i++) {
        struct tree_peer *child = &b->peers[i];
        if (!child->present || child->left || !conn_is_flushed(&child->conn)) continue; /* words never queue up */
        (void)conn_queue_copy(&child->conn, FRAME_WORD, 0, word, sizeof *word);
        conn_flush(&child->conn);
    }
}

static void word_received(struct bootstrap *b, const struct blob *payload)
{
    struct wire_word word;
    memcpy(&word, payload->data, sizeof word);
    word.text[sizeof word.text - 1] = '\0';
    if (b->n_words < WORDS_MAX) b->words[b->n_words++] = word;
    word_down(b, &word);
}

static void handle(struct bootstrap *b, struct tree_peer *peer, struct frame *frame)
{
    if (frame->head.type == FRAME_AWAITS || frame->head.type == FRAME_GATHER || frame->head.type == FRAME_SPREAD) {
        collect_receive(b, peer, frame);
    } else if (frame->head.type == FRAME_ADOPTED) {
        peer->present = true;
        join_adopted(b);
    } else if (frame->head.type == FRAME_REPORT) {
        report_up(b, frame->payload->data);
    } else if (frame->head.type == FRAME_WORD) {
        word_received(b, frame->payload);
    } else if (frame->head.type == FRAME_GOODBYE) {
        peer->left = true;
        if (b->collective.active && !b->collective.done) {
            char text[WIRE_TEXT_BYTES];
            snprintf(text, sizeof text,
                     "bootstrap: rank %u (host %s, pid %u) closed its communicator while rank %u waits "
                     "for it in %s", peer->person.rank, peer->person.host, peer->person.pid, b->rank,
                     b->collective.name);
            bootstrap_fail(b, peer->person.rank, RAIL_E_REMOTE, text, peer);
        }
    } else if (frame->head.type == FRAME_NEWS) {
        struct wire_news news;
        memcpy(&news, frame->payload->data, sizeof news);
        news.text[WIRE_TEXT_BYTES - 1] = '\0';
        bool known = news.result > RAIL_NOT_YET && news.result <= RAIL_E_ABORTED;
        bootstrap_fail(b, news.culprit, known ? (enum rail_result)news.result : RAIL_E_REMOTE, news.text, peer);
    }
    blob_drop(frame->payload);
    frame->payload = NULL;
}

/* `result` is what conn_receive said, `error` errno. */
static void peer_gone(struct bootstrap *b, struct tree_peer *peer, enum rail_result result, int error)
{
    struct frame_head head = peer->conn.head;
    conn_close(&peer->conn);
    if (peer->left || b->failed || b->closing) return;
    if (!peer->present) {
        join_wrong_parent(b);
        return;
    }
    char text[WIRE_TEXT_BYTES];
    const struct wire_person *who = &peer->person;
    if (result == RAIL_E_REMOTE)
        snprintf(text, sizeof text,
                 "bootstrap: rank %u (host %s, pid %u) sent what makes no sense here (frame type %08x, "
                 "%llu bytes)", who->rank, who->host, who->pid, head.type, (unsigned long long)head.bytes);
    else
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) died or lost its connection (%s)", who->rank, who->host,
                 who->pid, error ? strerror(error) : "end of file");
    bootstrap_fail(b, who->rank, RAIL_E_REMOTE, text, peer);
}

static void peer_ready(struct service_source *source, uint32_t events)
{
    struct tree_peer *peer = (struct tree_peer *)(void *)source;
    struct bootstrap *b = peer->owner;
    struct frame frame;
    pthread_mutex_lock(&b->lock);
    if (events & EPOLLOUT) {
        conn_flush(&peer->conn);
        if (b->closing && conn_is_flushed(&peer->conn)) service_timer_set(&b->kick, 1);
    }
    while (conn_is_open(&peer->conn)) {
        enum rail_result result = conn_receive(&peer->conn, &frame);
        if (result == RAIL_OK) handle(b, peer, &frame);
        else if (result == RAIL_NOT_YET) break;
        else peer_gone(b, peer, result, errno);
    }
    bootstrap_leave(b);
}

enum rail_result peer_open(struct bootstrap *b, struct tree_peer *peer, int fd)
{
    peer->owner = b;
    RAIL_TRY(conn_open(&peer->conn, fd, peer_ready, peer_admits));
    socket_keep(fd);
    return RAIL_OK;
}
