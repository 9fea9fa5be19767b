/* repairs.c - events in order of time, machines, and what they answer. */
#include "simulate/repairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "simulate/lay_lanes.h"
#include "transport/link/repair.h"
#include "transport/link/silence.h"

/* From the carrier's loss to the driver's hearing of it by netlink: assumed, not measured. */
#define CARRIER_NS (1.0 * (double)RAIL_NS_PER_MS)
/* Lanes have been up for long: none of them counts as flapping. */
#define BEFORE_NS (100 * RAIL_NS_PER_S)
/* Linux: a probe of the tail two round trips after the last segment, and not at once; then TCP's shortest timeout,
 * doubled each time. */
#define TCP_PROBE_NS (10 * RAIL_NS_PER_MS)
#define TCP_TIMEOUT_NS (200 * RAIL_NS_PER_MS)
enum { PAIRS_MAX = 1 << 16, SILENCE_TICKS_MAX = 1000 };

enum kind { SEEN, HEARD, TICK, CONNECTED, FAILED, NIC_BACK };

struct event {
    double ns;
    uint8_t kind, end;
    bool silence;
    uint16_t turn;
    uint32_t pair, lane;
};

struct lane {
    bool way;            /* the network has one */
    bool down;           /* it died, and is not back */
    uint32_t fault;      /* by which */
    double died_ns;      /* lost its way */
    double tick_ns;      /* of the tick that is to come; < 0: none */
    int32_t unsaid[2];   /* DOWN that found no lane to go by; -1: none */
};

struct pair {
    uint32_t host[2];    /* host[0] connects */
    struct lanes lanes;
    struct lane *lane;   /* [n_lanes] */
    struct repair end[2];
    bool waits;
};

struct repairs {
    const struct job *job;
    double hop_ns, now_ns, silence_ns;
    uint32_t n_lanes, n_pairs, pairs_room, waiting, down[REPAIRS_FAULTS_MAX];
    struct pair *pairs;
    struct job_pair *talk; /* [n_talk] the job's, when it was laid whole */
    uint64_t n_talk;
    struct event *heap;
    size_t n_events, events_room;
    struct repairs_counts counts;
};

/* ---- the queue: a heap, the earliest on top ---- */

static void swap(struct event *a, struct event *b)
{
    struct event held = *a;
    *a = *b, *b = held;
}

static enum rail_result later(struct repairs *r, struct event e)
{
    if (r->n_events == r->events_room) {
        size_t room = r->events_room ? 2 * r->events_room : 256;
        struct event *more = realloc(r->heap, room * sizeof *more);
        if (!more) return rail_fail(RAIL_E_SYSTEM, "repairs: out of memory for %zu events", room);
        r->heap = more, r->events_room = room;
    }
    size_t k = r->n_events++;
    r->heap[k] = e;
    for (; k > 0 && r->heap[k].ns < r->heap[(k - 1) / 2].ns; k = (k - 1) / 2) swap(&r->heap[k], &r->heap[(k - 1) / 2]);
    return RAIL_OK;
}

static struct event take(struct repairs *r)
{
    struct event top = r->heap[0];
    r->heap[0] = r->heap[--r->n_events];
    for (size_t k = 0, next; (next = 2 * k + 1) < r->n_events; k = next) {
        if (next + 1 < r->n_events && r->heap[next + 1].ns < r->heap[next].ns) next++;
        if (r->heap[k].ns <= r->heap[next].ns) break;
        swap(&r->heap[k], &r->heap[next]);
    }
    return top;
}

/* ---- silence ---- */

/* How long the real judge takes, when a lane delivers nothing and its sibling goes on. */
static double silence_takes(void)
{
    struct silence_peer peer = {0};
    struct silence_lane dead = {.free = true}, alive = {.free = true, .rail = 1};
    struct silence_lane *const both[] = {&dead, &alive};
    uint64_t wait_ns = TCP_TIMEOUT_NS / 2, repeat_ns = TCP_PROBE_NS, died_ns = BEFORE_NS;
    dead.look = alive.look = (struct silence_look){.outstanding = true, .known = true, .in_flight_segments = 10,
                                                   .round_trip_us = 1000};
    for (int k = 0; k < SILENCE_TICKS_MAX; k++) {
        uint64_t now_ns = died_ns + (uint64_t)k * SILENCE_TICK_NS;
        alive.look.acked_bytes += 1000, alive.look.delivered++, alive.look.received_bytes++;
        if (now_ns - died_ns >= repeat_ns) dead.look.repeats++, wait_ns *= 2, repeat_ns += wait_ns;
        struct silence_verdict v = silence_judge(&peer, both, 2, now_ns);
        if (v.cause == SILENCE_SILENT && v.suspect == 0) return (double)(now_ns - died_ns);
    }
    return HUGE_VAL;
}

/* ---- making ---- */

struct repairs *repairs_create(const struct job *job)
{
    struct repairs *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->job = job;
    r->n_talk = job->n_pairs;
    r->talk = malloc((job->n_pairs + 1) * sizeof *r->talk);
    if (!r->talk) return free(r), NULL;
    memcpy(r->talk, job->pairs, job->n_pairs * sizeof *r->talk);
    r->hop_ns = job->ask.machine->hop_ns + 3 * job->ask.machine->switch_ns;
    r->silence_ns = silence_takes();
    r->counts.first_seen_ns = -1;
    return r;
}

void repairs_destroy(struct repairs *r)
{
    for (uint32_t k = 0; r && k < r->n_pairs; k++)
        free(r->pairs[k].lane), free(r->pairs[k].end[0].lanes), free(r->pairs[k].end[1].lanes);
    if (r) free(r->pairs), free(r->talk), free(r->heap);
    free(r);
}

static enum rail_result begin_pair(struct repairs *r, struct pair *p)
{
    p->lane = calloc(r->n_lanes, sizeof *p->lane);
    for (int e = 0; e < 2; e++) {
        struct repair_lane *lanes = calloc(r->n_lanes, sizeof *lanes);
        if (!lanes || !p->lane) return rail_fail(RAIL_E_SYSTEM, "repairs: out of memory for %u lanes", r->n_lanes);
        repair_begin(&p->end[e], e == 0, lanes, r->n_lanes);
        for (uint32_t l = 0; l < r->n_lanes; l++)
            repair_step(&p->end[e], &(struct repair_event){.kind = REPAIR_CONNECTED, .lane = l});
    }
    for (uint32_t l = 0; l < r->n_lanes; l++)
        p->lane[l] = (struct lane){.way = true, .tick_ns = -1, .unsaid = {-1, -1}};
    return RAIL_OK;
}

static struct pair *find_pair(struct repairs *r, uint32_t a, uint32_t b)
{
    for (uint32_t k = 0; k < r->n_pairs; k++)
        if (r->pairs[k].host[0] == a && r->pairs[k].host[1] == b) return &r->pairs[k];
    return NULL;
}

/* NULL: out of memory, or too many. */
static struct pair *add_pair(struct repairs *r, const struct network *n, uint32_t a, uint32_t b)
{
    if (r->n_pairs == r->pairs_room) {
        uint32_t room = r->pairs_room ? 2 * r->pairs_room : 16;
        struct pair *more = room <= PAIRS_MAX ? realloc(r->pairs, room * sizeof *more) : NULL;
        if (!more)
            return rail_fail(RAIL_E_SYSTEM, "repairs: the fault touches more than %u pairs of hosts", r->n_pairs), NULL;
        r->pairs = more, r->pairs_room = room;
    }
    struct pair *p = &r->pairs[r->n_pairs++];
    *p = (struct pair){.host = {a, b}};
    r->n_lanes = n->n_rails * r->job->ask.flows;
    lanes_of(&p->lanes, r->job, n, a, b);
    return begin_pair(r, p) == RAIL_OK ? p : NULL;
}

/* ---- what is so ---- */

static bool is_up(const struct pair *p, int end, uint32_t lane)
{
    return p->end[end].lanes[lane].state == REPAIR_UP;
}

static bool usable(const struct pair *p, uint32_t lane)
{
    return p->lane[lane].way && is_up(p, 0, lane) && is_up(p, 1, lane);
}

static void see_to(struct repairs *r, struct pair *p)
{
    bool any = false, waits = false;
    for (uint32_t l = 0; l < r->n_lanes; l++) {
        struct lane *lane = &p->lane[l];
        any |= usable(p, l);
        waits |= p->end[0].lanes[l].in_doubt || p->end[1].lanes[l].in_doubt;
        waits |= !lane->way && (is_up(p, 0, l) || is_up(p, 1, l));
        if (lane->down && usable(p, l)) lane->down = false, r->down[lane->fault]--, r->counts.back++;
    }
    waits |= !any;
    if (waits != p->waits) r->waiting += waits ? 1 : -1u;
    p->waits = waits;
}

uint32_t repairs_waiting(const struct repairs *r) { return r->waiting; }
uint32_t repairs_down(const struct repairs *r, uint32_t fault) { return r->down[fault]; }
const struct repairs_counts *repairs_counts(const struct repairs *r) { return &r->counts; }
double repairs_next(const struct repairs *r) { return r->n_events ? r->heap[0].ns : HUGE_VAL; }

bool repairs_apart(const struct repairs *r, uint32_t hosts[2])
{
    for (uint32_t k = 0; k < r->n_pairs; k++) {
        bool way = false;
        for (uint32_t l = 0; l < r->n_lanes; l++) way |= r->pairs[k].lane[l].way;
        if (!way) return hosts[0] = r->pairs[k].host[0], hosts[1] = r->pairs[k].host[1], true;
    }
    return false;
}

/* ---- answers ---- */

static struct event event_of(const struct repairs *r, const struct pair *p, enum kind kind, int end, uint32_t lane,
                             double in_ns)
{
    return (struct event){.ns = r->now_ns + in_ns, .kind = (uint8_t)kind, .end = (uint8_t)end, .lane = lane,
                          .pair = (uint32_t)(p - r->pairs)};
}

/* An end that will know of the death of the socket that is up now. */
static struct event seen_by(const struct repairs *r, const struct pair *p, int end, uint32_t lane, double in_ns,
                            bool silence)
{
    struct event e = event_of(r, p, SEEN, end, lane, in_ns);
    e.silence = silence;
    e.turn = p->end[end].lanes[lane].turn;
    return e;
}

/* DOWN goes by any lane that is left. */
static enum rail_result say(struct repairs *r, struct pair *p, int end)
{
    bool any = false;
    for (uint32_t l = 0; l < r->n_lanes; l++) any |= usable(p, l);
    for (uint32_t l = 0; any && l < r->n_lanes; l++) {
        if (p->lane[l].unsaid[end] < 0) continue;
        struct event e = event_of(r, p, HEARD, 1 - end, l, r->hop_ns);
        e.turn = (uint16_t)p->lane[l].unsaid[end];
        p->lane[l].unsaid[end] = -1;
        RAIL_TRY(later(r, e));
    }
    return RAIL_OK;
}

static enum rail_result connect_lane(struct repairs *r, struct pair *p, uint32_t lane, uint16_t turn)
{
    bool way = p->lane[lane].way;
    struct event e = event_of(r, p, way ? CONNECTED : FAILED, 0, lane, way ? 2 * r->hop_ns : 0);
    e.turn = turn;
    return later(r, e);
}

/* The connecter's next try. */
static enum rail_result rest(struct repairs *r, struct pair *p, uint32_t lane)
{
    const struct repair_lane *l = &p->end[0].lanes[lane];
    double at = (double)(l->retry_ns - BEFORE_NS), *tick = &p->lane[lane].tick_ns;
    if (at < r->now_ns) at = r->now_ns;
    if (l->state != REPAIR_RESTING || (*tick >= 0 && *tick <= at)) return RAIL_OK;
    *tick = at;
    return later(r, event_of(r, p, TICK, 0, lane, at - r->now_ns));
}

/* One event for one end's machine, and everything that it wants done. */
static enum rail_result step_end(struct repairs *r, struct pair *p, int end, enum repair_event_kind kind, uint32_t lane,
                                 uint16_t turn)
{
    struct repair_event e = {.kind = kind, .lane = lane, .turn = turn, .now_ns = BEFORE_NS + (uint64_t)r->now_ns};
    bool was_up = is_up(p, end, lane);
    struct repair_actions a = repair_step(&p->end[end], &e);
    if (a.what & REPAIR_WRONG)
        return rail_fail(RAIL_E_INTERNAL, "repairs: host %u's lane %u was told of turn %u, which never was",
                         p->host[end], lane, turn);
    if (was_up && !is_up(p, end, lane) && end == 0) r->counts.ended++;
    if (a.what & REPAIR_SAY_DOWN) p->lane[lane].unsaid[end] = a.say_turn;
    if (a.what & REPAIR_SEND_AGAIN) r->counts.again_bytes += REPAIRS_CHUNK_BYTES;
    RAIL_TRY(say(r, p, end));
    if (a.what & REPAIR_CONNECT) RAIL_TRY(connect_lane(r, p, lane, a.try_turn));
    return rest(r, p, lane);
}

static enum rail_result seen(struct repairs *r, struct pair *p, const struct event *e)
{
    bool same = is_up(p, e->end, e->lane) && p->end[e->end].lanes[e->lane].turn == e->turn;
    if (!same || (e->silence && p->lane[e->lane].way)) return RAIL_OK;
    if (r->counts.first_seen_ns < 0) {
        r->counts.first_seen_ns = e->ns;
        r->counts.first_host = p->host[e->end];
        r->counts.by_silence = e->silence;
    }
    return step_end(r, p, e->end, REPAIR_ENDED, e->lane, 0);
}

static enum rail_result connected(struct repairs *r, struct pair *p, const struct event *e)
{
    if (!p->lane[e->lane].way)
        return step_end(r, p, 0, REPAIR_TRY_FAILED, e->lane, p->end[0].lanes[e->lane].turn);
    RAIL_TRY(step_end(r, p, 1, REPAIR_CONNECTED, e->lane, e->turn));
    RAIL_TRY(step_end(r, p, 0, REPAIR_CONNECTED, e->lane, e->turn));
    RAIL_TRY(say(r, p, 1));
    return say(r, p, 0);
}

enum rail_result repairs_step(struct repairs *r)
{
    struct event e = take(r);
    struct pair *p = &r->pairs[e.pair];
    enum rail_result result = RAIL_OK;
    r->now_ns = e.ns;
    switch ((enum kind)e.kind) {
    case SEEN: result = seen(r, p, &e); break;
    case HEARD: result = step_end(r, p, e.end, REPAIR_HEARD_DOWN, e.lane, e.turn); break;
    case TICK:
        if (p->lane[e.lane].tick_ns != e.ns) return RAIL_OK; /* another one came instead */
        p->lane[e.lane].tick_ns = -1;
        result = step_end(r, p, 0, REPAIR_TICK, e.lane, 0);
        break;
    case CONNECTED: result = connected(r, p, &e); break;
    case FAILED: result = step_end(r, p, 0, REPAIR_TRY_FAILED, e.lane, p->end[0].lanes[e.lane].turn); break;
    case NIC_BACK: result = step_end(r, p, e.end, REPAIR_NIC_BACK, e.lane, 0); break;
    }
    see_to(r, p);
    return result;
}

/* ---- the network changes ---- */

static bool carrier(const struct network *n, uint32_t host, uint32_t rail)
{
    for (uint32_t p = 0; p < n->n_ports; p++)
        if (n->rate[n->first[NETWORK_NIC_UP] + network_nic(n, host, rail, p)] > 0) return true;
    return false;
}

/* Of both ends the one that has no carrier knows soon; where both have, the one that connects hears nothing. */
static enum rail_result lose(struct repairs *r, struct pair *p, uint32_t l, const struct network *n, uint32_t fault,
                             bool silent)
{
    struct network_flow flow = lanes_flow(&p->lanes, l / r->job->ask.flows, l % r->job->ask.flows);
    bool gone[2] = {!silent && !carrier(n, flow.from_host, flow.from_rail),
                    !silent && !carrier(n, flow.to_host, flow.to_rail)};
    p->lane[l].way = false;
    p->lane[l].died_ns = r->now_ns;
    r->counts.first_seen_ns = -1;
    if (!p->lane[l].down) p->lane[l].down = true, p->lane[l].fault = fault, r->down[fault]++;
    for (int e = 0; e < 2; e++)
        if (gone[e]) RAIL_TRY(later(r, seen_by(r, p, e, l, CARRIER_NS, false)));
    if (gone[0] || gone[1] || r->silence_ns == HUGE_VAL) return RAIL_OK;
    return later(r, seen_by(r, p, 0, l, r->silence_ns, true));
}

/* One end has closed its socket and could not say so: the other's next repeat is answered with a reset. */
static enum rail_result reset(struct repairs *r, struct pair *p, uint32_t l)
{
    if (is_up(p, 0, l) == is_up(p, 1, l)) return RAIL_OK;
    double wait_ns = TCP_TIMEOUT_NS, at_ns = p->lane[l].died_ns + wait_ns;
    while (at_ns < r->now_ns) wait_ns *= 2, at_ns += wait_ns;
    return later(r, seen_by(r, p, is_up(p, 1, l), l, at_ns - r->now_ns, false));
}

static enum rail_result regain(struct repairs *r, struct pair *p, uint32_t l, bool silent)
{
    p->lane[l].way = true;
    RAIL_TRY(reset(r, p, l));
    for (int e = 0; e < 2 && !silent; e++) RAIL_TRY(later(r, event_of(r, p, NIC_BACK, e, l, CARRIER_NS)));
    return RAIL_OK;
}

enum rail_result repairs_network(struct repairs *r, const struct network *n, uint32_t fault, bool silent,
                                 double now_ns)
{
    r->now_ns = now_ns;
    for (uint64_t k = 0; k < r->n_talk; k++) {
        const struct job_pair *both = &r->talk[k];
        struct lanes lanes;
        struct network_path path;
        uint32_t a = both->from < both->to ? both->from : both->to, b = both->from < both->to ? both->to : both->from;
        uint32_t flows = r->job->ask.flows;
        struct pair *p = find_pair(r, a, b);
        lanes_of(&lanes, r->job, n, a, b);
        for (uint32_t l = 0; l < n->n_rails * flows; l++) {
            struct network_flow flow = lanes_flow(&lanes, l / flows, l % flows);
            bool way = network_route(n, &flow, &path);
            if (!p && way) continue;
            if (!p && !(p = add_pair(r, n, a, b))) return RAIL_E_SYSTEM;
            if (p->lane[l].way && !way) RAIL_TRY(lose(r, p, l, n, fault, silent));
            else if (!p->lane[l].way && way) RAIL_TRY(regain(r, p, l, silent));
        }
        if (p) see_to(r, p);
    }
    return RAIL_OK;
}
