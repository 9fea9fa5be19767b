/* Machines as text: every description tests/machines/NAME.xml against the answer tests/machines/NAME.txt beside it (the
 * map GPU -> NIC -> rail with reasons, what is wrong, and the class and rate of every path); and written again as XML
 * it is the same machine. What was found instead lies in $BUILD/machines/NAME.txt. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "topo/print.h"
#include "topo/xml.h"

enum { MOST_MACHINES = 64 };
static char *machines[MOST_MACHINES];
static int n_machines;

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int find_machines(void **state)
{
    (void)state;
    DIR *folder = opendir("tests/machines");
    for (struct dirent *d; folder && (d = readdir(folder)); ) {
        char *dot = strrchr(d->d_name, '.');
        if (!dot || strcmp(dot, ".xml") != 0 || n_machines == MOST_MACHINES) continue;
        *dot = '\0';
        machines[n_machines++] = strdup(d->d_name);
    }
    if (folder) closedir(folder);
    qsort(machines, (size_t)n_machines, sizeof *machines, by_name);
    return 0;
}

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) return strdup("");
    char *text = calloc(1, 1 << 16);
    size_t n = fread(text, 1, (1 << 16) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static char *answer(const struct topo_graph *graph)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    for (uint32_t host = 0; host < graph->n_hosts; host++) {
        struct topo_map map;
        struct topo_findings findings;
        assert_int_equal(topo_map_build(graph, host, topo_gdr_level(NULL), &map), RAIL_OK);
        assert_int_equal(topo_findings_collect(graph, host, &map, &findings), RAIL_OK);
        topo_print_answer(graph, host, &map, &findings, out);
        fputc('\n', out);
        assert_int_equal(topo_print_matrix(graph, host, out), RAIL_OK);
        topo_findings_clear(&findings);
        topo_map_clear(&map);
    }
    fclose(out);
    return text;
}

static struct topo_graph *read_machine(const char *name)
{
    char path[512];
    struct topo_graph *graph;
    snprintf(path, sizeof path, "tests/machines/%s.xml", name);
    assert_int_equal(topo_xml_read_file(path, &graph), RAIL_OK);
    return graph;
}

static void keep(const char *name, const char *text)
{
    const char *build = getenv("BUILD");
    char path[512];
    snprintf(path, sizeof path, "%s/machines", build ? build : "build");
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/machines/%s.txt", build ? build : "build", name);
    FILE *f = fopen(path, "w");
    if (!f) return;
    fputs(text, f);
    fclose(f);
}

static void every_machine_gets_the_answer_beside_it(void **state)
{
    (void)state;
    int different = 0;
    assert_true(n_machines >= 10);
    for (int i = 0; i < n_machines; i++) {
        char path[512];
        struct topo_graph *graph = read_machine(machines[i]);
        char *have = answer(graph);
        snprintf(path, sizeof path, "tests/machines/%s.txt", machines[i]);
        char *want = slurp(path);
        if (strcmp(have, want) != 0) {
            keep(machines[i], have);
            print_error("%s differs from %s\n", machines[i], path);
            different++;
        }
        free(have);
        free(want);
        topo_graph_destroy(graph);
    }
    assert_int_equal(different, 0);
}

static char *as_xml(const struct topo_graph *graph)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(topo_xml_write(graph, out), RAIL_OK);
    fclose(out);
    return text;
}

static bool same_end(const struct topo_graph *g, uint32_t i, const struct topo_graph *h, uint32_t k)
{
    return g->nodes[i].kind == h->nodes[k].kind && strcmp(g->nodes[i].name, h->nodes[k].name) == 0;
}

static bool has_link(const struct topo_graph *g, const struct topo_graph *from, const struct topo_link *want)
{
    for (uint32_t l = 0; l < g->n_links; l++) {
        const struct topo_link *k = &g->links[l];
        bool ends = (same_end(g, k->a, from, want->a) && same_end(g, k->b, from, want->b)) ||
                    (same_end(g, k->a, from, want->b) && same_end(g, k->b, from, want->a));
        if (ends && k->kind == want->kind && k->count == want->count && k->rate.gb_per_s == want->rate.gb_per_s)
            return true;
    }
    return false;
}

static void written_and_read_again_it_is_the_same_machine(void **state)
{
    (void)state;
    for (int i = 0; i < n_machines; i++) {
        struct topo_graph *first = read_machine(machines[i]), *second;
        char *xml = as_xml(first);
        assert_int_equal(topo_xml_read_text(xml, strlen(xml), "again", &second), RAIL_OK);
        char *again = as_xml(second);
        assert_string_equal(xml, again);
        assert_int_equal(first->n_nodes, second->n_nodes);
        assert_int_equal(first->n_links, second->n_links);
        for (uint32_t l = 0; l < first->n_links; l++)
            if (!has_link(second, first, &first->links[l])) fail_msg("%s: link %u", machines[i], l);
        free(xml);
        free(again);
        topo_graph_destroy(first);
        topo_graph_destroy(second);
    }
}

/* No machine says twice what one GPU-NIC pair is: paths are the same in both directions. */
static void paths_are_symmetric(void **state)
{
    (void)state;
    for (int i = 0; i < n_machines; i++) {
        struct topo_graph *g = read_machine(machines[i]);
        struct topo_path *all = calloc((size_t)g->n_nodes * g->n_nodes, sizeof *all);
        for (uint32_t a = 0; a < g->n_nodes; a++)
            assert_int_equal(topo_paths_from(g, a, all + (size_t)a * g->n_nodes), RAIL_OK);
        for (uint32_t a = 0; a < g->n_nodes; a++)
            for (uint32_t b = 0; b < a; b++) {
                const struct topo_path *x = &all[(size_t)a * g->n_nodes + b], *y = &all[(size_t)b * g->n_nodes + a];
                enum topo_kind k = g->nodes[a].kind, l = g->nodes[b].kind;
                bool ends = (k == TOPO_GPU || k == TOPO_NET) && (l == TOPO_GPU || l == TOPO_NET);
                if (ends && (x->class != y->class || x->gb_per_s != y->gb_per_s))
                    fail_msg("%s: %s - %s: %s and %s", machines[i], g->nodes[a].name, g->nodes[b].name,
                             topo_class_name(x->class), topo_class_name(y->class));
            }
        free(all);
        topo_graph_destroy(g);
    }
}

static int forget_machines(void **state)
{
    (void)state;
    while (n_machines) free(machines[--n_machines]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_machine_gets_the_answer_beside_it),
        cmocka_unit_test(written_and_read_again_it_is_the_same_machine),
        cmocka_unit_test(paths_are_symmetric),
    };
    return cmocka_run_group_tests(tests, find_machines, forget_machines);
}
