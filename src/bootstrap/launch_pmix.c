/* launch_pmix.c - the id through PMIx, which Open MPI's mpirun, PRRTE and srun --mpi=pmix serve.
 *
 * libpmix is loaded when it is needed, so that it need not be installed; its functions and the little of its types used
 * here are declared by hand (they are the same from PMIx 2 on). PMIx counts its users: an MPI library in the same
 * process may use it before, meanwhile and afterwards. Each call ends its use, because a process that goes by _exit()
 * without doing so is taken for crashed. But what ended its last use cannot be begun again by Open MPI 4's MPI_Init (it
 * then misses what the launcher said): where there is an MPI library, ours stays in use until the program ends. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bootstrap/launch_ways.h"

enum { TYPE_BOOL = 1, TYPE_STRING = 3, SCOPE_GLOBAL = 3 };

static struct {
    pthread_once_t once;
    void *library;
    int (*init)(struct launch_pmix_proc *proc, struct launch_pmix_info *info, size_t n);
    int (*put)(uint8_t scope, const char *key, struct launch_pmix_value *value);
    int (*commit)(void);
    int (*fence)(const struct launch_pmix_proc *procs, size_t n_procs, const struct launch_pmix_info *info, size_t n);
    int (*get)(const struct launch_pmix_proc *proc, const char *key, const struct launch_pmix_info *info, size_t n,
               struct launch_pmix_value **value);
    int (*finalize)(const struct launch_pmix_info *info, size_t n);
    const char *(*error_text)(int status);
    pthread_once_t hold;
    pid_t held_by;
} pmix = {.once = PTHREAD_ONCE_INIT, .hold = PTHREAD_ONCE_INIT};

static void load(void)
{
    void *library = dlopen("libpmix.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const struct { const char *name; void *to; } functions[] = {
        {"PMIx_Init", &pmix.init}, {"PMIx_Put", &pmix.put}, {"PMIx_Commit", &pmix.commit}, {"PMIx_Fence", &pmix.fence},
        {"PMIx_Get", &pmix.get}, {"PMIx_Finalize", &pmix.finalize}, {"PMIx_Error_string", &pmix.error_text},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) return; /* stays loaded: it may have threads by now */
        memcpy(functions[i].to, &function, sizeof function);
    }
    pmix.library = library;
}

bool launch_pmix_is_here(void)
{
    if (!getenv("PMIX_NAMESPACE") || !getenv("PMIX_RANK")) return false;
    pthread_once(&pmix.once, load);
    return pmix.library != NULL;
}

static enum rail_result check(int status, const char *call)
{
    if (status == 0) return RAIL_OK;
    return rail_fail(RAIL_E_REMOTE, "launch: %s: %s (%d); is the launcher alive? RAILCCL_ROOT=host:port goes without PMIx",
                     call, pmix.error_text(status), status);
}

static enum rail_result put(const struct launch_exchange *exchange, const char *key)
{
    char text[LAUNCH_HEX_BYTES];
    struct launch_pmix_value value = {.type = TYPE_STRING, .data.string = text};
    launch_hex(exchange, text);
    RAIL_TRY(check(pmix.put(SCOPE_GLOBAL, key, &value), "PMIx_Put"));
    return check(pmix.commit(), "PMIx_Commit");
}

static enum rail_result get(struct launch_exchange *exchange, const struct launch_pmix_proc *me, const char *key)
{
    struct launch_pmix_proc rank_0 = *me;
    struct launch_pmix_value *value = NULL;
    rank_0.rank = 0;
    RAIL_TRY(check(pmix.get(&rank_0, key, NULL, 0, &value), "PMIx_Get"));
    bool text = value && value->type == TYPE_STRING && value->data.string;
    enum rail_result result = launch_unhex(exchange, text ? value->data.string : "", "PMIx");
    if (text) free(value->data.string);
    free(value);
    return result;
}

static enum rail_result hand_over(struct launch_exchange *exchange, const struct launch_pmix_proc *me)
{
    char key[LAUNCH_KEY_BYTES];
    /* Collect: what was put travels with the fence, and nobody has to ask rank 0's host for it. */
    struct launch_pmix_info collect = {.key = "pmix.collect", .value = {.type = TYPE_BOOL, .data.flag = true}};
    launch_key(exchange, key);
    if (me->rank != (uint32_t)exchange->rank)
        return launch_other_ranks(exchange, "PMIx", (int)me->rank, exchange->n_ranks);
    if (exchange->rank == 0) RAIL_TRY(put(exchange, key));
    RAIL_TRY(check(pmix.fence(NULL, 0, &collect, 1), "PMIx_Fence"));
    return exchange->rank == 0 ? RAIL_OK : get(exchange, me, key);
}

static void let_go(void)
{
    if (pmix.held_by == getpid()) pmix.finalize(NULL, 0);
}

static void hold(void)
{
    struct launch_pmix_proc me;
    if (!dlsym(RTLD_DEFAULT, "MPI_Init") || pmix.init(&me, NULL, 0) != 0) return;
    pmix.held_by = getpid();
    atexit(let_go);
}

static enum rail_result work(struct launch_exchange *exchange)
{
    struct launch_pmix_proc me;
    RAIL_TRY(check(pmix.init(&me, NULL, 0), "PMIx_Init"));
    pthread_once(&pmix.hold, hold);
    enum rail_result result = hand_over(exchange, &me);
    pmix.finalize(NULL, 0);
    return result;
}

enum rail_result launch_pmix(struct launch_exchange *exchange) { return launch_with_deadline(exchange, "PMIx", work); }
