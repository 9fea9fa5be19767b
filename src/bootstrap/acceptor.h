/* acceptor.h - the door: listeners, and the strangers who have not proven themselves yet.
 *
 * A stranger has to prove the secret and to send one complete first frame within ACCEPTOR_PATIENCE_NS, else it is
 * dropped and counted. At most ACCEPTOR_PENDING_MAX wait at a time: one more pushes the oldest out, since honest ones
 * take a round trip and hostile ones stay. Nobody who fails here is ever seen by the owner.
 *
 * The owner's lock is taken around everything that the service thread starts here, callbacks included. */
#ifndef RAIL_BOOTSTRAP_ACCEPTOR_H
#define RAIL_BOOTSTRAP_ACCEPTOR_H

#include <pthread.h>

#include "base/service.h"
#include "bootstrap/auth.h"
#include "bootstrap/conn.h"

/* Two round trips of a bad wide-area path (300 ms) and twice a lost packet (1 s + 2 s), rounded up. */
#define ACCEPTOR_PATIENCE_NS (5 * RAIL_NS_PER_S)
enum { ACCEPTOR_PENDING_MAX = 1024, ACCEPTOR_LISTENERS_MAX = 16 };

struct acceptor_config {
    const char *purpose;   /* the handshake's */
    int listeners_max;     /* further ones are not opened; 0: ENDPOINTS_MAX */
    auth_lookup *lookup;
    enum frame_type first; /* the one frame a newcomer may begin with, and its length */
    size_t first_bytes;
    /* Somebody has proven the key of this id and sent its first frame; `fd` and the payload are the owner's from now
     * on. */
    void (*arrived)(void *owner, const uint8_t key_id[AUTH_ID_BYTES], int fd, struct blob *payload);
    /* This process cannot open descriptors any more and nothing here can be closed to help. True: there is room now. */
    bool (*starved)(void *owner, const char *text);
    void *owner;
    pthread_mutex_t *lock;
};

struct acceptor_listener { struct service_source source; struct acceptor *acceptor; };
struct acceptor_pending;

struct acceptor {
    struct acceptor_config config;
    struct acceptor_listener listeners[ACCEPTOR_LISTENERS_MAX];
    int n_listeners;
    struct endpoint endpoints[ACCEPTOR_LISTENERS_MAX]; /* where they listen */
    bool accepting, paused;
    struct acceptor_pending *oldest, *newest;
    uint32_t n_pending;
    struct service_timer timer;
};

void acceptor_init(struct acceptor *acceptor, const struct acceptor_config *config);
/* Opens a listener at `address`; port 0 chooses one. Nobody is let in before acceptor_start. -1 with errno. */
int acceptor_listen(struct acceptor *acceptor, const struct sockaddr_storage *address, int backlog);
enum rail_result acceptor_start(struct acceptor *acceptor);
/* Closes the listeners, and drops the strangers that are still here. Service thread, or never started. */
void acceptor_close(struct acceptor *acceptor);

#endif
