/* topo_json.c - a machine for programs: every fact with its source. Unknown numbers are left out. */
#include <string.h>

#include "topo.h"
#include "topo/fabric_show.h"

struct json { FILE *out; bool comma; };

static void quote(struct json *j, const char *text)
{
    fputc('"', j->out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(j->out, "\\%c", c);
        else if (c < ' ' || c == 0x7f) fprintf(j->out, "\\u%04x", c);
        else fputc(c, j->out);
    }
    fputc('"', j->out);
}

static void key(struct json *j, const char *name)
{
    if (j->comma) fputs(", ", j->out);
    j->comma = true;
    if (!name) return;
    quote(j, name);
    fputs(": ", j->out);
}

static void text(struct json *j, const char *name, const char *value) { key(j, name), quote(j, value); }
static void number(struct json *j, const char *name, double value) { key(j, name), fprintf(j->out, "%.10g", value); }
static void truth(struct json *j, const char *name, bool value)
{
    key(j, name), fputs(value ? "true" : "false", j->out);
}

static void open_in(struct json *j, const char *name, char bracket)
{
    key(j, name);
    fputc(bracket, j->out);
    j->comma = false;
}

static void close_in(struct json *j, char bracket)
{
    fputc(bracket, j->out);
    j->comma = true;
}

static void source(struct json *j, const char *name, struct topo_origin origin)
{
    char words[TOPO_TEXT_BYTES + 64];
    open_in(j, name, '{');
    text(j, "how", topo_how_name(origin.how));
    text(j, "text", topo_origin_text(origin, words, sizeof words));
    close_in(j, '}');
}

static void tri(struct json *j, const char *name, enum topo_tri value)
{
    if (value != TOPO_MAYBE) truth(j, name, value == TOPO_YES);
}

static void hex(struct json *j, const char *name, uint64_t value)
{
    char words[24];
    snprintf(words, sizeof words, "0x%016llx", (unsigned long long)value);
    text(j, name, words);
}

static void write_gids(struct json *j, const struct topo_net *net)
{
    char words[64];
    if (net->n_gids == 0) return;
    open_in(j, "gids", '[');
    for (uint32_t i = 0; i < net->n_gids && i < TOPO_GIDS_KEPT; i++) {
        open_in(j, NULL, '{');
        number(j, "index", net->gids[i].index);
        text(j, "gid", topo_gid_text(&net->gids[i], words));
        close_in(j, '}');
    }
    close_in(j, ']');
    source(j, "gids_source", net->gids_origin);
}

static void write_net(struct json *j, const struct topo_net *net)
{
    if (net->dev >= 0) number(j, "dev", net->dev);
    number(j, "port", net->port);
    if (net->mbit_per_s > 0) number(j, "mbit_per_s", net->mbit_per_s), source(j, "rate_source", net->rate_origin);
    if (net->mtu > 0) number(j, "mtu_bytes", net->mtu), source(j, "mtu_source", net->mtu_origin);
    if (net->slaves > 0) number(j, "bonded_ports", net->slaves);
    if (net->netdev[0]) text(j, "interface", net->netdev);
    if (net->address[0]) text(j, "address", net->address);
    if (net->leaves_by[0]) text(j, "leaves_by", net->leaves_by);
    truth(j, "rdma", net->verbs);
    if (net->type != TOPO_NET_UNKNOWN)
        text(j, "link_layer", net->type == TOPO_NET_INFINIBAND ? "InfiniBand" : "Ethernet");
    if (net->guid) hex(j, "guid", net->guid);
    if (net->verbs_mtu > 0)
        number(j, "rdma_mtu_bytes", net->verbs_mtu), source(j, "rdma_mtu_source", net->verbs_mtu_origin);
    write_gids(j, net);
    tri(j, "up", net->up);
    tri(j, "gdr", net->gdr);
    truth(j, "virtual_function", net->virtual_function);
}

static void write_node(struct json *j, const struct topo_graph *g, uint32_t i)
{
    const struct topo_node *n = &g->nodes[i];
    char bus[24];
    open_in(j, NULL, '{');
    number(j, "id", i);
    text(j, "kind", topo_kind_name(n->kind));
    text(j, "name", n->name);
    number(j, "number", n->number);
    if (n->parent != TOPO_NONE) number(j, "parent", n->parent);
    if (n->bus != TOPO_NO_BUS) text(j, "bus", topo_bus_text(n->bus, bus));
    source(j, "source", n->origin);
    if (n->gt_per_s > 0) number(j, "gt_per_s", n->gt_per_s);
    if (n->lanes > 0) number(j, "lanes", n->lanes);
    if (n->kind == TOPO_CPU && n->cpu.numa >= 0) number(j, "numa", n->cpu.numa);
    if (n->kind == TOPO_CPU && n->cpu.package >= 0) number(j, "package", n->cpu.package);
    if (n->kind == TOPO_CPU && n->cpu.vendor[0]) text(j, "vendor", n->cpu.vendor);
    if (n->kind == TOPO_GPU && n->gpu.dev >= 0) number(j, "dev", n->gpu.dev);
    if (n->kind == TOPO_GPU && n->gpu.sm >= 0) number(j, "sm", n->gpu.sm);
    if (n->kind == TOPO_GPU && n->gpu.minor >= 0) number(j, "minor", n->gpu.minor);
    if (n->kind == TOPO_GPU && n->gpu.driver_origin.how != TOPO_UNKNOWN) source(j, "driver_source", n->gpu.driver_origin);
    if (n->kind == TOPO_GPU) tri(j, "gdr", n->gpu.gdr);
    if (n->kind == TOPO_NET) write_net(j, &n->net);
    close_in(j, '}');
}

static void write_link(struct json *j, const struct topo_link *l)
{
    open_in(j, NULL, '{');
    text(j, "kind", topo_link_name(l->kind));
    number(j, "a", l->a);
    number(j, "b", l->b);
    if (l->count) number(j, "count", l->count);
    number(j, "gb_per_s", l->rate.gb_per_s);
    source(j, "source", l->rate.origin);
    close_in(j, '}');
}

static void write_binding(struct json *j, const struct topo_graph *g, const struct topo_binding *b)
{
    open_in(j, NULL, '{');
    number(j, "gpu", g->nodes[b->gpu].number);
    text(j, "nic", g->nodes[b->net].name);
    number(j, "rail", b->rail);
    truth(j, "first", b->first);
    text(j, "class", topo_class_name(b->pxn.class));
    text(j, "direct_class", topo_class_name(b->path.class));
    number(j, "gb_per_s", b->pxn.gb_per_s);
    if (b->pxn.via != TOPO_NONE) number(j, "through_gpu", g->nodes[b->pxn.via].number);
    truth(j, "gpudirect", b->direct);
    if (b->why_not[0]) text(j, "why_not", b->why_not);
    text(j, "why", b->why);
    close_in(j, '}');
}

static void write_host(struct json *j, const struct topo_view *v, uint32_t host)
{
    const struct topo_graph *g = v->graph;
    const struct topo_map *map = &v->maps[host];
    char words[160];
    open_in(j, NULL, '{');
    open_in(j, "nodes", '[');
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].host == host) fputc('\n', j->out), write_node(j, g, i);
    close_in(j, ']');
    open_in(j, "links", '[');
    for (uint32_t i = 0; i < g->n_links; i++)
        if (g->nodes[g->links[i].a].host == host) fputc('\n', j->out), write_link(j, &g->links[i]);
    close_in(j, ']');
    open_in(j, "gpus", '[');
    for (uint32_t i = 0; i < map->n_bindings; i++) fputc('\n', j->out), write_binding(j, g, &map->bindings[i]);
    close_in(j, ']');
    open_in(j, "rails", '[');
    for (uint32_t i = 0; i < map->n_rails; i++) {
        open_in(j, NULL, '{');
        number(j, "rail", map->rails[i].number);
        text(j, "nic", g->nodes[map->rails[i].net].name);
        number(j, "gpus", map->rails[i].n_gpus);
        text(j, "key_source", topo_rail_key_source(v, map->rails[i].net, words));
        close_in(j, '}');
    }
    close_in(j, ']');
    text(j, "rails_numbered", map->how);
    open_in(j, "findings", '[');
    for (uint32_t i = 0; i < v->findings[host].n; i++) {
        open_in(j, NULL, '{');
        text(j, "weight", topo_weight_name(v->findings[host].at[i].weight));
        text(j, "text", v->findings[host].at[i].text);
        close_in(j, '}');
    }
    close_in(j, ']');
    close_in(j, '}');
}

static void write_fabric(struct json *j, const struct topo_view *v)
{
    struct fabric_rail_facts rails[FABRIC_RAILS_SHOWN];
    uint32_t path[PLACE_TIERS], n = fabric_path(v->fabric, v->host_name, path);
    uint32_t n_rails = fabric_rails(v->fabric, rails, FABRIC_RAILS_SHOWN);
    open_in(j, "fabric", '{');
    text(j, "source", fabric_source(v->fabric));
    text(j, "host", v->host_name);
    open_in(j, "path", '[');
    for (uint32_t i = 0; i < n; i++) text(j, NULL, fabric_switch_at(v->fabric, path[i]).name);
    close_in(j, ']');
    open_in(j, "switches", '[');
    for (uint32_t i = 0; i < fabric_n_switches(v->fabric); i++) {
        struct fabric_switch_facts facts = fabric_switch_at(v->fabric, i);
        open_in(j, NULL, '{');
        text(j, "name", facts.name);
        number(j, "tier", facts.tier);
        if (facts.above >= 0) text(j, "above", fabric_switch_at(v->fabric, (uint32_t)facts.above).name);
        number(j, "line", facts.line);
        close_in(j, '}');
    }
    close_in(j, ']');
    open_in(j, "hosts", '[');
    for (uint32_t i = 0; i < fabric_n_hosts(v->fabric); i++) {
        int32_t under;
        open_in(j, NULL, '{');
        text(j, "name", fabric_host_at(v->fabric, i, &under));
        if (under >= 0) text(j, "leaf", fabric_switch_at(v->fabric, (uint32_t)under).name);
        close_in(j, '}');
    }
    close_in(j, ']');
    open_in(j, "rails", '[');
    for (uint32_t i = 0; i < n_rails; i++) {
        open_in(j, NULL, '{');
        text(j, "rail", rails[i].name);
        number(j, "nics", rails[i].n_nics);
        number(j, "hosts", rails[i].n_hosts);
        number(j, "subnets", rails[i].n_subnets);
        close_in(j, '}');
    }
    close_in(j, ']');
    close_in(j, '}');
}

void topo_write_json(const struct topo_view *view, FILE *out)
{
    struct json j = {out, false};
    open_in(&j, NULL, '{');
    text(&j, "title", view->title);
    text(&j, "source", view->graph->source);
    truth(&j, "pci_tree_hidden", view->graph->flat);
    open_in(&j, "hosts", '[');
    for (uint32_t h = 0; h < view->graph->n_hosts; h++) write_host(&j, view, h);
    close_in(&j, ']');
    if (view->fabric) write_fabric(&j, view);
    close_in(&j, '}');
    fputc('\n', out);
}
