/* digest.h - RAILCCL_DIGEST: what every collective left in this rank's output, in 64 bits, so that the first call whose
 * result differs can be found: among ranks when the communicator closes, between two runs by `railccl digest A B`.
 *
 * Kept per communicator: a record of each of the last DIGEST_KEPT calls. Where all ranks get the same (AllReduce,
 * Broadcast, AllGather) a chain runs over the records: chains that agree at a call agree at all before it, so the ranks
 * find the first that differs by halving, with a handful of small exchanges, however many they are. */
#ifndef RAIL_CORE_DIGEST_H
#define RAIL_CORE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/result.h"
#include "bootstrap/bootstrap.h"

enum { DIGEST_KEPT = 4096 };

struct digest;

/* NULL: neither RAILCCL_DIGEST nor RAILCCL_DIGEST_FILE is set, or (with a warning) out of memory. */
struct digest *digest_open(uint32_t rank, uint32_t n_ranks);
void digest_close(struct digest *d); /* NULL is fine */

/* A collective is done. `signature` says what it was; `bytes` 0: this rank got nothing. `shared`: all ranks got the
 * same. By the communicator's thread, in call order. */
void digest_note(struct digest *d, uint64_t signature, const void *output, size_t bytes, bool shared);

/* Collective over all ranks, unless only a file is wanted. RAIL_E_INTERNAL, with a warning in the log: results that
 * must agree differ; the text names the first such call and the ranks in the minority. Ranks that do not come before the
 * deadline are no failure: nothing was compared then, which the log says. */
enum rail_result digest_compare(struct digest *d, struct bootstrap *bootstrap, struct rail_deadline deadline);

#endif
