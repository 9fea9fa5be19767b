/* suspend.c - see suspend.h.
 *
 *   drain ── barrier ── give back ── barrier ── SUSPENDED ........ MAGIC
 *            nobody has anything     nobody writes before the
 *            under way any more      last one has given back */
#include "core/suspend.h"

#include "core/collective.h"
#include "core/join.h"
#include "engine/gpu.h"

struct footprint comm_footprint(const struct comm *comm)
{
    struct footprint f = {.kept = sizeof *comm + comm->n_ranks * (sizeof *comm->members + 5 * sizeof(uint32_t))};
    if (comm->addresses) f.kept += comm->n_ranks * (sizeof *comm->addresses + (comm->home_nic ? 1 : 0));
    f.kept += wires_bytes(&comm->wires);
    if (comm->gpu) f.kept += gpu_device_bytes(comm->gpu);
    if (comm->node.segment.mapping) {
        f.kept += shm_segment_resident_control(&comm->node.segment, comm->node.self);
        f.idle += shm_segment_resident(&comm->node.segment, comm->node.self);
    }
    for (uint32_t i = 0; i < comm->wires.n_links; i++) {
        const struct link *l = comm->wires.links[i];
        if (l->ops->resident) f.idle += l->ops->resident(l);
    }
    return f;
}

static void give_back(struct comm *comm)
{
    shm_segment_trim(&comm->node.segment, comm->node.self);
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
    RAIL_TRY(comm_hold(comm, call));
    enum rail_result result = meet_all(comm);
    if (result == RAIL_OK) {
        give_back(comm);
        result = meet_all(comm);
    }
    comm_let_go(comm);
    uint64_t from = COMM_MAGIC;
    if (result == RAIL_OK && !atomic_compare_exchange_strong(&comm->magic, &from, COMM_SUSPENDED))
        return rail_fail(RAIL_E_USAGE, "%s: another thread is ending this communicator", call);
    return result;
}

enum rail_result comm_resume(struct comm *comm)
{
    uint64_t from = COMM_SUSPENDED;
    if (atomic_compare_exchange_strong(&comm->magic, &from, COMM_MAGIC)) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE, "ncclCommResume: the communicator is not suspended");
}
