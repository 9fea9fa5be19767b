/* settings.c - what the environment says about the machine that is emulated (README.md lists the variables).
 *
 * A setting that cannot be understood makes cuInit fail with a line that names it: a test must not run on another
 * machine than the one that it asked for. */
#include "emulated_cuda/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings settings;

/* A number of the environment within [low, high]. */
static bool number(const char *name, uint64_t low, uint64_t high, uint64_t fallback, uint64_t *value)
{
    const char *text = getenv(name);
    char *end;
    *value = fallback;
    if (text == NULL || *text == '\0')
        return true;
    unsigned long long read = strtoull(text, &end, 0);
    if (*end != '\0' || *text == '-' || read < low || read > high) {
        say("%s=%s is no number from %llu to %llu", name, text, (unsigned long long)low, (unsigned long long)high);
        return false;
    }
    *value = read;
    return true;
}

/* "all", "none", or pairs of physical devices that reach one another: "0-1,2-3". */
static bool read_peers(uint32_t n_physical)
{
    const char *text = getenv("EMULATED_CUDA_PEERS");
    bool all = text == NULL || *text == '\0' || strcmp(text, "all") == 0;
    for (uint32_t i = 0; i < MAX_DEVICES; i++)
        settings.peers[i] = all ? ~0u : 1u << i;
    if (all || strcmp(text, "none") == 0)
        return true;
    for (const char *at = text; *at != '\0';) {
        unsigned a, b;
        int length;
        if (sscanf(at, "%u-%u%n", &a, &b, &length) != 2 || a >= n_physical || b >= n_physical) {
            say("EMULATED_CUDA_PEERS=%s is not all, none or pairs of devices below %u such as 0-1,2-3", text,
                n_physical);
            return false;
        }
        settings.peers[a] |= 1u << b;
        settings.peers[b] |= 1u << a;
        at += length;
        at += *at == ',';
    }
    return true;
}

/* CUDA_VISIBLE_DEVICES as a list of numbers: ends, as in the real driver, at the first that is no device. */
static void read_visible(int n_physical)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    settings.n_devices = 0;
    if (text == NULL) {
        for (int i = 0; i < n_physical; i++)
            settings.physical[settings.n_devices++] = i;
        return;
    }
    for (const char *at = text; *at != '\0' && settings.n_devices < MAX_DEVICES;) {
        char *end;
        long device = strtol(at, &end, 10);
        if (end == at || device < 0 || device >= n_physical)
            return;
        settings.physical[settings.n_devices++] = (int)device;
        at = *end == ',' ? end + 1 : end;
        if (*end != ',' && *end != '\0')
            return;
    }
}

CUresult settings_read(void)
{
    uint64_t n, version, multiprocessors, threads, memory, strict, watch;
    const char *capability = getenv("EMULATED_CUDA_CAPABILITY"), *golden = getenv("EMULATED_CUDA_GOLDEN");
    const char *loading = getenv("CUDA_MODULE_LOADING");
    settings.major = 9;
    settings.minor = 0;
    if (capability != NULL && *capability != '\0' &&
        sscanf(capability, "%d.%d", &settings.major, &settings.minor) != 2) {
        say("EMULATED_CUDA_CAPABILITY=%s is not MAJOR.MINOR", capability);
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* 132: the multiprocessors of an H100; 4 GiB: some room on every machine that tests run on. */
    if (!number("EMULATED_CUDA_DEVICES", 0, MAX_DEVICES, 8, &n) ||
        !number("EMULATED_CUDA_DRIVER", 11000, 99000, 13000, &version) ||
        !number("EMULATED_CUDA_MULTIPROCESSORS", 1, 1024, 132, &multiprocessors) ||
        !number("EMULATED_CUDA_THREADS", 1, MAX_BLOCK_THREADS, 1, &threads) ||
        !number("EMULATED_CUDA_MEMORY", 1 << 21, (uint64_t)1 << 40, (uint64_t)4 << 30, &memory) ||
        !number("EMULATED_CUDA_WATCH_MS", 1, 86400000, 10000, &watch) ||
        !number("EMULATED_CUDA_STRICT", 0, 1, 0, &strict) || !read_peers((uint32_t)n))
        return CUDA_ERROR_INVALID_VALUE;
    if (golden != NULL && *golden != '\0' && strcmp(golden, "abort") != 0 && strcmp(golden, "wait") != 0) {
        say("EMULATED_CUDA_GOLDEN=%s is neither wait nor abort", golden);
        return CUDA_ERROR_INVALID_VALUE;
    }
    settings.driver_version = (int)version;
    settings.multiprocessors = (int)multiprocessors;
    settings.block_threads = (int)threads;
    settings.memory_bytes = (memory + ((1 << 21) - 1)) & ~(uint64_t)((1 << 21) - 1);
    settings.strict = strict != 0;
    settings.watch_ns = watch * 1000000;
    settings.abort_golden = golden != NULL && strcmp(golden, "abort") == 0;
    settings.lazy = loading == NULL || strcmp(loading, "EAGER") != 0;
    read_visible((int)n);
    return CUDA_SUCCESS;
}
