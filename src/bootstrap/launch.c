/* launch.c - who am I, from the variables that launchers set: the first launcher found wins.
 *
 * A launcher is there when its rank or its size is set; then both must be, and agree. What it says of the ranks of this
 * host is optional. */
#include "bootstrap/launch.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct launcher {
    const char *source;
    const char *rank, *size, *local_rank, *local_size;
};

static const struct launcher railccl_run = {"railccl run", "RAILCCL_RANK", "RAILCCL_WORLD_SIZE", "RAILCCL_LOCAL_RANK",
                                            "RAILCCL_LOCAL_SIZE"};
static const struct launcher open_mpi = {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                         "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
static const struct launcher pmi = {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
static const struct launcher torchrun = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};

/* An empty variable is one that is not set. */
static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

static enum rail_result number(const struct launcher *l, const char *name, long low, int *out)
{
    const char *text = value_of(name);
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < low || value > INT_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "launch: %s's %s=\"%s\": must be a number from %ld on", l->source, name, text, low);
    *out = (int)value;
    return RAIL_OK;
}

/* `index` of `count`, e.g. rank and size; both are set. */
static enum rail_result pair(const struct launcher *l, const char *index_name, const char *count_name, int *index, int *count)
{
    RAIL_TRY(number(l, index_name, 0, index));
    RAIL_TRY(number(l, count_name, 1, count));
    if (*index < *count) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "launch: %s's %s=%d and %s=%d contradict one another: the first must be the lower; "
                     "set both right, or neither", l->source, index_name, *index, count_name, *count);
}

static enum rail_result half_set(const struct launcher *l, const char *set, const char *missing)
{
    return rail_fail(RAIL_E_ARGUMENT, "launch: %s's %s=\"%s\" is set and %s is not; set both or neither", l->source, set,
                     value_of(set), missing);
}

static enum rail_result read_local(const struct launcher *l, struct launch *out)
{
    bool rank = value_of(l->local_rank), size = value_of(l->local_size);
    if (size && !rank) return half_set(l, l->local_size, l->local_rank);
    if (rank && !size) return number(l, l->local_rank, 0, &out->local_rank);
    if (!rank) return RAIL_OK;
    RAIL_TRY(pair(l, l->local_rank, l->local_size, &out->local_rank, &out->n_local));
    if (out->n_local <= out->n_ranks) return RAIL_OK;
    return rail_fail(RAIL_E_ARGUMENT, "launch: %s's %s=%d and %s=%d contradict one another: a host has no more ranks than "
                     "the launch", l->source, l->local_size, out->n_local, l->size, out->n_ranks);
}

static bool is_here(const struct launcher *l) { return value_of(l->rank) || value_of(l->size); }

static enum rail_result read_launcher(const struct launcher *l, struct launch *out)
{
    if (!value_of(l->rank)) return half_set(l, l->size, l->rank);
    if (!value_of(l->size)) return half_set(l, l->rank, l->size);
    RAIL_TRY(pair(l, l->rank, l->size, &out->rank, &out->n_ranks));
    snprintf(out->source, sizeof out->source, "%s", l->source);
    return l->local_rank ? read_local(l, out) : RAIL_OK;
}

/* ---- Slurm ---- */

/* The shell of salloc and the script of sbatch carry the allocation's SLURM_NTASKS without being its tasks: only what
 * srun started is a step. Slurm numbers the steps that it makes by itself (interactive, batch, extern) from the top of
 * 32 bits down; nobody has four thousand million others. */
static bool in_slurm_step(void)
{
    const char *step = value_of("SLURM_STEP_ID");
    if (!step) step = value_of("SLURM_STEPID");
    if (!step) return false;
    char *end;
    unsigned long long id = strtoull(step, &end, 10);
    return *end == '\0' && id < 0xfffffff0ull;
}

/* Entry `node` of a list like "4(x2),3": 4, 4, 3. -1 when the list is none, 0 when it is too short. */
static int tasks_of_node(const char *list, int node)
{
    int at = 0;
    while (*list) {
        char *end;
        long tasks = strtol(list, &end, 10), times = 1;
        if (end == list || tasks < 1 || tasks > INT_MAX) return -1;
        if (strncmp(end, "(x", 2) == 0) {
            list = end + 2;
            times = strtol(list, &end, 10);
            if (end == list || *end != ')' || times < 1 || times > INT_MAX - at) return -1;
            end++;
        }
        if (node < at + times) return (int)tasks;
        at += (int)times;
        if (*end != ',' && *end != '\0') return -1;
        list = *end ? end + 1 : end;
    }
    return 0;
}

/* The step's own variables say more precisely what the allocation's say, where they are. */
static const char *step_or(const char *of_step, const char *of_job) { return value_of(of_step) ? of_step : of_job; }

static enum rail_result read_slurm_local(const struct launcher *l, struct launch *out)
{
    const char *name = step_or("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"), *list = value_of(name);
    if (!value_of("SLURM_LOCALID")) return RAIL_OK;
    RAIL_TRY(number(l, "SLURM_LOCALID", 0, &out->local_rank));
    if (!list || !value_of("SLURM_NODEID")) return RAIL_OK;
    int node, n_local;
    RAIL_TRY(number(l, "SLURM_NODEID", 0, &node));
    n_local = tasks_of_node(list, node);
    if (n_local <= out->local_rank || n_local > out->n_ranks)
        return rail_fail(RAIL_E_ARGUMENT, "launch: Slurm's SLURM_LOCALID=%d, SLURM_NODEID=%d, %s=\"%s\" and %s=%d contradict one "
                         "another; start with srun", out->local_rank, node, name, list, l->size, out->n_ranks);
    out->n_local = n_local;
    return RAIL_OK;
}

static enum rail_result read_slurm(struct launch *out)
{
    const struct launcher slurm = {.source = "Slurm", .rank = "SLURM_PROCID",
                                   .size = step_or("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")};
    RAIL_TRY(read_launcher(&slurm, out));
    return read_slurm_local(&slurm, out);
}

/* ---- whose variables ---- */

/* torchrun comes last, since its names are everybody's; but where it says that it was here, it was started by the
 * others (`srun torchrun ...`) and its ranks are the processes. */
static enum rail_result read_first(struct launch *out)
{
    if (is_here(&railccl_run)) return read_launcher(&railccl_run, out);
    if (value_of("TORCHELASTIC_RUN_ID") && is_here(&torchrun)) return read_launcher(&torchrun, out);
    if (is_here(&open_mpi)) return read_launcher(&open_mpi, out);
    if (is_here(&pmi)) return read_launcher(&pmi, out);
    if (in_slurm_step()) return read_slurm(out);
    if (is_here(&torchrun)) return read_launcher(&torchrun, out);
    *out = (struct launch){.n_ranks = 1, .n_local = 1, .source = "none"};
    return RAIL_OK;
}

enum rail_result launch_info(struct launch *out)
{
    struct launch launch = {0};
    RAIL_TRY(read_first(&launch));
    *out = launch;
    return RAIL_OK;
}
