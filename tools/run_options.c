/* run_options.c - the command line of `railccl run`. */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum { MAX_RANKS = 65536 };

static int usage(FILE *out)
{
    fputs(
        "Usage: railccl run -n N [options] COMMAND [ARGUMENT ...]\n"
        "Starts N copies of COMMAND, tells each which rank it is, and ends when all have ended.\n\n"
        "Where:\n"
        "  -n, --ranks N           how many ranks in all (default: what the hosts' slots add up to)\n"
        "      --hosts A[:S],B...  on these hosts, over ssh; S ranks at most on that host\n"
        "      --netns A[:S],B...  each network namespace counts as a host (needs root)\n"
        "      --hosts-emulate K   pretend that this host is K hosts (NCCL_HOSTID), joined by TCP over loopback\n"
        "      --per-host S        S for every host that does not say\n"
        "      --map block|cyclic  fill host after host (default), or deal ranks out in turn\n"
        "      --root ADDR[:PORT]  where rank 0 listens (default: rank 0's host and a free port)\n"
        "      --rsh COMMAND       instead of ssh: called as COMMAND HOST REMOTE-COMMAND (also $RAILCCL_RSH)\n"
        "What each rank gets:\n"
        "  -x, --env K=V           a variable; repeat for more. NCCL_* and RAILCCL_* of this shell go to all hosts\n"
        "      --no-preload        leave it to each program which libnccl.so.2 it loads; else this installation's\n"
        "                          (LD_PRELOAD, VLLM_NCCL_SO_PATH), also where a Python package brings its own\n"
        "      --preload           fail when this installation has none, instead of saying so\n"
        "      --dry-run           print the variables of each rank and run nothing\n"
        "Output: line by line, \"[rank] \" in front as soon as a second rank writes.\n"
        "      --tag               in front of every line from the first on\n"
        "      --no-prefix         never\n"
        "End: when a rank fails, it is named, the others get SIGTERM and after the grace SIGKILL; the exit status is that\n"
        "of the first failure (128 + signal). SIGINT, SIGTERM and SIGHUP are passed on; the second one kills.\n"
        "      --grace S           seconds between SIGTERM and SIGKILL (5)\n"
        "      --timeout S         stop everything after S seconds, with exit status 124\n"
        "      --keep-going        leave the others alone when one fails\n"
        "  -h, --help\n\n"
        "Rank 0 reads our standard input (not with --hosts), the others nothing.\n"
        "Examples:  railccl run -n 4 all_reduce_perf -b 8 -e 128M -f 2\n"
        "           railccl run --hosts node1:8,node2:8 --env NCCL_DEBUG=INFO ./train\n", out);
    return out == stdout;
}

static bool whole(const char *name, const char *text, int low, int high, int *out)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end != text && !*end && value >= low && value <= high) return *out = (int)value, true;
    return fprintf(stderr, "railccl run: --%s %s: want a whole number from %d to %d\n", name, text, low, high), false;
}

/* "a:4,b" - the text stays where it is, colons and commas become ends. */
static bool host_list(const char *name, char *text, struct run_options *o)
{
    if (o->hosts) return fprintf(stderr, "railccl run: --%s: only one of --hosts, --netns, --hosts-emulate\n", name), false;
    int count = 1;
    for (const char *p = text; *p; p++) count += *p == ',';
    o->hosts = calloc((size_t)count, sizeof *o->hosts);
    if (!o->hosts) return false;
    for (char *host = text, *next; host; host = next) {
        next = strchr(host, ',');
        if (next) *next++ = 0;
        char *close = strrchr(host, ']'), *colon = strrchr(host, ':');
        if (colon && (!close || colon > close)) {
            *colon = 0;
            if (!whole(name, colon + 1, 1, MAX_RANKS, &o->hosts[o->n_hosts].slots)) return false;
        }
        if (!*host) return fprintf(stderr, "railccl run: --%s: an empty host name\n", name), false;
        /* A name with a dash in front would be an option to ssh or ip. */
        if (*host == '-') return fprintf(stderr, "railccl run: --%s %s: not a host name\n", name, host), false;
        o->hosts[o->n_hosts++].name = host;
    }
    return true;
}

static bool emulate(const char *text, struct run_options *o)
{
    int count;
    if (o->hosts)
        return fputs("railccl run: --hosts-emulate: only one of --hosts, --netns, --hosts-emulate\n", stderr), false;
    if (!whole("hosts-emulate", text, 1, MAX_RANKS, &count)) return false;
    o->hosts = calloc((size_t)count, sizeof *o->hosts);
    o->n_hosts = count;
    return o->hosts != NULL;
}

static bool variable(const char *text, struct run_options *o)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text) return fprintf(stderr, "railccl run: --env %s: want NAME=VALUE\n", text), false;
    const char **more = realloc(o->env, sizeof *more * ((size_t)o->n_env + 1));
    if (!more) return false;
    o->env = more;
    o->env[o->n_env++] = text;
    return true;
}

enum { HOSTS = 256, NETNS, EMULATE, PER_HOST, MAP, ROOT, RSH, PRELOAD, NO_PRELOAD, DRY_RUN, TAG, NO_PREFIX, GRACE,
       TIMEOUT, KEEP_GOING, AGENT, SECRET, DIRECTORY };

static const struct option longs[] = {
    {"ranks", required_argument, NULL, 'n'},      {"hosts", required_argument, NULL, HOSTS},
    {"netns", required_argument, NULL, NETNS},    {"hosts-emulate", required_argument, NULL, EMULATE},
    {"per-host", required_argument, NULL, PER_HOST}, {"map", required_argument, NULL, MAP},
    {"root", required_argument, NULL, ROOT},      {"rsh", required_argument, NULL, RSH},
    {"env", required_argument, NULL, 'x'},        {"preload", no_argument, NULL, PRELOAD},
    {"no-preload", no_argument, NULL, NO_PRELOAD},
    {"dry-run", no_argument, NULL, DRY_RUN},      {"tag", no_argument, NULL, TAG},
    {"no-prefix", no_argument, NULL, NO_PREFIX},  {"grace", required_argument, NULL, GRACE},
    {"timeout", required_argument, NULL, TIMEOUT}, {"keep-going", no_argument, NULL, KEEP_GOING},
    {"help", no_argument, NULL, 'h'},
    /* between launcher and agent only: never on a command line, where others could read the secret */
    {"agent-host", required_argument, NULL, AGENT}, {"agent-secret", required_argument, NULL, SECRET},
    {"agent-directory", required_argument, NULL, DIRECTORY}, {0}};

static bool take(int c, struct run_options *o)
{
    switch (c) {
    case 'n': return whole("ranks", optarg, 1, MAX_RANKS, &o->n);
    case 'x': return variable(optarg, o);
    case HOSTS: return o->where = RUN_SSH, host_list("hosts", optarg, o);
    case NETNS: return o->where = RUN_NETNS, host_list("netns", optarg, o);
    case EMULATE: return o->where = RUN_EMULATED, emulate(optarg, o);
    case PER_HOST: return whole("per-host", optarg, 1, MAX_RANKS, &o->per_host);
    case MAP:
        o->map = strcmp(optarg, "cyclic") == 0 ? RUN_CYCLIC : RUN_BLOCK;
        if (o->map == RUN_CYCLIC || strcmp(optarg, "block") == 0) return true;
        return fprintf(stderr, "railccl run: --map %s: want block or cyclic\n", optarg), false;
    case ROOT: return o->root = optarg, true;
    case RSH: return o->rsh = optarg, true;
    case PRELOAD: return o->preload = RUN_PRELOAD, true;
    case NO_PRELOAD: return o->preload = RUN_PRELOAD_NOT, true;
    case DRY_RUN: return o->dry_run = true;
    case TAG: return o->prefix = RUN_PREFIX_ALWAYS, true;
    case NO_PREFIX: return o->prefix = RUN_PREFIX_NEVER, true;
    case GRACE: return whole("grace", optarg, 0, 86400, &o->grace_s);
    case TIMEOUT: return whole("timeout", optarg, 1, INT_MAX / 1000, &o->timeout_s);
    case KEEP_GOING: return o->keep_going = true;
    case AGENT: return whole("agent-host", optarg, 0, MAX_RANKS, &o->agent_host);
    case SECRET: return o->secret = optarg, true;
    case DIRECTORY: return o->directory = optarg, true;
    default: return false;
    }
}

enum run_parsed run_options_parse(int argc, char **argv, struct run_options *o)
{
    const char *rsh = getenv("RAILCCL_RSH");
    *o = (struct run_options){.grace_s = 5, .agent_host = -1, .rsh = rsh && *rsh ? rsh : "ssh"};
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, "+:n:x:h", longs, NULL)) != -1;) {
        if (c == 'h') return usage(stdout), RUN_HELPED;
        if (c == '?' || c == ':') {
            fprintf(stderr, "railccl run: %s: %s; --help lists the options\n", argv[optind - 1],
                    c == ':' ? "needs a value" : "no such option");
            return RUN_BAD_USAGE;
        }
        if (!take(c, o)) return RUN_BAD_USAGE;
    }
    if (optind == argc) return fputs("railccl run: no command given; --help says how\n", stderr), RUN_BAD_USAGE;
    o->command = argv + optind;
    if (o->hosts) return RUN_GO;
    if (o->per_host) return fputs("railccl run: --per-host: there are no --hosts or --netns\n", stderr), RUN_BAD_USAGE;
    o->hosts = calloc(1, sizeof *o->hosts);
    o->n_hosts = 1;
    if (o->n == 0) return fputs("railccl run: how many ranks? -n N\n", stderr), RUN_BAD_USAGE;
    return o->hosts ? RUN_GO : RUN_BAD_USAGE;
}

void run_options_free(struct run_options *o)
{
    free(o->hosts);
    free(o->env);
}
