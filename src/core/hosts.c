/* hosts.c - the lowest and the highest value of each rail over all nodes, by who has them. */
#include "core/hosts.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"

enum { RAILS_MAX = 4 * NET_MAX_RAILS };

struct end { uint32_t value, node, nic; };
struct span { uint64_t key; struct end low, high; };
struct spans { struct span at[RAILS_MAX]; uint32_t n; };

static uint32_t leader_of(const struct comm *comm, uint32_t node)
{
    return comm->shape.order[comm->shape.node_start[node]];
}

static void see(struct span *s, uint32_t value, uint32_t node, uint32_t nic)
{
    struct end end = {value, node, nic};
    if (value == 0) return; /* unknown */
    if (s->low.value == 0 || value < s->low.value) s->low = end;
    if (value > s->high.value) s->high = end;
}

/* Equal keys are one rail; of NICs whose rail is unknown the k-th is taken to be beside the k-th, as lanes do. */
static struct span *span_of(struct spans *all, const struct net_address *a, uint32_t nic)
{
    uint64_t key = a->rails[nic].rail;
    uint32_t unknown = 0;
    for (uint32_t k = 0; k < nic; k++) unknown += a->rails[k].rail == 0;
    if (key == 0) key = UINT64_MAX - unknown;
    for (uint32_t i = 0; i < all->n; i++)
        if (all->at[i].key == key) return &all->at[i];
    if (all->n == RAILS_MAX) return NULL;
    all->at[all->n].key = key;
    return &all->at[all->n++];
}

static uint32_t value_of(const struct net_rail_address *nic, enum hosts_difference kind)
{
    return kind == HOSTS_MTU ? nic->mtu : nic->mbit_per_s;
}

static int end_text(const struct comm *comm, const struct end *end, enum hosts_difference kind, char *out, size_t bytes)
{
    static const char *const unit[] = {"NICs", "bytes", "Mbit/s"};
    uint32_t rank = leader_of(comm, end->node);
    const char *host = comm->members[rank].host_name;
    if (kind == HOSTS_NICS) return snprintf(out, bytes, "node %u (host %s) has %u", end->node, host, end->value);
    return snprintf(out, bytes, "%.15s of node %u (host %s) has %u %s", comm->addresses[rank].rails[end->nic].name,
                    end->node, host, end->value, unit[kind]);
}

static const char *say(const struct comm *comm, const struct span *s, enum hosts_difference kind, uint32_t more, char *text,
                       size_t bytes)
{
    static const char *const what[] = {"hosts have different numbers of NICs", "one rail with different MTUs",
                                       "one rail with different rates"};
    static const char *const remedy[] = {"name the same with NCCL_SOCKET_IFNAME, or look for what is down",
                                         "set them alike (ip link set ... mtu)", "the slower one holds up all others"};
    char low[160], high[160], others[48] = "";
    end_text(comm, &s->high, kind, high, sizeof high);
    end_text(comm, &s->low, kind, low, sizeof low);
    if (more) snprintf(others, sizeof others, " (and on %u more)", more);
    snprintf(text, bytes, "%s: %s, %s%s; %s", what[kind], high, low, others, remedy[kind]);
    return text;
}

const char *hosts_difference_text(const struct comm *comm, enum hosts_difference kind, char *text, size_t bytes)
{
    struct spans all = {.n = 0};
    const struct span *first = NULL;
    uint32_t differ = 0;
    text[0] = '\0';
    for (uint32_t node = 0; node < comm->shape.n_nodes; node++) {
        const struct net_address *a = &comm->addresses[leader_of(comm, node)];
        if (kind == HOSTS_NICS) {
            all.n = 1;
            see(&all.at[0], a->n_rails, node, 0);
            continue;
        }
        for (uint32_t i = 0; i < a->n_rails; i++) {
            struct span *s = span_of(&all, a, i);
            if (s) see(s, value_of(&a->rails[i], kind), node, i);
        }
    }
    for (uint32_t i = 0; i < all.n; i++) {
        if (all.at[i].low.value == all.at[i].high.value) continue;
        if (!first) first = &all.at[i];
        differ++;
    }
    return first ? say(comm, first, kind, differ - 1, text, bytes) : text;
}

void hosts_compare(const struct comm *comm)
{
    char text[600];
    if (comm->rank != 0 || comm->shape.n_nodes < 2) return;
    for (int kind = 0; kind < HOSTS_DIFFERENCES; kind++)
        if (hosts_difference_text(comm, (enum hosts_difference)kind, text, sizeof text)[0])
            RAIL_WARN("rails: %s", text);
}
