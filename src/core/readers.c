/* readers.c - see readers.h. */
#include "core/readers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/params.h"

/* What is read where it lies by a collective is read in a system call for each peer and round (collective.c has the figures). 4 and
 * 8 ranks on 2 cores, blocks of AlltoAll copied over read: 16 KiB 0.87, 0.58, 32 KiB 1.08, 1.15, 64 KiB 1.98, 1.15, 128 KiB 2.40,
 * 1.36. */
#define READ_LEAST ((uint64_t)32 << 10)

static uint64_t read_least(const struct comm *comm)
{
    int64_t wanted = rail_param_int(RAIL_PARAM_READ_MIN_BYTES);
    if (wanted == 0 || comm->direct || comm->unrung || comm->node.segment.geometry.n_peers < 2) return UINT64_MAX;
    return wanted > 0 ? (uint64_t)wanted : READ_LEAST;
}

/* A rank is known by what it drew for this communicator, where it keeps it. */
static void owners_of(const struct comm *comm, struct peer_memory_owner *owners)
{
    for (uint32_t p = 0; p < comm->node.segment.geometry.n_peers; p++) {
        const struct member *member = &comm->members[comm->node.ranks[p]];
        owners[p] = (struct peer_memory_owner){.pid = member->pid, .cookie_address = member->fresh_at};
        memcpy(owners[p].cookie, member->fresh, sizeof owners[p].cookie);
    }
}

/* The first peer that cannot be read; all can: n_peers. */
static uint32_t unreadable(const struct comm *comm)
{
    uint8_t seen[PEER_COOKIE_BYTES];
    const struct peer_memory_owner *owners = comm->node.owners;
    uint32_t n = comm->node.segment.geometry.n_peers, p = 0;
    while (p < n && (p == comm->node.self || peer_memory_read(&owners[p], seen, owners[p].cookie_address, sizeof seen))) p++;
    return p;
}

enum rail_result readers_find(struct comm *comm, bool *reads)
{
    uint32_t n = comm->node.segment.geometry.n_peers;
    *reads = false;
    comm->read_least = read_least(comm);
    if (n < 2 || comm->direct || comm->unrung) return RAIL_OK;
    comm->node.owners = calloc(n, sizeof *comm->node.owners);
    comm->node.bench = aligned_alloc(SHM_LINE, HOST_BENCH_BYTES);
    if (!comm->node.owners || !comm->node.bench) return rail_fail(RAIL_E_SYSTEM, "reading %u peers: out of memory", n);
    owners_of(comm, comm->node.owners);
    uint32_t p = unreadable(comm);
    *reads = p == n;
    if (!*reads)
        RAIL_INFO(RAIL_INIT | RAIL_TUNING, "rank %u: the kernel does not read rank %u's memory for it (process_vm_readv of pid %d: %s): "
                  "what ranks of this host give is copied through the segment", comm->rank, comm->node.ranks[p],
                  comm->node.owners[p].pid, strerror(errno));
    return RAIL_OK;
}

void readers_drop(struct comm *comm)
{
    free(comm->node.owners);
    free(comm->node.bench);
    comm->node.owners = NULL;
    comm->node.bench = NULL;
    comm->read_least = UINT64_MAX;
}
