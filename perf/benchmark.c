/* benchmark.c - the program: launch, communicators, buffers, then every type, operator, root and size, and the verdict. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "program.h"
#include "report.h"
#include "types.h"

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void alive(struct perf_process *process) { atomic_store(&process->alive_at_ns, now_ns()); }

/* -T: a thread that ends the process when nothing has moved for so long. Detached; ends with the process. */
static void *watch(void *argument)
{
    struct perf_process *process = argument;
    uint64_t limit_ns = (uint64_t)process->options->timeout_s * 1000000000u;
    for (;;) {
        usleep(100000);
        if (now_ns() - atomic_load(&process->alive_at_ns) > limit_ns)
            perf_die(3, "process %d of %d: no progress for %d s (-T): giving up", process->launch.rank,
                     process->launch.nRanks, process->options->timeout_s);
    }
}

static void memory_line(const struct perf_process *process, const char *stage)
{
    if (!process->options->memory_report || !process->printer) return;
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    long rss_kib = -1, pss_kib = -1, kib;
    char line[160];
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "Rss: %ld", &kib) == 1) rss_kib = kib;
        if (sscanf(line, "Pss: %ld", &kib) == 1) pss_kib = kib;
    }
    if (file) fclose(file);
    printf("# Memory of process 0 %-28s Rss %9.2f MiB  Pss %9.2f MiB\n", stage, (double)rss_kib / 1024,
           (double)pss_kib / 1024);
    fflush(stdout);
}

/* As a group: windows are collective, and the ranks of a thread wait for one another. */
static void buffers_register(struct perf_thread *thread)
{
    const struct perf_options *o = thread->process->options;
    perf_must(&thread->ranks[0], "ncclGroupStart", ncclGroupStart());
    for (int i = 0; i < 2 * o->ranks_per_thread && o->registration; i++) {
        struct perf_rank *rank = &thread->ranks[i / 2];
        struct perf_buffer *buffer = i % 2 ? &rank->receive : &rank->send;
        void **handle = &rank->registered[i % 2];
        if (o->registration == 1)
            perf_must(rank, "ncclCommRegister", ncclCommRegister(rank->comm, buffer->data, buffer->bytes, handle));
        else
            perf_must(rank, "ncclCommWindowRegister",
                      ncclCommWindowRegister(rank->comm, buffer->data, buffer->bytes, (ncclWindow_t *)(void *)handle,
                                             NCCL_WIN_COLL_SYMMETRIC));
    }
    perf_must(&thread->ranks[0], "ncclGroupEnd", ncclGroupEnd());
}

static void buffers_deregister(struct perf_thread *thread)
{
    const struct perf_options *o = thread->process->options;
    perf_must(&thread->ranks[0], "ncclGroupStart", ncclGroupStart());
    for (int i = 0; i < 2 * o->ranks_per_thread && o->registration; i++) {
        struct perf_rank *rank = &thread->ranks[i / 2];
        void *handle = rank->registered[i % 2];
        if (o->registration == 1)
            perf_must(rank, "ncclCommDeregister", ncclCommDeregister(rank->comm, handle));
        else
            perf_must(rank, "ncclCommWindowDeregister", ncclCommWindowDeregister(rank->comm, (ncclWindow_t)handle));
    }
    perf_must(&thread->ranks[0], "ncclGroupEnd", ncclGroupEnd());
}

/* Buffers for the largest size of any type; sizes of small types need the same bytes. */
static void buffers_create(struct perf_thread *thread)
{
    const struct perf_process *process = thread->process;
    const struct perf_options *o = process->options;
    struct perf_shape shape = process->collective->shape(o->max_bytes, process->n_ranks); /* one-byte elements */
    size_t send = shape.send, receive = shape.send > shape.receive ? shape.send : shape.receive;
    size_t unalign = o->unalign * (o->unalign_in_bytes ? 1 : o->type == PERF_ALL ? 1 : perf_type_bytes(o->type));
    bool from_library = o->registration == 2;
    for (int r = 0; r < o->ranks_per_thread; r++) {
        struct perf_rank *rank = &thread->ranks[r];
        if (!perf_buffer_create(rank->gpu, send, unalign, from_library, &rank->send) ||
            !perf_buffer_create(rank->gpu, receive, unalign, from_library, &rank->receive))
            perf_die(1, "rank %d: buffers of %zu and %zu bytes: out of memory; lower -e", rank->rank, send, receive);
    }
    buffers_register(thread);
}

static void buffers_destroy(struct perf_thread *thread)
{
    const struct perf_options *o = thread->process->options;
    buffers_deregister(thread);
    for (int r = 0; r < o->ranks_per_thread; r++) {
        struct perf_rank *rank = &thread->ranks[r];
        perf_buffer_destroy(&rank->send, o->registration == 2);
        perf_buffer_destroy(&rank->receive, o->registration == 2);
    }
}

/* Tables of values and the operator, per rank. */
static void operator_create(struct perf_thread *thread, int type, int op)
{
    const struct perf_process *process = thread->process;
    for (int r = 0; r < process->options->ranks_per_thread; r++) {
        struct perf_rank *rank = &thread->ranks[r];
        if (values_tables(type, op, process->n_ranks, rank->rank, &rank->input, &rank->reduced))
            perf_die(1, "rank %d: out of memory", rank->rank);
        rank->op = (ncclRedOp_t)op;
        if (op != PERF_MULSUM) continue;
        uint64_t scalar = values_scalar_bits(type, rank->rank);
        perf_must(rank, "ncclRedOpCreatePreMulSum",
                  ncclRedOpCreatePreMulSum(&rank->op, &scalar, (ncclDataType_t)type, ncclScalarHostImmediate, rank->comm));
    }
}

static void operator_destroy(struct perf_thread *thread, int op)
{
    for (int r = 0; r < thread->process->options->ranks_per_thread && op == PERF_MULSUM; r++)
        perf_must(&thread->ranks[r], "ncclRedOpDestroy", ncclRedOpDestroy(thread->ranks[r].op, thread->ranks[r].comm));
}

struct totals { double wrong, busbw; uint64_t rows, serial; };

static struct perf_result result_of(struct perf_thread *thread, struct perf_case *c)
{
    struct perf_process *process = thread->process;
    const struct perf_options *o = process->options;
    for (int r = 0; r < o->ranks_per_thread; r++) {
        struct perf_rank *rank = &thread->ranks[r];
        values_fill(c->type, &rank->input, (struct values_range){0, c->shape.send, 0}, perf_case_send_seen(c, rank));
        perf_case_push(c, rank);
    }
    struct perf_result result = {.timing = perf_measure(thread, c), .wrong = -1};
    alive(process);
    result.seconds = result.timing.seconds;
    if (result.seconds > 0) result.algbw = (double)c->row_bytes / result.seconds * 1e-9;
    result.busbw = result.algbw * process->collective->bus_factor(process->n_ranks);
    if (o->checks) result.wrong = perf_verify(thread, c);
    alive(process);
    return result;
}

static void row(struct perf_thread *thread, struct perf_case *c, struct totals *totals)
{
    struct perf_process *process = thread->process;
    bool print = process->printer && thread->index == 0;
    struct perf_result result;
    if (print) perf_report_row(process, c);
    for (int in_place = 0; in_place < 2; in_place++) {
        if (in_place && process->collective->no_in_place) {
            if (print) perf_report_no_result(process);
            continue;
        }
        c->in_place = in_place;
        c->serial = ++totals->serial;
        result = result_of(thread, c);
        if (print) perf_report_result(process, c, &result);
        free(result.timing.each);
        free(result.timing.per_process);
        if (result.wrong > 0) totals->wrong += result.wrong;
        totals->busbw += result.busbw;
        totals->rows++;
    }
    if (print) perf_report_row_end(process, &result);
}

static void sizes(struct perf_thread *thread, int type, int op, int root, struct totals *totals)
{
    struct perf_process *process = thread->process;
    const struct perf_options *o = process->options;
    size_t type_bytes = perf_type_bytes(type);
    for (size_t bytes = o->min_bytes; bytes != SIZE_MAX; bytes = perf_options_next_size(o, bytes)) {
        struct perf_case c = {.type = type, .op = op, .root = root, .elements = bytes / type_bytes};
        c.shape = process->collective->shape(c.elements, process->n_ranks);
        c.row_bytes = (c.shape.send > c.shape.receive ? c.shape.send : c.shape.receive) * type_bytes;
        row(thread, &c, totals);
    }
}

static void all_cases(struct perf_thread *thread, struct totals *totals)
{
    struct perf_process *process = thread->process;
    const struct perf_options *o = process->options;
    bool all_ops = process->collective->uses_op && o->op == PERF_ALL;
    bool all_roots = process->collective->uses_root && o->root == PERF_ALL;
    for (int cycle = 0; o->cycles == 0 || cycle < o->cycles; cycle++) {
        for (int type = 0; type < PERF_TYPES; type++) {
            if (o->type != PERF_ALL && type != o->type) continue;
            for (int op = 0; op < PERF_OPS; op++) {
                /* Collectives without an operator run once, with values made for the maximum: anything finite. */
                int wanted = !process->collective->uses_op ? PERF_MAX : all_ops ? op : o->op;
                if (op != wanted) continue;
                operator_create(thread, type, op);
                for (int root = 0; root < (process->collective->uses_root ? process->n_ranks : 1); root++)
                    if (all_roots || !process->collective->uses_root || root == o->root)
                        sizes(thread, type, op, root, totals);
                operator_destroy(thread, op);
            }
        }
    }
}

/* Everybody tells everybody host and pid; the printer prints the head of the table. */
static void introduce(struct perf_thread *thread, int argc, char **argv)
{
    struct perf_process *process = thread->process;
    int each = process->options->ranks_per_thread;
    char *own = calloc((size_t)each, PERF_WHO_TEXT), *all = calloc((size_t)process->n_ranks, PERF_WHO_TEXT), host[64] = "";
    struct perf_who *who = calloc((size_t)process->n_ranks, sizeof *who);
    if (!own || !all || !who) perf_die(1, "out of memory");
    const char *named = getenv("RAILCCL_HOST"); /* as railccl run calls it: namespaces share a host name */
    if (named) snprintf(host, sizeof host, "%s", named);
    else gethostname(host, sizeof host - 1);
    for (int r = 0; r < each; r++)
        snprintf(own + r * PERF_WHO_TEXT, PERF_WHO_TEXT, "%d %s %s", (int)getpid(),
                 thread->ranks[r].gpu ? perf_gpu_name(thread->ranks[r].gpu) : "host-memory", host[0] ? host : "?");
    perf_side_gather(thread, own, PERF_WHO_TEXT, all);
    for (int r = 0; r < process->n_ranks; r++)
        sscanf(all + r * PERF_WHO_TEXT, "%d %31s %63[^\n]", &who[r].pid, who[r].kind, who[r].host);
    if (process->printer && thread->index == 0) perf_report_start(process, who, argc, argv);
    free(who);
    free(all);
    free(own);
}

/* False: too slow, or the file could not be written. */
static bool report(struct perf_process *process, const struct totals *totals)
{
    bool enough = perf_report_end(process, totals->wrong, totals->rows ? totals->busbw / (double)totals->rows : 0);
    if (!process->json || perf_json_close(process->json)) return enough;
    fprintf(stderr, "--output_file %s: writing failed\n", process->options->json_path);
    return false;
}

struct thread_start { struct perf_thread *threads; int index, argc; char **argv; struct totals totals; bool enough; };

static void *thread_main(void *argument)
{
    struct thread_start *start = argument;
    struct perf_thread *thread = &start->threads[start->index];
    struct perf_process *process = thread->process;
    perf_gpu_use(thread->ranks[0].gpu); /* made current where it was opened: maybe in another thread */
    if (process->options->parallel_init) perf_communicators_create(process, start->threads, thread->index, 1);
    alive(process);
    if (thread->index == 0) memory_line(process, "with communicators");
    if (process->options->graphs && !thread->ranks[0].gpu)
        perf_die(2, "--cudagraph %d: ranks compute with host memory here: a GPU, and RAILCCL_DEVICE other than host",
                 process->options->graphs);
    buffers_create(thread);
    perf_threads_meet(thread);
    if (thread->index == 0) memory_line(process, "with buffers");
    introduce(thread, start->argc, start->argv);
    all_cases(thread, &start->totals);
    perf_side_barrier(thread);
    if (thread->index == 0) memory_line(process, "at the end");
    if (process->printer && thread->index == 0) start->enough = report(process, &start->totals);
    perf_side_barrier(thread); /* a launcher may stop the others when one ends with a failure: not before the report is out */
    perf_threads_meet(thread);
    buffers_destroy(thread);
    perf_side_free(thread);
    perf_communicators_destroy(thread);
    return NULL;
}

static void run_threads(struct perf_process *process, struct perf_thread *threads, struct thread_start *starts)
{
    int n = process->options->threads;
    pthread_t *handles = calloc((size_t)n, sizeof *handles);
    if (!handles) perf_die(1, "out of memory");
    if (!process->options->parallel_init) perf_communicators_create(process, threads, 0, n);
    for (int t = 1; t < n; t++) {
        int error = pthread_create(&handles[t], NULL, thread_main, &starts[t]);
        if (error) perf_die(1, "pthread_create for thread %d of %d: %s", t, n, strerror(error));
    }
    thread_main(&starts[0]);
    for (int t = 1; t < n; t++) pthread_join(handles[t], NULL);
    free(handles);
}

static void json_start(struct perf_process *process, struct perf_json *json)
{
    const char *path = process->options->json_path;
    char used[4096];
    if (!path || !process->printer) return;
    if (!perf_json_create(json, path, used, sizeof used))
        perf_die(1, "--output_file %s: cannot create it: %s", path, strerror(errno));
    process->json = json;
    printf("# Writing JSON output to %s\n", used);
}

int perf_main(const struct perf_collective *collective, int argc, char **argv)
{
    struct perf_options options;
    char **arguments = malloc(sizeof *arguments * ((size_t)argc + 1)); /* getopt permutes; the report wants the original */
    if (!arguments) return 1;
    memcpy(arguments, argv, sizeof *arguments * ((size_t)argc + 1));
    enum perf_parsed parsed = perf_options_parse(argc, argv, &options, stdout, stderr);
    if (parsed != PERF_RUN) return free(arguments), parsed == PERF_HELPED ? 0 : 2;

    if (collective->one_sided) options.registration = 2;
    struct perf_process process = {.collective = collective, .options = &options};
    struct perf_json json;
    pthread_t watcher;
    alive(&process);
    if (options.timeout_s && pthread_create(&watcher, NULL, watch, &process) == 0) pthread_detach(watcher);
    perf_launch(&process);
    memory_line(&process, "at the start");
    const char *unfit = collective->unfit ? collective->unfit(process.n_ranks) : NULL;
    if (unfit) perf_die(2, "%s_perf with %d ranks: %s", collective->name, process.n_ranks, unfit);
    if (collective->uses_root && options.root >= process.n_ranks)
        perf_die(2, "--root %d: there are ranks 0 to %d", options.root, process.n_ranks - 1);
    json_start(&process, &json);

    struct perf_thread *threads = calloc((size_t)options.threads, sizeof *threads);
    struct thread_start *starts = calloc((size_t)options.threads, sizeof *starts);
    if (!threads || !starts) perf_die(1, "out of memory");
    for (int t = 0; t < options.threads; t++) {
        threads[t] = (struct perf_thread){.process = &process, .index = t};
        threads[t].ranks = calloc((size_t)options.ranks_per_thread, sizeof *threads[t].ranks);
        if (!threads[t].ranks) perf_die(1, "out of memory");
        starts[t] = (struct thread_start){.threads = threads, .index = t, .argc = argc, .argv = arguments, .enough = true};
    }
    pthread_barrier_init(&process.meeting, NULL, (unsigned)options.threads);
    run_threads(&process, threads, starts);
    pthread_barrier_destroy(&process.meeting);

    bool good = starts[0].totals.wrong == 0 && atomic_load(&process.wrong) == 0 && starts[0].enough;
    for (int t = 0; t < options.threads; t++) free(threads[t].ranks);
    free(threads);
    free(starts);
    free(arguments);
    return good ? 0 : 1;
}
