/* counters.c - which file counts which trouble (counters.h). */
#include "transport/link/counters.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

enum folder { PORT, HARDWARE, FOLDERS };
static const char *const folders[FOLDERS] = {"counters", "hw_counters"};

/* Left out on purpose: names of which another one in the list counts the same events on the same driver. */
static const struct { enum folder folder; enum rdma_trouble trouble; const char *name; } files[] = {
    {HARDWARE, RDMA_SENT_AGAIN, "packet_seq_err"},              /* mlx5: the far end said that one is missing */
    {HARDWARE, RDMA_SENT_AGAIN, "local_ack_timeout_err"},       /* mlx5: nobody said anything */
    {HARDWARE, RDMA_SENT_AGAIN, "roce_adp_retrans"},            /* mlx5, adaptive retransmission: the same, earlier */
    {HARDWARE, RDMA_SENT_AGAIN, "to_retransmits"},              /* bnxt */
    {HARDWARE, RDMA_SENT_AGAIN, "seq_err_naks_rcvd"},           /* bnxt */
    {HARDWARE, RDMA_SENT_AGAIN, "completer_retry_err"},         /* Soft-RoCE */
    {HARDWARE, RDMA_OUT_OF_ORDER, "out_of_sequence"},           /* mlx5 */
    {HARDWARE, RDMA_OUT_OF_ORDER, "duplicate_request"},         /* mlx5, Soft-RoCE */
    {HARDWARE, RDMA_OUT_OF_ORDER, "oos_drop_count"},            /* bnxt */
    {HARDWARE, RDMA_OUT_OF_ORDER, "out_of_seq_request"},        /* Soft-RoCE */
    {HARDWARE, RDMA_NO_RECEIVE, "out_of_buffer"},               /* mlx5: here */
    {HARDWARE, RDMA_NO_RECEIVE, "rnr_nak_retry_err"},           /* mlx5: there */
    {HARDWARE, RDMA_NO_RECEIVE, "rnr_naks_rcvd"},               /* bnxt: there */
    {HARDWARE, RDMA_NO_RECEIVE, "send_rnr_err"},                /* Soft-RoCE: here */
    {HARDWARE, RDMA_NO_RECEIVE, "rcvd_rnr_err"},                /* Soft-RoCE: there */
    {HARDWARE, RDMA_GAVE_UP, "req_transport_retries_exceeded"}, /* mlx5 */
    {HARDWARE, RDMA_GAVE_UP, "max_retry_exceeded"},             /* bnxt */
    {HARDWARE, RDMA_GAVE_UP, "retry_exceeded_err"},             /* Soft-RoCE */
    {HARDWARE, RDMA_CONGESTION, "np_cnp_sent"},                 /* mlx5 */
    {HARDWARE, RDMA_CONGESTION, "rp_cnp_handled"},              /* mlx5 */
    {HARDWARE, RDMA_CONGESTION, "np_ecn_marked_roce_packets"},  /* mlx5 */
    {HARDWARE, RDMA_CONGESTION, "cnpSent"},                     /* irdma */
    {HARDWARE, RDMA_CONGESTION, "cnpHandled"},                  /* irdma */
    {HARDWARE, RDMA_CONGESTION, "RxECNMrkd"},                   /* irdma */
    {HARDWARE, RDMA_CONGESTION, "rx_ecn_marked_pkts"},          /* bnxt */
    {HARDWARE, RDMA_LINK_DOWNS, "link_downed"},                 /* Soft-RoCE */
    {PORT, RDMA_LINK_DOWNS, "link_downed"},
    {PORT, RDMA_BAD_SYMBOLS, "symbol_error"},
};
enum { N_FILES = sizeof files / sizeof *files };

static const struct { const char *one, *many; } words[RDMA_TROUBLES] = {
    [RDMA_SENT_AGAIN] = {"packet sent again", "packets sent again"},
    [RDMA_OUT_OF_ORDER] = {"packet out of order", "packets out of order"},
    [RDMA_NO_RECEIVE] = {"message without a receive", "messages without a receive"},
    [RDMA_GAVE_UP] = {"request given up", "requests given up"},
    [RDMA_CONGESTION] = {"notice of congestion", "notices of congestion"},
    [RDMA_LINK_DOWNS] = {"link failure", "link failures"},
    [RDMA_BAD_SYMBOLS] = {"symbol error", "symbol errors"},
};

/* Not stdio: no buffer is wanted for twenty bytes, and some drivers answer the second read with another number. */
static uint64_t number(int folder, const char *name)
{
    char text[32];
    int fd = folder < 0 ? -1 : openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0 || text[0] < '0' || text[0] > '9') return 0; /* "N/A (no PMA)" */
    text[n] = '\0';
    return strtoull(text, NULL, 10);
}

void rdma_counters_read(const char *root, const char *device, int port, struct rdma_counters *out)
{
    char path[1024];
    int at[FOLDERS];
    *out = (struct rdma_counters){{0}};
    for (int k = 0; k < FOLDERS; k++) {
        int n = snprintf(path, sizeof path, "%s/sys/class/infiniband/%s/ports/%d/%s", root, device, port, folders[k]);
        at[k] = n < (int)sizeof path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    }
    for (int i = 0; i < N_FILES; i++) out->n[files[i].trouble] += number(at[files[i].folder], files[i].name);
    for (int k = 0; k < FOLDERS; k++)
        if (at[k] >= 0) close(at[k]);
}

/* ---- by a thread ---- */

/* The thread's and its asker's; whoever leaves last frees it. */
struct rdma_reading {
    _Atomic int users;
    _Atomic bool done;
    char root[512], device[64];
    int port;
    struct rdma_counters counters;
};

void rdma_reading_leave(struct rdma_reading *r)
{
    if (r && atomic_fetch_sub(&r->users, 1) == 1) free(r);
}

static void *read_apart(void *argument)
{
    struct rdma_reading *r = argument;
    rdma_counters_read(r->root, r->device, r->port, &r->counters);
    atomic_store_explicit(&r->done, true, memory_order_release);
    rdma_reading_leave(r);
    return NULL;
}

static struct rdma_reading *reading_begin(const char *root, const char *device, int port)
{
    struct rdma_reading *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->port = port;
    atomic_init(&r->users, 2);
    snprintf(r->root, sizeof r->root, "%s", root);
    snprintf(r->device, sizeof r->device, "%s", device);
    if (rail_thread_start("reading an RDMA device's counters", read_apart, r, NULL) == RAIL_OK) return r;
    free(r);
    return NULL;
}

bool rdma_counters_read_within(uint64_t within_ns, const char *root, const char *device, int port,
                               struct rdma_reading **reading, struct rdma_counters *out)
{
    const struct timespec nap = {.tv_nsec = 50000}; /* a reading takes 100 us */
    struct rdma_reading *r = *reading;
    if (r && !atomic_load_explicit(&r->done, memory_order_acquire)) return false;
    rdma_reading_leave(r); /* late, hence old */
    *reading = r = reading_begin(root, device, port);
    struct rail_deadline deadline = rail_deadline_in_ns(within_ns);
    while (r && !atomic_load_explicit(&r->done, memory_order_acquire)) {
        if (rail_deadline_passed(deadline)) return false;
        nanosleep(&nap, NULL);
    }
    if (r) *out = r->counters;
    return r != NULL;
}

/* ---- in words ---- */

void rdma_counters_text(const struct rdma_counters *before, const struct rdma_counters *now, char *out)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < RDMA_TROUBLES; i++) {
        uint64_t more = now->n[i] > before->n[i] ? now->n[i] - before->n[i] : 0;
        if (more == 0 || used >= RDMA_COUNTERS_TEXT) continue;
        int n = snprintf(out + used, RDMA_COUNTERS_TEXT - used, "%s%" PRIu64 " %s", used ? ", " : "", more,
                         more == 1 ? words[i].one : words[i].many);
        used += n > 0 ? (size_t)n : 0;
    }
}
