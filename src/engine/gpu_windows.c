/* gpu_windows.c - memory of other processes' ranks that windows lie in, mapped into this rank's context: for puts. */
#include <stdlib.h>

#include "engine/gpu_state.h"

#define CALL "ncclCommWindowRegister"

struct gpu_mapped {
    struct gpu_mapped *next;
    uint64_t base;
};

enum rail_result gpu_map_handle(struct gpu *g, const struct cuda_handle *handle, struct gpu_mapped **out, uint64_t *at_out)
{
    struct gpu_mapped *m = malloc(sizeof *m);
    if (!m) return rail_fail(RAIL_E_SYSTEM, CALL ": out of memory");
    *m = (struct gpu_mapped){.next = g->mapped};
    enum rail_result result = cuda_import(g->device, CALL, handle, &m->base, at_out);
    if (result != RAIL_OK) {
        free(m);
        return result;
    }
    *out = g->mapped = m;
    return RAIL_OK;
}

void gpu_unmap(struct gpu *g, struct gpu_mapped *mapped)
{
    struct gpu_mapped **at = &g->mapped;
    while (*at && *at != mapped) at = &(*at)->next;
    if (!mapped || !*at) return;
    *at = mapped->next;
    cuda_import_close(g->device, mapped->base);
    free(mapped);
}

void gpu_unmap_all(struct gpu *g)
{
    while (g->mapped) gpu_unmap(g, g->mapped);
}
