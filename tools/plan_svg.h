/* plan_svg.h - what the drawings of `railccl plan` share. */
#ifndef TOOLS_PLAN_SVG_H
#define TOOLS_PLAN_SVG_H

#include <stdio.h>

void plan_svg_begin(FILE *out, double width, double height); /* and a white ground; the caller writes </svg> */
void plan_svg_text(FILE *out, double x, double y, const char *style, const char *text);

#endif
