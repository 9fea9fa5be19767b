/* rdmacm.h - librdmacm, loaded at run time: the one door to it. Types are those of <rdma/rdma_cma.h>; where that header
 * is missing at build time (Debian: librdmacm-dev) the door is there and nobody is at home.
 *
 * Only what connects queue pairs that the caller has made: the manager says what they are to be set to
 * (init_qp_attr), and carries numbers and private data between the two ends. */
#ifndef RAIL_FOREIGN_RDMACM_H
#define RAIL_FOREIGN_RDMACM_H

#include "foreign/ibverbs.h"

#if defined(RAIL_HAVE_VERBS) && !defined(RAIL_WITHOUT_RDMACM)
#if __has_include(<rdma/rdma_cma.h>)
#define RAIL_HAVE_RDMACM 1
#include <rdma/rdma_cma.h>
#endif
#endif

#ifdef RAIL_HAVE_RDMACM

/* librdmacm's own contracts (man rdma_...): those that return int return 0 or -1 with errno. Any thread. */
struct rdmacm {
    struct rdma_event_channel *(*create_event_channel)(void); /* NULL with errno */
    void (*destroy_event_channel)(struct rdma_event_channel *channel);
    int (*create_id)(struct rdma_event_channel *channel, struct rdma_cm_id **out, void *context,
                     enum rdma_port_space space);
    int (*destroy_id)(struct rdma_cm_id *id); /* waits until its events are acknowledged */
    int (*bind_addr)(struct rdma_cm_id *id, struct sockaddr *address);
    int (*listen)(struct rdma_cm_id *id, int backlog);
    uint16_t (*get_src_port)(struct rdma_cm_id *id); /* in network order */
    int (*resolve_addr)(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int timeout_ms);
    int (*resolve_route)(struct rdma_cm_id *id, int timeout_ms);
    int (*connect)(struct rdma_cm_id *id, struct rdma_conn_param *parameters);
    int (*accept)(struct rdma_cm_id *id, struct rdma_conn_param *parameters);
    int (*reject)(struct rdma_cm_id *id, const void *data, uint8_t bytes);
    int (*establish)(struct rdma_cm_id *id);
    int (*init_qp_attr)(struct rdma_cm_id *id, struct ibv_qp_attr *attributes, int *mask);
    int (*get_cm_event)(struct rdma_event_channel *channel, struct rdma_cm_event **out); /* may block, as the fd may */
    int (*ack_cm_event)(struct rdma_cm_event *event);
};

#else
struct rdmacm;
#endif

/* NULL when the library is not here, is not one, or was not known when this was built; *why_out then says so and what
 * to do. Any thread; the first call of the process loads, and what it loaded stays. */
const struct rdmacm *rdmacm_functions(const char **why_out);

/* Tests: from now on this table is what rdmacm_functions() gives; NULL: the library again. */
void rdmacm_replace(const struct rdmacm *functions);

#endif
