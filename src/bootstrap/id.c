/* id.c - see id.h. */
#include "bootstrap/id.h"

#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <sodium/utils.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"

enum { ID_VERSION = 1, SECRET_TEXT_MAX = 4096 };
static const char id_magic[8] = {'r', 'a', 'i', 'l', 'c', 'u', 'i', 'd'};

static uint64_t check_of(const struct unique_id *id) { return rail_hash64(id, offsetof(struct unique_id, check), 3); }

void id_seal(struct unique_id *id)
{
    memcpy(id->magic, id_magic, sizeof id->magic);
    id->version = ID_VERSION;
    id->pid = (uint32_t)getpid();
    id->check = check_of(id);
}

void id_seal_fixed(struct unique_id *id, enum id_kind kind)
{
    id_seal(id);
    id->kind = (uint8_t)kind;
    id->pid = 0;
    id->check = check_of(id);
}

enum rail_result id_open(const uint8_t bytes[BOOTSTRAP_ID_BYTES], struct unique_id *out)
{
    memcpy(out, bytes, sizeof *out);
    if (memcmp(out->magic, id_magic, sizeof id_magic) != 0)
        return rail_fail(RAIL_E_ARGUMENT,
                         "unique id: begins with %02x%02x%02x%02x, which is not railccl's; make it with "
                         "this library's ncclGetUniqueId and hand all 128 bytes to every rank",
                         bytes[0], bytes[1], bytes[2], bytes[3]);
    if (out->version != ID_VERSION)
        return rail_fail(RAIL_E_ARGUMENT,
                         "unique id: made by another railccl (id version %u, here %u); use one version "
                         "on all hosts", out->version, ID_VERSION);
    bool sane = out->check == check_of(out) && out->n_endpoints >= 1 && out->n_endpoints <= ENDPOINTS_MAX &&
                out->kind >= ID_ROOT_RUNS && out->kind <= ID_LAUNCH;
    for (int i = 0; sane && i < out->n_endpoints; i++) sane = endpoint_valid(&out->endpoints[i]);
    if (!sane)
        return rail_fail(RAIL_E_ARGUMENT,
                         "unique id: damaged on its way (check sum differs); all 128 bytes must arrive");
    return RAIL_OK;
}

/* ---- fixed addresses ---- */

static enum rail_result read_secret_file(const char *path, uint8_t key[AUTH_KEY_BYTES])
{
    char text[SECRET_TEXT_MAX + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return rail_fail(RAIL_E_ARGUMENT, "RAILCCL_SECRET_FILE=\"%s\": open: %s", path, strerror(errno));
    size_t n = 0;
    ssize_t got = 0;
    while (n < sizeof text && (got = read(fd, text + n, sizeof text - n)) > 0) n += (size_t)got;
    int error = got < 0 ? errno : 0;
    close(fd);
    if (error) return rail_fail(RAIL_E_SYSTEM, "RAILCCL_SECRET_FILE=\"%s\": read: %s", path, strerror(error));
    if (n > SECRET_TEXT_MAX)
        return rail_fail(RAIL_E_ARGUMENT, "RAILCCL_SECRET_FILE=\"%s\": longer than %d bytes", path, SECRET_TEXT_MAX);
    if (n > 0 && text[n - 1] == '\n') n--;
    if (n == 0) return rail_fail(RAIL_E_ARGUMENT, "RAILCCL_SECRET_FILE=\"%s\": is empty", path);
    auth_key_from_text(text, n, key);
    sodium_memzero(text, sizeof text);
    return RAIL_OK;
}

static enum rail_result fixed_key(bool warn, const char *what, uint8_t key[AUTH_KEY_BYTES])
{
    static _Atomic bool warned;
    const char *secret = rail_param_str(RAIL_PARAM_SECRET), *path = rail_param_str(RAIL_PARAM_SECRET_FILE);
    if (secret && secret[0]) {
        auth_key_from_text(secret, strlen(secret), key);
        return RAIL_OK;
    }
    if (path && path[0]) return read_secret_file(path, key);
    static const char nothing[] = "railccl: no secret";
    auth_key_from_text(nothing, sizeof nothing, key);
    if (warn && !atomic_exchange(&warned, true))
        RAIL_WARN("%s is set without RAILCCL_SECRET or RAILCCL_SECRET_FILE: whoever reaches that port can join. Give "
                  "all ranks the same RAILCCL_SECRET", what);
    return RAIL_OK;
}

/* Splits "host:port" and "[v6]:port"; false when it is neither. */
static bool split(const char *text, char *host, size_t host_bytes, long *port, bool *bracketed)
{
    const char *colon = strrchr(text, ':');
    *bracketed = text[0] == '[';
    const char *from = text + *bracketed, *end = colon;
    if (!colon || colon == from) return false;
    if (*bracketed) {
        if (colon[-1] != ']') return false;
        end--;
    } else if (memchr(text, ':', (size_t)(colon - text))) {
        return false; /* an IPv6 address needs brackets */
    }
    size_t n = (size_t)(end - from);
    if (n == 0 || n >= host_bytes) return false;
    memcpy(host, from, n);
    host[n] = '\0';
    char *rest;
    errno = 0;
    *port = strtol(colon + 1, &rest, 10);
    return colon[1] >= '0' && colon[1] <= '9' && *rest == '\0' && errno == 0 && *port >= 1 && *port <= UINT16_MAX;
}

static int family_wanted(void)
{
    const char *family = rail_param_str(RAIL_PARAM_NCCL_SOCKET_FAMILY);
    return !family ? AF_UNSPEC : strcmp(family, "AF_INET6") == 0 ? AF_INET6 : AF_INET;
}

enum rail_result id_fixed_create(const struct id_fixed *fixed, struct unique_id *out)
{
    char host[256];
    long port;
    bool bracketed;
    memset(out, 0, sizeof *out);
    if (!split(fixed->text, host, sizeof host, &port, &bracketed) ||
        port + fixed->first + fixed->ports - 1 > UINT16_MAX)
        return rail_fail(RAIL_E_ARGUMENT,
                         "%s=\"%s\": must be host:port or [IPv6 address]:port, with a port in 1..65535",
                         fixed->what, fixed->text);
    struct addrinfo hints = {.ai_family = bracketed ? AF_INET6 : family_wanted(), .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (rc != 0)
        return rail_fail(RAIL_E_ARGUMENT, "%s=\"%s\": looking up \"%s\": %s", fixed->what, fixed->text, host,
                         rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    for (const struct addrinfo *a = found; a && out->n_endpoints < ENDPOINTS_MAX; a = a->ai_next) {
        if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
        struct sockaddr_storage address = {0};
        memcpy(&address, a->ai_addr, a->ai_addrlen);
        struct endpoint *e = &out->endpoints[out->n_endpoints++];
        endpoint_from(e, &address);
        e->port = (uint16_t)(port + fixed->first);
        e->ports = (uint8_t)fixed->ports;
    }
    freeaddrinfo(found);
    if (out->n_endpoints == 0)
        return rail_fail(RAIL_E_ARGUMENT, "%s=\"%s\": \"%s\" has no IP address", fixed->what, fixed->text, host);
    /* A name may mean 127.0.1.1 on its own host and something else elsewhere: its owner listens everywhere. */
    struct in6_addr literal;
    out->any_address = !bracketed && inet_pton(AF_INET, host, &literal) != 1;
    RAIL_TRY(fixed_key(fixed->warn, fixed->what, out->secret));
    id_seal_fixed(out, ID_RANK_0_OPENS);
    return RAIL_OK;
}
