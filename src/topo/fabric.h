/* fabric.h - what somebody wrote down about the network: which switch is above which, which host hangs where, which NIC is
 * on which rail. Two ways to write it, told apart by the first word: our fabric file and Slurm's topology.conf (tree and
 * block); docs/RAILS.md has both.
 *
 * What contradicts itself is an error with both lines, never an average. Reading is bounded: 16 MiB of text, 65536
 * switches, 2^20 hosts and NICs, 8 tiers. */
#ifndef RAIL_TOPO_FABRIC_H
#define RAIL_TOPO_FABRIC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/result.h"
#include "topo/order.h"
#include "topo/rails.h"

struct fabric;

/* `source` names the text in errors ("/etc/fabric:12: ..."). RAIL_E_ARGUMENT: file, line, what is wrong, what to write
 * instead; nothing is allocated then. The caller frees. Any bytes will do as text. */
enum rail_result fabric_parse(const char *text, size_t bytes, const char *source, struct fabric **out);
enum rail_result fabric_load(const char *path, struct fabric **out);
void fabric_free(struct fabric *fabric); /* takes NULL */

/* The rail of a NIC, as a key (rails.h); 0 when nothing is said of it. A host is looked for by its whole name, then up to
 * its first dot. RAIL_E_ARGUMENT when the NIC's own line and its subnet's name different rails. */
enum rail_result fabric_rail(const struct fabric *fabric, const char *host, const char *interface,
                             const struct sockaddr_storage *address, uint64_t *key_out);
/* The same in words: an empty rail when nothing is said of it. */
enum rail_result fabric_label(const struct fabric *fabric, const char *host, const char *interface,
                              const struct sockaddr_storage *address, struct rail_label *out);
/* Where a host hangs; all 0 when nothing is said of it. */
struct place fabric_place(const struct fabric *fabric, const char *host);
/* Of the whole text: ranks that read different files differ. Never 0. */
uint64_t fabric_digest(const struct fabric *fabric);

/* The file that RAILCCL_FABRIC names, read once in a process; NULL when it names none. */
enum rail_result fabric_of_process(const struct fabric **out);

#endif
