/* peers.c - the tree's connections: what neighbours send, and what it means when one ends.
 *
 *   absent --CHILD/ADOPTED--> present --GOODBYE--> left
 *                              |   |                 |
 *             end of file      timeout, reset, ...  +-- end of file: nothing
 *                              |   |
 *          its process is gone:    the way to it is: redial.c
 *                     verdict.c */
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
    if (peer->appeal && head->type != FRAME_NEWS && head->type != FRAME_FINDING) return false;
    switch (head->type) {
    case FRAME_ADOPTED:
        return peer == &b->peers[PARENT] && !peer->present && head->bytes == sizeof(struct wire_adopted);
    case FRAME_BEAT: return peer->present && head->bytes == sizeof(struct wire_beat);
    case FRAME_FINDING:
        return peer->present && peer != &b->peers[PARENT] && head->bytes == sizeof(struct wire_finding);
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
        (void)peer_queue_copy(parent, FRAME_REPORT, 0, report, BOOTSTRAP_REPORT_BYTES);
        conn_flush(&parent->conn);
    }
}

void word_down(struct bootstrap *b, const struct wire_word *word)
{
    if (b->failed || b->closing) return;
    for (uint32_t i = FIRST_CHILD; i < PEERS_MAX; i++) {
        struct tree_peer *child = &b->peers[i];
        if (!child->present || child->left || !conn_is_flushed(&child->conn)) continue; /* words never queue up */
        (void)peer_queue_copy(child, FRAME_WORD, 0, word, sizeof *word);
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

static void adopted(struct bootstrap *b, struct tree_peer *peer, const struct blob *payload)
{
    struct wire_adopted adopted;
    memcpy(&adopted, payload->data, sizeof adopted);
    peer->host_key = adopted.host_key;
    peer->place = adopted.place;
    peer->remote = adopted.host_key != machine_host_key();
    peer->present = true;
    join_adopted(b);
}

/* Nonsense is the far end's failure. */
static void beat_received(struct bootstrap *b, struct tree_peer *peer, const struct blob *payload)
{
    struct wire_beat beat;
    char text[WIRE_TEXT_BYTES];
    memcpy(&beat, payload->data, sizeof beat);
    if (peer->holding ? session_resume(peer, beat.received) : session_acked(peer, beat.received)) return;
    snprintf(text, sizeof text,
             "bootstrap: rank %u (host %s, pid %u) says it has %llu messages of rank %u, which sent %llu",
             peer->person.rank, peer->person.host, peer->person.pid, (unsigned long long)beat.received, b->rank,
             (unsigned long long)peer->sent);
    bootstrap_fail(b, peer->person.rank, RAIL_E_REMOTE, text, peer);
}

static void finding_received(struct bootstrap *b, const struct blob *payload)
{
    struct wire_finding finding;
    memcpy(&finding, payload->data, sizeof finding);
    finding.culprit_name[WIRE_HOST_BYTES - 1] = finding.text[WIRE_TEXT_BYTES - 1] = '\0';
    if (finding.kind >= FINDING_LINK && finding.kind <= FINDING_DEAD && finding.culprit < b->n_ranks)
        verdict_find(b, &finding);
}

static void handle(struct bootstrap *b, struct tree_peer *peer, struct frame *frame)
{
    peer->spoke_ns = rail_now_ns();
    if (session_is_counted(frame->head.type) && !peer->appeal) session_took(peer, &frame->head);
    if (frame->head.type == FRAME_AWAITS || frame->head.type == FRAME_GATHER || frame->head.type == FRAME_SPREAD) {
        collect_receive(b, peer, frame);
    } else if (frame->head.type == FRAME_ADOPTED) {
        adopted(b, peer, frame->payload);
    } else if (frame->head.type == FRAME_BEAT) {
        beat_received(b, peer, frame->payload);
    } else if (frame->head.type == FRAME_FINDING) {
        finding_received(b, frame->payload);
    } else if (frame->head.type == FRAME_REPORT) {
        report_up(b, frame->payload->data);
    } else if (frame->head.type == FRAME_WORD) {
        word_received(b, frame->payload);
    } else if (frame->head.type == FRAME_GOODBYE) {
        peer->left = true;
        if (peer == &b->peers[PARENT]) verdict_parent_left(b);
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
        if (news.gone) bootstrap_fail_gone(b, news.culprit, news.text, peer);
        else bootstrap_fail(b, news.culprit, known ? (enum rail_result)news.result : RAIL_E_REMOTE, news.text, peer);
    }
    blob_drop(frame->payload);
    frame->payload = NULL;
}

static void lose(struct bootstrap *b, struct tree_peer *peer, enum finding_kind kind, const char *text)
{
    if (peer->lost || b->failed || b->closing) return;
    redial_end(peer);
    conn_close(&peer->conn);
    peer->lost = true;
    verdict_found(b, kind, peer->person.rank, peer, text);
    if (peer == &b->peers[PARENT]) verdict_orphaned(b);
}

void peer_died(struct bootstrap *b, struct tree_peer *peer) { lose(b, peer, FINDING_DEAD, ""); }
void peer_unreachable(struct bootstrap *b, struct tree_peer *peer) { lose(b, peer, FINDING_UNREACHABLE, ""); }

void peer_cut_off(struct bootstrap *b, struct tree_peer *peer, const char *why)
{
    char text[128];
    snprintf(text, sizeof text, "rank %u cannot take up its new connection to it: %s", b->rank, why);
    lose(b, peer, FINDING_LINK, text);
}

/* It breaks off what it promised: nobody needs to weigh that. */
static void peer_talks_nonsense(struct bootstrap *b, const struct tree_peer *peer, const struct frame_head *head)
{
    char text[WIRE_TEXT_BYTES];
    const struct wire_person *who = &peer->person;
    snprintf(text, sizeof text,
             "bootstrap: rank %u (host %s, pid %u) sent what makes no sense here (frame type %08x, %llu bytes)",
             who->rank, who->host, who->pid, head->type, (unsigned long long)head->bytes);
    bootstrap_fail(b, who->rank, RAIL_E_REMOTE, text, peer);
}

/* `result` is what conn_receive said, `error` errno. */
static void peer_gone(struct bootstrap *b, struct tree_peer *peer, enum rail_result result, int error)
{
    struct frame_head head = peer->conn.head;
    conn_close(&peer->conn);
    if (peer->appeal) {
        verdict_conn_gone(b, peer);
        return;
    }
    if (peer->left || b->failed || b->closing || peer->lost) return;
    if (!peer->present)
        join_wrong_parent(b);
    else if (result == RAIL_E_REMOTE)
        peer_talks_nonsense(b, peer, &head);
    else if (error == ENOMEM)
        join_fail(b, RAIL_E_SYSTEM, "bootstrap: rank %u: out of memory for %llu bytes of rank %u", b->rank,
                  (unsigned long long)head.bytes, peer->person.rank);
    else if (peer->redial)
        return; /* the way was lost before, and the far end may have given up this one: whoever answers now decides */
    else if (error == 0 || (error == ECONNRESET && !peer->remote) || b->phase != PHASE_OPEN)
        peer_died(b, peer);
    else
        redial_start(b, peer); /* a reset may come from something in between: who is gone refuses the call at once */
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
    peer->quiet = false;
    peer->spoke_ns = rail_now_ns();
    return RAIL_OK;
}
