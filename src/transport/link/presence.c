/* presence.c - are the NICs that this process listens on still there?
 *
 * They are chosen once in a process's life, and communicators are made later, too. A NIC may have been removed, unplugged
 * or renamed by then: before its addresses are told, each is looked for again, by its address. What is gone is not told,
 * so no peer tries it, and our own lanes keep off it; should it come back, later communicators use it again. */
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

/* Why a rail cannot be used; NULL: it can. Whatever carries its address is the NIC, under its present name. */
static const char *trouble(struct net_rail *rail, const struct ifaddrs *all)
{
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!same_address(&rail->interface.address.address, i->ifa_addr)) continue;
        if (strcmp(rail->interface.name, i->ifa_name) != 0 && strlen(i->ifa_name) < sizeof rail->interface.name) {
            RAIL_INFO(RAIL_NET, "NIC %s is called %s now", rail->interface.name, i->ifa_name);
            strcpy(rail->interface.name, i->ifa_name);
        }
        return !(i->ifa_flags & IFF_UP) ? "it is down" : !(i->ifa_flags & IFF_RUNNING) ? "it has no carrier" : NULL;
    }
    return "no interface has its address any more";
}

void net_rail_gone(struct net_rail *rail, const char *why)
{
    if (!rail->gone)
        RAIL_WARN("NIC %s was chosen and is gone: %s; new communicators do without it", rail->interface.name, why);
    rail->gone = true;
}

void net_look_again(struct net *net)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0) return; /* then everything counts as it did */
    for (uint32_t i = 0; i < net->config.n_rails; i++) {
        struct net_rail *rail = &net->rails[i];
        const char *why = trouble(rail, all);
        if (why) {
            net_rail_gone(rail, why);
            continue;
        }
        if (rail->gone) RAIL_INFO(RAIL_NET, "NIC %s is back", rail->interface.name);
        rail->gone = false;
    }
    freeifaddrs(all);
}
