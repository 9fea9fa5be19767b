/* onesided.h - writing into another rank's window, and signals: counters at the target, one per (source, ctx, sigIdx),
 * that count for the life of the communicator.
 *
 * A put is complete here when its buffer may be used again; at the target its data is there before its signal counts.
 * What one rank puts to one other arrives in the order of the calls, whatever the window, the way and the context.
 *
 *   by address, by kernel:   data ──> fetch_add on the target's counter in the shared segment ──> its doorbell
 *   by link:                 header | data ──> slots ──> the target's driver copies, counts, rings
 *
 * A put never waits for a call of the target, so ranks may put to one another at once, and a caller waits only for
 * credit, which the target's process gives back whatever that rank does. */
#ifndef RAIL_CORE_ONESIDED_H
#define RAIL_CORE_ONESIDED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"
#include "core/window.h"
#include "foreign/cuda.h"
#include "transport/net.h"

struct comm;

enum { ONESIDED_CHANNEL = 1 << 17 }; /* of its links; plans and pairs use lower ones */

/* What this rank has with one other. */
struct onesided_peer {
    struct link *out;                      /* puts by link; opened at first use */
    _Atomic(_Atomic uint64_t *) arrived;   /* [SHM_SIGNALS], of a rank of another node; made at first use */
    uint64_t *awaited;                     /* [SHM_SIGNALS]: waited for so far; made at first use */
    _Atomic bool ended;                    /* nothing more comes by link */
};

struct onesided {
    struct onesided_peer *peers; /* [n_ranks] */
    struct net_acceptor acceptor;
    int n_contexts;
};

/* After the node was joined. */
enum rail_result onesided_init(struct comm *comm, int n_contexts);
/* Takes in what comes over the network from now on; once the communicator's addresses are known. */
enum rail_result onesided_listen(struct comm *comm);
/* Everything that this rank put by link has been taken in. */
bool onesided_drained(const struct comm *comm);
/* Waits for that. */
enum rail_result onesided_drain(struct comm *comm);
/* Closes the links. Accepts one that was never made. */
void onesided_clear(struct comm *comm);

struct onesided_put {
    const char *call;
    const void *data;
    size_t count;
    int type;               /* of the elements; not looked at without a window */
    int peer;
    struct window *window;  /* NULL: the signal alone */
    size_t offset;          /* bytes into the peer's part */
    int signal, ctx;
    unsigned flags;         /* 0 */
};

struct onesided_wait {
    int count, peer, signal, ctx;
};

/* One operation under way. Zeroed before its first use. */
struct onesided_op {
    struct comm *comm;
    bool waits;
    /* a put */
    struct onesided_put put;
    size_t bytes, done;
    bool placed;            /* its data is there; the signal is not */
    /* a wait */
    struct onesided_goal { uint32_t peer, signal; uint64_t value; } *goals; /* [n_goals], the operation's */
    int n_goals, next_goal;
};

/* Check, and make ready to run: nothing has happened yet when they fail. RAIL_E_ARGUMENT names call, value and
 * limit. */
enum rail_result onesided_put_make(struct comm *comm, const struct onesided_put *put, struct onesided_op *out);
enum rail_result onesided_wait_make(struct comm *comm, const struct onesided_wait *waits, int n,
                                    struct onesided_op *out);
/* Before the first progress, in call order: from here on its signals are this operation's. */
enum rail_result onesided_start(struct onesided_op *op);
/* Never blocks. RAIL_OK: complete. RAIL_NOT_YET: once more later. Else the operation, and the communicator, has
 * failed. */
enum rail_result onesided_progress(struct onesided_op *op);
/* For a caller that has waited for long: will what it waits for ever come? */
enum rail_result onesided_suspect(const struct onesided_op *op);
void onesided_free(struct onesided_op *op);

/* Of a GPU rank, after onesided_start: in the order of the stream, within a gpu_batch. */
enum rail_result onesided_put_on(const struct onesided_op *op, cu_stream stream);
enum rail_result onesided_wait_on(const struct onesided_op *op, uint32_t batch, cu_stream stream);
/* As onesided_suspect, of what its streams wait for; any thread. */
enum rail_result onesided_look_on(struct comm *comm);

/* All of that to its end. */
enum rail_result onesided_run(struct onesided_op *op);

/* The operations of one communicator in one group: puts in call order, and the waits beside them, all at once. Zeroed
 * to begin with. */
struct onesided_batch {
    struct onesided_queued *puts, *last_put, *waits, *last_wait;
    bool started;
};

/* Takes over what the operation holds, on failure too. */
enum rail_result onesided_batch_add(struct onesided_batch *batch, struct onesided_op *op);
/* Starts it at the first call. RAIL_OK: all done. */
enum rail_result onesided_batch_progress(struct onesided_batch *batch);
/* As onesided_suspect. */
enum rail_result onesided_batch_suspect(const struct onesided_batch *batch);
/* Of a GPU rank: its puts, in call order; then its waits, behind all that the group enqueues. */
enum rail_result onesided_batch_put_on(struct onesided_batch *batch, cu_stream stream);
enum rail_result onesided_batch_wait_on(struct onesided_batch *batch, uint32_t number, cu_stream stream);
void onesided_batch_free(struct onesided_batch *batch);

#endif
