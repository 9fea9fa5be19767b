/* ibverbs.c - loads libibverbs.so.1 on first use; reads ports' addresses from /sys. */
#include "foreign/ibverbs.h"

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- addresses ---- */

static bool read_line(const char *path, char *out, int bytes)
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(out, bytes, f) != NULL; /* an entry that is not in use is a file that cannot be read */
    fclose(f);
    if (ok) out[strcspn(out, "\n")] = '\0';
    return ok;
}

/* "fe80:0000:0000:0000:0202:c9ff:fe00:0001": always eight groups of four. */
static bool parse_gid(const char *text, uint8_t out[16])
{
    unsigned g[8];
    if (sscanf(text, "%4x:%4x:%4x:%4x:%4x:%4x:%4x:%4x", &g[0], &g[1], &g[2], &g[3], &g[4], &g[5], &g[6], &g[7]) != 8)
        return false;
    for (int i = 0; i < 8; i++) {
        out[2 * i] = (uint8_t)(g[i] >> 8);
        out[2 * i + 1] = (uint8_t)g[i];
    }
    return true;
}

static bool read_gid(const char *ports, int index, struct ibverbs_gid *out)
{
    static const uint8_t none[16];
    char path[512], line[64], kind[64] = "";
    snprintf(path, sizeof path, "%s/gids/%d", ports, index);
    if (!read_line(path, line, sizeof line) || !parse_gid(line, out->raw) || memcmp(out->raw, none, 16) == 0) return false;
    snprintf(path, sizeof path, "%s/gid_attrs/types/%d", ports, index);
    if (!read_line(path, kind, sizeof kind)) kind[0] = '\0';
    out->index = (uint16_t)index;
    out->kind = IBVERBS_GID_IB;
    if (strcmp(kind, "RoCE v2") == 0) {
        out->kind = IBVERBS_GID_ROCE_V2;
        return true;
    }
    /* The kernel says "IB/RoCE v1" of both. */
    snprintf(path, sizeof path, "%s/link_layer", ports);
    if (read_line(path, line, sizeof line) && strcmp(line, "Ethernet") == 0) out->kind = IBVERBS_GID_ROCE_V1;
    return true;
}

int ibverbs_gids_below(const char *sys, const char *device, int port, struct ibverbs_gid *out, int room)
{
    enum { GIDS_MAX = 256, UNUSED_MAX = 32 }; /* the largest table of a device is 255 */
    char ports[256], path[300];
    int n = 0;
    if (snprintf(ports, sizeof ports, "%s/class/infiniband/%s/ports/%d", sys, device, port) >= (int)sizeof ports) return 0;
    snprintf(path, sizeof path, "%s/gids", ports);
    DIR *folder = opendir(path);
    if (!folder) return 0;
    int entries = 0;
    while (readdir(folder)) entries++;
    closedir(folder);
    /* Tables are filled from the front, with holes where addresses went. */
    for (int i = 0, unused = 0; i < entries && i < GIDS_MAX && n < room && unused < UNUSED_MAX; i++) {
        bool used = read_gid(ports, i, &out[n]);
        n += used;
        unused = used ? 0 : unused + 1;
    }
    return n;
}

/* ---- the library ---- */

static _Atomic(const struct ibverbs *) replaced;

void ibverbs_replace(const struct ibverbs *functions) { atomic_store(&replaced, functions); }

#ifdef RAIL_HAVE_VERBS

static struct ibverbs functions;
static char trouble[300];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool loaded; /* under `lock` */

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *first, struct ibv_send_wr **bad)
{
    return qp->context->ops.post_send(qp, first, bad);
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *first, struct ibv_recv_wr **bad)
{
    return qp->context->ops.post_recv(qp, first, bad);
}

static int poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *out) { return cq->context->ops.poll_cq(cq, room, out); }

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    return cq->context->ops.req_notify_cq(cq, solicited_only);
}

static int gids(const char *device, int port, struct ibverbs_gid *out, int room)
{
    return ibverbs_gids_below("/sys", device, port, out, room);
}

/* What is missing of these costs a feature. */
#define OPTIONAL(name) {"ibv_" #name, offsetof(struct ibverbs, name), true}
#define FUNCTION(name) {"ibv_" #name, offsetof(struct ibverbs, name), false}

static const struct { const char *name; size_t at; bool optional; } names[] = {
    FUNCTION(fork_init),           FUNCTION(get_device_list),      FUNCTION(free_device_list),
    FUNCTION(get_device_name),     FUNCTION(open_device),          FUNCTION(close_device),
    FUNCTION(query_device),        FUNCTION(query_port),           FUNCTION(get_async_event),
    FUNCTION(ack_async_event),     FUNCTION(alloc_pd),             FUNCTION(dealloc_pd),
    FUNCTION(reg_mr),              FUNCTION(dereg_mr),             FUNCTION(create_comp_channel),
    FUNCTION(destroy_comp_channel), FUNCTION(create_cq),           FUNCTION(destroy_cq),
    FUNCTION(get_cq_event),        FUNCTION(ack_cq_events),        FUNCTION(create_qp),
    FUNCTION(modify_qp),           FUNCTION(destroy_qp),           OPTIONAL(reg_mr_iova2),
    OPTIONAL(query_ece),           OPTIONAL(set_ece),              OPTIONAL(is_fork_initialized),
};

/* The library's ibv_query_port fills the first part of the structure only (what follows came with later headers): callers
 * hand it one of zeros. */
static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(trouble, sizeof trouble, "%.200s (Debian: libibverbs1 and ibverbs-providers)",
                 error ? error : "libibverbs cannot be loaded");
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i].name);
        if (!function && !names[i].optional && !trouble[0])
            snprintf(trouble, sizeof trouble, "%.100s has no %s: it is no libibverbs, or a very old one", path,
                     names[i].name);
        memcpy((char *)&functions + names[i].at, &function, sizeof function);
    }
    functions.post_send = post_send;
    functions.post_recv = post_recv;
    functions.poll_cq = poll_cq;
    functions.req_notify_cq = req_notify_cq;
    functions.gids = gids;
}

const struct ibverbs *ibverbs_functions(const char *path, const char **why_out)
{
    const struct ibverbs *instead = atomic_load(&replaced);
    *why_out = "";
    if (instead) return instead;
    pthread_mutex_lock(&lock);
    if (!loaded) load(path && path[0] ? path : "libibverbs.so.1");
    loaded = true;
    pthread_mutex_unlock(&lock);
    *why_out = trouble;
    return trouble[0] ? NULL : &functions;
}

#else

const struct ibverbs *ibverbs_functions(const char *path, const char **why_out)
{
    (void)path;
    *why_out = "this railccl was built without infiniband/verbs.h (Debian: libibverbs-dev)";
    return atomic_load(&replaced);
}

#endif
