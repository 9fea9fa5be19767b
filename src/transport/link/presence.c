/* presence.c - are the NICs that this process listens on still there?
 *
 * They are chosen once in a process's life, and communicators are made later, too. A NIC may have been removed,
 * unplugged or renamed by then: before its addresses are told, and whenever the kernel says that something has changed
 * (carrier.c), each is looked for again, by its address. What is gone is not told, so no peer tries it, and our own
 * lanes keep off it; should it come back, later communicators use it again. */
#include "transport/link/net_state.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

#include "base/log.h"

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr *b)
{
    if (!b || a->ss_family != b->sa_family) return false;
    if (b->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
    return b->sa_family == AF_INET6 && IN6_ARE_ADDR_EQUAL(&x->sin6_addr, &y->sin6_addr) &&
           (!IN6_IS_ADDR_LINKLOCAL(&x->sin6_addr) || x->sin6_scope_id == y->sin6_scope_id);
}

const char *net_flags_trouble(unsigned flags)
{
    return !(flags & IFF_UP) ? "it is down" : !(flags & IFF_RUNNING) ? "it has no carrier" : NULL;
}

/* All of 127/8 is local, whatever addresses lo has been given, and ::1 as well. */
static bool is_loopback(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static const char *without_address(struct net_rail *rail)
{
    char name[IF_NAMESIZE];
    if (is_loopback(&rail->interface.address.address)) return NULL;
    if (rail->device == 0) return "no interface has its address any more";
    if (if_indextoname(rail->device, name)) return "it has lost its address";
    return "it was removed";
}

/* Why a rail cannot be used; NULL: it can. Whatever carries its address is the NIC, under its present name. */
static const char *trouble(struct net_rail *rail, const struct ifaddrs *all)
{
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!same_address(&rail->interface.address.address, i->ifa_addr)) continue;
        if (strcmp(rail->interface.name, i->ifa_name) != 0 && strlen(i->ifa_name) < sizeof rail->interface.name) {
            RAIL_INFO(RAIL_NET, "NIC %s is called %s now", rail->interface.name, i->ifa_name);
            strcpy(rail->interface.name, i->ifa_name);
        }
        rail->device = if_nametoindex(i->ifa_name);
        return net_flags_trouble(i->ifa_flags);
    }
    return without_address(rail);
}

void net_rail_gone(struct net_rail *rail, const char *why)
{
    if (rail->gone) return;
    RAIL_WARN("NIC %s was chosen and is gone: %s; new communicators do without it", rail->interface.name, why);
    rail->gone = true;
    net_carrier_lost(rail, why);
}

static void is_back(struct net *net, uint32_t i)
{
    struct net_rail *rail = &net->rails[i];
    if (!rail->gone) return;
    RAIL_INFO(RAIL_NET, "NIC %s is back", rail->interface.name);
    rail->gone = false;
    mend_nic_back(net, i);
}

void net_look_again(struct net *net)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0) return; /* then everything counts as it did */
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        struct net_rail *rail = &net->rails[i];
        const char *why = trouble(rail, all);
        if (why)
            net_rail_gone(rail, why);
        else
            is_back(net, i);
    }
    freeifaddrs(all);
}
