/* plot.h - axes over message sizes, for SVG plots. */
#ifndef TOOLS_PLOT_H
#define TOOLS_PLOT_H

#include <stdbool.h>
#include <stdio.h>

enum { PLOT_COLOURS = 8 };
extern const char *const plot_colours[PLOT_COLOURS];

struct plot_axis { double low, high, from, to; bool log; }; /* values low..high at from..to of the picture */
double plot_at(const struct plot_axis *axis, double value);

enum plot_values { PLOT_TIMES, PLOT_SHARES, PLOT_FACTORS }; /* ns by decades; per cent by twenties; factors by tenths */
/* Lines and numbers of both; x is bytes, below is y->from. */
void plot_axes(FILE *out, const struct plot_axis *x, const struct plot_axis *y, enum plot_values values);

#endif
