/* machine.h - the little that is needed of the machine so far: who this host is, which cores we may use, which
 * network interfaces it has. */
#ifndef RAIL_TOPO_MACHINE_H
#define RAIL_TOPO_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <netinet/in.h>

#include "base/result.h"

/* NCCL_HOSTID, else boot id + network namespace: equal on ranks that can pass a file descriptor to one another. */
uint64_t machine_host_key(void);
/* Equal on all ranks that share this machine's cores, whatever host they count as (namespaces, NCCL_HOSTID). */
uint64_t machine_key(void);
/* "name" of the host for messages (hostname). */
const char *machine_host_name(void);

/* RAILCCL_SYSFS_ROOT: the folder in which /sys and /run are looked for; "" is the machine itself. */
const char *machine_root(void);

/* Cores this process may use: the affinity mask, limited by the cgroup's cpu.max (rounded up). At least 1. */
int machine_cores(void);

/* The processor's name as the kernel tells it, one line; the machine's architecture where it does not. Returns `out`. */
const char *machine_cpu_name(char out[96]);

struct machine_interface {
    char name[16];
    struct sockaddr_storage address; /* port 0 */
    uint32_t mbit_per_s;             /* 0 = unknown */
    uint32_t mtu;                    /* bytes; 0 = unknown */
    uint8_t prefix_bits;             /* of its subnet; 0 = unknown */
    bool loopback;
    bool up;
};

/* The interfaces that NCCL_SOCKET_IFNAME (prefix list, ^ exclude, = exact) and NCCL_SOCKET_FAMILY admit, best first:
 * without the variable all that are up and running, no loopback, docker*, br-*, veth of bridges, virbr*; loopback only
 * when nothing else is there. One address per interface and family (IPv4 first; global IPv6 before link-local).
 * Writes up to `max` and returns how many there are, or 0 with an error text naming the variable. */
int machine_interfaces(struct machine_interface *out, int max);

/* By which interface the kernel sends from a NIC's address to `to`. */
enum machine_egress {
    MACHINE_EGRESS_UNKNOWN, /* it is no address of this host's, or `to` is one, or nothing could be found out */
    MACHINE_EGRESS_OWN,    /* its own */
    MACHINE_EGRESS_BIND,   /* another one, unless the socket is bound to the device (machine_bind_device) */
    MACHINE_EGRESS_STRAYS, /* another one, and binding would make it deaf: *why_out says why */
    MACHINE_EGRESS_NOWHERE, /* another one, as no route leads through it */
};
enum machine_egress machine_egress(const struct machine_interface *nic, const struct sockaddr_storage *to,
                                   const char **why_out);
/* The same towards its subnet, whoever is there. */
enum machine_egress machine_subnet_egress(const struct machine_interface *nic, const char **why_out);
/* The interface by which the kernel sends from the NIC's address to its subnet. False: it does not say. */
bool machine_subnet_device(const struct machine_interface *nic, char name_out[16]);
/* Binds a socket to the NIC's device where that is needed and does good (MACHINE_EGRESS_BIND). True when it did. */
bool machine_bind_device(int fd, const struct machine_interface *nic, const struct sockaddr_storage *to);

/* The same for a listener, which knows nobody yet: when its subnet's other addresses would be answered by another NIC. What
 * it accepts is bound as it is. */
bool machine_bind_listener(int fd, const struct machine_interface *nic);

/* Parts of the above that tests give their own input.
 * ...cores_under: reads the cgroup files below `root` ("" is the real machine) and limits `allowed` by them.
 * ...interface_admitted: whether the list `filter` (NCCL_SOCKET_IFNAME's syntax) names this interface; *place_out is
 * the index of the item that did (0 for an exclusion list). */
int machine_cores_under(const char *root, int allowed);
bool machine_interface_admitted(const char *filter, const char *name, int *place_out);

#endif
