/* wires.c - opens links by topology: shared memory inside the node, lanes to other nodes. */
#include "core/wires.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "plan/collective.h"
#include "transport/shm/shm_link.h"

/* My doorbell wakes me whatever transport the news came by. */
static void wake_node(void *owner)
{
    const struct host_node *node = owner;
    shm_notify(&node->segment, node->self);
}

static enum rail_result open_shm(struct wires *w, uint32_t from, uint32_t to, uint32_t channel, struct link **out)
{
    const struct shm_link_request request = {
        .segment = &w->node->segment,
        .from = from,
        .to = to,
        .from_peer = w->shape->peer_of[from],
        .to_peer = w->shape->peer_of[to],
        .channel = channel,
        .sender = from == w->rank,
    };
    return shm_link_open(&request, out);
}

/* On rails every rank of a node sends to the next one, each on the rail nearest to it. Along the ring over all ranks one rank
 * of a node does, on every channel: channels share the rails. A tree's channels do not load a node alike (it is inside one
 * tree and outside the other), so theirs are dealt out chunk by chunk to whichever rail is free, as are links of pairs. */
static void choose_home(const struct wires *w, uint32_t channel, enum plan_algorithm algorithm, struct net_link_request *r)
{
    if (w->n_common == 0 || channel >= LINK_CHANNEL_PAIRS) return;
    channel %= HOST_MAX_CHANNELS; /* both ways of one */
    if (algorithm == PLAN_RAILS) r->home = w->common[rails_home(w->shape, r->from, channel) % w->n_common];
    r->home_when_busy = algorithm == PLAN_RING;
    if (r->home_when_busy) r->home = w->common[channel % w->n_common];
}

static enum rail_result open_net(struct wires *w, uint32_t from, uint32_t to, uint32_t channel,
                                 enum plan_algorithm algorithm, struct link **out)
{
    uint32_t far = from == w->rank ? to : from;
    struct net_link_request request = {
        .comm_key = w->comm_key,
        .from = from,
        .to = to,
        .channel = channel,
        .sender = from == w->rank,
        .n_slots = w->net_slots,
        .slot_bytes = w->net_slot_bytes,
        .peer = &w->addresses[far],
        .self = &w->addresses[w->rank],
        .wake = wake_node,
        .owner = (void *)(uintptr_t)w->node,
    };
    choose_home(w, channel, algorithm, &request);
    enum rail_result result = net_link_open(&request, out);
    if (result != RAIL_E_REMOTE) return result;
    char why[400]; /* it knows its lanes, not whom they lead to: as the engine's broken() */
    snprintf(why, sizeof why, "%s", rail_own_error());
    rail_fail_quietly(result, "link %u -> %u: the connection to rank %u is lost: %s", from, to, far, why);
    return rail_blame((int)far, result);
}

static struct link *find(const struct wires *w, uint32_t from, uint32_t to, uint32_t channel)
{
    for (uint32_t i = 0; i < w->n_links; i++) {
        struct link *l = w->links[i];
        if (l->from == from && l->to == to && l->channel == channel) return l;
    }
    return NULL;
}

static enum rail_result keep(struct wires *w, struct link *link)
{
    if (w->n_links == w->capacity) {
        uint32_t capacity = w->capacity ? 2 * w->capacity : 16;
        struct link **more = realloc(w->links, capacity * sizeof(struct link *));
        if (!more) {
            link->ops->close(link);
            return rail_fail(RAIL_E_SYSTEM, "links of rank %u: out of memory", w->rank);
        }
        w->links = more;
        w->capacity = capacity;
    }
    w->links[w->n_links++] = link;
    return RAIL_OK;
}

/* A link that plans of several algorithms use keeps the home rail that it was opened with. */
static enum rail_result link_of(struct wires *w, const struct plan_link *named, uint32_t channel,
                                enum plan_algorithm algorithm, struct link **out)
{
    uint32_t from = named->direction == PLAN_LINK_OUT ? w->rank : named->peer;
    uint32_t to = named->direction == PLAN_LINK_OUT ? named->peer : w->rank;
    channel += named->way * HOST_MAX_CHANNELS; /* to transports, a link back is one of another channel */
    *out = find(w, from, to, channel);
    if (*out) return RAIL_OK;
    bool near = w->shape->node_of[from] == w->shape->node_of[to];
    RAIL_TRY(near ? open_shm(w, from, to, channel, out) : open_net(w, from, to, channel, algorithm, out));
    RAIL_INFO(RAIL_GRAPH, "link %u -> %u, channel %u: %s, %u slots of %zu bytes", from, to, channel, (*out)->ops->name,
              (*out)->n_slots, (*out)->slot_bytes);
    return keep(w, *out);
}

enum rail_result wires_pair(struct wires *w, uint32_t peer, enum plan_direction direction, uint32_t channel,
                            struct link **out)
{
    return link_of(w, &(struct plan_link){.peer = peer, .direction = (uint16_t)direction}, channel, PLAN_PAIRWISE, out);
}

static bool write(const struct wires *w, enum plan_collective collective, enum plan_algorithm algorithm, uint32_t root,
                  uint32_t channel, struct plan *out)
{
    bool ordered = w->in_rank_order && collective_kind(collective).reduces;
    return (ordered ? plan_write_in_rank_order : plan_write)(collective, algorithm, w->shape, w->rank, channel, root, out);
}

static enum rail_result instance_make(struct wires *w, enum plan_collective collective, enum plan_algorithm algorithm,
                                      uint32_t root, uint32_t channel, struct instance **out)
{
    struct instance *instance = calloc(1, sizeof *instance);
    if (!instance) return rail_fail(RAIL_E_SYSTEM, "plan of rank %u: out of memory", w->rank);
    enum rail_result result = RAIL_OK;
    if (!write(w, collective, algorithm, root, channel, &instance->plan))
        result = rail_fail(RAIL_E_INTERNAL, "%s by %s does not fit %u ranks on %u nodes", collective_name(collective),
                           plan_algorithm_names[algorithm], w->shape->n_ranks, w->shape->n_nodes);
    for (uint32_t l = 0; result == RAIL_OK && l < instance->plan.n_links; l++)
        result = link_of(w, &instance->plan.links[l], channel, algorithm, &instance->links[l]);
    if (result != RAIL_OK) {
        free(instance);
        return result;
    }
    *out = instance;
    return RAIL_OK;
}

static uint32_t roots_of(const struct wires *w, uint32_t collective)
{
    return collective_kind(collective).rooted ? w->shape->n_ranks : 1;
}

static enum rail_result set_make(struct wires *w, enum plan_collective collective, enum plan_algorithm algorithm,
                                 uint32_t root)
{
    struct instance_set ***sets = &w->sets[collective][algorithm];
    if (!*sets) *sets = calloc(roots_of(w, collective), sizeof **sets);
    if (*sets && !(*sets)[root]) (*sets)[root] = calloc(1, sizeof *(*sets)[root]);
    if (*sets && (*sets)[root]) return RAIL_OK;
    return rail_fail(RAIL_E_SYSTEM, "plans of rank %u: out of memory", w->rank);
}

enum rail_result wires_instances(struct wires *w, enum plan_collective collective, uint32_t root,
                                 const struct choice *choice, struct instance *const **out)
{
    struct instance_set **sets = w->sets[collective][choice->algorithm];
    if (__builtin_expect(!sets || !sets[root], 0)) {
        RAIL_TRY(set_make(w, collective, choice->algorithm, root));
        sets = w->sets[collective][choice->algorithm];
    }
    struct instance **instances = sets[root]->instances;
    for (uint32_t c = 0; c < choice->n_channels; c++)
        if (__builtin_expect(!instances[c], 0))
            RAIL_TRY(instance_make(w, collective, choice->algorithm, root, c, &instances[c]));
    *out = instances;
    return RAIL_OK;
}

static void sets_free(struct instance_set **sets, uint32_t n)
{
    for (uint32_t root = 0; sets && root < n; root++) {
        for (int c = 0; sets[root] && c < HOST_MAX_CHANNELS; c++) free(sets[root]->instances[c]);
        free(sets[root]);
    }
    free(sets);
}

bool wires_drained(const struct wires *w)
{
    for (uint32_t i = 0; i < w->n_links; i++) {
        struct link *l = w->links[i];
        if (l->from == w->rank && !l->ops->drained(l)) return false;
    }
    return true;
}

void wires_recall(const struct wires *w)
{
    uint64_t began_ns = 0;
    for (uint32_t i = 0; i < w->n_links; i++) {
        struct link *l = w->links[i];
        if (l->from != w->rank || !l->ops->lending) continue;
        if (!began_ns) began_ns = rail_now_ns();
        l->ops->lending->recall(l, began_ns);
    }
}

size_t wires_bytes(const struct wires *w)
{
    size_t bytes = w->capacity * sizeof *w->links;
    for (uint32_t k = 0; k < PLAN_COLLECTIVES; k++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            for (uint32_t root = 0; w->sets[k][a] && root < roots_of(w, k); root++) {
                const struct instance_set *set = w->sets[k][a][root];
                bytes += sizeof set + (set ? sizeof *set : 0);
                for (int c = 0; set && c < HOST_MAX_CHANNELS; c++) bytes += set->instances[c] ? sizeof(struct instance) : 0;
            }
    return bytes;
}

void wires_clear(struct wires *w)
{
    for (uint32_t i = 0; i < w->n_links; i++) w->links[i]->ops->close(w->links[i]);
    free(w->links);
    for (uint32_t k = 0; k < PLAN_COLLECTIVES; k++)
        for (int a = 0; a < PLAN_ALGORITHMS; a++)
            if (w->sets[k][a]) sets_free(w->sets[k][a], roots_of(w, k));
    memset(w, 0, sizeof *w);
}
