/* ibverbs.h - libibverbs, loaded at run time: the one door to it. Types are those of <infiniband/verbs.h>; where that
 * header is missing at build time (Debian: libibverbs-dev) the door is there and nobody is at home.
 *
 * Most data-path calls are inline functions of the header, through the device's own table: here they are members like the
 * others, so that tests can put a device of their own, or a fault, in the place of any of them. */
#ifndef RAIL_FOREIGN_IBVERBS_H
#define RAIL_FOREIGN_IBVERBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_include) && !defined(RAIL_WITHOUT_VERBS)
#if __has_include(<infiniband/verbs.h>)
#define RAIL_HAVE_VERBS 1
#include <infiniband/verbs.h>
/* Macros of the same names as members. */
#undef ibv_reg_mr
#undef ibv_query_port
#undef ibv_reg_mr_iova
#endif
#endif

struct ibv_device;
struct ibv_context;
struct ibv_device_attr;
struct ibv_port_attr;
struct ibv_async_event;
struct ibv_pd;
struct ibv_mr;
struct ibv_comp_channel;
struct ibv_cq;
struct ibv_qp;
struct ibv_qp_attr;
struct ibv_qp_init_attr;
struct ibv_send_wr;
struct ibv_recv_wr;
struct ibv_wc;
struct ibv_ece;

enum ibverbs_gid_kind { IBVERBS_GID_IB = 1, IBVERBS_GID_ROCE_V1 = 2, IBVERBS_GID_ROCE_V2 = 3 };

/* One entry of a port's table of addresses. */
struct ibverbs_gid {
    uint8_t raw[16];
    uint16_t index;
    uint8_t kind; /* enum ibverbs_gid_kind */
};

/* libibverbs' own contracts (man ibv_...), but for the errors: those that return int return 0 or a positive errno, those that
 * return a pointer NULL with errno. Any thread. */
struct ibverbs {
    int (*fork_init)(void);
    struct ibv_device **(*get_device_list)(int *n);
    void (*free_device_list)(struct ibv_device **list);
    const char *(*get_device_name)(struct ibv_device *device);
    struct ibv_context *(*open_device)(struct ibv_device *device);
    int (*close_device)(struct ibv_context *context);
    int (*query_device)(struct ibv_context *context, struct ibv_device_attr *out);
    int (*query_port)(struct ibv_context *context, uint8_t port, struct ibv_port_attr *out);
    int (*get_async_event)(struct ibv_context *context, struct ibv_async_event *out); /* blocks as the descriptor does */
    void (*ack_async_event)(struct ibv_async_event *event);
    struct ibv_pd *(*alloc_pd)(struct ibv_context *context);
    int (*dealloc_pd)(struct ibv_pd *pd);
    struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *base, size_t bytes, int access);
    int (*dereg_mr)(struct ibv_mr *mr);
    struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *context);
    int (*destroy_comp_channel)(struct ibv_comp_channel *channel);
    struct ibv_cq *(*create_cq)(struct ibv_context *context, int entries, void *user, struct ibv_comp_channel *channel,
                                int vector);
    int (*destroy_cq)(struct ibv_cq *cq);
    int (*get_cq_event)(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user);
    void (*ack_cq_events)(struct ibv_cq *cq, unsigned n);
    struct ibv_qp *(*create_qp)(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes);
    int (*modify_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask);
    int (*destroy_qp)(struct ibv_qp *qp);
    /* May be NULL: older libraries have none of them. */
    struct ibv_mr *(*reg_mr_iova2)(struct ibv_pd *pd, void *base, size_t bytes, uint64_t seen_at, unsigned access);
    int (*query_ece)(struct ibv_qp *qp, struct ibv_ece *out); /* EOPNOTSUPP: the provider has none */
    int (*set_ece)(struct ibv_qp *qp, struct ibv_ece *ece);
    int (*is_fork_initialized)(void); /* enum ibv_fork_status */
    /* Inline in the header. */
    int (*post_send)(struct ibv_qp *qp, struct ibv_send_wr *first, struct ibv_send_wr **bad);
    int (*post_recv)(struct ibv_qp *qp, struct ibv_recv_wr *first, struct ibv_recv_wr **bad);
    int (*poll_cq)(struct ibv_cq *cq, int room, struct ibv_wc *out); /* how many; negative: broken */
    int (*req_notify_cq)(struct ibv_cq *cq, int solicited_only);
    /* The port's addresses, in order of their index, as the kernel shows them in /sys; how many, at most `room`. */
    int (*gids)(const char *device, int port, struct ibverbs_gid *out, int room);
};

/* NULL when the library is not here, is not one, or was not known when this was built; *why_out then says so and what to
 * do. `path`: NULL for libibverbs.so.1. Any thread; the first call of the process loads, and what it loaded stays. */
const struct ibverbs *ibverbs_functions(const char *path, const char **why_out);

/* Tests: from now on this table is what ibverbs_functions() gives; NULL: the library again. */
void ibverbs_replace(const struct ibverbs *functions);

/* `gids` below another folder than "/sys"; for tests. */
int ibverbs_gids_below(const char *sys, const char *device, int port, struct ibverbs_gid *out, int room);

#endif
