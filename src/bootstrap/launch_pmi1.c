/* launch_pmi1.c - the id through PMI-1, which MPICH's mpiexec serves: lines of text over a socket that is there.
 *
 *     cmd=init pmi_version=1 pmi_subversion=1     cmd=response_to_init ... rc=0
 *     cmd=get_my_kvsname                          cmd=my_kvsname kvsname=kvs_12_0
 *     cmd=put kvsname=K key=A value=B             cmd=put_result rc=0
 *     cmd=barrier_in                              cmd=barrier_out
 *     cmd=get kvsname=K key=A                     cmd=get_result rc=0 value=B
 *     cmd=finalize                                cmd=finalize_ack
 *
 * An MPI library in the same process talks over the same socket. So nothing is read ahead, and the end is said when
 * the program ends: after it mpiexec listens no more. For the same reason there are no ids after MPI_Finalize. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bootstrap/launch_ways.h"

enum { LINE_BYTES = 1024, NAME_BYTES = 257 }; /* PMI-1's lines are this long at most, its names 256 */
#define FAREWELL_NS (2 * RAIL_NS_PER_S) /* mpiexec is on this host, and listens to nothing else for long */

static struct {
    pthread_mutex_t lock;
    int fd;                /* 0: not opened */
    struct stat socket;    /* its identity: an MPI library may close it, and the number may then be another's */
    pid_t opened_by;
    bool broken;           /* an answer is missing: the next one would be taken for it */
    char store[NAME_BYTES];
} pmi = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int socket_of_environment(void)
{
    const char *text = getenv("PMI_FD");
    char *end;
    long fd = text && text[0] ? strtol(text, &end, 10) : -1;
    return fd >= 3 && *end == '\0' && fd < 1 << 20 ? (int)fd : -1;
}

bool launch_pmi1_is_here(void) { return socket_of_environment() >= 0; }

/* ---- lines ---- */

static enum rail_result broken(const char *command, const char *why)
{
    pmi.broken = true;
    return rail_fail(RAIL_E_REMOTE, "launch: PMI-1's %s: %s; is mpiexec alive? RAILCCL_ROOT=host:port goes without PMI", command,
                     why);
}

static enum rail_result send_line(const char *command, const char *line)
{
    for (size_t sent = 0, n = strlen(line); sent < n;) {
        ssize_t got = send(pmi.fd, line + sent, n - sent, MSG_NOSIGNAL);
        if (got < 0 && errno != EINTR) return broken(command, strerror(errno));
        if (got > 0) sent += (size_t)got;
    }
    return RAIL_OK;
}

/* Byte by byte: a line has some 300, and what follows may be for somebody else. */
static enum rail_result receive_line(const char *command, char line[LINE_BYTES], struct rail_deadline deadline)
{
    for (int n = 0; n < LINE_BYTES;) {
        struct pollfd wait = {.fd = pmi.fd, .events = POLLIN};
        int ready = poll(&wait, 1, rail_deadline_left_ms(deadline));
        if (ready < 0 && errno != EINTR) return broken(command, strerror(errno));
        if (ready == 0) return RAIL_NOT_YET;
        if (ready < 0) continue;
        ssize_t got = recv(pmi.fd, line + n, 1, MSG_DONTWAIT);
        if (got == 0) return broken(command, "mpiexec closed the connection");
        if (got < 0 && errno != EINTR && errno != EAGAIN) return broken(command, strerror(errno));
        if (got > 0 && line[n++] == '\n') {
            line[n - 1] = '\0';
            return RAIL_OK;
        }
    }
    return broken(command, "the answer has no end");
}

/* The word behind " name=" in a line; false when it is not there or has no room. */
static bool field(const char *line, const char *name, char *out, size_t bytes)
{
    char label[32];
    int n = snprintf(label, sizeof label, " %s=", name);
    const char *at = strstr(line, label);
    size_t length = at ? strcspn(at + n, " ") : bytes;
    if (length >= bytes) return false;
    memcpy(out, at + n, length);
    out[length] = '\0';
    return true;
}

/* Sends `line` and waits for "cmd=<expected> ...", with rc=0 where the answer has an rc. RAIL_NOT_YET at the deadline. */
static enum rail_result ask(const char *line, const char *expected, char answer[LINE_BYTES], struct rail_deadline deadline)
{
    char command[32] = "", prefix[48], why[80], rc[16] = "0";
    snprintf(command, sizeof command, "%.*s", (int)strcspn(line + strlen("cmd="), " \n"), line + strlen("cmd="));
    int n = snprintf(prefix, sizeof prefix, "cmd=%s", expected);
    RAIL_TRY(send_line(command, line));
    enum rail_result result = receive_line(command, answer, deadline);
    if (result == RAIL_NOT_YET) pmi.broken = true;
    RAIL_TRY(result);
    if (strncmp(answer, prefix, (size_t)n) != 0 || (answer[n] != ' ' && answer[n] != '\0')) {
        snprintf(why, sizeof why, "the answer is \"%.40s\"", answer);
        return broken(command, why);
    }
    (void)field(answer, "rc", rc, sizeof rc);
    if (strcmp(rc, "0") == 0) return RAIL_OK;
    return rail_fail(RAIL_E_REMOTE, "launch: PMI-1's %s: refused (rc=%s); RAILCCL_ROOT=host:port goes without PMI", command, rc);
}

/* ---- the exchange ---- */

static bool is_ours(void)
{
    struct stat now;
    return fstat(pmi.fd, &now) == 0 && now.st_dev == pmi.socket.st_dev && now.st_ino == pmi.socket.st_ino;
}

static void say_goodbye(void)
{
    char answer[LINE_BYTES];
    if (pmi.opened_by != getpid() || pmi.broken || !is_ours()) return;
    if (send(pmi.fd, "cmd=finalize\n", strlen("cmd=finalize\n"), MSG_NOSIGNAL) > 0)
        (void)receive_line("finalize", answer, rail_deadline_in_ns(FAREWELL_NS));
}

static enum rail_result open_once(struct rail_deadline deadline)
{
    char answer[LINE_BYTES];
    if (pmi.fd && !is_ours()) return broken("socket", "somebody closed it (MPI_Finalize?)");
    if (pmi.fd) return RAIL_OK;
    pmi.fd = socket_of_environment();
    if (fstat(pmi.fd, &pmi.socket) != 0) return broken("socket", "PMI_FD is closed (by MPI_Finalize?)");
    RAIL_TRY(ask("cmd=init pmi_version=1 pmi_subversion=1\n", "response_to_init", answer, deadline));
    pmi.opened_by = getpid();
    atexit(say_goodbye);
    RAIL_TRY(ask("cmd=get_my_kvsname\n", "my_kvsname", answer, deadline));
    return field(answer, "kvsname", pmi.store, sizeof pmi.store) ? RAIL_OK : broken("get_my_kvsname", "no name");
}

static enum rail_result hand_over(struct launch_exchange *exchange)
{
    char key[LAUNCH_KEY_BYTES], text[LAUNCH_HEX_BYTES] = "", line[LINE_BYTES], answer[LINE_BYTES];
    if (pmi.broken)
        return rail_fail(RAIL_E_REMOTE, "launch: PMI-1 failed before; RAILCCL_ROOT=host:port goes without PMI");
    RAIL_TRY(open_once(exchange->deadline));
    launch_key(exchange, key);
    if (exchange->rank == 0) {
        launch_hex(exchange, text);
        snprintf(line, sizeof line, "cmd=put kvsname=%s key=%s value=%s\n", pmi.store, key, text);
        RAIL_TRY(ask(line, "put_result", answer, exchange->deadline));
    }
    RAIL_TRY(ask("cmd=barrier_in\n", "barrier_out", answer, exchange->deadline));
    if (exchange->rank == 0) return RAIL_OK;
    snprintf(line, sizeof line, "cmd=get kvsname=%s key=%s\n", pmi.store, key);
    RAIL_TRY(ask(line, "get_result", answer, exchange->deadline));
    if (!field(answer, "value", text, sizeof text)) text[0] = '\0';
    return launch_unhex(exchange, text, "PMI-1");
}

enum rail_result launch_pmi1(struct launch_exchange *exchange)
{
    pthread_mutex_lock(&pmi.lock);
    enum rail_result result = hand_over(exchange);
    pthread_mutex_unlock(&pmi.lock);
    return result == RAIL_NOT_YET ? launch_late(exchange, "PMI-1") : result;
}
