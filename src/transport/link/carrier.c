/* carrier.c - NICs that go are heard of at once: cable out, switched off, removed, without their address.
 *
 *   kernel --(netlink: link, address)--> about a NIC of ours, and new? --> presence.c looks --> back, renamed,
 *                                                                                  or gone: its lanes are dead
 *
 * What a message says is only taken as a reason to look: it may be stale, some may be lost (ENOBUFS), and only what is
 * so now matters. So nothing in it can do harm. Without the socket (a sandbox may forbid it) lanes are found dead by
 * silence. While a lane has work its NIC is also asked, every 25 ms (suspect.c). */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/link/net_state.h"

/* Of one visit: on a host whose containers come and go others must have their turn. */
enum { MESSAGES_MAX = 32, MESSAGE_BYTES = 16384 };

/* ---- is it about us? ---- */

static bool is_address_of(const struct net_rail *rail, const void *raw, size_t bytes)
{
    const struct sockaddr_storage *a = &rail->interface.address.address;
    if (a->ss_family == AF_INET) return bytes == 4 && memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
        raw, 4) == 0;
    return bytes == 16 && memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, raw, 16) == 0;
}

/* The name in a message about a link; "" when there is none. */
static void name_of(struct nlmsghdr *h, char out[IFNAMSIZ])
{
    struct ifinfomsg *link = NLMSG_DATA(h);
    int left = (int)IFLA_PAYLOAD(h);
    out[0] = '\0';
    for (struct rtattr *a = IFLA_RTA(link); RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == IFLA_IFNAME && RTA_PAYLOAD(a) > 0 && RTA_PAYLOAD(a) <= IFNAMSIZ) {
            memcpy(out, RTA_DATA(a), RTA_PAYLOAD(a));
            out[RTA_PAYLOAD(a) - 1] = '\0';
        }
}

/* A NIC that is as we know it is not looked at: drivers tell of much that is nothing to us. */
static bool link_is_news(const struct net *net, struct nlmsghdr *h)
{
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg))) return false;
    const struct ifinfomsg *link = NLMSG_DATA(h);
    char name[IFNAMSIZ];
    name_of(h, name);
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        const struct net_rail *rail = &net->rails[i];
        if (rail->device == 0 || link->ifi_index != (int)rail->device) continue;
        bool usable = h->nlmsg_type == RTM_NEWLINK && !net_flags_trouble(link->ifi_flags);
        if (usable == rail->gone || (name[0] && strcmp(name, rail->interface.name) != 0)) return true;
    }
    return false;
}

static bool address_is_news(const struct net *net, struct nlmsghdr *h)
{
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifaddrmsg))) return false;
    struct ifaddrmsg *address = NLMSG_DATA(h);
    int left = (int)IFA_PAYLOAD(h);
    for (struct rtattr *a = IFA_RTA(address); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type != IFA_LOCAL && a->rta_type != IFA_ADDRESS) continue;
        for (uint32_t i = 0; i < net->config.n_rails; i++)
            if (is_address_of(&net->rails[i], RTA_DATA(a), RTA_PAYLOAD(a))) return true;
    }
    return false;
}

static bool is_news(const struct net *net, void *messages, size_t bytes)
{
    size_t left = bytes;
    for (struct nlmsghdr *h = messages; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
        if (h->nlmsg_type == RTM_NEWLINK || h->nlmsg_type == RTM_DELLINK) {
            if (link_is_news(net, h)) return true;
        } else if (h->nlmsg_type == RTM_NEWADDR || h->nlmsg_type == RTM_DELADDR) {
            if (address_is_news(net, h)) return true;
        }
    }
    return false;
}

/* ---- hearing of it ---- */

/* RAIL_OK: a message, *news says whether it matters. RAIL_NOT_YET: there is none. */
static enum rail_result hear(struct net *net, bool *news)
{
    union { struct nlmsghdr header; uint8_t bytes[MESSAGE_BYTES]; } message;
    struct sockaddr_nl from = {0};
    struct iovec v = {&message, sizeof message};
    struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v, .msg_iovlen = 1};
    ssize_t n = recvmsg(net->carrier.fd, &m, MSG_DONTWAIT);
    *news = false;
    if (n < 0 && errno == EINTR) return RAIL_OK;
    if (n < 0 && errno == ENOBUFS) { /* some were lost */
        *news = true;
        return RAIL_OK;
    }
    if (n <= 0) return errno == EAGAIN ? RAIL_NOT_YET : RAIL_E_SYSTEM;
    if (m.msg_namelen != sizeof from || from.nl_family != AF_NETLINK || from.nl_pid != 0)
        return RAIL_OK; /* not the kernel */
    *news = (m.msg_flags & MSG_TRUNC) != 0 || is_news(net, &message, (size_t)n);
    return RAIL_OK;
}

void net_carrier_ready(struct net *net)
{
    bool look = false, news;
    enum rail_result r = RAIL_OK;
    for (int i = 0; i < MESSAGES_MAX && net->carrier.fd >= 0; i++) {
        r = hear(net, &news);
        look |= news;
        if (r != RAIL_OK) break;
    }
    if (r == RAIL_E_SYSTEM) {
        RAIL_INFO(RAIL_NET, "the kernel tells no more of NICs: %s; dead lanes are found by silence", strerror(errno));
        net_carrier_close(net);
        look = true;
    }
    if (look) net_look_again(net);
}

void net_carrier_lost(struct net_rail *rail, const char *why)
{
    struct net *net = rail->net;
    char text[NET_WHY_BYTES];
    if (!net->config.repairs) return;
    for (struct net_peer *p = net->peers; p; p = p->next)
        for (uint32_t i = 0; i < p->n_lanes; i++) {
            struct net_lane *lane = p->lanes[i];
            if (!lane || lane->state != NET_LANE_UP || &net->rails[lane->rail] != rail) continue;
            snprintf(text, sizeof text, "%.140s: NIC %s is gone: %s", lane->lane.text, rail->interface.name, why);
            peer_lane_ended(lane, RAIL_E_REMOTE, text);
        }
}

/* The kernel tells of carriers once a second at most, and of one that goes not at once. A driver knows. */
static bool has_carrier(const struct net_rail *rail, int fd)
{
    struct ethtool_value value = {.cmd = ETHTOOL_GLINK};
    struct ifreq request = {.ifr_data = (void *)&value};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", rail->interface.name);
    return ioctl(fd, SIOCETHTOOL, &request) != 0 || value.data != 0;
}

void net_carrier_ask(struct net_rail *rail, int fd)
{
    struct ifreq request = {0};
    if (rail->gone || has_carrier(rail, fd)) return;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", rail->interface.name);
    bool down = ioctl(fd, SIOCGIFFLAGS, &request) == 0 && !(request.ifr_flags & IFF_UP); /* by hand: say so */
    net_rail_gone(rail, down ? "it is down" : "it has no carrier");
}

/* ---- beginning and end ---- */

static int kernel_socket(void)
{
    struct sockaddr_nl groups = {.nl_family = AF_NETLINK,
        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&groups, sizeof groups) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

void net_carrier_open(struct net *net)
{
    if (!net->config.repairs || net->carrier_tried) return;
    net->carrier_tried = true;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &net->carrier.watch};
    net->carrier.fd = kernel_socket();
    if (net->carrier.fd < 0 || epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, net->carrier.fd, &event) != 0) {
        RAIL_INFO(RAIL_NET, "the kernel does not tell of NICs here: %s; dead lanes are found by silence",
            strerror(errno));
        net_carrier_close(net);
        return;
    }
    net_look_again(net); /* what is told from here on is compared with it */
}

void net_carrier_close(struct net *net)
{
    if (net->carrier.fd >= 0) close(net->carrier.fd);
    net->carrier.fd = -1;
}
