/* id.h - the unique id's 128 bytes: where the root listens, and the secret. */
#ifndef RAIL_BOOTSTRAP_ID_H
#define RAIL_BOOTSTRAP_ID_H

#include "bootstrap/auth.h"
#include "bootstrap/bootstrap.h"
#include "bootstrap/sockets.h"

enum id_kind {
    ID_ROOT_RUNS = 1,  /* ncclGetUniqueId's caller runs the root */
    ID_RANK_0_OPENS,   /* a fixed address: rank 0 opens the root there when it joins */
    ID_LAUNCH,         /* the same, at an address where roots of the launch's other ids may be met as well */
};

struct unique_id {
    char magic[8]; /* "railcuid" */
    uint8_t version, kind, n_endpoints, any_address; /* any_address: rank 0 listens on all of its addresses */
    uint32_t pid;  /* of the process that made it, for messages */
    struct endpoint endpoints[ENDPOINTS_MAX];
    uint8_t secret[BOOTSTRAP_SECRET_BYTES];
    uint64_t check; /* hash of all before */
};
_Static_assert(sizeof(struct unique_id) == BOOTSTRAP_ID_BYTES, "ncclUniqueId");

/* Fills in magic, version, pid and check. */
void id_seal(struct unique_id *id);
/* The same for an id that every rank makes for itself: equal on all of them. */
void id_seal_fixed(struct unique_id *id, enum id_kind kind);
/* RAIL_E_ARGUMENT for bytes that no railccl of this version wrote. */
enum rail_result id_open(const uint8_t bytes[BOOTSTRAP_ID_BYTES], struct unique_id *out);

/* "host:port", "1.2.3.4:port", "[v6]:port"; looks names up (may block). `what` names the variable for messages; `ports`
 * is how many consecutive ports rank 0 may choose from, beginning `first` after the one in the text. The key is of
 * RAILCCL_SECRET or the file RAILCCL_SECRET_FILE, else a fixed one (`warn`: and one warning). */
struct id_fixed { const char *what, *text; uint16_t first, ports; bool warn; };
enum rail_result id_fixed_create(const struct id_fixed *fixed, struct unique_id *out);

#endif
