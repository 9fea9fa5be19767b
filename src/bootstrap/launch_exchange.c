/* launch_exchange.c - rank 0's id through a process manager: rank 0 leaves it there under a name, the others fetch it.
 *
 * The libraries that speak to process managers wait without a deadline. They are called on a thread of their own, and
 * whoever waits for it gives up at the deadline. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/futex.h"
#include "base/params.h"
#include "bootstrap/id.h"
#include "bootstrap/launch_ways.h"

/* ---- text ---- */

void launch_key(const struct launch_exchange *exchange, char out[LAUNCH_KEY_BYTES])
{
    snprintf(out, LAUNCH_KEY_BYTES, "railccl-id-%u", exchange->call);
}

void launch_hex(const struct launch_exchange *exchange, char out[LAUNCH_HEX_BYTES])
{
    for (int i = 0; i < BOOTSTRAP_ID_BYTES; i++) snprintf(out + 2 * i, 3, "%02x", exchange->id[i]);
}

enum rail_result launch_unhex(struct launch_exchange *exchange, const char *text, const char *by)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = strlen(text);
    bool good = n == LAUNCH_HEX_BYTES - 1 && strspn(text, digits) == n;
    for (int i = 0; good && i < BOOTSTRAP_ID_BYTES; i++)
        exchange->id[i] = (uint8_t)((strchr(digits, text[2 * i]) - digits) << 4 | (strchr(digits, text[2 * i + 1]) - digits));
    if (good) return RAIL_OK;
    return rail_fail(RAIL_E_REMOTE, "launch: %s gave %zu characters for rank 0's id instead of %d hexadecimal digits; do all "
                     "ranks run the same railccl?", by, n, LAUNCH_HEX_BYTES - 1);
}

/* ---- a deadline for calls that have none ---- */

struct errand {
    struct launch_exchange exchange;
    launch_way *work;
    enum rail_result result;
    _Atomic uint32_t done;
    _Atomic uint32_t holders; /* the thread, and who waits */
};

static void drop(struct errand *errand)
{
    if (atomic_fetch_sub(&errand->holders, 1) == 1) free(errand);
}

static void *run(void *argument)
{
    struct errand *errand = argument;
    errand->result = errand->work(&errand->exchange);
    atomic_store(&errand->done, 1);
    rail_futex_wake(&errand->done, 1);
    drop(errand);
    return NULL;
}

static int start(struct errand *errand)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the program's signals are for the program's threads */
    int error = pthread_create(&thread, NULL, run, errand);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) pthread_detach(thread);
    return error;
}

enum rail_result launch_with_deadline(struct launch_exchange *exchange, const char *by, launch_way *work)
{
    struct errand *errand = malloc(sizeof *errand);
    if (!errand) return rail_fail(RAIL_E_SYSTEM, "launch: out of memory");
    *errand = (struct errand){.exchange = *exchange, .work = work, .holders = 2};
    int error = start(errand);
    if (error) {
        free(errand);
        return rail_fail(RAIL_E_SYSTEM, "launch: pthread_create: %s; raise ulimit -u", strerror(error));
    }
    while (!atomic_load(&errand->done) && !rail_deadline_passed(exchange->deadline)) {
        uint64_t now = rail_now_ns(), until = exchange->deadline.at_ns;
        rail_futex_wait(&errand->done, 0, until > now ? until - now : 0);
    }
    enum rail_result result;
    if (atomic_load(&errand->done)) {
        result = errand->result;
        *exchange = errand->exchange;
    } else {
        result = launch_late(exchange, by);
    }
    drop(errand);
    return result;
}

enum rail_result launch_late(const struct launch_exchange *exchange, const char *by)
{
    return rail_fail(RAIL_E_TIMEOUT, "launch: rank %d of %d: %s did not hand over id number %u within %lld s "
                     "(RAILCCL_INIT_TIMEOUT_S); does every rank call railLaunchUniqueId as often?", exchange->rank,
                     exchange->n_ranks, by, exchange->call + 1, (long long)rail_param_int(RAIL_PARAM_INIT_TIMEOUT_S));
}

enum rail_result launch_other_ranks(const struct launch_exchange *exchange, const char *by, int rank, int n_ranks)
{
    return rail_fail(RAIL_E_USAGE, "launch: this is rank %d of %d by the launcher's variables and rank %d of %d by %s; set "
                     "RAILCCL_ROOT=host:port, or MASTER_ADDR and MASTER_PORT, to an address of rank 0's host for all ranks",
                     exchange->rank, exchange->n_ranks, rank, n_ranks, by);
}

/* ---- the exchange ---- */

launch_way *launch_find_way(void)
{
    if (launch_pmix_is_here()) return launch_pmix;
    if (launch_pmi2_is_here()) return launch_pmi2;
    return launch_pmi1_is_here() ? launch_pmi1 : NULL;
}

enum rail_result launch_hand_over(const struct launch *launch, uint32_t call, launch_way *way, uint8_t out[BOOTSTRAP_ID_BYTES])
{
    struct launch_exchange exchange = {.rank = launch->rank, .n_ranks = launch->n_ranks, .call = call};
    struct unique_id checked;
    exchange.deadline = rail_deadline_in_ns((uint64_t)rail_param_int(RAIL_PARAM_INIT_TIMEOUT_S) * RAIL_NS_PER_S);
    if (launch->rank == 0) RAIL_TRY(bootstrap_root_create(exchange.id));
    RAIL_TRY(way(&exchange));
    RAIL_TRY(id_open(exchange.id, &checked));
    memcpy(out, exchange.id, BOOTSTRAP_ID_BYTES);
    return RAIL_OK;
}
