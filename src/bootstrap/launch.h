/* launch.h - programs started by a launcher: who am I, and how the ranks get their unique id. */
#ifndef RAIL_BOOTSTRAP_LAUNCH_H
#define RAIL_BOOTSTRAP_LAUNCH_H

#include <stdint.h>

#include "base/result.h"
#include "bootstrap/bootstrap.h"

enum { LAUNCH_SOURCE_BYTES = 32 };

struct launch {
    int rank, n_ranks;
    int local_rank, n_local; /* among the ranks of this host; n_local is 0 when the launcher does not say */
    char source[LAUNCH_SOURCE_BYTES]; /* whose variables these are: "railccl run", "Open MPI", "PMI", "Slurm", "torchrun",
                                       * "none" */
};

/* Reads the environment. *out is written on success only. */
enum rail_result launch_info(struct launch *out);

/* The id of this launch's ranks. Collective; the n-th call of every rank yields the n-th id. */
enum rail_result launch_unique_id(const struct launch *launch, uint8_t id[BOOTSTRAP_ID_BYTES]);

#endif
