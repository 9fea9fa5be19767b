/* launch_id.c - how the id of a launch gets to its ranks: the first way that is there.
 *
 *   RAILCCL_ROOT, or MASTER_ADDR and MASTER_PORT: nothing travels. Everybody makes the same id out of the address, the
 *     secret and the number of the call, and rank 0 listens at the address when it joins.
 *   PMIx, PMI-2, PMI-1: rank 0 makes an id and leaves it with the process manager (launch_exchange.c). */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/params.h"
#include "bootstrap/id.h"
#include "bootstrap/launch_ways.h"

/* torchrun's own store may sit on MASTER_PORT, and another job's on a port beside it. */
enum { MASTER_CANDIDATES = 8 };

/* ---- a fixed address ---- */

/* Each call has its own secret, or a fast rank's next communicator would meet the root of the last one; and each launch,
 * as far as it can be told, since launches on neighbouring ports try the same candidates. */
static void secret_of_call(struct unique_id *id, uint32_t call, const char *launch)
{
    char text[256];
    int n = snprintf(text, sizeof text, "launch %u %s", call, launch);
    auth_mac(id->secret, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, id->secret);
}

static enum rail_result fixed(const struct id_fixed *from, uint32_t call, const char *launch, uint8_t out[BOOTSTRAP_ID_BYTES])
{
    struct unique_id id;
    RAIL_TRY(id_fixed_create(from, &id));
    secret_of_call(&id, call, launch);
    id_seal_fixed(&id, ID_LAUNCH);
    memcpy(out, &id, BOOTSTRAP_ID_BYTES);
    return RAIL_OK;
}

static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

static enum rail_result by_master(uint32_t call, uint8_t out[BOOTSTRAP_ID_BYTES])
{
    const char *address = value_of("MASTER_ADDR"), *port_text = value_of("MASTER_PORT"), *run = value_of("TORCHELASTIC_RUN_ID");
    char text[300], launch[200], *end;
    long port = strtol(port_text, &end, 10);
    if (port_text[0] < '0' || port_text[0] > '9' || *end || port < 1 || port >= UINT16_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "launch: MASTER_PORT=\"%s\": must be a port in 1..65534; the %d after it are tried",
                         port_text, MASTER_CANDIDATES);
    long left = UINT16_MAX - port;
    int n = snprintf(text, sizeof text, strchr(address, ':') && address[0] != '[' ? "[%s]:%ld" : "%s:%ld", address, port);
    if (n >= (int)sizeof text) return rail_fail(RAIL_E_ARGUMENT, "launch: MASTER_ADDR=\"%.40s...\": is no host name", address);
    snprintf(launch, sizeof launch, "%ld %s", port, run ? run : "");
    return fixed(&(struct id_fixed){.what = "MASTER_ADDR:MASTER_PORT", .text = text, .first = 1, .warn = true,
                                    .ports = (uint16_t)(left < MASTER_CANDIDATES ? left : MASTER_CANDIDATES)},
                 call, launch, out);
}

/* ---- the first way that is there ---- */

static enum rail_result no_way(const struct launch *launch)
{
    const char *address = value_of("MASTER_ADDR"), *port = value_of("MASTER_PORT");
    return rail_fail(RAIL_E_USAGE, "launch: %.31s started %d ranks and offers no way to hand the unique id around%s%s%s; set "
                     "RAILCCL_ROOT=host:port, or MASTER_ADDR and MASTER_PORT, to an address of rank 0's host for all ranks",
                     launch->source, launch->n_ranks, !address != !port ? " (of MASTER_ADDR and MASTER_PORT only the " : "",
                     !address == !port ? "" : address ? "first" : "second", !address != !port ? " is set)" : "");
}

enum rail_result launch_unique_id(const struct launch *launch, uint8_t id[BOOTSTRAP_ID_BYTES])
{
    static _Atomic uint32_t calls;
    uint32_t call = atomic_fetch_add(&calls, 1);
    if (launch->n_ranks == 1) return bootstrap_root_create(id);
    const char *root = rail_param_str(RAIL_PARAM_ROOT);
    if (root && root[0])
        return fixed(&(struct id_fixed){.what = "RAILCCL_ROOT", .text = root, .ports = 1, .warn = true}, call, "root", id);
    if (value_of("MASTER_ADDR") && value_of("MASTER_PORT")) return by_master(call, id);
    launch_way *way = launch_find_way();
    return way ? launch_hand_over(launch, call, way, id) : no_way(launch);
}
