/* run_root.c - where the ranks meet: an address of rank 0's host that the others reach, and two ports that are free.
 *
 * A port found free here may be taken by somebody else before rank 0 binds it; the library then says so, and the run can
 * be repeated. On hosts reached by ssh nobody is there yet to ask: the ports are drawn below the range from which
 * kernels give out ports by themselves. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run.h"

/* A port that is free on `address` now, of its family; 0 with errno. The socket goes to *held until both are known. */
static int free_port(const char *address, int *held)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr *a = (struct sockaddr *)&v4;
    socklen_t length = sizeof v4;
    if (inet_pton(AF_INET, address, &v4.sin_addr) != 1) {
        if (inet_pton(AF_INET6, address, &v6.sin6_addr) != 1) return 0;
        a = (struct sockaddr *)&v6, length = sizeof v6;
    }
    *held = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*held < 0 || bind(*held, a, length) || getsockname(*held, a, &length)) return 0;
    return ntohs(a->sa_family == AF_INET ? v4.sin_port : v6.sin6_port);
}

static bool two_free_ports(struct run_root *root)
{
    int held[2] = {-1, -1};
    root->port = free_port(root->address, &held[0]);
    root->master_port = root->port ? free_port(root->address, &held[1]) : 0;
    for (int i = 0; i < 2; i++)
        if (held[i] >= 0) close(held[i]);
    return root->port && root->master_port;
}

/* The first address that is up, not loopback and not link-local: IPv4 before IPv6. */
static bool own_address(char *out, size_t bytes)
{
    struct ifaddrs *list;
    bool found = false;
    if (getifaddrs(&list)) return false;
    for (int family = AF_INET; !found; family = AF_INET6) {
        for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
            if (!i->ifa_addr || i->ifa_addr->sa_family != family || !(i->ifa_flags & IFF_UP)) continue;
            if (i->ifa_flags & IFF_LOOPBACK) continue;
            if (family == AF_INET) {
                const struct sockaddr_in *v4 = (const void *)i->ifa_addr;
                found = inet_ntop(AF_INET, &v4->sin_addr, out, (socklen_t)bytes);
            } else {
                const struct sockaddr_in6 *v6 = (const void *)i->ifa_addr;
                if (!IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) found = inet_ntop(AF_INET6, &v6->sin6_addr, out, (socklen_t)bytes);
            }
        }
        if (family == AF_INET6) break;
    }
    freeifaddrs(list);
    return found;
}

/* Runs in a child that has entered the namespace; answers through the pipe. */
static void answer_from_netns(const char *name, int to, const char *address)
{
    char path[300];
    const char *message = "";
    struct run_root root = {.port = 0};
    snprintf(path, sizeof path, "/run/netns/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) message = "cannot open /run/netns/NAME";
    else if (setns(fd, CLONE_NEWNET)) message = "cannot enter it (needs root)";
    else if (address) snprintf(root.address, sizeof root.address, "%s", address);
    else if (!own_address(root.address, sizeof root.address)) message = "it has no address besides loopback";
    if (!*message && !two_free_ports(&root)) message = "no free port";
    if (*message) fprintf(stderr, "railccl run: --netns %s: %s: %s\n", name, message, strerror(errno));
    if (write(to, &root, sizeof root) != (ssize_t)sizeof root) _exit(1);
    _exit(*message ? 1 : 0);
}

static bool root_in_netns(const char *name, const char *address, struct run_root *root)
{
    int ends[2], status;
    if (pipe2(ends, O_CLOEXEC)) return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) answer_from_netns(name, ends[1], address);
    close(ends[1]);
    bool good = pid > 0 && read(ends[0], root, sizeof *root) == (ssize_t)sizeof *root;
    close(ends[0]);
    if (pid > 0 && (waitpid(pid, &status, 0) != pid || status)) good = false;
    return good;
}

static void draw_ports(struct run_root *root)
{
    uint16_t draw[2] = {0, 0};
    if (getrandom(draw, sizeof draw, 0) != (ssize_t)sizeof draw) draw[0] = (uint16_t)getpid();
    root->port = 20000 + draw[0] % 12000 / 2 * 2; /* even, so that the other one is never the same */
    root->master_port = 20001 + draw[1] % 12000 / 2 * 2;
}

/* "ADDR", "ADDR:PORT", "[V6]", "[V6]:PORT" */
static bool parse_root(const char *text, struct run_root *root)
{
    const char *end = text + strlen(text), *colon = strrchr(text, ':'), *from = text;
    if (*text == '[') {
        const char *close = strchr(text, ']');
        if (!close || (close[1] && close[1] != ':')) return false;
        from = text + 1, end = close;
        colon = close[1] ? close + 1 : NULL;
    } else if (colon && strchr(text, ':') == colon) {
        end = colon;
    } else {
        colon = NULL; /* none, or an IPv6 address without brackets */
    }
    if (end == from || (size_t)(end - from) >= sizeof root->address) return false;
    memcpy(root->address, from, (size_t)(end - from));
    root->address[end - from] = 0;
    if (!colon) return true;
    char *rest;
    long port = strtol(colon + 1, &rest, 10);
    if (rest == colon + 1 || *rest || port < 1 || port > 65535) return false;
    root->port = (int)port;
    return true;
}

bool run_root_choose(const struct run_options *o, struct run_root *out)
{
    struct run_root root = {.port = 0}, wanted = {.port = 0};
    if (o->root && !parse_root(o->root, &wanted))
        return fprintf(stderr, "railccl run: --root %s: want ADDRESS or ADDRESS:PORT\n", o->root), false;
    const char *address = o->root ? wanted.address : NULL;
    if (o->where == RUN_NETNS) {
        if (!root_in_netns(o->hosts[0].name, address, &root)) return false;
    } else if (o->where == RUN_SSH) {
        const char *host = o->hosts[0].name, *at = strrchr(host, '@');
        snprintf(root.address, sizeof root.address, "%s", address ? address : at ? at + 1 : host);
        draw_ports(&root);
    } else {
        snprintf(root.address, sizeof root.address, "%s", address ? address : "127.0.0.1");
        if (!two_free_ports(&root)) draw_ports(&root); /* a name, or an address that is not ours */
    }
    if (wanted.port) root.port = wanted.port;
    *out = root;
    return true;
}
