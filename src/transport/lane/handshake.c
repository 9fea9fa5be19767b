/* handshake.c - the few steps between a fresh socket and a lane (handshake.h). */
#include "transport/lane/handshake.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "topo/machine.h"
#include "transport/lane/flow_label.h"
#include "transport/lane/lane.h"

static enum rail_result failed(struct handshake *h, enum rail_result result, const char *what, int error)
{
    if (error != 0)
        snprintf(h->why, sizeof h->why, "%s: %s (errno %d)", what, strerror(error), error);
    else
        snprintf(h->why, sizeof h->why, "%s", what);
    return result;
}

enum rail_result handshake_connect(struct handshake *h, const struct handshake_address *from,
                                   const struct handshake_address *to, const struct machine_interface *nic,
                                   const uint8_t key[AUTH_KEY_BYTES], const struct frame_hello *mine)
{
    memset(h, 0, sizeof *h);
    h->fd = -1;
    h->connecter = true;
    h->mine = *mine;
    int fd = socket(from->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) return failed(h, RAIL_E_SYSTEM, "socket()", errno);
    int error = 0;
    if (lane_socket_prepare(fd) != RAIL_OK || bind(fd, (const struct sockaddr *)&from->address, from->bytes) < 0) {
        error = errno;
        close(fd);
        return failed(h, RAIL_E_SYSTEM, "bind() to the rail's address", error);
    }
    if (nic) machine_bind_device(fd, nic, &to->address);
    if (connect(fd, (const struct sockaddr *)&to->address, to->bytes) < 0 && errno != EINPROGRESS) {
        error = errno;
        close(fd);
        return failed(h, RAIL_E_SYSTEM, "connect()", error);
    }
    h->fd = fd;
    h->state = HANDSHAKE_CONNECTING;
    struct auth_config config = {.role = AUTH_CONNECTER, .purpose = "lane", .key = key};
    auth_start(&h->auth, &config);
    return RAIL_OK;
}

void handshake_accept(struct handshake *h, int fd, auth_lookup *lookup, void *owner)
{
    memset(h, 0, sizeof *h);
    h->fd = fd;
    h->state = HANDSHAKE_PROVING;
    struct auth_config config = {.role = AUTH_ACCEPTER, .purpose = "lane", .lookup = lookup, .owner = owner};
    auth_start(&h->auth, &config);
}

bool handshake_said_hello(const struct handshake *h) { return h->state == HANDSHAKE_HELLO; }

void handshake_close(struct handshake *h)
{
    if (h->fd >= 0) close(h->fd);
    h->fd = -1;
    verbs_connection_free(h->verbs);
    h->verbs = NULL;
    auth_wipe(&h->auth);
}

void handshake_hello_encode(const struct frame_hello *hello, uint8_t out[HELLO_FRAME_BYTES])
{
    struct frame frame = {.type = FRAME_HELLO, .payload_bytes = sizeof *hello};
    struct frame_hello wire = frame_hello_swap(*hello);
    frame_encode(out, &frame);
    memcpy(out + FRAME_BYTES, &wire, sizeof wire);
}

static enum rail_result step_connecting(struct handshake *h)
{
    struct pollfd p = {.fd = h->fd, .events = POLLOUT};
    if (poll(&p, 1, 0) <= 0) return RAIL_NOT_YET;
    int error = 0;
    socklen_t bytes = sizeof error;
    if (getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0) error = errno;
    h->nobody = error == ECONNREFUSED;
    if (error != 0) return failed(h, RAIL_E_SYSTEM, "connect()", error);
    h->state = HANDSHAKE_PROVING;
    return RAIL_OK;
}

static bool wants_manager(const struct handshake *h)
{
    return h->port && verbs_port_wants_manager(h->port) && verbs_port_has_manager(h->port);
}

static enum rail_result step_proving(struct handshake *h)
{
    errno = 0;
    enum rail_result r = auth_pump(&h->auth, h->fd);
    if (r == RAIL_NOT_YET) return r;
    if (r == RAIL_E_REMOTE) {
        h->refused = h->auth.reason == AUTH_UNKNOWN_KEY;
        return failed(h, r, auth_reason_text(h->auth.reason), 0);
    }
    if (r != RAIL_OK) return failed(h, r, errno ? "authentication" : "closed during authentication", errno);
    if (h->connecter) {
        uint8_t hello[HELLO_FRAME_BYTES];
        if (h->port) h->mine.features |= FRAME_HELLO_VERBS;
        if (wants_manager(h)) h->mine.features |= FRAME_HELLO_MANAGER;
        handshake_hello_encode(&h->mine, hello);
        /* A hundred bytes always fit behind a proof; if not, something is odd enough to start again. */
        ssize_t n = send(h->fd, hello, sizeof hello, MSG_NOSIGNAL);
        if (n != (ssize_t)sizeof hello) return failed(h, RAIL_E_SYSTEM, "sending HELLO", n < 0 ? errno : EAGAIN);
    }
    h->state = HANDSHAKE_HELLO;
    return RAIL_OK;
}

/* Reads one frame and no byte more: what follows may be the lane's already. */
static enum rail_result read_frame(struct handshake *h, struct frame *frame)
{
    for (;;) {
        uint32_t wanted = FRAME_BYTES;
        if (h->in_bytes >= FRAME_BYTES) {
            frame_decode(frame, h->in);
            if (frame->payload_bytes > sizeof h->in - FRAME_BYTES)
                return failed(h, RAIL_E_REMOTE, "the first frame is not HELLO", 0);
            wanted += frame->payload_bytes;
            if (h->in_bytes == wanted) return RAIL_OK;
        }
        ssize_t n = recv(h->fd, h->in + h->in_bytes, wanted - h->in_bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return RAIL_NOT_YET;
        if (n < 0) return failed(h, RAIL_E_SYSTEM, "waiting for HELLO", errno);
        h->turned_away = n == 0 && h->connecter;
        if (n == 0) return failed(h, RAIL_E_SYSTEM, "closed before HELLO (refused, see the other process's log)", 0);
        h->in_bytes += (uint32_t)n;
    }
}

static enum rail_result take_hello(struct handshake *h, const struct frame *frame)
{
    if (frame->type != FRAME_HELLO || frame->payload_bytes != sizeof h->theirs || frame->number != 0)
        return failed(h, RAIL_E_REMOTE, "the first frame is not HELLO", 0);
    memcpy(&h->theirs, h->in + FRAME_BYTES, sizeof h->theirs);
    h->theirs = frame_hello_swap(h->theirs);
    if (h->theirs.version != FRAME_VERSION) {
        char text[96];
        snprintf(text, sizeof text, "the other process speaks wire version %u, this one %d: use one release of railccl",
                 h->theirs.version, FRAME_VERSION);
        return failed(h, RAIL_E_REMOTE, text, 0);
    }
    return RAIL_OK;
}

/* ---- by verbs? ---- */

static enum rail_result send_record(struct handshake *h, struct verbs_record *record)
{
    uint8_t out[FRAME_BYTES + sizeof *record];
    struct frame frame = {.type = FRAME_VERBS, .payload_bytes = sizeof *record};
    verbs_record_swap(record);
    frame_encode(out, &frame);
    memcpy(out + FRAME_BYTES, record, sizeof *record);
    ssize_t n = send(h->fd, out, sizeof out, MSG_NOSIGNAL);
    /* Nothing else is under way on the socket: it always fits. */
    if (n != (ssize_t)sizeof out) return failed(h, RAIL_E_SYSTEM, "sending a verbs record", n < 0 ? errno : EAGAIN);
    return RAIL_OK;
}

static void without(struct handshake *h)
{
    verbs_connection_free(h->verbs);
    h->verbs = NULL;
}

static bool take_record(struct handshake *h, const struct frame *frame, struct verbs_record *out)
{
    if (frame->type != FRAME_VERBS || frame->payload_bytes != sizeof *out) return false;
    memcpy(out, h->in + FRAME_BYTES, sizeof *out);
    verbs_record_swap(out);
    h->in_bytes = 0;
    return true;
}

bool handshake_is_managed(const struct handshake *h) { return h->state == HANDSHAKE_MANAGER && h->fd >= 0 && h->verbs; }

bool handshake_is_late(const struct handshake *h, uint64_t now_ns)
{
    return handshake_is_managed(h) && verbs_manager_is_late(h->verbs, now_ns);
}

/* The lane's addresses, which are the rail's. */
static bool addresses(const struct handshake *h, struct sockaddr_storage *here, struct sockaddr_storage *there)
{
    socklen_t bytes[2] = {sizeof *here, sizeof *there};
    return getsockname(h->fd, (struct sockaddr *)here, &bytes[0]) == 0 &&
           (!there || getpeername(h->fd, (struct sockaddr *)there, &bytes[1]) == 0);
}

/* Accepter: a port and a token in the record, where one of the two wants it, and we can. */
static void offer_manager(struct handshake *h, struct verbs_record *record)
{
    struct sockaddr_storage here;
    bool wanted = (h->theirs.features & FRAME_HELLO_MANAGER) || verbs_port_wants_manager(h->port);
    if (!wanted) return;
    if (!verbs_port_has_manager(h->port)) {
        verbs_port_by_hand(h->port, h->port->manager_why);
        return;
    }
    char why[VERBS_WHY_BYTES] = "getsockname failed";
    if (!addresses(h, &here, NULL) || !verbs_manager_offer(h->verbs, (struct sockaddr *)&here,
                                                           rail_deadline_in_ns(h->patience_ns), record, why))
        verbs_port_by_hand(h->port, why);
}

/* The accepter's part begins: true when it waits for their record. */
static enum rail_result offer(struct handshake *h)
{
    struct verbs_record record;
    h->verbs = verbs_connection_begin(h->port, &record, h->verbs_why);
    if (!h->verbs) return RAIL_OK; /* our HELLO will say that it is TCP */
    offer_manager(h, &record);
    RAIL_TRY(send_record(h, &record));
    h->in_bytes = 0;
    h->state = HANDSHAKE_VERBS;
    return RAIL_NOT_YET;
}

static enum rail_result step_verbs(struct handshake *h)
{
    struct frame frame;
    struct verbs_record theirs;
    RAIL_TRY(read_frame(h, &frame));
    if (!take_record(h, &frame, &theirs)) return failed(h, RAIL_E_REMOTE, "a frame that is no verbs record", 0);
    uint32_t label = flow_label(&h->theirs);
    bool right = theirs.by_cm && !theirs.declines ? verbs_manager_accept(h->verbs, &theirs, label, h->verbs_why)
                                                  : verbs_connection_finish(h->verbs, &theirs, false, label, h->verbs_why);
    if (!right) without(h);
    if (!right || !theirs.by_cm) return RAIL_OK;
    h->state = HANDSHAKE_MANAGER;
    return RAIL_NOT_YET;
}

/* The connecter's manager is on its way to theirs. */
static bool connect_manager(struct handshake *h, const struct verbs_record *theirs, struct verbs_record *record)
{
    struct sockaddr_storage here, there;
    if (!addresses(h, &here, &there)) {
        snprintf(h->verbs_why, sizeof h->verbs_why, "getpeername failed");
        return false;
    }
    return verbs_manager_connect(h->verbs, (struct sockaddr *)&here, (struct sockaddr *)&there, theirs, flow_label(&h->mine),
                                 rail_deadline_in_ns(h->patience_ns), record, h->verbs_why);
}

/* The connecter has their record: answers with its own. */
static enum rail_result answer_record(struct handshake *h, const struct verbs_record *theirs)
{
    struct verbs_record record;
    h->verbs = verbs_connection_begin(h->port, &record, h->verbs_why);
    bool managed = h->verbs && theirs->cm_port != 0 && verbs_port_has_manager(h->port);
    if (h->verbs && !managed && (theirs->cm_port != 0 || wants_manager(h)))
        verbs_port_by_hand(h->port, theirs->cm_port ? h->port->manager_why : "the other process cannot, see its log");
    bool right = h->verbs && (managed ? connect_manager(h, theirs, &record)
                                      : verbs_connection_finish(h->verbs, theirs, true, flow_label(&h->mine), h->verbs_why));
    if (!right) without(h);
    if (!right) verbs_record_decline(&record, h->verbs_why);
    else if (!managed) verbs_connection_answer(h->verbs, &record);
    if (right && managed) h->state = HANDSHAKE_MANAGER;
    return send_record(h, &record);
}

/* Each end that gives librdmacm up says so once; the accepter's HELLO comes after the connecter has. */
static enum rail_result give_manager_up(struct handshake *h)
{
    struct verbs_record record;
    verbs_record_decline(&record, h->verbs_why);
    without(h);
    h->declined = true;
    if (h->connecter) h->state = HANDSHAKE_HELLO;
    return send_record(h, &record);
}

/* RAIL_OK: the far end gives it up. The connecter may hear HELLO instead, by verbs: librdmacm will say the same here in a
 * moment. */
static enum rail_result hear_given_up(struct handshake *h)
{
    struct frame frame;
    struct verbs_record theirs;
    RAIL_TRY(read_frame(h, &frame));
    if (h->connecter && frame.type == FRAME_HELLO) return RAIL_NOT_YET;
    if (!take_record(h, &frame, &theirs) || !theirs.declines)
        return failed(h, RAIL_E_REMOTE, "a frame that does not give librdmacm up", 0);
    if (!h->declined) verbs_record_declined(&theirs, h->verbs_why);
    return RAIL_OK;
}

static enum rail_result step_manager(struct handshake *h)
{
    h->late |= h->verbs && verbs_manager_is_late(h->verbs, rail_now_ns());
    enum rail_result r = h->verbs ? verbs_manager_step(h->verbs, h->verbs_why) : RAIL_NOT_YET;
    if (r == RAIL_OK) {
        if (h->connecter) h->state = HANDSHAKE_HELLO;
        return RAIL_OK;
    }
    if (r != RAIL_NOT_YET) RAIL_TRY(give_manager_up(h));
    if (h->state != HANDSHAKE_MANAGER) return RAIL_NOT_YET;
    RAIL_TRY(hear_given_up(h));
    if (h->connecter) return give_manager_up(h);
    without(h);
    return RAIL_OK;
}

static enum rail_result step_hello(struct handshake *h)
{
    struct frame frame;
    struct verbs_record theirs;
    RAIL_TRY(read_frame(h, &frame));
    if (h->connecter && h->port && !h->verbs && !h->verbs_why[0] && take_record(h, &frame, &theirs)) {
        RAIL_TRY(answer_record(h, &theirs));
        if (h->state == HANDSHAKE_MANAGER) return RAIL_NOT_YET;
        RAIL_TRY(read_frame(h, &frame));
    }
    if (h->connecter && h->declined && take_record(h, &frame, &theirs)) RAIL_TRY(read_frame(h, &frame)); /* both at once */
    if (h->connecter && h->verbs && take_record(h, &frame, &theirs)) { /* it came about here, and not there */
        verbs_record_declined(&theirs, h->verbs_why);
        RAIL_TRY(give_manager_up(h));
        RAIL_TRY(read_frame(h, &frame));
    }
    RAIL_TRY(take_hello(h, &frame));
    bool theirs_too = (h->theirs.features & FRAME_HELLO_VERBS) != 0;
    if (!h->connecter) return theirs_too && h->port && h->theirs.n_lanes > 0 ? offer(h) : RAIL_OK;
    if (theirs_too && h->declined) return failed(h, RAIL_E_SYSTEM, "librdmacm connected there what it did not here", 0);
    if (theirs_too && !h->verbs) return failed(h, RAIL_E_REMOTE, "HELLO by verbs, which were not agreed on", 0);
    if (!theirs_too) without(h);
    return RAIL_OK;
}

enum rail_result handshake_step(struct handshake *h)
{
    if (h->state == HANDSHAKE_CONNECTING) RAIL_TRY(step_connecting(h));
    if (h->state == HANDSHAKE_PROVING) RAIL_TRY(step_proving(h));
    for (;;) {
        enum handshake_state was = h->state;
        enum rail_result r = was == HANDSHAKE_HELLO   ? step_hello(h)
                             : was == HANDSHAKE_VERBS ? step_verbs(h)
                                                      : step_manager(h);
        /* On with what has come already. */
        if (h->state == was || (r != RAIL_OK && r != RAIL_NOT_YET)) return r;
    }
}
