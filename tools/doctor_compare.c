/* doctor_compare.c - what two hosts of one job do not agree on. Ports meet by subnet where both are known, else in
 * order. */
#include <string.h>

#include "doctor.h"

struct pair { const struct doctor_facts *a, *b; struct doctor_findings *out; };

#define SAY(pair_, severity, id, where, remedy, ...) doctor_say((pair_)->out, severity, id, where, remedy, __VA_ARGS__)

static bool is_active(const struct doctor_port *p) { return strcmp(p->state, "ACTIVE") == 0; }

static int32_t active(const struct doctor_facts *f, const struct doctor_port *out[DOCTOR_PORTS_MOST])
{
    int32_t n = 0;
    for (int32_t i = 0; i < f->n_ports; i++)
        if (is_active(&f->ports[i])) out[n++] = &f->ports[i];
    return n;
}

static const char *ways(const struct doctor_facts *f)
{
    return !f->gpus                      ? "no GPU"
           : f->peermem                  ? "nvidia_peermem"
           : f->dmabuf && f->nvidia_open ? "dma-buf"
                                         : "host memory";
}

static const char *families(const struct doctor_port *p)
{
    return p->gids_v4 && p->gids_v6 ? "IPv4 and IPv6"
           : p->gids_v4             ? "IPv4"
           : p->gids_v6             ? "IPv6"
                                    : "no routable address";
}

static void ports(const struct pair *c, const struct doctor_port *x, const struct doctor_port *y)
{
    char where[140];
    snprintf(where, sizeof where, "%.60s:%d and %.60s:%d", x->device, x->number, y->device, y->number);
    if (strcmp(x->layer, y->layer) != 0) {
        SAY(c, DOCTOR_ERROR, "pair-layer", where,
            "name the ports that belong together in NCCL_IB_HCA, in one order on both hosts",
            "one is %s, the other %s: no connection joins them", x->layer, y->layer);
        return;
    }
    if (strcmp(x->layer, "InfiniBand") != 0 && !((x->gids_v4 && y->gids_v4) || (x->gids_v6 && y->gids_v6)))
        SAY(c, DOCTOR_ERROR, "pair-family", where, "give both interfaces an address of one family",
            "no address family in common among RoCE v2 GIDs: %s, and %s", families(x), families(y));
    if (x->subnet[0] && y->subnet[0] && strcmp(x->subnet, y->subnet) != 0)
        SAY(c, DOCTOR_WARNING, "pair-subnet", where, "if they should be one rail: look for swapped cables or addresses",
            "they are in %s and %s: what goes from one to the other is routed, if there is a route", x->subnet,
            y->subnet);
    if (x->mbit_per_s != y->mbit_per_s)
        SAY(c, DOCTOR_WARNING, "pair-rate", where, "check cable and switch port of the slower one", "%g and %g Gbit/s",
            x->mbit_per_s / 1000, y->mbit_per_s / 1000);
    if (x->rdma_mtu != y->rdma_mtu)
        SAY(c, DOCTOR_WARNING, "pair-mtu", where,
            "set one MTU on both interfaces (9000, or 4200 and more) and on the switches between",
            "RDMA packets of %d and %d bytes (interfaces: %d and %d): the smaller is used, and larger frames may be "
            "dropped on the way",
            x->rdma_mtu, y->rdma_mtu, x->mtu, y->mtu);
    if (x->gid_first >= 0 && y->gid_first >= 0 && x->gid_first != y->gid_first)
        SAY(c, DOCTOR_NOTE, "pair-gid-index", where, "leave NCCL_IB_GID_INDEX unset: no one value is right for both",
            "the usable GID is at index %d and at index %d", x->gid_first, y->gid_first);
    if (x->software != y->software)
        SAY(c, DOCTOR_WARNING, "pair-software", where, "name the hardware in NCCL_IB_HCA",
            "one is hardware, the other a software device");
}

/* y's of the same subnet, else the one of the same place. */
static void all_ports(const struct pair *c)
{
    const struct doctor_port *x[DOCTOR_PORTS_MOST], *y[DOCTOR_PORTS_MOST];
    bool met[DOCTOR_PORTS_MOST] = {false};
    int32_t n = active(c->a, x), m = active(c->b, y), at[DOCTOR_PORTS_MOST];
    for (int32_t i = 0; i < n; i++) {
        at[i] = -1;
        for (int32_t k = 0; k < m && at[i] < 0; k++)
            if (!met[k] && x[i]->subnet[0] && strcmp(x[i]->subnet, y[k]->subnet) == 0) met[at[i] = k] = true;
    }
    for (int32_t i = 0; i < n; i++) {
        if (at[i] < 0 && i < m && !met[i]) met[at[i] = i] = true;
        if (at[i] >= 0) ports(c, x[i], y[at[i]]);
    }
    if (n != m)
        SAY(c, DOCTOR_WARNING, "pair-ports", "", "bring the missing ports up, or name those in common in NCCL_IB_HCA",
            "%d active RDMA ports here, %d there: rails without a partner carry nothing between them", n, m);
}

void doctor_compare(const struct doctor_facts *a, const struct doctor_facts *b, struct doctor_findings *out)
{
    struct pair c = {a, b, out};
    if ((a->n_ports == 0) != (b->n_ports == 0))
        SAY(&c, DOCTOR_ERROR, "pair-device", "",
            "`railccl doctor` on that host says what is missing; NCCL_IB_DISABLE=1 on both has them use TCP",
            "%s has no RDMA device, %s has", a->n_ports ? b->host : a->host, a->n_ports ? a->host : b->host);
    else
        all_ports(&c);
    if (strcmp(a->version, b->version) != 0)
        SAY(&c, DOCTOR_WARNING, "pair-version", "", "install one version on all hosts", "railccl %s and %s", a->version,
            b->version);
    if (a->gpus != b->gpus)
        SAY(&c, DOCTOR_WARNING, "pair-gpus", "", "look for a GPU that has fallen off its bus", "%d and %d GPUs",
            a->gpus, b->gpus);
    else if (strcmp(ways(a), ways(b)) != 0)
        SAY(&c, DOCTOR_WARNING, "pair-gpudirect", "", "`railccl doctor` on the slower host says what is missing",
            "GPU memory reaches the NICs by %s and by %s", ways(a), ways(b));
    if (a->memlock != b->memlock)
        SAY(&c, DOCTOR_NOTE, "pair-memlock", "", "one limit on all hosts", "different limits of locked memory");
    if (strcmp(a->kernel, b->kernel) != 0)
        SAY(&c, DOCTOR_NOTE, "pair-kernel", "", "none", "kernels %s and %s", a->kernel, b->kernel);
}
