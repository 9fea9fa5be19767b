/* derive.c - see derive.h.
 *
 *   split   all-gather (color, key) over the parent's tree; whoever gave my color is a member, ordered by key, then rank
 *   shrink  nothing is exchanged: everybody computes the members from its own list, and so the parent's tree may be cut
 *   grow    all-gather the id that one member made over the parent's tree; then all join by id, the new ranks too
 *
 * A revocation ends the parent's tree. To split or grow what was revoked all its members first make one anew, as in
 * shrink with nobody left out, and exchange over that.
 *
 * The new secret is a keyed hash of the parent's over what makes the members what they are. So members who disagree have
 * different secrets and do not find one another, and nobody else can join. */
#include "core/derive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bootstrap/auth.h"
#include "core/collective.h"

/* Adds the call's name to what went wrong below it. */
static enum rail_result in_call(const struct making *m, enum rail_result result, const char *whose, const char *remedy)
{
    char text[512];
    snprintf(text, sizeof text, "%s", rail_own_error());
    return rail_fail_quietly(result, "%s: %s%s%s", m->call, whose, text, remedy);
}

/* While joining the new communicator. A rank that dies there has died in the old one as well, whose news says so in its
 * numbers; the new tree may only say who gave up because of it. */
static enum rail_result in_joining(const struct making *m, enum rail_result result)
{
    static const char new[] = "in the new communicator: ";
    char text[512];
    if (m->kind == MAKING_SHRINK)
        return in_call(m, result, new, result != RAIL_E_TIMEOUT ? ""
                                       : m->n_ranks == m->parent->n_ranks ? ". Did all ranks call it?"
                                       : ". Did all remaining ranks call it, with the same list of excluded ranks?");
    snprintf(text, sizeof text, "%s", rail_own_error());
    if (result == RAIL_E_REMOTE) comm_await_news(m->parent);
    enum rail_result known = fault_result(&m->parent->fault);
    if (known != RAIL_OK) return in_call(m, known, "", "");
    rail_fail_quietly(result, "%s", text);
    return in_call(m, result, new, "");
}

/* An exchange over the parent's tree. When it fails the tree is cut, so the parent has failed. */
static enum rail_result exchange(const struct making *m, void *table, size_t bytes_each)
{
    struct comm *parent = m->parent;
    enum rail_result result = fault_result(&parent->fault);
    if (result == RAIL_OK) {
        result = bootstrap_allgather(parent->bootstrap, table, bytes_each, join_deadline());
        if (result == RAIL_OK) return RAIL_OK;
        result = comm_failed(parent, result);
    }
    return in_call(m, result, "", "");
}

/* `ranks`: [n_ranks] of the parent. */
static enum rail_result join_derived(struct making *m, const struct comm_request *who, const uint32_t *ranks,
                                     const void *common, size_t bytes)
{
    struct comm_kin kin = {.members = m->parent->members, .ranks = ranks, .n_ranks = who->n_ranks};
    struct comm_request request = *who;
    request.kin = &kin;
    auth_mac(bootstrap_secret(m->parent->bootstrap), common, bytes, kin.secret);
    fault_lend(&m->parent->fault, &m->comm->fault, m->kind != MAKING_SHRINK);
    enum rail_result result = comm_join(m->comm, &request);
    fault_disown(&m->parent->fault);
    return result == RAIL_OK ? RAIL_OK : in_joining(m, result);
}

/* ---- split ---- */

struct vote { int32_t color, key; };

/* Writes the ranks that gave my color, by key, then by rank. Insertion: keys mostly come in order. */
static void members_of(const struct vote *votes, uint32_t n, int color, uint32_t *out, uint32_t *n_out)
{
    uint32_t members = 0;
    for (uint32_t r = 0; r < n; r++) {
        if (votes[r].color != color) continue;
        uint32_t at = members++;
        for (; at > 0 && votes[out[at - 1]].key > votes[r].key; at--) out[at] = out[at - 1];
        out[at] = r;
    }
    *n_out = members;
}

static enum rail_result split(struct making *m, struct vote *votes, uint32_t *ranks)
{
    struct comm *parent = m->parent;
    votes[parent->rank] = (struct vote){m->color, m->key};
    RAIL_TRY(exchange(m, votes, sizeof *votes));
    struct { char purpose[16]; uint64_t number; int64_t color; } common = {
        .purpose = "split", .number = ++parent->n_splits, .color = m->color,
    };
    if (m->color < 0) return RAIL_OK;
    struct comm_request request = {0};
    members_of(votes, parent->n_ranks, m->color, ranks, &request.n_ranks);
    while (ranks[request.rank] != parent->rank) request.rank++;
    return join_derived(m, &request, ranks, &common, sizeof common);
}

static enum rail_result split_parent(struct making *m)
{
    uint32_t n = m->parent->n_ranks;
    struct vote *votes = calloc(n, sizeof *votes);
    uint32_t *ranks = calloc(n, sizeof *ranks);
    enum rail_result result = votes && ranks ? split(m, votes, ranks)
                                             : rail_fail(RAIL_E_SYSTEM, "%s: %u ranks: out of memory", m->call, n);
    free(ranks);
    free(votes);
    return result;
}

/* ---- shrink ---- */

static enum rail_result meet_without_exchange(struct making *m, const char *why)
{
    char purpose[16] = "";
    size_t list = m->n_ranks * sizeof *m->members, bytes = sizeof purpose + list;
    uint8_t *common = malloc(bytes);
    if (!common) return rail_fail(RAIL_E_SYSTEM, "%s: %u ranks: out of memory", m->call, m->n_ranks);
    snprintf(purpose, sizeof purpose, "%s", why);
    memcpy(common, purpose, sizeof purpose);
    memcpy(common + sizeof purpose, m->members, list);
    const struct comm_request request = {.rank = m->rank, .n_ranks = m->n_ranks};
    enum rail_result result = join_derived(m, &request, m->members, common, bytes);
    free(common);
    return result;
}

enum rail_result derive_shrink(struct making *m) { return meet_without_exchange(m, "shrink"); }

/* ---- of a revoked one ---- */

/* Lends the making `anew` as its parent for as long as `derive` runs. An abort of the parent ends both. */
static enum rail_result through(struct making *m, struct comm *anew, enum rail_result (*derive)(struct making *))
{
    struct comm *parent = m->parent;
    struct making whole = {.call = m->call, .kind = MAKING_SHRINK, .parent = parent, .comm = anew, .rank = parent->rank,
                           .n_ranks = parent->n_ranks, .members = calloc(parent->n_ranks, sizeof *whole.members)};
    if (!whole.members) return rail_fail(RAIL_E_SYSTEM, "%s: %u ranks: out of memory", m->call, parent->n_ranks);
    for (uint32_t r = 0; r < parent->n_ranks; r++) whole.members[r] = r;
    enum rail_result result = meet_without_exchange(&whole, "revoked");
    free(whole.members);
    if (result != RAIL_OK) return result;
    m->parent = anew;
    fault_lend(&parent->fault, &anew->fault, 0);
    result = derive(m);
    fault_disown(&parent->fault);
    m->parent = parent;
    return result;
}

static enum rail_result of_parent(struct making *m, enum rail_result (*derive)(struct making *))
{
    if (!fault_is(&m->parent->fault, RAIL_E_REVOKED)) return derive(m);
    struct comm *anew = comm_new(m->call, &m->parent->config, m->parent->device, m->parent->gpu_device);
    if (!anew) return RAIL_E_SYSTEM;
    enum rail_result result = through(m, anew, derive);
    char text[512];
    snprintf(text, sizeof text, "%s", rail_own_error());
    comm_free(anew);
    return result == RAIL_OK ? RAIL_OK : rail_fail_quietly(result, "%s", text);
}

enum rail_result derive_split(struct making *m) { return of_parent(m, split_parent); }

/* ---- grow ---- */

struct offer { uint32_t n_ranks, has_id; uint8_t id[BOOTSTRAP_ID_BYTES]; };

/* The one id that members have, and the one number of ranks. */
static enum rail_result agree(const struct making *m, const struct offer *offers, const uint8_t **id_out)
{
    *id_out = NULL;
    for (uint32_t r = 0; r < m->parent->n_ranks; r++) {
        if (offers[r].n_ranks != offers[0].n_ranks)
            return rail_fail(RAIL_E_USAGE, "%s: rank 0 says nRanks %u, rank %u says %u: pass the same on all ranks", m->call,
                             offers[0].n_ranks, r, offers[r].n_ranks);
        if (!offers[r].has_id) continue;
        if (*id_out && memcmp(*id_out, offers[r].id, BOOTSTRAP_ID_BYTES) != 0)
            return rail_fail(RAIL_E_USAGE,
                             "%s: rank %u passes another uniqueId than a rank before it: one member makes it with "
                             "ncclCommGetUniqueId, and all who pass one pass that", m->call, r);
        *id_out = offers[r].id;
    }
    if (*id_out) return RAIL_OK;
    return rail_fail(RAIL_E_USAGE,
                     "%s: no member passes a uniqueId: the one that called ncclCommGetUniqueId must pass it", m->call);
}

static enum rail_result grow(struct making *m, struct offer *offers)
{
    struct comm_request request = {.rank = m->parent->rank, .n_ranks = m->n_ranks};
    struct offer *mine = &offers[m->parent->rank];
    mine->n_ranks = m->n_ranks;
    mine->has_id = m->has_id;
    memcpy(mine->id, m->id, sizeof mine->id);
    RAIL_TRY(exchange(m, offers, sizeof *offers));
    RAIL_TRY(agree(m, offers, &request.id));
    fault_lend(&m->parent->fault, &m->comm->fault, 1);
    enum rail_result result = comm_join(m->comm, &request);
    fault_disown(&m->parent->fault);
    return result == RAIL_OK ? RAIL_OK : in_joining(m, result);
}

static enum rail_result grow_parent(struct making *m)
{
    struct offer *offers = calloc(m->parent->n_ranks, sizeof *offers);
    if (!offers) return rail_fail(RAIL_E_SYSTEM, "%s: %u ranks: out of memory", m->call, m->parent->n_ranks);
    enum rail_result result = grow(m, offers);
    free(offers);
    return result;
}

enum rail_result derive_grow(struct making *m) { return of_parent(m, grow_parent); }
