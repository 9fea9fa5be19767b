/* route.c - by which interface the kernel would send, asked over netlink (what `ip route get TO from FROM` shows).
 *
 * Two NICs in one subnet, and NICs whose peers are behind a router, have one thing in common: without a rule per source
 * address the kernel picks the device by the destination alone, and one NIC carries all. A socket that is bound to its
 * device leaves by it whatever the table says. But it also hears only what comes in by it, so this is good only where
 * answers do come back that way: IPv4 neighbours ask by ARP, and Linux answers for all its addresses on every NIC
 * unless arp_ignore says otherwise; a strict rp_filter drops what comes in on a NIC that the table would not answer by. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "topo/machine.h"

struct answer { bool known, local, gateway; unsigned device; };

static const void *raw(const struct sockaddr_storage *a, uint32_t *bytes)
{
    if (a->ss_family == AF_INET) {
        *bytes = 4;
        return &((const struct sockaddr_in *)(const void *)a)->sin_addr;
    }
    *bytes = 16;
    return &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
}

struct question { struct nlmsghdr header; struct rtmsg route; uint8_t attributes[80]; };

static void put(struct question *q, uint16_t type, const void *value, uint32_t bytes)
{
    struct rtattr *a = (void *)((uint8_t *)q + NLMSG_ALIGN(q->header.nlmsg_len));
    a->rta_type = type;
    a->rta_len = (uint16_t)RTA_LENGTH(bytes);
    memcpy(RTA_DATA(a), value, bytes);
    q->header.nlmsg_len = NLMSG_ALIGN(q->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static struct answer read_answer(void *reply, size_t bytes)
{
    struct answer answer = {false, false, false, 0};
    struct nlmsghdr *h = reply;
    if (!NLMSG_OK(h, bytes) || h->nlmsg_type != RTM_NEWROUTE) return answer;
    struct rtmsg *route = NLMSG_DATA(h);
    int left = (int)RTM_PAYLOAD(h);
    for (struct rtattr *a = RTM_RTA(route); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == RTA_OIF && RTA_PAYLOAD(a) == sizeof answer.device)
            memcpy(&answer.device, RTA_DATA(a), sizeof answer.device);
        answer.gateway |= a->rta_type == RTA_GATEWAY;
    }
    answer.local = route->rtm_type == RTN_LOCAL;
    answer.known = answer.device != 0;
    return answer;
}

/* `device` 0: any. */
static struct answer ask(const struct sockaddr_storage *from, const struct sockaddr_storage *to, unsigned device)
{
    struct question q = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof q.route), .nlmsg_type = RTM_GETROUTE,
                                    .nlmsg_flags = NLM_F_REQUEST}};
    struct timeval patience = {.tv_usec = 100000}; /* the kernel answers at once, within the send */
    union { struct nlmsghdr header; uint8_t bytes[2048]; } reply;
    uint32_t bytes;
    const void *source = raw(from, &bytes), *destination = raw(to, &bytes);
    q.route.rtm_family = (uint8_t)to->ss_family;
    q.route.rtm_dst_len = q.route.rtm_src_len = (uint8_t)(8 * bytes);
    put(&q, RTA_DST, destination, bytes);
    put(&q, RTA_SRC, source, bytes);
    if (device) put(&q, RTA_OIF, &device, sizeof device);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) return (struct answer){0};
    ssize_t n = -1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
        send(fd, &q, q.header.nlmsg_len, 0) == (ssize_t)q.header.nlmsg_len)
        n = recv(fd, &reply, sizeof reply, 0);
    close(fd);
    return n > 0 ? read_answer(&reply, (size_t)n) : (struct answer){0};
}

static long setting(const char *device, const char *what)
{
    char path[128], text[16];
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%.15s/%s", device, what);
    FILE *f = fopen(path, "re");
    long value = f && fgets(text, sizeof text, f) ? strtol(text, NULL, 10) : -1;
    if (f) fclose(f);
    return value;
}

/* The kernel takes the larger of "all" and the device's own. */
static long effective(const char *device, const char *what)
{
    long all = setting("all", what), own = setting(device, what);
    return all > own ? all : own;
}

static bool same_network(const struct sockaddr_storage *a, const struct sockaddr_storage *b, uint32_t bits)
{
    uint32_t bytes;
    const uint8_t *x = raw(a, &bytes), *y = raw(b, &bytes);
    for (uint32_t i = 0; i < bits && i < 8 * bytes; i++)
        if ((x[i / 8] ^ y[i / 8]) & 0x80 >> i % 8) return false;
    return bits > 0;
}

enum machine_egress machine_egress(const struct machine_interface *nic, const struct sockaddr_storage *to,
                                   const char **why_out)
{
    unsigned own = if_nametoindex(nic->name);
    *why_out = "";
    if (!own || nic->loopback || nic->address.ss_family != to->ss_family) return MACHINE_EGRESS_UNKNOWN;
    if (to->ss_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)(const void *)to)->sin6_addr))
        return MACHINE_EGRESS_OWN; /* its scope names the device */
    struct answer free = ask(&nic->address, to, 0);
    if (!free.known || free.local) return MACHINE_EGRESS_UNKNOWN;
    if (free.device == own) return MACHINE_EGRESS_OWN;
    if (!same_network(&nic->address, to, nic->prefix_bits)) {
        struct answer bound = ask(&nic->address, to, own);
        *why_out = "there is no route through it";
        if (!bound.known || !bound.gateway || bound.device != own) return MACHINE_EGRESS_NOWHERE;
    }
    if (to->ss_family == AF_INET) {
        *why_out = "arp_ignore is 0, so peers may take another NIC's hardware address for this one's";
        if (effective(nic->name, "arp_ignore") < 1) return MACHINE_EGRESS_STRAYS;
        *why_out = "rp_filter is strict, so what comes in by it is dropped";
        if (effective(nic->name, "rp_filter") == 1) return MACHINE_EGRESS_STRAYS;
    }
    *why_out = "";
    return MACHINE_EGRESS_BIND;
}

static bool bind_device(int fd, const struct machine_interface *nic)
{
    return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, nic->name, (socklen_t)strlen(nic->name)) == 0;
}

bool machine_bind_device(int fd, const struct machine_interface *nic, const struct sockaddr_storage *to)
{
    const char *why;
    return machine_egress(nic, to, &why) == MACHINE_EGRESS_BIND && bind_device(fd, nic);
}

/* An address next to the NIC's own in its subnet, the k-th; false when there is none. */
static bool neighbour(const struct machine_interface *nic, uint32_t k, struct sockaddr_storage *out)
{
    uint32_t bytes, bits = nic->prefix_bits;
    *out = nic->address;
    uint8_t *at = (uint8_t *)(uintptr_t)raw(out, &bytes);
    if (bits == 0 || bits + k >= 8 * bytes) return false;
    at[bytes - 1 - k / 8] ^= (uint8_t)(1 << k % 8);
    return true;
}

enum machine_egress machine_subnet_egress(const struct machine_interface *nic, const char **why_out)
{
    struct sockaddr_storage near;
    *why_out = "";
    for (uint32_t k = 0; k < 8 && neighbour(nic, k, &near); k++) { /* one may be an address of this host's */
        enum machine_egress egress = machine_egress(nic, &near, why_out);
        if (egress != MACHINE_EGRESS_UNKNOWN) return egress;
    }
    return MACHINE_EGRESS_UNKNOWN;
}

bool machine_bind_listener(int fd, const struct machine_interface *nic)
{
    const char *why;
    return machine_subnet_egress(nic, &why) == MACHINE_EGRESS_BIND && bind_device(fd, nic);
}

bool machine_subnet_device(const struct machine_interface *nic, char name_out[16])
{
    struct sockaddr_storage near;
    char name[IF_NAMESIZE];
    for (uint32_t k = 0; k < 8 && neighbour(nic, k, &near); k++) {
        struct answer a = ask(&nic->address, &near, 0);
        if (a.known && !a.local && if_indextoname(a.device, name)) return snprintf(name_out, 16, "%s", name), true;
    }
    return false;
}
