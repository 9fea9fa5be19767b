/* rails_agree.c - what all hosts know of their NICs becomes one answer, the same everywhere: which is on which rail.
 *
 *   addresses of all ranks --> NICs of all nodes --> rails_group --undecided?--> probe_run --> rails_group
 *                                                         |                                      |
 *                                                         +--> NCCL_NETDEVS_POLICY --> keys back into the addresses
 *
 * The keys are of this communicator; lanes are shared with others, whichever made them first. */
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "core/probe.h"
#include "core/rails.h"
#include "topo/machine.h"

struct nic_place { uint32_t rank, index; };

/* The NICs of all nodes, each once, though every process of a host tells of it. */
struct fleet {
    struct comm *comm;
    struct rail_nic *nics;
    struct nic_place *places; /* [n]: where it was found first */
    uint32_t *of;             /* [n_ranks x NET_MAX_RAILS] */
    uint32_t n;
};

static const struct net_rail_address *at(const struct fleet *f, uint32_t nic)
{
    return &f->comm->addresses[f->places[nic].rank].rails[f->places[nic].index];
}

static bool same_nic(const struct net_rail_address *a, const struct net_rail_address *b)
{
    return a->family == b->family && memcmp(a->address, b->address, sizeof a->address) == 0 &&
           strncmp(a->name, b->name, sizeof a->name) == 0;
}

static void take(struct fleet *f, uint32_t node, uint32_t rank, uint32_t index, uint32_t first)
{
    const struct net_rail_address *nic = &f->comm->addresses[rank].rails[index];
    uint32_t i = first;
    while (i < f->n && !same_nic(at(f, i), nic)) i++;
    f->of[rank * NET_MAX_RAILS + index] = i;
    if (i < f->n) return;
    struct sockaddr_storage address;
    probe_sockaddr(nic, nic->name, 0, &address);
    f->places[f->n] = (struct nic_place){rank, index};
    f->nics[f->n++] = (struct rail_nic){.host = node, .label = nic->facts.label, .label_from = nic->facts.label_from,
                                        .tried = nic->facts.tried != 0,
                                        .leaf = nic->facts.leaf, .probed = nic->facts.probed,
                                        .subnet = rails_subnet_key(&address, nic->prefix_bits)};
}

static enum rail_result fleet_make(struct comm *comm, struct fleet *f)
{
    const struct shape *shape = &comm->shape;
    uint32_t n = 0;
    for (uint32_t r = 0; r < comm->n_ranks; r++) n += comm->addresses[r].n_rails;
    *f = (struct fleet){.comm = comm,
                        .nics = calloc(n + 1, sizeof *f->nics),
                        .places = calloc(n + 1, sizeof *f->places),
                        .of = calloc((size_t)comm->n_ranks * NET_MAX_RAILS, sizeof *f->of)};
    if (!f->nics || !f->places || !f->of) return rail_fail(RAIL_E_SYSTEM, "rails of %u NICs: out of memory", n);
    for (uint32_t node = 0; node < shape->n_nodes; node++)
        for (uint32_t k = shape->node_start[node], first = f->n; k < shape->node_start[node + 1]; k++)
            for (uint32_t i = 0; i < comm->addresses[shape->order[k]].n_rails; i++)
                take(f, node, shape->order[k], i, first);
    return RAIL_OK;
}

static void fleet_free(struct fleet *f)
{
    free(f->nics);
    free(f->places);
    free(f->of);
}

/* ---- words ---- */

/* "node 3 (host n04) eth1 10.1.1.4/24" */
static void nic_words(const struct fleet *f, uint32_t nic, char *out, size_t bytes)
{
    const struct net_rail_address *a = at(f, nic);
    char address[INET6_ADDRSTRLEN] = "?";
    inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->address, address, sizeof address);
    snprintf(out, bytes, "node %u (host %.31s) %.15s %s/%u", f->nics[nic].host,
             f->comm->members[f->places[nic].rank].host_name, a->name, address, a->prefix_bits);
}

/* What a source says of a NIC: "on rail 3", "on switch leaf1", "in its subnet". */
static void said(const struct fleet *f, uint32_t nic, enum rails_source source, char *out, size_t bytes)
{
    const struct rail_facts *facts = &at(f, nic)->facts;
    if (source == RAILS_BY_FABRIC || source == RAILS_BY_HCA) snprintf(out, bytes, "on rail %.23s", facts->label_text);
    else if (source == RAILS_BY_LLDP) snprintf(out, bytes, "on switch %.23s", facts->leaf_text);
    else if (source == RAILS_BY_SUBNET) snprintf(out, bytes, "in one subnet");
    else snprintf(out, bytes, "nearest to one another");
}

static void tell_conflict(const struct fleet *f, const struct rail_conflict *c)
{
    char a[160], b[160], weak_a[60], weak_b[60], strong_a[60], strong_b[60];
    enum rails_source by_a = f->nics[c->a].by, by_b = f->nics[c->b].by;
    nic_words(f, c->a, a, sizeof a);
    nic_words(f, c->b, b, sizeof b);
    said(f, c->a, c->weaker, weak_a, sizeof weak_a);
    said(f, c->b, c->weaker, weak_b, sizeof weak_b);
    if (c->twin == UINT32_MAX) {
        said(f, c->a, RAILS_BY_FABRIC, strong_a, sizeof strong_a);
        said(f, c->b, RAILS_BY_FABRIC, strong_b, sizeof strong_b);
        RAIL_WARN("rails: contradiction: %s and %s are %s%s%s; but the first is %s by %s, the second %s by %s, and that is "
                  "believed. Check the cables and what was written down", a, b, weak_a,
                  c->weaker == RAILS_BY_SUBNET ? "" : " by ",
                  c->weaker == RAILS_BY_SUBNET ? "" : rails_source_name(c->weaker),
                  at(f, c->a)->facts.label ? strong_a : "beside NICs on one rail", rails_source_name(by_a),
                  at(f, c->b)->facts.label ? strong_b : "beside NICs on another rail", rails_source_name(by_b));
        return;
    }
    char twin[160], doubled[160];
    nic_words(f, c->twin, twin, sizeof twin);
    nic_words(f, c->doubled, doubled, sizeof doubled);
    RAIL_WARN("rails: contradiction: %s (%s) and %s (%s) belong together by %s; but then %s and %s, which %s and %s put "
              "on different rails, would be on one. The stronger sources are believed. Check the cables and what was "
              "written down",
              a, weak_a, b, weak_b, rails_source_name(c->weaker), twin, doubled, rails_source_name(f->nics[c->twin].by),
              rails_source_name(f->nics[c->doubled].by));
}

static void tell_conflicts(const struct fleet *f, const struct rail_verdict *verdict)
{
    uint32_t n = verdict->n_conflicts < RAILS_CONFLICTS_MAX ? verdict->n_conflicts : RAILS_CONFLICTS_MAX;
    for (uint32_t i = 0; i < n; i++) tell_conflict(f, &verdict->conflicts[i]);
    if (verdict->n_conflicts > n) RAIL_WARN("rails: %u more contradictions like these", verdict->n_conflicts - n);
}

/* ---- NCCL_NETDEVS_POLICY ---- */

/* How many rails a rank may use; 0: all. */
static enum rail_result netdevs_most(uint32_t *out)
{
    const char *text = rail_param_str(RAIL_PARAM_NCCL_NETDEVS_POLICY);
    char *end = NULL;
    *out = 0;
    if (strcasecmp(text, "AUTO") == 0 || strcasecmp(text, "ALL") == 0) return RAIL_OK;
    long n = strncasecmp(text, "MAX:", 4) == 0 && text[4] >= '0' && text[4] <= '9' ? strtol(text + 4, &end, 10) : 0;
    if (n < 1 || n > 1000 || *end != '\0')
        return rail_fail(RAIL_E_ARGUMENT, "NCCL_NETDEVS_POLICY=\"%.60s\": must be AUTO, ALL or MAX:N with N from 1 to 1000",
                         text);
    *out = (uint32_t)n;
    return RAIL_OK;
}

/* A rail as far as the policy counts: of NICs that share a key on one host (or have none), the k-th of each host. */
struct slot { uint64_t key; uint32_t k, hosts; bool kept; };

static uint32_t nth_of_key(const struct fleet *f, uint32_t nic)
{
    uint32_t k = 0;
    for (uint32_t i = nic; i > 0 && f->nics[i - 1].host == f->nics[nic].host; i--)
        k += f->nics[i - 1].key == f->nics[nic].key;
    return k;
}

static struct slot *slot_of(struct slot *slots, uint32_t n, uint64_t key, uint32_t k)
{
    for (uint32_t i = 0; i < n; i++)
        if (slots[i].key == key && slots[i].k == k) return &slots[i];
    return NULL;
}

/* Keeps the rails that most hosts have; among equals those whose NICs come first, which are the best (machine.h). */
static enum rail_result limit_netdevs(struct fleet *f)
{
    uint32_t most, n = 0;
    RAIL_TRY(netdevs_most(&most));
    if (most == 0 || f->n == 0) return RAIL_OK;
    struct slot *slots = calloc(f->n, sizeof *slots);
    uint64_t *keys = calloc(f->n, sizeof *keys);
    enum rail_result result = slots && keys ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "NCCL_NETDEVS_POLICY: out of memory");
    for (uint32_t i = 0; result == RAIL_OK && i < f->n; i++) {
        uint32_t k = nth_of_key(f, i);
        struct slot *s = slot_of(slots, n, f->nics[i].key, k);
        if (!s) *(s = &slots[n++]) = (struct slot){.key = f->nics[i].key, .k = k};
        s->hosts++;
    }
    for (uint32_t kept = 0; kept < most && kept < n; kept++) {
        struct slot *best = NULL;
        for (uint32_t i = 0; i < n; i++)
            if (!slots[i].kept && (!best || slots[i].hosts > best->hosts)) best = &slots[i];
        best->kept = true;
    }
    for (uint32_t i = 0; result == RAIL_OK && i < f->n; i++)
        keys[i] = slot_of(slots, n, f->nics[i].key, nth_of_key(f, i))->kept ? f->nics[i].key : RAILS_LEFT_OUT;
    for (uint32_t from = 0, to; result == RAIL_OK && from < f->n; from = to) {
        bool any = false;
        for (to = from; to < f->n && f->nics[to].host == f->nics[from].host; to++) any |= keys[to] != RAILS_LEFT_OUT;
        if (any) continue;
        for (uint32_t i = from; i < to && i < from + most; i++) keys[i] = f->nics[i].key; /* it has none of these rails */
    }
    for (uint32_t i = 0; result == RAIL_OK && i < f->n; i++) f->nics[i].key = keys[i];
    free(slots);
    free(keys);
    return result;
}

/* ---- telling ---- */

/* Rails have the numbers of their first appearance, as in the map that rank 0 prints. */
static uint32_t number_of(const struct fleet *f, uint32_t nic)
{
    uint32_t number = 0;
    for (uint32_t i = 0; i < nic; i++) {
        bool seen = f->nics[i].key == 0 || f->nics[i].key == RAILS_LEFT_OUT;
        if (f->nics[i].key == f->nics[nic].key) return number;
        for (uint32_t k = 0; k < i && !seen; k++) seen = f->nics[k].key == f->nics[i].key;
        number += !seen;
    }
    return number;
}

static void tell_own(const struct fleet *f)
{
    const struct comm *comm = f->comm;
    const struct net_address *own = &comm->addresses[comm->rank];
    for (uint32_t i = 0; i < own->n_rails; i++) {
        uint32_t nic = f->of[comm->rank * NET_MAX_RAILS + i];
        const struct rail_nic *n = &f->nics[nic];
        char words[160];
        nic_words(f, nic, words, sizeof words);
        if (n->key == RAILS_LEFT_OUT)
            RAIL_INFO(RAIL_INIT, "rails: %s is left out by NCCL_NETDEVS_POLICY", words);
        else if (n->key == 0)
            RAIL_INFO(RAIL_INIT, "rails: %s is on no known rail: nothing says it, NICs are paired in order", words);
        else
            RAIL_INFO(RAIL_INIT, "rails: %s is on rail %u by %s%s%.23s", words, number_of(f, nic),
                      rails_source_name(n->by), at(f, nic)->facts.label ? ", called " : "", at(f, nic)->facts.label_text);
    }
}

/* What leaves by another NIC than it should; each NIC with its partner on one other node. */
static void tell_strays(const struct fleet *f)
{
    const struct comm *comm = f->comm;
    const struct net_address *own = &comm->addresses[comm->rank];
    for (uint32_t i = 0; own->n_rails > 1 && i < own->n_rails; i++) {
        struct machine_interface nic = {.prefix_bits = own->rails[i].prefix_bits};
        uint32_t mine = f->of[comm->rank * NET_MAX_RAILS + i], other = 0, k = nth_of_key(f, mine);
        while (other < f->n && (f->nics[other].host == f->nics[mine].host || f->nics[other].key != f->nics[mine].key ||
                                nth_of_key(f, other) != k || at(f, other)->family != own->rails[i].family))
            other++;
        if (other == f->n || f->nics[mine].key == RAILS_LEFT_OUT) continue;
        struct sockaddr_storage to;
        char words[160], address[INET6_ADDRSTRLEN] = "?";
        const char *why;
        memcpy(nic.name, own->rails[i].name, sizeof nic.name - 1);
        probe_sockaddr(&own->rails[i], nic.name, 0, &nic.address);
        probe_sockaddr(at(f, other), nic.name, 0, &to);
        nic_words(f, mine, words, sizeof words);
        inet_ntop(own->rails[i].family == 4 ? AF_INET : AF_INET6, own->rails[i].address, address, sizeof address);
        enum machine_egress egress = machine_egress(&nic, &to, &why);
        if (egress == MACHINE_EGRESS_BIND)
            RAIL_INFO(RAIL_INIT, "rails: %s: the kernel would send by another NIC; its sockets are bound to the device",
                      words);
        if (egress == MACHINE_EGRESS_STRAYS || egress == MACHINE_EGRESS_NOWHERE)
            RAIL_WARN("rails: %s: the kernel sends what comes from it by another NIC, and binding to the device does not "
                      "help (%s). Set net.ipv4.conf.all.arp_ignore=1, arp_announce=2 and rp_filter=2 by sysctl, or give "
                      "the address a rule and a table (ip rule add from %s table 101; ip route add ... dev %s table 101)",
                      words, why, address, nic.name);
    }
}

/* ---- the whole ---- */

static enum rail_result group(struct fleet *f, const struct rail_near *near, uint32_t n_near,
                              struct rail_verdict *verdict)
{
    if (rails_group(f->nics, f->n, near, n_near, verdict) == 0) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "rails of %u NICs: out of memory", f->n);
}

static enum rail_result probe_and_group(struct fleet *f, struct rail_deadline deadline, struct rail_verdict *verdict)
{
    struct probe_pair *pairs = NULL;
    uint32_t n = 0;
    RAIL_TRY(probe_run(f->comm, deadline, &pairs, &n));
    struct rail_near *near = calloc(n + 1, sizeof *near);
    enum rail_result result = near ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "probed pairs: out of memory");
    for (uint32_t i = 0; near && i < n; i++)
        near[i] = (struct rail_near){f->of[pairs[i].rank_a * NET_MAX_RAILS + pairs[i].nic_a],
                                     f->of[pairs[i].rank_b * NET_MAX_RAILS + pairs[i].nic_b]};
    if (result == RAIL_OK) result = group(f, near, n, verdict);
    free(near);
    free(pairs);
    if (result == RAIL_OK && verdict->undecided && f->comm->rank == 0)
        RAIL_INFO(RAIL_INIT, "rails: probing did not tell all NICs apart; those it did not are paired in the order of "
                  "interfaces. A fabric file (RAILCCL_FABRIC) settles it");
    return result;
}

/* Communicators made later, of the same ranks or some of them, need not measure again, nor try again in vain. */
static void remember(const struct fleet *f)
{
    uint64_t keys[NET_MAX_RAILS] = {0};
    const struct comm *comm = f->comm;
    for (uint32_t i = 0; i < comm->addresses[comm->rank].n_rails; i++) {
        const struct rail_nic *nic = &f->nics[f->of[comm->rank * NET_MAX_RAILS + i]];
        struct { uint64_t comm, rail; } told = {comm->wires.comm_key, nic->key};
        if (nic->by == RAILS_BY_PROBE) keys[i] = rail_hash64(&told, sizeof told, 44) | 1;
    }
    net_rails_probed(keys);
}

static enum rail_result agree(struct fleet *f, struct rail_deadline deadline)
{
    const char *probe = rail_param_str(RAIL_PARAM_PROBE);
    struct comm *comm = f->comm;
    struct rail_verdict verdict;
    RAIL_TRY(group(f, NULL, 0, &verdict));
    if (strcmp(probe, "on") == 0 || (strcmp(probe, "auto") == 0 && verdict.undecided)) {
        RAIL_TRY(probe_and_group(f, deadline, &verdict));
        remember(f);
    }
    if (comm->rank == 0) tell_conflicts(f, &verdict);
    RAIL_TRY(limit_netdevs(f));
    for (uint32_t r = 0; r < comm->n_ranks; r++)
        for (uint32_t i = 0; i < comm->addresses[r].n_rails; i++)
            comm->addresses[r].rails[i].rail = f->nics[f->of[r * NET_MAX_RAILS + i]].key;
    if (comm->shape.peer_of[comm->rank] != 0) return RAIL_OK;
    tell_own(f);
    tell_strays(f);
    return RAIL_OK;
}

enum rail_result rails_agree(struct comm *comm, struct rail_deadline deadline)
{
    struct fleet f;
    if (comm->shape.n_nodes < 2) return RAIL_OK;
    enum rail_result result = fleet_make(comm, &f);
    if (result == RAIL_OK) result = agree(&f, deadline);
    fleet_free(&f);
    return result;
}
