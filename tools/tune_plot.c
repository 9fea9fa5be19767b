/* tune_plot.c - the first sweep as a picture: every algorithm's time on the left, the chooser's marked; on the right
 * its factor against the fastest, with what counts as wrong above a line. Where the chooser changes its mind stands a
 * rule. */
#include <math.h>

#include "plan_svg.h"
#include "plot.h"
#include "tune.h"

enum { WIDTH = 1200, HEIGHT = 520, TOP = 96, BOTTOM = 456, PANEL = 440, LEFT = 78, RIGHT = 640 };

static const struct tune_sweep *first_of(const struct tune_view *v)
{
    for (int c = 0; c < PLAN_COLLECTIVES; c++)
        if (v->sweeps[c]) return v->sweeps[c];
    return NULL;
}

static void draw_head(const struct tune_view *v, const struct tune_sweep *s, FILE *out)
{
    char line[300];
    snprintf(line, sizeof line, "%s of %d ranks on %d host%s: what the chooser takes, and every other algorithm",
             tune_collective_name(s->collective), v->wish.ranks, v->wish.hosts, v->wish.hosts > 1 ? "s" : "");
    plan_svg_text(out, 30, 36, "font-size=\"20\" font-weight=\"bold\" fill=\"#0f172a\"", line);
    snprintf(line, sizeof line, "%s, %d cores; host memory; medians of %d rounds; railccl %s", v->cpu, v->cores,
             v->wish.rounds, RAILCCL_VERSION);
    plan_svg_text(out, 30, 58, "font-size=\"13\" fill=\"#475569\"", line);
    plan_svg_text(out, LEFT, 84, "font-size=\"14\" font-weight=\"bold\" fill=\"#334155\"",
                  "time, by size; rings: what the chooser took");
    plan_svg_text(out, RIGHT, 84, "font-size=\"14\" font-weight=\"bold\" fill=\"#334155\"",
                  "the chooser's time over the fastest's; dashed: above 1.10 it is wrong");
}

static void draw_line(const struct tune_sweep *s, FILE *out, int algorithm, const char *ink, const struct plot_axis *x,
                      const struct plot_axis *y)
{
    fprintf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2.2\" d=\"", ink);
    for (int k = 0; k < s->n_sizes; k++)
        fprintf(out, "%c%.1f %.1f ", k ? 'L' : 'M', plot_at(x, (double)s->size[k]),
                plot_at(y, 1e3 * tune_median(s, algorithm, k)));
    fputs("\"/>\n", out);
}

/* Rules where the chooser goes from one algorithm to another, and rings on what it took. */
static void draw_choices(const struct tune_sweep *s, FILE *out, const struct plot_axis *x, const struct plot_axis *y)
{
    for (int k = 0; k < s->n_sizes; k++) {
        double left = plot_at(x, (double)s->size[k]), top = plot_at(y, 1e3 * tune_median(s, TUNE_CHOOSER, k));
        fprintf(out,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"none\" stroke=\"#0f172a\" stroke-width=\"1.6\"/>\n",
                left, top);
        if (k == 0 || s->took[k] == s->took[k - 1]) continue;
        double between = (left + plot_at(x, (double)s->size[k - 1])) / 2;
        fprintf(out, "<path d=\"M%.1f %d V%d\" stroke=\"#0f172a\" stroke-dasharray=\"3 4\"/>\n", between, TOP, BOTTOM);
        plan_svg_text(out, between - 5, TOP + 12, "font-size=\"12\" text-anchor=\"end\" fill=\"#0f172a\"",
                      plan_algorithm_names[s->took[k - 1]]);
        plan_svg_text(out, between + 5, TOP + 12, "font-size=\"12\" fill=\"#0f172a\"",
                      plan_algorithm_names[s->took[k]]);
    }
}

static void draw_factors(const struct tune_sweep *s, FILE *out, struct plot_axis x)
{
    struct plot_axis y = {.low = 1, .high = 1.5, .from = BOTTOM, .to = TOP};
    double factor;
    for (int k = 0; k < s->n_sizes; k++) {
        tune_best(s, k, &factor);
        y.high = fmax(y.high, ceil(2 * factor) / 2);
    }
    x.from = RIGHT, x.to = RIGHT + PANEL + 80;
    plot_axes(out, &x, &y, PLOT_FACTORS);
    fprintf(out, "<path d=\"M%.1f %.1f H%.1f\" stroke=\"#dc2626\" stroke-dasharray=\"6 4\"/>\n", x.from,
            plot_at(&y, TUNE_ENOUGH), x.to);
    fprintf(out, "<path fill=\"none\" stroke=\"#475569\" stroke-width=\"1.4\" d=\"");
    for (int k = 0; k < s->n_sizes; k++) {
        tune_best(s, k, &factor);
        fprintf(out, "%c%.1f %.1f ", k ? 'L' : 'M', plot_at(&x, (double)s->size[k]), plot_at(&y, factor));
    }
    fputs("\"/>\n", out);
    for (int k = 0; k < s->n_sizes; k++) {
        int best = tune_best(s, k, &factor);
        double left = plot_at(&x, (double)s->size[k]), top = plot_at(&y, factor);
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", left, top,
                plot_colours[best % PLOT_COLOURS]);
        if (factor > TUNE_ENOUGH)
            plan_svg_text(out, left, top - 9, "font-size=\"12\" text-anchor=\"middle\" fill=\"#dc2626\"",
                          plan_algorithm_names[best]);
    }
}

int tune_write_plot(const struct tune_view *v, FILE *out)
{
    const struct tune_sweep *s = first_of(v);
    struct plot_axis x = {.from = LEFT, .to = LEFT + PANEL, .log = true},
                     y = {.low = 1e300, .from = BOTTOM, .to = TOP, .log = true};
    if (!s || s->n_sizes < 2) return fprintf(stderr, "railccl tune: --plot wants several sizes: --sizes A:B\n"), 1;
    x.low = (double)s->size[0], x.high = (double)s->size[s->n_sizes - 1];
    for (int kind = 0; kind < TUNE_KINDS; kind++)
        for (int k = 0; s->rounds[kind] && k < s->n_sizes; k++) {
            double ns = 1e3 * tune_median(s, kind, k);
            y.low = fmin(y.low, ns), y.high = fmax(y.high, ns);
        }
    y.low = pow(10, floor(log10(y.low))), y.high = pow(10, ceil(log10(y.high)));
    plan_svg_begin(out, WIDTH, HEIGHT + 24);
    draw_head(v, s, out);
    plot_axes(out, &x, &y, PLOT_TIMES);
    double left = LEFT;
    for (int a = 0; a < PLAN_ALGORITHMS; a++) {
        if (!s->rounds[a]) continue;
        draw_line(s, out, a, plot_colours[a % PLOT_COLOURS], &x, &y);
        fprintf(out, "<path d=\"M%.1f %d h30\" stroke=\"%s\" stroke-width=\"3\"/>\n", left, HEIGHT - 4,
                plot_colours[a % PLOT_COLOURS]);
        plan_svg_text(out, left + 38, HEIGHT, "font-size=\"13\" fill=\"#0f172a\"", plan_algorithm_names[a]);
        left += 130;
    }
    draw_choices(s, out, &x, &y);
    draw_factors(s, out, x);
    fputs("</svg>\n", out);
    return ferror(out) != 0;
}
