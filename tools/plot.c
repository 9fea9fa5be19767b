/* plot.c - see plot.h. */
#include "plot.h"

#include <math.h>

#include "plan_svg.h"

const char *const plot_colours[PLOT_COLOURS] = {"#2563eb", "#d97706", "#059669", "#dc2626",
                                                "#7c3aed", "#0891b2", "#be185d", "#65a30d"};

double plot_at(const struct plot_axis *a, double value)
{
    double x =
        a->log ? (log(value) - log(a->low)) / (log(a->high) - log(a->low)) : (value - a->low) / (a->high - a->low);
    return a->from + x * (a->to - a->from);
}

static void size_name(double bytes, char out[24])
{
    static const char *const units[] = {"B", "K", "M", "G", "T", "P"};
    int k = 0;
    while (bytes >= 1024 && k < 5) bytes /= 1024, k++;
    snprintf(out, 24, "%.4g%s", bytes, units[k]);
}

static void value_name(double value, enum plot_values kind, char out[24])
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int k = 0;
    if (kind == PLOT_SHARES) snprintf(out, 24, "%.0f %%", value);
    if (kind == PLOT_FACTORS) snprintf(out, 24, "%.2g", value);
    if (kind != PLOT_TIMES) return;
    while (value >= 999.5 && k < 3) value /= 1000, k++;
    snprintf(out, 24, "%.3g %s", value, units[k]);
}

static double next(double value, enum plot_values kind, double range)
{
    if (kind == PLOT_TIMES) return value * 10;
    return value + (kind == PLOT_SHARES ? 20 : range > 4 ? 1 : range > 1 ? 0.5 : 0.1);
}

void plot_axes(FILE *out, const struct plot_axis *x, const struct plot_axis *y, enum plot_values kind)
{
    char name[24];
    for (double v = y->low; v <= y->high * 1.001; v = next(v, kind, y->high - y->low)) {
        fprintf(out, "<path d=\"M%.1f %.1f H%.1f\" stroke=\"#e2e8f0\"/>\n", x->from, plot_at(y, v), x->to);
        value_name(v, kind, name);
        plan_svg_text(out, x->from - 8, plot_at(y, v) + 4, "font-size=\"12\" text-anchor=\"end\" fill=\"#475569\"",
                      name);
    }
    double step = x->high / x->low > 4096 * 4 ? 16 : 4;
    for (double v = x->low; v <= x->high * 1.001; v *= step) {
        size_name(v, name);
        fprintf(out, "<path d=\"M%.1f %.1f V%.1f\" stroke=\"#e2e8f0\"/>\n", plot_at(x, v), y->from, y->to);
        plan_svg_text(out, plot_at(x, v), y->from + 20, "font-size=\"12\" text-anchor=\"middle\" fill=\"#475569\"",
                      name);
    }
    fprintf(out, "<path d=\"M%.1f %.1f H%.1f\" stroke=\"#475569\"/>\n", x->from, y->from, x->to);
}
