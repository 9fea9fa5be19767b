/* fake_nvml.c - a libnvidia-ml.so.1 that says what the file $FAKE_NVML says, a statement a line:
 *
 *   gpu BUS MINOR-NUMBER MAJOR MINOR          one more device, with its compute capability
 *   link GPU N up|down gpu|switch|cpu|unknown BUS
 *   c2c GPU LINKS MBYTE-PER-S
 *   count N                                   what nvmlDeviceGetCount says, instead of the number of gpu lines
 *   fail CALL RESULT                          the call returns this
 *   without CALL                              of the optional ones: as a library that cannot do it
 *
 * Layouts are written down here once more, from NVML's documentation, so that a mistake in ours shows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char legacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32]; } Pci;
typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    int valueType, nvmlReturn;
    union { double d; unsigned u; unsigned long long ull; } value;
} Field;

enum { GPUS = 16, LINKS = 64 };
static struct { char bus[32]; int minor, major, cap_minor; unsigned c2c, c2c_mb; } gpus[GPUS];
static struct { unsigned gpu, link; int up, type; char bus[32]; } links[LINKS];
static struct { char call[64]; int result; } fails[16];
static unsigned n_gpus, n_links, n_fails, count;
static char without[64];

static void read_all(void)
{
    char line[256], a[64], b[64], c[64];
    unsigned x, y;
    int d, e, f;
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    n_gpus = n_links = n_fails = count = 0;
    without[0] = '\0';
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "gpu %31s %d %d %d", a, &d, &e, &f) == 4) {
            strcpy(gpus[n_gpus].bus, a), gpus[n_gpus].minor = d, gpus[n_gpus].major = e, gpus[n_gpus++].cap_minor = f;
        } else if (sscanf(line, "link %u %u %63s %63s %31s", &x, &y, a, b, c) == 5) {
            links[n_links].gpu = x, links[n_links].link = y, links[n_links].up = strcmp(a, "up") == 0;
            links[n_links].type = !strcmp(b, "gpu") ? 0 : !strcmp(b, "cpu") ? 1 : !strcmp(b, "switch") ? 2 : 255;
            strcpy(links[n_links++].bus, c);
        } else if (sscanf(line, "c2c %u %u %d", &x, &y, &d) == 3) {
            gpus[x].c2c = y, gpus[x].c2c_mb = (unsigned)d;
        } else if (sscanf(line, "fail %63s %d", a, &d) == 2) {
            strcpy(fails[n_fails].call, a), fails[n_fails++].result = d;
        } else if (sscanf(line, "without %63s", a) == 1) {
            strcpy(without, a);
        } else {
            sscanf(line, "count %u", &count);
        }
    }
    if (file) fclose(file);
}

static int failing(const char *call)
{
    if (strcmp(without, call) == 0) return 13; /* function not found */
    for (unsigned i = 0; i < n_fails; i++)
        if (strcmp(fails[i].call, call) == 0) return fails[i].result;
    return 0;
}
#define MAY_FAIL() do { int r_ = failing(__func__); if (r_) return r_; } while (0)

static unsigned index_of(void *device) { return (unsigned)((size_t)device - 1); }

int nvmlInit_v2(void) { read_all(); MAY_FAIL(); return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int r) { static char text[32]; snprintf(text, sizeof text, "fake error %d", r); return text; }
int nvmlDeviceGetCount_v2(unsigned *out) { MAY_FAIL(); *out = count ? count : n_gpus; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **out)
{
    MAY_FAIL();
    if (i >= n_gpus) return 2;
    *out = (void *)((size_t)i + 1);
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void *d, Pci *out) { MAY_FAIL(); strcpy(out->busId, gpus[index_of(d)].bus); return 0; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor)
{
    MAY_FAIL();
    *major = gpus[index_of(d)].major, *minor = gpus[index_of(d)].cap_minor;
    return 0;
}
int nvmlDeviceGetMinorNumber(void *d, unsigned *out) { MAY_FAIL(); *out = (unsigned)gpus[index_of(d)].minor; return 0; }
static int find(void *d, unsigned link)
{
    for (unsigned i = 0; i < n_links; i++)
        if (links[i].gpu == index_of(d) && links[i].link == link) return (int)i;
    return -1;
}
int nvmlDeviceGetNvLinkState(void *d, unsigned link, int *up)
{
    MAY_FAIL();
    int i = find(d, link);
    if (i < 0) return 2;
    *up = links[i].up;
    return 0;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *d, unsigned link, Pci *out)
{
    MAY_FAIL();
    strcpy(out->busId, links[find(d, link)].bus);
    return 0;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void *d, unsigned link, int *out)
{
    MAY_FAIL();
    *out = links[find(d, link)].type;
    return 0;
}
int nvmlDeviceGetFieldValues(void *d, int n, Field *f)
{
    MAY_FAIL();
    for (int i = 0; i < n; i++) {
        f[i].nvmlReturn = gpus[index_of(d)].c2c ? 0 : 3;
        f[i].value.u = f[i].fieldId == 170 ? gpus[index_of(d)].c2c : f[i].fieldId == 171 ? 1 : gpus[index_of(d)].c2c_mb;
    }
    return 0;
}
