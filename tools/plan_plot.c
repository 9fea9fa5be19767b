/* plan_plot.c - cases over sizes: time on the left, share of what the NICs could do on the right; a line per
 * algorithm, order and way of using NICs, its name at its end. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "plan_svg.h"
#include "plot.h"

enum { WIDTH = 1200, HEIGHT = 520, TOP = 96, BOTTOM = 456, PANEL = 440, LEFT = 78, RIGHT = 640, LINES_MAX = 64 };

static bool same_line(const struct plan_row *a, const struct plan_row *b)
{
    return a->asked == b->asked && a->as_given == b->as_given && a->unaware == b->unaware;
}

static const char *line_name(const struct plan_row *r, char out[64])
{
    snprintf(out, 64, "%s%s%s", r->asked < 0 ? "auto" : plan_algorithm_names[r->asked], r->unaware ? ", unaware" : "",
             r->as_given ? ", given order" : "");
    return out;
}

static double time_of(const struct plan_row *r) { return r->ns; }
static double share_of(const struct plan_row *r) { return 100 * r->least_ns / r->ns; }

/* One line through the cases of one kind. The legend stands in the left panel, where lines begin low. */
static void draw_line(const struct plan_view *v, FILE *out, uint32_t first, uint32_t number, const struct plot_axis *x,
                      const struct plot_axis *y, double (*value)(const struct plan_row *r))
{
    const char *ink = plot_colours[number % PLOT_COLOURS], *dash = number >= PLOT_COLOURS ? " stroke-dasharray=\"6 4\"" : "";
    bool begun = false;
    fprintf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2.4\"%s d=\"", ink, dash);
    for (uint32_t k = first; k < v->n_rows; k++) {
        if (!same_line(&v->rows[k], &v->rows[first]) || v->rows[k].why[0]) continue;
        fprintf(out, "%c%.1f %.1f ", begun ? 'L' : 'M', plot_at(x, (double)v->rows[k].bytes), plot_at(y, value(&v->rows[k])));
        begun = true;
    }
    fputs("\"/>\n", out);
    for (uint32_t k = first; k < v->n_rows; k++)
        if (same_line(&v->rows[k], &v->rows[first]) && !v->rows[k].why[0])
            fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", plot_at(x, (double)v->rows[k].bytes),
                    plot_at(y, value(&v->rows[k])), ink);
}

static uint32_t lines_of(const struct plan_view *v, uint32_t *first)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < v->n_rows && n < LINES_MAX; k++) {
        bool seen = v->rows[k].why[0] != '\0';
        for (uint32_t j = 0; j < n; j++) seen |= same_line(&v->rows[first[j]], &v->rows[k]);
        if (!seen) first[n++] = k;
    }
    return n;
}

static void draw_head(const struct plan_view *v, FILE *out)
{
    char line[300];
    const struct network *n = &v->network;
    snprintf(line, sizeof line, "%s on %u ranks: %u hosts x %u NICs of %.4g Gbit/s, %s, %u tiers",
             plan_call_name(v->wish), v->wish->job_hosts * v->wish->gpus, v->wish->job_hosts, n->n_rails,
             v->wish->network.nic_gbit, network_kind_names[n->kind], n->n_tiers);
    plan_svg_text(out, 30, 36, "font-size=\"20\" font-weight=\"bold\" fill=\"#0f172a\"", line);
    snprintf(line, sizeof line, "costs of %s: %s", v->wish->machine->name, v->wish->machine->source);
    plan_svg_text(out, 30, 58, "font-size=\"13\" fill=\"#475569\"", line);
    plan_svg_text(out, LEFT, 84, "font-size=\"14\" font-weight=\"bold\" fill=\"#334155\"", "time, by size");
    plan_svg_text(out, RIGHT, 84, "font-size=\"14\" font-weight=\"bold\" fill=\"#334155\"",
                  "what every host must send, at its NICs' rate, as a share of the time");
}

int plan_write_plot(const struct plan_view *v, FILE *out)
{
    uint32_t first[LINES_MAX], n = lines_of(v, first);
    struct plot_axis x = {.low = 1e300, .from = LEFT, .to = LEFT + PANEL, .log = true},
                y = {.low = 1e300, .from = BOTTOM, .to = TOP, .log = true};
    struct plot_axis share = {.low = 0, .high = 100, .from = BOTTOM, .to = TOP};
    char name[64];
    for (uint32_t k = 0; k < v->n_rows; k++) {
        const struct plan_row *r = &v->rows[k];
        if (r->why[0]) continue;
        x.low = fmin(x.low, (double)r->bytes), x.high = fmax(x.high, (double)r->bytes);
        y.low = fmin(y.low, r->ns), y.high = fmax(y.high, r->ns);
    }
    if (n == 0 || x.low >= x.high)
        return fprintf(stderr, "railccl plan: --plot wants several sizes: --sizes FROM:TO\n"), 1;
    y.low = pow(10, floor(log10(y.low))), y.high = pow(10, ceil(log10(y.high)));
    plan_svg_begin(out, WIDTH, HEIGHT + 24.0 * ((n + 3) / 4));
    draw_head(v, out);
    plot_axes(out, &x, &y, PLOT_TIMES);
    for (uint32_t k = 0; k < n; k++) draw_line(v, out, first[k], k, &x, &y, time_of);
    x.from = RIGHT, x.to = RIGHT + PANEL + 80;
    plot_axes(out, &x, &share, PLOT_SHARES);
    for (uint32_t k = 0; k < n; k++) draw_line(v, out, first[k], k, &x, &share, share_of);
    for (uint32_t k = 0; k < n; k++) {
        double left = LEFT + k % 4 * 275.0, top = HEIGHT - 14 + k / 4 * 24.0;
        fprintf(out, "<path d=\"M%.1f %.1f h30\" stroke=\"%s\" stroke-width=\"3\"%s/>\n", left, top - 4, plot_colours[k % PLOT_COLOURS],
                k >= PLOT_COLOURS ? " stroke-dasharray=\"6 4\"" : "");
        plan_svg_text(out, left + 38, top, "font-size=\"13\" fill=\"#0f172a\"", line_name(&v->rows[first[k]], name));
    }
    fputs("</svg>\n", out);
    return ferror(out) != 0;
}
