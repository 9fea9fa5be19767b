/* options.c - see options.h. One table says for each option its letter, name, range and where the number goes. */
#include "options.h"

#include <ctype.h>
#include <getopt.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "types.h"

enum kind { NUMBER, SWITCH, BYTES, OP, TYPE, TEXT, UNALIGN, ABSENT, HELP, BREAK };

struct option_line {
    char letter; /* 0: long only */
    const char *name, *argument;
    enum kind kind;
    size_t offset; /* into struct perf_options */
    int low, high; /* NUMBER */
    const char *text; /* help; for ABSENT: what is missing */
};

#define AT(member) offsetof(struct perf_options, member)

static const struct option_line lines[] = {
    {'t', "nthreads", "N", NUMBER, AT(threads), 1, 4096, "threads per process (1)"},
    {'g', "ngpus", "N", NUMBER, AT(ranks_per_thread), 1, 4096, "ranks per thread, driven as one group (1)"},
    {'b', "minbytes", "SIZE", BYTES, AT(min_bytes), 0, 0, "first size in bytes, K M G allowed (32M)"},
    {'e', "maxbytes", "SIZE", BYTES, AT(max_bytes), 0, 0, "last size (32M)"},
    {'i', "stepbytes", "SIZE", BYTES, AT(step_bytes), 0, 0, "step between sizes (1M)"},
    {'f', "stepfactor", "N", BYTES, AT(step_factor), 0, 0, "factor between sizes instead of a step"},
    {'n', "iters", "N", NUMBER, AT(iterations), 0, INT_MAX,
     "timed iterations (20); 0: as many as take 50 ms, so that sizes of a microsecond are\n"
     "                              not measured by 20 calls"},
    {'m', "agg_iters", "N", NUMBER, AT(aggregate), 1, 1000000, "operations per iteration, in one group (1)"},
    {'w', "warmup_iters", "N", NUMBER, AT(warmup), 0, INT_MAX,
     "untimed iterations before each measurement (20 below 1M, then 1)"},
    {'N', "run_cycles", "N", NUMBER, AT(cycles), 0, INT_MAX, "runs over all sizes (1; 0: for ever)"},
    {'p', "parallel_init", "0/1", SWITCH, AT(parallel_init), 0, 0,
     "1: every thread starts its own ranks; 0: the main thread starts all (0)"},
    {'c', "check", "N", NUMBER, AT(checks), 0, 1000000, "checked operations per size and placement (1; 0: none)"},
    {'o', "op", "OP", OP, AT(op), 0, 0, "sum prod min max avg mulsum, or all (sum)"},
    {'d', "datatype", "TYPE", TYPE, AT(type), 0, 0,
     "int8 uint8 int32 uint32 int64 uint64 half float double bfloat16 f8e4m3 f8e5m2, or all (float)"},
    {'r', "root", "RANK", NUMBER, AT(root), -1, INT_MAX, "root where there is one; -1: all in turn (0)"},
    {'z', "blocking", "0-3", NUMBER, AT(blocking), 0, 3,
     "1: barrier after each operation (timed); 3: barrier after each iteration (not timed);\n"
     "                              0, 2: none; host memory is complete on return in any case (0)"},
    {'y', "stream_null", "0/1", ABSENT, 0, 0, 1, ""}, /* all streams are NULL with host memory: either value is right */
    {'T', "timeout", "S", NUMBER, AT(timeout_s), 0, INT_MAX, "give up when a step takes longer, in seconds (0: never)"},
    {'G', "cudagraph", "N", NUMBER, AT(graphs), 0, INT_MAX,
     "capture the iterations into a CUDA graph and launch it N times (0: no graph)"},
    {'C', "report_cputime", "0/1", SWITCH, AT(cpu_time), 0, 0, "the calling thread's CPU time instead of elapsed time (0)"},
    {'a', "average", "0-3", NUMBER, AT(average), 0, 3, "time shown: rank 0's, mean, min or max over the ranks (1)"},
    {'R', "local_register", "0-2", NUMBER, AT(registration), 0, 2, "register buffers: 1 local, 2 symmetric window (0)"},
    {'x', "cta_policy", "N", ABSENT, 0, 0, 0, "CTA policies need GPU kernels"},
    {'D', "device_implementation", "N", ABSENT, 0, 0, 0, "device implementations need NCCL's device API"},
    {'V', "device_cta_count", "N", ABSENT, 0, 0, 0, "device implementations need NCCL's device API"},
    {'J', "output_file", "FILE", TEXT, AT(json_path), 0, 0, "also write the results as JSON (FILE.0, .1 ... if it exists)"},
    {'S', "report_timestamps", "0/1", SWITCH, AT(timestamps), 0, 0, "the time of day at the end of each row (0)"},
    {'M', "memory", "0/1", SWITCH, AT(memory_report), 0, 0, "report this process's memory at each stage (0)"},
    {'u', "unalign", "N", UNALIGN, 0, 0, 0, "start buffers N elements, or with \"b\" (1b) N bytes, off alignment (0)"},
    {'I', "per_iter_timing", "0/1", SWITCH, AT(per_iteration), 0, 0,
     "time each iteration: adds i_min i_max i_p99 i_cv% (0)"},
    {'K', "per_iter_skip", "N", NUMBER, AT(per_iteration_skip), 0, INT_MAX, "leave the first N out of those figures (0)"},
    {0, "break", "WHAT", BREAK, 0, 0, 0,
     "spoil one byte on the last rank before each check: output (default), input, guard.\n"
     "                              #wrong must show it and the exit status must be 1"},
    {'h', "help", NULL, HELP, 0, 0, 0, "this text"},
};
enum { N_LINES = sizeof lines / sizeof *lines };

static void help(FILE *out, const char *program)
{
    fprintf(out, "Usage: %s [options]\n"
                 "Measures a collective and checks every element of every result while doing so.\n\n", program);
    for (int i = 0; i < N_LINES; i++) {
        const struct option_line *l = &lines[i];
        if (l->kind == ABSENT) continue;
        char left[64];
        snprintf(left, sizeof left, "%c%c%s--%s %s", l->letter ? '-' : ' ', l->letter ? l->letter : ' ',
                 l->letter ? ", " : "  ", l->name, l->argument ? l->argument : "");
        fprintf(out, "  %-27s %s\n", left, l->text);
    }
    fprintf(out,
            "\nRanks: processes x threads (-t) x ranks per thread (-g). Processes learn who they are from railccl run,\n"
            "mpirun, mpiexec, srun or torchrun; without any of them there is one. A rank works on the GPU of its number\n"
            "on the host, counted round and round; where there is none, or with RAILCCL_DEVICE=host, in host memory.\n"
            "Environment: NCCL_TESTS_DEVICE is the first GPU (0); NCCL_TESTS_MIN_BW=GB/s fails the run when the average is\n"
            "below 0.9 of it.\n"
            "Not available here: -x -D -V, NCCL_TESTS_SPLIT, NCCL_TESTS_SPLIT_MASK.\n"
            "Exit status: 0 good, 1 wrong results or a failed call, 2 bad usage, 3 time-out.\n");
}

static void defaults(struct perf_options *o)
{
    *o = (struct perf_options){
        .threads = 1, .ranks_per_thread = 1, .min_bytes = 32 << 20, .max_bytes = 32 << 20, .step_bytes = 1 << 20,
        .step_factor = 1, .iterations = 20, .aggregate = 1, .cycles = 1, .warmup = -1, .checks = 1, .op = PERF_SUM,
        .type = ncclFloat32, .average = PERF_MEAN, .least_bus_bandwidth = -1,
    };
}

static bool parse_int(const char *text, long low, long high, int *out)
{
    char *end;
    long value = strtol(text, &end, 0);
    if (end == text || *end || value < low || value > high) return false;
    *out = (int)value;
    return true;
}

static bool parse_unalign(const char *text, struct perf_options *o)
{
    char *end;
    if (!isdigit((unsigned char)*text)) return false;
    unsigned long value = strtoul(text, &end, 0);
    o->unalign_in_bytes = *end == 'b';
    if (*end == 'b') end++;
    o->unalign = value;
    return !*end && value <= 4096;
}

static bool parse_break(const char *text, struct perf_options *o)
{
    static const char *const names[] = {"", "output", "input", "guard"};
    for (int i = PERF_BREAK_OUTPUT; i <= PERF_BREAK_GUARD; i++)
        if (strcmp(text ? text : "output", names[i]) == 0) return o->break_what = (enum perf_break)i, true;
    return false;
}

/* Stores one option's value; false with a complaint written. */
static bool take(const struct option_line *l, const char *text, struct perf_options *o, FILE *errors)
{
    char *place = (char *)o + l->offset;
    int number;
    switch (l->kind) {
    case NUMBER:
        if (parse_int(text, l->low, l->high, (int *)(void *)place)) return true;
        fprintf(errors, "--%s %s: want a whole number from %d to %d\n", l->name, text, l->low, l->high);
        return false;
    case SWITCH:
        if (parse_int(text, 0, 1, &number)) return *(bool *)place = number, true;
        fprintf(errors, "--%s %s: want 0 or 1\n", l->name, text);
        return false;
    case BYTES:
        if (perf_size_parse(text, (size_t *)(void *)place)) return true;
        fprintf(errors, "--%s %s: want a size such as 8, 64K, 1.5M or 2G\n", l->name, text);
        return false;
    case OP:
        number = strcmp(text, "all") == 0 ? PERF_ALL : perf_op_find(text);
        if (number >= 0 || strcmp(text, "all") == 0) return *(int *)(void *)place = number, true;
        fprintf(errors, "--op %s: want sum, prod, min, max, avg, mulsum or all\n", text);
        return false;
    case TYPE:
        number = strcmp(text, "all") == 0 ? PERF_ALL : perf_type_find(text);
        if (number >= 0 || strcmp(text, "all") == 0) return *(int *)(void *)place = number, true;
        fprintf(errors, "--datatype %s: no such type; -h lists them\n", text);
        return false;
    case TEXT: *(const char **)(void *)place = text; return true;
    case UNALIGN:
        if (parse_unalign(text, o)) return true;
        fprintf(errors, "--unalign %s: want a number of elements up to 4096, or of bytes such as 1b\n", text);
        return false;
    case BREAK:
        if (parse_break(text, o)) return true;
        fprintf(errors, "--break=%s: want output, input or guard\n", text);
        return false;
    case ABSENT: /* a value that asks for nothing is accepted, so that scripts for nccl-tests run */
        if (parse_int(text, 0, l->high, &number)) return true;
        fprintf(errors, "--%s %s: not available: %s\n", l->name, text, *l->text ? l->text : "want 0 or 1");
        return false;
    case HELP: break;
    }
    return false;
}

static bool consistent(struct perf_options *o, FILE *errors)
{
    if (o->min_bytes > o->max_bytes)
        return fprintf(errors, "--minbytes %zu is above --maxbytes %zu\n", o->min_bytes, o->max_bytes), false;
    if (o->step_factor <= 1 && o->step_bytes == 0 && o->min_bytes != o->max_bytes)
        return fprintf(errors, "--stepbytes 0 without --stepfactor never gets from %zu to %zu\n", o->min_bytes,
                       o->max_bytes), false;
    if (o->step_factor > 1 && o->min_bytes == 0 && o->max_bytes > 0)
        return fprintf(errors, "--stepfactor %zu never leaves --minbytes 0: start at 1 or more\n", o->step_factor), false;
    if (o->per_iteration && o->iterations == 0)
        return fprintf(errors, "--per_iter_timing needs a fixed number of iterations: not -n 0\n"), false;
    if (o->per_iteration_skip && !o->per_iteration)
        return fprintf(errors, "--per_iter_skip needs --per_iter_timing 1\n"), false;
    if (o->per_iteration && o->per_iteration_skip >= o->iterations)
        return fprintf(errors, "--per_iter_skip %d leaves none of %d iterations\n", o->per_iteration_skip, o->iterations),
               false;
    if (o->graphs && (o->iterations == 0 || o->per_iteration || o->blocking == 1 || o->blocking == 3))
        return fprintf(errors, "--cudagraph %d needs a fixed number of iterations, without a look in between: not -n 0, "
                       "-I 1, -z 1 or -z 3\n", o->graphs), false;
    if (o->break_what != PERF_BREAK_NOTHING && o->checks == 0)
        return fprintf(errors, "--break without checking (-c 0) would not be noticed\n"), false;
    return true;
}

static bool environment(struct perf_options *o, FILE *errors)
{
    static const char *const absent[] = {"NCCL_TESTS_SPLIT", "NCCL_TESTS_SPLIT_MASK"};
    for (int i = 0; i < 2; i++)
        if (getenv(absent[i]))
            return fprintf(errors, "%s=%s: not available yet (needs ncclCommSplit); unset it\n", absent[i],
                           getenv(absent[i])), false;
    const char *least = getenv("NCCL_TESTS_MIN_BW");
    if (!least) return true;
    char *end;
    o->least_bus_bandwidth = strtod(least, &end);
    if (end != least && !*end && o->least_bus_bandwidth >= 0) return true;
    return fprintf(errors, "NCCL_TESTS_MIN_BW=%s: want a bandwidth in GB/s\n", least), false;
}

enum perf_parsed perf_options_parse(int argc, char **argv, struct perf_options *options, FILE *out, FILE *errors)
{
    struct option longs[N_LINES + 1];
    char shorts[2 * N_LINES + 2], *s = shorts;
    *s++ = ':';
    for (int i = 0; i < N_LINES; i++) {
        int argument = lines[i].kind == HELP ? no_argument : lines[i].kind == BREAK ? optional_argument : required_argument;
        longs[i] = (struct option){lines[i].name, argument, NULL, 256 + i};
        if (!lines[i].letter) continue;
        *s++ = lines[i].letter;
        if (argument == required_argument) *s++ = ':';
    }
    *s = 0;
    longs[N_LINES] = (struct option){0};

    defaults(options);
    optind = 0; /* parse from the start also on a second call */
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (c == '?' || c == ':') {
            const char *what = argv[optind - 1];
            fprintf(errors, "%s: %s; -h lists the options\n", what, c == ':' ? "needs a value" : "no such option");
            return PERF_BAD_USAGE;
        }
        int i = c - 256;
        if (c < 256)
            for (i = 0; lines[i].letter != c;) i++;
        if (lines[i].kind == HELP) return help(out, argv[0]), PERF_HELPED;
        if (!take(&lines[i], optarg, options, errors)) return PERF_BAD_USAGE;
    }
    if (optind < argc) {
        fprintf(errors, "%s: not an option; -h lists them\n", argv[optind]);
        return PERF_BAD_USAGE;
    }
    return consistent(options, errors) && environment(options, errors) ? PERF_RUN : PERF_BAD_USAGE;
}

size_t perf_options_next_size(const struct perf_options *o, size_t bytes)
{
    size_t next = o->step_factor > 1 ? bytes * o->step_factor : bytes + o->step_bytes;
    if (o->step_factor > 1 && bytes > SIZE_MAX / o->step_factor) return SIZE_MAX;
    return next > bytes && next <= o->max_bytes ? next : SIZE_MAX;
}
