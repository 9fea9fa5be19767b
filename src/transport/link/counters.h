/* counters.h - what an RDMA device has counted of its own troubles, in words that hold for every vendor.
 *
 *   /sys/class/infiniband/DEVICE/ports/PORT/{counters,hw_counters}/NAME --> one of a few kinds, summed
 *
 * A driver has some of the names or none (counters.c lists them: mlx5, bnxt, irdma, Soft-RoCE, InfiniBand's own). Reading is a
 * dozen small files, and on some NICs a question to the firmware: some 0.1 ms. So it is for when a lane has ended and for
 * tools, never for the way that data goes. No thread rules: nothing is kept but a `reading`, which is its caller's. */
#ifndef RAIL_LINK_COUNTERS_H
#define RAIL_LINK_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rdma_trouble {
    RDMA_SENT_AGAIN,   /* packets for which no answer came, or a refusal */
    RDMA_OUT_OF_ORDER, /* packets that came before others were there, or twice */
    RDMA_NO_RECEIVE,   /* messages that found no receive posted */
    RDMA_GAVE_UP,      /* requests given up after all retries */
    RDMA_CONGESTION,   /* notices of congestion, sent and heeded, and packets that switches had marked */
    RDMA_LINK_DOWNS,   /* times that the link went down */
    RDMA_BAD_SYMBOLS,  /* errors of the cable */
    RDMA_TROUBLES
};

/* Since the driver was loaded. */
struct rdma_counters { uint64_t n[RDMA_TROUBLES]; };

enum { RDMA_COUNTERS_TEXT = 256 };

/* `root`: "" for this machine, or a folder in which another one's files lie. What is not counted is 0. */
void rdma_counters_read(const char *root, const char *device, int port, struct rdma_counters *out);
/* The same by a thread, which is waited for `within_ns` at most: with firmware that hangs it may take a minute. False: not
 * in time, or the one of an earlier call is still at it. `*reading` is NULL at first, and the device's from then on. */
struct rdma_reading;
bool rdma_counters_read_within(uint64_t within_ns, const char *root, const char *device, int port,
                               struct rdma_reading **reading, struct rdma_counters *out);
void rdma_reading_leave(struct rdma_reading *reading); /* whether or not it is at it; NULL is fine */
/* What has grown: "12 packets sent again, link down once"; "" when nothing has. A counter that went back counts as
 * nothing: the driver was loaded anew. `out` has RDMA_COUNTERS_TEXT bytes. */
void rdma_counters_text(const struct rdma_counters *before, const struct rdma_counters *now, char *out);

#endif
