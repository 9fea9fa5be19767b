/* tune_options.c - the command line of `railccl tune --measure`. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "tune.h"

enum { MEASURE = 256, EMULATE, COLLECTIVE, SIZES, ROUNDS, TIMEOUT, JSON, PLOT, FROM, SAVE };

static const struct option longs[] = {{"measure", no_argument, NULL, MEASURE},
                                      {"ranks", required_argument, NULL, 'n'},
                                      {"hosts-emulate", required_argument, NULL, EMULATE},
                                      {"collective", required_argument, NULL, COLLECTIVE},
                                      {"sizes", required_argument, NULL, SIZES},
                                      {"rounds", required_argument, NULL, ROUNDS},
                                      {"timeout", required_argument, NULL, TIMEOUT},
                                      {"json", required_argument, NULL, JSON},
                                      {"plot", required_argument, NULL, PLOT},
                                      {"from", required_argument, NULL, FROM},
                                      {"save", no_argument, NULL, SAVE},
                                      {"help", no_argument, NULL, 'h'},
                                      {0}};

static const char *const names[PLAN_COLLECTIVES] = {
    [PLAN_ALLREDUCE] = "all_reduce",
    [PLAN_BROADCAST] = "broadcast",
    [PLAN_REDUCE] = "reduce",
    [PLAN_ALLGATHER] = "all_gather",
    [PLAN_REDUCESCATTER] = "reduce_scatter",
    [PLAN_GATHER] = "gather",
    [PLAN_SCATTER] = "scatter",
    [PLAN_ALLTOALL] = "alltoall",
};

const char *tune_collective_name(enum plan_collective c) { return names[c]; }

static int usage(void)
{
    puts("Usage: railccl tune --measure [-n RANKS] [options]\n"
         "Runs the chooser beside every algorithm that can be forced, on this machine's host memory, and says at each "
         "size\n"
         "what it took, what would have been fastest, why it chose so, and the settings by which it would be right.\n\n"
         "  -n, --ranks N           ranks, a process each (2)\n"
         "      --hosts-emulate H   on H pretended hosts, joined by TCP over loopback\n"
         "      --collective LIST   all_reduce (default), broadcast, reduce, all_gather, reduce_scatter, gather, "
         "scatter,\n"
         "                          alltoall: some of them, or all\n"
         "      --sizes A:B         doubling from A to B; K, M, G allowed (8:64M)\n"
         "      --rounds N          every run so often, in turns; medians count (5)\n"
         "      --timeout S         seconds that one run may take (120)\n"
         "      --json FILE         all times, and what follows from them\n"
         "      --from FILE         what --json wrote before, instead of measuring\n"
         "      --plot FILE         SVG\n"
         "      --save              the settings into the file that ranks read when they start (RAILCCL_TUNING_FILE, "
         "else\n"
         "                          one named by processor and cores in ~/.cache/railccl)\n\n"
         "A factor is the chooser's time over the fastest's: the median of the rounds' ratios. Above 1.10 it is "
         "marked.\n"
         "Exit status: 0 nothing is marked, 1 something is, 2 bad usage or no measurement.");
    return 0;
}

static bool bad(const char *option, const char *want)
{
    return fprintf(stderr, "railccl tune: --%s %s: want %s\n", option, optarg, want), false;
}

static bool whole(const char *option, int low, int high, int *out)
{
    char *end, want[64];
    long value = strtol(optarg, &end, 10);
    if (end != optarg && !*end && value >= low && value <= high) return *out = (int)value, true;
    snprintf(want, sizeof want, "a whole number from %d to %d", low, high);
    return bad(option, want);
}

static bool size(const char **text, uint64_t *out)
{
    char *end;
    unsigned long long value = strtoull(*text, &end, 10);
    if (end == *text || **text == '-' || value > (unsigned long long)1 << 40) return false;
    int shift = (*end | 32) == 'k' ? 10 : (*end | 32) == 'm' ? 20 : (*end | 32) == 'g' ? 30 : 0;
    if (shift) end++;
    *text = end;
    *out = (uint64_t)value << shift;
    return true;
}

static bool sizes(struct tune_wish *w)
{
    const char *at = optarg;
    if (size(&at, &w->from_bytes) && *at++ == ':' && size(&at, &w->to_bytes) && !*at && w->from_bytes >= 8 &&
        w->from_bytes <= w->to_bytes && w->to_bytes <= (uint64_t)4 << 30)
        return true;
    return bad("sizes", "A:B, 8 <= A <= B <= 4G");
}

static bool collectives(struct tune_wish *w)
{
    w->collectives = 0;
    if (strcmp(optarg, "all") == 0) return w->collectives = (1u << PLAN_COLLECTIVES) - 1, true;
    for (const char *at = optarg;; at++) {
        size_t length = strcspn(at, ",");
        int c = 0;
        while (c < PLAN_COLLECTIVES && (strlen(names[c]) != length || strncmp(names[c], at, length) != 0)) c++;
        if (c == PLAN_COLLECTIVES)
            return bad("collective", "names out of all_reduce, broadcast, reduce, all_gather, reduce_scatter, gather, "
                                     "scatter, alltoall, with commas; or all");
        w->collectives |= 1u << c;
        at += length;
        if (!*at) return true;
    }
}

static bool take(int c, struct tune_wish *w)
{
    switch (c) {
    case MEASURE: return true;
    case 'n': return whole("ranks", 2, 1024, &w->ranks);
    case EMULATE: return whole("hosts-emulate", 1, 1024, &w->hosts);
    case COLLECTIVE: return collectives(w);
    case SIZES: return sizes(w);
    case ROUNDS: return whole("rounds", 1, TUNE_ROUNDS_MAX, &w->rounds);
    case TIMEOUT: return whole("timeout", 1, 86400, &w->timeout_s);
    case JSON: return w->json = optarg, true;
    case PLOT: return w->plot = optarg, true;
    case FROM: return w->from = optarg, true;
    case SAVE: return w->save = true;
    default: return false;
    }
}

int tune_read_options(struct tune_wish *w, int argc, char **argv)
{
    *w = (struct tune_wish){.ranks = 2,
                            .hosts = 1,
                            .rounds = 5,
                            .timeout_s = 120,
                            .from_bytes = 8,
                            .to_bytes = 64 << 20,
                            .collectives = 1u << PLAN_ALLREDUCE};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "+:n:h", longs, NULL)) != -1;) {
        if (c == 'h') return usage();
        if (c == '?' || c == ':')
            return fprintf(stderr, "railccl tune --measure: %s: %s; --help lists the options\n", argv[optind - 1],
                           c == ':' ? "needs a value" : "no such option"),
                   2;
        if (!take(c, w)) return 2;
    }
    if (optind < argc)
        return fprintf(stderr, "railccl tune --measure: %s: nothing was expected here\n", argv[optind]), 2;
    if (w->hosts > w->ranks)
        return fprintf(stderr, "railccl tune: %d hosts for %d ranks: want a rank a host at least\n", w->hosts,
                       w->ranks),
               2;
    return -1;
}
