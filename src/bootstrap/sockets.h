/* sockets.h - TCP sockets of the bootstrap: addresses as plain bytes, listening, connecting, closing.
 *
 * Every descriptor is close-on-exec and non-blocking, and is on a list, by which a forked child drops its copies at
 * once: a copy in a child (a DataLoader's worker) would keep the connection open after its parent died, and nobody
 * would hear of the death. */
#ifndef RAIL_BOOTSTRAP_SOCKETS_H
#define RAIL_BOOTSTRAP_SOCKETS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { ENDPOINTS_MAX = 3, ENDPOINT_TEXT_BYTES = 72 };

/* Where somebody listens. Part of the unique id and of wire messages: plain bytes, little-endian. */
struct endpoint {
    uint8_t family;  /* 4 or 6 */
    uint8_t ports;   /* how many consecutive ports to try, from `port` on; >= 1 */
    uint16_t port;   /* host order */
    uint32_t reserved;
    uint8_t address[16];
};
_Static_assert(sizeof(struct endpoint) == 24, "wire layout");

/* False for anything that is no usable address. */
bool endpoint_valid(const struct endpoint *endpoint);
void endpoint_from(struct endpoint *out, const struct sockaddr_storage *from);
/* `scope` is the interface index for link-local IPv6 addresses, else ignored. */
void endpoint_to(const struct endpoint *endpoint, uint32_t port_offset, uint32_t scope, struct sockaddr_storage *out);
bool endpoint_is_link_local(const struct endpoint *endpoint);
bool endpoint_is_loopback(const struct endpoint *endpoint);

socklen_t sockaddr_bytes(const struct sockaddr_storage *address);
/* "10.0.0.1:4000", "[fe80::1%3]:4000". */
void sockaddr_print(const struct sockaddr_storage *address, char out[ENDPOINT_TEXT_BYTES]);

/* All return a descriptor, or -1 with errno. */
int socket_listen(const struct sockaddr_storage *at, int backlog);
int socket_accept(int listener);
/* The connection may still be under way when it returns. */
int socket_connect(const struct sockaddr_storage *to);
/* The same from one NIC. */
struct machine_interface;
int socket_connect_by(const struct machine_interface *nic, const struct sockaddr_storage *to);
/* The error with which a connection attempt ended; 0 when it stands. */
int socket_error(int fd);
void socket_close(int fd);

/* For a connection that stays: keep-alive, so that a silent host is noticed. */
void socket_keep(int fd);
/* The same, but the far kernel is asked every second; for one whose process does not read. socket_keep takes it back.
 * */
void socket_ask_often(int fd);
/* For one of several connections that are tried: a silent host is noticed within some 2 s. socket_keep takes it back.
 * */
void socket_watch(int fd);

#endif
