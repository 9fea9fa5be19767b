/* topo_json.c - a machine for programs: every fact with its source. Unknown numbers are left out. */
#include <string.h>

#include "json.h"
#include "topo.h"
#include "topo/fabric_show.h"

static void source(struct json *j, const char *name, struct topo_origin origin)
{
    char words[TOPO_TEXT_BYTES + 64];
    json_open(j, name, '{');
    json_text(j, "how", topo_how_name(origin.how));
    json_text(j, "text", topo_origin_text(origin, words, sizeof words));
    json_close(j, '}');
}

static void tri(struct json *j, const char *name, enum topo_tri value)
{
    if (value != TOPO_MAYBE) json_truth(j, name, value == TOPO_YES);
}

static void hex(struct json *j, const char *name, uint64_t value)
{
    char words[24];
    snprintf(words, sizeof words, "0x%016llx", (unsigned long long)value);
    json_text(j, name, words);
}

static void write_gids(struct json *j, const struct topo_net *net)
{
    char words[64];
    if (net->n_gids == 0) return;
    json_open(j, "gids", '[');
    for (uint32_t i = 0; i < net->n_gids && i < TOPO_GIDS_KEPT; i++) {
        json_open(j, NULL, '{');
        json_number(j, "index", net->gids[i].index);
        json_text(j, "gid", topo_gid_text(&net->gids[i], words));
        json_close(j, '}');
    }
    json_close(j, ']');
    source(j, "gids_source", net->gids_origin);
}

static void write_net(struct json *j, const struct topo_net *net)
{
    if (net->dev >= 0) json_number(j, "dev", net->dev);
    json_number(j, "port", net->port);
    if (net->mbit_per_s > 0) json_number(j, "mbit_per_s", net->mbit_per_s), source(j, "rate_source", net->rate_origin);
    if (net->mtu > 0) json_number(j, "mtu_bytes", net->mtu), source(j, "mtu_source", net->mtu_origin);
    if (net->slaves > 0) json_number(j, "bonded_ports", net->slaves);
    if (net->netdev[0]) json_text(j, "interface", net->netdev);
    if (net->address[0]) json_text(j, "address", net->address);
    if (net->leaves_by[0]) json_text(j, "leaves_by", net->leaves_by);
    json_truth(j, "rdma", net->verbs);
    if (net->type != TOPO_NET_UNKNOWN)
        json_text(j, "link_layer", net->type == TOPO_NET_INFINIBAND ? "InfiniBand" : "Ethernet");
    if (net->guid) hex(j, "guid", net->guid);
    if (net->verbs_mtu > 0)
        json_number(j, "rdma_mtu_bytes", net->verbs_mtu), source(j, "rdma_mtu_source", net->verbs_mtu_origin);
    write_gids(j, net);
    tri(j, "up", net->up);
    tri(j, "gdr", net->gdr);
    json_truth(j, "virtual_function", net->virtual_function);
}

static void write_node(struct json *j, const struct topo_graph *g, uint32_t i)
{
    const struct topo_node *n = &g->nodes[i];
    char bus[24];
    json_open(j, NULL, '{');
    json_number(j, "id", i);
    json_text(j, "kind", topo_kind_name(n->kind));
    json_text(j, "name", n->name);
    json_number(j, "number", n->number);
    if (n->parent != TOPO_NONE) json_number(j, "parent", n->parent);
    if (n->bus != TOPO_NO_BUS) json_text(j, "bus", topo_bus_text(n->bus, bus));
    source(j, "source", n->origin);
    if (n->gt_per_s > 0) json_number(j, "gt_per_s", n->gt_per_s);
    if (n->lanes > 0) json_number(j, "lanes", n->lanes);
    if (n->kind == TOPO_CPU && n->cpu.numa >= 0) json_number(j, "numa", n->cpu.numa);
    if (n->kind == TOPO_CPU && n->cpu.package >= 0) json_number(j, "package", n->cpu.package);
    if (n->kind == TOPO_CPU && n->cpu.vendor[0]) json_text(j, "vendor", n->cpu.vendor);
    if (n->kind == TOPO_GPU && n->gpu.dev >= 0) json_number(j, "dev", n->gpu.dev);
    if (n->kind == TOPO_GPU && n->gpu.sm >= 0) json_number(j, "sm", n->gpu.sm);
    if (n->kind == TOPO_GPU && n->gpu.minor >= 0) json_number(j, "minor", n->gpu.minor);
    if (n->kind == TOPO_GPU && n->gpu.driver_origin.how != TOPO_UNKNOWN)
        source(j, "driver_source", n->gpu.driver_origin);
    if (n->kind == TOPO_GPU) tri(j, "gdr", n->gpu.gdr);
    if (n->kind == TOPO_NET) write_net(j, &n->net);
    json_close(j, '}');
}

static void write_link(struct json *j, const struct topo_link *l)
{
    json_open(j, NULL, '{');
    json_text(j, "kind", topo_link_name(l->kind));
    json_number(j, "a", l->a);
    json_number(j, "b", l->b);
    if (l->count) json_number(j, "count", l->count);
    json_number(j, "gb_per_s", l->rate.gb_per_s);
    source(j, "source", l->rate.origin);
    json_close(j, '}');
}

static void write_binding(struct json *j, const struct topo_graph *g, const struct topo_binding *b)
{
    json_open(j, NULL, '{');
    json_number(j, "gpu", g->nodes[b->gpu].number);
    json_text(j, "nic", g->nodes[b->net].name);
    json_number(j, "rail", b->rail);
    json_truth(j, "first", b->first);
    json_text(j, "class", topo_class_name(b->pxn.class));
    json_text(j, "direct_class", topo_class_name(b->path.class));
    json_number(j, "gb_per_s", b->pxn.gb_per_s);
    if (b->pxn.via != TOPO_NONE) json_number(j, "through_gpu", g->nodes[b->pxn.via].number);
    json_truth(j, "gpudirect", b->direct);
    if (b->why_not[0]) json_text(j, "why_not", b->why_not);
    json_text(j, "why", b->why);
    json_close(j, '}');
}

static void write_host(struct json *j, const struct topo_view *v, uint32_t host)
{
    const struct topo_graph *g = v->graph;
    const struct topo_map *map = &v->maps[host];
    char words[160];
    json_open(j, NULL, '{');
    json_open(j, "nodes", '[');
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].host == host) fputc('\n', j->out), write_node(j, g, i);
    json_close(j, ']');
    json_open(j, "links", '[');
    for (uint32_t i = 0; i < g->n_links; i++)
        if (g->nodes[g->links[i].a].host == host) fputc('\n', j->out), write_link(j, &g->links[i]);
    json_close(j, ']');
    json_open(j, "gpus", '[');
    for (uint32_t i = 0; i < map->n_bindings; i++) fputc('\n', j->out), write_binding(j, g, &map->bindings[i]);
    json_close(j, ']');
    json_open(j, "rails", '[');
    for (uint32_t i = 0; i < map->n_rails; i++) {
        json_open(j, NULL, '{');
        json_number(j, "rail", map->rails[i].number);
        json_text(j, "nic", g->nodes[map->rails[i].net].name);
        json_number(j, "gpus", map->rails[i].n_gpus);
        json_text(j, "key_source", topo_rail_key_source(v, map->rails[i].net, words));
        json_close(j, '}');
    }
    json_close(j, ']');
    json_text(j, "rails_numbered", map->how);
    json_open(j, "findings", '[');
    for (uint32_t i = 0; i < v->findings[host].n; i++) {
        json_open(j, NULL, '{');
        json_text(j, "weight", topo_weight_name(v->findings[host].at[i].weight));
        json_text(j, "text", v->findings[host].at[i].text);
        json_close(j, '}');
    }
    json_close(j, ']');
    json_close(j, '}');
}

static void write_fabric(struct json *j, const struct topo_view *v)
{
    struct fabric_rail_facts rails[FABRIC_RAILS_SHOWN];
    uint32_t path[PLACE_TIERS], n = fabric_path(v->fabric, v->host_name, path);
    uint32_t n_rails = fabric_rails(v->fabric, rails, FABRIC_RAILS_SHOWN);
    json_open(j, "fabric", '{');
    json_text(j, "source", fabric_source(v->fabric));
    json_text(j, "host", v->host_name);
    json_open(j, "path", '[');
    for (uint32_t i = 0; i < n; i++) json_text(j, NULL, fabric_switch_at(v->fabric, path[i]).name);
    json_close(j, ']');
    json_open(j, "switches", '[');
    for (uint32_t i = 0; i < fabric_n_switches(v->fabric); i++) {
        struct fabric_switch_facts facts = fabric_switch_at(v->fabric, i);
        json_open(j, NULL, '{');
        json_text(j, "name", facts.name);
        json_number(j, "tier", facts.tier);
        if (facts.above >= 0) json_text(j, "above", fabric_switch_at(v->fabric, (uint32_t)facts.above).name);
        json_number(j, "line", facts.line);
        json_close(j, '}');
    }
    json_close(j, ']');
    json_open(j, "hosts", '[');
    for (uint32_t i = 0; i < fabric_n_hosts(v->fabric); i++) {
        int32_t under;
        json_open(j, NULL, '{');
        json_text(j, "name", fabric_host_at(v->fabric, i, &under));
        if (under >= 0) json_text(j, "leaf", fabric_switch_at(v->fabric, (uint32_t)under).name);
        json_close(j, '}');
    }
    json_close(j, ']');
    json_open(j, "rails", '[');
    for (uint32_t i = 0; i < n_rails; i++) {
        json_open(j, NULL, '{');
        json_text(j, "rail", rails[i].name);
        json_number(j, "nics", rails[i].n_nics);
        json_number(j, "hosts", rails[i].n_hosts);
        json_number(j, "subnets", rails[i].n_subnets);
        json_close(j, '}');
    }
    json_close(j, ']');
    json_close(j, '}');
}

void topo_write_json(const struct topo_view *view, FILE *out)
{
    struct json j = {out, false};
    json_open(&j, NULL, '{');
    json_text(&j, "title", view->title);
    json_text(&j, "source", view->graph->source);
    json_truth(&j, "pci_tree_hidden", view->graph->flat);
    json_open(&j, "hosts", '[');
    for (uint32_t h = 0; h < view->graph->n_hosts; h++) write_host(&j, view, h);
    json_close(&j, ']');
    if (view->fabric) write_fabric(&j, view);
    json_close(&j, '}');
    fputc('\n', out);
}
