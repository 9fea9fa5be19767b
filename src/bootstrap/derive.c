/* derive.c - joining the tree of a communicator that is made of another: no root, no unique id.
 *
 * Everybody knows the members, hence the tree, where everybody's reception is (told when the old communicator was made),
 * and the new secret. So joining begins where bootstrap_open is half-way: let the children in, dial the parent. Who is
 * early is refused by its parent's reception, and tries again until the deadline. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "bootstrap/state.h"

/* The parent's addresses as this rank sees them: loopback means itself on another host. Unless there is nothing else:
 * hosts may be pretended. */
static uint32_t endpoints_of(const struct bootstrap_parent *parent, struct endpoint out[BOOTSTRAP_PLACE_ENDPOINTS])
{
    uint32_t n = 0;
    for (int pass = 0; pass < 2 && n == 0; pass++)
        for (uint32_t i = 0; i < parent->place->n_endpoints && i < BOOTSTRAP_PLACE_ENDPOINTS; i++) {
            const struct endpoint *e = &parent->place->endpoints[i];
            if (endpoint_valid(e) && (parent->same_host || pass == 1 || !endpoint_is_loopback(e))) out[n++] = *e;
        }
    return n;
}

static void start(struct bootstrap *b, const struct bootstrap_parent *parent)
{
    struct endpoint endpoints[BOOTSTRAP_PLACE_ENDPOINTS];
    b->phase = PHASE_JOINING_TREE;
    if (b->rank != 0) {
        b->peers[PARENT].person = (struct wire_person){.rank = tree_parent(b->rank), .pid = parent->pid};
        snprintf(b->peers[PARENT].person.host, WIRE_HOST_BYTES, "%s", parent->host);
        join_dial_parent(b, endpoints, endpoints_of(parent, endpoints));
    }
    join_check(b);
}

enum rail_result bootstrap_open_derived(const struct bootstrap_config *config,
                                        const uint8_t secret[BOOTSTRAP_SECRET_BYTES],
                                        const struct bootstrap_parent *parent, struct bootstrap **out)
{
    struct bootstrap *b = NULL;
    RAIL_TRY(bootstrap_create(config, &b));
    memcpy(b->secret, secret, BOOTSTRAP_SECRET_BYTES);
    join_tree_keys(b);
    pthread_mutex_lock(&b->lock);
    start(b, parent);
    enum rail_result result = join_wait(b, RAIL_OK);
    pthread_mutex_unlock(&b->lock);
    if (result != RAIL_OK) {
        bootstrap_close(b);
        return result;
    }
    RAIL_INFO(RAIL_BOOTSTRAP, "bootstrap: rank %u of %u joined a derived tree in %.3f s", b->rank, b->n_ranks,
              (double)(rail_now_ns() - b->opened_ns) / 1e9);
    *out = b;
    return RAIL_OK;
}

void bootstrap_refresh(struct bootstrap *b, const void *fresh, size_t bytes)
{
    uint8_t secret[BOOTSTRAP_SECRET_BYTES];
    auth_mac(b->secret, fresh, bytes, secret);
    memcpy(b->secret, secret, sizeof secret);
}
