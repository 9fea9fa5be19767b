/* nvlink.c - one link per pair of ends, however it was told. */
#include "topo/nvlink.h"

#include "topo/rates.h"

static struct topo_link *between(struct topo_graph *graph, uint32_t a, uint32_t b)
{
    for (uint32_t l = 0; l < graph->n_links; l++) {
        struct topo_link *link = &graph->links[l];
        if (link->kind == TOPO_LINK_NVL && ((link->a == a && link->b == b) || (link->a == b && link->b == a))) return link;
    }
    return NULL;
}

uint32_t nvlink_switch(struct topo_graph *graph, uint32_t host, struct topo_origin origin)
{
    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].kind == TOPO_NVS && graph->nodes[i].host == host) return i;
    uint32_t node = topo_graph_add(graph, TOPO_NVS, TOPO_NONE, origin);
    if (node != TOPO_NONE) graph->nodes[node].host = host;
    return node;
}

enum rail_result nvlink_add(struct topo_graph *graph, uint32_t gpu, uint32_t to, uint32_t count, const char *where)
{
    struct topo_link *old = between(graph, gpu, to);
    struct topo_rate each = topo_rate_nvlink(graph->nodes[gpu].gpu.sm);
    if (old && old->a == gpu) {
        old->count += count;
        old->rate.gb_per_s = old->count * each.gb_per_s;
        return RAIL_OK;
    }
    if (old && graph->nodes[to].kind == TOPO_GPU) { /* the other end */
        if (old->count == count) return RAIL_OK;
        topo_graph_remark(graph,
                          "%s gives %u NVLinks between two GPUs, their other end %u: the smaller number is used", where,
                          count, old->count);
        if (count < old->count) old->count = count, old->rate.gb_per_s = count * each.gb_per_s;
        return RAIL_OK;
    }
    each.gb_per_s *= count;
    struct topo_link link = {.kind = TOPO_LINK_NVL, .a = gpu, .b = to, .count = count, .rate = each};
    return topo_graph_link(graph, link);
}
