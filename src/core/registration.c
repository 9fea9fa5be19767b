/* registration.c - handles are numbers that are never given out twice, so a stale one is always recognised. */
#include "core/registration.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "transport/net.h"

#define HANDLE_MARK ((uintptr_t)0x7272 << 48) /* no address: who follows it, falls */

struct registration {
    struct registration *next;
    uintptr_t handle;
    void *address;
    size_t bytes;
    uint64_t known; /* net.h */
};

enum rail_result registration_add(struct registrations *all, void *address, size_t bytes, bool on_device,
                                  void **handle_out)
{
    static _Atomic uint64_t last;
    if (!handle_out) return rail_fail(RAIL_E_ARGUMENT, "ncclCommRegister: handle is NULL");
    if (!address) return rail_fail(RAIL_E_ARGUMENT, "ncclCommRegister: buff is NULL (size %zu)", bytes);
    if (bytes == 0) return rail_fail(RAIL_E_ARGUMENT, "ncclCommRegister: size is 0: there is nothing to register");
    if (bytes > UINTPTR_MAX - (uintptr_t)address)
        return rail_fail(RAIL_E_ARGUMENT, "ncclCommRegister: %zu bytes at %p go beyond the end of memory", bytes,
                         address);
    struct registration *r = malloc(sizeof *r);
    if (!r) return rail_fail(RAIL_E_SYSTEM, "ncclCommRegister: out of memory");
    *r = (struct registration){all->first, HANDLE_MARK | (uintptr_t)++last, address, bytes,
                               on_device ? 0 : net_memory_add(address, bytes)};
    all->first = r;
    *handle_out = (void *)r->handle;
    return RAIL_OK;
}

enum rail_result registration_end(struct registrations *all, const void *handle)
{
    if (!handle) return rail_fail(RAIL_E_ARGUMENT, "ncclCommDeregister: handle is NULL");
    struct registration **at = &all->first, *found;
    while (*at && (*at)->handle != (uintptr_t)handle) at = &(*at)->next;
    if (!(found = *at))
        return rail_fail(RAIL_E_ARGUMENT,
                         "ncclCommDeregister: %p is no handle of this communicator (deregistered before, or from "
                         "another communicator's ncclCommRegister)",
                         handle);
    *at = found->next;
    net_memory_end(found->known);
    free(found);
    return RAIL_OK;
}

void registrations_clear(struct registrations *all)
{
    while (all->first) {
        struct registration *next = all->first->next;
        net_memory_end(all->first->known);
        free(all->first);
        all->first = next;
    }
}
