/* watch_blame.c - many complaints about lanes, one culprit.
 *
 * A lane joins two NICs of one rail, so each complaint touches two hosts on one rail. What all of them touch is to
 * blame:
 *
 *   all on one rail, all at one host        that host's NIC
 *   all on one rail, different hosts        the rail: its leaf switch
 *   several rails, all at one host          the host
 *   else                                    the first lane, and how many more there are */
#include <stdio.h>
#include <string.h>

#include "core/watch_verdict.h"

enum { PAIRS_MOST = 128 };

/* One complaint; a and b in the order of their hosts' keys, so that both ends' are the same. */
struct pair {
    uint64_t host[2];
    uint32_t rank[2]; /* somebody on that host */
    uint64_t rail;
    uint8_t nic[2];   /* the index among the rank's addresses; UINT8_MAX: unknown */
    uint32_t since_ms;
    bool unreachable;
    uint32_t by;      /* who complains: 0 or 1 */
    const char *why;
};

struct pairs {
    struct pair pair[PAIRS_MOST];
    uint32_t n;
};

/* The NIC at the other end of the lane: of the same rail. */
static uint8_t partner(const struct watch_view *v, uint32_t rank, uint64_t rail)
{
    for (uint32_t i = 0; rail && i < v->addresses[rank].n_rails && i < NET_MAX_RAILS; i++)
        if (v->addresses[rank].rails[i].rail == rail) return (uint8_t)i;
    return UINT8_MAX;
}

static struct pair pair_of(const struct watch_view *v, uint32_t rank, uint32_t t)
{
    const struct watch_state *s = &v->notes[rank].last.state;
    const struct watch_trouble *c = &s->troubles[t];
    const struct net_address *a = &v->addresses[rank];
    uint64_t rail = c->nic < a->n_rails && c->nic < NET_MAX_RAILS ? a->rails[c->nic].rail : 0;
    struct pair p = {.host = {v->members[rank].host, v->members[c->rank].host}, .rank = {rank, c->rank},
                     .rail = rail ? rail : 1u + c->nic, .nic = {c->nic, partner(v, c->rank, rail)},
                     .since_ms = c->since_ms, .unreachable = c->unreachable, .why = t == 0 ? s->why : ""};
    if (p.host[0] <= p.host[1]) return p;
    struct pair q = p;
    for (int i = 0; i < 2; i++) {
        q.host[i] = p.host[1 - i];
        q.rank[i] = p.rank[1 - i];
        q.nic[i] = p.nic[1 - i];
    }
    q.by = 1;
    return q;
}

/* The same two NICs: the one that has complained for longest, and any reason is better than none. */
static void add(struct pairs *all, const struct pair *p)
{
    for (uint32_t i = 0; i < all->n; i++) {
        struct pair *q = &all->pair[i];
        if (q->host[0] != p->host[0] || q->host[1] != p->host[1] || q->rail != p->rail) continue;
        if (p->since_ms > q->since_ms) q->since_ms = p->since_ms;
        q->unreachable |= p->unreachable;
        if (p->why[0] && (!q->why[0] || strstr(p->why, "NIC"))) q->why = p->why, q->by = p->by;
        return;
    }
    if (all->n < PAIRS_MOST) all->pair[all->n++] = *p;
}

static void collect(const struct watch_view *v, bool only_unreachable, struct pairs *all)
{
    for (uint32_t r = 0; r < v->n_ranks; r++) {
        const struct watch_state *s = &v->notes[r].last.state;
        bool there = v->notes[r].at_ns && v->notes[r].at_ns >= v->asked_ns && s->number;
        for (uint32_t t = 0; there && t < s->n_troubles && t < WATCH_TROUBLES; t++) {
            if (s->troubles[t].rank >= v->n_ranks || (only_unreachable && !s->troubles[t].unreachable)) continue;
            struct pair p = pair_of(v, r, t);
            add(all, &p);
        }
    }
}

/* What all have in common. */
struct common {
    bool rail, host[2]; /* of pair[0] */
    uint32_t since_ms;
    const struct pair *told; /* whose reason to give: of the side to blame, if it gave one */
};

/* Rails that lanes between the two may have: where all are down, it is none of them that is to blame. */
static uint32_t rails_of(const struct watch_view *v, const struct pair *p)
{
    uint32_t a = v->addresses[p->rank[0]].n_rails, b = v->addresses[p->rank[1]].n_rails;
    return a < b ? a : b;
}

static struct common common_of(const struct watch_view *v, const struct pairs *all)
{
    struct common c = {.rail = true, .host = {true, true}, .told = &all->pair[0]};
    for (uint32_t i = 0; i < all->n; i++) {
        const struct pair *p = &all->pair[i];
        c.rail &= p->rail == all->pair[0].rail && !(p->unreachable && rails_of(v, p) > 1);
        for (int k = 0; k < 2; k++)
            c.host[k] &= p->host[0] == all->pair[0].host[k] || p->host[1] == all->pair[0].host[k];
        if (p->since_ms > c.since_ms) c.since_ms = p->since_ms;
        if (p->why[0] && !c.told->why[0]) c.told = p;
    }
    return c;
}

/* The end of pair[0] that is to blame, of hosts that all touch; -1: both alike. A NIC without carrier says so
 * itself. */
static int guilty_end(const struct pairs *all, const struct common *c)
{
    if (c->host[0] != c->host[1]) return c->host[1];
    const struct pair *p = &all->pair[0];
    return c->host[0] && p->why[0] && strstr(p->why, "carrier") ? (int)p->by : -1;
}

static void nic_words(struct words *w, const struct watch_view *v, const struct pair *p, int end)
{
    uint8_t nic = p->nic[end];
    const char *host = v->members[p->rank[end]].host_name;
    if (nic < v->addresses[p->rank[end]].n_rails && nic < NET_MAX_RAILS)
        watch_say_words(w, "NIC %s (rail %u) of host %s", v->addresses[p->rank[end]].rails[nic].name, nic, host);
    else
        watch_say_words(w, "a NIC of host %s", host);
}

static void culprit_words(struct words *w, const struct watch_view *v, const struct pairs *all, const struct common *c)
{
    const struct pair *p = &all->pair[0];
    int end = guilty_end(all, c);
    if (c->rail && end >= 0) {
        nic_words(w, v, p, end);
    } else if (c->rail && (c->host[0] || all->n == 1)) {
        nic_words(w, v, p, 0);
        watch_say_words(w, " to ");
        nic_words(w, v, p, 1);
    } else if (c->rail) {
        watch_say_words(w, "rail %u, all of it (NIC %s of host %s and %u more lanes)", p->nic[p->by],
                        v->addresses[p->rank[p->by]].rails[p->nic[p->by] % NET_MAX_RAILS].name,
                        v->members[p->rank[p->by]].host_name, all->n - 1);
    } else if (end >= 0) {
        watch_say_words(w, "host %s, on all its rails", v->members[p->rank[end]].host_name);
    } else {
        nic_words(w, v, p, 0);
        watch_say_words(w, " to ");
        nic_words(w, v, p, 1);
        if (all->n > 1) watch_say_words(w, ", and %u more", all->n - 1);
    }
}

bool watch_blame(const struct watch_view *v, bool only_unreachable, char *out, size_t bytes)
{
    struct pairs all;
    struct words w = {out, bytes, 0};
    all.n = 0;
    if (!v->addresses) return false;
    collect(v, only_unreachable, &all);
    if (all.n == 0) return false;
    struct common c = common_of(v, &all);
    watch_say_words(&w, "%s for %.1f s: ", all.pair[0].unreachable ? "no lane has been up" : "lanes have been down",
                    (double)c.since_ms / 1e3);
    culprit_words(&w, v, &all, &c);
    if (c.told->why[0]) watch_say_words(&w, ": %s", c.told->why);
    return true;
}
