/* gid_choice.c - which pair of addresses two ports use (gid_choice.h). Pure. */
#include "transport/lane/gid_choice.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int gid_family(const uint8_t raw[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(raw, mapped, sizeof mapped) == 0 ? 4 : 6;
}

bool gid_is_link_local(const uint8_t raw[16])
{
    if (gid_family(raw) == 4) return raw[12] == 169 && raw[13] == 254;
    return raw[0] == 0xfe && (raw[1] & 0xc0) == 0x80;
}

static const char *kind_text(uint8_t kind)
{
    return kind == IBVERBS_GID_ROCE_V2 ? "RoCE v2" : kind == IBVERBS_GID_ROCE_V1 ? "RoCE v1" : "InfiniBand";
}

void gid_text(const struct ibverbs_gid *gid, char out[GID_TEXT_BYTES])
{
    char address[INET6_ADDRSTRLEN] = "?";
    if (gid_family(gid->raw) == 4)
        inet_ntop(AF_INET, gid->raw + 12, address, sizeof address);
    else
        inet_ntop(AF_INET6, gid->raw, address, sizeof address);
    snprintf(out, GID_TEXT_BYTES, "%s (%s, index %u)", address, kind_text(gid->kind), gid->index);
}

bool gid_range(const char *text, struct gid_wish *wish)
{
    char address[INET6_ADDRSTRLEN], *end;
    const char *slash = strchr(text, '/');
    if (!slash || (size_t)(slash - text) >= sizeof address || slash[1] < '0' || slash[1] > '9') return false;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    long bits = strtol(slash + 1, &end, 10);
    uint8_t range[16] = {[10] = 0xff, 0xff};
    bool is_four = inet_pton(AF_INET, address, range + 12) == 1;
    if (*end || bits > (is_four ? 32 : 128) || (!is_four && inet_pton(AF_INET6, address, range) != 1)) return false;
    memcpy(wish->range, range, sizeof range);
    wish->range_bits = (uint8_t)(is_four ? 96 + bits : bits);
    return true;
}

static int common_bits(const uint8_t a[16], const uint8_t b[16])
{
    int n = 0;
    while (n < 128 && !((a[n / 8] ^ b[n / 8]) >> (7 - n % 8) & 1)) n++;
    return n;
}

/* ---- what is offered ---- */

static bool is_wanted(const struct ibverbs_gid *g, const struct gid_wish *wish)
{
    if (wish->index >= 0) return g->index == wish->index;
    if (g->kind == IBVERBS_GID_IB) return true;
    if (wish->family != 0 && gid_family(g->raw) != wish->family) return false;
    return common_bits(g->raw, wish->range) >= wish->range_bits;
}

static bool is_version(const struct ibverbs_gid *g, const struct gid_wish *wish)
{
    return g->kind == IBVERBS_GID_IB || wish->index >= 0 ||
           g->kind == (wish->roce_version == 1 ? IBVERBS_GID_ROCE_V1 : IBVERBS_GID_ROCE_V2);
}

static int rank_of(const struct gid_candidate *c) { return 2 * !gid_is_link_local(c->gid.raw) + c->is_rails; }

/* Behind all that are as good: the table's order is kept among equals. */
static int insert(struct gid_candidate *out, int n, const struct gid_candidate *c)
{
    int at = n;
    while (at > 0 && rank_of(&out[at - 1]) < rank_of(c)) at--;
    if (at == GID_OFFER_MAX) return n;
    int moved = n < GID_OFFER_MAX ? n - at : GID_OFFER_MAX - 1 - at;
    memmove(&out[at + 1], &out[at], (size_t)moved * sizeof *out);
    out[at] = *c;
    return n < GID_OFFER_MAX ? n + 1 : n;
}

static void say_none(int n, const struct gid_wish *wish, char *why, size_t bytes)
{
    if (n == 0)
        snprintf(why, bytes, "the port has no GID: give its interface an address");
    else if (wish->index >= 0)
        snprintf(why, bytes, "the port has no GID at NCCL_IB_GID_INDEX=%d (it has %d): leave the index out, and the right one "
                 "is found", wish->index, n);
    else if (wish->range_bits > 0)
        snprintf(why, bytes, "none of the port's %d GIDs is in NCCL_IB_ADDR_RANGE%s", n,
                 wish->family ? " and of the family that NCCL_IB_ADDR_FAMILY asks for" : "");
    else
        snprintf(why, bytes, "none of the port's %d GIDs is of the family that NCCL_IB_ADDR_FAMILY asks for", n);
}

int gid_offer(const struct ibverbs_gid *table, int n, const struct gid_wish *wish, const uint8_t rail[16],
              struct gid_candidate out[GID_OFFER_MAX], char *why, size_t why_bytes)
{
    int n_out = 0;
    bool has_version = false;
    for (int i = 0; i < n; i++) has_version |= is_wanted(&table[i], wish) && is_version(&table[i], wish);
    for (int i = 0; i < n; i++) {
        if (!is_wanted(&table[i], wish) || (has_version && !is_version(&table[i], wish))) continue;
        struct gid_candidate c = {table[i], memcmp(table[i].raw, rail, 16) == 0};
        n_out = insert(out, n_out, &c);
    }
    if (n_out == 0) say_none(n, wish, why, why_bytes);
    return n_out;
}

/* ---- the pair ---- */

/* 0: they do not go together. */
static int worth(const struct gid_candidate *a, const struct gid_candidate *b)
{
    if (a->gid.kind != b->gid.kind) return 0;
    if (a->gid.kind != IBVERBS_GID_IB && gid_family(a->gid.raw) != gid_family(b->gid.raw)) return 0;
    bool local = gid_is_link_local(a->gid.raw);
    /* InfiniBand's default subnet prefix is fe80::/64: there it says nothing. */
    if (a->gid.kind != IBVERBS_GID_IB && local != gid_is_link_local(b->gid.raw)) return 0;
    return 1 + common_bits(a->gid.raw, b->gid.raw) + 256 * (a->is_rails && b->is_rails) +
           512 * (a->gid.kind == IBVERBS_GID_ROCE_V2) + 1024 * !local;
}

static void families(const struct gid_candidate *c, int n, char *out, size_t bytes)
{
    int has[7] = {0};
    for (int i = 0; i < n; i++)
        has[c[i].gid.kind == IBVERBS_GID_IB ? 0 : 2 * c[i].gid.kind - 3 + (gid_family(c[i].gid.raw) == 6)] = 1;
    static const char *const names[] = {"InfiniBand", "RoCE v1 IPv4", "RoCE v1 IPv6", "RoCE v2 IPv4", "RoCE v2 IPv6"};
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < 5 && used < bytes; i++)
        if (has[i]) used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? ", " : "", names[i]);
}

bool gid_choose(const struct gid_candidate *here, int n_here, const struct gid_candidate *there, int n_there, bool first,
                struct gid_pair *out, char *why, size_t why_bytes)
{
    const struct gid_candidate *a = first ? here : there, *b = first ? there : here;
    int n_a = first ? n_here : n_there, n_b = first ? n_there : n_here, best = 0, best_a = 0, best_b = 0;
    for (int i = 0; i < n_a; i++)
        for (int j = 0; j < n_b; j++) {
            int w = worth(&a[i], &b[j]);
            if (w <= best) continue;
            best = w;
            best_a = i;
            best_b = j;
        }
    if (best == 0) {
        char ours[80], theirs[80];
        families(here, n_here, ours, sizeof ours);
        families(there, n_there, theirs, sizeof theirs);
        snprintf(why, why_bytes, "no two GIDs go together: here %s, there %s", ours, theirs);
        return false;
    }
    out->here = (uint8_t)(first ? best_a : best_b);
    out->there = (uint8_t)(first ? best_b : best_a);
    return true;
}
