/* plan_topology.c - hosts from what `railccl topo --json`, `--xml` and NCCL_TOPO_DUMP_FILE wrote on them: ranks, rails,
 * rates. A NIC is as fast as its port or the PCI link that it hangs on, whichever is less. */
#include <stdlib.h>
#include <string.h>

#include "foreign/jansson.h"
#include "plan.h"
#include "topo/binding.h"
#include "topo/xml.h"

struct hosts { struct network_host *at; uint32_t n, room; };

/* NULL: out of memory. */
static struct network_host *add_host(struct hosts *all, const char *name, uint32_t number, bool several)
{
    if (all->n == all->room) {
        uint32_t room = all->room ? 2 * all->room : 16;
        struct network_host *more = realloc(all->at, room * sizeof *more);
        if (!more) return rail_fail(RAIL_E_SYSTEM, "out of memory for %u hosts", room), NULL;
        all->at = more, all->room = room;
    }
    struct network_host *h = &all->at[all->n++];
    *h = (struct network_host){.n_gpus = 0};
    if (several) snprintf(h->name, sizeof h->name, "%.40s-%u", name, number);
    else snprintf(h->name, sizeof h->name, "%.52s", name);
    return h;
}

static enum rail_result set_rail(struct network_host *h, uint32_t rail, double port_gbyte_s, double pci_gbyte_s)
{
    double least = pci_gbyte_s > 0 && (pci_gbyte_s < port_gbyte_s || port_gbyte_s <= 0) ? pci_gbyte_s : port_gbyte_s;
    if (rail >= NETWORK_RAILS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "%s: rail %u; at most %d are simulated", h->name, rail, NETWORK_RAILS_MAX);
    if (!(least > 0))
        return rail_fail(RAIL_E_ARGUMENT, "%s: nothing tells the rate of the NIC on rail %u", h->name, rail);
    h->gbit[rail] = 8 * least;
    return RAIL_OK;
}

/* "/dumps/node7.xml" is of host node7. */
static const char *base_name(const char *path, char out[64])
{
    const char *slash = strrchr(path, '/');
    snprintf(out, 64, "%.60s", slash ? slash + 1 : path);
    char *dot = strrchr(out, '.');
    if (dot && (strcmp(dot, ".xml") == 0 || strcmp(dot, ".json") == 0)) *dot = '\0';
    return out;
}

/* ---- NCCL's XML ---- */

static double rate_up(const struct topo_graph *g, uint32_t node)
{
    const struct topo_link *up = node == TOPO_NONE ? NULL : topo_graph_up(g, node);
    return up ? up->rate.gb_per_s : 0;
}

static enum rail_result host_of_graph(const struct topo_graph *g, uint32_t host, const struct topo_map *map,
                                      struct network_host *out)
{
    out->n_gpus = topo_graph_of_kind(g, host, TOPO_GPU, NULL, 0);
    if (map->n_rails == 0) return rail_fail(RAIL_E_ARGUMENT, "%s: no NIC that is up", out->name);
    for (uint32_t r = 0; r < map->n_rails; r++) {
        uint32_t net = map->rails[r].net;
        RAIL_TRY(set_rail(out, map->rails[r].number, rate_up(g, net), rate_up(g, g->nodes[net].parent)));
    }
    return RAIL_OK;
}

static enum rail_result read_xml(const char *path, struct hosts *all)
{
    struct topo_graph *g;
    char name[64];
    RAIL_TRY(topo_xml_read_file(path, &g));
    enum rail_result r = RAIL_OK;
    for (uint32_t h = 0; r == RAIL_OK && h < g->n_hosts; h++) {
        struct topo_map map;
        struct network_host *host = add_host(all, base_name(path, name), h, g->n_hosts > 1);
        r = host ? topo_map_build(g, h, topo_gdr_level(NULL), &map) : RAIL_E_SYSTEM;
        if (r != RAIL_OK) break;
        r = host_of_graph(g, h, &map, host);
        topo_map_clear(&map);
    }
    topo_graph_destroy(g);
    return r;
}

/* ---- railccl's JSON ---- */

struct seeking {
    const char *name, *kind; /* a node of that name and kind; or the rate of a link of that kind up from node `id` */
    double id, parent, rate;
    uint32_t n;              /* nodes of that kind */
};

static bool is_text(const struct json_t *value, const char *name, const char *text)
{
    const char *is = jansson_text(jansson_member(value, name));
    return is && strcmp(is, text) == 0;
}

static void see_node(void *context, const char *name, const struct json_t *value)
{
    struct seeking *s = context;
    (void)name;
    if (!is_text(value, "kind", s->kind)) return;
    s->n++;
    if (!s->name || !is_text(value, "name", s->name)) return;
    s->id = jansson_number(jansson_member(value, "id"), -1);
    s->parent = jansson_number(jansson_member(value, "parent"), -1);
}

static void see_link(void *context, const char *name, const struct json_t *value)
{
    struct seeking *s = context;
    (void)name;
    if (is_text(value, "kind", s->kind) && jansson_number(jansson_member(value, "a"), -1) == s->id)
        s->rate = jansson_number(jansson_member(value, "gb_per_s"), 0);
}

struct reading {
    struct hosts *all;
    const char *title;
    const struct json_t *host; /* whose rails are read */
    struct network_host *into;
    uint32_t number;
    bool several;
    enum rail_result result;
};

static void see_rail(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    const struct json_t *links = jansson_member(r->host, "links");
    struct seeking port = {.kind = "port", .name = jansson_text(jansson_member(value, "nic")), .id = -1, .parent = -1};
    (void)name;
    if (r->result != RAIL_OK) return;
    double rail = jansson_number(jansson_member(value, "rail"), -1);
    jansson_each(jansson_member(r->host, "nodes"), see_node, &port);
    struct seeking pci = {.kind = "PCIe", .id = port.parent};
    if (port.id >= 0) jansson_each(links, see_link, &port), jansson_each(links, see_link, &pci);
    if (rail < 0 || !port.name)
        r->result = rail_fail(RAIL_E_ARGUMENT, "%s: a rail without number or NIC", r->into->name);
    else r->result = set_rail(r->into, rail < 1e6 ? (uint32_t)rail : UINT32_MAX, port.rate, pci.rate);
}

static void count_host(void *context, const char *name, const struct json_t *value)
{
    (void)name, (void)value;
    ++*(uint32_t *)context;
}

static void see_host(void *context, const char *name, const struct json_t *value)
{
    struct reading *r = context;
    struct seeking gpus = {.kind = "GPU"};
    double most;
    (void)name;
    if (r->result != RAIL_OK) return;
    r->host = value;
    r->into = add_host(r->all, r->title, r->number++, r->several);
    if (!r->into) { r->result = RAIL_E_SYSTEM; return; }
    jansson_each(jansson_member(value, "nodes"), see_node, &gpus);
    r->into->n_gpus = gpus.n;
    jansson_each(jansson_member(value, "rails"), see_rail, r);
    if (r->result == RAIL_OK && network_hosts_rails(r->into, 1, &most) == 0)
        r->result = rail_fail(RAIL_E_ARGUMENT, "%s: no NIC that is up", r->into->name);
}

static enum rail_result read_json(const char *path, const char *text, size_t bytes, struct hosts *all)
{
    struct json_t *root;
    char name[64];
    RAIL_TRY(jansson_read(text, bytes, path, &root));
    struct reading r = {.all = all};
    uint32_t n = 0;
    const struct json_t *hosts = jansson_member(root, "hosts");
    jansson_each(hosts, count_host, &n);
    r.title = base_name(path, name);
    r.several = n > 1;
    jansson_each(hosts, see_host, &r);
    if (n == 0) r.result = rail_fail(RAIL_E_ARGUMENT, "%s: no \"hosts\": write it by railccl topo --json", path);
    jansson_free(root);
    return r.result;
}

/* ---- which of them ---- */

static enum rail_result read_file(const char *path, struct hosts *all)
{
    FILE *in = fopen(path, "r");
    if (!in) return rail_fail(RAIL_E_ARGUMENT, "%s: %m", path);
    char *text = malloc(JANSSON_MOST_BYTES + 1);
    size_t bytes = text ? fread(text, 1, JANSSON_MOST_BYTES + 1, in) : 0, first = 0;
    fclose(in);
    if (!text) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory", path);
    while (first < bytes && strchr(" \t\r\n", text[first])) first++;
    enum rail_result r = first < bytes && text[first] == '{' ? read_json(path, text, bytes, all) : read_xml(path, all);
    free(text);
    return r;
}

enum rail_result plan_read_topologies(const char *const *paths, uint32_t n, struct network_host **out, uint32_t *n_out)
{
    struct hosts all = {0};
    enum rail_result r = RAIL_OK;
    for (uint32_t k = 0; r == RAIL_OK && k < n; k++) r = read_file(paths[k], &all);
    if (r != RAIL_OK) return free(all.at), r;
    *out = all.at;
    *n_out = all.n;
    return RAIL_OK;
}
