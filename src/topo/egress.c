/* egress.c - one question over netlink. Two NICs in one subnet need a rule and a table per source address: without them the
 * kernel looks at the destination alone, and sends everything for the subnet out of one of the two. */
#include "topo/egress.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct question {
    struct nlmsghdr header;
    struct rtmsg route;
    struct { struct rtattr head; uint32_t address; } to, from;
};

/* The outgoing device's index; 0: none, or the address is this host's own. */
static unsigned read_answer(void *reply, size_t bytes)
{
    struct nlmsghdr *h = reply;
    unsigned device = 0;
    if (!NLMSG_OK(h, bytes) || h->nlmsg_type != RTM_NEWROUTE) return 0;
    struct rtmsg *route = NLMSG_DATA(h);
    int left = (int)RTM_PAYLOAD(h);
    for (struct rtattr *a = RTM_RTA(route); RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == RTA_OIF && RTA_PAYLOAD(a) == sizeof device) memcpy(&device, RTA_DATA(a), sizeof device);
    return route->rtm_type == RTN_LOCAL ? 0 : device;
}

static unsigned ask(uint32_t from, uint32_t to)
{
    struct question q = {
        .header = {.nlmsg_len = sizeof q, .nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
        .route = {.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_src_len = 32},
        .to = {{RTA_LENGTH(4), RTA_DST}, to},
        .from = {{RTA_LENGTH(4), RTA_SRC}, from},
    };
    union { struct nlmsghdr header; uint8_t bytes[2048]; } reply;
    struct timeval patience = {.tv_usec = 100000}; /* the kernel answers within the send */
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    ssize_t n = -1;
    if (fd < 0) return 0;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 && send(fd, &q, sizeof q, 0) == sizeof q)
        n = recv(fd, &reply, sizeof reply, 0);
    close(fd);
    return n > 0 ? read_answer(&reply, (size_t)n) : 0;
}

bool egress_of(const char *cidr, char interface_out[16])
{
    char address[INET_ADDRSTRLEN], name[IF_NAMESIZE];
    const char *slash = strchr(cidr, '/');
    uint32_t from;
    if (!slash || (size_t)(slash - cidr) >= sizeof address) return false;
    snprintf(address, sizeof address, "%.*s", (int)(slash - cidr), cidr);
    int bits = atoi(slash + 1);
    if (inet_pton(AF_INET, address, &from) != 1 || bits < 1 || bits > 30) return false;
    for (uint32_t k = 1; k < 4; k++) { /* some of these may be ours as well */
        unsigned device = ask(from, from ^ htonl(k));
        if (device && if_indextoname(device, name)) return snprintf(interface_out, 16, "%s", name), true;
    }
    return false;
}
