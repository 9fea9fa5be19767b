/* auth.c - the handshake of auth.h: three fixed-size messages, keyed BLAKE2b from libsodium.
 *
 * sodium_init() is not called: it only chooses faster BLAKE2b code, which is nothing for messages of 120 bytes, and the
 * random bytes are the kernel's (rail_random). */
#include "bootstrap/auth.h"

#include <errno.h>
#include <sodium/crypto_generichash.h>
#include <sodium/utils.h>
#include <string.h>
#include <sys/socket.h>

#include "base/memory.h"

_Static_assert(AUTH_KEY_BYTES == crypto_generichash_KEYBYTES, "libsodium's recommended key");
_Static_assert(AUTH_MAC_BYTES == crypto_generichash_BYTES, "libsodium's recommended hash");

/* The last byte is the version in a hello and a challenge, the reason in a refusal (whose version stands before). */
static const char hello_magic[] = "railcca";
static const char challenge_magic[] = "railccb";
static const char refusal_magic[] = "railcc";
enum { NAME_BYTES = AUTH_MAGIC_BYTES - 1, REFUSAL_NAME_BYTES = AUTH_MAGIC_BYTES - 2 };

static void prove(const struct auth *auth, enum auth_role role, uint8_t mac[AUTH_MAC_BYTES])
{
    uint8_t message[8 + AUTH_PURPOSE_BYTES + AUTH_ID_BYTES + 2 * AUTH_NONCE_BYTES] = {'p', 'r', 'o', 'o', 'f'};
    uint8_t *p = message + 8;
    message[6] = AUTH_VERSION;
    message[7] = (uint8_t)role;
    memcpy(p, auth->purpose, AUTH_PURPOSE_BYTES);
    memcpy(p += AUTH_PURPOSE_BYTES, auth->key_id, AUTH_ID_BYTES);
    memcpy(p += AUTH_ID_BYTES, auth->nonce, sizeof auth->nonce);
    auth_mac(auth->key, message, sizeof message, mac);
}

static void queue(struct auth *auth, const void *bytes, size_t n)
{
    memcpy(auth->out + auth->out_bytes, bytes, n);
    auth->out_bytes += (uint32_t)n;
}

static void queue_head(struct auth *auth, const char *magic)
{
    uint8_t version = AUTH_VERSION;
    auth->out_bytes = auth->out_sent = 0;
    queue(auth, magic, NAME_BYTES);
    queue(auth, &version, 1);
}

void auth_start(struct auth *auth, const struct auth_config *config)
{
    memset(auth, 0, sizeof *auth);
    auth->role = config->role;
    auth->lookup = config->lookup;
    auth->owner = config->owner;
    strncpy(auth->purpose, config->purpose, AUTH_PURPOSE_BYTES - 1);
    rail_random(auth->nonce[config->role], AUTH_NONCE_BYTES);
    if (config->role == AUTH_ACCEPTER) {
        auth->state = AUTH_WANT_HELLO;
        return;
    }
    memcpy(auth->key, config->key, AUTH_KEY_BYTES);
    auth_key_id(auth->key, auth->key_id);
    queue_head(auth, hello_magic);
    queue(auth, auth->key_id, AUTH_ID_BYTES);
    queue(auth, auth->nonce[AUTH_CONNECTER], AUTH_NONCE_BYTES);
    auth->state = AUTH_WANT_CHALLENGE;
}

static void finish(struct auth *auth, enum auth_reason reason)
{
    auth->state = reason == AUTH_FINE ? AUTH_PROVEN : AUTH_REFUSED;
    auth->reason = reason;
    sodium_memzero(auth->key, sizeof auth->key);
}

void auth_wipe(struct auth *auth) { sodium_memzero(auth->key, sizeof auth->key); }

/* Accepter only, and only to somebody who speaks this protocol: says why. */
static void refuse(struct auth *auth, enum auth_reason reason)
{
    uint8_t tail[2] = {AUTH_VERSION, (uint8_t)reason};
    auth->out_bytes = auth->out_sent = 0;
    queue(auth, refusal_magic, REFUSAL_NAME_BYTES);
    queue(auth, tail, 2);
    finish(auth, reason);
}

/* Whether a far end's message begins as it should, judged at every byte that arrives. */
static bool begins(const struct auth *auth, const char *magic, size_t magic_bytes)
{
    size_t n = auth->in_bytes < magic_bytes ? auth->in_bytes : magic_bytes;
    return memcmp(auth->in, magic, n) == 0;
}

static void hello_arrived(struct auth *auth)
{
    memcpy(auth->key_id, auth->in + AUTH_MAGIC_BYTES, AUTH_ID_BYTES);
    memcpy(auth->nonce[AUTH_CONNECTER], auth->in + AUTH_MAGIC_BYTES + AUTH_ID_BYTES, AUTH_NONCE_BYTES);
    if (!auth->lookup(auth->owner, auth->key_id, auth->key)) {
        refuse(auth, AUTH_UNKNOWN_KEY);
        return;
    }
    uint8_t mac[AUTH_MAC_BYTES];
    prove(auth, AUTH_ACCEPTER, mac);
    queue_head(auth, challenge_magic);
    queue(auth, auth->nonce[AUTH_ACCEPTER], AUTH_NONCE_BYTES);
    queue(auth, mac, AUTH_MAC_BYTES);
    auth->state = AUTH_WANT_PROOF;
}

static void challenge_arrived(struct auth *auth)
{
    uint8_t mac[AUTH_MAC_BYTES];
    memcpy(auth->nonce[AUTH_ACCEPTER], auth->in + AUTH_MAGIC_BYTES, AUTH_NONCE_BYTES);
    prove(auth, AUTH_ACCEPTER, mac);
    if (sodium_memcmp(mac, auth->in + AUTH_MAGIC_BYTES + AUTH_NONCE_BYTES, AUTH_MAC_BYTES) != 0) {
        finish(auth, AUTH_WRONG_MAC);
        return;
    }
    prove(auth, AUTH_CONNECTER, mac);
    auth->out_bytes = auth->out_sent = 0;
    queue(auth, mac, AUTH_MAC_BYTES);
    finish(auth, AUTH_FINE);
}

static void proof_arrived(struct auth *auth)
{
    uint8_t mac[AUTH_MAC_BYTES];
    prove(auth, AUTH_CONNECTER, mac);
    if (sodium_memcmp(mac, auth->in, AUTH_MAC_BYTES) != 0)
        refuse(auth, AUTH_WRONG_MAC);
    else
        finish(auth, AUTH_FINE);
}

/* The connecter's look at what has arrived so far: a challenge, or a refusal instead of it. */
static void look_at_answer(struct auth *auth)
{
    if (begins(auth, challenge_magic, NAME_BYTES)) {
        if (auth->in_bytes == AUTH_MAGIC_BYTES && auth->in[NAME_BYTES] != AUTH_VERSION) {
            auth->far_version = auth->in[NAME_BYTES];
            finish(auth, AUTH_OTHER_VERSION);
        }
        return;
    }
    if (!begins(auth, refusal_magic, REFUSAL_NAME_BYTES)) {
        finish(auth, AUTH_NOT_OURS);
        return;
    }
    if (auth->in_bytes < AUTH_REFUSAL_BYTES) return;
    uint8_t reason = auth->in[AUTH_REFUSAL_BYTES - 1];
    auth->far_version = auth->in[AUTH_REFUSAL_BYTES - 2];
    finish(auth, reason > AUTH_NOT_OURS && reason <= AUTH_WRONG_MAC ? (enum auth_reason)reason : AUTH_NOT_OURS);
}

static void look_at_hello(struct auth *auth)
{
    if (!begins(auth, hello_magic, NAME_BYTES)) {
        finish(auth, AUTH_NOT_OURS);
    } else if (auth->in_bytes == AUTH_MAGIC_BYTES && auth->in[NAME_BYTES] != AUTH_VERSION) {
        auth->far_version = auth->in[NAME_BYTES];
        refuse(auth, AUTH_OTHER_VERSION);
    }
}

static size_t message_bytes(enum auth_state state)
{
    switch (state) {
    case AUTH_WANT_HELLO: return AUTH_HELLO_BYTES;
    case AUTH_WANT_CHALLENGE: return AUTH_CHALLENGE_BYTES;
    case AUTH_WANT_PROOF: return AUTH_MAC_BYTES;
    case AUTH_PROVEN:
    case AUTH_REFUSED: break;
    }
    return 0;
}

/* Hello and challenge are taken in two bites, the magic first: a refusal ends with its magic. */
size_t auth_wants(const struct auth *auth)
{
    size_t whole = message_bytes(auth->state);
    if (whole == 0) return 0;
    if (auth->state != AUTH_WANT_PROOF && auth->in_bytes < AUTH_MAGIC_BYTES) return AUTH_MAGIC_BYTES - auth->in_bytes;
    return whole - auth->in_bytes;
}

size_t auth_feed(struct auth *auth, const void *bytes, size_t n)
{
    const uint8_t *from = bytes;
    size_t taken = 0;
    while (taken < n && auth_wants(auth) > 0) {
        size_t bite = auth_wants(auth);
        if (bite > n - taken) bite = n - taken;
        memcpy(auth->in + auth->in_bytes, from + taken, bite);
        auth->in_bytes += (uint32_t)bite;
        taken += bite;
        enum auth_state state = auth->state;
        if (state == AUTH_WANT_HELLO) look_at_hello(auth);
        if (state == AUTH_WANT_CHALLENGE) look_at_answer(auth);
        if (auth->state != state || auth->in_bytes < message_bytes(state)) continue;
        auth->in_bytes = 0;
        if (state == AUTH_WANT_HELLO) hello_arrived(auth);
        if (state == AUTH_WANT_CHALLENGE) challenge_arrived(auth);
        if (state == AUTH_WANT_PROOF) proof_arrived(auth);
    }
    return taken;
}

const void *auth_output(const struct auth *auth, size_t *n)
{
    *n = auth->out_bytes - auth->out_sent;
    return auth->out + auth->out_sent;
}

void auth_sent(struct auth *auth, size_t n) { auth->out_sent += (uint32_t)n; }

/* True when nothing is left to send; false with errno otherwise (EAGAIN: the socket is full). */
static bool send_output(struct auth *auth, int fd)
{
    for (;;) {
        size_t n;
        const void *bytes = auth_output(auth, &n);
        if (n == 0) return true;
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return false;
        auth_sent(auth, (size_t)sent);
    }
}

enum rail_result auth_pump(struct auth *auth, int fd)
{
    for (;;) {
        if (!send_output(auth, fd) && errno != EAGAIN && auth->state != AUTH_REFUSED) return RAIL_E_SYSTEM;
        if (auth->state == AUTH_REFUSED) return RAIL_E_REMOTE;
        size_t wants = auth_wants(auth);
        if (wants == 0) return auth->out_sent == auth->out_bytes ? RAIL_OK : RAIL_NOT_YET;
        uint8_t bytes[AUTH_LARGEST_BYTES];
        ssize_t n = recv(fd, bytes, wants, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return RAIL_NOT_YET;
        if (n == 0) errno = 0;
        if (n <= 0) return RAIL_E_SYSTEM;
        auth_feed(auth, bytes, (size_t)n);
    }
}

const char *auth_reason_text(enum auth_reason reason)
{
    switch (reason) {
    case AUTH_FINE: return "proven";
    case AUTH_NOT_OURS: return "the far end does not speak railccl's protocol";
    case AUTH_OTHER_VERSION: return "the far end speaks another version of the handshake";
    case AUTH_UNKNOWN_KEY: return "the far end does not know this secret";
    case AUTH_WRONG_MAC: return "the far end could not prove the secret";
    }
    return "unknown reason";
}

void auth_mac(const uint8_t key[AUTH_KEY_BYTES], const void *message, size_t bytes, uint8_t out[AUTH_MAC_BYTES])
{
    crypto_generichash(out, AUTH_MAC_BYTES, message, bytes, key, AUTH_KEY_BYTES);
}

void auth_derive(const uint8_t key[AUTH_KEY_BYTES], const char *purpose, uint8_t out[AUTH_KEY_BYTES])
{
    char message[8 + 64] = "derive";
    strncpy(message + 8, purpose, 63);
    auth_mac(key, message, sizeof message, out);
}

void auth_key_id(const uint8_t key[AUTH_KEY_BYTES], uint8_t out[AUTH_ID_BYTES])
{
    uint8_t whole[AUTH_KEY_BYTES];
    auth_derive(key, "key id", whole);
    memcpy(out, whole, AUTH_ID_BYTES);
}

void auth_key_from_text(const void *text, size_t bytes, uint8_t out[AUTH_KEY_BYTES])
{
    static const uint8_t label[AUTH_KEY_BYTES] = "railccl secret text";
    auth_mac(label, text, bytes, out);
}
