/* rates.c - tables of what links carry. */
#include <stdlib.h>
#include <string.h>

#include "topo/rates.h"

/* 8b/10b leaves 80 % of 2.5 and 5 GT/s, 128b/130b 98 % of the others; packets of 128 to 256 bytes with their headers
 * and acknowledgements leave some three quarters of that: 0.75 GB/s per lane of generation 3, doubling from there. */
static const struct { double gt_per_s, gb_per_s; } pci[] = {
    {2.5, 0.1875}, {5, 0.375}, {8, 0.75}, {16, 1.5}, {32, 3}, {64, 6}, {128, 12},
};

struct topo_rate topo_rate_pci(double gt_per_s, int lanes, struct topo_origin told)
{
    struct topo_rate rate = {0, told};
    if (gt_per_s <= 0 || lanes <= 0) {
        const char *why = gt_per_s <= 0 && lanes <= 0
                              ? "generation 3 and 16 lanes, as the link's speed and width are not told"
                          : gt_per_s <= 0 ? "generation 3, as the link's speed is not told"
                                          : "16 lanes, as the link's width is not told";
        rate.origin = (struct topo_origin){TOPO_ASSUMED, 0, why};
    }
    double speed = gt_per_s > 0 ? gt_per_s : 8, lane = pci[0].gb_per_s;
    for (size_t i = 0; i < sizeof pci / sizeof *pci; i++)
        if (speed >= pci[i].gt_per_s * 0.99) lane = pci[i].gb_per_s;
    rate.gb_per_s = lane * (lanes > 0 ? lanes : 16);
    return rate;
}

struct topo_rate topo_rate_nvlink(int sm)
{
    static const struct { int sm; double gb_per_s; const char *what; } table[] = {
        {100, 40.1, "one NVLink of compute capability 10 and later"}, {90, 20.6, "one NVLink of compute capability 9"},
        {87, 20, "one NVLink of compute capability 8"},  {86, 12, "one NVLink of compute capability 8.6"},
        {70, 20, "one NVLink of compute capability 7 and 8.0"}, {60, 18, "one NVLink of compute capability 6"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (sm >= table[i].sm) return (struct topo_rate){table[i].gb_per_s, {TOPO_TABLE, 0, table[i].what}};
    return (struct topo_rate){18, {TOPO_ASSUMED, 0, "18 GB/s per NVLink, as the GPU's generation is not told"}};
}

struct topo_rate topo_rate_between_cpus(const struct topo_cpu *cpu)
{
    double rate = 6;
    const char *what = "between sockets of a processor that no table knows";
    enum topo_how how = TOPO_TABLE;
    if (strncmp(cpu->arch, "arm", 3) == 0 || strcmp(cpu->arch, "aarch64") == 0) {
        what = "between Arm sockets";
    } else if (strstr(cpu->vendor, "AMD")) {
        rate = 16;
        what = "between AMD NUMA nodes";
    } else if (strstr(cpu->vendor, "Intel")) {
        /* Family 6: Sapphire and Emerald Rapids 143 and 207, Granite Rapids 173; Skylake to Ice Lake 85, 106, 108. */
        if (cpu->model == 173 || cpu->model == 174) rate = 40, what = "between Intel sockets of Granite Rapids";
        else if (cpu->model == 143 || cpu->model == 207) rate = 22, what = "between Intel sockets of Sapphire Rapids";
        else if (cpu->model >= 85) rate = 10, what = "between Intel sockets of Skylake to Ice Lake";
        else what = "between Intel sockets before Skylake, or of a model that is not told";
    } else if (strstr(cpu->vendor, "hang") || strstr(cpu->vendor, "Zhaoxin") || strstr(cpu->vendor, "Centaur")) {
        what = "between Zhaoxin sockets";
    } else {
        how = TOPO_ASSUMED;
    }
    return (struct topo_rate){rate, {how, 0, what}};
}

double topo_rate_parse_gt(const char *text)
{
    while (*text == ' ') text++;
    if (*text == '\0' || strncmp(text, "Unknown", 7) == 0 || strncmp(text, "unknown", 7) == 0) return 0;
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value >= 0 && value <= 1024)) return -1;
    while (*end == ' ') end++;
    if (*end != '\0' && strncmp(end, "GT/s", 4) != 0) return -1;
    return value;
}
