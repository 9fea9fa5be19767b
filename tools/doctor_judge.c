/* doctor_judge.c - what is wrong with RDMA ports, and what to do about it. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

void doctor_say(struct doctor_findings *list, enum doctor_severity severity, const char *id, const char *where,
                const char *remedy, const char *format, ...)
{
    if (list->n == DOCTOR_FINDINGS_MOST) {
        list->left_out++;
        return;
    }
    struct doctor_finding *f = &list->at[list->n++];
    va_list arguments;
    *f = (struct doctor_finding){.severity = severity, .id = id};
    snprintf(f->where, sizeof f->where, "%s", where);
    snprintf(f->remedy, sizeof f->remedy, "%s", remedy);
    va_start(arguments, format);
    vsnprintf(f->text, sizeof f->text, format, arguments);
    va_end(arguments);
}

const char *doctor_severity_name(enum doctor_severity severity)
{
    static const char *const names[] = {"error", "warning", "note"};
    return names[severity];
}

static int by_severity(const void *a, const void *b)
{
    const struct doctor_finding *x = a, *y = b;
    return (int)x->severity - (int)y->severity;
}

/* glibc's qsort keeps the order of equals for lists of this size: it merges. */
void doctor_sort(struct doctor_findings *findings)
{
    qsort(findings->at, (size_t)findings->n, sizeof findings->at[0], by_severity);
}

int doctor_status(const struct doctor_facts *facts, const struct doctor_findings *findings)
{
    int status = DOCTOR_FINE;
    for (int32_t i = 0; i < findings->n; i++) {
        if (findings->at[i].severity == DOCTOR_ERROR) status = DOCTOR_WRONG;
        if (findings->at[i].severity == DOCTOR_WARNING && status == DOCTOR_FINE) status = DOCTOR_WARNED;
    }
    return facts && facts->n_ports == 0 ? DOCTOR_NO_DEVICE : status;
}

/* ---- one port ---- */

struct look {
    const struct doctor_facts *facts;
    const struct doctor_port *port;
    struct doctor_findings *out;
    char where[100];
};

#define SAY(l, severity, id, remedy, ...) doctor_say((l)->out, severity, id, (l)->where, remedy, __VA_ARGS__)

static bool is_active(const struct doctor_port *p) { return strcmp(p->state, "ACTIVE") == 0; }
static bool is_roce(const struct doctor_port *p) { return strcmp(p->layer, "InfiniBand") != 0; }

static void link_state(const struct look *l)
{
    const struct doctor_port *p = l->port;
    char remedy[200];
    if (is_active(p)) return;
    if (strcmp(p->state, "INIT") == 0 || strcmp(p->state, "ARMED") == 0) {
        SAY(l, DOCTOR_ERROR, "port-no-subnet-manager",
            "start a subnet manager (opensm) or look at the one of this fabric",
            "the link is up, but the port waits for a subnet manager (state %s)", p->state);
        return;
    }
    snprintf(remedy, sizeof remedy, "check cable and switch port; `ip link set %s up`",
             p->netdev[0] ? p->netdev : "INTERFACE");
    SAY(l, DOCTOR_ERROR, "port-down", is_roce(p) ? remedy : "check cable and switch port",
        "the port is down (state %s, %s): it will carry nothing", p->state[0] ? p->state : "unknown",
        p->physical[0] ? p->physical : "physical state unknown");
}

static void gids(const struct look *l)
{
    const struct doctor_port *p = l->port;
    char remedy[200];
    const char *interface = p->netdev[0] ? p->netdev : "INTERFACE";
    snprintf(remedy, sizeof remedy, "give its interface an address: `ip addr add ADDRESS/24 dev %s`, and set it up",
             interface);
    if (p->gids == 0)
        SAY(l, DOCTOR_ERROR, "gid-none", is_roce(p) ? remedy : "look at the subnet manager",
            "the GID table is empty: no connection can be made");
    else if (is_roce(p) && p->gids_v2 == 0)
        SAY(l, DOCTOR_ERROR, "gid-v1-only",
            "switch RoCE v2 on: `cma_roce_mode -d DEVICE -p PORT -m 2`, or the firmware's setting",
            "its %d GIDs are RoCE v1: switches do not route them, and railccl uses v2", p->gids);
    else if (is_roce(p) && p->gids_v4 + p->gids_v6 == 0)
        SAY(l, DOCTOR_ERROR, "gid-unroutable", remedy,
            "the GID table is half filled: %d RoCE v2 GIDs, all link-local, none with an address of %s", p->gids_v2,
            interface);
    else if (is_roce(p) && p->subnet[0] && p->gids_v4 == 0)
        SAY(l, DOCTOR_WARNING, "gid-no-ipv4", "set the interface down and up; if that does not help, reload the driver",
            "the GID table is half filled: %s reaches %s, but no RoCE v2 GID has an IPv4 address", interface,
            p->subnet);
    if (p->gid_hole >= 0)
        SAY(l, DOCTOR_NOTE, "gid-hole", "leave NCCL_IB_GID_INDEX unset: railccl chooses by type and address",
            "the GID table has a gap at index %d: an address was taken away, and indices differ from host to host",
            p->gid_hole);
}

static void mtu(const struct look *l)
{
    const struct doctor_port *p = l->port;
    char remedy[200];
    if (!is_roce(p) || p->rdma_mtu <= 0 || p->rdma_mtu == 4096) return;
    snprintf(remedy, sizeof remedy,
             "`ip link set %s mtu 9000` (4200 are enough), on the switches and on all hosts alike", p->netdev);
    SAY(l, DOCTOR_WARNING, "mtu-small", remedy,
        "%s has an MTU of %d bytes, so RDMA packets carry %d where 4096 are possible", p->netdev, p->mtu, p->rdma_mtu);
}

static void device_file(const struct look *l)
{
    const struct doctor_port *p = l->port;
    char remedy[300];
    if (!p->verbs[0]) {
        if (l->facts->uverbs)
            SAY(l, DOCTOR_ERROR, "verbs-none", "reload the device's driver",
                "the kernel offers it to no program: it has no uverbs device");
        return;
    }
    if (!p->verbs_there) {
        snprintf(remedy, sizeof remedy, "in a container: start it with --device=/dev/infiniband/%s; else look at udev",
                 p->verbs);
        SAY(l, DOCTOR_ERROR, "dev-missing", remedy, "/dev/infiniband/%s is not there", p->verbs);
        return;
    }
    snprintf(remedy, sizeof remedy,
             "`chmod 666 /dev/infiniband/%s`, and for good a udev rule: KERNEL==\"uverbs*\", MODE=\"0666\"", p->verbs);
    if (!p->verbs_open)
        SAY(l, DOCTOR_ERROR, "dev-permission", remedy, "this user may not open /dev/infiniband/%s", p->verbs);
    else if (!p->verbs_for_all)
        SAY(l, DOCTOR_WARNING, "dev-permission", remedy, "only its owner and group may open /dev/infiniband/%s",
            p->verbs);
}

static void place(const struct look *l)
{
    const struct doctor_port *p = l->port;
    if (p->software) return;
    if (l->facts->numa_nodes > 1 && p->numa < 0)
        SAY(l, DOCTOR_NOTE, "numa-unknown", "update the firmware (BIOS), or write a topology file: NCCL_TOPO_FILE",
            "the machine has %d NUMA nodes and does not tell which one the device is on", l->facts->numa_nodes);
    if (!p->numa_allowed)
        SAY(l, DOCTOR_WARNING, "numa-far",
            "let the job use CPUs of every NUMA node that has NICs (taskset, numactl, the container's cpuset)",
            "it is on NUMA node %d, of whose CPUs this process may use none", p->numa);
    if (strncmp(p->iommu, "DMA", 3) == 0)
        SAY(l, DOCTOR_WARNING, "iommu", "add iommu=pt to the kernel's command line",
            "the IOMMU translates its addresses (group type %s%s%s): slower, and GPUDirect may fail", p->iommu,
            l->facts->iommu_line[0] ? ", " : "", l->facts->iommu_line);
    if (l->facts->gpus && p->acs[0])
        SAY(l, DOCTOR_WARNING, "acs",
            "switch ACS off in the firmware (BIOS), or `setpci -s BRIDGE ECAP_ACS+6.w=0000` after each boot",
            "the PCI bridge %s above it sends what goes to a GPU up to the CPU (ACS): GPUDirect loses most of its rate",
            p->acs);
    else if (l->facts->gpus && !p->acs_seen)
        SAY(l, DOCTOR_NOTE, "acs-unseen", "run as root",
            "whether bridges above it redirect (ACS) cannot be read by this user");
}

static void counters(const struct look *l)
{
    const struct doctor_port *p = l->port;
    if (p->symbol_errors)
        SAY(l, DOCTOR_WARNING, "symbol-errors", "clean or replace the cable", "%lld symbol errors",
            (long long)p->symbol_errors);
    if (p->downs)
        SAY(l, DOCTOR_NOTE, "link-downs", "none, if they are old; else check the cable",
            "the link went down %lld times since the driver was loaded", (long long)p->downs);
    if (p->gave_up)
        SAY(l, DOCTOR_NOTE, "gave-up", "none, if they are old; else look for a route that is cut: ping every peer from this port",
            "%lld requests were given up after all retries", (long long)p->gave_up);
    if (p->no_receive)
        SAY(l, DOCTOR_NOTE, "no-receive", "if it grows while a job of railccl's runs: report it, its lanes count receives",
            "%lld messages found no receive posted", (long long)p->no_receive);
    if (p->congestion)
        SAY(l, DOCTOR_NOTE, "congestion",
            "none, if a few: ECN does its work; else look for rails that cross (`railccl topo`), or for another job's traffic",
            "%lld notices of congestion were sent or heeded", (long long)p->congestion);
    if (p->resent || p->out_of_order)
        SAY(l, DOCTOR_NOTE, "resent",
            "if it grows while a job runs: check PFC or ECN on switches and NICs (lossless class, DSCP as in "
            "NCCL_IB_TC)",
            "%lld packets came out of order or were sent again", (long long)(p->resent + p->out_of_order));
}

/* ---- ports with one another ---- */

static const struct doctor_port *first_active(const struct doctor_facts *facts)
{
    for (int32_t i = 0; i < facts->n_ports; i++)
        if (is_active(&facts->ports[i])) return &facts->ports[i];
    return NULL;
}

static void differing(const struct doctor_facts *facts, struct doctor_findings *out)
{
    const struct doctor_port *first = first_active(facts);
    bool rate = false, size = false, layer = false;
    for (int32_t i = 0; first && i < facts->n_ports; i++) {
        const struct doctor_port *p = &facts->ports[i];
        char where[150];
        snprintf(where, sizeof where, "%s and %s", first->device, p->device);
        if (!is_active(p)) continue;
        if (!layer && strcmp(p->layer, first->layer) != 0)
            layer = true,
            doctor_say(out, DOCTOR_NOTE, "layer-differs", where, "name those that form the rails in NCCL_IB_HCA",
                       "one is %s, the other %s: no connection joins them", first->layer, p->layer);
        if (!rate && is_roce(p) == is_roce(first) && p->mbit_per_s != first->mbit_per_s)
            rate = true, doctor_say(out, DOCTOR_WARNING, "rate-differs", where,
                                    "check cable and switch port of the slower one; name the fast ones in NCCL_IB_HCA "
                                    "if it is no rail",
                                    "%g and %g Gbit/s", first->mbit_per_s / 1000, p->mbit_per_s / 1000);
        if (!size && is_roce(p) && is_roce(first) && p->mtu != first->mtu)
            size = true,
            doctor_say(out, DOCTOR_WARNING, "mtu-differs", where, "set one MTU on all rails, hosts and switches",
                       "their interfaces' MTU is %d and %d bytes", first->mtu, p->mtu);
    }
}

static void software(const struct doctor_facts *facts, struct doctor_findings *out)
{
    int32_t n = 0;
    const char *first = "";
    for (int32_t i = 0; i < facts->n_ports; i++)
        if (facts->ports[i].software && n++ == 0) first = facts->ports[i].device;
    if (n)
        doctor_say(out, DOCTOR_NOTE, "software-device", first, "none: fine for tests",
                   "%d of %d ports are a program's, of a software device: right results, no speed", n, facts->n_ports);
}

void doctor_judge_ports(const struct doctor_facts *facts, struct doctor_findings *out)
{
    for (int32_t i = 0; i < facts->n_ports; i++) {
        struct look l = {facts, &facts->ports[i], out, ""};
        snprintf(l.where, sizeof l.where, "%s:%d", l.port->device, l.port->number);
        link_state(&l);
        if (is_active(l.port)) gids(&l), mtu(&l);
        device_file(&l);
        place(&l);
        counters(&l);
    }
    differing(facts, out);
    software(facts, out);
    if (facts->ports_left_out)
        doctor_say(out, DOCTOR_NOTE, "ports-left-out", "", "none", "%d more ports were not looked at",
                   facts->ports_left_out);
}
