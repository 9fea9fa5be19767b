/* tcp.c - frames over one TCP socket: what a lane does with the kernel.
 *
 * In:  recv() into the stage --> headers and small payloads are taken from there;
 *      a large payload: readv() { rest of the payload -> where it belongs, next header -> stage }, so that a stream of
 *      large chunks is never copied and costs one call per chunk.
 * Out: up to LANE_OUT_FRAMES frames per sendmsg(); a small frame alone is one send() of one buffer. */
#include "transport/lane/lane.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"

/* From this size on a payload is followed by the next header only, not by a stage full of the next payload. */
enum { BULK_BYTES = 32768 };

/* The kernel keeps at most this much unsent; in flight it may hold more. Two segments of the largest GSO size keep the
 * wire fed while we are away. */
enum { NOTSENT_BYTES = 131072 };

enum rail_result lane_socket_prepare(int fd)
{
    int on = 1, notsent_bytes = NOTSENT_BYTES;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        return rail_fail(RAIL_E_SYSTEM, "setsockopt(TCP_NODELAY) on a lane's socket: errno %d", errno);
    /* Without it lanes work, with a deeper buffer. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &notsent_bytes, sizeof notsent_bytes);
    return RAIL_OK;
}

/* ---- in ---- */

static enum rail_result deliver_staged(struct lane *lane)
{
    for (;;) {
        uint32_t have = lane->stage_end - lane->stage_begin;
        if (lane->in_payload) {
            uint32_t n = have < lane->in_left_bytes ? have : lane->in_left_bytes;
            if (lane->in_to) {
                memcpy(lane->in_to, lane->stage + lane->stage_begin, n);
                lane->in_to += n;
            }
            lane->stage_begin += n;
            lane->in_left_bytes -= n;
            if (lane->in_left_bytes > 0) break;
            lane->in_payload = false;
            lane->received_frames++;
            enum rail_result r = lane->sink->end(lane, &lane->in);
            lane->in_owner = NULL;
            RAIL_TRY(r);
            continue;
        }
        if (have < FRAME_BYTES) break;
        frame_decode(&lane->in, lane->stage + lane->stage_begin);
        lane->stage_begin += FRAME_BYTES;
        lane->broke_rule = lane->in.number != lane->in_number;
        if (lane->broke_rule)
            return rail_fail(RAIL_E_REMOTE, "%s: frame %u came where frame %u was due: the stream is out of step; "
                             "the connection is closed", lane->text, lane->in.number, lane->in_number);
        lane->in_number++;
        void *to = NULL;
        lane->in_owner = NULL;
        RAIL_TRY(lane->sink->begin(lane, &lane->in, &to));
        lane->in_to = to;
        lane->in_left_bytes = lane->in.payload_bytes;
        lane->in_payload = true;
    }
    if (lane->stage_begin == lane->stage_end) {
        lane->stage_begin = lane->stage_end = 0;
    } else if (lane->stage_begin > 0) { /* less than a header is left */
        memmove(lane->stage, lane->stage + lane->stage_begin, lane->stage_end - lane->stage_begin);
        lane->stage_end -= lane->stage_begin;
        lane->stage_begin = 0;
    }
    return RAIL_OK;
}

/* One system call. Returns its result and what was asked for. */
static ssize_t receive_once(struct lane *lane, size_t *asked_bytes)
{
    if (lane->in_payload && lane->in_to) {
        /* deliver_staged() left the stage empty. */
        bool bulk = lane->in.payload_bytes >= BULK_BYTES;
        struct iovec v[2] = {
            {lane->in_to, lane->in_left_bytes},
            {lane->stage, bulk ? FRAME_BYTES : LANE_STAGE_BYTES},
        };
        *asked_bytes = v[0].iov_len + v[1].iov_len;
        return readv(lane->fd, v, 2);
    }
    *asked_bytes = LANE_STAGE_BYTES - lane->stage_end;
    return recv(lane->fd, lane->stage + lane->stage_end, *asked_bytes, MSG_DONTWAIT);
}

static void account_received(struct lane *lane, size_t got)
{
    lane->received_bytes += got;
    if (lane->in_payload && lane->in_to) {
        uint32_t direct = got < lane->in_left_bytes ? (uint32_t)got : lane->in_left_bytes;
        lane->in_to += direct;
        lane->in_left_bytes -= direct;
        got -= direct;
    }
    lane->stage_end += (uint32_t)got;
}

static enum rail_result tcp_read(struct lane *lane, size_t budget_bytes)
{
    bool moved = false;
    size_t read_bytes = 0;
    while (read_bytes < budget_bytes) {
        size_t asked_bytes;
        ssize_t got = receive_once(lane, &asked_bytes);
        if (got < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) break;
            if (errno == EINTR) continue;
            return rail_fail_privately(RAIL_E_REMOTE, "%s: receiving failed: %s (errno %d)", lane->text,
                                     strerror(errno), errno);
        }
        if (got == 0)
            return rail_fail_privately(RAIL_E_REMOTE, "%s: the other process closed the connection (end of file)",
                                     lane->text);
        moved = true;
        read_bytes += (size_t)got;
        account_received(lane, (size_t)got);
        RAIL_TRY(deliver_staged(lane));
        if (lane->fd < 0 || (size_t)got < asked_bytes) break; /* closed meanwhile; or drained, for now */
    }
    return moved ? RAIL_OK : RAIL_NOT_YET;
}

/* ---- out ---- */

static int gather(const struct lane *lane, struct iovec v[2 * LANE_OUT_FRAMES], size_t *offered_bytes)
{
    int n = 0;
    size_t skip = lane->out_done_bytes, sum = 0;
    for (uint32_t i = 0; i < lane->out_count; i++) {
        const struct lane_out *out = &lane->out[(lane->out_first + i) % LANE_OUT_FRAMES];
        if (skip < out->head_bytes) {
            v[n++] = (struct iovec){(void *)(uintptr_t)(out->head + skip), out->head_bytes - skip};
            sum += v[n - 1].iov_len;
            skip = 0;
        } else {
            skip -= out->head_bytes;
        }
        if (out->payload_bytes > 0) {
            v[n++] = (struct iovec){(void *)(uintptr_t)(out->payload + skip), out->payload_bytes - skip};
            sum += v[n - 1].iov_len;
        }
        skip = 0;
    }
    *offered_bytes = sum;
    return n;
}

static void account_sent(struct lane *lane, size_t n)
{
    lane->sent_bytes += n;
    lane->unacked_bytes += n;
    lane->queued_bytes -= n;
    while (lane->out_count > 0) {
        const struct lane_out *out = &lane->out[lane->out_first];
        size_t left = out->head_bytes + out->payload_bytes - lane->out_done_bytes;
        if (n < left) break;
        n -= left;
        void *owner = out->owner;
        lane_pop(lane);
        if (owner) lane->sink->sent(lane, owner, NULL);
    }
    lane->out_done_bytes += n;
}

static enum rail_result tcp_write(struct lane *lane)
{
    bool moved = false;
    while (lane->out_count > 0) {
        struct iovec v[2 * LANE_OUT_FRAMES];
        size_t offered_bytes;
        int n = gather(lane, v, &offered_bytes);
        struct msghdr message = {.msg_iov = v, .msg_iovlen = (size_t)n};
        ssize_t sent = n == 1 ? send(lane->fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                              : sendmsg(lane->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                return rail_fail_privately(RAIL_E_REMOTE, "%s: sending failed: %s (errno %d)", lane->text,
                                         strerror(errno), errno);
            lane->blocked = true;
            break;
        }
        moved = true;
        account_sent(lane, (size_t)sent);
        lane->blocked = (size_t)sent < offered_bytes;
        if (lane->blocked) break;
    }
    return moved ? RAIL_OK : RAIL_NOT_YET;
}

/* ---- what the kernel knows ---- */

static void tcp_measure(struct lane *lane)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    if (getsockopt(lane->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) < 0) return;
    if (bytes < offsetof(struct tcp_info, tcpi_delivery_rate) + sizeof info.tcpi_delivery_rate) return;
    lane->room_bytes = lane_room_bytes(lane->chunk_bytes, info.tcpi_delivery_rate, info.tcpi_min_rtt);
}

static bool tcp_figures(const struct lane *lane, struct lane_figures *out)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    if (getsockopt(lane->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) < 0) return false;
    if (bytes < offsetof(struct tcp_info, tcpi_rwnd_limited) + sizeof info.tcpi_rwnd_limited) return false; /* < 4.10 */
    uint64_t reader_us = info.tcpi_rwnd_limited < info.tcpi_busy_time ? info.tcpi_rwnd_limited : info.tcpi_busy_time;
    *out = (struct lane_figures){
        .acked_bytes = info.tcpi_bytes_acked, .busy_us = info.tcpi_busy_time - reader_us,
            .reader_us = info.tcpi_rwnd_limited,
        .delivered_segments = info.tcpi_delivered, .repeated_segments = info.tcpi_total_retrans,
        .closed = bytes >= offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof info.tcpi_snd_wnd && info.tcpi_snd_wnd == 0,
        .in_flight_segments = info.tcpi_unacked, .unsent_bytes = info.tcpi_notsent_bytes,
            .round_trip_us = info.tcpi_rtt, .answered_ns = info.tcpi_last_ack_recv * RAIL_NS_PER_MS,
    };
    return true;
}

static void tcp_look(struct lane *lane)
{
    int unacked = 0;
    if (ioctl(lane->fd, SIOCOUTQ, &unacked) == 0)
        lane->unacked_bytes = unacked > 0 ? (uint64_t)unacked : 0;
}

/* The socket is in epoll, and what was written is the kernel's. */
static bool tcp_arm(struct lane *lane)
{
    (void)lane;
    return false;
}

static void tcp_settle(struct lane *lane) { (void)lane; }

/* ---- end ---- */

/* Shut down as well: a forked child may still hold a copy of the descriptor. */
static void tcp_close(struct lane *lane) { shutdown(lane->fd, SHUT_RDWR); }

const struct lane_ops lane_tcp_ops = {
    .name = "tcp",
    .read = tcp_read,
    .write = tcp_write,
    .arm = tcp_arm,
    .look = tcp_look,
    .measure = tcp_measure,
    .figures = tcp_figures,
    .settle = tcp_settle,
    .close = tcp_close,
};
