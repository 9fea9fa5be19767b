/* carriage.c - who carried what: for every grain of every slot that is not credited, the berth of the lane that took it.
 *
 *   (a berth whose socket was left behind by a move: as if carried by the one that stays)
 *   carried by a berth --(its socket is closed)--> in doubt of its lane --(their report lacks it)--> to be sent again
 *                                                          '--(their report has it)--> landed
 *
 * Two bytes per grain, written once per chunk: 0.1 ns per KiB. */
#include <string.h>

#include "transport/link/net_state.h"

enum {
    DOUBT = 0x4000, /* + index of the lane; berths are below */
    LANDED = 0xfffe,
    AGAIN = 0xffff,
};
_Static_assert(NET_BERTHS * NET_LANES_MAX <= DOUBT, "berths and doubts are told apart");

uint32_t link_grains(const struct net_link *l, uint32_t bytes)
{
    return bytes == 0 ? 1 : (bytes + l->grain_bytes - 1) / l->grain_bytes;
}

static uint16_t *carriers_of(const struct net_link *l, uint64_t sequence)
{
    return l->carriers + (sequence % l->base.n_slots) * l->n_grains;
}

/* Grains of the slot that some lane has taken. */
static uint32_t grains_out(const struct net_link *l, uint64_t sequence)
{
    if (sequence < l->assigned) return link_grains(l, l->slots[sequence % l->base.n_slots].bytes);
    return sequence == l->assigned ? l->assigned_bytes / l->grain_bytes : 0;
}

static uint16_t berth_of(const struct net_lane *lane)
{
    struct net_lane *const *berths = lane->peer->lanes + NET_BERTHS * lane->index;
    return (uint16_t)(NET_BERTHS * lane->index + (berths[0] != lane));
}

void carriage_carries(struct net_link *l, uint64_t sequence, uint32_t first, uint32_t n, const struct net_lane *lane)
{
    if (!l->carriers) return;
    uint16_t *carriers = carriers_of(l, sequence), berth = berth_of(lane);
    for (uint32_t g = first; g < first + n; g++) {
        l->n_again -= carriers[g] == AGAIN && l->n_again > 0;
        carriers[g] = berth;
    }
}

/* Of all that is out: what was carried by `from` becomes `to`; returns how many. */
static uint32_t relabel(struct net_link *l, uint16_t from, uint16_t to)
{
    uint32_t n = 0;
    if (!l->carriers) return 0;
    for (uint64_t s = atomic_load_explicit(&l->credited, memory_order_relaxed); s <= l->assigned; s++) {
        uint16_t *carriers = carriers_of(l, s);
        for (uint32_t g = 0, out = grains_out(l, s); g < out; g++) {
            if (carriers[g] != from) continue;
            carriers[g] = to;
            n++;
        }
    }
    return n;
}

void carriage_doubt(struct net_link *l, const struct net_lane *lane)
{
    (void)relabel(l, berth_of(lane), (uint16_t)(DOUBT + lane->index));
}

void carriage_inherit(struct net_link *l, const struct net_lane *lane, const struct net_lane *heir)
{
    (void)relabel(l, berth_of(lane), berth_of(heir));
}

void carriage_again(struct net_link *l, uint32_t index)
{
    l->n_again += relabel(l, (uint16_t)(DOUBT + index), AGAIN);
}

bool carriage_stands(struct net_link *l)
{
    uint64_t s = atomic_load_explicit(&l->credited, memory_order_relaxed);
    uint32_t out = l->carriers && s <= l->assigned ? grains_out(l, s) : 0;
    bool stood = l->stood == s + 1, any = false;
    l->stood = s + 1;
    for (uint32_t g = 0; g < out && stood; g++) {
        uint16_t berth = carriers_of(l, s)[g];
        struct net_lane *lane = berth < l->peer->n_lanes ? l->peer->lanes[berth] : NULL;
        if (!lane) continue;
        lane->silence.look.carries = true;
        any = true;
    }
    return any || (out > 0 && !stood);
}

static void landed(struct net_link *l, uint16_t *carrier)
{
    l->n_again -= *carrier == AGAIN && l->n_again > 0;
    *carrier = LANDED;
}

void carriage_landed_before(struct net_link *l, uint64_t sequence)
{
    if (!l->carriers) return;
    for (uint64_t s = atomic_load_explicit(&l->credited, memory_order_relaxed); s < sequence; s++)
        for (uint32_t g = 0, out = grains_out(l, s); g < out; g++) landed(l, &carriers_of(l, s)[g]);
}

bool carriage_landed(struct net_link *l, uint64_t sequence, const uint8_t *bits, uint32_t n_bytes)
{
    uint32_t out = grains_out(l, sequence);
    for (uint32_t g = 0; g < 8 * n_bytes; g++) {
        if (!(bits[g / 8] >> g % 8 & 1)) continue;
        if (g >= out) return false;
        if (l->carriers) landed(l, &carriers_of(l, sequence)[g]);
    }
    return true;
}

bool carriage_next(struct net_link *l, uint64_t *sequence, uint32_t *first, uint32_t *n)
{
    for (uint64_t s = atomic_load_explicit(&l->credited, memory_order_relaxed); l->n_again > 0 && s <= l->assigned; s++) {
        const uint16_t *carriers = carriers_of(l, s);
        uint32_t out = grains_out(l, s), g = 0, end;
        while (g < out && carriers[g] != AGAIN) g++;
        if (g == out) continue;
        for (end = g; end < out && carriers[end] == AGAIN;) end++;
        *sequence = s;
        *first = g;
        *n = end - g;
        return true;
    }
    l->n_again = 0; /* its slots were credited meanwhile */
    return false;
}
