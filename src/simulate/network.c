/* network.c - from a description to links with rates; faults; names. */
#include "simulate/network.h"

#include <stdlib.h>
#include <string.h>

#include "topo/fabric_show.h"

const char *const network_kind_names[NETWORK_KINDS] = {"rail", "fat-tree", "dual-plane", "dual-tor"};
const char *const network_tier_names[NETWORK_TIERS] = {"NIC to leaf", "leaf to NIC", "leaf to spine",
                                                       "spine to leaf", "spine to core", "core to spine"};

/* A leaf of 64 ports, half of them down: 32 hosts of a rail, or 4 hosts of 8 NICs. A pod of 16 units: 512 hosts of 8
 * NICs. */
enum { LEAF_PORTS_DOWN = 32, UNITS_PER_POD = 16 };

static uint32_t at_least_one(uint32_t x) { return x ? x : 1; }
static uint32_t ratio_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

/* As many links up as carry what comes from below at a NIC's rate each; where that is too many to name, trunks. */
static uint32_t fan(uint32_t asked, uint32_t below, double oversubscription)
{
    double n = asked ? asked : below / oversubscription;
    return n < 1 ? 1 : n > NETWORK_FAN_MAX ? NETWORK_FAN_MAX : (uint32_t)(n + 0.5);
}

static uint32_t ports_of(enum network_kind kind)
{
    return kind == NETWORK_DUAL_PLANE || kind == NETWORK_DUAL_TOR ? 2 : 1;
}

static void complete_request(struct network_request *q)
{
    bool tree = q->kind == NETWORK_FAT_TREE;
    if (!q->oversubscription[0]) q->oversubscription[0] = 1;
    if (!q->oversubscription[1]) q->oversubscription[1] = 1;
    if (!q->hosts_per_leaf) q->hosts_per_leaf = tree ? at_least_one(LEAF_PORTS_DOWN / q->rails) : LEAF_PORTS_DOWN;
    if (!q->units_per_pod) q->units_per_pod = UNITS_PER_POD;
    uint32_t leaf_ports = tree ? q->hosts_per_leaf * q->rails : q->hosts_per_leaf;
    q->spines = fan(q->spines, leaf_ports, q->oversubscription[0]);
    uint32_t leaves = q->units_per_pod * (tree ? 1 : q->rails);
    q->cores = fan(q->cores, leaves, q->oversubscription[1]);
}

static enum rail_result check_request(const struct network_request *q)
{
    if (q->kind >= NETWORK_KINDS) return rail_fail(RAIL_E_ARGUMENT, "network: no kind %d", (int)q->kind);
    if (q->hosts < 1 || q->hosts > NETWORK_HOSTS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "network: %u hosts; 1 to %d can be described", q->hosts, NETWORK_HOSTS_MAX);
    if (q->rails < 1 || q->rails > NETWORK_RAILS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "network: %u NICs a host; 1 to %d can be described", q->rails,
                         NETWORK_RAILS_MAX);
    if (q->tiers < 1 || q->tiers > 3)
        return rail_fail(RAIL_E_ARGUMENT,
                         "network: %u tiers of switches; 1 (leaves alone), 2 (and spines) or 3 (and cores)", q->tiers);
    if (!(q->nic_gbit > 0) || q->nic_gbit > 1e6)
        return rail_fail(RAIL_E_ARGUMENT, "network: a NIC of %g Gbit/s; more than 0, at most 1000000", q->nic_gbit);
    for (int k = 0; k < 2; k++)
        if (q->oversubscription[k] && (!(q->oversubscription[k] >= 0.01) || q->oversubscription[k] > 1000))
            return rail_fail(RAIL_E_ARGUMENT, "network: oversubscription %g; 0.01 to 1000 (2 is 2:1, 1 is none)",
                             q->oversubscription[k]);
    if (q->hosts_per_leaf > NETWORK_HOSTS_MAX || q->units_per_pod > NETWORK_HOSTS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "network: %u hosts a leaf, %u units a pod; at most %d", q->hosts_per_leaf,
                         q->units_per_pod, NETWORK_HOSTS_MAX);
    if (q->spines > NETWORK_FAN_MAX || q->cores > NETWORK_FAN_MAX)
        return rail_fail(RAIL_E_ARGUMENT,
                         "network: %u spines, %u cores; at most %d of each, whose links stand for trunks", q->spines,
                         q->cores, NETWORK_FAN_MAX);
    return RAIL_OK;
}

/* ---- making ---- */

static void count(struct network *n, const struct network_request *q)
{
    n->kind = q->kind;
    n->n_rails = q->rails;
    n->n_ports = ports_of(q->kind);
    n->n_planes = q->kind == NETWORK_DUAL_PLANE ? 2 : 1;
    n->n_tiers = q->tiers;
    n->hash = q->hash;
    n->n_leaves = n->n_units * (q->kind == NETWORK_FAT_TREE ? 1 : q->rails * n->n_ports);
    n->n_spines = q->tiers >= 2 ? q->spines : 0;
    n->n_cores = q->tiers == 3 ? q->cores : 0;
    uint64_t nics = (uint64_t)n->n_hosts * n->n_rails * n->n_ports, ups = (uint64_t)n->n_leaves * n->n_spines;
    uint64_t tops = (uint64_t)n->n_pods * n->n_planes * n->n_spines * n->n_cores;
    const uint64_t links[NETWORK_TIERS] = {nics, nics, ups, ups, tops, tops};
    n->first[0] = 0;
    for (int t = 0; t < NETWORK_TIERS; t++) n->first[t + 1] = n->first[t] + links[t];
    n->n_links = n->first[NETWORK_TIERS];
}

static void set_rates(struct network *n, const struct network_request *q)
{
    double nic = q->nic_gbit / 8 / n->n_ports;
    double below = nic * q->hosts_per_leaf * (q->kind == NETWORK_FAT_TREE ? q->rails : 1);
    double up = n->n_spines ? below / q->oversubscription[0] / n->n_spines : 0;
    double leaves = (double)q->units_per_pod * (q->kind == NETWORK_FAT_TREE ? 1 : q->rails * n->n_ports / n->n_planes);
    double top = n->n_cores ? up * leaves / q->oversubscription[1] / n->n_cores : 0;
    const double rates[NETWORK_TIERS] = {nic, nic, up, up, top, top};
    for (int t = 0; t < NETWORK_TIERS; t++) {
        n->whole[t] = (float)rates[t];
        for (uint64_t k = n->first[t]; k < n->first[t + 1]; k++) n->rate[k] = (float)rates[t];
    }
}

static enum rail_result allocate(struct network *n)
{
    n->rate = malloc((n->n_links ? n->n_links : 1) * sizeof *n->rate);
    n->whole = calloc(NETWORK_TIERS, sizeof *n->whole);
    if (n->rate && n->whole) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "network: out of memory for %llu links", (unsigned long long)n->n_links);
}

uint64_t network_bytes(const struct network_request *request)
{
    struct network n = {.n_hosts = request->hosts};
    struct network_request q = *request;
    if (check_request(&q) != RAIL_OK) return 0;
    complete_request(&q);
    n.n_units = ratio_up(q.hosts, q.hosts_per_leaf);
    n.n_pods = q.tiers == 3 ? ratio_up(n.n_units, q.units_per_pod) : 1;
    count(&n, &q);
    return n.n_links * sizeof *n.rate + (uint64_t)n.n_hosts * sizeof *n.unit_of +
           (uint64_t)n.n_units * sizeof *n.pod_of;
}

enum rail_result network_make(struct network *out, const struct network_request *request)
{
    struct network n = {.n_hosts = request->hosts};
    struct network_request q = *request;
    RAIL_TRY(check_request(&q));
    complete_request(&q);
    n.n_units = ratio_up(q.hosts, q.hosts_per_leaf);
    n.n_pods = q.tiers == 3 ? ratio_up(n.n_units, q.units_per_pod) : 1;
    n.unit_of = malloc(n.n_hosts * sizeof *n.unit_of);
    n.pod_of = malloc(n.n_units * sizeof *n.pod_of);
    count(&n, &q);
    enum rail_result r = allocate(&n);
    if (r == RAIL_OK && (!n.unit_of || !n.pod_of))
        r = rail_fail(RAIL_E_SYSTEM, "network: out of memory for %u hosts", n.n_hosts);
    if (r != RAIL_OK) return network_clear(&n), r;
    for (uint32_t h = 0; h < n.n_hosts; h++) n.unit_of[h] = h / q.hosts_per_leaf;
    for (uint32_t u = 0; u < n.n_units; u++) n.pod_of[u] = n.n_pods > 1 ? u / q.units_per_pod : 0;
    set_rates(&n, &q);
    *out = n;
    return RAIL_OK;
}

void network_clear(struct network *n)
{
    free(n->unit_of), free(n->pod_of), free(n->rate), free(n->whole);
    *n = (struct network){0};
}

/* ---- a fabric file ---- */

/* The number of a switch among those of its tier, by first mention; `numbers` is [switches], UINT32_MAX: none yet. */
static uint32_t numbered(uint32_t *numbers, uint32_t at, uint32_t *n)
{
    if (numbers[at] == UINT32_MAX) numbers[at] = (*n)++;
    return numbers[at];
}

/* Hosts hang alike: each below as many switches, and all below one in the end. */
static enum rail_result hang(struct network *n, const struct fabric *f, uint32_t *numbers, uint32_t *tiers)
{
    uint32_t tops = 0, n_tops = 0, first_line = 0;
    for (uint32_t h = 0; h < n->n_hosts; h++) {
        int32_t at, above = -1, top;
        const char *name = fabric_host_at(f, h, &at);
        uint32_t depth = 0;
        for (top = at; top >= 0 && depth < PLACE_TIERS; top = above, depth++) {
            above = fabric_switch_at(f, (uint32_t)top).above;
            if (above < 0) break;
        }
        if (top < 0) return rail_fail(RAIL_E_ARGUMENT, "%s: host %s is under no switch", fabric_source(f), name);
        depth++;
        if (h == 0) *tiers = depth, first_line = fabric_switch_at(f, (uint32_t)at).line;
        if (depth != *tiers || depth > 3)
            return rail_fail(
                RAIL_E_ARGUMENT,
                "%s: host %s has %u switches above it, the first host (leaf in line %u) %u; the what-if wants "
                "the same number for all, at most 3",
                fabric_source(f), name, depth, first_line, *tiers);
        tops += numbers[top] == UINT32_MAX && *tiers > 1;
        if (*tiers > 1) numbered(numbers, (uint32_t)top, &n_tops);
        if (tops > 1)
            return rail_fail(RAIL_E_ARGUMENT,
                             "%s: no switch joins host %s with the first one: they do not reach each other",
                             fabric_source(f), name);
    }
    return RAIL_OK;
}

static enum rail_result group(struct network *n, const struct fabric *f, uint32_t *numbers, uint32_t tiers)
{
    for (uint32_t h = 0; h < n->n_hosts; h++) {
        int32_t leaf;
        fabric_host_at(f, h, &leaf);
        n->unit_of[h] = numbered(numbers, (uint32_t)leaf, &n->n_units);
    }
    n->pod_of = calloc(at_least_one(n->n_units), sizeof *n->pod_of);
    if (!n->pod_of) return rail_fail(RAIL_E_SYSTEM, "network: out of memory for %u leaves", n->n_units);
    n->n_pods = tiers == 3 ? 0 : 1;
    for (uint32_t h = 0; h < n->n_hosts && tiers == 3; h++) {
        int32_t leaf;
        fabric_host_at(f, h, &leaf);
        n->pod_of[n->unit_of[h]] = numbered(numbers, (uint32_t)fabric_switch_at(f, (uint32_t)leaf).above, &n->n_pods);
    }
    return RAIL_OK;
}

enum rail_result network_of_fabric(struct network *out, const struct fabric *fabric,
                                   const struct network_request *request)
{
    struct network n = {.n_hosts = fabric_n_hosts(fabric), .fabric = fabric};
    struct network_request q = *request;
    uint32_t switches = fabric_n_switches(fabric);
    if (n.n_hosts == 0)
        return rail_fail(RAIL_E_ARGUMENT, "%s: names no hosts; write: hosts HOSTLIST under SWITCH",
                         fabric_source(fabric));
    uint32_t *numbers = malloc(at_least_one(switches) * sizeof *numbers);
    n.unit_of = malloc(n.n_hosts * sizeof *n.unit_of);
    enum rail_result r = numbers && n.unit_of ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "network: out of memory");
    if (r == RAIL_OK) memset(numbers, 0xff, at_least_one(switches) * sizeof *numbers);
    if (r == RAIL_OK) r = hang(&n, fabric, numbers, &q.tiers);
    if (r == RAIL_OK) r = group(&n, fabric, numbers, q.tiers);
    free(numbers);
    q.hosts = n.n_hosts;
    if (r == RAIL_OK) r = check_request(&q);
    if (r != RAIL_OK) return network_clear(&n), r;
    /* even fabrics: uplinks are for the mean of what hangs below */
    if (!q.hosts_per_leaf) q.hosts_per_leaf = ratio_up(n.n_hosts, n.n_units);
    if (!q.units_per_pod) q.units_per_pod = ratio_up(n.n_units, n.n_pods);
    complete_request(&q);
    count(&n, &q);
    if ((r = allocate(&n)) != RAIL_OK) return network_clear(&n), r;
    set_rates(&n, &q);
    *out = n;
    return RAIL_OK;
}

/* ---- parts ---- */

uint64_t network_nic(const struct network *n, uint32_t host, uint32_t rail, uint32_t port)
{
    return ((uint64_t)host * n->n_rails + rail) * n->n_ports + port;
}

uint32_t network_leaf(const struct network *n, uint32_t host, uint32_t rail, uint32_t port)
{
    if (n->kind == NETWORK_FAT_TREE) return n->unit_of[host];
    return (n->unit_of[host] * n->n_rails + rail) * n->n_ports + port;
}

uint32_t network_plane(const struct network *n, uint32_t leaf) { return n->n_planes > 1 ? leaf % n->n_ports : 0; }

uint32_t network_leaf_pod(const struct network *n, uint32_t leaf)
{
    return n->pod_of[n->kind == NETWORK_FAT_TREE ? leaf : leaf / (n->n_rails * n->n_ports)];
}

struct place network_place(const struct network *n, uint32_t host)
{
    struct place place = {{0}};
    uint32_t unit = n->unit_of[host];
    if (n->n_pods > 1) place.tier[0] = 1 + n->pod_of[unit], place.tier[1] = 1 + unit;
    else place.tier[0] = 1 + unit;
    return place;
}

const char *network_host_name(const struct network *n, uint32_t host, char out[NETWORK_NAME_BYTES])
{
    int32_t under;
    if (n->fabric) snprintf(out, NETWORK_NAME_BYTES, "%.60s", fabric_host_at(n->fabric, host, &under));
    else if (n->named) snprintf(out, NETWORK_NAME_BYTES, "%.60s", n->named[host].name);
    else snprintf(out, NETWORK_NAME_BYTES, "host%u", host);
    return out;
}

enum network_tier network_link_tier(const struct network *n, uint64_t link)
{
    int t = 0;
    while (t + 1 < NETWORK_TIERS && link >= n->first[t + 1]) t++;
    return (enum network_tier)t;
}

const char *network_link_name(const struct network *n, uint64_t link, char out[NETWORK_NAME_BYTES])
{
    enum network_tier tier = network_link_tier(n, link);
    uint64_t k = link - n->first[tier];
    char host[NETWORK_NAME_BYTES], port[16] = "";
    bool up = tier == NETWORK_NIC_UP || tier == NETWORK_LEAF_UP || tier == NETWORK_SPINE_UP;
    if (tier <= NETWORK_NIC_DOWN) {
        uint64_t nic = k / n->n_ports, at = nic / n->n_rails;
        if (n->n_ports > 1) snprintf(port, sizeof port, ".%u", (unsigned)(k % n->n_ports));
        snprintf(out, NETWORK_NAME_BYTES, "nic:%.40s.%u%s %s", network_host_name(n, (uint32_t)at, host),
                 (unsigned)(nic % n->n_rails), port, up ? "out" : "in");
    } else if (tier <= NETWORK_LEAF_DOWN) {
        uint32_t leaf = (uint32_t)(k / n->n_spines), s = (uint32_t)(k % n->n_spines);
        uint32_t spine = (network_leaf_pod(n, leaf) * n->n_planes + network_plane(n, leaf)) * n->n_spines + s;
        snprintf(out, NETWORK_NAME_BYTES, up ? "leaf:%u to spine:%u" : "leaf:%u from spine:%u", leaf, spine);
    } else {
        uint32_t spine = (uint32_t)(k / n->n_cores), c = (uint32_t)(k % n->n_cores);
        uint32_t core = spine % (n->n_planes * n->n_spines) * n->n_cores + c;
        snprintf(out, NETWORK_NAME_BYTES, up ? "spine:%u to core:%u" : "spine:%u from core:%u", spine, core);
    }
    return out;
}
