/* interfaces.c - the network interfaces that may carry our traffic, best first.
 *
 * Everything the kernel lists is gathered once, then judged: the user's NCCL_SOCKET_IFNAME decides if there is one,
 * else real interfaces that are up and running. Bridges without a physical port (docker0, virbr0, br-1234) lead nowhere
 * but to this host's containers and are not used unless asked for; loopback only when nothing else is there. */
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/params.h"
#include "topo/machine.h"

struct candidate {
    struct machine_interface interface;
    unsigned index;      /* the kernel's */
    int place;           /* of the item in the user's list that named it */
    bool admitted, virtual_bridge, link_local, has_routable;
};

struct candidates { struct candidate *at; int n, room; };

bool machine_interface_admitted(const char *filter, const char *name, int *place_out)
{
    bool exclude = filter[0] == '^';
    filter += exclude;
    bool exact = filter[0] == '=';
    filter += exact;
    bool listed = false;
    *place_out = 0;
    for (int place = 0; filter[0] != '\0'; place++) {
        size_t item = strcspn(filter, ",");
        const char *end = filter + item;
        while (item > 0 && filter[0] == ' ') filter++, item--;
        while (item > 0 && filter[item - 1] == ' ') item--;
        if (item > 0 && !listed && strncmp(filter, name, item) == 0 && (!exact || name[item] == '\0')) {
            listed = true;
            if (!exclude) *place_out = place;
        }
        filter = *end == ',' ? end + 1 : end;
    }
    return listed != exclude;
}

static bool sys_exists(const char *name, const char *what)
{
    char path[320]; /* a directory entry's name may have 255 bytes */
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", name, what);
    return access(path, F_OK) == 0;
}

/* A bridge none of whose ports is a device. */
static bool is_virtual_bridge(const char *name)
{
    if (strncmp(name, "docker", 6) == 0 || strncmp(name, "br-", 3) == 0 || strncmp(name, "virbr", 5) == 0) return true;
    if (sys_exists(name, "brport") && !sys_exists(name, "device")) return true; /* a veth that hangs on a bridge */
    if (!sys_exists(name, "bridge")) return false;
    char path[128];
    snprintf(path, sizeof path, "/sys/class/net/%s/brif", name);
    DIR *ports = opendir(path);
    bool physical = false;
    for (struct dirent *port; ports && (port = readdir(ports)); )
        if (port->d_name[0] != '.' && sys_exists(port->d_name, "device")) physical = true;
    if (ports) closedir(ports);
    return !physical;
}

/* `speed` or `mtu`; 0: the driver does not know (it says -1, or nothing). */
static uint32_t sys_number(const char *name, const char *what)
{
    char path[320], text[32];
    snprintf(path, sizeof path, "/sys/class/net/%s/%s", name, what);
    FILE *f = fopen(path, "re");
    long value = f && fgets(text, sizeof text, f) ? strtol(text, NULL, 10) : -1;
    if (f) fclose(f);
    return value > 0 && value < UINT32_MAX ? (uint32_t)value : 0;
}

static bool is_link_local(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static struct candidate *find(struct candidates *all, const char *name, int family)
{
    for (int i = 0; i < all->n; i++)
        if (all->at[i].interface.address.ss_family == family && strcmp(all->at[i].interface.name, name) == 0)
            return &all->at[i];
    return NULL;
}

static uint8_t prefix_of(const struct sockaddr *mask)
{
    const uint8_t *at;
    uint8_t bits = 0, bytes = 0;
    if (!mask) return 0;
    if (mask->sa_family == AF_INET)
        at = (const void *)&((const struct sockaddr_in *)(const void *)mask)->sin_addr, bytes = 4;
    else if (mask->sa_family == AF_INET6)
        at = (const void *)&((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr, bytes = 16;
    for (uint8_t i = 0; i < bytes; i++) bits = (uint8_t)(bits + __builtin_popcount(at[i]));
    return bits;
}

/* One address per interface and family: the first, but a global IPv6 address instead of a link-local one. */
static int gather_one(struct candidates *all, const struct ifaddrs *from)
{
    int family = from->ifa_addr ? from->ifa_addr->sa_family : AF_UNSPEC;
    if (family != AF_INET && family != AF_INET6) return 0;
    if (strlen(from->ifa_name) >= sizeof all->at[0].interface.name) return 0; /* IFNAMSIZ is 16 */
    struct candidate *c = find(all, from->ifa_name, family);
    if (c && !(c->link_local && !is_link_local(from->ifa_addr))) return 0;
    if (!c) {
        if (all->n == all->room) {
            int room = all->room ? 2 * all->room : 16;
            void *bigger = realloc(all->at, (size_t)room * sizeof all->at[0]);
            if (!bigger) return -1;
            all->at = bigger;
            all->room = room;
        }
        c = &all->at[all->n++];
    }
    memset(c, 0, sizeof *c);
    strcpy(c->interface.name, from->ifa_name);
    memcpy(&c->interface.address, from->ifa_addr,
           family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    c->interface.prefix_bits = prefix_of(from->ifa_netmask);
    c->interface.loopback = (from->ifa_flags & IFF_LOOPBACK) != 0;
    c->interface.up = (from->ifa_flags & IFF_UP) && (from->ifa_flags & IFF_RUNNING);
    c->link_local = is_link_local(from->ifa_addr);
    c->index = if_nametoindex(from->ifa_name);
    return 0;
}

static int by_merit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->admitted != y->admitted) return x->admitted ? -1 : 1;
    if (x->place != y->place) return x->place < y->place ? -1 : 1;
    if (x->interface.loopback != y->interface.loopback) return x->interface.loopback ? 1 : -1;
    if (x->has_routable != y->has_routable) return x->has_routable ? -1 : 1;
    if (x->interface.mbit_per_s != y->interface.mbit_per_s)
        return x->interface.mbit_per_s > y->interface.mbit_per_s ? -1 : 1;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    return x->interface.address.ss_family == AF_INET ? -1 : 1;
}

static void judge(struct candidates *all, const char *filter, int family)
{
    bool named = filter && filter[0] && filter[0] != '^';
    bool any = false;
    for (int i = 0; i < all->n; i++) {
        struct candidate *c = &all->at[i];
        const char *name = c->interface.name;
        c->admitted = c->interface.up && (family == AF_UNSPEC || c->interface.address.ss_family == family);
        if (filter && filter[0] && !machine_interface_admitted(filter, name, &c->place)) c->admitted = false;
        if (!named && (c->interface.loopback || is_virtual_bridge(name))) c->admitted = false;
        any = any || c->admitted;
    }
    for (int i = 0; i < all->n && !any && !named; i++) { /* nothing else is there: loopback, unless it was excluded */
        struct candidate *c = &all->at[i];
        int place;
        c->admitted = c->interface.loopback && c->interface.up &&
                      (family == AF_UNSPEC || c->interface.address.ss_family == family) &&
                      !(filter && filter[0] && !machine_interface_admitted(filter, c->interface.name, &place));
    }
    for (int i = 0; i < all->n; i++) {
        struct candidate *c = &all->at[i];
        if (!c->admitted) continue;
        c->interface.mbit_per_s = sys_number(c->interface.name, "speed");
        c->interface.mtu = sys_number(c->interface.name, "mtu");
        for (int j = 0; j < all->n; j++)
            if (all->at[j].admitted && all->at[j].index == c->index && !all->at[j].link_local) c->has_routable = true;
    }
    qsort(all->at, (size_t)all->n, sizeof all->at[0], by_merit);
}

static void complain(const struct ifaddrs *list, const char *filter, const char *family)
{
    char there[600] = "";
    size_t used = 0;
    const char *last = "";
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        int kind = i->ifa_addr ? i->ifa_addr->sa_family : AF_UNSPEC;
        char address[INET6_ADDRSTRLEN] = "";
        if (kind == AF_INET)
            inet_ntop(kind, &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr, address,
                      sizeof address);
        else if (kind == AF_INET6)
            inet_ntop(kind, &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr, address,
                      sizeof address);
        else if (strcmp(last, i->ifa_name) == 0)
            continue;
        bool up = (i->ifa_flags & IFF_UP) && (i->ifa_flags & IFF_RUNNING);
        int n = snprintf(there + used, sizeof there - used, "%s%s%s%s%s", used ? ", " : "", i->ifa_name,
                         address[0] ? " " : "", address, up ? "" : " (down)");
        if (n < 0 || used + (size_t)n >= sizeof there) break;
        used += (size_t)n;
        last = i->ifa_name;
    }
    rail_fail(RAIL_E_SYSTEM,
              "network interfaces: NCCL_SOCKET_IFNAME=%s%s%s and NCCL_SOCKET_FAMILY=%s admit none that is "
              "up; this host has: %s. Name one of these, or unset the variable", filter ? "\"" : "",
              filter ? filter : "(unset)", filter ? "\"" : "", family ? family : "(unset)", there[0] ? there : "none");
}

static int family_wanted(const char *text)
{
    if (!text || !text[0]) return AF_UNSPEC;
    if (strcmp(text, "AF_INET") == 0) return AF_INET;
    if (strcmp(text, "AF_INET6") == 0) return AF_INET6;
    return -1;
}

int machine_interfaces(struct machine_interface *out, int max)
{
    const char *filter = rail_param_str(RAIL_PARAM_NCCL_SOCKET_IFNAME);
    const char *family_text = rail_param_str(RAIL_PARAM_NCCL_SOCKET_FAMILY);
    int family = family_wanted(family_text), n = 0;
    if (family < 0) {
        rail_fail(RAIL_E_ARGUMENT, "NCCL_SOCKET_FAMILY=\"%s\": must be AF_INET or AF_INET6", family_text);
        return 0;
    }
    struct ifaddrs *list = NULL;
    struct candidates all = {0};
    if (getifaddrs(&list) != 0) {
        rail_fail(RAIL_E_SYSTEM, "getifaddrs(): %s; cannot list the network interfaces", strerror(errno));
        return 0;
    }
    for (const struct ifaddrs *i = list; i; i = i->ifa_next)
        if (gather_one(&all, i) != 0) goto no_memory;
    if (all.n > 0) judge(&all, filter, family);
    while (n < all.n && all.at[n].admitted) {
        if (n < max) out[n] = all.at[n].interface;
        n++;
    }
    if (n == 0) complain(list, filter, family_text);
    goto done;
no_memory:
    rail_fail(RAIL_E_SYSTEM, "machine_interfaces(): out of memory after %d addresses", all.n);
done:
    free(all.at);
    freeifaddrs(list);
    return n;
}
