/* kernel_perf.c - the library's kernel alone: n buffers of one GPU combined into one (n = 1: copied), by so many blocks,
 * beside the driver's copy from device to device in the same run.
 *
 *     GB/s = (sources + 1) x size / time         what the memory moves; the driver's copy: 2 x size / time
 *
 * Kernel and copy take turns; each figure is the median of ROUNDS turns of -n launches, back to back, by the clock of the
 * host. Sources and destination together should be several times the GPU's L2 cache. Blocks have 512 threads, one fits a
 * multiprocessor: "all" is one for each. Reaches inside the library, so it is linked with the archive. */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "device/cuda/cuda.h"
#include "engine/kernel.h"
#include "types.h"
#include "values.h"

enum { ROUNDS = 9, MOST = 16, ALIGNMENT = 256, GUARD_BYTES = 256, POISON = 0xa5, ALL_BLOCKS = 0 };
#define CALL "kernel_perf"

struct list { unsigned n, value[MOST]; };

struct options {
    size_t min_bytes, max_bytes, factor;
    int type, op, iterations, checks;
    struct list sources, blocks; /* ALL_BLOCKS: one per multiprocessor */
    bool spoil;
};

/* What launches need; pinned memory is the host's and the kernel's. */
struct pinned { struct kernel_report report; uint32_t stop; };
struct bench {
    const struct options *o;
    struct cuda_device *device;
    const struct cuda_kernel *kernel;
    cu_stream stream;
    struct pinned *pinned;
    uint64_t node;
    uint64_t sources, destination, apart; /* addresses; bytes from one source to the next */
    uint8_t *seen;                        /* of the host: one source, or the destination and what follows it */
    uint64_t launches;
};

struct row { size_t bytes; unsigned sources, blocks; };

static void must(enum rail_result result)
{
    if (result == RAIL_OK) return;
    fflush(stdout);
    fprintf(stderr, "%s\n", rail_last_error());
    exit(1);
}

/* ---- options ---- */

static const char help[] =
    "usage: kernel_perf [-b SIZE] [-e SIZE] [-f FACTOR] [-d TYPE] [-o OP] [-s SOURCES] [-B BLOCKS] [-n N] [-c N] [--break]\n"
    "  -b -e -f  sizes of one buffer from -b to -e, times -f (1M 1G 4)\n"
    "  -d -o     element type and operator (float sum)\n"
    "  -s        numbers of sources (1,2,4; 64 at most)\n"
    "  -B        numbers of blocks; all: one per multiprocessor (8,16,32,all)\n"
    "  -n        launches per turn (20), of nine turns\n"
    "  -c        checked launches per row (1)\n"
    "  --break   spoil an element of the result before it is checked: it must be found\n";

static bool list_parse(char *text, unsigned most, bool all, struct list *out)
{
    char *rest = NULL;
    out->n = 0;
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        int value = ALL_BLOCKS;
        if (out->n == MOST || (!(all && !strcmp(word, "all")) && !perf_whole_parse(word, 1, most, &value))) return false;
        out->value[out->n++] = (unsigned)value;
    }
    return out->n > 0;
}

static bool option(struct options *o, int which, char *text)
{
    int factor;
    switch (which) {
    case 'b': return perf_size_parse(text, &o->min_bytes) && o->min_bytes > 0;
    case 'e': return perf_size_parse(text, &o->max_bytes);
    case 'f': return perf_whole_parse(text, 2, 1 << 20, &factor) && (o->factor = (size_t)factor);
    case 'd': return (o->type = perf_type_find(text)) >= 0;
    case 'o': return (o->op = perf_op_find(text)) >= 0 && o->op <= PERF_MIN;
    case 's': return list_parse(text, 64, false, &o->sources);
    case 'B': return list_parse(text, 65535, true, &o->blocks);
    case 'n': return perf_whole_parse(text, 1, 1 << 20, &o->iterations);
    case 'c': return perf_whole_parse(text, 0, 1000, &o->checks);
    case 'x': return o->spoil = true;
    default: return false;
    }
}

static struct options options_parse(int argc, char **argv)
{
    static const struct option words[] = {{"break", no_argument, NULL, 'x'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct options o = {.min_bytes = 1 << 20, .max_bytes = 1 << 30, .factor = 4, .type = ncclFloat, .op = PERF_SUM,
                        .iterations = 20, .checks = 1, .sources = {3, {1, 2, 4}}, .blocks = {4, {8, 16, 32, ALL_BLOCKS}}};
    for (int c; (c = getopt_long(argc, argv, "b:e:f:d:o:s:B:n:c:h", words, NULL)) != -1;) {
        if (c == 'h') fputs(help, stdout), exit(0);
        if (c == '?') fputs(help, stderr), exit(2);
        if (option(&o, c, optarg)) continue;
        fprintf(stderr, "-%c %s: not a value that it takes\n%s", c, optarg, help);
        exit(2);
    }
    if (optind == argc && o.max_bytes >= o.min_bytes) return o;
    fprintf(stderr, optind < argc ? "%s: no arguments are taken\n%s" : "%s: -e is below -b\n%s",
            optind < argc ? argv[optind] : "sizes", help);
    exit(2);
}

/* ---- what is measured ---- */

static uint64_t elements_of(const struct bench *b, size_t bytes) { return bytes / perf_type_bytes(b->o->type); }

static void launch(struct bench *b, const struct row *row)
{
    uint64_t element = perf_type_bytes(b->o->type);
    struct kernel_call call = {
        .node = b->node, .work = KERNEL_COPY, .n_blocks = row->blocks, .input = b->sources, .output = b->destination,
        .inputs_apart = b->apart, .n_inputs = row->sources,
        .how = {.type = (uint32_t)b->o->type, .op = (uint32_t)b->o->op},
        .split = {.count = elements_of(b, row->bytes), .grain = KERNEL_LINE / element, .n_channels = 1, .n_pieces = 1},
    };
    b->launches++;
    must(cuda_launch(b->device, CALL, b->kernel, row->blocks, KERNEL_THREADS, KERNEL_SHARED_BYTES, b->stream, &call));
}

static void driver_copy(struct bench *b, const struct row *row)
{
    must(cuda_copy_on(b->device, CALL, b->destination, b->sources, row->bytes, b->stream));
}

/* Every launch has ended, and found nothing wrong. */
static void finish(struct bench *b)
{
    must(cuda_stream_wait(b->device, CALL, b->stream));
    const struct kernel_report *r = &b->pinned->report;
    if (r->finished == b->launches && r->trouble == KERNEL_FINE) return;
    fprintf(stderr, "the kernel ended %" PRIu64 " of %" PRIu64 " launches, trouble %u\n", r->finished, b->launches,
            r->trouble);
    exit(1);
}

static double turn(struct bench *b, const struct row *row, void (*what)(struct bench *, const struct row *))
{
    uint64_t start_ns = rail_now_ns();
    for (int i = 0; i < b->o->iterations; i++) what(b, row);
    finish(b);
    return (double)(rail_now_ns() - start_ns) * 1e-9 / b->o->iterations;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *seconds)
{
    qsort(seconds, ROUNDS, sizeof *seconds, ascending);
    return seconds[ROUNDS / 2];
}

/* ---- what is checked: exact values, computed without the library ---- */

static void put(struct bench *b, uint64_t to, size_t bytes)
{
    must(cuda_copy(b->device, CALL, to, (uint64_t)(uintptr_t)b->seen, bytes));
}

static uint64_t checked(struct bench *b, const struct row *row, uint64_t iteration)
{
    static union values_table input, reduced;
    struct values_range range = {0, elements_of(b, row->bytes), iteration};
    size_t used = range.count * perf_type_bytes(b->o->type), first = 0;
    for (unsigned s = 0; s < row->sources; s++) {
        if (values_tables(b->o->type, b->o->op, (int)row->sources, (int)s, &input, &reduced)) exit(1);
        values_fill(b->o->type, &input, range, b->seen);
        put(b, b->sources + s * b->apart, used);
    }
    memset(b->seen, POISON, used + GUARD_BYTES);
    put(b, b->destination, used + GUARD_BYTES);
    launch(b, row);
    finish(b);
    must(cuda_copy(b->device, CALL, (uint64_t)(uintptr_t)b->seen, b->destination, used + GUARD_BYTES));
    if (b->o->spoil && used) b->seen[used / 2] ^= 0x10;
    uint64_t wrong = values_check(b->o->type, &reduced, range, b->seen, &first);
    for (size_t k = 0; k < GUARD_BYTES; k++) wrong += b->seen[used + k] != POISON;
    return wrong;
}

static uint64_t row_run(struct bench *b, const struct row *row)
{
    double kernel[ROUNDS], copy[ROUNDS];
    uint64_t wrong = 0;
    for (int i = 0; i < b->o->checks; i++) wrong += checked(b, row, b->launches + (uint64_t)i);
    turn(b, row, launch), turn(b, row, driver_copy); /* warm */
    for (int r = 0; r < ROUNDS; r++) {
        kernel[r] = turn(b, row, launch);
        copy[r] = turn(b, row, driver_copy);
    }
    double seconds = median(kernel), moved = (row->sources + 1.0) * (double)row->bytes / seconds / 1e9;
    double driver = 2.0 * (double)row->bytes / median(copy) / 1e9;
    printf("%14zu %8u %7u %12.2f %9.2f %12.2f %8.1f %7" PRIu64 "\n", row->bytes, row->sources, row->blocks, seconds * 1e6,
           moved, driver, 100 * moved / driver, wrong);
    fflush(stdout);
    return wrong;
}

/* ---- the program ---- */

static unsigned most_of(const struct list *list)
{
    unsigned most = 0;
    for (unsigned k = 0; k < list->n; k++) most = list->value[k] > most ? list->value[k] : most;
    return most;
}

static void bench_open(struct bench *b)
{
    struct kernel_node node = {0};
    uint64_t pinned;
    size_t bytes = (b->o->max_bytes + GUARD_BYTES + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    must(cuda_device_current(CALL, &b->device));
    must(cuda_kernel_get(b->device, CALL, KERNEL_NAME, KERNEL_THREADS, &b->kernel));
    must(cuda_stream_make(b->device, CALL, false, &b->stream));
    must(cuda_pinned_alloc(b->device, CALL, sizeof *b->pinned, (void **)&b->pinned, &pinned));
    must(cuda_alloc(b->device, CALL, sizeof node, &b->node));
    b->apart = bytes;
    must(cuda_alloc(b->device, CALL, bytes * most_of(&b->o->sources), &b->sources));
    must(cuda_alloc(b->device, CALL, bytes, &b->destination));
    if (!(b->seen = malloc(bytes))) fprintf(stderr, "out of memory: %zu bytes\n", bytes), exit(1);
    must(cuda_zero(b->device, CALL, b->sources, bytes * most_of(&b->o->sources)));
    node.stop = pinned + offsetof(struct pinned, stop);
    node.report = pinned + offsetof(struct pinned, report);
    must(cuda_copy(b->device, CALL, b->node, (uint64_t)(uintptr_t)&node, sizeof node));
}

static void bench_close(struct bench *b)
{
    free(b->seen);
    cuda_free(b->device, b->destination);
    cuda_free(b->device, b->sources);
    cuda_free(b->device, b->node);
    cuda_pinned_free(b->device, b->pinned);
    cuda_stream_free(b->device, b->stream);
    cuda_device_drop(b->device);
}

static uint64_t run(struct bench *b)
{
    uint64_t wrong = 0;
    for (size_t bytes = b->o->min_bytes; bytes <= b->o->max_bytes; bytes *= b->o->factor) {
        size_t element = perf_type_bytes(b->o->type);
        for (unsigned s = 0; s < b->o->sources.n; s++)
            for (unsigned k = 0; k < b->o->blocks.n; k++) {
                unsigned blocks = b->o->blocks.value[k] == ALL_BLOCKS ? (unsigned)b->device->n_sms : b->o->blocks.value[k];
                wrong += row_run(b, &(struct row){bytes / element * element, b->o->sources.value[s], blocks});
            }
        if (bytes > SIZE_MAX / b->o->factor) break;
    }
    return wrong;
}

int main(int argc, char **argv)
{
    struct options o = options_parse(argc, argv);
    struct bench b = {.o = &o};
    if (o.min_bytes < perf_type_bytes(o.type)) return fprintf(stderr, "-b is less than one element\n"), 2;
    bench_open(&b);
    printf("# kernel_perf: %s, %d multiprocessors, compute capability %d.%d; %s %s; %d registers, %d bytes of local "
           "memory\n", b.device->name, b.device->n_sms, b.device->major, b.device->minor, perf_type_name(o.type),
           perf_op_name(o.op), b.kernel->registers, b.kernel->local_bytes);
    printf("# GB/s = (sources + 1) x size / time, driver: its copy, 2 x size / time; medians of %d turns of %d\n"
           "#%13s %8s %7s %12s %9s %12s %8s %7s\n", ROUNDS, o.iterations, "size(B)", "sources", "blocks", "time(us)", "GB/s",
           "driver(GB/s)", "ratio(%)", "#wrong");
    uint64_t wrong = run(&b);
    printf("# Out of bounds values : %" PRIu64 " %s\n", wrong, wrong ? "FAILED" : "OK");
    bench_close(&b);
    return wrong != 0;
}
