/* fabric_file.c - our own way to write a fabric down: a statement a line, words apart by blanks, # begins a comment.
 *
 *     switch NAME... [under NAME]
 *     hosts  HOSTLIST under SWITCH
 *     nic    HOSTLIST:INTERFACE rail LABEL [plane LABEL]
 *     subnet ADDRESS/BITS rail LABEL [plane LABEL] */
#include <stdio.h>
#include <string.h>

#include "topo/fabric_state.h"

enum { WORDS_MAX = 64 };

struct words { char *at[WORDS_MAX]; int n; };

static enum rail_result split(const struct fabric *f, char *line, struct words *out)
{
    char *save = NULL;
    line[strcspn(line, "#")] = '\0';
    out->n = 0;
    for (char *w = strtok_r(line, " \t\r\f\v", &save); w; w = strtok_r(NULL, " \t\r\f\v", &save)) {
        if (out->n == WORDS_MAX) return fabric_wrong(f, f->line, "more than %d words; use more lines", WORDS_MAX);
        out->at[out->n++] = w;
    }
    return RAIL_OK;
}

static enum rail_result read_switch(struct fabric *f, const struct words *w)
{
    int names = w->n - 1;
    bool under = w->n >= 3 && strcmp(w->at[w->n - 2], "under") == 0;
    if (under) names -= 2;
    if (names < 1) return fabric_wrong(f, f->line, "no name; write: switch NAME... [under NAME]");
    for (int i = 1; i <= names; i++) {
        int32_t below, above;
        if (strcmp(w->at[i], "under") == 0)
            return fabric_wrong(f, f->line, "\"under\" wants one name behind it, at the end");
        RAIL_TRY(fabric_switch_declare(f, w->at[i], &below));
        if (!under) continue;
        RAIL_TRY(fabric_switch_named(f, w->at[w->n - 1], &above));
        RAIL_TRY(fabric_switch_under(f, below, above));
    }
    return RAIL_OK;
}

static enum rail_result read_hosts(struct fabric *f, const struct words *w)
{
    int32_t under;
    if (w->n != 4 || strcmp(w->at[2], "under") != 0)
        return fabric_wrong(f, f->line, "write: hosts HOSTLIST under SWITCH");
    RAIL_TRY(fabric_switch_named(f, w->at[3], &under));
    return fabric_hosts_under(f, w->at[1], under);
}

/* "rail LABEL [plane LABEL]" from word 2 on. */
static enum rail_result read_label(const struct fabric *f, const struct words *w, const char *form,
                                   struct rail_label *out)
{
    memset(out, 0, sizeof *out);
    bool plane = w->n == 6 && strcmp(w->at[4], "plane") == 0;
    if ((w->n != 4 && !plane) || strcmp(w->at[2], "rail") != 0) return fabric_wrong(f, f->line, "write: %s", form);
    if (strlen(w->at[3]) >= RAIL_LABEL_BYTES || (plane && strlen(w->at[5]) >= RAIL_LABEL_BYTES))
        return fabric_wrong(f, f->line, "a rail's or plane's label has at most %d characters", RAIL_LABEL_BYTES - 1);
    strcpy(out->rail, w->at[3]);
    if (plane) strcpy(out->plane, w->at[5]);
    return RAIL_OK;
}

static enum rail_result read_nic(struct fabric *f, const struct words *w)
{
    static const char form[] = "nic HOSTLIST:INTERFACE rail LABEL [plane LABEL]";
    struct rail_label label;
    RAIL_TRY(read_label(f, w, form, &label));
    char *colon = strchr(w->at[1], ':');
    if (!colon || !colon[1]) return fabric_wrong(f, f->line, "no interface in \"%.60s\"; write: %s", w->at[1], form);
    *colon = '\0';
    return fabric_nics_add(f, w->at[1], colon + 1, &label);
}

static enum rail_result read_subnet(struct fabric *f, const struct words *w)
{
    struct rail_label label;
    RAIL_TRY(read_label(f, w, "subnet ADDRESS/BITS rail LABEL [plane LABEL]", &label));
    return fabric_subnet_add(f, w->at[1], &label);
}

static enum rail_result read_line(struct fabric *f, char *line)
{
    struct words w;
    RAIL_TRY(split(f, line, &w));
    if (w.n == 0) return RAIL_OK;
    if (strcmp(w.at[0], "switch") == 0) return read_switch(f, &w);
    if (strcmp(w.at[0], "hosts") == 0) return read_hosts(f, &w);
    if (w.n < 2) return fabric_wrong(f, f->line, "\"%.40s\" alone; statements are switch, hosts, nic, subnet", w.at[0]);
    if (strcmp(w.at[0], "nic") == 0) return read_nic(f, &w);
    if (strcmp(w.at[0], "subnet") == 0) return read_subnet(f, &w);
    return fabric_wrong(f, f->line, "\"%.40s\" is no statement; these are: switch, hosts, nic, subnet", w.at[0]);
}

enum rail_result fabric_read_own(struct fabric *f, char *text)
{
    for (char *line = text; line; f->line++) {
        char *next = strchr(line, '\n');
        if (next) *next++ = '\0';
        RAIL_TRY(read_line(f, line));
        line = next;
    }
    return RAIL_OK;
}
