/* network_fault.c - parts that are slow or down: every link of the part, each way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simulate/network.h"

static void scale(struct network *n, enum network_tier tier, uint64_t k, double factor)
{
    for (int way = 0; way < 2; way++) n->rate[n->first[tier + way] + k] *= (float)factor;
    n->faulty |= factor == 0;
}

static void nic_fault(struct network *n, uint32_t host, uint32_t rail, uint32_t port, double factor)
{
    scale(n, NETWORK_NIC_UP, network_nic(n, host, rail, port), factor);
}

static void leaf_fault(struct network *n, uint32_t leaf, double factor)
{
    for (uint32_t s = 0; s < n->n_spines; s++) scale(n, NETWORK_LEAF_UP, (uint64_t)leaf * n->n_spines + s, factor);
    for (uint32_t h = 0; h < n->n_hosts; h++)
        for (uint32_t r = 0; r < n->n_rails; r++)
            for (uint32_t p = 0; p < n->n_ports; p++)
                if (network_leaf(n, h, r, p) == leaf) nic_fault(n, h, r, p, factor);
}

static void spine_fault(struct network *n, uint32_t spine, double factor)
{
    uint32_t s = spine % n->n_spines, plane = spine / n->n_spines % n->n_planes,
             pod = spine / n->n_spines / n->n_planes;
    for (uint32_t leaf = 0; leaf < n->n_leaves; leaf++)
        if (network_plane(n, leaf) == plane && network_leaf_pod(n, leaf) == pod)
            scale(n, NETWORK_LEAF_UP, (uint64_t)leaf * n->n_spines + s, factor);
    for (uint32_t c = 0; c < n->n_cores; c++) scale(n, NETWORK_SPINE_UP, (uint64_t)spine * n->n_cores + c, factor);
}

static void core_fault(struct network *n, uint32_t core, double factor)
{
    uint32_t spines = n->n_planes * n->n_spines, spine = core / n->n_cores, c = core % n->n_cores;
    for (uint32_t pod = 0; pod < n->n_pods; pod++)
        scale(n, NETWORK_SPINE_UP, ((uint64_t)pod * spines + spine) * n->n_cores + c, factor);
}

static bool number(const char *text, uint32_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9' || strlen(text) > 9) return false;
    *out = (uint32_t)strtoul(text, &end, 10);
    return *end == '\0';
}

/* The host of that name. */
static bool host_named(const struct network *n, const char *name, uint32_t *out)
{
    char text[NETWORK_NAME_BYTES];
    for (uint32_t h = 0; h < n->n_hosts; h++)
        if (strcmp(network_host_name(n, h, text), name) == 0) return *out = h, true;
    return false;
}

/* "HOST.RAIL" or "HOST.RAIL.PORT": what a dot cuts off at the end. */
static bool cut_number(char *text, uint32_t *out)
{
    char *dot = strrchr(text, '.');
    if (!dot || !number(dot + 1, out)) return false;
    *dot = '\0';
    return true;
}

static enum rail_result nic_named(struct network *n, const char *what, const char *value, bool with_port, double factor)
{
    char text[NETWORK_NAME_BYTES];
    uint32_t host, rail, port = 0;
    snprintf(text, sizeof text, "%s", value);
    if (strlen(value) >= sizeof text || (with_port && !cut_number(text, &port)) || !cut_number(text, &rail) || !text[0])
        return rail_fail(RAIL_E_ARGUMENT, "\"%.80s\": write nic:HOST.RAIL or port:HOST.RAIL.PORT", what);
    if (!host_named(n, text, &host))
        return rail_fail(RAIL_E_ARGUMENT, "\"%.80s\": the fabric has no host %s; %s", what, text,
                         n->fabric  ? "names are those of the fabric file"
                         : n->named ? "names are those of the topology files"
                                    : "hosts are host0, host1 ...");
    if (rail >= n->n_rails || port >= n->n_ports)
        return rail_fail(RAIL_E_ARGUMENT, "\"%.80s\": hosts have %u NICs of %u port%s, counted from 0", what,
                         n->n_rails, n->n_ports, n->n_ports == 1 ? "" : "s");
    for (uint32_t p = 0; p < n->n_ports; p++)
        if (!with_port || p == port) nic_fault(n, host, rail, p, factor);
    return RAIL_OK;
}

enum rail_result network_fault(struct network *n, const char *what, double factor)
{
    const struct {
        const char *word;
        uint32_t n;
        void (*apply)(struct network *n, uint32_t index, double factor);
    } switches[] = {
        {"leaf:", n->n_leaves, leaf_fault},
        {"spine:", n->n_pods * n->n_planes * n->n_spines, spine_fault},
        {"core:", n->n_planes * n->n_spines * n->n_cores, core_fault},
    };
    if (strncmp(what, "nic:", 4) == 0) return nic_named(n, what, what + 4, false, factor);
    if (strncmp(what, "port:", 5) == 0) return nic_named(n, what, what + 5, true, factor);
    for (int k = 0; k < 3; k++) {
        uint32_t index;
        if (strncmp(what, switches[k].word, strlen(switches[k].word)) != 0) continue;
        if (!number(what + strlen(switches[k].word), &index) || index >= switches[k].n)
            return rail_fail(RAIL_E_ARGUMENT, "\"%.80s\": the fabric has %u of these, counted from 0", what,
                             switches[k].n);
        switches[k].apply(n, index, factor);
        return RAIL_OK;
    }
    return rail_fail(RAIL_E_ARGUMENT, "\"%.80s\": write nic:HOST.RAIL, port:HOST.RAIL.PORT, leaf:N, spine:N or core:N",
                     what);
}
