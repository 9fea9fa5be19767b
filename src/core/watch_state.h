/* watch_state.h - what a rank that waits knows of its wait, as it travels to rank 0. Plain bytes. */
#ifndef RAIL_CORE_WATCH_STATE_H
#define RAIL_CORE_WATCH_STATE_H

#include <stdint.h>

#include "bootstrap/bootstrap.h"
#include "engine/calls.h"
#include "engine/waits.h"

/* In place of a call's number: no collective, but a send, a receive, a signal. */
#define WATCH_UNCOUNTED UINT64_MAX

enum { WATCH_TROUBLES = 6, WATCH_WHY = 96 };

/* A lane that is down, or a peer that none leads to (transport/net.h). */
struct watch_trouble {
    uint32_t rank;       /* one of that peer process's */
    uint8_t nic;         /* by its number in the addresses of the rank that complains */
    uint8_t unreachable; /* no lane to it is up */
    uint16_t reserved;
    uint32_t since_ms;
};

/* A thread that should be in this communicator's call waits in another communicator. */
struct watch_elsewhere {
    uint64_t number;    /* of the call it waits in, as in watch_state; 0: nowhere */
    uint64_t signature; /* of that call */
    uint64_t process;   /* whom it waits for: watch_process_of() */
    uint64_t thread;    /* that one's watch_state.thread where it is of the same process; else 0 */
};

struct watch_state {
    uint64_t number; /* the call that this is about: the rank had waited in it for long when it looked; 0: none */
    uint64_t thread; /* that called last, as a number that differs between threads of a process; 0: none did */
    struct waits waits;
    uint32_t bytes_per_s_k; /* KB/s (1000), over the last second; of messages: pieces */
    uint32_t still_ms;      /* since `waits.done` last grew */
    uint32_t looked_ms;     /* since the rank looked: it waits no more, or is not running, when this is long */
    uint32_t waited;        /* of the last second, in thousandths; UINT32_MAX: not known yet */
    uint32_t absent;        /* the same: the thread did not come by, which sleeps 50 ms at most; the least of three seconds */
    struct watch_elsewhere elsewhere;
    uint32_t n_troubles;
    struct watch_trouble troubles[WATCH_TROUBLES];
    char why[WATCH_WHY]; /* of troubles[0] */
};

struct watch_report {
    struct calls_history history;
    struct watch_state state;
};
_Static_assert(sizeof(struct watch_report) <= BOOTSTRAP_REPORT_BYTES, "what a rank tells of itself fits a report");

#endif
