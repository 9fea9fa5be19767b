/* calls.c - comparing what ranks called. */
#include "engine/calls.h"

#include <stdio.h>

#include "engine/signature.h"

/* Ranks whose calls are compared with all others' to find whom to name: a millisecond. */
enum { NAMED_AMONG = 16 };

#define REMEDY "All ranks must make the same calls in the same order"

void calls_close(struct host_node *node)
{
    struct shm_calls *mine = &node->segment.controls[node->self].calls;
    uint64_t made = atomic_load_explicit(&mine->number, memory_order_acquire); /* by a GPU's kernels, perhaps */
    atomic_store_explicit(&mine->closed, made + 1, memory_order_release);
    shm_notify_all(&node->segment);
}

/* The slot of a call is written before its number: a copy during which the number stood still is right but for the slot
 * of the next call, which calls_compare leaves out. */
void calls_history_of(const struct host_node *node, uint32_t peer, struct calls_history *out)
{
    const struct shm_calls *calls = &node->segment.controls[peer].calls;
    *out = (struct calls_history){.rank = node->ranks[peer]};
    out->closed = atomic_load_explicit(&calls->closed, memory_order_acquire);
    for (int attempt = 0; attempt < 8; attempt++) { /* a rank that begins calls this fast is not the one in trouble */
        uint64_t number = atomic_load_explicit(&calls->number, memory_order_acquire);
        for (int i = 0; i < SHM_CALLS; i++)
            out->signature[i] = atomic_load_explicit(&calls->signature[i], memory_order_acquire);
        uint64_t left_ns = atomic_load_explicit(&calls->left_ns, memory_order_acquire), now_ns = rail_now_coarse_ns();
        if (atomic_load_explicit(&calls->number, memory_order_acquire) != number) continue;
        out->number = number;
        if (left_ns) out->left_ms = 1 + (uint32_t)((now_ns > left_ns ? now_ns - left_ns : 0) / RAIL_NS_PER_MS);
        return;
    }
}

/* In the order of the ranks, whoever finds it. */
static enum rail_result differ(uint64_t number, uint32_t rank_a, uint64_t a, uint32_t rank_b, uint64_t b)
{
    char one[96], other[96];
    if (rank_a > rank_b) return differ(number, rank_b, b, rank_a, a);
    signature_describe(a, one, sizeof one);
    signature_describe(b, other, sizeof other);
    return rail_fail(RAIL_E_USAGE, "ranks called different things: rank %u: %s; rank %u: %s (call %llu of this "
                     "communicator). " REMEDY, rank_a, one, rank_b, other, (unsigned long long)number);
}

/* `a` waits in a call that `b` closed its communicator without. */
static enum rail_result closed(const struct calls_history *a, const struct calls_history *b)
{
    char text[96];
    signature_describe(a->signature[a->number % SHM_CALLS], text, sizeof text);
    return rail_fail(RAIL_E_USAGE, "rank %u closed its communicator after %llu calls; rank %u waits for it in call "
                     "%llu: %s. " REMEDY, b->rank, (unsigned long long)b->closed - 1, a->rank, (unsigned long long)a->number,
                     text);
}

enum rail_result calls_compare(const struct calls_history *a, const struct calls_history *b)
{
    uint64_t last = a->number < b->number ? a->number : b->number, most = a->number + b->number - last;
    uint64_t first = most > SHM_CALLS - 2 ? most - (SHM_CALLS - 2) : 1;
    for (uint64_t n = first; n <= last; n++)
        if (a->signature[n % SHM_CALLS] != b->signature[n % SHM_CALLS])
            return differ(n, b->rank, b->signature[n % SHM_CALLS], a->rank, a->signature[n % SHM_CALLS]);
    if (b->closed && a->number >= b->closed) return closed(a, b);
    return RAIL_OK;
}

/* All who find it name the same two, as far as those have called by then: the first rank that differs from another. */
__attribute__((cold)) static enum rail_result name_first(const struct host_node *node, enum rail_result mine)
{
    uint32_t n = node->segment.geometry.n_peers, most = n < NAMED_AMONG ? n : NAMED_AMONG;
    struct calls_history a, b;
    char text[400];
    snprintf(text, sizeof text, "%s", rail_own_error());
    for (uint32_t p = 0; p < most; p++) {
        calls_history_of(node, p, &a);
        for (uint32_t q = p + 1; q < n; q++) {
            calls_history_of(node, q, &b);
            enum rail_result result = calls_compare(&a, &b);
            if (result == RAIL_OK) result = calls_compare(&b, &a);
            if (result != RAIL_OK) return result;
        }
    }
    return rail_fail_quietly(mine, "%s", text);
}

enum rail_result calls_compare_node(const struct host_node *node)
{
    struct calls_history mine, theirs;
    calls_history_of(node, node->self, &mine);
    for (uint32_t p = 0; p < node->segment.geometry.n_peers; p++) {
        calls_history_of(node, p, &theirs);
        enum rail_result result = calls_compare(&mine, &theirs);
        if (result != RAIL_OK) return name_first(node, result);
    }
    return RAIL_OK;
}

/* A peer's data may be of a later call than mine: then the calls of the same number tell better what went wrong. */
enum rail_result calls_differ(const struct host_node *node, uint32_t rank, uint64_t theirs, uint64_t mine)
{
    enum rail_result better = calls_compare_node(node);
    return better != RAIL_OK ? better : differ(node->calls, rank, theirs, node->ranks[node->self], mine);
}

enum rail_result calls_diverged(const struct host_node *node, uint32_t rank)
{
    enum rail_result better = calls_compare_node(node);
    if (better != RAIL_OK) return better;
    return rail_fail(RAIL_E_USAGE, "ranks called different things: rank %u and rank %u, more than %d calls before call "
                     "%llu of this communicator. " REMEDY, rank, node->ranks[node->self], SHM_CALLS - 2,
                     (unsigned long long)node->calls);
}
