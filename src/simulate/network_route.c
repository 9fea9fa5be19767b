/* network_route.c - which way switches send a flow.
 *
 *     one leaf for both            NIC - leaf - NIC                               1 switch
 *     one pod                      NIC - leaf - spine - leaf - NIC                3
 *     two pods                     NIC - leaf - spine - core - spine - leaf - NIC 5; the spine keeps its number
 *
 * Of equal ways those that are up take part in the hash, as in a fabric whose routing has settled. */
#include "simulate/network.h"

struct choice_of { uint8_t at[NETWORK_FAN_MAX]; uint32_t n; };

/* splitmix64's last steps. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t flow_hash(const struct network *n, const struct network_flow *f)
{
    uint64_t from = network_nic(n, f->from_host, f->from_rail, 0), to = network_nic(n, f->to_host, f->to_rail, 0);
    return mix(mix(mix(from + 0x9e3779b97f4a7c15u) ^ to) + f->number + ((uint64_t)n->hash << 32));
}

/* A switch's own draw. */
static uint32_t draw(uint64_t hash, uint64_t salt, uint32_t n)
{
    return n == 1 ? 0 : (uint32_t)(mix(hash + salt * 0x9e3779b97f4a7c15u) % n);
}

static void add(struct network_path *p, const struct network *n, enum network_tier tier, uint64_t k)
{
    p->link[p->n++] = n->first[tier] + k;
}

static bool up(const struct network *n, enum network_tier tier, uint64_t k) { return n->rate[n->first[tier] + k] > 0; }

static uint64_t spine_index(const struct network *n, uint32_t leaf, uint32_t s)
{
    return ((uint64_t)network_leaf_pod(n, leaf) * n->n_planes + network_plane(n, leaf)) * n->n_spines + s;
}

/* A core that joins spine number s of both pods; -1: none is up. */
static int core_between(const struct network *n, uint32_t a, uint32_t b, uint32_t s, uint64_t hash)
{
    uint64_t from = spine_index(n, a, s) * n->n_cores, to = spine_index(n, b, s) * n->n_cores;
    if (!n->faulty) return (int)draw(hash, 2, n->n_cores);
    struct choice_of cores = {.n = 0};
    for (uint32_t c = 0; c < n->n_cores; c++)
        if (up(n, NETWORK_SPINE_UP, from + c) && up(n, NETWORK_SPINE_DOWN, to + c)) cores.at[cores.n++] = (uint8_t)c;
    return cores.n ? cores.at[draw(hash, 2, cores.n)] : -1;
}

static bool spine_joins(const struct network *n, uint32_t a, uint32_t b, uint32_t s, uint64_t hash)
{
    return up(n, NETWORK_LEAF_UP, (uint64_t)a * n->n_spines + s) &&
           up(n, NETWORK_LEAF_DOWN, (uint64_t)b * n->n_spines + s) &&
           (network_leaf_pod(n, a) == network_leaf_pod(n, b) || core_between(n, a, b, s, hash) >= 0);
}

static int spine_between(const struct network *n, uint32_t a, uint32_t b, uint64_t hash)
{
    if (!n->faulty) return (int)draw(hash, 1, n->n_spines);
    struct choice_of spines = {.n = 0};
    for (uint32_t s = 0; s < n->n_spines; s++)
        if (spine_joins(n, a, b, s, hash)) spines.at[spines.n++] = (uint8_t)s;
    return spines.n ? spines.at[draw(hash, 1, spines.n)] : -1;
}

/* From leaf to leaf. */
static bool climb(const struct network *n, uint32_t a, uint32_t b, uint64_t hash, struct network_path *p)
{
    p->switches = 1;
    if (a == b) return true;
    bool one_pod = network_leaf_pod(n, a) == network_leaf_pod(n, b);
    if (!n->n_spines || (!one_pod && !n->n_cores) || network_plane(n, a) != network_plane(n, b)) return false;
    int s = spine_between(n, a, b, hash);
    if (s < 0) return false;
    add(p, n, NETWORK_LEAF_UP, (uint64_t)a * n->n_spines + (uint32_t)s);
    p->switches = one_pod ? 3 : 5;
    if (!one_pod) {
        uint32_t c = (uint32_t)core_between(n, a, b, (uint32_t)s, hash);
        add(p, n, NETWORK_SPINE_UP, spine_index(n, a, (uint32_t)s) * n->n_cores + c);
        add(p, n, NETWORK_SPINE_DOWN, spine_index(n, b, (uint32_t)s) * n->n_cores + c);
    }
    add(p, n, NETWORK_LEAF_DOWN, (uint64_t)b * n->n_spines + (uint32_t)s);
    return true;
}

static bool by_ports(const struct network *n, const struct network_flow *f, uint32_t p, uint32_t q, uint64_t hash,
                     struct network_path *out)
{
    uint64_t from = network_nic(n, f->from_host, f->from_rail, p), to = network_nic(n, f->to_host, f->to_rail, q);
    if (!up(n, NETWORK_NIC_UP, from) || !up(n, NETWORK_NIC_DOWN, to)) return false;
    out->n = 0;
    add(out, n, NETWORK_NIC_UP, from);
    if (!climb(n, network_leaf(n, f->from_host, f->from_rail, p), network_leaf(n, f->to_host, f->to_rail, q), hash,
               out))
        return false;
    add(out, n, NETWORK_NIC_DOWN, to);
    return true;
}

/* Ports by hash: the sender's, then the receiver's. Where both NICs hang on the same leaves, a leaf delivers what came
 * to it; a plane stays a plane. What is down is passed over. */
bool network_route(const struct network *n, const struct network_flow *f, struct network_path *out)
{
    uint64_t hash = flow_hash(n, f);
    uint32_t p = draw(hash, 3, n->n_ports), q = draw(hash, 4, n->n_ports);
    bool near = network_leaf(n, f->from_host, f->from_rail, 0) == network_leaf(n, f->to_host, f->to_rail, 0);
    if (near || n->n_planes > 1) q = p;
    if (by_ports(n, f, p, q, hash, out)) return true;
    for (uint32_t k = 0; k < n->n_ports; k++) /* straight through one leaf, or plane, first */
        if (by_ports(n, f, k, k, hash, out)) return true;
    for (uint32_t k = 0; k < n->n_ports; k++)
        if (by_ports(n, f, k, n->n_ports - 1 - k, hash, out)) return true;
    return false;
}

double network_lane_rate(const struct network *n, const struct network_flow *f)
{
    double out = 0, in = 0, both = 0;
    for (uint32_t p = 0; p < n->n_ports; p++) {
        double a = (double)n->rate[n->first[NETWORK_NIC_UP] + network_nic(n, f->from_host, f->from_rail, p)];
        double b = (double)n->rate[n->first[NETWORK_NIC_DOWN] + network_nic(n, f->to_host, f->to_rail, p)];
        out += a;
        in += b;
        both += a < b ? a : b;
    }
    if (n->n_planes > 1) return both;
    return out < in ? out : in;
}
