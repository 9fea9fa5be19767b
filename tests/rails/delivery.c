/* delivery.c - see delivery.h. One thread, one lock: the thread looks, the rank's own thread begins and ends calls. */
#include "delivery.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_BUCKETS = 18000 /* half an hour */, MOST_NICS = 16, NAME_BYTES = 16, MOST_GAPS = 4096 };
#define GAP_NS UINT64_C(20000000) /* what is listed: four looks */
static const uint32_t poison = 0xfa57a17eu; /* a word of data may be equal by chance, once in 4 billion; it is counted at the end */

struct nic {
    char name[NAME_BYTES];
    uint64_t last_rx, last_tx;
    uint32_t *rx_kib, *tx_kib; /* per bucket */
};

struct gap {
    uint64_t at_ns, ns;
    uint32_t call;
};

struct delivery {
    struct board_rank *board;
    pthread_mutex_t lock; /* everything below */
    bool counts_nics;
    uint64_t first_bucket, nic_bucket;
    /* The call in progress. */
    volatile uint8_t *receive;
    size_t bytes, mark_bytes, n_left;
    uint32_t *left; /* marks that are still poisoned; NULL before the first call */
    size_t room;
    uint32_t call;
    uint64_t looked_ns, moved_ns;
    /* Over all calls. */
    uint64_t blind_ns;
    struct gap longest, *gaps; /* gaps: MOST_GAPS */
    int n_gaps;
    int n_buckets;
    uint64_t *delivered, *calling_ns;
    struct nic nics[MOST_NICS];
    int n_nics;
};

uint64_t delivery_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int bucket_at(struct delivery *d, uint64_t ns)
{
    uint64_t bucket = ns / (BUCKET_MS * UINT64_C(1000000)) - d->first_bucket;
    if (bucket >= MOST_BUCKETS) return MOST_BUCKETS - 1;
    if ((int)bucket >= d->n_buckets) d->n_buckets = (int)bucket + 1;
    return (int)bucket;
}

static uint32_t mark_read(const struct delivery *d, size_t index)
{
    return *(volatile uint32_t *)(d->receive + index * d->mark_bytes);
}

/* What has come since the last look. */
static void look(struct delivery *d)
{
    uint64_t now = delivery_now_ns(), span = now - d->looked_ns;
    size_t before = d->n_left, kept = 0;
    if (!before) return;
    for (size_t i = 0; i < before; i++)
        if (mark_read(d, d->left[i]) == poison) d->left[kept++] = d->left[i];
    d->n_left = kept;
    int bucket = bucket_at(d, now);
    d->calling_ns[bucket] += span;
    if (span > d->blind_ns) d->blind_ns = span;
    d->looked_ns = now;
    struct gap gap = {.at_ns = d->moved_ns, .ns = now - d->moved_ns, .call = d->call};
    if (gap.ns > d->longest.ns) d->longest = gap;
    if (kept == before) return;
    if (gap.ns >= GAP_NS && d->n_gaps < MOST_GAPS) d->gaps[d->n_gaps++] = gap;
    d->delivered[bucket] += (before - kept) * d->mark_bytes;
    d->moved_ns = now;
    atomic_store(&d->board->moved_ns, now);
    atomic_store(&d->board->delivered, d->bytes - kept * d->mark_bytes);
}

static struct nic *nic_of(struct delivery *d, const char *name)
{
    for (int i = 0; i < d->n_nics; i++)
        if (strcmp(d->nics[i].name, name) == 0) return &d->nics[i];
    if (d->n_nics == MOST_NICS) return NULL;
    struct nic *nic = &d->nics[d->n_nics];
    nic->rx_kib = calloc(MOST_BUCKETS, sizeof *nic->rx_kib);
    nic->tx_kib = calloc(MOST_BUCKETS, sizeof *nic->tx_kib);
    if (!nic->rx_kib || !nic->tx_kib) return NULL;
    snprintf(nic->name, sizeof nic->name, "%.15s", name);
    d->n_nics++;
    return nic;
}

/* /proc/net/dev: after two lines of heading "name: rx_bytes and 7 numbers, tx_bytes ..." per interface. */
static void look_at_nics(struct delivery *d, bool first)
{
    char line[512];
    FILE *f = fopen("/proc/net/dev", "re");
    int bucket = bucket_at(d, delivery_now_ns() - BUCKET_MS * UINT64_C(500000)); /* the one that has just ended */
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':'), *name = line;
        if (!colon) continue;
        *colon = 0;
        while (isspace((unsigned char)*name)) name++;
        unsigned long long rx, tx;
        if (strcmp(name, "lo") == 0 || sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &rx, &tx) != 2) continue;
        struct nic *nic = nic_of(d, name);
        if (!nic) continue;
        /* What is new, or counts from 0 again, is another interface. */
        if (!first && nic->last_rx && rx >= nic->last_rx && tx >= nic->last_tx) {
            nic->rx_kib[bucket] += (uint32_t)((rx - nic->last_rx) / 1024);
            nic->tx_kib[bucket] += (uint32_t)((tx - nic->last_tx) / 1024);
        }
        nic->last_rx = rx ? rx : 1;
        nic->last_tx = tx;
    }
    if (f) fclose(f);
}

static void *watch(void *argument)
{
    struct delivery *d = argument;
    for (uint64_t next = delivery_now_ns();; next += SAMPLE_NS) {
        uint64_t now = delivery_now_ns();
        if (next < now) next = now;
        struct timespec at = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        pthread_mutex_lock(&d->lock);
        look(d);
        uint64_t bucket = delivery_now_ns() / (BUCKET_MS * UINT64_C(1000000));
        if (d->counts_nics && bucket != d->nic_bucket) {
            d->nic_bucket = bucket;
            look_at_nics(d, false);
        }
        pthread_mutex_unlock(&d->lock);
    }
    return NULL;
}

struct delivery *delivery_start(struct board_rank *board, bool counts_nics)
{
    pthread_t thread;
    struct delivery *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->board = board;
    d->counts_nics = counts_nics;
    d->first_bucket = d->nic_bucket = delivery_now_ns() / (BUCKET_MS * UINT64_C(1000000));
    d->delivered = calloc(MOST_BUCKETS, sizeof *d->delivered);
    d->calling_ns = calloc(MOST_BUCKETS, sizeof *d->calling_ns);
    d->gaps = calloc(MOST_GAPS, sizeof *d->gaps);
    if (!d->delivered || !d->calling_ns || !d->gaps) return NULL; /* the program ends then */
    if (counts_nics) look_at_nics(d, true);
    pthread_mutex_init(&d->lock, NULL);
    if (pthread_create(&thread, NULL, watch, d)) return NULL;
    pthread_detach(thread); /* it lives as long as the process */
    return d;
}

void delivery_begin(struct delivery *d, void *receive, size_t bytes, uint32_t call)
{
    size_t mark_bytes = bytes / SMALLEST_MARKS / 4 * 4;
    if (mark_bytes > MARK_BYTES) mark_bytes = MARK_BYTES;
    if (mark_bytes < 4) mark_bytes = 4;
    size_t n = bytes / mark_bytes;
    pthread_mutex_lock(&d->lock);
    if (n > d->room) {
        free(d->left);
        d->left = malloc(n * sizeof *d->left);
        d->room = d->left ? n : 0;
    }
    if (n > d->room) n = 0; /* nothing is watched: total says so */
    d->receive = receive;
    d->bytes = n * mark_bytes;
    d->mark_bytes = mark_bytes;
    d->n_left = n;
    d->call = call;
    for (size_t i = 0; i < n; i++) {
        d->left[i] = (uint32_t)i;
        *(volatile uint32_t *)(d->receive + i * mark_bytes) = poison;
    }
    d->looked_ns = d->moved_ns = delivery_now_ns();
    atomic_store(&d->board->delivered, 0);
    atomic_store(&d->board->total, d->bytes);
    atomic_store(&d->board->moved_ns, d->moved_ns);
    atomic_store(&d->board->call, call);
    atomic_store(&d->board->phase, BOARD_CALL);
    pthread_mutex_unlock(&d->lock);
}

void delivery_end(struct delivery *d)
{
    pthread_mutex_lock(&d->lock);
    look(d);
    d->n_left = 0;
    pthread_mutex_unlock(&d->lock);
}

void delivery_print(struct delivery *d, FILE *out)
{
    pthread_mutex_lock(&d->lock);
    fprintf(out, "\"gap_ms\": %.1f, \"gap_at_s\": %.3f, \"gap_call\": %u, \"blind_ms\": %.1f, \"gaps\": [", (double)d->longest.ns / 1e6,
            (double)d->longest.at_ns / 1e9, d->longest.call, (double)d->blind_ns / 1e6);
    for (int i = 0; i < d->n_gaps; i++)
        fprintf(out, "%s[%.3f,%.1f,%u]", i ? "," : "", (double)d->gaps[i].at_ns / 1e9, (double)d->gaps[i].ns / 1e6, d->gaps[i].call);
    /* One that has not ended: a failed call. */
    if (d->n_left)
        fprintf(out, "%s[%.3f,%.1f,%u]", d->n_gaps ? "," : "", (double)d->moved_ns / 1e9, (double)(d->looked_ns - d->moved_ns) / 1e6, d->call);
    fprintf(out, "], \"bucket_ms\": %d, \"first_bucket\": %llu", BUCKET_MS, (unsigned long long)d->first_bucket);
    fputs(", \"delivered\": [", out);
    for (int i = 0; i < d->n_buckets; i++) fprintf(out, "%s%llu", i ? "," : "", (unsigned long long)d->delivered[i]);
    fputs("], \"calling_ms\": [", out);
    for (int i = 0; i < d->n_buckets; i++) fprintf(out, "%s%.1f", i ? "," : "", (double)d->calling_ns[i] / 1e6);
    fputs("], \"nics\": {", out);
    for (int k = 0; k < d->n_nics; k++) {
        fprintf(out, "%s\"%s\": {\"rx_kib\": [", k ? ", " : "", d->nics[k].name);
        for (int i = 0; i < d->n_buckets; i++) fprintf(out, "%s%u", i ? "," : "", d->nics[k].rx_kib[i]);
        fputs("], \"tx_kib\": [", out);
        for (int i = 0; i < d->n_buckets; i++) fprintf(out, "%s%u", i ? "," : "", d->nics[k].tx_kib[i]);
        fputs("]}", out);
    }
    fputs("}", out);
    pthread_mutex_unlock(&d->lock);
}
