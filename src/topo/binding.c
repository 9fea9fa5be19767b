/* binding.c - GPU to NIC to rail: each GPU's set of nearest ports, shared evenly (dealing.h), and the rails' numbers. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "topo/binding.h"
#include "topo/dealing.h"

struct matching {
    const struct topo_graph *graph;
    uint32_t *gpus, *nets, n_gpus, n_nets;
    struct topo_path *paths; /* [gpu][net] */
    bool *near;              /* [gpu][net]: one of the GPU's nearest */
    uint32_t *port_of;       /* [gpu] index of a net, or TOPO_NONE */
    uint32_t *load;          /* [net] */
};

enum topo_class topo_gdr_level(const char *text)
{
    static const enum topo_class old[] = {PATH_LOC, PATH_PIX, PATH_PXB, PATH_PHB, PATH_SYS};
    if (text && text[0] >= '0' && text[0] <= '4' && !text[1]) return old[text[0] - '0'];
    for (int class = PATH_LOC; text && class <= PATH_SYS; class++)
        if (strcasecmp(text, topo_class_name((enum topo_class)class)) == 0) return (enum topo_class)class;
    return PATH_P2C;
}

static struct topo_path *path_of(const struct matching *m, uint32_t g, uint32_t n)
{
    return &m->paths[g * m->n_nets + n];
}

/* --- which ports count -------------------------------------------------------------------------------------------- */

static bool any_verbs(const struct topo_graph *graph, uint32_t host)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const struct topo_node *n = &graph->nodes[i];
        if (n->kind == TOPO_NET && n->host == host && n->net.verbs && n->net.up != TOPO_NO) return true;
    }
    return false;
}

static double fastest(const struct topo_graph *graph, uint32_t host)
{
    double most = 0;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const struct topo_node *n = &graph->nodes[i];
        if (n->kind == TOPO_NET && n->host == host && n->net.up != TOPO_NO && n->net.mbit_per_s > most)
            most = n->net.mbit_per_s;
    }
    return most;
}

/* Down, without verbs where others have them, or less than a quarter of the fastest: management's, not the fabric's. */
static bool is_rail(const struct topo_node *n, bool verbs, double most)
{
    if (n->net.up == TOPO_NO || n->net.virtual_function || (verbs && !n->net.verbs)) return false;
    return n->net.mbit_per_s <= 0 || n->net.mbit_per_s * 4 >= most;
}

static enum rail_result choose_ports(struct matching *m, uint32_t host, struct topo_map *map)
{
    const struct topo_graph *graph = m->graph;
    uint32_t n = topo_graph_of_kind(graph, host, TOPO_NET, NULL, 0);
    uint32_t *all = calloc(n + 1, sizeof *all);
    m->nets = calloc(n + 1, sizeof *m->nets);
    map->unused = calloc(n + 1, sizeof *map->unused);
    if (!all || !m->nets || !map->unused)
        return free(all), rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's map");
    topo_graph_of_kind(graph, host, TOPO_NET, all, n);
    double most = fastest(graph, host);
    bool verbs = any_verbs(graph, host);
    for (uint32_t i = 0; i < n; i++) {
        if (is_rail(&graph->nodes[all[i]], verbs, most)) m->nets[m->n_nets++] = all[i];
        else map->unused[map->n_unused++] = all[i];
    }
    free(all);
    return RAIL_OK;
}

/* --- matching ----------------------------------------------------------------------------------------------------- */

static enum rail_result find_paths(struct matching *m)
{
    struct topo_path *all = calloc(m->graph->n_nodes + 1, sizeof *all);
    if (!all) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's map");
    enum rail_result result = RAIL_OK;
    for (uint32_t g = 0; g < m->n_gpus && result == RAIL_OK; g++) {
        result = topo_paths_from(m->graph, m->gpus[g], all);
        for (uint32_t n = 0; n < m->n_nets && result == RAIL_OK; n++) *path_of(m, g, n) = all[m->nets[n]];
    }
    free(all);
    return result;
}

static void mark_nearest(struct matching *m)
{
    for (uint32_t g = 0; g < m->n_gpus; g++)
        for (uint32_t n = 0; n < m->n_nets; n++) {
            bool near = path_of(m, g, n)->class < PATH_NET;
            for (uint32_t k = 0; k < m->n_nets && near; k++) near = !topo_path_nearer(path_of(m, g, k), path_of(m, g, n));
            m->near[g * m->n_nets + n] = near;
        }
}

/* A port that no GPU got: the GPU nearest to it with the fewest ports. TOPO_NONE: none reaches it. */
static uint32_t gpu_for(const struct matching *m, uint32_t n, const uint32_t *ports)
{
    uint32_t best = TOPO_NONE;
    for (uint32_t g = 0; g < m->n_gpus; g++) {
        const struct topo_path *path = path_of(m, g, n);
        if (path->class >= PATH_NET) continue;
        if (best == TOPO_NONE || topo_path_nearer(path, path_of(m, best, n)) ||
            (!topo_path_nearer(path_of(m, best, n), path) && ports[g] < ports[best]))
            best = g;
    }
    return best;
}

/* --- numbering ---------------------------------------------------------------------------------------------------- */

/* Near enough that the board was made for the pair. */
static bool made_for(const struct matching *m, uint32_t g, uint32_t n) { return path_of(m, g, n)->class <= PATH_P2C; }

static uint32_t first_gpu(const struct matching *m, uint32_t n)
{
    for (uint32_t g = 0; g < m->n_gpus; g++)
        if (m->port_of[g] == n && made_for(m, g, n)) return g;
    return TOPO_NONE;
}

/* As many GPUs per port as most ports serve. */
static uint32_t usual_load(const struct matching *m)
{
    uint32_t best = 1, votes = 0;
    for (uint32_t n = 0; n < m->n_nets; n++) {
        uint32_t same = 0;
        for (uint32_t k = 0; k < m->n_nets; k++) same += m->load[k] == m->load[n];
        if (same > votes && m->load[n] > 0) best = m->load[n], votes = same;
    }
    return best;
}

/* By the GPU's place, if there are fewer ports than places, all ports have a GPU made for them, and order agrees. */
static bool number_by_place(struct matching *m, uint32_t *number, uint32_t *n_numbers)
{
    uint32_t usual = usual_load(m), previous = 0;
    *n_numbers = (m->n_gpus + usual - 1) / usual;
    if (m->n_nets >= *n_numbers) return false;
    for (uint32_t n = 0; n < m->n_nets; n++) {
        uint32_t g = first_gpu(m, n);
        if (g == TOPO_NONE) return false;
        number[n] = g / usual;
        if (n > 0 && number[n] <= previous) return false;
        previous = number[n];
    }
    return true;
}

static enum rail_result number_rails(struct matching *m, struct topo_map *map)
{
    uint32_t *number = calloc(m->n_nets + 1, sizeof *number);
    map->rails = calloc(m->n_nets + 1, sizeof *map->rails);
    if (!number || !map->rails) return free(number), rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's map");
    bool placed = m->n_gpus > 0 && m->n_nets > 0 && number_by_place(m, number, &map->n_numbers);
    if (placed)
        snprintf(map->how, sizeof map->how, "by the place of the GPU beside each port: %u of %u ports are there",
                 m->n_nets, map->n_numbers);
    else
        snprintf(map->how, sizeof map->how, "in order of the ports' %s",
                 m->n_nets && m->graph->nodes[m->nets[0]].net.dev >= 0 ? "numbers" : "places on the bus");
    if (!placed) map->n_numbers = m->n_nets;
    for (uint32_t n = 0; n < m->n_nets; n++) {
        uint32_t rail = placed ? number[n] : n;
        map->rails[map->n_rails++] = (struct topo_rail){.net = m->nets[n], .number = rail, .n_gpus = m->load[n]};
    }
    free(number);
    return RAIL_OK;
}

/* --- words -------------------------------------------------------------------------------------------------------- */

static void judge_direct(const struct topo_graph *graph, struct topo_binding *b, enum topo_class level)
{
    const struct topo_node *gpu = &graph->nodes[b->gpu], *net = &graph->nodes[b->net];
    b->direct = false;
    if (gpu->gpu.gdr == TOPO_NO) snprintf(b->why_not, sizeof b->why_not, "the GPU's driver does not offer its memory");
    else if (net->net.gdr == TOPO_NO)
        snprintf(b->why_not, sizeof b->why_not, "the NIC's driver cannot reach GPU memory");
    else if (b->pxn.class == PATH_PXN && PATH_PXN > level)
        snprintf(b->why_not, sizeof b->why_not, "by way of a GPU beside the NIC only");
    else if (b->path.class > level)
        snprintf(b->why_not, sizeof b->why_not, "%s is farther than NCCL_NET_GDR_LEVEL=%s",
                 topo_class_name(b->path.class), topo_class_name(level));
    else b->direct = true;
}

static void explain(const struct matching *m, uint32_t g, uint32_t n, struct topo_binding *b)
{
    uint32_t route[TOPO_MAX_DEPTH], as_near = 0, sharing = m->load[n], used = 0;
    uint32_t hops = topo_path_route(m->graph, b->gpu, b->net, route, TOPO_MAX_DEPTH);
    for (uint32_t k = 0; k < m->n_nets; k++) as_near += m->near[g * m->n_nets + k];
    char *out = b->why;
    size_t room = sizeof b->why;
    int got = snprintf(out, room, "%s", topo_class_text(b->path.class));
    for (uint32_t i = 1; i + 1 < hops && i < TOPO_MAX_DEPTH; i++) {
        const struct topo_node *node = &m->graph->nodes[route[i]];
        if (node->kind != TOPO_PCI && node->kind != TOPO_CPU) continue;
        if (got < (int)room)
            got += snprintf(out + got, room - (size_t)got, "%s %s", used++ ? " -" : " (through", node->name);
    }
    if (used && got < (int)room) got += snprintf(out + got, room - (size_t)got, ")");
    if (as_near > 1 && got < (int)room) got += snprintf(out + got, room - (size_t)got, "; one of %u as near", as_near);
    if (sharing > 1 && got < (int)room) got += snprintf(out + got, room - (size_t)got, "; shared by %u GPUs", sharing);
    if (b->pxn.class == PATH_PXN && got < (int)room)
        snprintf(out + got, room - (size_t)got, "; better over NVLink and %s", m->graph->nodes[b->pxn.via].name);
}

static enum rail_result bind(const struct matching *m, struct topo_map *map, uint32_t g, uint32_t n, bool first,
                             enum topo_class level)
{
    struct topo_binding *b = &map->bindings[map->n_bindings++];
    *b = (struct topo_binding){.gpu = m->gpus[g], .net = m->nets[n], .rail = map->rails[n].number, .first = first,
                               .path = *path_of(m, g, n)};
    RAIL_TRY(topo_path_pxn(m->graph, b->gpu, b->net, &b->pxn));
    judge_direct(m->graph, b, level);
    explain(m, g, n, b);
    return RAIL_OK;
}

static enum rail_result bind_all(struct matching *m, struct topo_map *map, enum topo_class level)
{
    uint32_t *ports = calloc(m->n_gpus + 1, sizeof *ports), *owner = calloc(m->n_nets + 1, sizeof *owner);
    enum rail_result result = RAIL_OK;
    map->bindings = calloc(m->n_gpus + m->n_nets + 1, sizeof *map->bindings);
    if (!ports || !owner || !map->bindings) result = rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's map");
    for (uint32_t g = 0; g < m->n_gpus && result == RAIL_OK; g++) ports[g] = m->port_of[g] != TOPO_NONE;
    for (uint32_t n = 0; n < m->n_nets && result == RAIL_OK; n++) {
        owner[n] = m->load[n] == 0 ? gpu_for(m, n, ports) : TOPO_NONE;
        if (owner[n] != TOPO_NONE) ports[owner[n]]++;
    }
    for (uint32_t g = 0; g < m->n_gpus && result == RAIL_OK; g++) {
        if (m->port_of[g] != TOPO_NONE) result = bind(m, map, g, m->port_of[g], true, level);
        for (uint32_t n = 0; n < m->n_nets && result == RAIL_OK; n++)
            if (owner[n] == g) result = bind(m, map, g, n, false, level);
    }
    free(ports);
    free(owner);
    return result;
}

static enum rail_result open_matching(struct matching *m, const struct topo_graph *graph, uint32_t host,
                                      struct topo_map *map)
{
    *m = (struct matching){.graph = graph};
    m->n_gpus = topo_graph_of_kind(graph, host, TOPO_GPU, NULL, 0);
    RAIL_TRY(choose_ports(m, host, map));
    size_t pairs = (size_t)m->n_gpus * m->n_nets + 1;
    m->gpus = calloc(m->n_gpus + 1, sizeof *m->gpus);
    m->paths = calloc(pairs, sizeof *m->paths);
    m->near = calloc(pairs, sizeof *m->near);
    m->port_of = calloc(m->n_gpus + 1, sizeof *m->port_of);
    m->load = calloc(m->n_nets + 1, sizeof *m->load);
    if (!m->gpus || !m->paths || !m->near || !m->port_of || !m->load)
        return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's map");
    topo_graph_of_kind(graph, host, TOPO_GPU, m->gpus, m->n_gpus);
    return RAIL_OK;
}

static void close_matching(struct matching *m)
{
    free(m->gpus);
    free(m->nets);
    free(m->paths);
    free(m->near);
    free(m->port_of);
    free(m->load);
}

static enum rail_result build(struct matching *m, struct topo_map *map, enum topo_class level)
{
    RAIL_TRY(find_paths(m));
    mark_nearest(m);
    const struct dealing dealing = {m->n_gpus, m->n_nets, m->near, m->port_of, m->load};
    RAIL_TRY(dealing_run(&dealing));
    RAIL_TRY(number_rails(m, map));
    return bind_all(m, map, level);
}

enum rail_result topo_map_build(const struct topo_graph *graph, uint32_t host, enum topo_class gdr_level,
                                struct topo_map *out)
{
    struct matching m;
    struct topo_map map = {0};
    enum rail_result result = open_matching(&m, graph, host, &map);
    if (result == RAIL_OK) result = build(&m, &map, gdr_level);
    close_matching(&m);
    if (result == RAIL_OK) *out = map;
    else topo_map_clear(&map);
    return result;
}

void topo_map_clear(struct topo_map *map)
{
    free(map->bindings);
    free(map->rails);
    free(map->unused);
    memset(map, 0, sizeof *map);
}
