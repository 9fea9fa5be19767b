/* plan.c - `railccl plan`: where the bytes of a collective go on a network, and how long it takes; nothing is sent. */
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "plan/collective.h"
#include "tool.h"

int plan_complain(void)
{
    fprintf(stderr, "railccl plan: %s\n", rail_last_error());
    return 2;
}

/* ---- what there is ---- */

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Fragments of one to eight hosts, or single ones, in any order. */
static void shuffle(uint32_t *hosts, uint32_t n, uint64_t seed, uint32_t most)
{
    uint32_t *cut = malloc((n + 1u) * sizeof *cut), *order = malloc(n * sizeof *order), n_cuts = 0, out = 0;
    uint64_t state = seed * 2 + 1;
    for (uint32_t at = 0; cut && order && at < n; at += 1 + (most > 1 ? (uint32_t)(next_random(&state) % most) : 0))
        order[n_cuts] = n_cuts, cut[n_cuts++] = at;
    if (cut && order) {
        cut[n_cuts] = n;
        for (uint32_t k = n_cuts; k > 1; k--) {
            uint32_t j = (uint32_t)(next_random(&state) % k), held = order[k - 1];
            order[k - 1] = order[j], order[j] = held;
        }
        for (uint32_t k = 0; k < n_cuts; k++)
            for (uint32_t h = cut[order[k]]; h < cut[order[k] + 1]; h++) hosts[out++] = h;
    }
    free(cut);
    free(order);
}

static enum rail_result place_jobs(struct plan_view *v, struct plan_wish *w)
{
    uint32_t n = v->network.n_hosts;
    if (!w->job_hosts) w->job_hosts = n / w->jobs;
    if (w->jobs > PLAN_JOBS_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "%u jobs; at most %d at once", w->jobs, PLAN_JOBS_MAX);
    if (!w->job_hosts || (uint64_t)w->jobs * w->job_hosts > n)
        return rail_fail(RAIL_E_ARGUMENT, "%u job%s of %u hosts; the fabric has %u hosts", w->jobs,
                         w->jobs == 1 ? "" : "s", w->job_hosts, n);
    v->hosts = malloc(n * sizeof *v->hosts);
    if (!v->hosts) return rail_fail(RAIL_E_SYSTEM, "out of memory for %u hosts", n);
    for (uint32_t h = 0; h < n; h++) v->hosts[h] = h;
    if (w->placement != PLACE_WHOLE) shuffle(v->hosts, n, w->seed, w->placement == PLACE_FRAGMENTED ? 8 : 1);
    return RAIL_OK;
}

static enum rail_result bound_memory(struct plan_view *v, const struct plan_wish *w, uint64_t network, uint32_t hosts)
{
    v->memory = network * 3 + job_bytes(w->job_hosts ? w->job_hosts : hosts / w->jobs, w->gpus,
                                       w->collective == PLAN_ALLTOALL) * w->jobs;
    if ((double)v->memory <= w->memory_gib * 1073741824.0) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "may need %.1f GiB, more than the limit of %g; --memory-limit",
                     (double)v->memory / 1073741824.0, w->memory_gib);
}

/* Of hosts that were looked at: how many, their NICs, and ranks unless --gpus says so. */
static enum rail_result take_topologies(struct plan_view *v, struct plan_wish *w, uint32_t *n)
{
    RAIL_TRY(plan_read_topologies(w->topologies, w->n_topologies, &v->described, n));
    w->network.hosts = *n;
    w->network.rails = network_hosts_rails(v->described, *n, &w->network.nic_gbit);
    for (uint32_t h = 0; h < *n && !w->gpus_asked; h++) {
        if (v->described[h].n_gpus && v->described[0].n_gpus == v->described[h].n_gpus) continue;
        return rail_fail(RAIL_E_ARGUMENT, "%s has %u GPUs, %s %u; say how many ranks a host has: --gpus",
                         v->described[0].name, v->described[0].n_gpus, v->described[h].name, v->described[h].n_gpus);
    }
    if (!w->gpus_asked) w->gpus = v->described[0].n_gpus;
    return RAIL_OK;
}

static enum rail_result make_network(struct plan_view *v, struct plan_wish *w)
{
    uint32_t described = 0;
    if (w->n_topologies) RAIL_TRY(take_topologies(v, w, &described));
    struct network_request q = w->network;
    q.nic_gbit *= w->machine->payload;
    if (w->fabric_file) {
        RAIL_TRY(fabric_load(w->fabric_file, &v->fabric));
        RAIL_TRY(network_of_fabric(&v->network, v->fabric, &q));
        RAIL_TRY(bound_memory(v, w, v->network.n_links * sizeof(float), v->network.n_hosts));
    } else {
        uint64_t bytes = network_bytes(&q);
        if (bytes == 0) return RAIL_E_ARGUMENT;
        RAIL_TRY(bound_memory(v, w, bytes, q.hosts));
        RAIL_TRY(network_make(&v->network, &q));
    }
    if (described) RAIL_TRY(network_set_hosts(&v->network, v->described, described, w->machine->payload));
    for (uint32_t k = 0; k < w->n_faults; k++)
        RAIL_TRY(network_fault(&v->network, w->faults[k].what, w->faults[k].factor));
    v->loads = malloc((v->network.n_links + 1) * sizeof *v->loads);
    return v->loads ? RAIL_OK
                    : rail_fail(RAIL_E_SYSTEM, "out of memory for the loads of %llu links",
                                (unsigned long long)v->network.n_links);
}

/* ---- running a case ---- */

struct watch { uint64_t begin_ns, said_ns; bool terminal, said; const char *what; };

/* Nothing in the first second; then a line that is written over, or one every ten seconds where that cannot be. */
static void progress(void *context, uint32_t done, uint32_t all)
{
    struct watch *w = context;
    uint64_t now = rail_now_ns();
    if (now - w->begin_ns < 1000000000u || now - w->said_ns < (w->terminal ? 200000000u : 10000000000u)) return;
    fprintf(stderr, "%srailccl plan: %s: %u of %u hosts%s", w->terminal ? "\r" : "", w->what, done, all,
            w->terminal ? "" : "\n");
    w->said_ns = now;
    w->said = true;
}

static void add_report(struct plan_row *row, const struct lay_report *laid)
{
    row->sent += laid->sent;
    row->cross_rail += laid->cross_rail;
    row->plans += laid->plans;
    row->by_classes |= laid->by_classes;
    for (int k = 0; k < LAY_SWITCHES; k++) row->by_switches[k] += laid->by_switches[k];
    if (laid->host_most > row->host_most) row->host_most = laid->host_most;
}

static double host_rate(const struct plan_view *v)
{
    return v->network.n_rails * v->network.n_ports * (double)v->network.whole[NETWORK_NIC_UP];
}

/* By what each host must send at the least: of what its ranks have, or get, what others need. Messages are the least
 * there is. */
static double least_ns(const struct plan_view *v, const struct job *job, double host_most)
{
    const struct plan_wish *w = v->wish;
    if (job->choice.algorithm == PLAN_PAIRWISE) return host_most / host_rate(v);
    double m = job->shape.n_nodes, bytes = (double)job->ask.bytes;
    bool everybody = w->collective == PLAN_ALLGATHER || w->collective == PLAN_REDUCESCATTER ||
                     w->collective == PLAN_ALLREDUCE;
    double sent = m < 2 ? 0 : everybody ? bytes * (m - 1) / m : bytes;
    return (w->collective == PLAN_ALLREDUCE ? 2 : 1) * sent / host_rate(v);
}

struct job_request plan_request(const struct plan_view *v, const struct plan_row *row, uint32_t job)
{
    const struct plan_wish *w = v->wish;
    return (struct job_request){.hosts = v->hosts + (size_t)job * w->job_hosts,
                                .n_hosts = w->job_hosts,
                                .gpus = w->gpus,
                                .collective = w->collective,
                                .send_recv = w->send_recv,
                                .shift = w->shift,
                                .algorithm = row->asked,
                                .bytes = row->bytes,
                                .root = w->root,
                                .as_given = row->as_given,
                                .unaware = row->unaware,
                                .flows = w->flows,
                                .channels = w->channels,
                                .window_bytes = w->window_bytes,
                                .slot_bytes = w->slot_bytes,
                                .machine = w->machine,
                                .method = w->all       ? JOB_ALL
                                          : w->classes ? JOB_CLASSES
                                                       : JOB_AUTO};
}

static enum rail_result run_jobs(struct plan_view *v, struct job *jobs, struct lay_report *laid, struct plan_row *row)
{
    const struct plan_wish *w = v->wish;
    struct watch watch = {.begin_ns = rail_now_ns(), .terminal = isatty(2), .what = "laying plans"};
    enum rail_result r = RAIL_OK;
    memset(v->loads, 0, v->network.n_links * sizeof *v->loads);
    for (uint32_t j = 0; r == RAIL_OK && j < w->jobs; j++) {
        struct job_request ask = plan_request(v, row, j);
        r = job_make(&jobs[j], &v->network, &ask);
        if (r == RAIL_OK) r = lay_job(&jobs[j], &v->network, v->loads, &laid[j], progress, &watch);
    }
    if (r == RAIL_OK) r = lay_settle(jobs, w->jobs, &v->network, v->loads, laid);
    if (r == RAIL_OK) lay_summarize(&v->network, v->loads, &row->loads);
    for (uint32_t j = 0; r == RAIL_OK && j < w->jobs; j++) add_report(row, &laid[j]);
    for (uint32_t j = 0; r == RAIL_OK && j < w->jobs; j++) {
        struct clocks_report clocks;
        r = clocks_run(&jobs[j], &v->network, v->loads, &laid[j], &row->loads, &clocks);
        if (r != RAIL_OK || clocks.ns < row->ns) continue;
        row->ns = clocks.ns, row->clock_ns = clocks.clock_ns, row->link_ns = clocks.link_ns,
        row->local_ns = clocks.local_ns;
        row->chain = clocks.chain, row->rounds = clocks.rounds, row->clocks = clocks.ranks;
        row->algorithm = jobs[j].choice.algorithm, row->channels = jobs[j].choice.n_channels;
        row->checked = jobs[j].n_checked;
        row->least_ns = least_ns(v, &jobs[j], laid[j].host_most);
    }
    if (watch.said && watch.terminal) fprintf(stderr, "\r%60s\r", "");
    return r;
}

static enum rail_result run_case(struct plan_view *v, const struct plan_row *wanted)
{
    struct plan_row *row = &v->rows[v->n_rows];
    struct job *jobs = calloc(v->wish->jobs, sizeof *jobs);
    struct lay_report *laid = calloc(v->wish->jobs, sizeof *laid);
    if (v->n_rows == PLAN_ROWS_MAX) return rail_fail(RAIL_E_ARGUMENT, "more than %d cases", PLAN_ROWS_MAX);
    *row = *wanted;
    enum rail_result r = jobs && laid ? run_jobs(v, jobs, laid, row) : rail_fail(RAIL_E_SYSTEM, "out of memory");
    for (uint32_t j = 0; jobs && j < v->wish->jobs; j++) job_clear(&jobs[j]);
    free(jobs);
    free(laid);
    if (r == RAIL_OK) v->drawn = v->n_rows++;
    return r;
}

/* One of several algorithms may not fit; alone it is what was asked for. */
static enum rail_result run_or_say(struct plan_view *v, const struct plan_row *wanted)
{
    enum rail_result r = run_case(v, wanted);
    bool several = v->wish->n_algorithms > 1;
    if (r != RAIL_E_ARGUMENT || !several) return r;
    v->rows[v->n_rows] = *wanted;
    snprintf(v->rows[v->n_rows++].why, sizeof v->rows[0].why, "%s", rail_last_error());
    return RAIL_OK;
}

enum rail_result plan_run_cases(struct plan_view *v)
{
    const struct plan_wish *w = v->wish;
    for (uint32_t a = 0; a < w->n_algorithms; a++)
        for (uint32_t s = 0; s < w->n_sizes; s++) {
            struct plan_row row = {
                .asked = w->algorithms[a], .bytes = w->sizes[s], .as_given = w->as_given, .unaware = w->unaware};
            if (w->compare) {
                row.as_given = row.unaware = true;
                RAIL_TRY(run_or_say(v, &row));
                row.as_given = false;
                RAIL_TRY(run_or_say(v, &row));
                row.as_given = true, row.unaware = false;
                RAIL_TRY(run_or_say(v, &row));
                row.as_given = false;
            }
            RAIL_TRY(run_or_say(v, &row));
        }
    return RAIL_OK;
}

double plan_switches(const struct plan_row *row)
{
    double sum = 0;
    for (int k = 0; k < LAY_SWITCHES; k++) sum += k * row->by_switches[k];
    return row->sent > 0 ? sum / row->sent : 0;
}

double plan_bus_factor(const struct plan_wish *w)
{
    double n = (double)w->job_hosts * w->gpus;
    if (w->send_recv || w->collective == PLAN_BROADCAST || w->collective == PLAN_REDUCE) return 1;
    return (w->collective == PLAN_ALLREDUCE ? 2 : 1) * (n - 1) / n;
}

const char *plan_call_name(const struct plan_wish *w)
{
    struct job_request ask = {.send_recv = w->send_recv, .collective = w->collective};
    return job_call_name(&ask);
}

const char *plan_row_name(const struct plan_row *r)
{
    if (!r->why[0]) return job_algorithm_name(r->algorithm);
    return r->asked < 0 ? "auto" : job_algorithm_name((uint32_t)r->asked);
}

/* ---- showing ---- */

static int write_to(const char *path, const struct plan_view *v, int (*write)(const struct plan_view *v, FILE *out))
{
    FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!out) return fprintf(stderr, "railccl plan: %s: %s\n", path, strerror(errno)), 2;
    int wrong = write(v, out) != 0;
    if (out == stdout ? fflush(out) != 0 : fclose(out) != 0)
        wrong = 1, fprintf(stderr, "railccl plan: %s: %s\n", path, strerror(errno));
    return wrong ? 2 : 0;
}

static bool to_stdout(const char *path) { return path && strcmp(path, "-") == 0; }

static int show(struct plan_view *v)
{
    const struct plan_wish *w = v->wish;
    bool text = !w->json && !to_stdout(w->svg) && !to_stdout(w->plot);
    int status = 0;
    if (w->n_fails) return plan_show_timeline(v);
    if (text) plan_print_head(v, stdout), fflush(stdout);
    if (plan_run_cases(v) != RAIL_OK) return plan_complain();
    if (text) plan_print_rows(v, stdout);
    if (w->json) plan_write_json(v, stdout);
    if (w->svg) status = write_to(w->svg, v, plan_write_svg);
    if (w->plot && !status) status = write_to(w->plot, v, plan_write_plot);
    return status;
}

struct plan_wish plan_wish_default(void)
{
    return (struct plan_wish){.network = {.kind = NETWORK_RAIL, .hosts = 16, .rails = 8}, .collective = PLAN_ALLREDUCE,
                              .sizes = {(uint64_t)1 << 30}, .n_sizes = 1, .algorithms = {-1}, .n_algorithms = 1,
                              .gpus = 8, .shift = 1, .jobs = 1, .memory_gib = 4,
                              .costs = *simulate_machine_named("h100")};
}

int plan_with(struct plan_wish *w, int (*do_it)(struct plan_view *v))
{
    struct plan_view *v = calloc(1, sizeof *v);
    if (!v) return fprintf(stderr, "railccl plan: out of memory\n"), 2;
    v->wish = w;
    int status = make_network(v, w) == RAIL_OK && place_jobs(v, w) == RAIL_OK ? do_it(v) : plan_complain();
    network_clear(&v->network);
    fabric_free(v->fabric);
    free(v->described);
    free(v->hosts);
    free(v->loads);
    free(v);
    return status;
}

static int run(int argc, char **argv)
{
    struct plan_wish w = plan_wish_default();
    int status = plan_read_options(&w, argc, argv);
    return status >= 0 ? status : plan_with(&w, show);
}

const struct tool_command tool_plan = {"plan", "Lays a collective's plans over a network: loads, time, pictures.", run};
