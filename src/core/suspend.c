/* suspend.c - see suspend.h.
 *
 *   drain ── barrier ── give back ── barrier ── SUSPENDED ........ MAGIC
 *            nobody has anything     nobody writes before the
 *            under way any more      last one has given back
 *
 * Where GPUs take part, resuming is collective, too: memory of the devices has other addresses when it is taken again. */
#include "core/suspend.h"

#include "core/collective.h"
#include "core/gpu_rank.h"
#include "core/join.h"

struct footprint comm_footprint(const struct comm *comm)
{
    struct footprint f = {.kept = sizeof *comm + comm->n_ranks * (sizeof *comm->members + 5 * sizeof(uint32_t))};
    if (comm->addresses) f.kept += comm->n_ranks * (sizeof *comm->addresses + (comm->home_nic ? 1 : 0));
    f.kept += wires_bytes(&comm->wires);
    if (comm->gpu) {
        f.idle += gpu_idle_bytes(comm->gpu);
        f.kept += gpu_device_bytes(comm->gpu) - gpu_idle_bytes(comm->gpu);
    }
    if (comm->node.segment.mapping) {
        f.kept += shm_segment_resident_control(&comm->node.segment, comm->node.self);
        *(comm->unrung ? &f.kept : &f.idle) += shm_segment_resident(&comm->node.segment, comm->node.self);
    }
    for (uint32_t i = 0; i < comm->wires.n_links; i++) {
        const struct link *l = comm->wires.links[i];
        if (l->ops->resident) f.idle += l->ops->resident(l);
    }
    return f;
}

/* A GPU of the node has the segment's pages pinned: it would go on with those, and the host with new ones. */
static void give_back(struct comm *comm)
{
    if (comm->gpu) gpu_suspend(comm->gpu);
    if (!comm->unrung) shm_segment_trim(&comm->node.segment, comm->node.self);
    for (uint32_t i = 0; i < comm->wires.n_links; i++) {
        struct link *l = comm->wires.links[i];
        if (l->ops->trim) l->ops->trim(l);
    }
}

static enum rail_result meet_all(struct comm *comm)
{
    enum rail_result result = bootstrap_barrier(comm->bootstrap, join_deadline());
    return result == RAIL_OK ? RAIL_OK : comm_failed(comm, result);
}

enum rail_result comm_suspend(struct comm *comm)
{
    static const char call[] = "ncclCommSuspend";
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(comm_alone(comm, call));
    RAIL_TRY(comm_drain(comm, call));
    RAIL_TRY(gpu_rank_quiet(comm, call, true));
    RAIL_TRY(comm_hold(comm, call));
    enum rail_result result = meet_all(comm);
    if (result == RAIL_OK) {
        give_back(comm);
        result = meet_all(comm);
    }
    if (result == RAIL_OK && comm->gpu) gpu_suspend_own(comm->gpu);
    comm_let_go(comm);
    uint64_t from = COMM_MAGIC;
    if (result == RAIL_OK && !atomic_compare_exchange_strong(&comm->magic, &from, COMM_SUSPENDED))
        return rail_fail(RAIL_E_USAGE, "%s: another thread is ending this communicator", call);
    return result;
}

static enum rail_result take_back(struct comm *comm)
{
    static const char call[] = "ncclCommResume";
    bool again = false;
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(gpu_rank_quiet(comm, call, true));
    RAIL_TRY(comm_hold(comm, call));
    enum rail_result result = gpu_rank_resume(comm, &again);
    if (result != RAIL_OK && !again) result = comm_failed(comm, result);
    comm_let_go(comm);
    return result;
}

enum rail_result comm_resume(struct comm *comm)
{
    uint64_t from = COMM_SUSPENDED;
    if (atomic_load(&comm->magic) == COMM_SUSPENDED && gpu_rank_somewhere(comm)) RAIL_TRY(take_back(comm));
    if (atomic_compare_exchange_strong(&comm->magic, &from, COMM_MAGIC)) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE, "ncclCommResume: the communicator is not suspended");
}
