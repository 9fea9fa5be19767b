/* topo.c - `railccl topo`: the machine, each fact with its source; the map GPU -> NIC -> rail; what is wrong. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "tool.h"
#include "topo.h"
#include "topo/discover.h"
#include "topo/fabric_show.h"
#include "topo/machine.h"
#include "topo/print.h"
#include "topo/xml.h"

struct wishes {
    const char *file, *hwloc_file, *synthetic, *svg, *root, *fabric, *host;
    bool json, xml, paths, brief, check, diff;
    enum topo_class gdr_level;
};

static void view_clear(struct topo_view *v)
{
    for (uint32_t h = 0; v->graph && h < v->graph->n_hosts; h++) {
        if (v->maps) topo_map_clear(&v->maps[h]);
        if (v->findings) topo_findings_clear(&v->findings[h]);
    }
    free(v->maps);
    free(v->findings);
    topo_graph_destroy(v->graph);
    fabric_free(v->fabric);
    *v = (struct topo_view){0};
}

static enum rail_result derive(struct topo_view *v, enum topo_class gdr_level)
{
    v->maps = calloc(v->graph->n_hosts, sizeof *v->maps);
    v->findings = calloc(v->graph->n_hosts, sizeof *v->findings);
    if (!v->maps || !v->findings) return rail_fail(RAIL_E_SYSTEM, "out of memory");
    for (uint32_t h = 0; h < v->graph->n_hosts; h++) {
        RAIL_TRY(topo_map_build(v->graph, h, gdr_level, &v->maps[h]));
        RAIL_TRY(topo_findings_collect(v->graph, h, &v->maps[h], &v->findings[h]));
    }
    return RAIL_OK;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static enum rail_result look(const struct wishes *w, struct topo_view *v)
{
    *v = (struct topo_view){0};
    const char *file = w->file ? w->file : w->hwloc_file ? w->hwloc_file : w->synthetic;
    if (file) snprintf(v->title, sizeof v->title, "%s", file_name(file));
    else snprintf(v->title, sizeof v->title, "%s", w->root ? w->root : machine_host_name());
    enum rail_result result = w->file ? topo_xml_read_file(w->file, &v->graph)
                            : w->hwloc_file ? topo_discover_hwloc_xml(w->hwloc_file, &v->graph)
                            : w->synthetic ? topo_discover_synthetic(w->synthetic, &v->graph)
                            : w->root ? topo_discover_under(w->root, TOPO_WHOLE, &v->graph)
                                      : topo_discover(TOPO_WHOLE, &v->graph);
    if (result == RAIL_OK) result = derive(v, w->gdr_level);
    v->live = !file && !w->root;
    v->host_name = w->host ? w->host : machine_host_name();
    if (result == RAIL_OK && w->fabric && w->fabric[0]) result = fabric_load(w->fabric, &v->fabric);
    if (result != RAIL_OK) {
        fprintf(stderr, "railccl topo: %s\n", rail_last_error());
        view_clear(v);
    }
    return result;
}

static int show_text(const struct wishes *w, const struct topo_view *v)
{
    for (uint32_t h = 0; h < v->graph->n_hosts; h++) {
        if (v->graph->n_hosts > 1) printf("%shost %u of %u in %s\n", h ? "\n" : "", h, v->graph->n_hosts, v->title);
        else printf("%s: ", v->title);
        topo_print_answer(v->graph, h, &v->maps[h], &v->findings[h], stdout);
        if (v->fabric) putchar('\n'), topo_print_place(v, h, stdout);
        if (w->paths) {
            putchar('\n');
            if (topo_print_matrix(v->graph, h, stdout) != RAIL_OK) return 2;
        }
        if (w->brief) continue;
        putchar('\n');
        topo_print_facts(v->graph, h, stdout);
    }
    if (v->fabric && !w->brief) putchar('\n');
    return v->fabric && !w->brief && fabric_print(v->fabric, stdout) != RAIL_OK ? 2 : 0;
}

static int write_svg_to(const char *path, const struct topo_view *v)
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!out) return fprintf(stderr, "railccl topo: %s: %s\n", path, strerror(errno)), 2;
    int bad = topo_write_svg(v, out) != 0;
    if (out == stdout ? fflush(out) != 0 : fclose(out) != 0)
        bad = 1, fprintf(stderr, "railccl topo: %s: %s\n", path, strerror(errno));
    return bad ? 2 : 0;
}

static bool anything_wrong(const struct topo_view *v)
{
    for (uint32_t h = 0; h < v->graph->n_hosts; h++)
        for (uint32_t i = 0; i < v->findings[h].n; i++)
            if (v->findings[h].at[i].weight == TOPO_WRONG) return true;
    return false;
}

static int show(const struct wishes *w)
{
    struct topo_view v;
    int status = 0;
    if (look(w, &v) != RAIL_OK) return 2;
    if (w->xml) status = topo_xml_write(v.graph, stdout) == RAIL_OK ? 0 : 2;
    else if (w->json) topo_write_json(&v, stdout);
    else if (!w->svg) status = show_text(w, &v);
    if (w->svg && status == 0) status = write_svg_to(w->svg, &v);
    if (w->check && status == 0) status = anything_wrong(&v);
    view_clear(&v);
    return status;
}

static int diff(const struct wishes *w, const char *a, const char *b)
{
    struct topo_view x = {0}, y = {0};
    struct wishes first = *w, second = *w;
    first.file = a, second.file = b;
    int status = look(&first, &x) != RAIL_OK || look(&second, &y) != RAIL_OK ? 2 : topo_compare(&x, &y, stdout);
    view_clear(&x);
    view_clear(&y);
    return status;
}

static int usage(FILE *out)
{
    fputs("Usage: railccl topo [--file XML] [options]\n"
          "       railccl topo --diff A.xml B.xml\n"
          "Shows the machine: which NIC and rail serve which GPU and why, what is wrong, and every fact with its "
          "source.\n\n"
          "What is looked at (else NCCL_TOPO_FILE if set, else this machine):\n"
          "  --file FILE         a machine in NCCL's XML, as NCCL_TOPO_DUMP_FILE and `railccl topo --xml` write it\n"
          "  --hwloc FILE        a machine in hwloc's XML, as `lstopo --whole-io FILE.xml` writes it\n"
          "  --synthetic TEXT    a machine as hwloc's synthetic text, such as \"numa:2 core:8 pu:2\"\n"
          "  --root DIR          the sysfs tree of a machine, copied below DIR\n\n"
          "The network around it:\n"
          "  --fabric FILE       a fabric file or Slurm's topology.conf (else RAILCCL_FABRIC): where the machine hangs,\n"
          "                      switches, hosts and rails\n"
          "  --host NAME         the machine's name in it, if not this one's\n\n"
          "How it is shown:\n"
          "  --brief             without the list of facts\n"
          "  --paths             with NCCL's class and the rate of every path between GPUs and ports\n"
          "  --json              everything, for programs\n"
          "  --svg FILE          a drawing (- is standard output)\n"
          "  --xml               NCCL's XML\n"
          "  --diff A B          what differs between two machines; exit status 1 when something does\n"
          "  --gdr-level LEVEL   how far GPUDirect may reach: LOC, PIX, PXB, P2C (default), PHB, SYS\n"
          "  --check             exit status 1 when something is wrong\n",
          out);
    return out == stdout ? 0 : 2;
}

enum { O_FILE = 256, O_HWLOC, O_SYNTHETIC, O_ROOT, O_SVG, O_GDR, O_JSON, O_XML, O_PATHS, O_BRIEF, O_CHECK, O_DIFF,
       O_FABRIC, O_HOST };

static const struct option options[] = {
    {"file", required_argument, NULL, O_FILE},     {"hwloc", required_argument, NULL, O_HWLOC},
    {"synthetic", required_argument, NULL, O_SYNTHETIC}, {"root", required_argument, NULL, O_ROOT},
    {"svg", required_argument, NULL, O_SVG},       {"gdr-level", required_argument, NULL, O_GDR},
    {"json", no_argument, NULL, O_JSON},           {"xml", no_argument, NULL, O_XML},
    {"paths", no_argument, NULL, O_PATHS},         {"brief", no_argument, NULL, O_BRIEF},
    {"check", no_argument, NULL, O_CHECK},         {"diff", no_argument, NULL, O_DIFF},
    {"fabric", required_argument, NULL, O_FABRIC}, {"host", required_argument, NULL, O_HOST},
    {"help", no_argument, NULL, 'h'},              {0},
};

static int run(int argc, char **argv)
{
    struct wishes w = {.gdr_level = topo_gdr_level(rail_param_str(RAIL_PARAM_NCCL_NET_GDR_LEVEL)),
                       .fabric = rail_param_str(RAIL_PARAM_FABRIC)};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case O_FILE: w.file = optarg; break;
        case O_HWLOC: w.hwloc_file = optarg; break;
        case O_SYNTHETIC: w.synthetic = optarg; break;
        case O_ROOT: w.root = optarg; break;
        case O_SVG: w.svg = optarg; break;
        case O_GDR: w.gdr_level = topo_gdr_level(optarg); break;
        case O_FABRIC: w.fabric = optarg; break;
        case O_HOST: w.host = optarg; break;
        case O_JSON: w.json = true; break;
        case O_XML: w.xml = true; break;
        case O_PATHS: w.paths = true; break;
        case O_BRIEF: w.brief = true; break;
        case O_CHECK: w.check = true; break;
        case O_DIFF: w.diff = true; break;
        case 'h': return usage(stdout);
        default:
            fprintf(stderr, "railccl topo: %s: no such option, or without its value\n", argv[optind - 1]);
            return usage(stderr);
        }
    }
    if (w.diff && argc - optind == 2) return diff(&w, argv[optind], argv[optind + 1]);
    if (w.diff) return fprintf(stderr, "railccl topo: --diff takes two files in NCCL's XML\n"), 2;
    if (optind < argc) return fprintf(stderr, "railccl topo: %s: a file is named by --file\n", argv[optind]), 2;
    return show(&w);
}

const struct tool_command tool_topo = {"topo", "Shows the machine: GPU, NIC and rail, and what is wrong.", run};
