/* cpu_name.c - what kind of processor this is, for files and pictures of what was measured on it. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "topo/machine.h"

const char *machine_cpu_name(char out[96])
{
    char line[512];
    struct utsname system;
    out[0] = '\0';
    FILE *info = fopen("/proc/cpuinfo", "re");
    while (info && !out[0] && fgets(line, sizeof line, info)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(out, 96, "%.95s", colon);
    }
    if (info) fclose(info);
    if (!out[0]) snprintf(out, 96, "%.95s", uname(&system) == 0 ? system.machine : "unknown");
    return out;
}
