/* Descriptions that are damaged, hostile or contradict themselves: each is refused with file, line and remedy, or read
 * with a remark; and paths against an oracle that tries every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign/expat.h"
#include "topo/findings.h"
#include "topo/xml.h"

enum { XML_MOST_TEST_BYTES = XML_MOST_BYTES + 1 };

#define CPU0 "<system version=\"1\">\n<cpu numaid=\"0\">\n"
#define END "</cpu>\n</system>\n"
#define PCI(bus, inner) "<pci busid=\"" bus "\" link_speed=\"16.0 GT/s PCIe\" link_width=\"16\">" inner "</pci>\n"

static void damage_is_refused_with_line_and_remedy(void **state)
{
    (void)state;
    static const struct { const char *what, *xml, *line, *says;
    } cases[] = {
        {"nothing", "", ":1:", "cut off"},
        {"no XML", "hello", ":1:", "damaged"},
        {"cut off in a tag", "<system version=\"1\">\n<cpu numaid=", ":2:", "cut off"},
        {"cut off between tags", CPU0 PCI("0000:01:00.0", ""), ":4:", "cut off"},
        {"another document", "<topology>\n</topology>", ":1:", "begins with <system>"},
        {"two systems", "<system version=\"1\">\n<system/></system>", ":2:", "may not stand inside"},
        {"no CPU", "<system version=\"1\"/>", "m.xml:", "describes no machine"},
        {"a GPU without a place", CPU0 "<gpu dev=\"0\"/>\n" END, ":3:", "<gpu> may not stand inside of <cpu>"},
        {"a PCI device without a number", CPU0 "<pci/>\n" END, ":3:", "without busid"},
        {"a bus number that is none", CPU0 "<pci busid=\"zebra\"/>\n" END, ":3:", "zebra"},
        {"device 0x3f", CPU0 "<pci busid=\"0000:01:3f.0\"/>\n" END, ":3:", "0000:17:00.0"},
        {"a device inside of itself", CPU0 PCI("0000:01:00.0", PCI("0000:01:00.0", "")) END, ":3:", "already given"},
        {"one bus number twice", CPU0 PCI("0000:01:00.0", "") PCI("0000:01:00.0", "") END, ":4:", "m.xml:3"},
        {"one NUMA node twice", CPU0 "</cpu><cpu numaid=\"0\">\n" END, ":3:", "same number"},
        {"one GPU number twice",
         CPU0 PCI("0000:01:00.0", "<gpu dev=\"3\"/>") PCI("0000:02:00.0", "<gpu dev=\"3\"/>") END,
         ":4:", "same number"},
        {"two devices in one place", CPU0 PCI("0000:01:00.0", "<gpu dev=\"0\"/><nic/>") END, ":3:", "second device"},
        {"a thousand lanes", CPU0 "<pci busid=\"0000:01:00.0\" link_width=\"1000\"/>\n" END, ":3:", "link_width"},
        {"64 lanes", CPU0 "<pci busid=\"0000:01:00.0\" link_width=\"64\"/>\n" END, ":3:", "up to 32 lanes"},
        {"speed in furlongs", CPU0 "<pci busid=\"0000:01:00.0\" link_speed=\"7 furlongs\"/>\n" END, ":3:", "furlongs"},
        {"a port of 1e30", CPU0 "<nic><net name=\"a\" speed=\"1e30\"/></nic>\n" END, ":3:", "speed"},
        {"a port of nan", CPU0 "<nic><net name=\"a\" speed=\"nan\"/></nic>\n" END, ":3:", "out of range"},
        {"a port of -7", CPU0 "<nic><net name=\"a\" speed=\"-7\"/></nic>\n" END, ":3:", "out of range"},
        {"a number of letters", CPU0 "<nic><net name=\"a\" dev=\"one\"/></nic>\n" END, ":3:", "no whole number"},
        {"a number beyond 64 bits", CPU0 "<nic><net name=\"a\" dev=\"99999999999999999999\"/></nic>\n" END,
         ":3:", "out of range"},
        {"a NUMA node of -5", "<system version=\"1\"><cpu numaid=\"-5\"/></system>", ":1:", "numaid"},
        {"an NVLink to itself", CPU0 PCI("0000:01:00.0", "<gpu dev=\"0\"><nvlink target=\"0000:01:00.0\"/></gpu>") END,
         ":3:", "to itself"},
        {"a million NVLinks",
         CPU0 PCI("0000:01:00.0", "<gpu dev=\"0\"><nvlink target=\"0000:02:00.0\" count=\"1000000\"/></gpu>") END,
         ":3:", "count"},
        {"a control character in a name", CPU0 "<nic><net name=\"a&#10;b\"/></nic>\n" END, ":3:", "control character"},
        {"an entity of its own", "<!DOCTYPE system [\n<!ENTITY a \"aaaa\">\n]>" CPU0 END, ":2:", "entity"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct topo_graph *graph = NULL;
        enum rail_result result = topo_xml_read_text(cases[i].xml, strlen(cases[i].xml), "m.xml", &graph);
        const char *said = rail_last_error();
        if (result != RAIL_E_ARGUMENT || graph || !strstr(said, cases[i].line) || !strstr(said, cases[i].says) ||
            !strstr(said, "m.xml"))
            fail_msg("%s: %s, \"%s\"", cases[i].what, rail_result_name(result), said);
    }
}

/* count times `open`, then `close`, within a CPU; a NULL `open` is a
 * PCI device with a bus number of its own, "+" closes each at once. */
static enum rail_result read_repeated(const char *open, const char *close, int count)
{
    struct topo_graph *graph = NULL;
    char *text;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    fputs(CPU0, out);
    for (int i = 0; i < count; i++) {
        if (open) fputs(open, out);
        else fprintf(out, "<pci busid=\"0000:%02x:%02x.0\">", i >> 5 & 0xff, i & 0x1f);
        if (*close == '+') fputs("</pci>", out);
    }
    for (int i = 0; i < count && *close != '+'; i++) fputs(close, out);
    fputs(END, out);
    fclose(out);
    enum rail_result result = topo_xml_read_text(text, bytes, "m.xml", &graph);
    topo_graph_destroy(graph);
    free(text);
    return result;
}

static void what_is_too_deep_too_many_or_too_long_is_refused(void **state)
{
    (void)state;
    assert_int_equal(read_repeated(NULL, "</pci>", 30), RAIL_OK);
    assert_int_equal(read_repeated(NULL, "</pci>", 40), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "PCI switches inside one another"));
    assert_int_equal(read_repeated("<x>", "", 1), RAIL_E_ARGUMENT); /* never closed */
    assert_int_equal(read_repeated(NULL, "+", 700), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "more than 640"));
    assert_int_equal(read_repeated(NULL, "+", 640), RAIL_OK);
    assert_int_equal(read_repeated("<a><b>", "</b></a>", 200), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "deep"));
    char *huge = malloc(XML_MOST_TEST_BYTES);
    assert_non_null(huge);
    memset(huge, ' ', XML_MOST_TEST_BYTES);
    struct topo_graph *graph = NULL;
    assert_int_equal(topo_xml_read_text(huge, XML_MOST_TEST_BYTES, "m.xml", &graph), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "at most"));
    free(huge);
}

static void every_shortened_description_is_refused_or_none(void **state)
{
    (void)state;
    char text[16384];
    FILE *f = fopen("tests/machines/vendor-oddities.xml", "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f), end = n;
    fclose(f);
    while (end > 0 && text[end - 1] != '>') end--;
    for (size_t bytes = 0; bytes < end; bytes++) {
        struct topo_graph *graph = NULL;
        if (topo_xml_read_text(text, bytes, "m.xml", &graph) == RAIL_OK)
            fail_msg("%zu of %zu bytes were read", bytes, end);
    }
}

static void files_that_are_none_are_named(void **state)
{
    (void)state;
    struct topo_graph *graph = NULL;
    assert_int_equal(topo_xml_read_file("/nowhere/machine.xml", &graph), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "/nowhere/machine.xml: No such file"));
    assert_int_equal(topo_xml_read_file("/tmp", &graph), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "directory"));
    assert_int_equal(topo_xml_read_file("/dev/zero", &graph), RAIL_E_ARGUMENT);
    assert_non_null(strstr(rail_last_error(), "more than"));
}

/* --- paths against an oracle -------------------------------------------------------------------------------------- */

/* The class of a whole route, from the words of paths.h; PATH_DIS for a route that no traffic takes. */
static enum topo_class class_of(const struct topo_graph *g, const uint32_t *nodes, const uint32_t *links, int n_links)
{
    int nvl = 0, c2c = 0, pci = 0, at_cpu = 0, sys = 0, switches = 0, gpus = 0;
    for (int i = 0; i < n_links; i++) {
        const struct topo_link *k = &g->links[links[i]];
        enum topo_kind a = g->nodes[k->a].kind, b = g->nodes[k->b].kind;
        nvl += k->kind == TOPO_LINK_NVL, c2c += k->kind == TOPO_LINK_C2C, sys += k->kind == TOPO_LINK_SYS;
        pci += k->kind == TOPO_LINK_PCI;
        at_cpu += k->kind == TOPO_LINK_PCI && (a == TOPO_CPU || b == TOPO_CPU);
    }
    for (int i = 1; i < n_links; i++) {
        enum topo_kind kind = g->nodes[nodes[i]].kind;
        gpus += kind == TOPO_GPU, switches += kind == TOPO_PCI;
        if (kind == TOPO_NET) return PATH_DIS;
    }
    enum topo_kind from = g->nodes[nodes[0]].kind, to = g->nodes[nodes[n_links]].kind;
    if (gpus && !(gpus == 1 && nvl == 2 && n_links == 2 && from == TOPO_GPU && to == TOPO_GPU)) return PATH_DIS;
    if (nvl && nvl != n_links) return PATH_DIS;
    if (nvl) return gpus ? PATH_NVB : PATH_NVL;
    if (sys) return PATH_SYS;
    if (c2c && at_cpu) return PATH_P2C;
    if (at_cpu) return PATH_PHB;
    if (c2c) return PATH_C2C;
    if (switches > 1) return PATH_PXB;
    return pci ? PATH_PIX : PATH_LOC;
}

struct oracle {
    const struct topo_graph *graph;
    uint32_t nodes[16], links[16];
    bool used[64];
    uint32_t to;
    enum topo_class class;
    double width;
};

static void walk(struct oracle *o, int depth, double width)
{
    const struct topo_graph *g = o->graph;
    uint32_t at = o->nodes[depth];
    if (at == o->to) {
        enum topo_class class = class_of(g, o->nodes, o->links, depth);
        if (class < o->class || (class == o->class && width > o->width)) o->class = class, o->width = width;
        return;
    }
    for (uint32_t k = g->first[at]; k < g->first[at + 1] && depth < 12; k++) {
        const struct topo_link *link = &g->links[g->at[k]];
        uint32_t next = link->a == at ? link->b : link->a;
        if (o->used[next]) continue;
        o->used[next] = true;
        o->nodes[depth + 1] = next;
        o->links[depth] = g->at[k];
        walk(o, depth + 1, link->rate.gb_per_s < width ? link->rate.gb_per_s : width);
        o->used[next] = false;
    }
}

static uint32_t seed;
static uint32_t draw(uint32_t n) { return (seed = seed * 1664525 + 1013904223) / 65536 % n; }

/* A machine of one or two NUMA nodes with some switches, GPUs, NICs, NVLinks and C2C. */
static struct topo_graph *random_machine(void)
{
    static const double speeds[] = {8, 16, 32};
    struct topo_graph *g = topo_graph_create();
    struct topo_origin told = {TOPO_FILE, 0, "random"};
    uint32_t places[8], n_places = 0, gpus[4], n_gpus = 1 + draw(3), cpus = 1 + draw(2);
    for (uint32_t i = 0; i < cpus; i++)
        places[n_places++] = topo_graph_add(g, TOPO_CPU, TOPO_NONE, told), g->nodes[i].cpu.numa = (int)i;
    for (uint32_t i = draw(4); i > 0; i--) {
        places[n_places] = topo_graph_add(g, TOPO_PCI, places[draw(n_places)], told);
        n_places++;
    }
    for (uint32_t i = 0; i < n_gpus; i++) gpus[i] = topo_graph_add(g, TOPO_GPU, places[draw(n_places)], told);
    for (uint32_t i = 1 + draw(2); i > 0; i--) {
        uint32_t nic = topo_graph_add(g, TOPO_NIC, places[draw(n_places)], told);
        uint32_t net = topo_graph_add(g, TOPO_NET, nic, told);
        g->nodes[net].net.mbit_per_s = 400000;
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        g->nodes[i].bus = g->nodes[i].kind == TOPO_CPU ? TOPO_NO_BUS : i << 16;
        g->nodes[i].gt_per_s = speeds[draw(3)], g->nodes[i].lanes = draw(2) ? 16 : 8, g->nodes[i].pci_origin = told;
    }
    for (uint32_t i = 0; i < n_gpus; i++)
        for (uint32_t k = 0; k < i; k++)
            if (draw(3) == 0) {
                struct topo_link link = {
                    .kind = TOPO_LINK_NVL, .a = gpus[i], .b = gpus[k], .rate = {20 + draw(40), told}};
                assert_int_equal(topo_graph_link(g, link), RAIL_OK);
            }
    for (uint32_t i = 0; i < n_gpus; i++)
        if (draw(3) == 0) {
            struct topo_link link = {.kind = TOPO_LINK_C2C, .a = gpus[i], .b = topo_graph_above(g, gpus[i], TOPO_CPU),
                                     .rate = {400, told}};
            assert_int_equal(topo_graph_link(g, link), RAIL_OK);
        }
    assert_int_equal(topo_graph_finish(g), RAIL_OK);
    return g;
}

static bool is_end(enum topo_kind kind) { return kind == TOPO_GPU || kind == TOPO_NET; }

static void paths_are_those_of_trying_every_way(void **state)
{
    (void)state;
    int pairs = 0, of_class[PATH_DIS + 1] = {0};
    for (uint32_t trial = 0; trial < 400; trial++) {
        seed = trial;
        struct topo_graph *g = random_machine();
        struct topo_path paths[64];
        for (uint32_t a = 0; a < g->n_nodes; a++) {
            if (!is_end(g->nodes[a].kind)) continue;
            assert_int_equal(topo_paths_from(g, a, paths), RAIL_OK);
            for (uint32_t b = 0; b < g->n_nodes; b++) {
                if (a == b || !is_end(g->nodes[b].kind)) continue;
                struct oracle o = {.graph = g, .to = b, .class = PATH_DIS};
                o.nodes[0] = a;
                o.used[a] = true;
                walk(&o, 0, 1e9);
                if (paths[b].class != o.class || paths[b].gb_per_s != o.width)
                    fail_msg("seed %u, %s to %s: %s %g, by trying %s %g", trial, g->nodes[a].name, g->nodes[b].name,
                             topo_class_name(paths[b].class), paths[b].gb_per_s, topo_class_name(o.class), o.width);
                if (g->nodes[a].kind != g->nodes[b].kind || o.class < PATH_PHB) of_class[o.class]++;
                pairs++;
            }
        }
        topo_graph_destroy(g);
    }
    assert_true(pairs > 3000);
    assert_true(of_class[PATH_NVL] && of_class[PATH_NVB] && of_class[PATH_C2C] && of_class[PATH_PIX] &&
                of_class[PATH_PXB] && of_class[PATH_P2C] && of_class[PATH_PHB] && of_class[PATH_SYS]);
}

/* What fuzzing found: each is read, written, and reads back as the same text. */
static void written_text_reads_back_as_itself(void **state)
{
    (void)state;
    static const char *const cases[] = {
        CPU0 PCI("0000:01:00.0", "<nic><net name=\"a\"/></nic>" PCI("0000:02:00.0", "<nic><net name=\"b\"/></nic>"))
            END,
        CPU0 PCI("0000:01:00.0", "<gpu dev=\"1\"/>") PCI("0000:02:00.0", "<gpu/>") PCI("0000:03:00.0", "<gpu/>") END,
        CPU0 PCI("0000:01:00.0", "<gpu dev=\"0\"><nvlink target=\"0000:03:00.0\"/></gpu>")
            PCI("0000:02:00.0", "<gpu dev=\"1\"><nvlink target=\"0000:01:00.0\"/></gpu>")
                PCI("0000:03:00.0", "<gpu dev=\"2\"/>") END,
        CPU0 "<nic><net name=\"a &lt;&amp;&quot;&gt; b\" speed=\"0.1\"/></nic>\n" END,
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text[2] = {NULL, NULL};
        const char *from = cases[i];
        for (int turn = 0; turn < 2; turn++) {
            struct topo_graph *graph;
            size_t bytes;
            if (topo_xml_read_text(from, strlen(from), "m.xml", &graph) != RAIL_OK)
                fail_msg("%zu: %s", i, rail_last_error());
            FILE *out = open_memstream(&text[turn], &bytes);
            assert_int_equal(topo_xml_write(graph, out), RAIL_OK);
            fclose(out);
            topo_graph_destroy(graph);
            from = text[turn];
        }
        assert_string_equal(text[0], text[1]);
        free(text[0]);
        free(text[1]);
    }
}

static void hosts_of_one_file_meet_over_the_network(void **state)
{
    (void)state;
    static const char xml[] = "<system version=\"1\"><cpu numaid=\"0\" host_hash=\"0x1\">" PCI("0000:01:00.0", "<gpu "
                                                                                                               "dev="
                                                                                                               "\"0\"/"
                                                                                                               ">") PCI(
        "0000:02:00.0",
        "<nic><net name=\"a\" dev=\"0\" speed=\"1000\"/></nic>") "</cpu><cpu numaid=\"0\" host_hash=\"0x2\">" PCI("0000"
                                                                                                                  ":01:"
                                                                                                                  "00."
                                                                                                                  "0",
                                                                                                                  "<gpu"
                                                                                                                  " dev"
                                                                                                                  "=\"0"
                                                                                                                  "\"/"
                                                                                                                  ">")
        PCI("0000:02:00.0", "<nic><net name=\"a\" dev=\"0\" speed=\"1000\"/></nic>") "</cpu><cpu numaid=\"0\" "
                                                                                     "host_hash=\"0x3\">" PCI(
                                                                                         "0000:01:00.0",
                                                                                         "<gpu dev=\"0\"/>") "</cpu></"
                                                                                                             "system>";
    struct topo_graph *g;
    struct topo_path path;
    assert_int_equal(topo_xml_read_text(xml, sizeof xml - 1, "m.xml", &g), RAIL_OK);
    assert_int_equal(g->n_hosts, 3);
    uint32_t a = topo_graph_by_bus(g, 0, 1 << 16), b = topo_graph_by_bus(g, 1, 1 << 16),
             c = topo_graph_by_bus(g, 2, 1 << 16);
    assert_int_equal(topo_path(g, a, b, &path), RAIL_OK);
    assert_int_equal(path.class, PATH_NET);
    assert_int_equal(topo_path(g, a, c, &path), RAIL_OK);
    assert_int_equal(path.class, PATH_DIS);
    topo_graph_destroy(g);
}

static bool found(const struct topo_graph *g, const char *words)
{
    struct topo_map map;
    struct topo_findings findings;
    bool there = false;
    assert_int_equal(topo_map_build(g, 0, PATH_P2C, &map), RAIL_OK);
    assert_int_equal(topo_findings_collect(g, 0, &map, &findings), RAIL_OK);
    for (uint32_t i = 0; i < findings.n; i++) there |= strstr(findings.at[i].text, words) != NULL;
    topo_findings_clear(&findings);
    topo_map_clear(&map);
    return there;
}

static struct topo_node *port(struct topo_graph *g, uint32_t number)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].kind == TOPO_NET && g->nodes[i].number == number) return &g->nodes[i];
    fail();
    return NULL;
}

static void a_good_machine_made_worse_is_said_to_be_worse(void **state)
{
    (void)state;
    struct topo_graph *g;
    assert_int_equal(topo_xml_read_file("tests/machines/bonded-8gpu-8nic.xml", &g), RAIL_OK);
    static const struct { const char *a, *b; bool same;
    } subnets[] = {
        {"10.0.1.1/24", "10.0.2.1/24", false},           {"10.0.1.1/16", "10.0.2.1/16", true},
        {"10.0.1.1/16", "10.0.2.1/24", false},           {"10.0.1.1/32", "10.0.1.1/32", false},
        {"192.168.4.7/30", "192.168.4.5/30", true},      {"fd00::1/64", "fd00::2/64", true},
        {"fd00:0:0:1::1/64", "fd00:0:0:2::1/64", false}, {"10.0.1.1/24", "", false},
    };
    for (size_t i = 0; i < sizeof subnets / sizeof *subnets; i++) {
        strcpy(port(g, 0)->net.address, subnets[i].a);
        strcpy(port(g, 5)->net.address, subnets[i].b);
        if (found(g, "are in one subnet") != subnets[i].same) fail_msg("%s and %s", subnets[i].a, subnets[i].b);
    }
    port(g, 0)->net.address[0] = '\0';
    assert_false(found(g, "different MTU"));
    for (uint32_t i = 0; i < 8; i++) port(g, i)->net.mtu = i == 6 ? 1500 : 9000;
    assert_true(found(g, "mlx5_bond_0 has 9000 bytes, mlx5_bond_6 1500"));
    assert_false(found(g, "different rates"));
    port(g, 3)->net.mbit_per_s = 200000;
    assert_true(found(g, "mlx5_bond_0 has 400 Gbit/s, mlx5_bond_3 200"));
    assert_false(found(g, "GPUDirect"));
    port(g, 2)->net.gdr = TOPO_NO;
    assert_true(found(g, "GPU 2: GPUDirect to mlx5_bond_2 is impossible"));
    port(g, 7)->net.up = TOPO_NO;
    assert_true(found(g, "port mlx5_bond_7 is down"));
    assert_true(found(g, "rail 7 is missing"));
    topo_graph_destroy(g);
}

static void gdr_levels_are_nccls(void **state)
{
    (void)state;
    static const struct { const char *text; enum topo_class level;
    } cases[] = {
        {NULL, PATH_P2C},  {"", PATH_P2C},    {"LOC", PATH_LOC}, {"pix", PATH_PIX}, {"PXB", PATH_PXB},
        {"PHB", PATH_PHB}, {"SYS", PATH_SYS}, {"0", PATH_LOC},   {"1", PATH_PIX},   {"2", PATH_PXB},
        {"3", PATH_PHB},   {"4", PATH_SYS},   {"5", PATH_P2C},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(topo_gdr_level(cases[i].text), cases[i].level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_refused_with_line_and_remedy),
        cmocka_unit_test(what_is_too_deep_too_many_or_too_long_is_refused),
        cmocka_unit_test(every_shortened_description_is_refused_or_none),
        cmocka_unit_test(files_that_are_none_are_named),
        cmocka_unit_test(paths_are_those_of_trying_every_way),
        cmocka_unit_test(written_text_reads_back_as_itself),
        cmocka_unit_test(hosts_of_one_file_meet_over_the_network),
        cmocka_unit_test(a_good_machine_made_worse_is_said_to_be_worse),
        cmocka_unit_test(gdr_levels_are_nccls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
