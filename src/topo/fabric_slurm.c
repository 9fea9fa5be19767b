/* fabric_slurm.c - Slurm's topology.conf: KEY=VALUE words, keys in any case, # begins a comment, \ at the end of a line
 * joins the next one to it.
 *
 *     tree:   SwitchName=leaf1 Nodes=n[01-16]          block:  BlockName=b1 Nodes=n[01-18]
 *             SwitchName=spine Switches=leaf[1-4]              BlockSizes=18,36
 *
 * Of block sizes the first is the blocks' own; each further one gathers so many consecutive blocks under a switch of
 * our own naming. Words that say nothing of places (LinkSpeed) are read over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "topo/fabric_state.h"

enum { SIZES_MAX = PLACE_TIERS - 1 };

struct slurm {
    struct fabric *fabric;
    int32_t above;         /* of the switches being listed */
    int32_t *blocks;
    uint32_t n_blocks, blocks_room;
    uint32_t sizes[SIZES_MAX];
    uint32_t n_sizes, sizes_line;
};

struct statement { char *switch_name, *block_name, *nodes, *switches, *sizes; };

static enum rail_result take(const struct fabric *f, struct statement *s, char *word)
{
    static const char *const read_over[] = {"LinkSpeed"};
    char *value = strchr(word, '=');
    if (!value || !value[1]) return fabric_wrong(f, f->line, "\"%.60s\" is no KEY=VALUE", word);
    *value++ = '\0';
    const struct { const char *key; char **to; } keys[] = {
        {"SwitchName", &s->switch_name}, {"BlockName", &s->block_name}, {"Nodes", &s->nodes},
        {"Switches", &s->switches},      {"BlockSizes", &s->sizes},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcasecmp(word, keys[i].key) != 0) continue;
        if (*keys[i].to) return fabric_wrong(f, f->line, "%s twice in one line", keys[i].key);
        *keys[i].to = value;
        return RAIL_OK;
    }
    for (size_t i = 0; i < sizeof read_over / sizeof read_over[0]; i++)
        if (strcasecmp(word, read_over[i]) == 0) return RAIL_OK;
    return fabric_wrong(f, f->line, "\"%.40s\" is not known in topology.conf; known are SwitchName, Switches, Nodes, "
                        "LinkSpeed, BlockName, BlockSizes", word);
}

static enum rail_result child(void *owner, const char *name)
{
    struct slurm *s = owner;
    int32_t below;
    RAIL_TRY(fabric_switch_named(s->fabric, name, &below));
    return fabric_switch_under(s->fabric, below, s->above);
}

static enum rail_result read_switch(struct slurm *s, const struct statement *t)
{
    char why[HOSTLIST_WHY_BYTES];
    struct fabric *f = s->fabric;
    if (!t->nodes && !t->switches) return fabric_wrong(f, f->line, "SwitchName without Nodes and Switches");
    RAIL_TRY(fabric_switch_declare(f, t->switch_name, &s->above));
    if (t->nodes) RAIL_TRY(fabric_hosts_under(f, t->nodes, s->above));
    if (!t->switches) return RAIL_OK;
    enum rail_result r = hostlist_each(t->switches, child, s, why);
    return why[0] ? fabric_wrong(f, f->line, "Switches: %s", why) : r;
}

static enum rail_result read_block(struct slurm *s, const struct statement *t)
{
    struct fabric *f = s->fabric;
    int32_t block;
    if (!t->nodes) return fabric_wrong(f, f->line, "BlockName without Nodes");
    RAIL_TRY(fabric_switch_declare(f, t->block_name, &block));
    if (s->n_blocks == s->blocks_room) {
        uint32_t room = s->blocks_room ? 2 * s->blocks_room : 16;
        int32_t *blocks = realloc(s->blocks, room * sizeof *blocks);
        if (!blocks) return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for %u blocks", f->source, room);
        s->blocks = blocks;
        s->blocks_room = room;
    }
    s->blocks[s->n_blocks++] = block;
    return fabric_hosts_under(f, t->nodes, block);
}

static enum rail_result read_sizes(struct slurm *s, const struct statement *t)
{
    struct fabric *f = s->fabric;
    if (s->n_sizes) return fabric_wrong(f, f->line, "BlockSizes a second time, after line %u", s->sizes_line);
    s->sizes_line = f->line;
    for (const char *at = t->sizes;; at++) {
        char *end = NULL;
        unsigned long size = at[0] >= '0' && at[0] <= '9' ? strtoul(at, &end, 10) : 0;
        if (size == 0 || size > HOSTLIST_HOSTS_MAX || s->n_sizes == SIZES_MAX)
            return fabric_wrong(f, f->line, "BlockSizes wants up to %d numbers of nodes, not \"%.40s\"", SIZES_MAX,
                                t->sizes);
        if (s->n_sizes && size % s->sizes[s->n_sizes - 1] != 0)
            return fabric_wrong(f, f->line, "BlockSizes: %lu is no multiple of %u", size, s->sizes[s->n_sizes - 1]);
        s->sizes[s->n_sizes++] = (uint32_t)size;
        if (*end == '\0') return RAIL_OK;
        if (*end != ',') return fabric_wrong(f, f->line, "BlockSizes: \"%.40s\" is no list of numbers", t->sizes);
        at = end;
    }
}

static enum rail_result read_line(struct slurm *s, char *line)
{
    struct fabric *f = s->fabric;
    struct statement t = {0};
    char *save = NULL;
    bool any = false;
    for (char *w = strtok_r(line, " \t\r\f\v", &save); w; w = strtok_r(NULL, " \t\r\f\v", &save)) {
        any = true;
        RAIL_TRY(take(f, &t, w));
    }
    if (!any) return RAIL_OK;
    if ((t.switch_name != NULL) + (t.block_name != NULL) + (t.sizes != NULL) != 1)
        return fabric_wrong(f, f->line, "a line wants one of SwitchName, BlockName, BlockSizes");
    if (t.block_name && t.switches) return fabric_wrong(f, f->line, "Switches belong to SwitchName");
    if (t.sizes && (t.nodes || t.switches)) return fabric_wrong(f, f->line, "BlockSizes stands alone");
    return t.switch_name ? read_switch(s, &t) : t.block_name ? read_block(s, &t) : read_sizes(s, &t);
}

/* Sizes are in nodes, groups in blocks: 18,72 means four blocks under one switch. */
static enum rail_result gather_blocks(struct slurm *s)
{
    struct fabric *f = s->fabric;
    f->line = s->sizes_line;
    for (uint32_t k = 1; k < s->n_sizes; k++) {
        uint32_t per = s->sizes[k] / s->sizes[0], below_per = s->sizes[k - 1] / s->sizes[0];
        if (per == below_per) continue;
        for (uint32_t i = 0; i < s->n_blocks; i += per) {
            char name[FABRIC_NAME_BYTES];
            int32_t group;
            snprintf(name, sizeof name, "%u nodes from block %u", s->sizes[k], i);
            RAIL_TRY(fabric_switch_declare(f, name, &group));
            for (uint32_t j = i; j < s->n_blocks && j < i + per; j += below_per) {
                int32_t below = s->blocks[j];
                while (f->switches[below].above != FABRIC_NONE) below = f->switches[below].above;
                if (below != group) RAIL_TRY(fabric_switch_under(f, below, group));
            }
        }
    }
    return RAIL_OK;
}

/* Ends the line at hand, with those that a \ joins to it; the one after it, NULL at the end. */
static char *join_lines(char *line, uint32_t *lines)
{
    const char *from = line;
    char *to = line;
    *lines = 1;
    while (*from && *from != '\n') {
        if (from[0] == '\\' && from[1] == '\n') {
            from += 2;
            ++*lines;
        } else {
            *to++ = *from++;
        }
    }
    char *next = *from ? line + (from - line) + 1 : NULL;
    *to = '\0';
    return next;
}

enum rail_result fabric_read_slurm(struct fabric *f, char *text)
{
    struct slurm s = {.fabric = f};
    enum rail_result r = RAIL_OK;
    for (char *line = text; line && r == RAIL_OK;) {
        uint32_t lines;
        char *next = join_lines(line, &lines);
        line[strcspn(line, "#")] = '\0';
        r = read_line(&s, line);
        f->line += lines;
        line = next;
    }
    if (r == RAIL_OK) r = gather_blocks(&s);
    free(s.blocks);
    return r;
}
