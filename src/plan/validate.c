/* validate.c - is this a plan at all? What can be seen in one plan without running it.
 *
 * Bounds are proven from m, since index(i) < m for every i: no iteration needs to be tried. */
#include "plan/check.h"
#include "plan/collective.h"

#include <stdarg.h>
#include <stdio.h>

/* Sources, or destinations, of one MOVE with spans counted: what rail_combine takes. */
#define WAYS_MAX 64

struct judge {
    const struct plan *plan;
    char *why;
    size_t why_bytes;
    uint32_t strand, step;
    uint8_t link_strand[PLAN_MAX_LINKS]; /* 1 + the strand that uses the link */
};

static bool refuse(const struct judge *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(const struct judge *j, const char *format, ...)
{
    int n = snprintf(j->why, j->why_bytes, "rank %u strand %u step %u: ", j->plan->rank, j->strand, j->step);
    va_list arguments;
    va_start(arguments, format);
    if (n >= 0 && (size_t)n < j->why_bytes) vsnprintf(j->why + n, j->why_bytes - (size_t)n, format, arguments);
    va_end(arguments);
    return false;
}

static bool index_ok(const struct judge *j, struct plan_index x, uint32_t limit, const char *what)
{
    if (x.m == 0 || x.b >= x.m) return refuse(j, "%s index has b = %u, m = %u", what, x.b, x.m);
    bool constant = x.a == 0 || x.m == 1;
    uint32_t most = constant ? x.b : x.m - 1;
    return most < limit || refuse(j, "%s %u is out of range (there are %u)", what, most, limit);
}

static bool head_ok(const struct judge *j)
{
    const struct plan *p = j->plan;
    if (p->n_ranks < 2 || p->rank >= p->n_ranks) return refuse(j, "no such rank among %u", p->n_ranks);
    if (p->peer >= p->n_peers || p->n_peers > p->n_ranks) return refuse(j, "no peer %u among %u", p->peer, p->n_peers);
    if (p->n_pieces == 0) return refuse(j, "a round has no pieces");
    if (p->slots_min == 0 || p->slots_min > PLAN_SLOTS_GUARANTEED)
        return refuse(j, "needs %u slots, links have %d", p->slots_min, PLAN_SLOTS_GUARANTEED);
    if (p->n_strands == 0 || p->n_strands > PLAN_MAX_STRANDS) return refuse(j, "%u strands", p->n_strands);
    if (p->n_links > PLAN_MAX_LINKS) return refuse(j, "%u links", p->n_links);
    if (p->n_steps > PLAN_MAX_STEPS) return refuse(j, "%u steps", p->n_steps);
    if (p->n_operands > PLAN_MAX_OPERANDS) return refuse(j, "%u operands", p->n_operands);
    if (p->collective >= PLAN_COLLECTIVES) return refuse(j, "collective %u", p->collective);
    uint32_t blocks = collective_blocks(p->collective, p->n_ranks);
    if (p->root >= p->n_ranks || p->position >= p->n_ranks)
        return refuse(j, "root %u, position %u among %u ranks", p->root, p->position, p->n_ranks);
    if (p->n_pieces % blocks != 0) return refuse(j, "%u pieces of %u blocks", p->n_pieces, blocks);
    if ((p->flags & PLAN_IN_RANK_ORDER) && !collective_kind(p->collective).reduces)
        return refuse(j, "rank order, in a collective that combines nothing");
    if (p->algorithm >= PLAN_ALGORITHMS) return refuse(j, "algorithm %u", p->algorithm);
    return true;
}

static bool links_ok(const struct judge *j)
{
    const struct plan *p = j->plan;
    for (uint32_t k = 0; k < p->n_links; k++) {
        const struct plan_link *link = &p->links[k];
        if (link->peer >= p->n_ranks) return refuse(j, "link %u leads to rank %u of %u", k, link->peer, p->n_ranks);
        if (link->peer == p->rank) return refuse(j, "link %u leads to the rank itself", k);
        if (link->direction > PLAN_LINK_OUT || link->way >= PLAN_WAYS)
            return refuse(j, "link %u has direction %u, way %u", k, link->direction, link->way);
        for (uint32_t i = 0; i < k; i++)
            if (p->links[i].peer == link->peer && p->links[i].direction == link->direction &&
                p->links[i].way == link->way)
                return refuse(j, "links %u and %u are the same", i, k);
    }
    return true;
}

/* A link is a FIFO only as long as one strand holds its end. */
static bool slot_ok(struct judge *j, const struct plan_operand *o)
{
    const struct plan *p = j->plan;
    uint32_t wanted = o->place == PLAN_SLOT_IN ? PLAN_LINK_IN : PLAN_LINK_OUT;
    if (!index_ok(j, o->which, p->n_links, "link")) return false;
    for (uint32_t i = 0; i < (o->which.a == 0 ? 1 : o->which.m); i++) {
        uint32_t link = plan_index_at(o->which, i);
        if (p->links[link].direction != wanted) return refuse(j, "link %u runs the other way", link);
        if (j->link_strand[link] != 0 && j->link_strand[link] != j->strand + 1)
            return refuse(j, "link %u is used by two strands", link);
        j->link_strand[link] = (uint8_t)(j->strand + 1);
    }
    return true;
}

static bool peers_ok(const struct judge *j, const struct plan_operand *o)
{
    if (!(j->plan->flags & PLAN_WINDOWS)) return refuse(j, "names peers in a plan without windows");
    if (!index_ok(j, o->which, j->plan->n_peers, "peer")) return false;
    if (o->span == 0 || o->span > o->which.m) return refuse(j, "spans %u peers of %u", o->span, o->which.m);
    if (o->span > 1 && o->which.m > j->plan->n_peers) return refuse(j, "spans over %u peers", o->which.m);
    return true;
}

static bool operand_ok(struct judge *j, const struct plan_operand *o, bool source)
{
    const struct plan *p = j->plan;
    bool peers = o->place == PLAN_PEER_INPUT || o->place == PLAN_PEER_OUTPUT;
    if (o->place > PLAN_PEER_OUTPUT) return refuse(j, "place %u", o->place);
    if (source && o->place == PLAN_SLOT_OUT) return refuse(j, "slot-out as a source");
    if (!source && (o->place == PLAN_INPUT || o->place == PLAN_SLOT_IN)) return refuse(j, "writes to a source");
    if (!index_ok(j, o->piece, o->place == PLAN_SCRATCH ? p->n_scratch : p->n_pieces, "piece")) return false;
    if (!peers && o->span != 1) return refuse(j, "span %u on something not a peer", o->span);
    if (peers && !peers_ok(j, o)) return false;
    if (!source && o->place == PLAN_PEER_INPUT && (o->which.a != 0 || o->which.b != p->peer || o->span != 1))
        return refuse(j, "writes to the input of another peer");
    if (source && o->place == PLAN_PEER_OUTPUT && o->span != 1) return refuse(j, "span %u of peer-output", o->span);
    return (o->place != PLAN_SLOT_IN && o->place != PLAN_SLOT_OUT) || slot_ok(j, o);
}

static bool move_ok(struct judge *j, const struct plan_step *s)
{
    const struct plan *p = j->plan;
    uint32_t ways[2] = {0, 0}; /* sources, destinations */
    uint32_t n = (uint32_t)s->n_src + s->n_dst;
    if (s->n_src == 0 || s->n_dst == 0) return refuse(j, "%u sources, %u destinations", s->n_src, s->n_dst);
    if (s->first + n > p->n_operands) return refuse(j, "operands end at %u of %u", s->first + n, p->n_operands);
    for (uint32_t k = 0; k < n; k++) {
        const struct plan_operand *o = &p->operands[s->first + k];
        if (!operand_ok(j, o, k < s->n_src)) return false;
        ways[k >= s->n_src] += o->span;
        if (o->place != PLAN_SLOT_IN && o->place != PLAN_SLOT_OUT) continue;
        for (uint32_t i = 0; i < k; i++)
            if (p->operands[s->first + i].place == o->place && p->operands[s->first + i].which.b == o->which.b)
                return refuse(j, "two slots of link %u at once", o->which.b);
    }
    if (ways[0] > WAYS_MAX || ways[1] > WAYS_MAX)
        return refuse(j, "%u sources and %u destinations, at most %d each", ways[0], ways[1], WAYS_MAX);
    return true;
}

static bool loop_ok(const struct judge *j, const struct plan_step *s, uint32_t strand_end)
{
    if (s->body == 0) return refuse(j, "loop without a body");
    if (s->period ? s->period < 2 || s->skip >= s->period : s->skip)
        return refuse(j, "loop leaves out %u of every %u", s->skip, s->period);
    if (j->step + s->body >= strand_end) return refuse(j, "loop of %u steps runs past the strand", s->body);
    for (uint32_t k = 1; k <= s->body; k++)
        if (j->plan->steps[j->step + k].verb == PLAN_LOOP) return refuse(j, "loop inside a loop");
    return true;
}

static bool step_ok(struct judge *j, const struct plan_step *s, uint32_t strand_end)
{
    const struct plan *p = j->plan;
    uint8_t conditions = s->flags & (PLAN_IF_DIRECT | PLAN_IF_STAGED);
    if (s->flags & ~(PLAN_FINAL | PLAN_IF_DIRECT | PLAN_IF_STAGED | PLAN_BALANCED))
        return refuse(j, "flags %#x", s->flags);
    if ((s->flags & PLAN_FINAL) && s->verb != PLAN_MOVE) return refuse(j, "FINAL on a step that moves nothing");
    if ((s->flags & PLAN_BALANCED) && s->verb != PLAN_MOVE) return refuse(j, "BALANCED on a step that moves nothing");
    if ((s->flags & PLAN_FINAL) && !collective_kind(p->collective).reduces)
        return refuse(j, "FINAL in a collective that combines nothing");
    if (conditions == (PLAN_IF_DIRECT | PLAN_IF_STAGED)) return refuse(j, "never runs");
    if (conditions && (!(p->flags & PLAN_WINDOWS) || s->verb == PLAN_LOOP)) return refuse(j, "misplaced condition");
    switch (s->verb) {
    case PLAN_MOVE:
        return move_ok(j, s);
    case PLAN_LOOP:
        return loop_ok(j, s, strand_end);
    case PLAN_SIGNAL:
        if (!(p->flags & PLAN_WINDOWS)) return refuse(j, "signals in a plan without windows");
        return s->counter < PLAN_COUNTERS || refuse(j, "counter %u", s->counter);
    case PLAN_WAIT:
        if (s->counter >= PLAN_COUNTERS) return refuse(j, "counter %u", s->counter);
        if (s->lag != 0 && s->lag != PLAN_WINDOW_DEPTH) return refuse(j, "waits with lag %u", s->lag);
        if (s->first >= p->n_operands) return refuse(j, "operand %u of %u", s->first, p->n_operands);
        return peers_ok(j, &p->operands[s->first]);
    default:
        return refuse(j, "verb %u", s->verb);
    }
}

bool plan_validate(const struct plan *plan, char *why, size_t why_bytes)
{
    struct judge j = {.plan = plan, .why = why, .why_bytes = why_bytes};
    if (!head_ok(&j) || !links_ok(&j)) return false;
    uint32_t next = 0;
    for (j.strand = 0; j.strand < plan->n_strands; j.strand++) {
        const struct plan_strand *strand = &plan->strands[j.strand];
        uint32_t end = (uint32_t)strand->first + strand->n_steps;
        j.step = strand->first;
        if (strand->n_steps == 0 || strand->first != next) return refuse(&j, "strand is empty or not where it belongs");
        if (end > plan->n_steps) return refuse(&j, "strand ends at step %u of %u", end, plan->n_steps);
        for (; j.step < end; j.step++)
            if (!step_ok(&j, &plan->steps[j.step], end)) return false;
        next = end;
    }
    if (next != plan->n_steps) return refuse(&j, "steps %u and on belong to no strand", next);
    for (uint32_t k = 0; k < plan->n_links; k++)
        if (j.link_strand[k] == 0) return refuse(&j, "link %u is never used", k);
    return true;
}
