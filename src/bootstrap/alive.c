/* alive.c - see alive.h. */
#include "bootstrap/alive.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define PATIENCE_NS (25 * RAIL_NS_PER_MS) /* a refusal takes a round trip */

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

/* The next address of each: one that does not refuse settles it. */
static bool next_address(struct alive_asked *asked, uint32_t at, struct pollfd *poll)
{
    struct sockaddr_storage addresses[BOOTSTRAP_PLACE_ENDPOINTS];
    poll->fd = -1;
    if (at >= addresses_of(asked, addresses)) return false;
    poll->fd = socket_connect(&addresses[at]);
    poll->events = POLLOUT;
    asked->gone = poll->fd < 0 && errno == ECONNREFUSED;
    asked->silent = !asked->gone;
    return poll->fd >= 0;
}

static void collect(struct alive_asked *asked, struct pollfd *polls, uint32_t n)
{
    struct rail_deadline deadline = rail_deadline_in_ns(PATIENCE_NS);
    for (uint32_t pending = n; pending > 0 && !rail_deadline_passed(deadline);) {
        if (poll(polls, n, 5) < 0 && errno != EINTR) break;
        pending = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (polls[i].fd < 0) continue;
            pending += polls[i].revents == 0;
            if (!polls[i].revents) continue;
            int error = socket_error(polls[i].fd);
            asked[i].gone = error == ECONNREFUSED;
            asked[i].silent = error != 0 && !asked[i].gone; /* a router's word that nobody is there */
            socket_close(polls[i].fd);
            polls[i].fd = -1;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        if (polls[i].fd >= 0) socket_close(polls[i].fd);
}

void alive_ask(struct alive_asked *asked, uint32_t n)
{
    struct pollfd polls[ALIVE_AT_ONCE];
    if (n > ALIVE_AT_ONCE) n = ALIVE_AT_ONCE;
    for (uint32_t i = 0; i < n; i++) asked[i].gone = asked[i].silent = false;
    for (uint32_t at = 0; at < BOOTSTRAP_PLACE_ENDPOINTS; at++) {
        bool any = false;
        for (uint32_t i = 0; i < n; i++) {
            polls[i] = (struct pollfd){.fd = -1};
            if (at == 0 || asked[i].gone) any |= next_address(&asked[i], at, &polls[i]);
        }
        if (any) collect(asked, polls, n);
    }
}
