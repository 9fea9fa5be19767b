/* version.c - `railccl version`: what this is, and which NCCL it stands in for. */
#include <stdio.h>
#include <string.h>

#include "nccl.h"
#include "tool.h"

static int run(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return puts("Usage: railccl version\nPrints railccl's version and the NCCL version whose interface it offers."), 0;
    if (argc > 1) return fprintf(stderr, "railccl version: %s: takes no arguments\n", argv[1]), 2;
    printf("railccl %s (NCCL %d.%d.%d interface)\n", RAILCCL_VERSION, NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
    return 0;
}

const struct tool_command tool_version = {"version", "Prints the version.", run};
