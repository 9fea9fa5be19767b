/* verdict.c - what ranks find out about one another becomes one verdict for all.
 *
 *   finding --up the tree--> rank 0: waits a moment for others', weighs, decides --NEWS, down the tree--> all
 *
 * Whose parent is lost is an orphan, on top of its own part of the tree. It appeals: calls the lowest rank that is
 * not known to be lost, hands its findings over, and hears the verdict from it. If all lower ranks are lost, or
 * nobody is known (no bootstrap_know), it decides for its part itself. So when rank 0 is lost, the lowest survivor
 * decides, to whom the others appeal. A judge that is no orphan just passes on: up to rank 0, and the verdict to
 * those who appealed.
 *
 * Weighing: a death is certain; then hosts that cannot be reached, then failed links. Of hosts, the one that most other
 * hosts accuse; among those, one that is heard of only by accusations rather than one that accuses, too; the one with
 * fewer ranks; the one of the higher rank: between two hosts that cannot reach one another, rank 0's goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bootstrap/state.h"

/* How long a finding waits for better ones: for a second death at the same moment, news and appeals need
 * milliseconds; two ranks find the same host silent within a beat and a look of one another (pulse.c); and when a
 * link fails because a host is lost, the tree knows it a second later. */
#define DEAD_NS (100 * RAIL_NS_PER_MS)
#define UNREACHABLE_NS (450 * RAIL_NS_PER_MS)
#define LINK_NS RAIL_NS_PER_S
/* For a judge's address to answer, and for its process to speak when its host does. */
#define ANSWER_NS (300 * RAIL_NS_PER_MS)
#define SPEAK_NS RAIL_NS_PER_S
/* For all candidates together: when ranks end as soon as they hear of a loss, a late orphan finds nobody. */
#define APPEAL_NS RAIL_NS_PER_S
#define APPEAL_LOOK_NS (20 * RAIL_NS_PER_MS)
enum { FINDINGS_MAX = 64 };

struct court {
    struct bootstrap *b;
    struct wire_finding findings[FINDINGS_MAX];
    uint32_t n_findings;
    struct service_timer timer, appeal_timer;
    uint64_t decide_ns; /* 0: not yet */
    bool orphan, top;   /* top: this rank decides */
    bool unheard;       /* nothing answered an appeal */
    uint32_t candidate; /* orphan: whom it appeals to */
    uint64_t orphaned_ns, appealed_ns;
    struct tree_peer judge; /* present: it has adopted us */
};

/* ---- the verdict ---- */

static bool is_lost_host(const struct court *c, uint64_t host_key)
{
    for (uint32_t i = 0; i < c->n_findings; i++)
        if (c->findings[i].kind == FINDING_UNREACHABLE && c->findings[i].culprit_host == host_key) return true;
    return false;
}

/* Different hosts that accuse this one, by findings of `kind`. */
static uint32_t count_accusers(const struct court *c, uint32_t kind, uint64_t host_key)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_findings; i++) {
        const struct wire_finding *f = &c->findings[i];
        bool first = f->kind == kind && f->culprit_host == host_key && f->accuser_host != host_key;
        for (uint32_t k = 0; k < i && first; k++)
            first = !(c->findings[k].kind == kind && c->findings[k].culprit_host == host_key &&
                      c->findings[k].accuser_host == f->accuser_host);
        n += first;
    }
    return n;
}

static bool has_spoken(const struct court *c, uint64_t host_key)
{
    if (host_key == machine_host_key()) return true;
    for (uint32_t i = 0; i < c->n_findings; i++)
        if (c->findings[i].accuser_host == host_key) return true;
    return false;
}

static uint32_t ranks_on(const struct bootstrap *b, uint64_t host_key, uint32_t *first_out)
{
    struct bootstrap_who who;
    uint32_t n = 0;
    for (uint32_t r = 0; b->who && r < b->n_ranks; r++)
        if (b->who(b->who_owner, r, &who) && who.host_key == host_key && n++ == 0) *first_out = r;
    return n;
}

/* Whether x is the better culprit. Both of one kind. */
static bool outweighs(const struct court *c, const struct wire_finding *x, const struct wire_finding *y)
{
    if (x->kind == FINDING_DEAD) return x->culprit < y->culprit;
    if (x->culprit_host == y->culprit_host) return x->culprit < y->culprit;
    uint32_t first, accusers_x = count_accusers(c, x->kind, x->culprit_host);
    uint32_t accusers_y = count_accusers(c, y->kind, y->culprit_host);
    if (accusers_x != accusers_y) return accusers_x > accusers_y;
    bool spoken_x = has_spoken(c, x->culprit_host), spoken_y = has_spoken(c, y->culprit_host);
    if (spoken_x != spoken_y) return !spoken_x;
    uint32_t ranks_x = ranks_on(c->b, x->culprit_host, &first), ranks_y = ranks_on(c->b, y->culprit_host, &first);
    if (ranks_x != ranks_y) return ranks_x < ranks_y;
    return x->culprit > y->culprit;
}

static const struct wire_finding *weigh(const struct court *c)
{
    const struct wire_finding *best = &c->findings[0];
    for (uint32_t i = 1; i < c->n_findings; i++) {
        const struct wire_finding *f = &c->findings[i];
        if (f->kind > best->kind || (f->kind == best->kind && outweighs(c, f, best))) best = f;
    }
    return best;
}

/* Several hosts do not answer, and no other host has said anything of one that is lost. */
static bool may_be_cut_off(const struct court *c)
{
    bool several = c->unheard;
    for (uint32_t i = 0; i < c->n_findings; i++) {
        const struct wire_finding *f = &c->findings[i];
        if (f->kind != FINDING_UNREACHABLE || f->accuser_host != machine_host_key()) return false;
        several |= f->culprit_host != c->findings[0].culprit_host;
    }
    return several;
}

/* "ranks 8-11, 16" */
static void list_ranks(const struct bootstrap *b, uint64_t host_key, uint32_t n, char *out, size_t bytes)
{
    struct bootstrap_who who;
    size_t used = (size_t)snprintf(out, bytes, "rank%s", n == 1 ? "" : "s");
    for (uint32_t r = 0, last; r < b->n_ranks && used + 32 < bytes; r = last + 1) {
        last = r;
        if (!b->who(b->who_owner, r, &who) || who.host_key != host_key) continue;
        while (last + 1 < b->n_ranks && b->who(b->who_owner, last + 1, &who) && who.host_key == host_key) last++;
        const char *comma = used > 5 ? "," : "";
        used += (size_t)snprintf(out + used, bytes - used, last > r ? "%s %u-%u" : "%s %u", comma, r, last);
    }
}

/* The same words whoever decides: they hold nothing of who found it, or when. */
static void pronounce(struct bootstrap *b, const struct wire_finding *f)
{
    char text[WIRE_TEXT_BYTES], ranks[96] = ""; /* all of the longest fits in text, says the compiler */
    struct bootstrap_who who;
    uint32_t culprit = f->culprit, pid = f->culprit_pid;
    if (f->kind == FINDING_DEAD) {
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) died: its process is gone", culprit, f->culprit_name,
                 pid);
        bootstrap_fail_gone(b, culprit, text, NULL);
        return;
    }
    if (f->kind == FINDING_LINK) {
        snprintf(text, sizeof text, "rank %u (host %s, pid %u): %.380s", culprit, f->culprit_name, pid, f->text);
        bootstrap_fail(b, culprit, RAIL_E_REMOTE, text, NULL);
        return;
    }
    uint32_t n = ranks_on(b, f->culprit_host, &culprit);
    const char *name = f->culprit_name;
    if (n > 0 && b->who(b->who_owner, culprit, &who)) {
        list_ranks(b, f->culprit_host, n, ranks, sizeof ranks);
        pid = who.pid;
        name = who.host;
    }
    char by[WIRE_HOST_BYTES + 16] = ""; /* where others reach it, and it is only two that do not reach one another */
    if (b->court && has_spoken(b->court, f->culprit_host) && f->accuser_host != f->culprit_host)
        snprintf(by, sizeof by, " from rank %u's host", f->accuser);
    snprintf(text, sizeof text,
             "rank %u (host %s, pid %u) is lost: host %s%s%s%s cannot be reached%s over any network for %.1f s%s",
             culprit, name, pid, name, n ? " (" : "", ranks, n ? ")" : "", by, BOOTSTRAP_LOST_MS / 1e3,
             b->court && may_be_cut_off(b->court) ? "; nor does any other host answer: this one may be cut off" : "");
    bootstrap_fail(b, culprit, RAIL_E_REMOTE, text, NULL);
}

static void decide(struct service_timer *timer)
{
    struct court *c = (struct court *)(void *)((char *)timer - offsetof(struct court, timer));
    struct bootstrap *b = c->b;
    pthread_mutex_lock(&b->lock);
    if (!b->failed && !b->closing && c->n_findings > 0) pronounce(b, weigh(c));
    bootstrap_leave(b);
}

static void schedule(struct court *c, const struct wire_finding *f)
{
    uint64_t wait_ns = f->kind == FINDING_DEAD ? DEAD_NS : f->kind == FINDING_UNREACHABLE ? UNREACHABLE_NS : LINK_NS;
    uint64_t at_ns = rail_now_ns() + wait_ns;
    if (c->decide_ns && c->decide_ns <= at_ns) return;
    c->decide_ns = at_ns;
    service_timer_set(&c->timer, at_ns);
}

/* ---- findings ---- */

static void appeal_look(struct service_timer *timer);

static struct court *court_of(struct bootstrap *b)
{
    if (b->court) return b->court;
    struct court *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->b = b;
    c->timer.fire = decide;
    c->appeal_timer.fire = appeal_look;
    c->top = b->rank == 0 || b->peers[PARENT].left; /* left: nobody above has anything to do with it any more */
    return b->court = c;
}

static void pass_on(struct court *c, const struct wire_finding *f)
{
    struct tree_peer *parent = &c->b->peers[PARENT];
    if (c->top) {
        schedule(c, f);
    } else if (!c->orphan) {
        (void)peer_queue_copy(parent, FRAME_FINDING, 0, f, sizeof *f);
        conn_flush(&parent->conn);
    } else if (c->judge.present) {
        (void)conn_queue_copy(&c->judge.conn, FRAME_FINDING, 0, f, sizeof *f);
        conn_flush(&c->judge.conn);
    } /* else it is handed over when somebody took the appeal */
}

void verdict_find(struct bootstrap *b, const struct wire_finding *f)
{
    struct court *c = b->failed || b->closing ? NULL : court_of(b);
    if (!c || c->n_findings == FINDINGS_MAX) return;
    if (b->phase != PHASE_OPEN) { /* not all are there who could be asked */
        pronounce(b, f);
        return;
    }
    for (uint32_t i = 0; i < c->n_findings; i++) {
        const struct wire_finding *known = &c->findings[i];
        if (known->kind == f->kind && known->culprit == f->culprit && known->accuser_host == f->accuser_host) return;
    }
    c->findings[c->n_findings] = *f;
    pass_on(c, &c->findings[c->n_findings++]);
}

void verdict_found(struct bootstrap *b, enum finding_kind kind, uint32_t culprit, const struct tree_peer *peer,
                   const char *text)
{
    struct wire_finding f = {.kind = kind, .accuser = b->rank, .culprit = culprit, .accuser_host = machine_host_key()};
    struct bootstrap_who who;
    if (culprit >= b->n_ranks) return;
    if (peer) {
        f.culprit_pid = peer->person.pid;
        f.culprit_host = peer->host_key;
        snprintf(f.culprit_name, sizeof f.culprit_name, "%s", peer->person.host);
    } else if (b->who && b->who(b->who_owner, culprit, &who)) {
        f.culprit_pid = who.pid;
        f.culprit_host = who.host_key;
        snprintf(f.culprit_name, sizeof f.culprit_name, "%s", who.host);
    }
    snprintf(f.text, sizeof f.text, "%s", text);
    verdict_find(b, &f);
}

/* ---- the orphan ---- */

static void preside(struct court *c)
{
    c->top = true;
    for (uint32_t i = 0; i < c->n_findings; i++) schedule(c, &c->findings[i]);
}

static bool may_judge(const struct court *c, uint32_t rank, struct bootstrap_who *who)
{
    const struct bootstrap *b = c->b;
    if (!b->who || !b->who(b->who_owner, rank, who) || is_lost_host(c, who->host_key)) return false;
    for (uint32_t i = 0; i < c->n_findings; i++)
        if (c->findings[i].kind == FINDING_DEAD && c->findings[i].culprit == rank) return false;
    return true;
}

/* Calls the next lower rank that may be alive, from c->candidate on; or decides. */
static void appeal(struct court *c)
{
    struct bootstrap *b = c->b;
    struct bootstrap_who who;
    redial_end(&c->judge);
    while (c->candidate < b->rank && !may_judge(c, c->candidate, &who)) c->candidate++;
    if (c->candidate >= b->rank || rail_now_ns() - c->orphaned_ns >= APPEAL_NS) {
        preside(c);
        return;
    }
    c->judge = (struct tree_peer){.conn = {.source = {.fd = -1}}, .owner = b, .remote = true, .appeal = true};
    c->judge.person = (struct wire_person){.rank = c->candidate, .pid = who.pid};
    snprintf(c->judge.person.host, WIRE_HOST_BYTES, "%s", who.host);
    memcpy(&c->judge.place, who.place, sizeof c->judge.place);
    c->appealed_ns = c->judge.heard_ns = rail_now_ns();
    redial_start(b, &c->judge);
    service_timer_set(&c->appeal_timer, c->appealed_ns + APPEAL_LOOK_NS);
}

static void appeal_to_next(struct court *c)
{
    c->candidate++;
    appeal(c);
}

static void appeal_look(struct service_timer *timer)
{
    struct court *c = (struct court *)(void *)((char *)timer - offsetof(struct court, appeal_timer));
    struct bootstrap *b = c->b;
    pthread_mutex_lock(&b->lock);
    uint64_t now = rail_now_ns();
    if (!b->failed && !b->closing && !c->judge.present && !c->top) {
        bool called = c->judge.redial && redial_look(b, &c->judge, now);
        bool silent = called && now - c->judge.heard_ns >= ANSWER_NS;
        c->unheard |= silent;
        if (!called || silent || now - c->appealed_ns >= SPEAK_NS)
            appeal_to_next(c);
        else
            service_timer_set(&c->appeal_timer, now + APPEAL_LOOK_NS);
    }
    bootstrap_leave(b);
}

void verdict_parent_left(struct bootstrap *b)
{
    if (b->court && !b->court->top) preside(b->court);
}

void verdict_orphaned(struct bootstrap *b)
{
    struct court *c = b->failed ? NULL : court_of(b);
    if (!c || c->orphan || b->phase != PHASE_OPEN) return;
    c->orphan = true;
    c->orphaned_ns = rail_now_ns();
    appeal(c);
}

void verdict_adopted(struct bootstrap *b, int fd)
{
    struct court *c = b->court;
    if (peer_open(b, &c->judge, fd) != RAIL_OK) {
        socket_close(fd);
        appeal_to_next(c);
        return;
    }
    c->judge.present = true;
    for (uint32_t i = 0; i < c->n_findings; i++) pass_on(c, &c->findings[i]);
}

/* ---- the judge ---- */

void verdict_appealed(struct bootstrap *b, int fd, const struct wire_child *child)
{
    const struct wire_adopted adopted = {.host_key = machine_host_key()};
    struct tree_peer *stray = calloc(1, sizeof *stray);
    if (!stray || child->person.rank >= b->n_ranks || peer_open(b, stray, fd) != RAIL_OK) {
        free(stray);
        socket_close(fd);
        return;
    }
    stray->person = child->person;
    stray->present = stray->appeal = true;
    stray->next_stray = b->strays;
    b->strays = stray;
    (void)conn_queue_copy(&stray->conn, FRAME_ADOPTED, 0, &adopted, sizeof adopted);
    if (b->failed) (void)conn_queue_copy(&stray->conn, FRAME_NEWS, 0, &b->verdict, sizeof b->verdict);
    conn_flush(&stray->conn);
}

void verdict_conn_gone(struct bootstrap *b, struct tree_peer *peer)
{
    peer->present = false;
    if (b->failed || b->closing || !b->court || peer != &b->court->judge) return;
    appeal_to_next(b->court);
}

void verdict_spread(struct bootstrap *b, const struct tree_peer *from)
{
    for (struct tree_peer *s = b->strays; s; s = s->next_stray) {
        if (s == from || !s->present) continue;
        (void)conn_queue_copy(&s->conn, FRAME_NEWS, 0, &b->verdict, sizeof b->verdict);
        conn_flush(&s->conn);
    }
    if (!b->court || !b->court->judge.present || from == &b->court->judge) return;
    (void)conn_queue_copy(&b->court->judge.conn, FRAME_NEWS, 0, &b->verdict, sizeof b->verdict);
    conn_flush(&b->court->judge.conn);
}

/* ---- the end ---- */

void verdict_close(struct bootstrap *b)
{
    for (struct tree_peer *s = b->strays; s; s = s->next_stray) conn_close(&s->conn);
    if (!b->court) return;
    redial_end(&b->court->judge);
    conn_close(&b->court->judge.conn);
    service_timer_cancel(&b->court->timer);
    service_timer_cancel(&b->court->appeal_timer);
}

void verdict_free(struct bootstrap *b)
{
    while (b->strays) {
        struct tree_peer *next = b->strays->next_stray;
        free(b->strays);
        b->strays = next;
    }
    free(b->court);
}
