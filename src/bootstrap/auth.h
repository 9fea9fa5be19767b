/* auth.h - two ends of a byte stream prove to each other that they hold the same key, before anything else is read.
 *
 *   connecter                                   accepter
 *      hello      magic, key id, nonce  ------>               looks the key up by its id
 *                      <------  challenge  magic, nonce, MAC  (or: refusal  magic, reason)
 *      proof      MAC                   ------>               from here on the stream is the caller's
 *
 * A MAC is BLAKE2b keyed with the shared key over (version, purpose, role, key id, both nonces). The role keeps a MAC
 * from being reflected, the fresh nonces keep it from being replayed, the purpose keeps one protocol's from serving in
 * another. The connecter may send its first data right behind its proof: one round trip in all.
 *
 * A small state machine over bytes: no socket, no clock, no allocation. Garbage is refused at its first wrong byte.
 * Deadlines are the caller's. It authenticates the ends, not what they say afterwards. */
#ifndef RAIL_BOOTSTRAP_AUTH_H
#define RAIL_BOOTSTRAP_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

enum {
    AUTH_KEY_BYTES = 32,
    AUTH_ID_BYTES = 8,
    AUTH_NONCE_BYTES = 32,
    AUTH_MAC_BYTES = 32,
    AUTH_MAGIC_BYTES = 8,
    AUTH_HELLO_BYTES = AUTH_MAGIC_BYTES + AUTH_ID_BYTES + AUTH_NONCE_BYTES,
    AUTH_CHALLENGE_BYTES = AUTH_MAGIC_BYTES + AUTH_NONCE_BYTES + AUTH_MAC_BYTES,
    AUTH_REFUSAL_BYTES = AUTH_MAGIC_BYTES,
    AUTH_LARGEST_BYTES = AUTH_CHALLENGE_BYTES,
    AUTH_PURPOSE_BYTES = 16, /* longest purpose string with its NUL */
    AUTH_VERSION = 1,
};

enum auth_role { AUTH_CONNECTER, AUTH_ACCEPTER };

enum auth_state {
    AUTH_WANT_HELLO,     /* accepter: waits for the connecter's key id and nonce */
    AUTH_WANT_CHALLENGE, /* connecter: has queued its hello, waits for the accepter's nonce and MAC */
    AUTH_WANT_PROOF,     /* accepter: has queued its challenge, waits for the connecter's MAC */
    AUTH_PROVEN,         /* the other end holds the key; the connecter's proof may still lie in the output */
    AUTH_REFUSED,        /* it does not, or said so; auth_reason() says why. A refusal may still lie in the output */
};

/* Why an end was refused. Order is wire format: the accepter sends it in its refusal. */
enum auth_reason {
    AUTH_FINE,
    AUTH_NOT_OURS,    /* the bytes are not this protocol */
    AUTH_OTHER_VERSION,
    AUTH_UNKNOWN_KEY, /* the accepter has no key of this id: another job's, a wrong secret, or one that is over */
    AUTH_WRONG_MAC,   /* the id is known, the key differs */
};

/* Accepter: writes the key that goes with `key_id` and returns true, or returns false. Must not block. */
typedef bool auth_lookup(void *owner, const uint8_t key_id[AUTH_ID_BYTES], uint8_t key_out[AUTH_KEY_BYTES]);

struct auth_config {
    enum auth_role role;
    const char *purpose;     /* "bootstrap", "tree", "lane"; shorter than AUTH_PURPOSE_BYTES; both ends the same */
    const uint8_t *key;      /* connecter: AUTH_KEY_BYTES, copied */
    auth_lookup *lookup;     /* accepter */
    void *owner;             /* lookup's */
};

struct auth {
    enum auth_state state;
    enum auth_reason reason;
    enum auth_role role;
    auth_lookup *lookup;
    void *owner;
    char purpose[AUTH_PURPOSE_BYTES];
    uint8_t key[AUTH_KEY_BYTES];      /* wiped when the handshake ends */
    uint8_t key_id[AUTH_ID_BYTES];    /* stays readable: accepters tell by it whose connection this is */
    uint8_t nonce[2][AUTH_NONCE_BYTES]; /* by role */
    uint8_t in[AUTH_LARGEST_BYTES], out[AUTH_LARGEST_BYTES];
    uint32_t in_bytes, out_bytes, out_sent;
    uint8_t far_version;              /* with AUTH_OTHER_VERSION */
};

/* The hello of a connecter lies in the output afterwards. */
void auth_start(struct auth *auth, const struct auth_config *config);
/* How many bytes may be read from the stream now: never more than belong to the handshake. 0 when it is over. */
size_t auth_wants(const struct auth *auth);
/* Takes up to auth_wants() bytes; returns how many it took, all of them unless the handshake was refused. */
size_t auth_feed(struct auth *auth, const void *bytes, size_t n);
/* What has to be sent now; auth_sent() says how much of it was. */
const void *auth_output(const struct auth *auth, size_t *n);
void auth_sent(struct auth *auth, size_t n);
/* Forgets the key: for handshakes given up half-way. */
void auth_wipe(struct auth *auth);

/* Drives the handshake over a non-blocking socket: RAIL_OK when proven and all output is sent, RAIL_NOT_YET (wait for
 * input, and for output when auth_output() is not empty), else RAIL_E_SYSTEM with errno set (0: end of file), or
 * RAIL_E_REMOTE when refused. Sets no error text and logs nothing: strangers at the door must not fill the log. */
enum rail_result auth_pump(struct auth *auth, int fd);

/* One line for messages, e.g. "the far end does not know this secret". */
const char *auth_reason_text(enum auth_reason reason);

/* Sub-keys: out = BLAKE2b(key; purpose). Different purposes give unrelated keys. `out` may be `key`. */
void auth_derive(const uint8_t key[AUTH_KEY_BYTES], const char *purpose, uint8_t out[AUTH_KEY_BYTES]);
/* The id under which a key is looked up; reveals nothing of the key. */
void auth_key_id(const uint8_t key[AUTH_KEY_BYTES], uint8_t out[AUTH_ID_BYTES]);
/* A key from any bytes (a passphrase, a file's content). */
void auth_key_from_text(const void *text, size_t bytes, uint8_t out[AUTH_KEY_BYTES]);
/* Keyed hash of a message: out = BLAKE2b(key; message). For keys that depend on more than a purpose. */
void auth_mac(const uint8_t key[AUTH_KEY_BYTES], const void *message, size_t bytes, uint8_t out[AUTH_MAC_BYTES]);

#endif
