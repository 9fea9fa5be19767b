/* devices.c - RDMA devices beside the rails' NICs: opened with the listeners, and heard of while they are open.
 *
 *   port down, up      every lane over it is dead; it may come back
 *   device fatal       the same, for good: lanes come back over TCP
 *   queue pair fatal   that lane
 *   busy for long      with letting go of what was a lane's: no new ones until it has
 *   librdmacm's        a connection is on its way, for the handshake that waits for it
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "transport/link/net_state.h"

/* As a GID has it: IPv4 behind ::ffff:. */
static void gid_of(const struct sockaddr_storage *a, uint8_t out[16])
{
    memset(out, 0, 16);
    if (a->ss_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
        return;
    }
    out[10] = out[11] = 0xff;
    memcpy(out + 12, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
}

/* Some ports have a connection manager from the beginning, some from the first connection on. */
static void hear_manager(struct net_rail *rail)
{
    struct net_device *device = &rail->device_of;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &device->watch};
    if (device->manager_heard || device->port->manager_fd < 0) return;
    device->manager_heard = true;
    if (epoll_ctl(rail->net->epoll_fd, EPOLL_CTL_ADD, device->port->manager_fd, &event) != 0)
        RAIL_INFO(RAIL_NET, "%s: librdmacm is not heard: epoll_ctl: %s", device->port->name, strerror(errno));
}

static void open_device(struct net *net, uint32_t i)
{
    struct net_rail *rail = &net->rails[i];
    const struct net_interface *nic = &rail->interface;
    struct net_device *device = &rail->device_of;
    char why[VERBS_WHY_BYTES];
    uint8_t address[16];
    gid_of(&nic->address.address, address);
    *device = (struct net_device){.watch = {NET_WATCH_DEVICE}, .rail = rail};
    if (verbs_port_open(nic->device, nic->device_port, &net->config.verbs, address, i, &device->port, why) != RAIL_OK) {
        RAIL_WARN("rail %u (%s) uses TCP, not %s:%u: %s", i, nic->name, nic->device, nic->device_port, why);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &device->watch};
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, device->port->event_fd, &event) != 0)
        RAIL_INFO(RAIL_NET, "%s tells nothing of itself: epoll_ctl: %s", nic->device, strerror(errno));
    if (epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, device->port->gone_fd, &event) != 0)
        RAIL_INFO(RAIL_NET, "%s: memory of lanes that end is not given back: epoll_ctl: %s", nic->device, strerror(errno));
    hear_manager(rail);
    rdma_counters_read("", nic->device, (int)nic->device_port, &device->counted);
    RAIL_INFO(RAIL_NET, "rail %u (%s) by RDMA: %s:%u", i, nic->name, nic->device, nic->device_port);
}

void net_devices_open(struct net *net)
{
    for (uint32_t i = 0; i < net->config.n_rails; i++)
        if (net->rails[i].interface.device[0] && !net->rails[i].device_of.rail) open_device(net, i);
}

#define SETTLE_NS (5 * RAIL_NS_PER_S)

void net_devices_settle(struct net *net)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SETTLE_NS);
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        struct verbs_port *port = net->rails[i].device_of.port;
        if (!port) continue;
        (void)verbs_port_wait(port, deadline);
        verbs_port_collect(port);
    }
}

#define COUNTED_EVERY_NS RAIL_NS_PER_S /* a device that goes takes all its lanes along */
#define COUNTED_WITHIN_NS (5 * RAIL_NS_PER_MS) /* under the drive lock; it takes 0.1 ms, unless the firmware hangs */

void net_device_counted(struct net_rail *rail, char *out)
{
    struct net_device *device = &rail->device_of;
    struct rdma_counters now;
    char text[RDMA_COUNTERS_TEXT];
    out[0] = '\0';
    if (!device->port || (device->counted_ns && rail_now_ns() - device->counted_ns < COUNTED_EVERY_NS)) return;
    device->counted_ns = rail_now_ns();
    if (!rdma_counters_read_within(COUNTED_WITHIN_NS, "", device->port->name, device->port->port, &device->reading, &now))
        return;
    rdma_counters_text(&device->counted, &now, text);
    if (text[0]) snprintf(out, NET_COUNTED_BYTES, "; %s has counted %s", device->port->name, text);
    device->counted = now;
}

void net_devices_tell(struct net *net)
{
    uint64_t lent = atomic_load_explicit(&net->lent_slots, memory_order_relaxed);
    if (lent > 0)
        RAIL_INFO(RAIL_NET, "%llu slots of %llu bytes in all were sent from registered memory so far, without a copy",
                  (unsigned long long)lent, (unsigned long long)atomic_load_explicit(&net->lent_bytes, memory_order_relaxed));
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        const struct verbs_port *port = net->rails[i].device_of.port;
        if (!port || port->n_connections == 0) continue;
        RAIL_INFO(RAIL_NET, "rail %u (%s): %s:%u took %llu work requests so far, %llu of them asked for a completion, on %llu "
                  "queue pairs", i, net->rails[i].interface.name, port->name, port->port,
                  (unsigned long long)port->n_requests, (unsigned long long)port->n_signalled,
                  (unsigned long long)port->n_connections);
    }
}

void net_devices_close(struct net *net)
{
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        rdma_reading_leave(net->rails[i].device_of.reading);
        net->rails[i].device_of.reading = NULL;
        verbs_port_close(net->rails[i].device_of.port);
        net->rails[i].device_of.port = NULL;
    }
}

/* A queue pair that works is gone within a millisecond, one that does not within 0.1 s (DRAIN_NS). Whoever takes so
 * much longer would keep us as long over a new one, which is made under the drive lock. */
#define STUCK_NS (1 * RAIL_NS_PER_S)

static bool is_stuck(struct verbs_port *port) { return verbs_port_at_it_ns(port) > STUCK_NS; }

struct verbs_port *net_device_offer(const struct net_rail *rail)
{
    struct verbs_port *port = rail->device_of.port;
    return port && !port->fatal && !port->useless && !port->down && !is_stuck(port) ? port : NULL;
}

void net_device_without(struct net_rail *rail, const char *lane, const char *why)
{
    struct verbs_port *port = rail->device_of.port;
    if (!port || port->complained)
        RAIL_INFO(RAIL_NET, "%s: over TCP: %s", lane, why);
    else
        RAIL_WARN("%s: over TCP, though both ends have an RDMA device: %s", lane, why);
    if (port) port->complained = true;
}

/* Every lane over the device. What is said of one that ends may end others: the table is looked at anew each time. */
static void lanes_dead(struct net_rail *rail, const char *why)
{
    struct net *net = rail->net;
    for (uint32_t i = 0; i < net->n_up;) {
        struct net_lane *lane = net->up[i];
        if (lane->lane.ops != &lane_verbs_ops || &net->rails[lane->rail] != rail) {
            i++;
            continue;
        }
        char text[NET_WHY_BYTES];
        snprintf(text, sizeof text, "%.140s: %.100s", lane->lane.text, why);
        peer_lane_ended(lane, RAIL_E_REMOTE, text);
        i = 0;
    }
}

static void lane_dead(struct lane *lane, const char *why)
{
    if (!lane) return; /* not one yet: its handshake will fail; or not one any more */
    char text[NET_WHY_BYTES];
    snprintf(text, sizeof text, "%.140s: %.100s", lane->text, why);
    peer_lane_ended(lane->user, RAIL_E_REMOTE, text);
}

/* Lanes that came up over TCP while the port was down, or as there was little time for librdmacm, go back to it, where
 * routes may change (move.c). More than once: the far end may hear of its port, or of ours, a moment later, and a lane that
 * is being tried or moved cannot be moved. */
#define BACK_FOR_NS (4 * RAIL_NS_PER_S)
#define BACK_EVERY_NS (400 * RAIL_NS_PER_MS)

void net_device_again(struct net_rail *rail)
{
    rail->device_of.back_at_ns = rail_now_ns();
    rail->device_of.back_until_ns = rail->device_of.back_at_ns + BACK_FOR_NS;
    net_touch(rail->net);
}

static void port_up(struct net_rail *rail)
{
    mend_nic_back(rail->net, (uint32_t)(rail - rail->net->rails));
    net_device_again(rail);
}

static bool bring_back(struct net_rail *rail, uint64_t now_ns)
{
    struct net *net = rail->net;
    struct net_device *device = &rail->device_of;
    if (now_ns >= device->back_until_ns || !net_device_offer(rail)) return false;
    if (now_ns < device->back_at_ns) return true;
    device->back_at_ns = now_ns + BACK_EVERY_NS;
    for (uint32_t i = 0; i < net->n_up; i++)
        if (&net->rails[net->up[i]->rail] == rail && net->up[i]->lane.ops != &lane_verbs_ops) move_lane(net->up[i]);
    return true;
}

/* Of a device that is busy with letting go of something. True: whether for long is not known yet. */
static bool look_at_stuck(struct net_rail *rail)
{
    struct net_device *device = &rail->device_of;
    if (verbs_port_at_it_ns(device->port) == 0 || device->stuck) return false;
    device->stuck = is_stuck(device->port);
    if (device->stuck)
        RAIL_WARN("device %s has not let go of a lane's queue pair or memory for %d s: its firmware or driver hangs. Its "
                  "lanes use TCP until it answers; what they used stays out of use. Look at dmesg, reset the device",
                  device->port->name, (int)(STUCK_NS / RAIL_NS_PER_S));
    return !device->stuck;
}

bool net_devices_tick(struct net *net, uint64_t now_ns)
{
    bool waiting = false;
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        if (net->rails[i].device_of.back_until_ns != 0) waiting |= bring_back(&net->rails[i], now_ns);
        if (!net->rails[i].device_of.port) continue;
        hear_manager(&net->rails[i]);
        waiting |= look_at_stuck(&net->rails[i]);
    }
    return waiting;
}

static void collect(struct net_rail *rail)
{
    struct net_device *device = &rail->device_of;
    verbs_port_collect(device->port);
    if (!device->stuck || is_stuck(device->port)) return;
    device->stuck = false;
    RAIL_INFO(RAIL_NET, "device %s has let go of what it held", device->port->name);
    port_up(rail);
}

enum { EVENTS_MAX = 32 }; /* of one visit */

static void fatal(struct net_rail *rail, const char *why)
{
    RAIL_WARN("rail %u (%s): %s", (uint32_t)(rail - rail->net->rails), rail->interface.name, why);
    lanes_dead(rail, why);
}

/* Handshakes move on by what the connection manager tells. */
static void manage(struct net_rail *rail)
{
    char why[VERBS_WHY_BYTES] = "";
    if (rail->device_of.port->manager_fd < 0) return;
    if (verbs_port_manage(rail->device_of.port, why) == VERBS_FATAL) fatal(rail, why);
    net_connect_managed(rail->net, (uint32_t)(rail - rail->net->rails));
}

void net_device_ready(struct net_rail *rail)
{
    struct lane *lane;
    char why[VERBS_WHY_BYTES] = "";
    collect(rail);
    manage(rail);
    for (int i = 0; i < EVENTS_MAX; i++) {
        switch (verbs_port_event(rail->device_of.port, &lane, why)) {
        case VERBS_NO_NEWS: return;
        case VERBS_NOTHING: break;
        case VERBS_FATAL: fatal(rail, why); break;
        case VERBS_PORT_DOWN: lanes_dead(rail, why); break;
        case VERBS_PORT_UP: port_up(rail); break;
        case VERBS_LANE_DEAD: lane_dead(lane, why); break;
        }
    }
}
