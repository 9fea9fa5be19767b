/* print.h - a plan as text, one step a line. */
#ifndef RAIL_PLAN_PRINT_H
#define RAIL_PLAN_PRINT_H

#include <stdio.h>

#include "plan/plan.h"

void plan_print(const struct plan *plan, FILE *out);

#endif
