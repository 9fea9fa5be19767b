/* calls.c - every call begins here: it is counted, and fails where a test has ordered it.
 *
 *     EMULATED_CUDA_FAIL="cuMemAlloc_v2:3=2,cuLaunchKernel:1=719"    the third and the first call return 2 and 719
 *
 * Names are those of the exports; "kernel" stands for the execution of a kernel, which fails after its launch
 * returned. */
#include "emulated_cuda/control.h"
#include "emulated_cuda/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

pthread_mutex_t emulator = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed;

enum { MAX_NAMES = 512, MAX_ORDERS = 64 };

struct counter {
    char name[64];
    uint64_t calls;
};
struct order {
    char name[64];
    uint64_t nth; /* of the counter; 0: executed, or unused */
    CUresult result;
};

static struct counter counters[MAX_NAMES];
static struct order orders[MAX_ORDERS];
static int n_counters;
static bool initialised;
static pid_t initialised_in;
static pthread_once_t once = PTHREAD_ONCE_INIT;

void say(const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    fprintf(stderr, "emulated cuda[%d]: %s\n", (int)getpid(), line);
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool is_sticky(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED: return true;
    default: return false;
    }
}

/* Under the lock. Names beyond the table share its last place: there are fewer exports than places. */
static struct counter *counter_of(const char *name)
{
    for (int i = 0; i < n_counters; i++)
        if (strcmp(counters[i].name, name) == 0)
            return &counters[i];
    struct counter *new = &counters[n_counters < MAX_NAMES - 1 ? n_counters++ : MAX_NAMES - 1];
    snprintf(new->name, sizeof new->name, "%s", name);
    return new;
}

static bool order_add(const char *name, uint64_t nth, CUresult result)
{
    for (int i = 0; i < MAX_ORDERS; i++)
        if (orders[i].nth == 0) {
            snprintf(orders[i].name, sizeof orders[i].name, "%s", name);
            orders[i].nth = counter_of(name)->calls + nth;
            orders[i].result = result;
            return true;
        }
    return false;
}

static void read_orders(void)
{
    const char *text = getenv("EMULATED_CUDA_FAIL");
    for (const char *at = text; at != NULL && *at != '\0';) {
        char name[64];
        unsigned long long nth;
        int result, length;
        if (sscanf(at, "%63[^:]:%llu=%d%n", name, &nth, &result, &length) != 3 || nth == 0 ||
            !order_add(name, nth, result)) {
            say("EMULATED_CUDA_FAIL=%s is not NAME:NTH=RESULT,...", text);
            abort();
        }
        at += length;
        at += *at == ',';
    }
}

/* A child of fork() must find the lock free: it is told that it has no driver. */
static void lock(void) { pthread_mutex_lock(&emulator); }
static void unlock(void) { pthread_mutex_unlock(&emulator); }

static void begin(void)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_atfork(lock, unlock, unlock);
    read_orders();
}

CUresult call_ordered(const char *name)
{
    CUresult result = CUDA_SUCCESS;
    pthread_once(&once, begin);
    pthread_mutex_lock(&emulator);
    uint64_t call = ++counter_of(name)->calls;
    for (int i = 0; i < MAX_ORDERS && result == CUDA_SUCCESS; i++)
        if (orders[i].nth == call && strcmp(orders[i].name, name) == 0) {
            orders[i].nth = 0;
            result = orders[i].result;
        }
    pthread_mutex_unlock(&emulator);
    return result;
}

CUresult call_begins(const char *name)
{
    CUresult result = call_ordered(name);
    if (result != CUDA_SUCCESS) {
        if (is_sticky(result)) {
            pthread_mutex_lock(&emulator);
            context_failed(context_current(), result);
            pthread_mutex_unlock(&emulator);
        }
        return result;
    }
    /* A child that was forked after cuInit has no driver, and can get none. */
    return __atomic_load_n(&initialised, __ATOMIC_ACQUIRE) && initialised_in == getpid() ? CUDA_SUCCESS
                                                                                         : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult call_begins_in(const char *name, struct context **context)
{
    CUresult result = call_begins(name);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&emulator);
    *context = context_current();
    result = *context == NULL ? CUDA_ERROR_INVALID_CONTEXT
                              : !context_alive(*context) ? CUDA_ERROR_CONTEXT_IS_DESTROYED : (*context)->sticky;
    pthread_mutex_unlock(&emulator);
    return result;
}

CUresult cuInit(unsigned flags)
{
    CUresult result = call_ordered(__func__);
    if (result != CUDA_SUCCESS)
        return result;
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    if (!initialised) {
        result = settings_read();
        if (result == CUDA_SUCCESS)
            result = settings.n_devices == 0 ? CUDA_ERROR_NO_DEVICE : space_reserve();
        if (result == CUDA_SUCCESS)
            fault_watch();
        initialised_in = getpid();
        __atomic_store_n(&initialised, result == CUDA_SUCCESS, __ATOMIC_RELEASE);
    } else if (initialised_in != getpid()) {
        result = CUDA_ERROR_NOT_INITIALIZED;
    }
    pthread_mutex_unlock(&emulator);
    return result;
}

CUresult cuDriverGetVersion(int *version)
{
    CUresult result = call_ordered(__func__);
    if (result != CUDA_SUCCESS)
        return result;
    if (version == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    result = initialised || settings_read() == CUDA_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    *version = settings.driver_version;
    pthread_mutex_unlock(&emulator);
    return result;
}

void emulated_cuda_fail(const char *name, unsigned nth, int result)
{
    pthread_once(&once, begin);
    pthread_mutex_lock(&emulator);
    if (nth == 0) {
        for (int i = 0; i < MAX_ORDERS; i++)
            if (strcmp(orders[i].name, name) == 0)
                orders[i].nth = 0;
    } else if (!order_add(name, nth, result)) {
        say("no place for one more fault: %s", name);
        abort();
    }
    pthread_mutex_unlock(&emulator);
}

uint64_t emulated_cuda_calls(const char *name)
{
    pthread_once(&once, begin);
    pthread_mutex_lock(&emulator);
    uint64_t calls = counter_of(name)->calls;
    pthread_mutex_unlock(&emulator);
    return calls;
}
