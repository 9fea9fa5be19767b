/* topo_svg_fabric.c - the switches above a machine's NICs.
 *
 *              [ spine ]                     a row per tier; what is above this machine is dark
 *         [ podA ]   [ podB ]
 *    [ leaf1 ]  [ leaf2 ]  [ leaf3 ]
 *        |\ \______
 *   (rail 0) (rail 1) ...                    the machine's ports at its leaf, in the rail's colour, each above its NIC */
#include <math.h>
#include <string.h>

#include "topo/fabric_show.h"
#include "topo_svg.h"

enum { ROW = 62, BOX_HEIGHT = 36, SHOWN = 12, PORTS = 54 };

struct row { uint32_t at[SHOWN], n, all; };
struct band {
    struct row rows[PLACE_TIERS];
    uint32_t path[PLACE_TIERS], n_path, tiers;
};

static bool above_machine(const struct band *b, uint32_t i)
{
    for (uint32_t k = 0; k < b->n_path; k++)
        if (b->path[k] == i) return true;
    return false;
}

/* 0: above the machine; 1: beside one of these; 2: elsewhere. */
static int distance(const struct topo_view *v, const struct band *b, uint32_t i)
{
    int32_t above = fabric_switch_at(v->fabric, i).above;
    if (above_machine(b, i)) return 0;
    return above >= 0 && above_machine(b, (uint32_t)above) ? 1 : 2;
}

/* A dozen switches of each tier, those about the machine before others, in the file's order. */
static struct band lay_out(const struct topo_view *v)
{
    struct band b = {.tiers = 0};
    b.n_path = fabric_path(v->fabric, v->host_name, b.path);
    for (int pass = 0; pass < 3; pass++)
        for (uint32_t i = 0; i < fabric_n_switches(v->fabric); i++) {
            uint32_t tier = fabric_switch_at(v->fabric, i).tier, k;
            if (tier >= PLACE_TIERS || distance(v, &b, i) != pass) continue;
            struct row *row = &b.rows[tier];
            row->all++;
            if (tier + 1 > b.tiers) b.tiers = tier + 1;
            if (row->n == SHOWN) continue;
            for (k = row->n++; k > 0 && row->at[k - 1] > i; k--) row->at[k] = row->at[k - 1];
            row->at[k] = i;
        }
    return b;
}

double svg_fabric_height(const struct topo_view *v)
{
    if (!v->fabric) return 0;
    return lay_out(v).tiers * ROW + PORTS + 8;
}

static double x_of(const struct row *row, uint32_t k, double width)
{
    return MARGIN + (k + 0.5) * (width - 2 * MARGIN) / row->n;
}

static void draw_up(const struct svg *s, const struct band *b, uint32_t tier, uint32_t k, double width)
{
    const struct row *row = &b->rows[tier], *over = tier ? &b->rows[tier - 1] : NULL;
    int32_t above = fabric_switch_at(s->view->fabric, row->at[k]).above;
    for (uint32_t i = 0; over && i < over->n; i++) {
        if ((int32_t)over->at[i] != above) continue;
        bool mine = above_machine(b, row->at[k]);
        fprintf(s->out, "<path d=\"M%.1f %.1f L%.1f %.1f\" stroke=\"%s\" stroke-width=\"%d\"/>\n", x_of(over, i, width),
                TOP + (tier - 1.0) * ROW + BOX_HEIGHT, x_of(row, k, width), TOP + tier * (double)ROW,
                mine ? "#334155" : "#cbd5e1", mine ? 3 : 2);
    }
}

static void draw_switch(const struct svg *s, const struct band *b, uint32_t tier, uint32_t k, double width)
{
    const struct row *row = &b->rows[tier];
    double room = (width - 2 * MARGIN) / row->n - 10, wide = fmin(190, room), x = x_of(row, k, width), y = TOP + tier * ROW;
    bool mine = above_machine(b, row->at[k]);
    uint32_t hosts = fabric_switch_hosts(s->view->fabric, row->at[k]);
    size_t letters = (size_t)fmax(3, (wide - 8) / 7.6);
    char words[48];
    fprintf(s->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"7\" fill=\"%s\" stroke=\"#475569\"/>\n",
            x - wide / 2, y, wide, BOX_HEIGHT, mine ? "#334155" : "#f8fafc");
    svg_text(s, x, y + (hosts ? 16 : 23), mine ? CENTRED " font-size=\"13\" font-weight=\"bold\" fill=\"#fff\""
                                               : CENTRED " font-size=\"13\" fill=\"#334155\"",
             letters, fabric_switch_at(s->view->fabric, row->at[k]).name);
    if (!hosts) return;
    snprintf(words, sizeof words, "%u host%s", hosts, hosts == 1 ? "" : "s");
    svg_text(s, x, y + 30, mine ? CENTRED " font-size=\"10.5\" fill=\"#cbd5e1\""
                                : CENTRED " font-size=\"10.5\" fill=\"#64748b\"",
             letters + 4, words);
}

/* From the leaf to each port, and on down to the NIC, in the rail's colour. */
static void draw_ports(const struct svg *s, double x0, double y0, const char *leaf)
{
    const struct topo_map *map = &s->view->maps[s->host];
    double y = TOP + svg_fabric_height(s->view) - CHIP - 14;
    for (uint32_t r = 0; r < map->n_rails; r++) {
        uint32_t nic = s->view->graph->nodes[map->rails[r].net].parent, number = map->rails[r].number;
        double x = s->x[nic] + BOX / 2.0 - 14;
        char words[40];
        if (y0 > 0)
            fprintf(s->out,
                    "<path d=\"M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f\" fill=\"none\" stroke=\"%s\" "
                    "stroke-width=\"2\"/>\n",
                    x0, y0, x0, y0 + 16, s->x[nic], y - 18, s->x[nic], y, svg_colour(number));
        fprintf(s->out, /* behind the NUMA node's title */
                "<path d=\"M%.1f %.1f V%.1f M%.1f %.1f V%.1f\" stroke=\"%s\" stroke-width=\"2.5\" opacity=\"0.75\"/>\n", x,
                y + CHIP, s->top, x, s->top + 32, s->y[nic], svg_colour(number));
        fprintf(s->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"11\" fill=\"%s\"/>\n",
                s->x[nic] - BOX / 2.0, y, BOX, CHIP, svg_colour(number));
        snprintf(words, sizeof words, "rail %u", number);
        svg_text(s, s->x[nic], y + 15.5, CENTRED " font-size=\"12\" font-weight=\"bold\" fill=\"#fff\"", 12, words);
    }
    if (!leaf)
        svg_text(s, MARGIN, y - 12, "font-size=\"12\" fill=\"#b91c1c\"", 90,
                 "the fabric file does not mention this host: its leaf is not known");
}

void svg_fabric_draw(const struct svg *s, double width)
{
    struct band b = lay_out(s->view);
    const char *leaf = NULL;
    double x = 0, y = 0;
    for (uint32_t t = 0; t < b.tiers; t++) {
        const struct row *row = &b.rows[t];
        for (uint32_t k = 0; k < row->n; k++) {
            draw_up(s, &b, t, k, width);
            if (b.n_path == 0 || row->at[k] != b.path[0]) continue;
            leaf = fabric_switch_at(s->view->fabric, row->at[k]).name;
            x = x_of(row, k, width), y = TOP + t * (double)ROW + BOX_HEIGHT;
        }
    }
    draw_ports(s, x, y, leaf);
    for (uint32_t t = 0; t < b.tiers; t++) {
        const struct row *row = &b.rows[t];
        char words[48];
        for (uint32_t k = 0; k < row->n; k++) draw_switch(s, &b, t, k, width);
        snprintf(words, sizeof words, "%u of %u switches shown", row->n, row->all);
        if (row->all > row->n)
            svg_text(s, MARGIN + 4, TOP + t * (double)ROW + BOX_HEIGHT + 13, "font-size=\"10.5\" fill=\"#64748b\"", 48,
                     words);
    }
}
