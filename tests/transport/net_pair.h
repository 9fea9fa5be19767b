/* net_pair.h - two networks in one program that talk to one another: index 0 connects. */
#ifndef TEST_NET_PAIR_H
#define TEST_NET_PAIR_H

#include <sched.h>

#include "transport/net_fixture.h"

#include <cmocka.h>

enum { KEY = 77 };
#define SECONDS(n) ((n) * RAIL_NS_PER_S)

struct pair {
    struct net *net[2];
    struct net_address address[2];
};

static inline void pair_make(struct pair *p, const struct net_config *config)
{
    for (int i = 0; i < 2; i++) p->net[i] = fixture_net(config, KEY, 1);
    if (memcmp(p->net[0]->process, p->net[1]->process, NET_PROCESS_ID_BYTES) > 0) {
        struct net *first = p->net[0];
        p->net[0] = p->net[1];
        p->net[1] = first;
    }
    for (int i = 0; i < 2; i++) p->address[i] = fixture_address(p->net[i]);
}

static inline void pair_end(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        net_comm_remove_on(p->net[i], KEY);
        net_destroy(p->net[i]);
    }
}

static inline struct link *open_end(struct pair *p, int end, uint32_t channel, bool sender)
{
    struct net_link_request q = {.comm_key = KEY, .from = 0, .to = 1, .channel = channel, .sender = sender};
    return fixture_open(p->net[end], &p->address[!end], q);
}

static inline void drive(struct pair *p)
{
    for (int i = 0; i < 2; i++) net_progress_on(p->net[i]);
    sched_yield();
}

static inline bool is_ready(struct link *out)
{
    void *slot;
    return out->ops->acquire(out, &slot) == RAIL_OK;
}

static inline bool drive_until_ready(struct pair *p, struct link *out)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(10));
    while (!is_ready(out) && !rail_deadline_passed(deadline)) drive(p);
    return is_ready(out);
}

/* Sockets that are up at one end. */
static inline uint32_t sockets_up(struct net *net)
{
    pthread_mutex_lock(&net->lock);
    uint32_t n = net->n_up;
    pthread_mutex_unlock(&net->lock);
    return n;
}

/* A process that proved the secret: says HELLO, and returns its socket when it was let in. */
static inline int hello(struct pair *p, struct frame_hello h)
{
    uint8_t secret[32];
    memset(secret, 1, sizeof secret);
    struct handshake_address from = fixture_config(1, 1).rails[0].address, to = from;
    ((struct sockaddr_in *)(void *)&to.address)->sin_port = htons(p->address[1].rails[0].port);
    h.version = FRAME_VERSION;
    memcpy(h.to, p->net[1]->process, sizeof h.to);
    struct handshake shake;
    assert_int_equal(handshake_connect(&shake, &from, &to, NULL, secret, &h), RAIL_OK);
    enum rail_result r = RAIL_NOT_YET;
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(5));
    while (r == RAIL_NOT_YET && !rail_deadline_passed(deadline)) {
        net_progress_on(p->net[1]);
        r = handshake_step(&shake);
    }
    if (r == RAIL_OK) return shake.fd;
    handshake_close(&shake);
    return -1;
}

#endif
