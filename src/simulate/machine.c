/* machine.c - kinds of machines, from calibration.def. */
#include "simulate/machine.h"

#include <stddef.h>
#include <string.h>

static const struct simulate_machine machines[] = {
#define MACHINE(...) {__VA_ARGS__},
#include "simulate/calibration.def"
#undef MACHINE
};

const char simulate_machine_names[] = "h100, rig";

const struct simulate_machine *simulate_machine_named(const char *name)
{
    for (size_t k = 0; k < sizeof machines / sizeof machines[0]; k++)
        if (strcmp(machines[k].name, name) == 0) return &machines[k];
    return NULL;
}
