/* Any bytes as a machine in NCCL's XML: refused with a text, or read; then everything that is derived from a machine
 * works, and written as XML it reads back to the same text. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo/home.h"
#include "topo/print.h"
#include "topo/xml.h"

static void check(int good, const char *what)
{
    if (good) return;
    fprintf(stderr, "%s: %s\n", what, rail_last_error());
    abort();
}

static char *as_xml(const struct topo_graph *graph)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    check(out && topo_xml_write(graph, out) == RAIL_OK && fclose(out) == 0, "writing XML");
    return text;
}

/* Homes of some ranks, for every port as a NIC that lanes use. */
static void settle(const struct topo_graph *graph)
{
    char names[HOME_NICS_MAX][HOME_NAME_BYTES];
    uint64_t buses[HOME_NICS_MAX];
    struct home_view view;
    struct home_place places[HOME_PLACES_MAX] = {{0}};
    struct home homes[HOME_PLACES_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < graph->n_nodes && n < HOME_NICS_MAX; i++) {
        if (graph->nodes[i].kind != TOPO_NET) continue;
        snprintf(names[n], sizeof names[n], "%.15s", graph->nodes[i].name);
        buses[n++] = graph->nodes[i].bus;
    }
    check(home_look(graph, n, (const char(*)[HOME_NAME_BYTES])names, buses, &view) == RAIL_OK, "looking for homes");
    for (uint32_t i = 0; i < view.n_places; i++) places[i] = (struct home_place){.kind = view.at[i].kind, .id = view.at[i].id};
    check(home_deal(&view, 0xffff, HOME_PLACES_MAX, places, homes) == RAIL_OK, "homes");
    for (uint32_t i = 0; i < HOME_PLACES_MAX; i++) check(homes[i].nic == 0 || homes[i].nic < n, "a NIC that is there");
}

static void derive(const struct topo_graph *graph, uint32_t host)
{
    struct topo_map map;
    struct topo_findings findings;
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    check(topo_map_build(graph, host, PATH_P2C, &map) == RAIL_OK, "the map");
    check(topo_findings_collect(graph, host, &map, &findings) == RAIL_OK, "the findings");
    topo_print_answer(graph, host, &map, &findings, out);
    topo_print_facts(graph, host, out);
    if (host == 0 && graph->n_nodes <= 48) settle(graph); /* a search per place: large ones would slow the fuzzer down */
    check(fclose(out) == 0, "printing");
    free(text);
    for (uint32_t i = 0; i < map.n_bindings; i++)
        check(map.bindings[i].path.class < PATH_NET, "a GPU bound to what it cannot reach");
    topo_findings_clear(&findings);
    topo_map_clear(&map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct topo_graph *graph = NULL, *again = NULL;
    if (topo_xml_read_text((const char *)data, bytes, "fuzz.xml", &graph) != RAIL_OK) {
        check(graph == NULL && rail_last_error()[0] != '\0', "refused without a text");
        return 0;
    }
    for (uint32_t host = 0; host < graph->n_hosts && host < 4; host++) derive(graph, host);
    char *first = as_xml(graph);
    check(topo_xml_read_text(first, strlen(first), "again.xml", &again) == RAIL_OK, "what was written is refused");
    char *second = as_xml(again);
    check(strcmp(first, second) == 0, "what was written reads as another machine");
    free(first);
    free(second);
    topo_graph_destroy(graph);
    topo_graph_destroy(again);
    return 0;
}
