/* cost.c - runs plans against clocks. */
#include "plan/cost.h"

#include <stdlib.h>
#include <string.h>

/* Figures of docs/PERFORMANCE.md, 2 virtual CPUs of an AMD EPYC: within a node a hop is two transfers of a cache line
 * (0.05 to 0.1 us each); between nodes half a round trip of TCP over loopback (8 B AllReduce of 2 ranks: 13 to 17 us).
 * 32 MiB among 2 ranks took 6 to 10 ms, 5 operands of 32 MiB each per rank: 0.05 ns a byte and operand. 16 MiB among 4
 * hosts took 26 to 33 ms, 24 MiB sent by each rank: 1.2 ns a byte; several rails carry it side by side. */
struct plan_rates plan_rates_default(const struct shape *shape)
{
    uint32_t rails = shape->n_rails ? shape->n_rails : 1;
    return (struct plan_rates){.hop_ns = {150, 14000}, .step_ns = 20, .memory_ns_per_byte = 0.05,
                               .wire_ns_per_byte = 1.2 / rails};
}

enum { SEEN_ROUNDS = 6, KEPT = 8 }; /* rounds that are run; window rounds whose signals are kept */

struct link {
    uint32_t from;
    bool wire;
    double hop_ns, ns_per_byte, free; /* free: of a wire of its own */
    uint64_t sent, taken;
    double *arrived, *released; /* [slots], by message modulo slots */
};

struct strand {
    const struct plan *plan;
    const struct plan_strand *code;
    uint16_t at, loop_first, loop_end;
    uint32_t i, times; /* of the loop; times 0: outside */
    const struct plan_step *loop;
    uint64_t round;
    double now;
};

/* A rank's wire: busy until `free`, but for the gaps that were left last. Strands are not run in the order of time to
 * the nanosecond, and what is ready early must not wait behind what was only run before it. */
enum { GAPS = 8 };
struct wire {
    double free;
    struct { double from, to; } gaps[GAPS];
    uint32_t next; /* gap to be replaced */
};

struct raised { uint64_t count; double when[KEPT]; };

struct model {
    const struct plan_cost_call *call;
    const struct plan_rates *rates;
    uint32_t n, slots;
    uint64_t rounds;
    struct link *links;
    uint32_t *link_of;     /* [n][PLAN_MAX_LINKS] */
    uint32_t *peer_rank;   /* by node_start[node] + peer */
    double *slot_times;
    struct wire *wires; /* [n] */
    uint32_t *senders;              /* [n_nodes] ranks that send to other nodes: they share their host's wires */
    struct raised *raised; /* [n][PLAN_COUNTERS] */
    struct strand *strands;
    uint32_t n_strands, *strands_of; /* [n + 1] the first of each rank */
    double ended[SEEN_ROUNDS];
};

static double later(double a, double b) { return a > b ? a : b; }

/* ---- setting up ---- */

static const struct plan_link *opposite(const struct model *m, uint32_t me, const struct plan_link *in, uint32_t *index)
{
    const struct plan *peer = &m->call->plans[in->peer];
    for (uint32_t k = 0; k < peer->n_links; k++)
        if (peer->links[k].peer == me && peer->links[k].direction == PLAN_LINK_OUT && peer->links[k].way == in->way)
            return *index = k, &peer->links[k];
    return NULL;
}

/* A link between nodes carries the bytes of all channels, and a node's senders share its wires. */
static void add_link_out(struct model *m, uint32_t r, uint32_t k, uint32_t id)
{
    const uint32_t *node_of = m->call->shape->node_of;
    const struct plan_cost_wires *wires = m->call->wires;
    uint32_t entry = r * PLAN_MAX_LINKS + k;
    struct link *l = &m->links[id];
    bool away = !wires && node_of[r] != node_of[m->call->plans[r].links[k].peer];
    *l = (struct link){.from = r, .wire = wires ? wires->ns_per_byte[entry] > 0 : away,
                       .arrived = m->slot_times + (size_t)2 * id * m->slots,
                       .released = m->slot_times + ((size_t)2 * id + 1) * m->slots};
    l->hop_ns = wires ? wires->hop_ns[entry] : m->rates->hop_ns[l->wire];
    l->ns_per_byte = wires ? wires->ns_per_byte[entry] : m->call->n_channels * m->rates->wire_ns_per_byte;
    m->link_of[entry] = id;
}

static bool connect_out(struct model *m)
{
    const struct plan_cost_wires *wires = m->call->wires;
    uint32_t id = 0;
    for (uint32_t r = 0; r < m->n; r++) {
        bool sends = false;
        for (uint32_t k = 0; k < m->call->plans[r].n_links; k++) {
            if (m->call->plans[r].links[k].direction != PLAN_LINK_OUT) continue;
            if (!(wires && wires->fed_by) && m->call->plans[r].links[k].peer >= m->n) return false;
            add_link_out(m, r, k, id);
            sends |= m->links[id++].wire;
        }
        m->senders[m->call->shape->node_of[r]] += sends;
    }
    for (uint32_t k = 0; k < id && !wires; k++)
        m->links[k].ns_per_byte *= m->senders[m->call->shape->node_of[m->links[k].from]];
    return true;
}

static bool connect(struct model *m)
{
    const uint32_t *fed_by = m->call->wires ? m->call->wires->fed_by : NULL;
    if (!connect_out(m)) return false;
    for (uint32_t r = 0; r < m->n; r++)
        for (uint32_t k = 0; k < m->call->plans[r].n_links; k++) {
            const struct plan_link *l = &m->call->plans[r].links[k];
            uint32_t there;
            if (l->direction != PLAN_LINK_IN) continue;
            if (!fed_by && (l->peer >= m->n || !opposite(m, r, l, &there))) return false;
            m->link_of[r * PLAN_MAX_LINKS + k] =
                m->link_of[fed_by ? fed_by[r * PLAN_MAX_LINKS + k] : l->peer * PLAN_MAX_LINKS + there];
        }
    return true;
}

static void model_free(struct model *m)
{
    free(m->links), free(m->link_of), free(m->peer_rank), free(m->slot_times), free(m->wires), free(m->senders);
    free(m->raised), free(m->strands), free(m->strands_of);
}

static bool model_make(struct model *m, const struct plan_cost_call *call, const struct plan_rates *rates)
{
    uint32_t n = call->shape->n_ranks, slots = call->slots < 2 ? 2 : call->slots;
    /* A round's work is that of n ranks, which move every piece where pieces are many. */
    uint64_t work = (uint64_t)n * call->plans[0].n_pieces;
    uint64_t seen = work <= 512 * 512 ? SEEN_ROUNDS : work <= 2048 * 2048 ? 4 : 2;
    size_t n_links = (size_t)n * PLAN_MAX_LINKS;
    *m = (struct model){.call = call, .rates = rates, .n = n, .slots = slots,
                        .rounds = call->rounds < seen ? call->rounds : seen};
    m->links = calloc(n_links, sizeof *m->links);
    m->link_of = calloc(n_links, sizeof *m->link_of);
    m->peer_rank = calloc(n, sizeof *m->peer_rank);
    m->slot_times = calloc(2 * n_links * slots, sizeof *m->slot_times);
    m->wires = calloc(n, sizeof *m->wires);
    m->senders = calloc(call->shape->n_nodes, sizeof *m->senders);
    m->raised = calloc((size_t)n * PLAN_COUNTERS, sizeof *m->raised);
    m->strands = calloc((size_t)n * PLAN_MAX_STRANDS, sizeof *m->strands);
    m->strands_of = calloc((size_t)n + 1, sizeof *m->strands_of);
    if (!m->links || !m->link_of || !m->peer_rank || !m->slot_times || !m->wires || !m->senders || !m->raised ||
        !m->strands)
        return false;
    for (uint32_t r = 0; r < n; r++) {
        const struct plan *p = &call->plans[r];
        m->peer_rank[call->shape->node_start[call->shape->node_of[r]] + call->shape->peer_of[r]] = r;
        for (uint32_t s = 0; s < p->n_strands; s++)
            m->strands[m->n_strands++] = (struct strand){.plan = p, .code = &p->strands[s]};
        m->strands_of[r + 1] = m->n_strands;
    }
    return connect(m);
}

/* ---- one step ---- */

static struct link *link_at(struct model *m, const struct strand *s, const struct plan_operand *o)
{
    return &m->links[m->link_of[s->plan->rank * PLAN_MAX_LINKS + plan_index_at(o->which, s->i)]];
}

/* Operands that a MOVE touches: pieces read or written. What only stages or fetches is nothing for direct buffers. */
static uint32_t touched(const struct model *m, const struct plan_operand *o, bool source)
{
    bool staging = (o->place == PLAN_PEER_INPUT && !source) || (o->place == PLAN_PEER_OUTPUT && source);
    return staging && m->call->direct ? 0 : o->span ? o->span : 1;
}

static void gap_keep(struct wire *w, double from, double to)
{
    w->gaps[w->next].from = from, w->gaps[w->next].to = to;
    w->next = (w->next + 1) % GAPS;
}

/* The wire is the message's for `ns`, from `ready` on at the earliest. When it is gone. */
static double wire_take(struct wire *w, double ready, double ns)
{
    for (uint32_t k = 0; k < GAPS && ready < w->free; k++) {
        double from = w->gaps[k].from, begin = later(ready, from), end = begin + ns;
        if (end > w->gaps[k].to) continue;
        w->gaps[k].from = end;
        if (begin > from) gap_keep(w, from, begin);
        return end;
    }
    if (ready > w->free) gap_keep(w, w->free, ready);
    return w->free = later(ready, w->free) + ns;
}

static bool move(struct model *m, struct strand *s, const struct plan_step *step)
{
    const struct plan_operand *o = &s->plan->operands[step->first];
    const struct plan_rates *rates = m->rates;
    double begin = s->now, bytes = m->call->piece_bytes * m->call->n_channels;
    uint32_t pieces = 0;
    for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        pieces += touched(m, &o[k], k < step->n_src);
        if (o[k].place != PLAN_SLOT_IN && o[k].place != PLAN_SLOT_OUT) continue;
        const struct link *l = link_at(m, s, &o[k]);
        bool in = o[k].place == PLAN_SLOT_IN;
        if (in ? l->taken == l->sent : l->sent - l->taken == m->slots) return false;
        begin = later(begin, in ? l->arrived[l->taken % m->slots] : l->released[l->sent % m->slots]);
    }
    s->now = begin + rates->step_ns + pieces * bytes * rates->memory_ns_per_byte;
    for (uint32_t k = 0; k < (uint32_t)step->n_src + step->n_dst; k++) {
        if (o[k].place != PLAN_SLOT_IN && o[k].place != PLAN_SLOT_OUT) continue;
        struct link *l = link_at(m, s, &o[k]);
        if (o[k].place == PLAN_SLOT_IN) {
            l->released[l->taken++ % m->slots] = s->now;
            continue;
        }
        double gone = s->now;
        double ns = m->call->piece_bytes * l->ns_per_byte;
        if (l->wire && m->call->wires && m->call->wires->apart) gone = l->free = later(gone, l->free) + ns;
        else if (l->wire) gone = wire_take(&m->wires[l->from], gone, ns);
        l->arrived[l->sent++ % m->slots] = gone + l->hop_ns;
    }
    return true;
}

static bool await(const struct model *m, struct strand *s, const struct plan_step *step)
{
    const struct plan_operand *o = &s->plan->operands[step->first];
    uint32_t first = m->call->shape->node_start[m->call->shape->node_of[s->plan->rank]];
    double begin = s->now;
    if (s->round < step->lag) return true;
    uint64_t wanted = s->round - step->lag;
    for (uint32_t k = 0; k < o->span; k++) {
        uint32_t peer = (plan_index_at(o->which, s->i) + k) % o->which.m;
        const struct raised *r = &m->raised[m->peer_rank[first + peer] * PLAN_COUNTERS + step->counter];
        if (r->count <= wanted) return false;
        double hop = peer == s->plan->peer || step->lag ? 0 : m->rates->hop_ns[0];
        begin = later(begin, r->when[wanted % KEPT] + hop);
    }
    s->now = begin;
    return true;
}

static bool run_step(struct model *m, struct strand *s, const struct plan_step *step)
{
    if (step->flags & (m->call->direct ? PLAN_IF_STAGED : PLAN_IF_DIRECT)) return true;
    if (step->verb == PLAN_MOVE) return move(m, s, step);
    if (step->verb == PLAN_WAIT) return await(m, s, step);
    struct raised *r = &m->raised[s->plan->rank * PLAN_COUNTERS + step->counter];
    r->when[s->round % KEPT] = s->now;
    r->count = s->round + 1;
    return true;
}

/* ---- all of it ---- */

/* Past the step that was just run, or into the loop that stands there. */
static void go_on(struct model *m, struct strand *s, const struct plan_step *step)
{
    s->at++;
    if (step->verb == PLAN_LOOP) {
        s->loop_first = s->at;
        s->loop_end = (uint16_t)(s->at + step->body);
        s->loop = step;
        s->i = plan_loop_from(step, 0);
        s->times = s->i < step->times ? step->times : 0;
        if (!s->times) s->i = 0, s->at = s->loop_end;
    }
    if (s->times && s->at == s->loop_end) {
        if ((s->i = plan_loop_from(s->loop, s->i + 1)) < s->times)
            s->at = s->loop_first;
        else
            s->i = s->times = 0;
    }
    if (s->at < s->code->n_steps) return;
    m->ended[s->round] = later(m->ended[s->round], s->now);
    s->at = 0;
    s->round++;
}

static bool finished(const struct model *m, const struct strand *s)
{
    return s->round >= m->rounds || !s->code->n_steps;
}

/* One step, and the loops before it. Whether it got anywhere. */
static bool run_strand(struct model *m, struct strand *s)
{
    bool moved = false;
    while (!finished(m, s)) {
        const struct plan_step *step = &s->plan->steps[s->code->first + s->at];
        if (step->verb != PLAN_LOOP && !run_step(m, s, step)) break;
        go_on(m, s, step);
        moved = true;
        if (step->verb != PLAN_LOOP) break;
    }
    return moved;
}

/* One step of the strand that is least far in time, or of the next that is not blocked: strands of a rank share its
 * wire, and one that ran ahead would take it before its turn. */
static bool run_rank(struct model *m, uint32_t r)
{
    struct strand *first = &m->strands[m->strands_of[r]];
    uint32_t n = m->strands_of[r + 1] - m->strands_of[r], tried = 0;
    for (uint32_t turn = 0; turn < n; turn++) {
        uint32_t least = n;
        for (uint32_t k = 0; k < n; k++)
            if (!(tried >> k & 1) && !finished(m, &first[k]) && (least == n || first[k].now < first[least].now))
                least = k;
        if (least == n) return false;
        if (run_strand(m, &first[least])) return true;
        tried |= 1u << least;
    }
    return false;
}

static bool run_all(struct model *m)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t r = 0; r < m->n; r++) moved |= run_rank(m, r);
    }
    for (uint32_t k = 0; k < m->n_strands; k++)
        if (!finished(m, &m->strands[k])) return false;
    return true;
}

/* What a round more costs: the mean of some before the last, after which nothing follows. Where credit is what is
 * waited for, every round that finds all slots taken is dearer; windows take turns, too. */
static double stride(const struct model *m)
{
    uint64_t n = m->rounds, turn = n >= 2 + m->slots ? m->slots : PLAN_WINDOW_DEPTH;
    if (n >= 2 + turn) return (m->ended[n - 2] - m->ended[n - 2 - turn]) / (double)turn;
    return n > 1 ? m->ended[n - 1] - m->ended[n - 2] : 0;
}

double plan_cost_ns(const struct plan_cost_call *call, const struct plan_rates *rates)
{
    struct model m;
    double ns = -1;
    if (call->rounds == 0) return 0;
    if (model_make(&m, call, rates) && run_all(&m)) {
        ns = m.ended[m.rounds - 1];
        ns += (double)(call->rounds - m.rounds) * stride(&m);
    }
    model_free(&m);
    return ns;
}
