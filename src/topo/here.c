/* here.c - one graph per process, under a lock that a fork() waits for. */
#include "topo/here.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/params.h"
#include "topo/discover.h"
#include "topo/xml.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct topo_graph *seen; /* under lock, as the next; kept for the life of the process */
static char *seen_file;         /* NCCL_TOPO_FILE's value then, "" for none */
static bool seen_whole;         /* NVML was asked */

static void fork_prepare(void) { pthread_mutex_lock(&lock); }
static void fork_done(void) { pthread_mutex_unlock(&lock); }
static void add_fork_handlers(void) { (void)pthread_atfork(fork_prepare, fork_done, fork_done); }

static enum rail_result look(enum topo_effort effort)
{
    const char *file = rail_param_str(RAIL_PARAM_NCCL_TOPO_FILE);
    if (!file) file = "";
    if (seen && strcmp(seen_file, file) == 0 && (seen_whole || effort != TOPO_WHOLE)) return RAIL_OK;
    char *name = strdup(file);
    struct topo_graph *graph;
    uint64_t start_ns = rail_now_ns();
    if (!name) return rail_fail(RAIL_E_SYSTEM, "out of memory for the machine's description");
    enum rail_result result = topo_discover(effort, &graph);
    if (result != RAIL_OK) return free(name), result;
    topo_graph_destroy(seen);
    free(seen_file);
    seen = graph;
    seen_file = name;
    seen_whole = effort == TOPO_WHOLE;
    RAIL_INFO(RAIL_INIT, "machine: %s, %u devices and %u links, looked at in %.1f ms", graph->source, graph->n_nodes,
              graph->n_links, (double)(rail_now_ns() - start_ns) / 1e6);
    return RAIL_OK;
}

static enum rail_result with_machine(enum topo_effort effort, topo_here_use use, void *context)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, add_fork_handlers);
    pthread_mutex_lock(&lock);
    enum rail_result result = look(effort);
    if (result == RAIL_OK) result = use(seen, context);
    pthread_mutex_unlock(&lock);
    return result;
}

enum rail_result topo_here(topo_here_use use, void *context) { return with_machine(TOPO_WITHOUT_NVML, use, context); }

static enum rail_result write_to(const struct topo_graph *graph, void *context)
{
    const char *path = context;
    char *beside;
    if (asprintf(&beside, "%s.%d", path, (int)getpid()) < 0)
        return rail_fail(RAIL_E_SYSTEM, "NCCL_TOPO_DUMP_FILE=\"%s\": out of memory", path);
    FILE *out = fopen(beside, "we");
    enum rail_result result = out ? topo_xml_write(graph, out) : RAIL_OK;
    int bad = !out || ferror(out), error = errno;
    if (out && fclose(out) != 0) bad = 1, error = errno;
    if (!bad && result == RAIL_OK && rename(beside, path) != 0) bad = 1, error = errno;
    if (bad && result == RAIL_OK)
        result = rail_fail(RAIL_E_SYSTEM, "NCCL_TOPO_DUMP_FILE=\"%s\": cannot be written: %s", path, strerror(error));
    if (result != RAIL_OK && out) (void)unlink(beside);
    free(beside);
    return result;
}

enum rail_result topo_here_dump(const char *path)
{
    char *copy = strdup(path);
    if (!copy) return rail_fail(RAIL_E_SYSTEM, "NCCL_TOPO_DUMP_FILE=\"%s\": out of memory", path);
    enum rail_result result = with_machine(TOPO_WHOLE, write_to, copy);
    free(copy);
    return result;
}
