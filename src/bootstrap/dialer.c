/* dialer.c - see dialer.h.
 *
 *   attempt --connect--> connecting --writable--> handshake --proven--> owner
 *      ^                     |                        |
 *      +---- next target <---+------ failed, late ----+       after the last target: pause, next round */
#include "bootstrap/dialer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/clock.h"

/* Patience with one of several addresses; doubles each round. A refused or unreachable address fails at once, so this
 * is for addresses that swallow packets; 2 s lets one lost packet be sent again (1 s). */
#define ATTEMPT_NS (2 * RAIL_NS_PER_S)
enum { ATTEMPT_DOUBLINGS = 4, PAUSE_FIRST_MS = 1, PAUSE_LAST_MS = 256 };

static void note_failure(struct dialer *d, const char *why)
{
    char target[ENDPOINT_TEXT_BYTES];
    dialer_target(d, target);
    size_t used = strlen(d->building);
    snprintf(d->building + used, sizeof d->building - used, "%s%s: %s", used ? "; " : "", target, why);
}

/* Closes what is under way. */
static void hang_up(struct dialer *d)
{
    if (d->source.fd < 0) return;
    service_remove(&d->source);
    socket_close(d->source.fd);
    d->source.fd = -1;
}

/* All targets have failed. RAIL_NOT_YET: a pause is set, then the next round comes. Errors stand in the note. */
static enum rail_result end_round(struct dialer *d)
{
    memcpy(d->note, d->building, sizeof d->note);
    d->building[0] = '\0';
    uint64_t now = rail_now_ns();
    if (d->foreign && !d->config.foreign_patience)
        return RAIL_E_REMOTE;
    if (!d->all_refused) d->refused_since_ns = 0;
    else if (d->refused_since_ns == 0) d->refused_since_ns = now;
    else if (d->config.refused_patience_ns != UINT64_MAX && now - d->refused_since_ns > d->config.refused_patience_ns)
        return RAIL_E_REMOTE;
    uint64_t pause_ms = d->round < 8 ? (uint64_t)PAUSE_FIRST_MS << d->round : PAUSE_LAST_MS;
    d->round++;
    d->at = 0;
    d->all_refused = true;
    d->foreign = false;
    service_timer_set(&d->timer, now + pause_ms * RAIL_NS_PER_MS);
    return RAIL_NOT_YET;
}

static enum rail_result local_failure(struct dialer *d, const char *call, const char *why)
{
    d->building[0] = '\0';
    snprintf(d->note, sizeof d->note, "%s: %s; raise ulimit -n", call, why);
    return RAIL_E_SYSTEM;
}

static void target_ready(struct service_source *source, uint32_t events);

/* Tries targets from d->at on, until one is under way or the round is over. RAIL_NOT_YET, or what makes going on
 * useless. */
static enum rail_result attempt(struct dialer *d)
{
    for (; d->at < d->n_targets; d->at++) {
        int fd = d->nic.name[0] ? socket_connect_by(&d->nic, &d->targets[d->at]) : socket_connect(&d->targets[d->at]);
        int error = errno;
        if (fd < 0 && (error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS))
            return local_failure(d, "socket()", strerror(error));
        if (fd < 0) {
            note_failure(d, strerror(error));
            d->all_refused = d->all_refused && error == ECONNREFUSED;
            continue;
        }
        d->source = (struct service_source){.fd = fd, .ready = target_ready};
        if (service_add(&d->source, EPOLLOUT) != RAIL_OK) {
            socket_close(fd);
            d->source.fd = -1;
            return local_failure(d, "service_add()", "cannot be watched");
        }
        d->connecting = true;
        if (d->n_targets > 1) {
            uint32_t doublings = d->round < ATTEMPT_DOUBLINGS ? d->round : ATTEMPT_DOUBLINGS;
            service_timer_set(&d->timer, rail_now_ns() + (ATTEMPT_NS << doublings));
        }
        return RAIL_NOT_YET;
    }
    return end_round(d);
}

/* The present target is no use: the next one. */
static void go_on(struct dialer *d, const char *why, bool refused)
{
    note_failure(d, why);
    d->all_refused = d->all_refused && refused;
    hang_up(d);
    service_timer_cancel(&d->timer);
    d->at++;
    enum rail_result result = attempt(d);
    if (result != RAIL_NOT_YET) d->config.failed(d->config.owner, result, dialer_note(d));
}

void dialer_next(struct dialer *d, const char *why) { go_on(d, why, false); }

static void handshake(struct dialer *d)
{
    enum rail_result result = auth_pump(&d->auth, d->source.fd);
    if (result == RAIL_NOT_YET) return; /* three small messages fit any socket's buffer: only input can be missing */
    if (result == RAIL_E_REMOTE) {
        d->foreign = true;
        go_on(d, auth_reason_text(d->auth.reason), false);
    } else if (result != RAIL_OK) {
        go_on(d, errno ? strerror(errno) : "closed the connection during the handshake", false);
    } else {
        int fd = d->source.fd;
        service_remove(&d->source);
        d->source.fd = -1;
        service_timer_cancel(&d->timer);
        d->config.connected(d->config.owner, fd);
    }
}

static void target_ready(struct service_source *source, uint32_t events)
{
    struct dialer *d = (struct dialer *)(void *)source;
    pthread_mutex_t *lock = d->config.lock;
    (void)events;
    pthread_mutex_lock(lock);
    if (d->connecting) {
        int error = socket_error(d->source.fd);
        if (error) {
            go_on(d, strerror(error), error == ECONNREFUSED);
        } else {
            d->connecting = false;
            auth_start(&d->auth, &(struct auth_config){.role = AUTH_CONNECTER, .purpose = d->purpose, .key = d->key});
            if (service_modify(&d->source, EPOLLIN) == RAIL_OK) handshake(d);
            else go_on(d, "epoll refused it", false);
        }
    } else if (d->source.fd >= 0) {
        handshake(d);
    }
    pthread_mutex_unlock(lock);
}

static void timer_fired(struct service_timer *timer)
{
    struct dialer *d = (struct dialer *)(void *)((char *)timer - offsetof(struct dialer, timer));
    pthread_mutex_t *lock = d->config.lock;
    pthread_mutex_lock(lock);
    if (d->source.fd >= 0) {
        go_on(d, d->connecting ? "no answer in time" : "no answer to the handshake in time", false);
    } else if (d->at == 0) {
        enum rail_result result = attempt(d);
        if (result != RAIL_NOT_YET) d->config.failed(d->config.owner, result, dialer_note(d));
    }
    pthread_mutex_unlock(lock);
}

/* Every endpoint with each of its ports, and link-local ones on each interface. */
static enum rail_result list_targets(struct dialer *d, const struct dialer_config *config)
{
    int room = 0;
    for (int i = 0; i < config->n_endpoints; i++)
        room += config->endpoints[i].ports * (endpoint_is_link_local(&config->endpoints[i]) ? config->n_scopes : 1);
    d->targets = calloc((size_t)room + 1, sizeof d->targets[0]);
    if (!d->targets) return rail_fail(RAIL_E_SYSTEM, "bootstrap: out of memory for %d addresses", room);
    for (int i = 0; i < config->n_endpoints; i++) {
        const struct endpoint *e = &config->endpoints[i];
        int n_scopes = endpoint_is_link_local(e) ? config->n_scopes : 1;
        for (int s = 0; s < n_scopes; s++)
            for (uint32_t p = 0; p < e->ports; p++)
                endpoint_to(e, p, endpoint_is_link_local(e) ? config->scopes[s] : 0, &d->targets[d->n_targets++]);
    }
    if (d->n_targets == 0)
        return rail_fail(RAIL_E_SYSTEM, "bootstrap: there is no address to connect to that this host can use");
    return RAIL_OK;
}

enum rail_result dialer_start(struct dialer *d, const struct dialer_config *config)
{
    memset(d, 0, sizeof *d);
    d->source.fd = -1;
    d->timer.fire = timer_fired;
    d->config = *config;
    d->config.key = NULL;
    d->config.endpoints = NULL;
    d->config.scopes = NULL;
    d->config.nic = NULL;
    if (config->nic) d->nic = *config->nic;
    d->all_refused = true;
    memcpy(d->key, config->key, AUTH_KEY_BYTES);
    strncpy(d->purpose, config->purpose, sizeof d->purpose - 1);
    RAIL_TRY(list_targets(d, config));
    enum rail_result result = attempt(d);
    return result == RAIL_NOT_YET ? RAIL_OK : rail_fail_quietly(result, "%s", dialer_note(d));
}

void dialer_close(struct dialer *d)
{
    if (d->timer.fire) {
        hang_up(d);
        service_timer_cancel(&d->timer);
    }
    free(d->targets);
    memset(d, 0, sizeof *d);
    d->source.fd = -1;
}

const char *dialer_note(const struct dialer *d) { return d->building[0] ? d->building : d->note; }

void dialer_target(const struct dialer *d, char out[ENDPOINT_TEXT_BYTES])
{
    out[0] = '\0';
    if (d->at < d->n_targets) sockaddr_print(&d->targets[d->at], out);
}
