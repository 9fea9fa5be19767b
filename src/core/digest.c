/* digest.c - see digest.h. */
#include "core/digest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/params.h"
#include "device/host.h"
#include "engine/signature.h"
#include "topo/machine.h"

struct record {
    uint64_t signature, digest;
    uint64_t chain; /* over all shared results up to here */
};

struct digest {
    uint32_t rank, n_ranks;
    uint32_t ordinal; /* communicators of this rank number and size that the process made before */
    bool compared;    /* RAILCCL_DIGEST: with the other ranks, at the end */
    uint64_t calls;
    uint64_t chain;
    FILE *file;       /* NULL: none */
    struct record kept[DIGEST_KEPT]; /* call n at n modulo DIGEST_KEPT; calls count from 1 */
};

/* ---- the file ---- */

/* %h, %p, %r, %%. */
static void expand(const char *pattern, uint32_t rank, char *out, size_t bytes)
{
    size_t at = 0;
    for (const char *p = pattern; *p && at + 1 < bytes; p++) {
        int n;
        if (p[0] == '%' && p[1] == 'h') n = snprintf(out + at, bytes - at, "%s", machine_host_name());
        else if (p[0] == '%' && p[1] == 'p') n = snprintf(out + at, bytes - at, "%ld", (long)getpid());
        else if (p[0] == '%' && p[1] == 'r') n = snprintf(out + at, bytes - at, "%u", rank);
        else n = snprintf(out + at, bytes - at, "%c", *p);
        if (p[0] == '%' && p[1] && strchr("hpr%", p[1])) p++;
        at += (size_t)n;
    }
    out[at < bytes ? at : bytes - 1] = 0;
}

static FILE *file_open(uint32_t rank)
{
    char path[4096];
    const char *pattern = rail_param_str(RAIL_PARAM_DIGEST_FILE);
    if (!pattern) return NULL;
    expand(pattern, rank, path, sizeof path);
    FILE *file = fopen(path, "ae");
    if (!file) RAIL_WARN("RAILCCL_DIGEST_FILE: fopen(%.200s): %s; no digests are written", path, strerror(errno));
    return file;
}

/* Runs name communicators alike: by the order in which a rank of this number and size made them. */
static uint32_t ordinal_of(uint32_t rank, uint32_t n_ranks)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects made */
    static uint32_t made[1024];
    uint32_t place = (rank * 31 + n_ranks) % (sizeof made / sizeof *made);
    pthread_mutex_lock(&lock);
    uint32_t ordinal = made[place]++;
    pthread_mutex_unlock(&lock);
    return ordinal;
}

struct digest *digest_open(uint32_t rank, uint32_t n_ranks)
{
    bool compared = rail_param_bool(RAIL_PARAM_DIGEST);
    if (!compared && !rail_param_str(RAIL_PARAM_DIGEST_FILE)) return NULL;
    struct digest *d = calloc(1, sizeof *d);
    if (!d) {
        RAIL_WARN("RAILCCL_DIGEST: out of memory; no digests are kept");
        return NULL;
    }
    d->rank = rank;
    d->n_ranks = n_ranks;
    d->compared = compared && n_ranks > 1;
    d->ordinal = ordinal_of(rank, n_ranks);
    d->file = file_open(rank);
    return d;
}

void digest_close(struct digest *d)
{
    if (d && d->file) fclose(d->file);
    free(d);
}

static void line_write(struct digest *d, const struct record *r, bool got)
{
    char words[96], digest[20] = "-";
    signature_describe(r->signature, words, sizeof words);
    if (got) snprintf(digest, sizeof digest, "%016llx", (unsigned long long)r->digest);
    fprintf(d->file, "%u %u/%u %llu %s %s\n", d->ordinal, d->rank, d->n_ranks, (unsigned long long)d->calls, digest,
            words);
    fflush(d->file); /* a job that dies is the one whose digests are wanted */
}

void digest_note(struct digest *d, uint64_t signature, const void *output, size_t bytes, bool shared)
{
    struct record *r = &d->kept[++d->calls % DIGEST_KEPT];
    r->signature = signature;
    r->digest = bytes ? rail_digest(output, bytes) : 0;
    uint64_t link[3] = {d->chain, signature, r->digest};
    if (shared) d->chain = rail_hash64(link, sizeof link, d->calls);
    r->chain = d->chain;
    if (d->file) line_write(d, r, bytes != 0);
}

/* ---- comparing ---- */

struct summary {
    uint64_t calls, chain;
};

/* [n_ranks] of what each rank says. */
static enum rail_result ask(struct digest *d, struct bootstrap *bootstrap, struct rail_deadline deadline,
                            const struct summary *mine, struct summary *all)
{
    all[d->rank] = *mine;
    return bootstrap_allgather(bootstrap, all, sizeof *all, deadline);
}

static bool alike(const struct digest *d, const struct summary *all)
{
    for (uint32_t r = 1; r < d->n_ranks; r++)
        if (all[r].chain != all[0].chain) return false;
    return true;
}

/* The first call of (low, high] at which chains differ; they do at high. */
static enum rail_result search(struct digest *d, struct bootstrap *bootstrap, struct rail_deadline deadline,
                               struct summary *all, uint64_t low, uint64_t *high)
{
    while (*high - low > 1) {
        uint64_t middle = low + (*high - low) / 2;
        struct summary mine = {middle, d->kept[middle % DIGEST_KEPT].chain};
        RAIL_TRY(ask(d, bootstrap, deadline, &mine, all));
        if (alike(d, all)) low = middle;
        else *high = middle;
    }
    return RAIL_OK;
}

/* The digest that most ranks have; of equally many, the lowest rank's. */
static uint64_t most_common(const struct digest *d, const struct summary *all)
{
    uint32_t most = 0;
    uint64_t digest = 0;
    for (uint32_t r = 0; r < d->n_ranks; r++) {
        uint32_t n = 0;
        for (uint32_t k = 0; k < d->n_ranks; k++) n += all[k].chain == all[r].chain;
        if (n > most) most = n, digest = all[r].chain;
    }
    return digest;
}

static enum rail_result name_difference(const struct digest *d, const struct summary *all, uint64_t call, bool older)
{
    char words[96], ranks[160] = "";
    uint64_t common = most_common(d, all);
    signature_describe(d->kept[call % DIGEST_KEPT].signature, words, sizeof words);
    uint32_t n = 0;
    size_t at = 0;
    for (uint32_t r = 0; r < d->n_ranks; r++) {
        if (all[r].chain == common) continue;
        if (at < sizeof ranks - 32) at += (size_t)snprintf(ranks + at, sizeof ranks - at, "%s%u", n ? ", " : "", r);
        n++;
    }
    if (at >= sizeof ranks - 32) snprintf(ranks + at, sizeof ranks - at, " ... (%u in all)", n);
    return rail_fail(RAIL_E_INTERNAL, "RAILCCL_DIGEST: results that must agree differ: %s call %llu, %s: %s %s, not what "
                     "the other ranks have", older ? "at or before" : "first at", (unsigned long long)call, words,
                     n == 1 ? "rank" : "ranks", ranks);
}

static enum rail_result compare(struct digest *d, struct bootstrap *bootstrap, struct rail_deadline deadline,
                                struct summary *all, bool *differ)
{
    struct summary mine = {d->calls, d->chain};
    RAIL_TRY(ask(d, bootstrap, deadline, &mine, all));
    uint64_t last = all[0].calls, most = last;
    for (uint32_t r = 1; r < d->n_ranks; r++) {
        last = all[r].calls < last ? all[r].calls : last;
        most = all[r].calls > most ? all[r].calls : most;
    }
    /* that every rank still has; 0: before the first */
    uint64_t oldest = most >= DIGEST_KEPT ? most - DIGEST_KEPT + 1 : 0;
    if (alike(d, all) || last <= oldest) return RAIL_OK;
    mine = (struct summary){last, d->kept[last % DIGEST_KEPT].chain};
    RAIL_TRY(ask(d, bootstrap, deadline, &mine, all));
    if (alike(d, all)) return RAIL_OK; /* only numbers of calls differ */
    mine = (struct summary){oldest, oldest ? d->kept[oldest % DIGEST_KEPT].chain : 0};
    RAIL_TRY(ask(d, bootstrap, deadline, &mine, all));
    bool older = !alike(d, all);
    uint64_t first = older ? oldest : last;
    if (!older) RAIL_TRY(search(d, bootstrap, deadline, all, oldest, &first));
    mine = (struct summary){first, older ? d->kept[first % DIGEST_KEPT].chain : d->kept[first % DIGEST_KEPT].digest};
    RAIL_TRY(ask(d, bootstrap, deadline, &mine, all));
    *differ = true;
    return name_difference(d, all, first, older);
}

enum rail_result digest_compare(struct digest *d, struct bootstrap *bootstrap, struct rail_deadline deadline)
{
    bool differ = false;
    if (!d || !d->compared) return RAIL_OK;
    struct summary *all = calloc(d->n_ranks, sizeof *all);
    enum rail_result result = all ? compare(d, bootstrap, deadline, all, &differ) : RAIL_E_SYSTEM;
    free(all);
    d->compared = result == RAIL_OK; /* once told, or not met, is enough */
    if (differ) return result;
    if (result != RAIL_OK)
        RAIL_WARN("RAILCCL_DIGEST: not all ranks closed the communicator in time: results were not compared");
    else
        RAIL_INFO(RAIL_COLL, "RAILCCL_DIGEST: results of %llu calls agree (%016llx)", (unsigned long long)d->calls,
                  (unsigned long long)d->chain);
    return RAIL_OK;
}
