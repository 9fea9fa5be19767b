/* gpu_windows.c - memory of other processes' ranks that windows lie in, mapped into this rank's context: for puts. */
#include <stdlib.h>

#include "engine/gpu_state.h"

#define CALL "ncclCommWindowRegister"

struct gpu_mapped {
    struct gpu_mapped *next;
    uint64_t base, bytes; /* bytes 0: an IPC handle's */
};

static enum rail_result keep(struct gpu *g, uint64_t base, uint64_t bytes, struct gpu_mapped **out)
{
    struct gpu_mapped *m = malloc(sizeof *m);
    if (!m) {
        if (bytes) cuda_import_fd_close(g->device, base, bytes);
        else cuda_import_close(g->device, base);
        return rail_fail(RAIL_E_SYSTEM, CALL ": out of memory");
    }
    *m = (struct gpu_mapped){g->mapped, base, bytes};
    g->mapped = m;
    *out = m;
    return RAIL_OK;
}

enum rail_result gpu_map_handle(struct gpu *g, const struct cuda_handle *handle, struct gpu_mapped **out, uint64_t *at_out)
{
    uint64_t base;
    RAIL_TRY(cuda_import(g->device, CALL, handle, &base, at_out));
    return keep(g, base, 0, out);
}

enum rail_result gpu_map_fd(struct gpu *g, int fd, uint64_t bytes, struct gpu_mapped **out, uint64_t *at_out)
{
    RAIL_TRY(cuda_import_fd(g->device, CALL, fd, bytes, at_out));
    return keep(g, *at_out, bytes, out);
}

void gpu_unmap(struct gpu *g, struct gpu_mapped *mapped)
{
    struct gpu_mapped **at = &g->mapped;
    while (*at && *at != mapped) at = &(*at)->next;
    if (!mapped || !*at) return;
    *at = mapped->next;
    if (mapped->bytes) cuda_import_fd_close(g->device, mapped->base, mapped->bytes);
    else cuda_import_close(g->device, mapped->base);
    free(mapped);
}

void gpu_unmap_all(struct gpu *g)
{
    while (g->mapped) gpu_unmap(g, g->mapped);
}
