/* home.c - the nearest NICs of every place of a machine, and ranks dealt out to them (dealing.h). */
#include "topo/home.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "topo/dealing.h"
#include "topo/sysfs.h"

_Static_assert(sizeof(struct home_place) == 8 && sizeof(struct home_view) == 264, "they travel");

/* --- where a rank's data lies ------------------------------------------------------------------------------------- */

enum { CPUS_MAX = 8192 }; /* CONFIG_NR_CPUS of what distributions build */

struct nodes_seen { const cpu_set_t *mask; size_t bytes; uint32_t n, numa; };

/* "0-3,8,10-11": whether the mask has any of these. */
static bool meets(const char *list, const cpu_set_t *mask, size_t bytes)
{
    while (*list) {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        if (end == list) return false;
        if (*end == '-') last = strtoul(end + 1, &end, 10);
        for (unsigned long cpu = first; cpu <= last && cpu < CPUS_MAX; cpu++)
            if (CPU_ISSET_S(cpu, bytes, mask)) return true;
        list = *end == ',' ? end + 1 : end;
        if (*end != ',') break;
    }
    return false;
}

static enum rail_result see_node(struct sysfs *s, const char *folder, const char *name, void *context)
{
    struct nodes_seen *seen = context;
    char path[SYSFS_PATH], list[4096];
    if (strncmp(name, "node", 4) != 0 || name[4] < '0' || name[4] > '9') return RAIL_OK;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!sysfs_read(s, list, sizeof list, path, "cpulist") || !meets(list, seen->mask, seen->bytes)) return RAIL_OK;
    if (seen->n++ == 0) seen->numa = (uint32_t)strtoul(name + 4, NULL, 10);
    return RAIL_OK;
}

struct home_place home_here(const char *root)
{
    struct home_place place = {.kind = HOME_ANYWHERE};
    struct sysfs s = {.root = root};
    cpu_set_t *mask = CPU_ALLOC(CPUS_MAX);
    struct nodes_seen seen = {mask, CPU_ALLOC_SIZE(CPUS_MAX), 0, 0};
    if (mask && sched_getaffinity(0, seen.bytes, mask) == 0) {
        (void)sysfs_each(&s, "/sys/devices/system/node", see_node, &seen);
        /* Where the kernel shows no NUMA nodes discovery assumes number 0. */
        if (seen.n == 1 || !sysfs_exists(&s, "/sys/devices/system/node", NULL))
            place = (struct home_place){.kind = HOME_NUMA, .id = seen.numa};
    }
    if (mask) CPU_FREE(mask);
    return place;
}

/* Domain, bus, device and function in 32 bits: domains beyond 16 bits are those of virtual buses below a CPU's. */
struct home_place home_gpu(uint64_t bus)
{
    uint32_t id = (uint32_t)(bus >> 24 & 0xffff) << 16 | (uint32_t)(bus >> 16 & 0xff) << 8 |
                  (uint32_t)(bus >> 8 & 0x1f) << 3 | (uint32_t)(bus & 7);
    return (struct home_place){.kind = HOME_GPU, .id = id};
}

static enum rail_result see_lower(struct sysfs *s, const char *folder, const char *name, void *context)
{
    uint64_t *bus = context, route[SYSFS_MOST_BRIDGES];
    char path[SYSFS_PATH];
    if (strncmp(name, "lower_", 6) != 0 || *bus != TOPO_NO_BUS) return RAIL_OK;
    snprintf(path, sizeof path, "%s/%s/device", folder, name);
    int n = sysfs_exists(s, path, NULL) ? sysfs_pci_route(s, path, route, NULL, SYSFS_MOST_BRIDGES) : 0;
    if (n > 0) *bus = route[n - 1];
    return RAIL_OK;
}

uint64_t home_bus_of(const char *root, const char *interface)
{
    struct sysfs s = {.root = root};
    uint64_t route[SYSFS_MOST_BRIDGES], bus = TOPO_NO_BUS;
    char folder[SYSFS_PATH], path[SYSFS_PATH];
    snprintf(folder, sizeof folder, "/sys/class/net/%.15s", interface);
    snprintf(path, sizeof path, "/sys/class/net/%.15s/device", interface);
    int n = sysfs_exists(&s, path, NULL) ? sysfs_pci_route(&s, path, route, NULL, SYSFS_MOST_BRIDGES) : 0;
    if (n > 0) return route[n - 1];
    (void)sysfs_each(&s, folder, see_lower, &bus);
    return bus;
}

/* --- what a machine says ------------------------------------------------------------------------------------------ */

/* A port that sysfs found without a PCI device hangs on the first CPU for want of a better place: that says nothing. */
static bool has_place(const struct topo_graph *graph, uint32_t net)
{
    const struct topo_node *nic = &graph->nodes[graph->nodes[net].parent];
    return nic->bus != TOPO_NO_BUS || nic->origin.how == TOPO_FILE;
}

static uint32_t port_of(const struct topo_graph *graph, const char *name, uint64_t bus)
{
    uint32_t by_bus = TOPO_NONE;
    for (uint32_t i = 0; i < graph->n_nodes; i++) {
        const struct topo_node *n = &graph->nodes[i];
        if (n->kind != TOPO_NET || n->host != 0 || !has_place(graph, i)) continue;
        if (strcmp(n->net.netdev, name) == 0 || strcmp(n->name, name) == 0) return i;
        if (bus != TOPO_NO_BUS && n->bus == bus && by_bus == TOPO_NONE) by_bus = i;
    }
    return by_bus;
}

/* From a NUMA node's memory every way leads through its host bridge, whatever the link is called. */
static struct topo_path seen_from(const struct topo_graph *graph, uint32_t from, struct topo_path path)
{
    if (graph->nodes[from].kind == TOPO_CPU && path.class < PATH_PHB) path.class = PATH_PHB;
    return path;
}

static struct home_near nearest(const struct topo_graph *graph, uint32_t from, const struct topo_path *paths,
                                const uint32_t *ports, uint32_t n)
{
    struct home_near near = {.class = PATH_DIS};
    for (uint32_t i = 0; i < n; i++) {
        if (ports[i] == TOPO_NONE) continue;
        struct topo_path path = seen_from(graph, from, paths[ports[i]]);
        bool best = path.class < PATH_NET;
        for (uint32_t k = 0; k < n && best; k++) {
            if (ports[k] == TOPO_NONE) continue;
            struct topo_path other = seen_from(graph, from, paths[ports[k]]);
            best = !topo_path_nearer(&other, &path);
        }
        if (best) near.nics = (uint16_t)(near.nics | 1u << i), near.class = (uint8_t)path.class;
    }
    return near;
}

static void add_place(const struct topo_graph *graph, uint32_t from, struct home_near near, struct home_view *view)
{
    const struct topo_node *node = &graph->nodes[from];
    struct home_place place = node->kind == TOPO_GPU ? home_gpu(node->bus)
                                                     : (struct home_place){.kind = HOME_NUMA, .id = node->number};
    if (node->kind == TOPO_CPU && node->cpu.numa >= 0) place.id = (uint32_t)node->cpu.numa;
    near.kind = place.kind;
    near.id = place.id;
    view->at[view->n_places++] = near;
}

static enum rail_result look_from(const struct topo_graph *graph, enum topo_kind kind, const uint32_t *ports,
                                  struct topo_path *paths, struct home_view *view)
{
    for (uint32_t i = 0; i < graph->n_nodes && view->n_places < HOME_PLACES_MAX; i++) {
        if (graph->nodes[i].kind != kind || graph->nodes[i].host != 0) continue;
        if (kind == TOPO_GPU && graph->nodes[i].bus == TOPO_NO_BUS) continue;
        RAIL_TRY(topo_paths_from(graph, i, paths));
        add_place(graph, i, nearest(graph, i, paths, ports, view->n_nics), view);
    }
    return RAIL_OK;
}

enum rail_result home_look(const struct topo_graph *graph, uint32_t n, const char names[][HOME_NAME_BYTES],
                           const uint64_t *buses, struct home_view *out)
{
    struct home_view view = {.sight = HOME_NO_PLACES, .n_nics = (uint8_t)(n < HOME_NICS_MAX ? n : HOME_NICS_MAX),
                             .flat = graph->flat};
    uint32_t ports[HOME_NICS_MAX];
    for (uint32_t i = 0; i < view.n_nics; i++) {
        ports[i] = port_of(graph, names[i], buses[i]);
        if (ports[i] != TOPO_NONE) view.placed = (uint16_t)(view.placed | 1u << i), view.sight = HOME_SEEN;
    }
    struct topo_path *paths = calloc(graph->n_nodes + 1, sizeof *paths);
    if (!paths) return rail_fail(RAIL_E_SYSTEM, "out of memory for the ways to %u NICs", n);
    enum rail_result result = look_from(graph, TOPO_CPU, ports, paths, &view);
    if (result == RAIL_OK) result = look_from(graph, TOPO_GPU, ports, paths, &view);
    free(paths);
    if (result == RAIL_OK) *out = view;
    return result;
}

/* --- dealing out -------------------------------------------------------------------------------------------------- */

static const struct home_near *find(const struct home_view *view, struct home_place place)
{
    for (uint32_t i = 0; i < view->n_places && i < HOME_PLACES_MAX; i++)
        if (view->at[i].kind == place.kind && view->at[i].id == place.id) return &view->at[i];
    return NULL;
}

static uint32_t nics_of(const struct home_view *view)
{
    return view->n_nics < HOME_NICS_MAX ? view->n_nics : HOME_NICS_MAX;
}

/* The k-th set bit. */
static uint32_t kth(uint32_t bits, uint32_t k)
{
    for (; k > 0; k--) bits &= bits - 1;
    return bits ? (uint32_t)__builtin_ctz(bits) : 0;
}

static void in_turn(uint32_t usable, uint32_t n, struct home *out)
{
    uint32_t nics = (uint32_t)__builtin_popcount(usable);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (struct home){.nic = (uint8_t)(nics ? kth(usable, i % nics) : 0), .why = HOME_IN_TURN,
                               .as_near = (uint8_t)nics, .sharing = 1};
}

/* Which NICs a rank may call home, and why. */
static uint32_t choices(const struct home_view *view, uint32_t known, struct home_place place, struct home *home)
{
    const struct home_near *near = place.kind == HOME_ANYWHERE ? NULL : find(view, place);
    uint32_t nics = near ? near->nics & known : 0;
    *home = (struct home){.why = place.kind == HOME_ANYWHERE ? HOME_FLOATS : HOME_UNKNOWN};
    if (nics) *home = (struct home){.why = HOME_NEAREST, .class = near->class < PATH_NET ? near->class : PATH_SYS};
    else nics = known;
    home->as_near = (uint8_t)__builtin_popcount(nics);
    return nics;
}

enum rail_result home_deal(const struct home_view *view, uint16_t usable, uint32_t n, const struct home_place *places,
                           struct home *out)
{
    uint32_t n_nics = nics_of(view), load[HOME_NICS_MAX] = {0}, all = (1u << n_nics) - 1;
    if ((usable & all) == 0) usable = 0xffff;
    uint32_t known = view->placed & usable & all;
    if (view->sight != HOME_SEEN || known == 0) return in_turn(usable & all, n, out), RAIL_OK;
    bool *near = calloc((size_t)n * n_nics + 1, sizeof *near);
    uint32_t *port_of_rank = calloc(n + 1u, sizeof *port_of_rank);
    enum rail_result result = near && port_of_rank ? RAIL_OK
                                                   : rail_fail(RAIL_E_SYSTEM, "home NICs of %u ranks: out of memory", n);
    for (uint32_t i = 0; i < n && result == RAIL_OK; i++) {
        uint32_t nics = choices(view, known, places[i], &out[i]);
        for (uint32_t k = 0; k < n_nics; k++) near[(size_t)i * n_nics + k] = nics >> k & 1;
    }
    const struct dealing dealing = {n, n_nics, near, port_of_rank, load};
    if (result == RAIL_OK) result = dealing_run(&dealing);
    for (uint32_t i = 0; i < n && result == RAIL_OK; i++) {
        out[i].nic = (uint8_t)port_of_rank[i];
        out[i].sharing = load[port_of_rank[i]];
    }
    free(near);
    free(port_of_rank);
    return result;
}

/* --- words -------------------------------------------------------------------------------------------------------- */

const char *home_place_text(struct home_place place, char text[48])
{
    char bus[24];
    uint64_t id = place.id;
    if (place.kind == HOME_NUMA) snprintf(text, 48, "NUMA node %u", place.id);
    else if (place.kind != HOME_GPU) snprintf(text, 48, "any NUMA node");
    else {
        id = (id >> 16) << 24 | (id >> 8 & 0xff) << 16 | (id >> 3 & 0x1f) << 8 | (id & 7); /* home_gpu()'s inverse */
        snprintf(text, 48, "GPU %s", topo_bus_text(id, bus));
    }
    return text;
}

const char *home_why_text(const struct home_view *view, const struct home *home, char text[128])
{
    int n = 0;
    switch ((enum home_why)home->why) {
    case HOME_NEAREST: n = snprintf(text, 128, "%s", topo_class_name((enum topo_class)home->class)); break;
    case HOME_FLOATS: n = snprintf(text, 128, "no NIC is nearer to a rank that may run on several NUMA nodes"); break;
    case HOME_UNKNOWN:
        n = snprintf(text, 128, "its NUMA node or GPU is not described, or its nearest NICs have no partner");
        break;
    case HOME_IN_TURN:
        n = snprintf(text, 128, "in turn, as %s", view->sight == HOME_NOT_LOOKED ? "the machine was not looked at"
                                                  : "its NICs have no PCI device (veth, tunnel, container)");
        break;
    }
    if (home->why == HOME_NEAREST && home->as_near > 1 && n < 128)
        n += snprintf(text + n, 128 - (size_t)n, ", one of %u as near", home->as_near);
    if (home->sharing > 1 && n < 128) snprintf(text + n, 128 - (size_t)n, ", shared by %u ranks", home->sharing);
    return text;
}
