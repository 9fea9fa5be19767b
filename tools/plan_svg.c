/* plan_svg.c - a network with the loads of a case as colours.
 *
 *   title, one line of facts, the scale of colours
 *   [core] [core]          few parts: every switch and cable, each as dark as its busier direction
 *   [spine] [spine]
 *   [leaf 0] [leaf 1] ...
 *   host host host         a square per NIC
 *
 *   or, where they are many, a strip per tier: a column per unit or host, a row per rail; a cell is its busiest link,
 *   a cell of several hosts the busiest of these.
 *
 * Colours say how much of the busiest link's time a link is busy. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "plan_svg.h"

enum { WIDTH = 1200, MARGIN = 40, HEAD = 118, FEW_HOSTS = 40, FEW_LEAVES = 32, FEW_SPINES = 32 };

void plan_svg_text(FILE *out, double x, double y, const char *style, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    for (; *text; text++) {
        if (*text == '<') fputs("&lt;", out);
        else if (*text == '>') fputs("&gt;", out);
        else if (*text == '&') fputs("&amp;", out);
        else fputc(*text, out);
    }
    fputs("</text>\n", out);
}

void plan_svg_begin(FILE *out, double width, double height)
{
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
            "font-family=\"Helvetica, Arial, sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            width, height, width, height);
}

/* ---- colours ---- */

struct shade { double r, g, b; };

/* Idle is pale blue, half busy amber, the busiest red. */
static const char *colour(double share, char out[16])
{
    static const struct shade stops[] = {{219, 234, 254}, {253, 224, 71}, {249, 115, 22}, {185, 28, 28}};
    double at = fmin(1, fmax(0, share)) * 3, part;
    int k = at >= 3 ? 2 : (int)at;
    part = at - k;
    snprintf(out, 16, "#%02x%02x%02x", (int)(stops[k].r + part * (stops[k + 1].r - stops[k].r)),
             (int)(stops[k].g + part * (stops[k + 1].g - stops[k].g)),
             (int)(stops[k].b + part * (stops[k + 1].b - stops[k].b)));
    return out;
}

#define DOWN "#1e293b"
#define IDLE "#e2e8f0"

struct drawing {
    const struct plan_view *view;
    const struct network *net;
    FILE *out;
    double full_ns; /* the busiest link's time */
};

/* Of a cable, both ways: part of the busiest link's time; -1: down. */
static double busy(const struct drawing *d, enum network_tier tier, uint64_t k)
{
    double most = 0;
    for (int way = 0; way < 2; way++) {
        uint64_t link = d->net->first[tier + way] + k;
        if (d->net->rate[link] <= 0) return -1;
        most = fmax(most, d->view->loads[link] / (double)d->net->rate[link]);
    }
    return d->full_ns > 0 ? most / d->full_ns : 0;
}

static const char *fill(double share, char out[16])
{
    return share < 0 ? DOWN : share == 0 ? IDLE : colour(share, out);
}

/* ---- head ---- */

static void head(const struct drawing *d)
{
    const struct plan_row *r = &d->view->rows[d->view->drawn];
    const struct plan_wish *w = d->view->wish;
    char line[400], c[16];
    double gib = (double)r->bytes / 1073741824.0;
    snprintf(line, sizeof line, "%s of %.4g %s by %s: %.4g ms", plan_call_name(w),
             gib >= 1 ? gib : gib * 1024, gib >= 1 ? "GiB" : "MiB", plan_row_name(r), r->ns / 1e6);
    plan_svg_text(d->out, MARGIN, 38, "font-size=\"22\" font-weight=\"bold\" fill=\"#0f172a\"", line);
    snprintf(line, sizeof line,
             "%u hosts x %u NICs of %.4g Gbit/s, %s, %u tiers; %s NICs, hosts in %s order; %.2f switches a byte, %.3g "
             "%% of bytes change rail",
             d->net->n_hosts, d->net->n_rails, w->network.nic_gbit, network_kind_names[d->net->kind], d->net->n_tiers,
             r->unaware ? "unaware" : "aligned", r->as_given ? "the given" : "our", plan_switches(r),
             r->sent > 0 ? 100 * r->cross_rail / r->sent : 0);
    plan_svg_text(d->out, MARGIN, 62, "font-size=\"14\" fill=\"#475569\"", line);
    for (int k = 0; k < 100; k++)
        fprintf(d->out, "<rect x=\"%.1f\" y=\"78\" width=\"2.6\" height=\"14\" fill=\"%s\"/>\n", MARGIN + k * 2.5,
                colour(k / 99.0, c));
    snprintf(line, sizeof line, "busy, of the busiest link's %.4g ms", d->full_ns / 1e6);
    plan_svg_text(d->out, MARGIN, 108, "font-size=\"12\" fill=\"#475569\"", "0 %");
    plan_svg_text(d->out, MARGIN + 250, 108, "font-size=\"12\" text-anchor=\"end\" fill=\"#475569\"", "100 %");
    plan_svg_text(d->out, MARGIN + 262, 90, "font-size=\"13\" fill=\"#475569\"", line);
    fprintf(d->out,
            "<rect x=\"560\" y=\"78\" width=\"24\" height=\"14\" fill=\"%s\"/><rect x=\"660\" y=\"78\" width=\"24\" "
            "height=\"14\" fill=\"%s\"/>\n",
            IDLE, DOWN);
    plan_svg_text(d->out, 590, 90, "font-size=\"13\" fill=\"#475569\"", "unused");
    plan_svg_text(d->out, 690, 90, "font-size=\"13\" fill=\"#475569\"", "down");
    line[0] = '\0';
    for (uint32_t k = 0; k < w->n_faults && strlen(line) < 120; k++) {
        size_t n = strlen(line);
        if (w->faults[k].factor > 0)
            snprintf(line + n, sizeof line - n, "%s%.40s at %.3g", k ? ", " : "", w->faults[k].what,
                     w->faults[k].factor);
        else snprintf(line + n, sizeof line - n, "%s%.40s is down", k ? ", " : "", w->faults[k].what);
    }
    plan_svg_text(d->out, WIDTH - MARGIN, 90,
                  "font-size=\"14\" text-anchor=\"end\" font-weight=\"bold\" fill=\"#1e293b\"", line);
}

/* ---- few parts ---- */

static double x_of(uint32_t k, uint32_t n) { return MARGIN + (k + 0.5) * (WIDTH - 2.0 * MARGIN) / n; }

static void cable(const struct drawing *d, double x0, double y0, double x1, double y1, double share)
{
    char c[16];
    bool many = (uint64_t)d->net->n_hosts * d->net->n_rails > 64; /* thin enough to see what is behind them */
    fprintf(d->out, "<path d=\"M%.1f %.1f L%.1f %.1f\" stroke=\"%s\" stroke-width=\"%.1f\"%s%s/>\n", x0, y0, x1, y1,
            share < 0 ? "#94a3b8" : fill(share, c), share <= 0 ? 1 : many ? 0.7 + 1.5 * share * share : 1.2 + 2 * share,
            share < 0 ? " stroke-dasharray=\"3 4\"" : "", many && share > 0 ? " opacity=\"0.6\"" : "");
}

static void box(const struct drawing *d, double x, double y, double wide, const char *name, double share)
{
    char c[16];
    bool dark = share < 0 || share > 0.75;
    fprintf(d->out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"26\" rx=\"5\" fill=\"%s\" stroke=\"#475569\"/>\n",
            x - wide / 2, y, wide, fill(share, c));
    char style[120];
    snprintf(style, sizeof style, "font-size=\"%.1f\" text-anchor=\"middle\" fill=\"%s\"", fmin(12.5, wide / 3.4),
             dark ? "#fff" : "#0f172a");
    plan_svg_text(d->out, x, y + 17, style, name);
}

struct rows { double core, spine, leaf, host; };

/* Cables first, boxes over them. */
static double leaf_busy(const struct drawing *d, uint32_t leaf)
{
    double most = -1;
    for (uint32_t s = 0; s < d->net->n_spines; s++)
        most = fmax(most, busy(d, NETWORK_LEAF_UP, (uint64_t)leaf * d->net->n_spines + s));
    for (uint32_t h = 0; h < d->net->n_hosts; h++)
        for (uint32_t r = 0; r < d->net->n_rails; r++)
            for (uint32_t p = 0; p < d->net->n_ports; p++)
                if (network_leaf(d->net, h, r, p) == leaf)
                    most = fmax(most, busy(d, NETWORK_NIC_UP, network_nic(d->net, h, r, p)));
    return most;
}

static uint32_t spine_of(const struct drawing *d, uint32_t leaf, uint32_t s)
{
    return (network_leaf_pod(d->net, leaf) * d->net->n_planes + network_plane(d->net, leaf)) * d->net->n_spines + s;
}

static void few_cables(const struct drawing *d, const struct rows *y, uint32_t spines, uint32_t cores)
{
    const struct network *n = d->net;
    for (uint32_t leaf = 0; leaf < n->n_leaves; leaf++)
        for (uint32_t s = 0; s < n->n_spines; s++)
            cable(d, x_of(leaf, n->n_leaves), y->leaf, x_of(spine_of(d, leaf, s), spines), y->spine + 26,
                  busy(d, NETWORK_LEAF_UP, (uint64_t)leaf * n->n_spines + s));
    for (uint32_t s = 0; s < spines; s++)
        for (uint32_t c = 0; c < n->n_cores; c++)
            cable(d, x_of(s, spines), y->spine, x_of(s % (n->n_planes * n->n_spines) * n->n_cores + c, cores),
                  y->core + 26, busy(d, NETWORK_SPINE_UP, (uint64_t)s * n->n_cores + c));
    for (uint32_t h = 0; h < n->n_hosts; h++)
        for (uint32_t r = 0; r < n->n_rails; r++)
            for (uint32_t p = 0; p < n->n_ports; p++)
                cable(d, x_of(h, n->n_hosts), y->host, x_of(network_leaf(n, h, r, p), n->n_leaves), y->leaf + 26,
                      busy(d, NETWORK_NIC_UP, network_nic(n, h, r, p)));
}

static void few_hosts(const struct drawing *d, const struct rows *y)
{
    const struct network *n = d->net;
    double room = (WIDTH - 2.0 * MARGIN) / n->n_hosts, wide = fmin(room - 4, 74),
           cell = fmin(14, (wide - 6) / (n->n_rails > 4 ? (n->n_rails + 1) / 2.0 : n->n_rails));
    uint32_t columns = n->n_rails > 4 ? (n->n_rails + 1) / 2 : n->n_rails;
    for (uint32_t h = 0; h < n->n_hosts; h++) {
        char name[NETWORK_NAME_BYTES], c[16], style[100];
        double left = x_of(h, n->n_hosts) - wide / 2;
        fprintf(
            d->out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"58\" rx=\"4\" fill=\"#f8fafc\" stroke=\"#94a3b8\"/>\n",
            left, y->host, wide);
        for (uint32_t r = 0; r < n->n_rails; r++) {
            double share = -1;
            for (uint32_t p = 0; p < n->n_ports; p++)
                share = fmax(share, busy(d, NETWORK_NIC_UP, network_nic(n, h, r, p)));
            fprintf(d->out,
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" stroke=\"#fff\" "
                    "stroke-width=\"0.7\"/>\n",
                    left + (wide - columns * cell) / 2 + r % columns * cell, y->host + 5 + r / columns * 15.0, cell,
                    14.0, fill(share, c));
        }
        network_host_name(n, h, name);
        snprintf(style, sizeof style, "font-size=\"%.1f\" text-anchor=\"middle\" fill=\"#334155\"",
                 fmin(11, wide / 3.2));
        plan_svg_text(d->out, left + wide / 2, y->host + 51, style, strncmp(name, "host", 4) == 0 ? name + 4 : name);
    }
    plan_svg_text(d->out, MARGIN, y->host + 76, "font-size=\"13\" fill=\"#475569\"",
                  "hosts: a square is a NIC, rail 0 first");
}

static double draw_few(const struct drawing *d, bool dry)
{
    const struct network *n = d->net;
    uint32_t spines = n->n_pods * n->n_planes * n->n_spines, cores = n->n_planes * n->n_spines * n->n_cores;
    struct rows y = {.core = HEAD + 20};
    y.spine = cores ? y.core + 130 : HEAD + 20;
    y.leaf = spines ? y.spine + 150 : HEAD + 20;
    y.host = y.leaf + 170;
    if (dry) return y.host + 96;
    few_cables(d, &y, spines, cores);
    char name[64];
    for (uint32_t c = 0; c < cores; c++)
        snprintf(name, sizeof name, "%u", c), box(d, x_of(c, cores), y.core, fmin(60, 1080.0 / cores), name, 0);
    for (uint32_t s = 0; s < spines; s++) {
        double share = -1;
        for (uint32_t leaf = 0; leaf < n->n_leaves; leaf++)
            for (uint32_t k = 0; k < n->n_spines; k++)
                if (spine_of(d, leaf, k) == s)
                    share = fmax(share, busy(d, NETWORK_LEAF_UP, (uint64_t)leaf * n->n_spines + k));
        snprintf(name, sizeof name, spines > 16 ? "s%u" : "spine %u", s);
        box(d, x_of(s, spines), y.spine, fmin(74, 1080.0 / spines), name, share);
    }
    for (uint32_t leaf = 0; leaf < n->n_leaves; leaf++) {
        snprintf(name, sizeof name, n->n_leaves > 16 ? "l%u" : "leaf %u", leaf);
        box(d, x_of(leaf, n->n_leaves), y.leaf, fmin(74, 1080.0 / n->n_leaves), name, leaf_busy(d, leaf));
    }
    few_hosts(d, &y);
    return y.host + 96;
}

/* ---- strips ---- */

enum { COLUMNS_MAX = 128, CELL_HEIGHT = 11 };

struct strip {
    const char *title, *columns_are;
    uint32_t rows, columns; /* parts */
    double (*share)(const struct drawing *d, uint32_t row, uint32_t column);
};

static double nic_share(const struct drawing *d, uint32_t row, uint32_t column)
{
    double most = -1;
    for (uint32_t p = 0; p < d->net->n_ports; p++)
        most = fmax(most, busy(d, NETWORK_NIC_UP, network_nic(d->net, column, row, p)));
    return most;
}

static double uplink_share(const struct drawing *d, uint32_t row, uint32_t column)
{
    uint32_t per_unit = d->net->n_leaves / d->net->n_units;
    double most = -1;
    for (uint32_t s = 0; s < d->net->n_spines; s++)
        most = fmax(most, busy(d, NETWORK_LEAF_UP, ((uint64_t)column * per_unit + row) * d->net->n_spines + s));
    return most;
}

static double core_share(const struct drawing *d, uint32_t row, uint32_t column)
{
    double most = -1;
    uint64_t spine = (uint64_t)column * d->net->n_planes * d->net->n_spines + row;
    for (uint32_t c = 0; c < d->net->n_cores; c++)
        most = fmax(most, busy(d, NETWORK_SPINE_UP, spine * d->net->n_cores + c));
    return most;
}

static double draw_strip(const struct drawing *d, const struct strip *s, double y)
{
    uint32_t per = (s->columns + COLUMNS_MAX - 1) / COLUMNS_MAX, cells = (s->columns + per - 1) / per;
    double wide = (WIDTH - 2.0 * MARGIN) / cells;
    char line[160], c[16];
    plan_svg_text(d->out, MARGIN, y + 14, "font-size=\"15\" font-weight=\"bold\" fill=\"#0f172a\"", s->title);
    snprintf(line, sizeof line, "%u %s", s->columns, s->columns_are);
    if (per > 1) snprintf(line, sizeof line, "%u %s, a cell is the busiest of %u", s->columns, s->columns_are, per);
    plan_svg_text(d->out, WIDTH - MARGIN, y + 14, "font-size=\"13\" text-anchor=\"end\" fill=\"#475569\"", line);
    for (uint32_t row = 0; row < s->rows; row++)
        for (uint32_t cell = 0; cell < cells; cell++) {
            double share = -1;
            for (uint32_t k = cell * per; k < (cell + 1) * per && k < s->columns; k++)
                share = fmax(share, s->share(d, row, k));
            fprintf(d->out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" fill=\"%s\"/>\n",
                    MARGIN + cell * wide, y + 24 + row * (double)CELL_HEIGHT, wide > 3 ? wide - 0.6 : wide,
                    CELL_HEIGHT - 1, fill(share, c));
        }
    return y + 24 + s->rows * (double)CELL_HEIGHT + 30;
}

static double draw_strips(const struct drawing *d, bool dry)
{
    const struct network *n = d->net;
    const struct strip strips[] = {
        {"cables of spines to cores: a row is a spine of its pod", "pods", n->n_cores ? n->n_planes * n->n_spines : 0,
         n->n_pods, core_share},
        {n->kind == NETWORK_FAT_TREE ? "cables of leaves to spines" : "cables of leaves to spines: a row is a rail",
         "units of hosts", n->n_spines ? n->n_leaves / n->n_units : 0, n->n_units, uplink_share},
        {"NICs: a row is a rail", "hosts", n->n_rails, n->n_hosts, nic_share},
    };
    double y = HEAD + 14;
    for (int k = 0; k < 3; k++)
        if (strips[k].rows && dry) y += 54 + strips[k].rows * (double)CELL_HEIGHT;
        else if (strips[k].rows) y = draw_strip(d, &strips[k], y);
    return y;
}

int plan_write_svg(const struct plan_view *v, FILE *out)
{
    struct drawing d = {.view = v, .net = &v->network, .out = out};
    if (v->n_rows == 0 || v->rows[v->drawn].why[0])
        return fprintf(stderr, "railccl plan: nothing was simulated that could be drawn\n"), 1;
    d.full_ns = v->rows[v->drawn].loads.busiest_ns;
    uint32_t spines = d.net->n_pods * d.net->n_planes * d.net->n_spines;
    bool few = d.net->n_hosts <= FEW_HOSTS && d.net->n_leaves <= FEW_LEAVES && spines <= FEW_SPINES &&
               d.net->n_planes * d.net->n_spines * d.net->n_cores <= FEW_SPINES;
    plan_svg_begin(out, WIDTH, few ? draw_few(&d, true) : draw_strips(&d, true));
    head(&d);
    if (few) draw_few(&d, false);
    else draw_strips(&d, false);
    fputs("</svg>\n", out);
    return ferror(out) != 0;
}
