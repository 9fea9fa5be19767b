/* host.c - which host this is: a key that is equal exactly where a file descriptor can be passed, and a name. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/params.h"
#include "topo/machine.h"

static char host_name[256];
static pthread_once_t named = PTHREAD_ONCE_INIT;

static void name_host(void)
{
    if (gethostname(host_name, sizeof host_name - 1) != 0 || host_name[0] == '\0') strcpy(host_name, "unknown-host");
}

const char *machine_host_name(void)
{
    pthread_once(&named, name_host);
    return host_name;
}

const char *machine_root(void)
{
    const char *root = rail_param_str(RAIL_PARAM_SYSFS_ROOT);
    return root ? root : "";
}

/* The kernel's random boot id; two hosts cannot share it, containers of one host do. */
static size_t read_boot_id(char *out, size_t bytes)
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, out, bytes);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

uint64_t machine_key(void)
{
    char id[64] = {0};
    if (read_boot_id(id, sizeof id) == 0) snprintf(id, sizeof id, "%.60s", machine_host_name());
    return rail_hash64(id, sizeof id, 3);
}

uint64_t machine_host_key(void)
{
    const char *given = rail_param_str(RAIL_PARAM_NCCL_HOSTID);
    if (given && given[0]) return rail_hash64(given, strlen(given), 1);
    struct { char boot_id[64]; char name[64]; uint64_t device, inode; } host;
    memset(&host, 0, sizeof host);
    const char *name = machine_host_name();
    if (read_boot_id(host.boot_id, sizeof host.boot_id) == 0)
        memcpy(host.name, name, strnlen(name, sizeof host.name));
    /* Abstract sockets, over which descriptors are passed, belong to the network namespace. Not remembered between
     * calls: a process may change its namespace. */
    struct stat space;
    if (stat("/proc/self/ns/net", &space) == 0) {
        host.device = space.st_dev;
        host.inode = space.st_ino;
    }
    return rail_hash64(&host, sizeof host, 2);
}
