/* door.h - what all doors share: the two names of a public call, and the translation of results.
 *
 * A door checks what needs no lock and no communicator, calls into core, and translates. It leaves errno as it was: a
 * program may look at errno of its own last call after one of ours. */
#ifndef RAIL_API_DOOR_H
#define RAIL_API_DOOR_H

#include <errno.h>

#include "base/result.h"
#include "nccl.h"

/* Stands before the definition of pncclX: the strong pncclX is the body, the weak ncclX is another name for it, so that
 * a tool may define ncclX itself and call pncclX. */
#define RAIL_DOOR(name)                                                                                                \
    extern __typeof__(p##name) p##name __attribute__((visibility("default")));                                         \
    extern __typeof__(name) name __attribute__((weak, alias("p" #name), visibility("default")));

/* Stands before the definition of a railX, which has one name only. */
#define RAIL_OWN_DOOR(name) extern __typeof__(name) name __attribute__((visibility("default")));

/* RAIL_E_TIMEOUT becomes ncclRemoteError: what a deadline waits for is another rank, and ncclTimeout (8) means
 * something else to programs built before 2.30. RAIL_E_ABORTED becomes ncclInvalidUsage: the caller itself ended the
 * communicator; so does RAIL_E_REVOKED, as NCCL documents it. RAIL_NOT_YET never gets here; RAIL_IN_PROGRESS does, of non-blocking communicators. */
ncclResult_t door_result(enum rail_result result);

/*     struct door door = door_open();
 *     return door_close(door, core_thing(...)); */
struct door { int saved_errno; };

static inline struct door door_open(void) { return (struct door){errno}; }

static inline ncclResult_t door_close(struct door door, enum rail_result result)
{
    ncclResult_t translated = door_result(result);
    errno = door.saved_errno;
    return translated;
}

/* For calls that this release does not provide: leaves "NAME: this release does not ..." for ncclGetLastError and
 * returns ncclInvalidUsage. `missing` completes "this release ", `instead` is what to do, both without full stop. */
ncclResult_t door_not_provided(const char *name, const char *missing, const char *instead);

#endif
