/* alive.c - see alive.h. */
#include "bootstrap/alive.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "bootstrap/reception.h"

#define PATIENCE_NS (25 * RAIL_NS_PER_MS) /* a refusal takes a round trip, an answer two */

/* The addresses that can prove something from here, as in derive.c: loopback means itself on another host, unless there
 * is nothing else. A link-local address would need an interface, and proves nothing. */
static uint32_t addresses_of(const struct alive_asked *asked, struct sockaddr_storage out[BOOTSTRAP_PLACE_ENDPOINTS])
{
    uint32_t n = 0;
    for (int pass = 0; pass < 2 && n == 0; pass++)
        for (uint32_t i = 0; i < asked->place->n_endpoints && i < BOOTSTRAP_PLACE_ENDPOINTS; i++) {
            const struct endpoint *e = &asked->place->endpoints[i];
            if (!endpoint_valid(e) || endpoint_is_link_local(e)) continue;
            if (asked->same_host || pass == 1 || !endpoint_is_loopback(e)) endpoint_to(e, 0, 0, &out[n++]);
        }
    return n;
}

/* A call under way. */
struct call {
    struct auth auth;
    bool connected;
};

/* The next address of each: one that neither refuses nor is another's settles it. */
static bool next_address(struct alive_asked *asked, uint32_t at, struct call *call, struct pollfd *poll)
{
    struct sockaddr_storage addresses[BOOTSTRAP_PLACE_ENDPOINTS];
    uint8_t key[AUTH_KEY_BYTES];
    poll->fd = -1;
    if (at >= addresses_of(asked, addresses)) return false;
    poll->fd = socket_connect(&addresses[at]);
    poll->events = POLLOUT;
    asked->gone = poll->fd < 0 && errno == ECONNREFUSED;
    asked->silent = !asked->gone;
    if (poll->fd < 0) return false;
    bootstrap_place_key(asked->place, key);
    auth_start(&call->auth, &(struct auth_config){.role = AUTH_CONNECTER, .purpose = "tree", .key = key});
    call->connected = false;
    return true;
}

/* True when it is settled. */
static bool hear(struct alive_asked *asked, struct call *call, struct pollfd *poll)
{
    if (!call->connected) {
        int error = socket_error(poll->fd);
        asked->gone = error == ECONNREFUSED;
        asked->silent = error != 0 && !asked->gone; /* a router's word that nobody is there */
        if (error != 0) return true;
        call->connected = true;
        poll->events = POLLIN;
    }
    enum rail_result result = auth_pump(&call->auth, poll->fd);
    asked->gone = result == RAIL_E_REMOTE; /* another process's */
    return result != RAIL_NOT_YET;
}

static void hang_up(struct call *call, struct pollfd *poll)
{
    if (poll->fd < 0) return;
    auth_wipe(&call->auth);
    socket_close(poll->fd);
    poll->fd = -1;
}

static void collect(struct alive_asked *asked, struct call *calls, struct pollfd *polls, uint32_t n)
{
    struct rail_deadline deadline = rail_deadline_in_ns(PATIENCE_NS);
    for (uint32_t pending = n; pending > 0 && !rail_deadline_passed(deadline);) {
        if (poll(polls, n, 5) < 0 && errno != EINTR) break;
        pending = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (polls[i].fd < 0) continue;
            if (polls[i].revents && hear(&asked[i], &calls[i], &polls[i])) hang_up(&calls[i], &polls[i]);
            pending += polls[i].fd >= 0;
        }
    }
    for (uint32_t i = 0; i < n; i++) hang_up(&calls[i], &polls[i]);
}

void alive_ask(struct alive_asked *asked, uint32_t n)
{
    struct pollfd polls[ALIVE_AT_ONCE];
    if (n > ALIVE_AT_ONCE) n = ALIVE_AT_ONCE;
    struct call *calls = calloc(n, sizeof *calls); /* 30 KiB: not for the caller's stack */
    for (uint32_t i = 0; i < n; i++) {
        asked[i].gone = false;
        asked[i].silent = !calls;
    }
    for (uint32_t at = 0; calls && at < BOOTSTRAP_PLACE_ENDPOINTS; at++) {
        bool any = false;
        for (uint32_t i = 0; i < n; i++) {
            polls[i] = (struct pollfd){.fd = -1};
            if (at == 0 || asked[i].gone) any |= next_address(&asked[i], at, &calls[i], &polls[i]);
        }
        if (any) collect(asked, calls, polls, n);
    }
    free(calls);
}
