/* peer_memory.h - reading and writing the memory of another process of the host without its help: through a mapping of its
 * memfd, or by process_vm_readv(2) and process_vm_writev(2).
 *
 * Both need the kernel's consent. A memfd is opened as /proc/PID/fd/FD, which processes of one user may do to one
 * another unless they made themselves undumpable; the calls need what a debugger needs (ptrace(2): the same
 * user and, where Yama's ptrace_scope is 1 or more, more than that). So both are tried, and a number that the owner
 * told us is compared: a process id means another process in another pid namespace. */
#ifndef RAIL_TRANSPORT_SHM_PEER_MEMORY_H
#define RAIL_TRANSPORT_SHM_PEER_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

enum { PEER_COOKIE_BYTES = 16 };

/* Where the bytes lie in their owner. Plain bytes: it travels. */
struct peer_memory_offer {
    uint64_t address, bytes;
    uint64_t inode, device, offset;     /* of the memfd that holds them, if fd >= 0 */
    int32_t fd, pid;
    uint64_t cookie_address;            /* of PEER_COOKIE_BYTES that stay readable for as long as the offer holds */
    uint8_t cookie[PEER_COOKIE_BYTES];  /* what stands there */
};

/* Maps the bytes; false where that is not possible. *address is that of the first byte; the mapping begins and ends
 * with pages and is given back by peer_memory_unmap. */
struct peer_mapping { void *start; size_t bytes; };
bool peer_memory_map(const struct peer_memory_offer *offer, struct peer_mapping *mapping, unsigned char **address);
void peer_memory_unmap(struct peer_mapping *mapping);

/* True when peer_memory_write works. */
bool peer_memory_writable(const struct peer_memory_offer *offer);
/* Copies, seen by the owner when it returns. RAIL_E_REMOTE: the process is gone, or gave its memory back. */
enum rail_result peer_memory_write(int pid, uint64_t to, const void *from, size_t bytes);

/* Whose memory it is, for reading: as in an offer. Plain bytes: it travels. */
struct peer_memory_owner {
    int32_t pid, reserved;
    uint64_t cookie_address;
    uint8_t cookie[PEER_COOKIE_BYTES];
};
/* Copies out of the owner's memory, 1 GiB at most. False, with errno: the kernel does not allow it (EPERM), it is another
 * process or one that is gone (ESRCH), or the bytes cannot be read (EFAULT); what came of them is at `to`. */
bool peer_memory_read(const struct peer_memory_owner *owner, void *to, uint64_t from, size_t bytes);
/* Whether the kernel would read these bytes of mine to another process; false for a device's memory, and secret memory. */
bool peer_memory_readable(const void *at, size_t bytes);

#endif
