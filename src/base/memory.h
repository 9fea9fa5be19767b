/* memory.h - sealed shared memory without a file name, and passing its descriptor on.
 *
 * memfd instead of /dev/shm files: nothing is left behind by a crash, and the size of /dev/shm in a container does not
 * matter. */
#ifndef RAIL_BASE_MEMORY_H
#define RAIL_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/result.h"

/* A close-on-exec memfd of `bytes` (sparse), sealed against shrinking, growing and further seals. */
enum rail_result rail_memfd_create(const char *name, size_t bytes, int *fd_out);
/* Maps the first `bytes` of `fd` shared, after checking that it has them and is sealed, so that nobody can shrink it
 * under the mapping. */
enum rail_result rail_memfd_map(int fd, size_t bytes, void **address_out);
void rail_memory_unmap(void *address, size_t bytes);
/* Bytes of the pages of [address, address + bytes) that have memory behind them; of a shared mapping, whoever touched
 * them. */
size_t rail_memory_resident(const void *address, size_t bytes);

/* Passing a descriptor between processes of one host and user, over an abstract unix socket (no file system).
 * `key` (32 bytes, secret) names the meeting point and is proven by the taker; the name and the proof are one-way hashes
 * of it. A peer of another uid is refused, one that does not prove the key is dropped and not counted.
 *
 * fd_giver_open binds and listens; fd_giver_serve hands `fd` to `count` takers and returns when all have it
 * (RAIL_E_TIMEOUT at the deadline, RAIL_E_ABORTED within 20 ms of *stop; `stop` may be NULL). fd_take connects (retrying
 * until the giver is there) and receives; the descriptor is close-on-exec. rail_fd_giver_close takes NULL. */
struct fd_giver;
enum rail_result rail_fd_giver_open(const uint8_t key[32], struct fd_giver **out);
enum rail_result rail_fd_giver_serve(struct fd_giver *giver, int fd, int count, struct rail_deadline deadline,
                                     const _Atomic uint32_t *stop);
void rail_fd_giver_close(struct fd_giver *giver);
enum rail_result rail_fd_take(const uint8_t key[32], struct rail_deadline deadline, const _Atomic uint32_t *stop,
                              int *fd_out);

/* Kernel random bytes; cannot fail on a supported kernel (aborts the process if it does). */
void rail_random(void *out, size_t bytes);
/* 64-bit non-cryptographic hash for tables and signatures (documented in memory.c). */
uint64_t rail_hash64(const void *data, size_t bytes, uint64_t seed);

#endif
