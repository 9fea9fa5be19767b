/* launch_pmi2.c - the id through PMI-2, which srun --mpi=pmi2 serves, by Slurm's own library.
 *
 * The library is loaded when it is needed. It can be opened once per process only: it stays open until the program ends.
 * A program that uses MPI as well calls MPI_Init first; then the library is found open, and MPI closes it. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bootstrap/launch_ways.h"

enum { NO_HINT = -1 }; /* who put it is not said */

static struct {
    pthread_once_t once;
    void *library;
    int (*init)(int *spawned, int *size, int *rank, int *application);
    int (*initialized)(void);
    int (*put)(const char *key, const char *value);
    int (*fence)(void);
    int (*get)(const char *job, int hint, const char *key, char *value, int bytes, int *length);
    int (*finalize)(void);
    pid_t opened_by;
} pmi2 = {.once = PTHREAD_ONCE_INIT};

static void load(void)
{
    void *library = dlopen("libpmi2.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const struct { const char *name; void *to; } functions[] = {
        {"PMI2_Init", &pmi2.init}, {"PMI2_Initialized", &pmi2.initialized}, {"PMI2_KVS_Put", &pmi2.put},
        {"PMI2_KVS_Fence", &pmi2.fence}, {"PMI2_KVS_Get", &pmi2.get}, {"PMI2_Finalize", &pmi2.finalize},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) return;
        memcpy(functions[i].to, &function, sizeof function);
    }
    pmi2.library = library;
}

/* Without PMI_FD the library would take this process for the only one. MPICH's own launcher is spoken to directly. */
bool launch_pmi2_is_here(void)
{
    if (!getenv("PMI_FD") || !(getenv("SLURM_STEP_ID") || getenv("SLURM_STEPID"))) return false;
    pthread_once(&pmi2.once, load);
    return pmi2.library != NULL;
}

static void close_at_exit(void)
{
    if (pmi2.opened_by == getpid()) pmi2.finalize();
}

static enum rail_result check(int status, const char *call)
{
    if (status == 0) return RAIL_OK;
    return rail_fail(RAIL_E_REMOTE, "launch: %s: error %d; is srun alive? RAILCCL_ROOT=host:port goes without PMI", call, status);
}

static enum rail_result open_once(const struct launch_exchange *exchange)
{
    int spawned, size, rank, application;
    if (pmi2.initialized()) return RAIL_OK;
    RAIL_TRY(check(pmi2.init(&spawned, &size, &rank, &application), "PMI2_Init"));
    pmi2.opened_by = getpid();
    atexit(close_at_exit);
    if (rank != exchange->rank || size != exchange->n_ranks) return launch_other_ranks(exchange, "PMI-2", rank, size);
    return RAIL_OK;
}

static enum rail_result work(struct launch_exchange *exchange)
{
    char key[LAUNCH_KEY_BYTES], text[LAUNCH_HEX_BYTES] = "";
    int length;
    launch_key(exchange, key);
    RAIL_TRY(open_once(exchange));
    if (exchange->rank == 0) {
        launch_hex(exchange, text);
        RAIL_TRY(check(pmi2.put(key, text), "PMI2_KVS_Put"));
    }
    RAIL_TRY(check(pmi2.fence(), "PMI2_KVS_Fence"));
    if (exchange->rank == 0) return RAIL_OK;
    RAIL_TRY(check(pmi2.get(NULL, NO_HINT, key, text, sizeof text, &length), "PMI2_KVS_Get"));
    text[sizeof text - 1] = '\0';
    return launch_unhex(exchange, text, "PMI-2");
}

enum rail_result launch_pmi2(struct launch_exchange *exchange) { return launch_with_deadline(exchange, "PMI-2", work); }
