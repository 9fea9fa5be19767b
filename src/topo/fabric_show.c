/* fabric_show.c - a fabric as an indented tree, hosts with running numbers as lists.
 *
 *   fabric FILE: 3 tiers, 5 switches, 33 hosts
 *     spine
 *       podA
 *         leaf1  16 hosts: n[01-16] */
#include "topo/fabric_show.h"

#include <stdlib.h>
#include <string.h>

#include "topo/fabric_state.h"

const char *fabric_source(const struct fabric *f) { return f->source; }
uint32_t fabric_n_switches(const struct fabric *f) { return f->n_switches; }
uint32_t fabric_n_hosts(const struct fabric *f) { return f->n_hosts; }

static uint32_t tier_of(const struct fabric *f, uint32_t i)
{
    uint32_t tier = 0;
    for (int32_t at = f->switches[i].above; at != FABRIC_NONE && tier < PLACE_TIERS; at = f->switches[at].above) tier++;
    return tier;
}

struct fabric_switch_facts fabric_switch_at(const struct fabric *f, uint32_t i)
{
    const struct fabric_switch *s = &f->switches[i];
    return (struct fabric_switch_facts){.name = s->name, .above = s->above, .line = s->line, .tier = tier_of(f, i)};
}

uint32_t fabric_switch_hosts(const struct fabric *f, uint32_t i)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < f->n_hosts; k++) n += f->hosts[k].under == (int32_t)i;
    return n;
}

const char *fabric_host_at(const struct fabric *f, uint32_t i, int32_t *under_out)
{
    *under_out = f->hosts[i].under;
    return f->hosts[i].name;
}

uint32_t fabric_path(const struct fabric *f, const char *host, uint32_t out[PLACE_TIERS])
{
    size_t whole = strlen(host), part = strcspn(host, ".");
    int32_t at = FABRIC_NONE;
    uint32_t n = 0;
    for (int pass = 0; pass < 2 && at == FABRIC_NONE; pass++)
        for (uint32_t i = 0; i < f->n_hosts && at == FABRIC_NONE; i++) {
            size_t bytes = pass ? part : whole;
            if (strncmp(f->hosts[i].name, host, bytes) == 0 && f->hosts[i].name[bytes] == '\0') at = f->hosts[i].under;
        }
    for (; at != FABRIC_NONE && n < PLACE_TIERS; at = f->switches[at].above) out[n++] = (uint32_t)at;
    return n;
}

/* --- rails -------------------------------------------------------------------------------------------------------- */

struct rails { struct fabric_rail_facts *at; uint32_t n, max; const char *last_host[FABRIC_RAILS_SHOWN]; };

static uint32_t rail_of(struct rails *r, const struct rail_label *label)
{
    struct fabric_rail_facts rail = {.n_nics = 0};
    uint32_t i = 0;
    snprintf(rail.name, sizeof rail.name, "%s%s%s", label->rail, label->plane[0] ? " plane " : "", label->plane);
    while (i < r->n && strcmp(r->at[i].name, rail.name) != 0) i++;
    if (i == r->n && i < r->max) r->at[r->n++] = rail;
    return i;
}

uint32_t fabric_rails(const struct fabric *f, struct fabric_rail_facts *out, uint32_t max)
{
    struct rails r = {.at = out, .max = max < FABRIC_RAILS_SHOWN ? max : FABRIC_RAILS_SHOWN};
    for (uint32_t i = 0; i < f->n_nics; i++) {
        uint32_t k = rail_of(&r, &f->nics[i].label);
        if (k >= r.n) continue;
        out[k].n_nics++;
        if (!r.last_host[k] || strcmp(r.last_host[k], f->nics[i].host) != 0) out[k].n_hosts++; /* sorted by host */
        r.last_host[k] = f->nics[i].host;
    }
    for (uint32_t i = 0; i < f->n_subnets; i++) {
        uint32_t k = rail_of(&r, &f->subnets[i].label);
        if (k < r.n) out[k].n_subnets++;
    }
    return r.n;
}

/* --- text --------------------------------------------------------------------------------------------------------- */

/* "n01" is "n" and 1, of two digits; without digits at its end a name is a run of its own. */
static size_t split(const char *name, unsigned long *number)
{
    size_t n = strlen(name), stem = n;
    while (stem > 0 && name[stem - 1] >= '0' && name[stem - 1] <= '9' && n - stem < 9) stem--;
    *number = stem < n ? strtoul(name + stem, NULL, 10) : 0;
    return stem;
}

/* Whether b comes after a in a run. */
static bool follows(const char *a, const char *b)
{
    unsigned long x, y;
    size_t s = split(a, &x), t = split(b, &y);
    return s == t && s < strlen(a) && strlen(a) == strlen(b) && strncmp(a, b, s) == 0 && y == x + 1;
}

/* Hosts are sorted by name, so runs stand together. */
static void print_hosts(const struct fabric *f, uint32_t under, FILE *out)
{
    const char *first = NULL, *last = NULL;
    uint32_t runs = 0;
    for (uint32_t i = 0; i <= f->n_hosts; i++) {
        const char *name = i < f->n_hosts && f->hosts[i].under == (int32_t)under ? f->hosts[i].name : NULL;
        if (!name && i < f->n_hosts) continue;
        if (name && last && follows(last, name)) {
            last = name;
            continue;
        }
        unsigned long number;
        if (first) fputs(runs++ ? "," : "", out);
        if (first && first == last) fputs(first, out);
        else if (first) fprintf(out, "%.*s[%s-%s]", (int)split(first, &number), first, first + split(first, &number),
                                last + split(last, &number));
        first = last = name;
        if (runs == 8 && name) {
            fputs(",...", out);
            return;
        }
    }
}

enum { SWITCHES_SHOWN = 400 }; /* each takes a walk over all switches and hosts, of which a file may have a million */

static void print_switch(const struct fabric *f, uint32_t i, int depth, uint32_t *shown, FILE *out)
{
    uint32_t hosts = fabric_switch_hosts(f, i), below = 0;
    if ((*shown)++ >= SWITCHES_SHOWN) return;
    for (uint32_t k = 0; k < f->n_switches; k++) below += f->switches[k].above == (int32_t)i;
    fprintf(out, "%*s%s", 2 * depth + 2, "", f->switches[i].name);
    if (hosts) {
        fprintf(out, "  %u host%s: ", hosts, hosts == 1 ? "" : "s");
        print_hosts(f, i, out);
    } else if (below == 0) {
        fputs("  no hosts", out);
    }
    fputc('\n', out);
    for (uint32_t k = 0; k < f->n_switches && depth < PLACE_TIERS && *shown < SWITCHES_SHOWN; k++)
        if (f->switches[k].above == (int32_t)i) print_switch(f, k, depth + 1, shown, out);
}

static void print_rails(const struct fabric *f, FILE *out)
{
    struct fabric_rail_facts rails[FABRIC_RAILS_SHOWN];
    uint32_t n = fabric_rails(f, rails, FABRIC_RAILS_SHOWN), most = 0;
    if (n == 0) fputs("  rails: none is named; NICs of one subnet are on one rail\n", out);
    for (uint32_t k = 0; k < n; k++) most = rails[k].n_hosts > most ? rails[k].n_hosts : most;
    for (uint32_t k = 0; k < n; k++) {
        fprintf(out, "  rail %s: %u NIC%s of %u host%s", rails[k].name, rails[k].n_nics, rails[k].n_nics == 1 ? "" : "s",
                rails[k].n_hosts, rails[k].n_hosts == 1 ? "" : "s");
        if (rails[k].n_subnets) fprintf(out, ", %u subnet%s", rails[k].n_subnets, rails[k].n_subnets == 1 ? "" : "s");
        if (rails[k].n_subnets == 0 && rails[k].n_hosts < most)
            fprintf(out, "  odd: others have NICs of %u hosts", most);
        fputc('\n', out);
    }
}

enum rail_result fabric_print(const struct fabric *f, FILE *out)
{
    uint32_t tiers = 0;
    for (uint32_t i = 0; i < f->n_switches; i++) tiers = tier_of(f, i) + 1 > tiers ? tier_of(f, i) + 1 : tiers;
    fprintf(out, "fabric %s: %u tier%s, %u switches, %u hosts\n", f->source, tiers, tiers == 1 ? "" : "s", f->n_switches,
            f->n_hosts);
    uint32_t shown = 0;
    for (uint32_t i = 0; i < f->n_switches && shown < SWITCHES_SHOWN; i++)
        if (f->switches[i].above == FABRIC_NONE) print_switch(f, i, 0, &shown, out);
    if (f->n_switches > SWITCHES_SHOWN) fprintf(out, "  ... and %u switches more\n", f->n_switches - SWITCHES_SHOWN);
    print_rails(f, out);
    return ferror(out) ? rail_fail(RAIL_E_SYSTEM, "%s: cannot be written", f->source) : RAIL_OK;
}
