/* net_run.h - a pair of processes with flows both ways over RDMA devices in memory. */
#ifndef TEST_NET_RUN_H
#define TEST_NET_RUN_H

#include "transport/net_flows.h"
#include "transport/net_pair.h"

#ifdef RAIL_HAVE_VERBS

enum { FLOWS = 4, SLOT = 262144 };

struct run {
    struct pair pair;
    struct flow flows[2][FLOWS];
    struct side sides[2];
};

static inline void run_begin_as(struct run *r, const struct net_config *config)
{
    pair_make(&r->pair, config);
    for (int me = 0; me < 2; me++) {
        for (uint32_t i = 0; i < FLOWS; i++) {
            bool sender = (i % 2 == 0) == (me == 0);
            struct net_link_request q = {.comm_key = KEY, .from = i % 2, .to = 1 - i % 2, .channel = i / 2, .sender = sender};
            r->flows[me][i] = (struct flow){.link = fixture_open(r->pair.net[me], &r->pair.address[!me], q), .name = i,
                                            .sender = sender};
            assert_non_null(r->flows[me][i].link);
        }
        r->sides[me] = (struct side){.net = r->pair.net[me], .flows = r->flows[me], .n_flows = FLOWS};
    }
}

static inline void run_begin(struct run *r, uint32_t n_rails)
{
    struct net_config config = fixture_config(n_rails, 1);
    config.alone_timeout_ns = SECONDS(20);
    run_begin_as(r, &config);
}

static inline void *side_zero(void *argument) { return side_run(argument); }

/* So many more messages on each flow; `meanwhile` runs beside them. */
static inline void run_more(struct run *r, uint64_t messages, void (*meanwhile)(struct run *))
{
    pthread_t threads[2];
    for (int k = 0; k < 2; k++) r->sides[k].messages += messages_of(messages);
    for (int k = 0; k < 2; k++) pthread_create(&threads[k], NULL, side_zero, &r->sides[k]);
    if (meanwhile) meanwhile(r);
    for (int k = 0; k < 2; k++) pthread_join(threads[k], NULL);
    for (int k = 0; k < 2; k++) {
        if (r->sides[k].wrong) print_error("side %d: %s (%s)\n", k, r->sides[k].wrong, rail_last_error());
        assert_null(r->sides[k].wrong);
        assert_int_equal(atomic_load(&r->pair.net[k]->duplicate_chunks), 0);
    }
}

static inline void run_end(struct run *r)
{
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < FLOWS; i++) r->flows[k][i].link->ops->close(r->flows[k][i].link);
    pair_end(&r->pair);
}

static inline uint32_t lanes(struct run *r, int end, bool rdma)
{
    struct net *net = r->pair.net[end];
    uint32_t n = 0;
    pthread_mutex_lock(&net->lock);
    for (uint32_t i = 0; i < net->n_up; i++) n += (net->up[i]->lane.ops == &lane_verbs_ops) == rdma;
    pthread_mutex_unlock(&net->lock);
    return n;
}

static inline bool lanes_become(struct run *r, uint32_t rdma, uint32_t tcp)
{
    struct rail_deadline deadline = rail_deadline_in_ns(SECONDS(20));
    for (;;) {
        bool right = true;
        for (int k = 0; k < 2; k++) right &= lanes(r, k, true) == rdma && lanes(r, k, false) == tcp;
        if (right) return true;
        if (rail_deadline_passed(deadline)) break;
        usleep(2000);
    }
    for (int k = 0; k < 2; k++) print_error("end %d: %u by RDMA, %u by TCP\n", k, lanes(r, k, true), lanes(r, k, false));
    return false;
}

#endif
#endif
