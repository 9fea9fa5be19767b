/* topo_svg.c - a machine as a drawing.
 *
 *   ( switches of the fabric, topo_svg_fabric.c )
 *   +-- NUMA 0 ----------------------+  SYS  +-- NUMA 1 --------------+     a column per NUMA node
 *   |      [PCI switch]   [switch]   |-------|                        |
 *   |     /    |    |        |       |       |                        |
 *   | [GPU 0][NIC][GPU 1] ...        |       |                        |     GPUs and NICs in one row, each GPU beside its
 *   |   \___/  (to its NIC)          |       |                        |     NIC, in the colour of their rail
 *   |         (rail 0)               |       |                        |
 *   +--------------------------------+       +------------------------+
 *   [ NVSwitch ===================================================== ]
 *   what is wrong ...
 *
 * A box's place follows from the number of cells (GPUs and NICs) below it; nothing is searched for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "topo_svg.h"

static const char *const colours[] = {"#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2",
                                      "#be185d", "#65a30d", "#4338ca", "#b45309", "#0d9488", "#9f1239",
                                      "#6d28d9", "#1d4ed8", "#a21caf", "#4d7c0f"};
const char *svg_colour(uint32_t rail) { return colours[rail % (sizeof colours / sizeof *colours)]; }

static const struct topo_node *node(const struct svg *s, uint32_t i) { return &s->view->graph->nodes[i]; }
static const struct topo_map *map(const struct svg *s) { return &s->view->maps[s->host]; }

static void escape(FILE *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<') fputs("&lt;", out);
        else if (c == '>') fputs("&gt;", out);
        else if (c == '&') fputs("&amp;", out);
        else if (c == '"') fputs("&quot;", out);
        else fputc(c < ' ' ? ' ' : c, out);
    }
}

/* Text of at most `most` letters; of longer ones the end, where names differ. */
void svg_text(const struct svg *s, double x, double y, const char *style, size_t most, const char *text)
{
    size_t n = strlen(text);
    fprintf(s->out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    if (n > most) fputs("\xe2\x80\xa6", s->out);
    escape(s->out, n > most ? text + n - most + 1 : text);
    fputs("</text>\n", s->out);
}

/* --- places ------------------------------------------------------------------------------------------------------- */

static bool is_leaf(const struct topo_node *n) { return n->kind == TOPO_GPU || n->kind == TOPO_NIC; }

static uint32_t count_cells(struct svg *s, uint32_t i, int depth)
{
    uint32_t cells = 0;
    if (node(s, i)->kind == TOPO_PCI && depth > s->depth) s->depth = depth;
    for (uint32_t k = i + 1; k < s->view->graph->n_nodes; k++)
        if (node(s, k)->parent == i && node(s, k)->kind != TOPO_NET)
            cells += count_cells(s, k, depth + (node(s, k)->kind == TOPO_PCI));
    if (is_leaf(node(s, i)) || cells == 0) cells = 1;
    return s->cells[i] = cells;
}

/* Beside its GPU stands the NIC, switches by the first that is below them. */
static double find_order(struct svg *s, uint32_t i)
{
    double order = 1e9 + i;
    if (node(s, i)->kind == TOPO_GPU) order = node(s, i)->number;
    for (uint32_t b = 0; b < map(s)->n_bindings && node(s, i)->kind == TOPO_NIC; b++) {
        const struct topo_binding *at = &map(s)->bindings[b];
        if (node(s, at->net)->parent == i) order = fmin(order, node(s, at->gpu)->number + 0.4 + 0.01 * b);
    }
    for (uint32_t k = i + 1; k < s->view->graph->n_nodes; k++)
        if (node(s, k)->parent == i) order = fmin(order, find_order(s, k));
    return s->order[i] = order;
}

static double level(const struct svg *s, int depth) { return s->top + HEADER + 14 + depth * LEVEL; }
static double leaf_top(const struct svg *s) { return level(s, s->depth) + (s->depth ? 0 : 46); }

static void place(struct svg *s, uint32_t i, double left, int depth)
{
    const struct topo_node *n = node(s, i);
    double inner = left;
    s->x[i] = left + s->cells[i] * CELL / 2.0;
    s->width[i] = n->kind == TOPO_PCI ? fmax(BOX, s->cells[i] * CELL - 34.0) : BOX;
    if (n->kind == TOPO_CPU) s->width[i] = s->cells[i] * CELL + 24.0;
    s->y[i] = n->kind == TOPO_CPU ? s->top : n->kind == TOPO_PCI ? level(s, depth) : leaf_top(s);
    for (double last = -1;;) { /* children in order */
        uint32_t next = TOPO_NONE;
        for (uint32_t k = i + 1; k < s->view->graph->n_nodes; k++)
            if (node(s, k)->parent == i && node(s, k)->kind != TOPO_NET && s->order[k] > last &&
                (next == TOPO_NONE || s->order[k] < s->order[next]))
                next = k;
        if (next == TOPO_NONE) return;
        place(s, next, inner, depth + (n->kind == TOPO_PCI));
        inner += s->cells[next] * CELL;
        last = s->order[next];
    }
}

/* All columns; returns the width of the drawing. */
static double place_all(struct svg *s)
{
    double left = MARGIN + 12;
    s->depth = 0;
    s->top = TOP + svg_fabric_height(s->view);
    for (uint32_t i = 0; i < s->view->graph->n_nodes; i++) {
        const struct topo_node *n = node(s, i);
        if (n->kind != TOPO_CPU || n->host != s->host) continue;
        count_cells(s, i, 0);
        find_order(s, i);
    }
    uint32_t *cpus = calloc(TOPO_MAX_CPUS, sizeof *cpus);
    uint32_t n_cpus = cpus ? topo_graph_of_kind(s->view->graph, s->host, TOPO_CPU, cpus, TOPO_MAX_CPUS) : 0;
    for (uint32_t c = 0; c < n_cpus; c++) {
        if (s->cells[cpus[c]] < 2) s->cells[cpus[c]] = 2; /* room for the header's words */
        place(s, cpus[c], left, 0);
        left += s->cells[cpus[c]] * CELL + 24 + GAP;
    }
    free(cpus);
    return left - GAP - 12 + MARGIN;
}

/* --- drawing ------------------------------------------------------------------------------------------------------ */

uint32_t svg_rail_of_net(const struct svg *s, uint32_t net)
{
    for (uint32_t r = 0; r < map(s)->n_rails; r++)
        if (map(s)->rails[r].net == net) return map(s)->rails[r].number;
    return TOPO_NONE;
}

static uint32_t rail_of_gpu(const struct svg *s, uint32_t gpu)
{
    for (uint32_t b = 0; b < map(s)->n_bindings; b++)
        if (map(s)->bindings[b].gpu == gpu && map(s)->bindings[b].first) return map(s)->bindings[b].rail;
    return TOPO_NONE;
}

static uint32_t port_of(const struct svg *s, uint32_t nic)
{
    uint32_t found = TOPO_NONE;
    for (uint32_t k = nic + 1; k < s->view->graph->n_nodes; k++)
        if (node(s, k)->kind == TOPO_NET && node(s, k)->parent == nic &&
            (found == TOPO_NONE || svg_rail_of_net(s, found) == TOPO_NONE))
            found = k;
    return found;
}

static void draw_cpu(const struct svg *s, uint32_t i)
{
    const struct topo_node *n = node(s, i);
    double left = s->x[i] - s->width[i] / 2, bottom = leaf_top(s) + LEAF_HEIGHT + ARC + CHIP + 22;
    char words[160] = "";
    fprintf(
        s->out,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"14\" fill=\"#f1f5f9\" stroke=\"#94a3b8\"/>\n",
        left, s->y[i], s->width[i], bottom - s->y[i]);
    fprintf(s->out,
            "<path d=\"M%.1f %.1f v-18 a14 14 0 0 1 14 -14 h%.1f a14 14 0 0 1 14 14 v18 z\" fill=\"#334155\"/>\n", left,
            s->y[i] + 32, s->width[i] - 28);
    if (n->cpu.package >= 0) snprintf(words, sizeof words, "package %d  ", n->cpu.package);
    if (s->width[i] > 240) snprintf(words + strlen(words), sizeof words - strlen(words), "%s", n->cpu.vendor);
    svg_text(s, left + 16, s->y[i] + 21, "font-size=\"15\" font-weight=\"bold\" fill=\"#fff\"", 20, n->name);
    svg_text(s, left + s->width[i] - 16, s->y[i] + 21, "text-anchor=\"end\" font-size=\"12\" fill=\"#cbd5e1\"", 40,
               words);
}

static double thickness(double gb_per_s) { return fmin(7, fmax(1.2, 0.9 * log2(1 + gb_per_s / 3))); }

static void draw_link_up(const struct svg *s, uint32_t i)
{
    const struct topo_link *link = topo_graph_up(s->view->graph, i);
    uint32_t parent = node(s, i)->parent;
    char words[32];
    if (!link || parent == TOPO_NONE) return;
    bool cpu = node(s, parent)->kind == TOPO_CPU;
    double y0 = s->y[parent] + (cpu ? 32 : SWITCH_HEIGHT), y1 = s->y[i], x = s->x[i];
    double span = s->width[parent] / 2 - 8, from = fmax(s->x[parent] - span, fmin(s->x[parent] + span, x));
    bool assumed = link->rate.origin.how >= TOPO_TABLE;
    fprintf(s->out, "<path d=\"M%.1f %.1f L%.1f %.1f\" stroke=\"#64748b\" stroke-width=\"%.1f\"%s fill=\"none\"/>\n",
            from, y0, x, y1, thickness(link->rate.gb_per_s), assumed ? " stroke-dasharray=\"5 4\"" : "");
    snprintf(words, sizeof words, "%.3g%s", link->rate.gb_per_s, assumed ? "?" : "");
    svg_text(s, x + 7, y1 - 8, "font-size=\"10.5\" fill=\"#475569\"", 12, words);
}

static void draw_switch(const struct svg *s, uint32_t i)
{
    double left = s->x[i] - s->width[i] / 2;
    char words[96];
    fprintf(s->out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"7\" fill=\"#fff\" stroke=\"#475569\" "
            "stroke-width=\"1.5\"/>\n",
            left, s->y[i], s->width[i], SWITCH_HEIGHT);
    snprintf(words, sizeof words, s->width[i] > 150 ? "PCI switch %s" : "%s", node(s, i)->name);
    svg_text(s, s->x[i], s->y[i] + 20, CENTRED " font-size=\"12\" fill=\"#1e293b\"", 40, words);
}

static void draw_gpu(const struct svg *s, uint32_t i)
{
    const struct topo_node *n = node(s, i);
    uint32_t rail = rail_of_gpu(s, i);
    double left = s->x[i] - BOX / 2.0;
    char bus[24], words[48];
    const char *ink = rail == TOPO_NONE ? "#64748b" : svg_colour(rail);
    fprintf(s->out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#fff\" stroke=\"%s\" "
            "stroke-width=\"3\"/>\n",
            left, s->y[i], BOX, LEAF_HEIGHT, ink);
    snprintf(words, sizeof words, "fill=\"%s\"", ink);
    char style[128];
    snprintf(style, sizeof style, CENTRED " font-size=\"15\" font-weight=\"bold\" %s", words);
    svg_text(s, s->x[i], s->y[i] + 23, style, 11, n->name);
    svg_text(s, s->x[i], s->y[i] + 39, CENTRED " font-size=\"10.5\" fill=\"#475569\"", 14,
               topo_bus_text(n->bus, bus));
    if (n->gt_per_s > 0) snprintf(words, sizeof words, "%g GT/s \xc3\x97%d", n->gt_per_s, n->lanes);
    else snprintf(words, sizeof words, "speed not told");
    svg_text(s, s->x[i], s->y[i] + 54, CENTRED " font-size=\"10.5\" fill=\"#64748b\"", 16, words);
}

static void draw_nic(const struct svg *s, uint32_t i)
{
    uint32_t port = port_of(s, i), rail = port == TOPO_NONE ? TOPO_NONE : svg_rail_of_net(s, port);
    double left = s->x[i] - BOX / 2.0, chip = leaf_top(s) + LEAF_HEIGHT + ARC;
    char words[48], bus[24];
    const char *ink = rail == TOPO_NONE ? "#94a3b8" : svg_colour(rail);
    fprintf(s->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"%s\"/>\n", left, s->y[i],
            BOX, LEAF_HEIGHT, ink);
    svg_text(s, s->x[i], s->y[i] + 23, CENTRED " font-size=\"13\" font-weight=\"bold\" fill=\"#fff\"", 11,
               port == TOPO_NONE ? node(s, i)->name : node(s, port)->net.bare ? "NIC" : node(s, port)->name);
    if (node(s, i)->bus != TOPO_NO_BUS)
        svg_text(s, s->x[i], s->y[i] + 39, CENTRED " font-size=\"10.5\" fill=\"#fff\"", 14,
                   topo_bus_text(node(s, i)->bus, bus));
    if (port == TOPO_NONE) return;
    const struct topo_net *net = &node(s, port)->net;
    if (net->mbit_per_s > 0)
        snprintf(words, sizeof words, "%s%g Gbit/s", net->slaves > 1 ? "bond " : "", net->mbit_per_s / 1000);
    else snprintf(words, sizeof words, "rate not told");
    svg_text(s, s->x[i], s->y[i] + 54, CENTRED " font-size=\"10.5\" fill=\"#fff\"", 17, words);
    fprintf(s->out, "<path d=\"M%.1f %.1f V%.1f\" stroke=\"%s\" stroke-width=\"%.1f\"/>\n", s->x[i],
            s->y[i] + LEAF_HEIGHT, chip, ink, thickness(net->mbit_per_s / 8000));
    fprintf(s->out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"66\" height=\"%d\" rx=\"11\" fill=\"#fff\" stroke=\"%s\" "
            "stroke-width=\"2\"/>\n",
            s->x[i] - 33, chip, CHIP, ink);
    if (rail == TOPO_NONE) snprintf(words, sizeof words, net->up == TOPO_NO ? "down" : "no rail");
    else snprintf(words, sizeof words, "rail %u", rail);
    svg_text(s, s->x[i], chip + 15.5, CENTRED " font-size=\"12.5\" font-weight=\"bold\" fill=\"#0f172a\"", 10, words);
}

/* From a GPU's foot to its NIC's, with the class on it. */
static void draw_binding(const struct svg *s, const struct topo_binding *b)
{
    uint32_t nic = node(s, b->net)->parent;
    double y = leaf_top(s) + LEAF_HEIGHT, x0 = s->x[b->gpu], x1 = s->x[nic] + (s->x[nic] > x0 ? -14 : 14);
    double drop = fmin(ARC - 4, 16 + fabs(x1 - x0) / 40);
    bool far = b->path.class > PATH_P2C;
    fprintf(
        s->out,
        "<path d=\"M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f\" fill=\"none\" stroke=\"%s\" stroke-width=\"2.2\"%s/>\n",
        x0, y, x0, y + drop * 1.3, x1, y + drop * 1.3, x1, y, svg_colour(b->rail), far ? " stroke-dasharray=\"4 3\"" : "");
}

/* Below the GPU: how far its NIC is. */
static void draw_class(const struct svg *s, const struct topo_binding *b)
{
    double x = s->x[b->gpu], y = leaf_top(s) + LEAF_HEIGHT + ARC;
    bool far = b->pxn.class > PATH_PXN, odd = b->pxn.class == PATH_PXN;
    char words[48];
    if (!b->first) return;
    snprintf(words, sizeof words, "%s %.3g GB/s", topo_class_name(b->pxn.class), b->pxn.gb_per_s);
    fprintf(s->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"86\" height=\"%d\" rx=\"4\" fill=\"%s\"/>\n", x - 43, y, CHIP,
            far ? "#fee2e2" : odd ? "#fef3c7" : "#e2e8f0");
    svg_text(s, x, y + 15,
               far ? CENTRED " font-size=\"11\" fill=\"#b91c1c\" font-weight=\"bold\""
                   : CENTRED " font-size=\"11\" fill=\"#334155\"",
               16, words);
}

static void draw_between_cpus(const struct svg *s)
{
    const struct topo_graph *g = s->view->graph;
    for (uint32_t l = 0; l < g->n_links; l++) {
        const struct topo_link *k = &g->links[l];
        if (k->kind != TOPO_LINK_SYS || node(s, k->a)->host != s->host ||
            node(s, k->b)->number != node(s, k->a)->number + 1)
            continue;
        double x0 = s->x[k->a] + s->width[k->a] / 2, x1 = s->x[k->b] - s->width[k->b] / 2, y = s->y[k->a] + 16;
        char words[32];
        fprintf(s->out, "<path d=\"M%.1f %.1f H%.1f\" stroke=\"#334155\" stroke-width=\"%.1f\"/>\n", x0, y, x1,
                thickness(k->rate.gb_per_s));
        snprintf(words, sizeof words, "SYS %.3g", k->rate.gb_per_s);
        svg_text(s, (x0 + x1) / 2, s->y[k->a] - 8, CENTRED " font-size=\"11\" fill=\"#334155\"", 12, words);
    }
}

static bool has_coherent(const struct svg *s, uint32_t gpu, double *rate)
{
    const struct topo_graph *g = s->view->graph;
    for (uint32_t k = g->first[gpu]; k < g->first[gpu + 1]; k++)
        if (g->links[g->at[k]].kind == TOPO_LINK_C2C) return *rate = g->links[g->at[k]].rate.gb_per_s, true;
    return false;
}

static void draw_coherent(const struct svg *s, uint32_t gpu)
{
    double rate, x = s->x[gpu] - BOX / 2.0 + 10;
    char words[32];
    if (!has_coherent(s, gpu, &rate)) return;
    double y0 = s->y[topo_graph_above(s->view->graph, gpu, TOPO_CPU)] + 32, y1 = s->y[gpu];
    fprintf(s->out, "<path d=\"M%.1f %.1f V%.1f\" stroke=\"#16a34a\" stroke-width=\"6\"/>\n", x, y0, y1);
    snprintf(words, sizeof words, "C2C %.3g", rate);
    fprintf(s->out, "<g transform=\"rotate(-90 %.1f %.1f)\">", x - 5, (y0 + y1) / 2);
    svg_text(s, x - 5, (y0 + y1) / 2, CENTRED " font-size=\"10.5\" fill=\"#15803d\"", 12, words);
    fputs("</g>\n", s->out);
}

/* How many NVLink pairs before this one cross its columns: so deep its arc goes. */
static uint32_t lane_of(const struct svg *s, uint32_t link)
{
    const struct topo_link *all = s->view->graph->links, *k = &all[link];
    uint32_t lane = 0;
    double low = fmin(s->x[k->a], s->x[k->b]), high = fmax(s->x[k->a], s->x[k->b]);
    for (uint32_t l = 0; l < link; l++) {
        if (all[l].kind != TOPO_LINK_NVL || node(s, all[l].b)->kind == TOPO_NVS || node(s, all[l].a)->host != s->host)
            continue;
        lane += fmax(s->x[all[l].a], s->x[all[l].b]) >= low && fmin(s->x[all[l].a], s->x[all[l].b]) <= high;
    }
    return lane;
}

/* NVSwitch as a bar below everything, NVLinks between pairs as arcs there. Returns the lower edge. */
static double draw_nvlink(const struct svg *s, double y, double right)
{
    const struct topo_graph *g = s->view->graph;
    double feet = leaf_top(s) + LEAF_HEIGHT + ARC + CHIP, low = y;
    uint32_t pairs = 0;
    for (uint32_t l = 0; l < g->n_links; l++) {
        const struct topo_link *k = &g->links[l];
        if (k->kind != TOPO_LINK_NVL || node(s, k->a)->host != s->host) continue;
        double x = s->x[k->a];
        if (node(s, k->b)->kind == TOPO_NVS) {
            fprintf(s->out, "<path d=\"M%.1f %.1f V%.1f\" stroke=\"#16a34a\" stroke-width=\"%.1f\"/>\n", x, feet, y,
                    thickness(k->rate.gb_per_s));
            low = fmax(low, y + BAR);
            continue;
        }
        double to = s->x[k->b], deep = y + 14 + 9.0 * (lane_of(s, l) % 28);
        pairs++;
        fprintf(s->out,
                "<path d=\"M%.1f %.1f V%.1f Q%.1f %.1f %.1f %.1f H%.1f Q%.1f %.1f %.1f %.1f V%.1f\" fill=\"none\" "
                "stroke=\"#16a34a\" "
                "stroke-width=\"%.1f\" opacity=\"0.8\"/>\n",
                x, feet, deep - 8, x, deep, x + (to > x ? 8 : -8), deep, to + (to > x ? -8 : 8), to, deep, to, deep - 8,
                feet, thickness(k->rate.gb_per_s) * 0.7);
        low = fmax(low, deep + 4);
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        char words[96];
        const struct topo_link *link = NULL;
        if (node(s, i)->kind != TOPO_NVS || node(s, i)->host != s->host) continue;
        if (g->first[i] < g->first[i + 1]) link = &g->links[g->at[g->first[i]]];
        fprintf(s->out,
                "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"8\" fill=\"#dcfce7\" stroke=\"#16a34a\" "
                "stroke-width=\"2\"/>\n",
                MARGIN, y, right - 2 * MARGIN, BAR);
        snprintf(words, sizeof words, "NVSwitch: %.4g GB/s to every GPU", link ? link->rate.gb_per_s : 0);
        svg_text(s, right / 2, y + 20, CENTRED " font-size=\"13\" font-weight=\"bold\" fill=\"#166534\"", 90, words);
    }
    if (pairs) {
        svg_text(s, MARGIN + 8, low + 14, "font-size=\"11\" fill=\"#166534\"", 60, "green: NVLink between GPUs");
        low += 18;
    }
    return low;
}

/* --- words -------------------------------------------------------------------------------------------------------- */

/* Wraps at blanks; returns the next free line. */
static double write_wrapped(const struct svg *s, double x, double y, size_t most, const char *text)
{
    while (*text) {
        size_t n = strlen(text);
        char line[400];
        if (most >= sizeof line) most = sizeof line - 1;
        if (n > most)
            for (n = most; n > most / 2 && text[n] != ' ';) n--;
        memcpy(line, text, n);
        line[n] = '\0';
        svg_text(s, x, y, "font-size=\"13\" fill=\"#0f172a\"", sizeof line, line);
        y += LINE - 3;
        text += n;
        while (*text == ' ') text++;
    }
    return y + 3;
}

static double write_findings(const struct svg *s, double y, double width)
{
    static const char *const badge[] = {"#dc2626", "#d97706", "#64748b"};
    const struct topo_findings *f = &s->view->findings[s->host];
    size_t most = (size_t)((width - 2 * MARGIN - 70) / 6.9);
    svg_text(s, MARGIN, y, "font-size=\"15\" font-weight=\"bold\" fill=\"#0f172a\"", 40, "What is wrong");
    y += LINE + 3;
    if (f->n == 0) {
        svg_text(s, MARGIN, y, "font-size=\"13\" fill=\"#166534\"", 40, "Nothing was found.");
        return y + LINE;
    }
    for (uint32_t i = 0; i < f->n; i++) {
        fprintf(s->out, "<rect x=\"%d\" y=\"%.1f\" width=\"52\" height=\"17\" rx=\"4\" fill=\"%s\"/>\n", MARGIN, y - 13,
                badge[f->at[i].weight]);
        svg_text(s, MARGIN + 26, y, CENTRED " font-size=\"11.5\" font-weight=\"bold\" fill=\"#fff\"", 10,
                   topo_weight_name(f->at[i].weight));
        y = write_wrapped(s, MARGIN + 62, y, most, f->at[i].text);
    }
    return y;
}

static bool any(const struct svg *s, enum topo_kind kind)
{
    return topo_graph_of_kind(s->view->graph, s->host, kind, NULL, 0) > 0;
}

static void write_header(const struct svg *s, double width, double height, double y)
{
    char words[TOPO_TEXT_BYTES + 64];
    fprintf(
        s->out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" x=\"0\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 "
        "%.0f %.0f\" "
        "font-family=\"DejaVu Sans, Verdana, sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        y, width, height, width, height);
    if (s->view->graph->n_hosts > 1) snprintf(words, sizeof words, "%s, host %u", s->view->title, s->host);
    else snprintf(words, sizeof words, "%s", s->view->title);
    svg_text(s, MARGIN, 34, "font-size=\"20\" font-weight=\"bold\" fill=\"#0f172a\"", 90, words);
    snprintf(words, sizeof words, "GB/s beside each link, ? assumed; a GPU has the colour of its rail%s",
             any(s, TOPO_GPU) ? "; red: far from its NIC, yellow: by way of another GPU" : "");
    svg_text(s, MARGIN, 55, "font-size=\"12\" fill=\"#475569\"", 130, words);
}

static void draw_devices(const struct svg *s, double width)
{
    const struct topo_graph *g = s->view->graph;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (node(s, i)->host == s->host && node(s, i)->kind == TOPO_CPU) draw_cpu(s, i);
    if (s->view->fabric) svg_fabric_draw(s, width);
    draw_between_cpus(s);
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        if (node(s, i)->host != s->host || (!is_leaf(node(s, i)) && node(s, i)->kind != TOPO_PCI)) continue;
        draw_link_up(s, i);
        if (node(s, i)->kind == TOPO_GPU) draw_coherent(s, i);
    }
    for (uint32_t b = 0; b < map(s)->n_bindings; b++) draw_binding(s, &map(s)->bindings[b]);
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        if (node(s, i)->host != s->host) continue;
        if (node(s, i)->kind == TOPO_PCI) draw_switch(s, i);
        else if (node(s, i)->kind == TOPO_GPU) draw_gpu(s, i);
        else if (node(s, i)->kind == TOPO_NIC) draw_nic(s, i);
    }
    for (uint32_t b = 0; b < map(s)->n_bindings; b++) draw_class(s, &map(s)->bindings[b]);
}

/* One host's drawing; returns its height, which is known when everything is drawn. */
static double draw_host(struct svg *s, FILE *out, double y, double width)
{
    double bottom = leaf_top(s) + LEAF_HEIGHT + ARC + CHIP + 22;
    char *body = NULL;
    size_t bytes = 0;
    bool nvlink = false;
    if (!(s->out = open_memstream(&body, &bytes))) return -1;
    for (uint32_t l = 0; l < s->view->graph->n_links; l++) nvlink |= s->view->graph->links[l].kind == TOPO_LINK_NVL;
    if (nvlink) bottom = draw_nvlink(s, bottom + 20, width);
    draw_devices(s, width);
    double height = write_findings(s, bottom + 36, width) + 4;
    int bad = fclose(s->out);
    s->out = out;
    if (!bad) {
        write_header(s, width, height, y);
        fprintf(out, "%s</svg>\n", body);
    }
    free(body);
    return bad ? -1 : height;
}

int topo_write_svg(const struct topo_view *view, FILE *out)
{
    struct svg s = {.view = view};
    size_t n = view->graph->n_nodes + 1, bytes = 0;
    char *all = NULL;
    double y = 0, widest = 0;
    s.x = calloc(n, sizeof *s.x), s.y = calloc(n, sizeof *s.y), s.width = calloc(n, sizeof *s.width);
    s.cells = calloc(n, sizeof *s.cells), s.order = calloc(n, sizeof *s.order);
    FILE *body = open_memstream(&all, &bytes);
    bool good = s.x && s.y && s.width && s.cells && s.order && body;
    for (s.host = 0; good && s.host < view->graph->n_hosts; s.host++) {
        double width = fmax(860, place_all(&s)), height = draw_host(&s, body, y, width);
        good = height > 0;
        y += height;
        widest = fmax(widest, width);
    }
    if (body && fclose(body) != 0) good = false;
    if (good)
        fprintf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
                "%.0f\">\n%s</svg>\n",
                widest, y, widest, y, all);
    else fprintf(stderr, "railccl topo: out of memory for the drawing\n");
    free(all);
    free(s.x), free(s.y), free(s.width), free(s.cells), free(s.order);
    return good ? 0 : -1;
}
