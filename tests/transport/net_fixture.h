/* net_fixture.h - two (or more) networks in one program: each `struct net` is a process as far as lanes can tell. */
#ifndef TEST_NET_FIXTURE_H
#define TEST_NET_FIXTURE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/fault_verbs.h"
#include "transport/link/net_state.h"

/* The same tests over RDMA devices in memory (fault_verbs.h): a program that is to be so defines it before. */
#if !defined(FIXTURE_RDMA)
enum { FIXTURE_DEVICES = 0 };
#define FIXTURE_BEGIN (void)0
#elif defined(RAIL_HAVE_VERBS)
enum { FIXTURE_DEVICES = 1 };
#define FIXTURE_BEGIN fault_verbs_install()
#else
enum { FIXTURE_DEVICES = 1 };
#define FIXTURE_BEGIN return print_message("1..0 # SKIP built without infiniband/verbs.h\n"), 77
#endif

/* Rail r is 127.0.(r+1).1: the whole of 127/8 is local. */
static inline struct net_config fixture_config(uint32_t n_rails, uint32_t sockets_per_rail)
{
    struct net_config c = {.n_rails = n_rails, .chunk_bytes = 131072, .sockets_per_rail = sockets_per_rail,
                           .connect_timeout_ns = 10 * RAIL_NS_PER_S, .knock_timeout_ns = RAIL_NS_PER_S,
                           .alone_timeout_ns = 2 * RAIL_NS_PER_S, .moves_lanes = true, .repairs = true,
                           .writes_direct = true};
    for (uint32_t r = 0; r < n_rails; r++) {
        struct sockaddr_in *in = (void *)&c.rails[r].address.address;
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(0x7f000001u + ((r + 1) << 8));
        c.rails[r].address.bytes = sizeof *in;
        snprintf(c.rails[r].name, sizeof c.rails[r].name, "lo%u", r);
        if (!FIXTURE_DEVICES) continue;
        snprintf(c.rails[r].device, sizeof c.rails[r].device, "fault%u", r);
        c.rails[r].device_port = 1;
    }
    c.verbs = (struct verbs_settings){.gid = {.index = -1, .roce_version = 2}, .timeout = 14, .retries = 7,
                                      .relaxed_ordering = 2, .ece = true};
    return c;
}

static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline void pattern_fill(uint8_t *p, size_t bytes, uint64_t seed)
{
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t v = (seed + i) * 0x9e3779b97f4a7c15ull ^ seed;
        memcpy(p + i, &v, 8);
    }
    for (; i < bytes; i++) p[i] = (uint8_t)(seed * 31 + i);
}

static inline int pattern_differs(const uint8_t *p, size_t bytes, uint64_t seed)
{
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t v = (seed + i) * 0x9e3779b97f4a7c15ull ^ seed;
        if (memcmp(p + i, &v, 8) != 0) return 1;
    }
    for (; i < bytes; i++)
        if (p[i] != (uint8_t)(seed * 31 + i)) return 1;
    return 0;
}

/* Message k of a link: awkward sizes first. */
static inline size_t message_bytes(uint64_t link, uint64_t k, size_t slot_bytes)
{
    static const size_t awkward[] = {0, 1, 8, 511, 512, 513, 4096, 16384, 16385, 32768};
    uint64_t h = mix(link * 1000003 + k);
    if (k < 10) return awkward[k] <= slot_bytes ? awkward[k] : slot_bytes;
    if (k == 10 || h % 7 == 0) return slot_bytes;
    if (h % 3 == 0) return h / 21 % 600 % (slot_bytes + 1);
    return h / 21 % (slot_bytes + 1);
}

static inline struct net *fixture_net(const struct net_config *config, uint64_t comm_key, uint8_t secret_byte)
{
    struct net *net = NULL;
    uint8_t secret[32];
    memset(secret, secret_byte, sizeof secret);
    if (net_create(config, &net) != RAIL_OK || net_comm_add_on(net, comm_key, secret) != RAIL_OK) {
        fprintf(stderr, "fixture_net: %s\n", rail_last_error());
        abort();
    }
    return net;
}

static inline struct net_address fixture_address(struct net *net)
{
    struct net_address a;
    if (net_describe_on(net, &a) != RAIL_OK) {
        fprintf(stderr, "fixture_address: %s\n", rail_last_error());
        abort();
    }
    return a;
}

static inline struct link *fixture_open(struct net *net, const struct net_address *peer, struct net_link_request q)
{
    struct link *link = NULL;
    q.peer = peer;
    if (q.n_slots == 0) q.n_slots = 4;
    if (q.slot_bytes == 0) q.slot_bytes = 262144;
    if (net_link_open_on(net, &q, &link) != RAIL_OK) return NULL;
    return link;
}

#endif
