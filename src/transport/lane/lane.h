/* lane.h - a lane: one connection on one rail and one route between two processes, carrying frames both ways.
 *
 * A lane knows frames, not links: it tells its sink of every header, puts the payload where the sink says, and sends the
 * frames queued on it. It never blocks. What carries the frames is a wire, a small table of functions: TCP (tcp.c).
 *
 * One thread at a time: everything here is called under the drive lock of the process (link/net_state.h). */
#ifndef RAIL_LANE_LANE_H
#define RAIL_LANE_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "transport/lane/frame.h"

enum {
    /* What one receive call takes when no large payload is under way. Copying this much costs less than the second
     * system call that reading the header alone would need. */
    LANE_STAGE_BYTES = 16384,
    /* Payloads up to this size are copied behind their header: one buffer, one plain send(). */
    LANE_INLINE_BYTES = 512,
    /* Frames in the hands of one lane, not yet taken by the kernel. Sixteen small ones make one sendmsg(). */
    LANE_OUT_FRAMES = 16,
    LANE_TEXT_BYTES = 144,
};

struct lane;
struct lane_memory;
struct verbs_connection;

/* What stands above a lane. Called under the drive lock. An error closes the lane. */
struct lane_sink {
    /* A frame's header has come: check it, say where its payload goes (*to: payload_bytes of room; NULL: skip it). */
    enum rail_result (*begin)(struct lane *lane, const struct frame *frame, void **to);
    /* The payload is there. */
    enum rail_result (*end)(struct lane *lane, const struct frame *frame);
    /* A queued frame that pointed into its owner's memory has been taken by the kernel; over RDMA: is out of the
     * device's hands, which may be after the lane's end (`lane` is NULL then). `lent`: as it was queued. */
    void (*sent)(struct lane *lane, void *owner, struct lane_memory *lent);
    /* Over RDMA: such a frame is still the device's when its lane is closed; sent() comes when its queue pair is gone. */
    void (*left)(struct lane *lane, void *owner);
    /* Over RDMA: the queue pair of a lane that was closed is gone, and what it had under way with it: nothing of it can
     * be written any more. Never called where the device does not let go of it. */
    void (*gone)(void *watcher);
    /* The owner's memory, all of it, for wires that must register it (verbs.h). */
    struct lane_memory *(*memory)(struct lane *lane, void *owner);
};

/* What the wire has counted since it was connected. */
struct lane_figures {
    uint64_t acked_bytes;
    uint64_t busy_us; /* something was unacknowledged or unsent, and the far end had room: it waited for the network */
    uint64_t reader_us;           /* the same, and the far end had no room: it waited for its reader */
    uint64_t delivered_segments;  /* acknowledged, also out of order; 0: the kernel does not say (before 4.18) */
    uint32_t repeated_segments;   /* sent anew */
    uint32_t in_flight_segments;  /* now */
    uint32_t unsent_bytes;        /* now; in_flight and unsent make up what is unacknowledged */
    uint32_t round_trip_us;       /* smoothed */
    bool closed;                  /* the far end has no room at all (its window is 0); false before 5.4 */
    uint64_t answered_ns;         /* the far kernel acknowledged something so long ago; UINT64_MAX: not known */
};

/* A wire. None of these blocks, logs or calls the sink but where it says so. */
struct lane_ops {
    const char *name;
    /* Reads and delivers to the sink: lane_read(). */
    enum rail_result (*read)(struct lane *lane, size_t budget_bytes);
    /* Takes what it has room for off the queue: lane_write(). May call sink->sent. */
    enum rail_result (*write)(struct lane *lane);
    /* From now on event_fd becomes readable when there is something to read. True: it did not do so before, so what came
     * meanwhile must be read once more. Wires whose socket tells do nothing. */
    bool (*arm)(struct lane *lane);
    /* unacked_bytes brought up to date. */
    void (*look)(struct lane *lane);
    /* room_bytes measured anew; asked at most every 5 ms. */
    void (*measure)(struct lane *lane);
    bool (*figures)(const struct lane *lane, struct lane_figures *out);
    /* Before closing in good order: what was taken is on its way, or 0.1 s are over. */
    void (*settle)(struct lane *lane);
    /* Nothing of what comes or goes by it afterwards matters any more; the socket stays lane.c's to close. Over RDMA
     * payloads are the device's for a little longer (verbs.h). */
    void (*close)(struct lane *lane);
};

extern const struct lane_ops lane_tcp_ops;

struct lane_out {
    uint8_t head[FRAME_BYTES + LANE_INLINE_BYTES];
    uint32_t head_bytes;
    uint32_t payload_bytes;  /* outside of head */
    const uint8_t *payload;
    uint64_t to;             /* over RDMA: where the payload goes at the far end, with to_key; 0: behind its header */
    uint32_t to_key;
    struct lane_memory *lent; /* where the payload lies, if not in the owner's own memory; NULL: there */
    void *owner;             /* to be told when it is sent; NULL: nobody (over RDMA never with a payload outside of head) */
};

struct lane {
    const struct lane_ops *ops; /* of its present connection */
    int fd; /* -1: closed */
    int event_fd; /* readable after arm(), besides fd; -1: none */
    struct verbs_connection *wire; /* of lane_verbs_ops */
    uint32_t rail, index;
    const struct lane_sink *sink;
    void *user;
    void *watcher; /* sink->gone(), when it is set at the lane's end; NULL: nobody cares */
    char text[LANE_TEXT_BYTES]; /* "rail 0 (eth0) 10.0.0.1:4711 - 10.0.0.2:4712" for messages */

    /* Out. */
    struct lane_out out[LANE_OUT_FRAMES];
    uint32_t out_first, out_count;
    size_t out_done_bytes;    /* of the first frame */
    uint32_t out_number;
    uint32_t lent;            /* frames off the queue whose payload the wire still uses (RDMA) */
    bool owes;                /* the far end does not know yet what was consumed (RDMA) */
    bool blocked;             /* the kernel took less than was offered */
    size_t queued_bytes;      /* in out[] */
    uint64_t unacked_bytes;   /* upper bound of what the kernel holds unacknowledged; exact when last looked at */
    uint64_t room_bytes;      /* bound of unacked_bytes (lane_room.c) */
    uint64_t looked_at_ns;    /* when room_bytes was measured */
    uint32_t chunk_bytes;

    /* In. */
    uint8_t stage[LANE_STAGE_BYTES];
    uint32_t stage_begin, stage_end;
    struct frame in;
    bool in_payload;
    uint32_t in_left_bytes;
    uint8_t *in_to;           /* NULL: skipping */
    void *in_owner;           /* the sink's: whose memory in_to is */
    uint32_t in_number;
    bool broke_rule;          /* the far end: what it says is not believed any more */

    /* Telemetry. */
    uint64_t sent_bytes, received_bytes, sent_frames, received_frames;
};

/* A connected, authenticated, non-blocking socket becomes a lane. Frame numbers start behind HELLO where
 * hello_sent / hello_received. */
void lane_start(struct lane *lane, int fd, uint32_t chunk_bytes, bool hello_sent, bool hello_received);

/* Reads and delivers up to about budget_bytes. RAIL_OK: something came, RAIL_NOT_YET: nothing was there; else the
 * lane is broken (RAIL_E_REMOTE with lane_error's text: end of file, errno; or what the sink said). */
static inline enum rail_result lane_read(struct lane *lane, size_t budget_bytes)
{
    return lane->ops->read(lane, budget_bytes);
}

static inline bool lane_out_full(const struct lane *lane) { return lane->out_count == LANE_OUT_FRAMES; }

/* Queues a frame; the lane must not be full. Payloads up to LANE_INLINE_BYTES are copied; larger ones stay in the
 * owner's memory until sink->sent(owner). Returns whether the owner's memory is in use. */
bool lane_queue(struct lane *lane, struct frame *frame, const void *payload, void *owner);
/* Over RDMA, of payloads larger than LANE_INLINE_BYTES: the last frame queued is to be written to `to` in the far end's
 * memory, which it has registered under `key`, apart from its header. */
void lane_queue_direct(struct lane *lane, uint64_t to, uint32_t key);
/* The last frame queued has its payload in this memory, which is not its owner's own. */
void lane_queue_lent(struct lane *lane, struct lane_memory *lent);
/* Hands queued frames to the wire. RAIL_OK: some went, RAIL_NOT_YET: none, else the lane is broken. */
static inline enum rail_result lane_write(struct lane *lane) { return lane->ops->write(lane); }
/* Closes the connection and drops everything queued, telling the owners. */
void lane_close(struct lane *lane);

/* Brings unacked_bytes up to date: one system call on TCP, none when nothing is outstanding. */
static inline void lane_look(struct lane *lane)
{
    if (lane->unacked_bytes > 0) lane->ops->look(lane);
}
/* May the lane take a chunk of `bytes` now? Asks the wire when the bound is reached. */
bool lane_has_room(struct lane *lane, size_t bytes);
/* What the wire has counted since it was connected; false when it does not say. */
static inline bool lane_figures(const struct lane *lane, struct lane_figures *out)
{
    return lane->ops->figures(lane, out);
}
/* The bound: max(2 chunks, 1.25 x rate x max(round trip, 8 ms)). A deeper socket buffer would be a static split in disguise. */
uint64_t lane_room_bytes(uint32_t chunk_bytes, uint64_t rate_bytes_per_s, uint32_t round_trip_us);

/* For wires: the first queued frame is theirs now (out_done_bytes begins anew); and all of them are dropped. */
void lane_pop(struct lane *lane);
void lane_drop_queue(struct lane *lane);

/* The socket options of every lane: no delay, bounded unsent bytes. */
enum rail_result lane_socket_prepare(int fd);

#endif
