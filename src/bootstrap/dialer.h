/* dialer.h - connecting to somebody who listens at one of several addresses, and proving the secret to them.
 *
 * Addresses are tried in turn, rounds are repeated with a growing pause, until one answers and proves the secret; a
 * deadline is the owner's. What went wrong at each address in the last round stands in dialer_note().
 *
 * The owner's lock is taken around everything that the service thread starts here, callbacks included. */
#ifndef RAIL_BOOTSTRAP_DIALER_H
#define RAIL_BOOTSTRAP_DIALER_H

#include <pthread.h>

#include "base/service.h"
#include "bootstrap/auth.h"
#include "bootstrap/sockets.h"
#include "topo/machine.h"

enum { DIALER_SCOPES_MAX = 8, DIALER_NOTE_BYTES = 320 };

struct dialer_config {
    const char *purpose; /* the handshake's */
    const uint8_t *key;  /* AUTH_KEY_BYTES, copied */
    const struct endpoint *endpoints;
    int n_endpoints;
    const uint32_t *scopes; /* interfaces to try link-local addresses on */
    int n_scopes;
    const struct machine_interface *nic; /* the one to call by; NULL: the kernel's choice. Copied */
    uint64_t refused_patience_ns; /* give up when all refuse connections for so long; UINT64_MAX: never */
    bool foreign_patience; /* go on although somebody answered who does not hold the secret */
    /* Proven; `fd` is the owner's. If it turns out to be the wrong one: close it and call dialer_next(). */
    void (*connected)(void *owner, int fd);
    void (*failed)(void *owner, enum rail_result result, const char *text);
    void *owner;
    pthread_mutex_t *lock;
};

struct dialer {
    struct service_source source; /* first; fd -1 while not connecting */
    struct dialer_config config;  /* endpoints, key and scopes are NULL here */
    uint8_t key[AUTH_KEY_BYTES];
    char purpose[AUTH_PURPOSE_BYTES];
    struct sockaddr_storage *targets;
    int n_targets, at;
    uint32_t round;
    struct machine_interface nic; /* name "": the kernel's choice */
    bool connecting; /* connect() has not ended */
    bool all_refused, foreign; /* in this round */
    uint64_t refused_since_ns; /* 0: not */
    struct auth auth;
    struct service_timer timer;
    char note[DIALER_NOTE_BYTES], building[DIALER_NOTE_BYTES]; /* of the last round; of this one */
};

/* Lock held. Errors (bad addresses, no descriptors) are returned with their text; nothing is under way then. */
enum rail_result dialer_start(struct dialer *dialer, const struct dialer_config *config);
/* Lock held, on the service thread: the connection that was handed out was no use, because of `why`. */
void dialer_next(struct dialer *dialer, const char *why);
/* Service thread, or never started. */
void dialer_close(struct dialer *dialer);
/* "10.0.0.1:4000: Connection refused; [fd00::1]:4001: no answer within 2 s" */
const char *dialer_note(const struct dialer *dialer);
/* The address that is being tried, or was connected. */
void dialer_target(const struct dialer *dialer, char out[ENDPOINT_TEXT_BYTES]);

#endif
