/* tuning.h - limits of the chooser that were measured on machines like this one, kept in a file.
 *
 * `railccl tune --measure --save` writes it; a process reads it once. RAILCCL_TUNING_FILE names it, else it is
 * $XDG_CACHE_HOME/railccl/CLASS.conf (~/.cache where that is unset), CLASS being the processor's name and the number
 * of cores, so that a home folder may serve different machines. Per number of ranks and hosts it says limits, by the
 * names of the variables, which win over it:
 *
 *     # comment
 *     [ranks=4 hosts=1]
 *     RAILCCL_ONESHOT_MAX_BYTES=24576
 *
 * A file with anything else in it is left out as a whole, with one warning. Rank 0's file counts for all ranks of a
 * communicator: others need none, and cannot differ. Communicators with GPUs do not look at it. */
#ifndef RAIL_CORE_TUNING_H
#define RAIL_CORE_TUNING_H

#include <limits.h>

#include "base/clock.h"
#include "core/table.h"

/* `bytes` is of the limits whose bit in `set` is set. Travels between ranks. */
struct tuning { uint64_t set, bytes[TABLE_LIMITS]; };

struct tuning_rule { uint32_t n_ranks, n_hosts; struct tuning tuning; };
enum { TUNING_RULES_MAX = 256, TUNING_WHY_BYTES = 300 };
struct tuning_file { char path[PATH_MAX]; int n_rules; struct tuning_rule rules[TUNING_RULES_MAX]; };

/* Pure. False with line, text and reason in `why`, and `out` without rules. */
bool tuning_parse(const char *text, size_t bytes, struct tuning_file *out, char why[TUNING_WHY_BYTES]);
/* The rule for so many ranks on so many hosts, or NULL; takes NULL. The last one in the file wins. */
const struct tuning *tuning_find(const struct tuning_file *file, uint32_t n_ranks, uint32_t n_hosts);
/* Where the file is, or would be. False: switched off, or there is no folder for it. */
bool tuning_path(char out[PATH_MAX]);
/* This process's; read by the first caller. NULL: there is none, or it is broken, which was said. Any thread. */
const struct tuning_file *tuning_of_process(void);
/* Whether it has a rule for so many ranks, on any number of hosts. */
bool tuning_knows(const struct tuning_file *file, uint32_t n_ranks);

struct comm;
/* Collective, once members and shape are known: rank 0's rule, the same on all ranks; no bit is set where it has none. */
enum rail_result tuning_agree(struct comm *comm, struct rail_deadline deadline, struct tuning *out);

#endif
