/* plan_options.c - the command line of `railccl plan`. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plan.h"
#include "plan/collective.h"

static int usage(FILE *out)
{
    fputs("Usage: railccl plan [options]\n"
          "Lays the plans that a collective would run over a network, and says where the bytes go and how long it "
          "takes.\n"
          "Nothing is sent; no rank is started.\n\n"
          "The network:\n"
          "  --fabric FILE             hosts, leaves and pods of a fabric file or Slurm's topology.conf; else:\n"
          "  --hosts N                 (16)\n"
          "  --kind KIND               rail (one leaf per rail and unit), fat-tree, dual-plane, dual-tor\n"
          "  --rails N                 NICs a host (8)\n"
          "  --tiers N                 1 leaves, 2 and spines, 3 and cores (2; 3 from 513 hosts on)\n"
          "  --topology FILE           hosts as they are: what `railccl topo --json` or --xml, or NCCL_TOPO_DUMP_FILE,\n"
          "                            wrote on each; once a file. Their NICs, rates and GPUs; with --fabric by their names\n"
          "  --rate GBIT               of a NIC, each way (the machine's)\n"
          "  --oversubscription A[,B]  of leaves, of spines (1,1)\n"
          "  --hosts-per-leaf N, --units-per-pod N, --spines N, --cores N\n"
          "  --down PART               nic:HOST.RAIL, port:HOST.RAIL.PORT, leaf:N, spine:N, core:N; may be repeated\n"
          "  --slow PART=FACTOR        the same at a part of its rate\n"
          "  --fail PART[=FACTOR][,silent]@FROM[..TO]   under the call: nic:host3.1@2ms, leaf:4=0.5@2ms..1s;\n"
          "                            silent: no carrier tells of it. One job, size and algorithm; may be repeated\n\n"
          "The jobs:\n"
          "  --gpus N                  ranks a host (8)\n"
          "  --jobs N, --job-hosts N   several at once (1), of so many hosts each (all that there are)\n"
          "  --place PLACE             whole, fragmented:SEED, shuffled:SEED: which hosts, in which order\n"
          "  --collective NAME         allreduce, broadcast, reduce, allgather, reducescatter, gather, scatter,\n"
          "                            alltoall; sendrecv: every rank to the one --shift N on (1)\n"
          "  --size BYTES, --sizes FROM:TO[:FACTOR]   as benchmarks count; K, M, G, T are 1024 (1G; factor 4)\n"
          "  --root RANK\n"
          "  --algo NAME,...           auto (the chooser's), all, or names: ring, tree, rails ...\n"
          "  --order ours|given        of hosts in rings and trees\n"
          "  --nics aligned|unaware    NIC r to NIC r, or to any\n"
          "  --compare                 each algorithm as it is, with unaware NICs, and with the given order\n"
          "  --flows N                 of a lane, which switches hash apart (4)\n"
          "  --hash N                  another draw of the switches' hash: flows fall together elsewhere\n"
          "  --channels N, --window BYTES, --slot BYTES   as NCCL_MIN_NCHANNELS, RAILCCL_WINDOW_BYTES, "
          "RAILCCL_NET_SLOT_BYTES\n"
          "  --machine NAME            h100, rig: what a hop and a byte cost (src/simulate/calibration.def)\n"
          "  --cost NAME=NUMBER        of it another: payload, hop_ns, switch_ns, local_hop_ns, step_ns, "
          "memory_ns_per_byte,\n"
          "                            local_gbyte_s; may be repeated\n\n"
          "How it is done and shown:\n"
          "  --all, --classes          build every rank's plan; one of each class, a thousand ranks compared\n"
          "  --memory-limit GIB        refuse what may need more (4)\n"
          "  --json                    everything, for programs\n"
          "  --svg FILE                the network with the last case's loads as colours (- is standard output)\n"
          "  --plot FILE               times and shares over sizes\n"
          "  --timeline FILE           what goes by each rail over time, with --fail\n",
          out);
    return out == stdout ? 0 : 2;
}

#define LEAST_GBIT 1e-6 /* 1 kbit/s */
#define MOST_GBIT 1e6

enum {
    O_FABRIC = 256,
    O_HOSTS,
    O_KIND,
    O_RAILS,
    O_TIERS,
    O_RATE,
    O_OVER,
    O_LEAF,
    O_POD,
    O_SPINES,
    O_CORES,
    O_COST,
    O_DOWN,
    O_SLOW,
    O_GPUS,
    O_JOBS,
    O_JOB_HOSTS,
    O_PLACE,
    O_COLLECTIVE,
    O_SIZE,
    O_SIZES,
    O_ROOT,
    O_ALGO,
    O_ORDER,
    O_NICS,
    O_COMPARE,
    O_FLOWS,
    O_CHANNELS,
    O_WINDOW,
    O_SLOT,
    O_MACHINE,
    O_ALL,
    O_CLASSES,
    O_MEMORY,
    O_JSON,
    O_SVG,
    O_PLOT,
    O_HASH,
    O_SHIFT,
    O_FAIL,
    O_TIMELINE,
    O_TOPOLOGY
};

static const struct option options[] = {
    {"fabric", required_argument, NULL, O_FABRIC},     {"hosts", required_argument, NULL, O_HOSTS},
    {"kind", required_argument, NULL, O_KIND},         {"rails", required_argument, NULL, O_RAILS},
    {"tiers", required_argument, NULL, O_TIERS},       {"rate", required_argument, NULL, O_RATE},
    {"oversubscription", required_argument, NULL, O_OVER}, {"hosts-per-leaf", required_argument, NULL, O_LEAF},
    {"units-per-pod", required_argument, NULL, O_POD}, {"spines", required_argument, NULL, O_SPINES},
    {"cores", required_argument, NULL, O_CORES},       {"down", required_argument, NULL, O_DOWN},
    {"slow", required_argument, NULL, O_SLOW},         {"gpus", required_argument, NULL, O_GPUS},
    {"jobs", required_argument, NULL, O_JOBS},         {"job-hosts", required_argument, NULL, O_JOB_HOSTS},
    {"place", required_argument, NULL, O_PLACE},       {"collective", required_argument, NULL, O_COLLECTIVE},
    {"size", required_argument, NULL, O_SIZE},         {"sizes", required_argument, NULL, O_SIZES},
    {"root", required_argument, NULL, O_ROOT},         {"algo", required_argument, NULL, O_ALGO},
    {"order", required_argument, NULL, O_ORDER},       {"nics", required_argument, NULL, O_NICS},
    {"compare", no_argument, NULL, O_COMPARE},         {"flows", required_argument, NULL, O_FLOWS},
    {"channels", required_argument, NULL, O_CHANNELS}, {"window", required_argument, NULL, O_WINDOW},
    {"slot", required_argument, NULL, O_SLOT},         {"machine", required_argument, NULL, O_MACHINE},
    {"all", no_argument, NULL, O_ALL},                 {"classes", no_argument, NULL, O_CLASSES},
    {"memory-limit", required_argument, NULL, O_MEMORY}, {"json", no_argument, NULL, O_JSON},
    {"svg", required_argument, NULL, O_SVG},           {"plot", required_argument, NULL, O_PLOT},
    {"fail", required_argument, NULL, O_FAIL},         {"timeline", required_argument, NULL, O_TIMELINE},
    {"topology", required_argument, NULL, O_TOPOLOGY},
    {"shift", required_argument, NULL, O_SHIFT},       {"hash", required_argument, NULL, O_HASH},
    {"cost", required_argument, NULL, O_COST},         {"help", no_argument, NULL, 'h'},                  {0},
};

static int bad(const char *option, const char *value, const char *wanted)
{
    fprintf(stderr, "railccl plan: --%s %s: %s\n", option, value, wanted);
    return 2;
}

static bool read_count(const char *text, uint32_t *out)
{
    char *end;
    unsigned long long x = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || x == 0 || x > UINT32_MAX) return false;
    *out = (uint32_t)x;
    return true;
}

static bool read_number(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out == *out;
}

/* "64", "4K", "1G"; stops at `stop`. */
static bool read_bytes(const char *text, char stop, uint64_t *out, const char **rest)
{
    static const char units[] = "KMGT";
    char *end;
    double x = strtod(text, &end);
    const char *unit = *end && *end != stop ? strchr(units, *end & ~0x20) : NULL;
    if (end == text || !(x > 0)) return false;
    for (long k = unit ? unit - units + 1 : 0; k > 0; k--) x *= 1024;
    end += unit != NULL;
    if ((*end && *end != stop) || x > 1e18) return false;
    *out = (uint64_t)x;
    if (rest) *rest = *end ? end + 1 : NULL;
    return true;
}

static bool read_sizes(struct plan_wish *w, const char *text)
{
    const char *rest;
    uint64_t from, to;
    double factor = 4;
    if (!read_bytes(text, ':', &from, &rest) || !rest || !read_bytes(rest, ':', &to, &rest) || from > to ||
        (rest && (!read_number(rest, &factor) || !(factor > 1))))
        return false;
    w->n_sizes = 0;
    for (double x = (double)from; x <= (double)to * 1.0001; x *= factor) {
        if (w->n_sizes == PLAN_SIZES_MAX) return false;
        w->sizes[w->n_sizes++] = (uint64_t)x;
    }
    return true;
}

static bool read_collective(struct plan_wish *w, const char *text)
{
    w->send_recv = strcasecmp(text, "sendrecv") == 0;
    if (w->send_recv) return true;
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        if (strcasecmp(collective_name((uint32_t)c), text) == 0) return w->collective = (enum plan_collective)c, true;
    return false;
}

static bool read_algorithms(struct plan_wish *w, char *text)
{
    char *save = NULL;
    w->n_algorithms = 0;
    for (char *name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        int found = strcmp(name, "auto") == 0 ? -1 : -2;
        for (int a = 0; a < PLAN_ALGORITHMS; a++) {
            bool all = strcmp(name, "all") == 0 && a != PLAN_ONE_SHOT && a != PLAN_TWO_SHOT && a != PLAN_RANK_TREE;
            if (all && w->n_algorithms < PLAN_ALGORITHMS) w->algorithms[w->n_algorithms++] = a, found = -3;
            else if (strcmp(name, plan_algorithm_names[a]) == 0) found = a;
        }
        if (found == -2 || w->n_algorithms > PLAN_ALGORITHMS) return false;
        if (found >= -1) w->algorithms[w->n_algorithms++] = found;
    }
    return w->n_algorithms > 0;
}

static bool read_place(struct plan_wish *w, const char *text)
{
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    uint32_t seed = 1;
    if (colon && !read_count(colon + 1, &seed)) return false;
    w->seed = seed;
    if (n == 5 && strncmp(text, "whole", 5) == 0) w->placement = PLACE_WHOLE;
    else if (n == 10 && strncmp(text, "fragmented", 10) == 0) w->placement = PLACE_FRAGMENTED;
    else if (n == 8 && strncmp(text, "shuffled", 8) == 0) w->placement = PLACE_SHUFFLED;
    else return false;
    return true;
}

static bool read_kind(struct plan_wish *w, const char *text)
{
    for (int k = 0; k < NETWORK_KINDS; k++)
        if (strcmp(network_kind_names[k], text) == 0) return w->network.kind = (enum network_kind)k, true;
    return false;
}

static bool read_over(struct plan_wish *w, char *text)
{
    char *comma = strchr(text, ',');
    if (comma) *comma++ = '\0';
    double *ratio = w->network.oversubscription; /* 0 would be the default */
    return read_number(text, &ratio[0]) && ratio[0] > 0 && (!comma || (read_number(comma, &ratio[1]) && ratio[1] > 0));
}

static bool read_fault(struct plan_wish *w, char *text, bool down)
{
    char *equals = strrchr(text, '=');
    double factor = 0;
    if (w->n_faults == PLAN_FAULTS_MAX) return false;
    if (!down && (!equals || !read_number(equals + 1, &factor) || !(factor > 0) || factor > 1)) return false;
    if (!down) *equals = '\0';
    w->faults[w->n_faults].what = text;
    w->faults[w->n_faults++].factor = factor;
    return true;
}

static bool read_time(const char *text, double *ns)
{
    static const struct { const char *name; double ns; } units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    char *end;
    double x = strtod(text, &end);
    for (int k = 0; k < 4 && end != text && x >= 0; k++)
        if (strcmp(end, units[k].name) == 0) return *ns = x * units[k].ns, true;
    return false;
}

/* PART[=FACTOR][,silent]@FROM[..TO] */
static bool read_fail(struct plan_wish *w, char *text)
{
    char *at = strrchr(text, '@'), *to = at ? strstr(at, "..") : NULL, *comma, *equals;
    if (!at || w->n_fails == REPAIRS_FAULTS_MAX) return false;
    struct timeline_fault *f = &w->fails[w->n_fails];
    *f = (struct timeline_fault){.what = text, .until_ns = HUGE_VAL};
    *at++ = '\0';
    if (to) *to = '\0';
    if (!read_time(at, &f->at_ns) || (to && !read_time(to + 2, &f->until_ns))) return false;
    comma = strrchr(text, ',');
    if (comma && strcmp(comma, ",silent") != 0) return false;
    if (comma) f->silent = true, *comma = '\0';
    equals = strrchr(text, '=');
    if (equals && (!read_number(equals + 1, &f->factor) || !(f->factor > 0) || f->factor > 1 || f->silent))
        return false;
    if (equals) *equals = '\0';
    w->n_fails++;
    return true;
}

static bool read_cost(struct plan_wish *w, char *text)
{
    struct simulate_machine *m = &w->costs;
    const struct { const char *name; double *at;
    } fields[] = {
        {"payload", &m->payload},
        {"hop_ns", &m->hop_ns},
        {"switch_ns", &m->switch_ns},
        {"local_hop_ns", &m->local_hop_ns},
        {"step_ns", &m->step_ns},
        {"memory_ns_per_byte", &m->memory_ns_per_byte},
        {"local_gbyte_s", &m->local_gbyte_s},
    };
    char *equals = strchr(text, '=');
    double value;
    if (!equals || !read_number(equals + 1, &value) || value < 0 || value > 1e12) return false;
    *equals = '\0';
    for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++)
        if (strcmp(fields[k].name, text) == 0 && (k > 0 || (value > 0 && value <= 1)))
            return *fields[k].at = value, m->source = "with costs given by --cost", true;
    return false;
}

static bool read_machine(struct plan_wish *w, const char *text)
{
    const struct simulate_machine *machine = simulate_machine_named(text);
    if (machine) w->costs = *machine;
    return machine != NULL;
}

/* Counts. NULL: the option is none. */
static uint32_t *counted(struct plan_wish *w, int option)
{
    switch (option) {
    case O_HOSTS: return &w->network.hosts;
    case O_RAILS: return &w->network.rails;
    case O_TIERS: return &w->network.tiers;
    case O_LEAF: return &w->network.hosts_per_leaf;
    case O_POD: return &w->network.units_per_pod;
    case O_SPINES: return &w->network.spines;
    case O_CORES: return &w->network.cores;
    case O_GPUS: return &w->gpus;
    case O_JOBS: return &w->jobs;
    case O_JOB_HOSTS: return &w->job_hosts;
    case O_FLOWS: return &w->flows;
    case O_CHANNELS: return &w->channels;
    case O_SHIFT: return &w->shift;
    case O_HASH: return &w->network.hash;
    default: return NULL;
    }
}

/* NULL: good; else what is wanted. */
static const char *take_named(struct plan_wish *w, int option, char *text)
{
    switch (option) {
    case O_KIND: return read_kind(w, text) ? NULL : "rail, fat-tree, dual-plane or dual-tor";
    case O_RATE:
        return read_number(text, &w->network.nic_gbit) && w->network.nic_gbit >= LEAST_GBIT && w->network.nic_gbit <= MOST_GBIT
                   ? NULL
                   : "Gbit/s, each way, 0.000001 to 1000000; what has no rate is --down";
    case O_OVER: return read_over(w, text) ? NULL : "one number above 0, or two with a comma: 2 is 2:1";
    case O_DOWN: return read_fault(w, text, true) ? NULL : "at most 64 parts";
    case O_SLOW:
        return read_fault(w, text, false) ? NULL
                                          : "PART=FACTOR with a factor above 0, at most 1; a rate of zero is --down";
    case O_PLACE: return read_place(w, text) ? NULL : "whole, fragmented:SEED or shuffled:SEED";
    case O_COLLECTIVE: return read_collective(w, text) ? NULL : "no such collective: --help lists them";
    case O_ALGO:
        return read_algorithms(w, text) ? NULL : "auto, all, ring, tree, doubling, hierarchy, rails, ranktree ...";
    case O_SIZES: return read_sizes(w, text) ? NULL : "FROM:TO[:FACTOR], at most 32 sizes, such as 1M:4G or 1K:1G:2";
    case O_ROOT: return strcmp(text, "0") == 0 || read_count(text, &w->root) ? NULL : "a rank";
    case O_ORDER:
        return strcmp(text, "given") == 0  ? (w->as_given = true, NULL)
               : strcmp(text, "ours") == 0 ? NULL
                                           : "ours or given";
    case O_NICS:
        return strcmp(text, "unaware") == 0   ? (w->unaware = true, NULL)
               : strcmp(text, "aligned") == 0 ? NULL
                                              : "aligned or unaware";
    case O_MACHINE: return read_machine(w, text) ? NULL : simulate_machine_names;
    case O_COST:
        return read_cost(w, text) ? NULL : "NAME=NUMBER, not negative; payload above 0, at most 1; --help lists names";
    case O_MEMORY: return read_number(text, &w->memory_gib) && w->memory_gib > 0 ? NULL : "GiB";
    default: return NULL;
    }
}

static const char *take(struct plan_wish *w, int option, char *text)
{
    uint64_t bytes;
    uint32_t *count = counted(w, option);
    w->gpus_asked |= option == O_GPUS;
    if (count) return read_count(text, count) ? NULL : "a whole number above 0, at most 4294967295";
    switch (option) {
    case O_FABRIC: w->fabric_file = text; return NULL;
    case O_SVG: w->svg = text; return NULL;
    case O_TOPOLOGY:
        if (w->n_topologies == PLAN_TOPOLOGIES_MAX) return "at most 1024 files";
        w->topologies[w->n_topologies++] = text;
        return NULL;
    case O_PLOT: w->plot = text; return NULL;
    case O_TIMELINE: w->timeline = text; return NULL;
    case O_FAIL:
        return read_fail(w, text) ? NULL
                                  : "at most 16 of PART[=FACTOR][,silent]@FROM[..TO], such as nic:host3.1@2ms..1s";
    case O_COMPARE: w->compare = true; return NULL;
    case O_JSON: w->json = true; return NULL;
    case O_ALL: w->all = true; return NULL;
    case O_CLASSES: w->classes = true; return NULL;
    case O_SIZE: w->n_sizes = 1; return read_bytes(text, 0, &w->sizes[0], NULL) ? NULL : "bytes: 64K, 1M, 2.5G";
    case O_WINDOW:
    case O_SLOT:
        if (!read_bytes(text, 0, &bytes, NULL) || bytes < 64 || bytes > (1u << 30)) return "64 bytes to 1G";
        *(option == O_WINDOW ? &w->window_bytes : &w->slot_bytes) = (uint32_t)bytes;
        return NULL;
    default: return take_named(w, option, text);
    }
}

int plan_read_options(struct plan_wish *w, int argc, char **argv)
{
    opterr = 0;
    optind = 0;
    for (int c, index = 0; (c = getopt_long(argc, argv, "h", options, &index)) != -1;) {
        if (c == 'h') return usage(stdout);
        if (c == '?') {
            fprintf(stderr, "railccl plan: %s: no such option, or without its value\n", argv[optind - 1]);
            return usage(stderr);
        }
        const char *wanted = take(w, c, optarg);
        if (wanted) return bad(options[index].name, optarg, wanted);
    }
    if (optind < argc)
        return fprintf(stderr, "railccl plan: %s: everything is said by options; --help\n", argv[optind]), 2;
    if (w->timeline && !w->n_fails)
        return fprintf(stderr, "railccl plan: --timeline draws what --fail does: name a part and a time\n"), 2;
    if (w->n_fails && (w->n_sizes > 1 || w->n_algorithms > 1 || w->jobs > 1 || w->compare || w->svg || w->plot))
        return fputs("railccl plan: --fail is for one job, size and algorithm; no --compare, --svg, --plot\n", stderr),
               2;
    if (w->all && w->classes) return fprintf(stderr, "railccl plan: --all or --classes, not both\n"), 2;
    if (!w->network.tiers) w->network.tiers = w->network.hosts > 512 ? 3 : 2;
    w->machine = &w->costs;
    if (!w->network.nic_gbit) w->network.nic_gbit = w->machine->nic_gbit;
    return -1;
}
