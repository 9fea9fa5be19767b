/* test_memory.c - memory of devices is out of the host's reach, out of reach for everybody once it is freed, known to
 * those who ask, and shared between processes in two ways. */
#include "emulated_cuda/fixture.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void the_host_cannot_read_it(void)
{
    client_of(0);
    CUdeviceptr at = device_words(1);
    volatile uint32_t *host = (volatile uint32_t *)(uintptr_t)at;
    uint32_t read = *host; /* the end */
    check(read == 1 && read == 2);
}

static void the_host_cannot_write_it(void)
{
    client_of(0);
    *(volatile uint32_t *)(uintptr_t)device_words(1) = 1;
}

static void a_kernel_cannot_use_what_was_freed(void)
{
    struct client c = client_of(0);
    CUfunction fill = kernel_of(&c, "kernel_fill");
    struct fill_argument a = {device_words(1), 1, 1};
    must(cuMemFree_v2(a.to));
    launch_it(fill, 1, NULL, &a);
    cuCtxSynchronize();
}

/* What a process says before it dies. */
static void last_words(void (*act)(void), char text[1024])
{
    int ends[2], status;
    check(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        act();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n < 1023 && (got = read(ends[0], text + n, 1023 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(ends[0]);
    check(waitpid(child, &status, 0) == child && status != 0);
}

static void wild_accesses_are_named(void)
{
    char text[1024];
    last_words(a_kernel_cannot_use_what_was_freed, text);
    check(strstr(text, "kernel kernel_fill, block 0 of 1, touches 0x") != NULL);
    last_words(the_host_cannot_write_it, text);
    check(strstr(text, "the host touches memory of a device at 0x") != NULL);
}

static void copies_stay_within_allocations(void)
{
    client_of(0);
    CUdeviceptr a = device_words(25), b = device_words(25);
    uint32_t host[50] = {1, 2, 3};
    must(cuMemcpyHtoD_v2(a, host, 100));
    must(cuMemcpyDtoD_v2(b, a, 100));
    host[2] = 0;
    must(cuMemcpyDtoH_v2(host, b, 100));
    check(host[2] == 3);
    gives(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(host, b, 104));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoD_v2(b + 4, a, 100));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemsetD32_v2(b, 0, 26));
    must(cuMemFree_v2(b));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(host, b, 4));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(b));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(a + 4));
}

static void a_device_is_full_some_day(void)
{
    client_of(0);
    CUdeviceptr at[20];
    size_t left, all;
    must(cuMemGetInfo_v2(&left, &all));
    check(left == 16 << 20 && all == 16 << 20); /* EMULATED_CUDA_MEMORY */
    for (int i = 0; i < 16; i++)
        must(cuMemAlloc_v2(&at[i], 1 << 20));
    gives(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&at[16], 1));
    must(cuMemFree_v2(at[7]));
    must(cuMemAlloc_v2(&at[7], 1 << 20));
    must(cuMemsetD8_v2(at[7], 7, 1 << 20));
}

static void strict_refuses_pageable_memory(void)
{
    client_of(0);
    uint32_t pageable = 1, *pinned = pinned_words(1);
    CUdeviceptr a = device_words(1);
    gives(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync_v2(a, &pageable, 4, NULL));
    must(cuMemcpyHtoDAsync_v2(a, pinned, 4, NULL));
    must(cuMemHostRegister_v2(&pageable, 4, 0));
    gives(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2(&pageable, 4, 0));
    must(cuMemcpyHtoDAsync_v2(a, &pageable, 4, NULL));
    must(cuMemHostUnregister(&pageable));
    gives(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(&pageable));
}

struct seen {
    CUcontext context;
    unsigned type;
    int ordinal;
    char managed, ipc;
    uint64_t range, range_bytes, id;
};

static struct seen look(CUdeviceptr at)
{
    struct seen s;
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_CONTEXT, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                   CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
                                   CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                   CU_POINTER_ATTRIBUTE_BUFFER_ID};
    void *places[] = {&s.context, &s.type, &s.ordinal, &s.managed, &s.ipc, &s.range, &s.range_bytes, &s.id};
    memset(&s, 0xee, sizeof s);
    must(cuPointerGetAttributes(8, names, places, at));
    return s;
}

static void pointers_are_known(void)
{
    client_of(0);
    struct client one = client_of(1);
    CUdeviceptr device = device_words(10), managed;
    uint32_t *pinned = pinned_words(10), pageable;
    must(cuMemAllocManaged(&managed, 40, CU_MEM_ATTACH_GLOBAL));
    struct seen s = look(device + 12);
    check(s.context == one.context && s.type == CU_MEMORYTYPE_DEVICE && s.ordinal == 1 && !s.managed && s.ipc);
    check(s.range == device && s.range_bytes == 40);
    struct seen p = look((uintptr_t)pinned);
    check(p.type == CU_MEMORYTYPE_HOST && !p.managed && !p.ipc && p.id != s.id);
    check(look(managed).managed == 1);
    *(uint32_t *)(uintptr_t)managed = 5; /* which the host may use */
    struct seen nothing = look((uintptr_t)&pageable);
    check(nothing.context == NULL && nothing.type == 0 && nothing.ordinal == -2);
    unsigned type;
    gives(CUDA_ERROR_INVALID_VALUE,
          cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)&pageable));
    must(cuMemFree_v2(device));
    check(look(device).type == 0);
    CUdeviceptr begin;
    size_t bytes;
    gives(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange_v2(&begin, &bytes, device));
    must(cuMemGetAddressRange_v2(&begin, &bytes, managed + 8));
    check(begin == managed && bytes == 40);
}

/* ---- between processes: the parent of a pair never calls the driver before it has forked */

static void pass(int to, const void *data, size_t bytes)
{
    check(write(to, data, bytes) == (ssize_t)bytes);
}

static void get(int from, void *data, size_t bytes)
{
    check(read(from, data, bytes) == (ssize_t)bytes);
}

static void ended_well(pid_t child)
{
    int status;
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* This program anew, as a process that has only a number and a pipe in common with the other. */
static void importer_main(int fd)
{
    client_of(1);
    CUipcMemHandle h[2];
    CUdeviceptr at, again;
    get(fd, h, sizeof h);
    must(cuIpcOpenMemHandle_v2(&at, h[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    must(cuIpcOpenMemHandle_v2(&again, h[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    check(at == again && look(at).ordinal == 0 && look(at).range_bytes == 4096 && !look(at).ipc);
    check(word_at(at + 8) == 42);
    must(cuMemsetD32_v2(at + 12, 43, 1));
    must(cuCtxSynchronize());
    /* What was freed cannot be opened. */
    gives(CUDA_ERROR_INVALID_HANDLE, cuIpcOpenMemHandle_v2(&again, h[1], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(at));
    must(cuIpcCloseMemHandle(at));
    check(word_at(at + 8) == 42); /* it was opened twice */
    must(cuIpcCloseMemHandle(at));
    gives(CUDA_ERROR_INVALID_VALUE, cuIpcCloseMemHandle(at));
}

static void handles_reach_another_process(void)
{
    int ends[2];
    char number[16];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        snprintf(number, sizeof number, "%d", ends[1]);
        execl("/proc/self/exe", "importer", number, (char *)NULL);
        _exit(9);
    }
    client_of(0);
    CUdeviceptr at = device_words(1024), freed = device_words(1), self;
    CUipcMemHandle h[2];
    must(cuMemsetD32_v2(at + 8, 42, 1));
    must(cuIpcGetMemHandle(&h[0], at + 100)); /* means the whole allocation */
    must(cuIpcGetMemHandle(&h[1], freed));
    must(cuMemFree_v2(freed));
    gives(CUDA_ERROR_INVALID_CONTEXT, cuIpcOpenMemHandle_v2(&self, h[0], CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    gives(CUDA_ERROR_INVALID_VALUE, cuIpcGetMemHandle(&h[1], (uintptr_t)pinned_words(1)));
    pass(ends[0], h, sizeof h);
    ended_well(child);
    check(word_at(at + 12) == 43);
}

static void handles_need_peer_access(void)
{
    int ends[2];
    CUipcMemHandle h;
    CUdeviceptr at;
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        client_of(1);
        get(ends[1], &h, sizeof h);
        gives(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, cuIpcOpenMemHandle_v2(&at, h, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
        _exit(0);
    }
    client_of(0);
    must(cuIpcGetMemHandle(&h, device_words(1)));
    pass(ends[0], &h, sizeof h);
    ended_well(child);
}

static const size_t GRAIN = 2 << 20;

static CUmemAllocationProp memory_of(int ordinal)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {CU_MEM_LOCATION_TYPE_DEVICE, ordinal},
                                 .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR};
}

static CUdeviceptr map(CUmemGenericAllocationHandle handle, int ordinal)
{
    CUdeviceptr at;
    CUmemAccessDesc access = {{CU_MEM_LOCATION_TYPE_DEVICE, ordinal}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    must(cuMemAddressReserve(&at, GRAIN, 0, 0, 0));
    must(cuMemMap(at, GRAIN, 0, handle, 0));
    must(cuMemSetAccess(at, GRAIN, &access, 1));
    return at;
}

static void descriptors_reach_another_process(void)
{
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control = {{0}};
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    CUmemGenericAllocationHandle handle;
    pid_t child = fork();
    if (child == 0) {
        int fd;
        client_of(1);
        check(recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC) == 1);
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        must(cuMemImportFromShareableHandle(&handle, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
        close(fd);
        CUdeviceptr at = map(handle, 1);
        must(cuMemRelease(handle)); /* the mapping keeps it */
        check(look(at).ordinal == 0 && word_at(at) == 77);
        must(cuMemsetD32_v2(at + 4, 78, 1));
        must(cuCtxSynchronize());
        _exit(0);
    }
    client_of(0);
    int fd;
    CUmemAllocationProp what = memory_of(0);
    must(cuMemCreate(&handle, GRAIN, &what, 0));
    CUdeviceptr at = map(handle, 0);
    must(cuMemsetD32_v2(at, 77, 1));
    must(cuCtxSynchronize());
    must(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET,
                                      .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    check(sendmsg(ends[0], &message, 0) == 1);
    ended_well(child);
    check(word_at(at + 4) == 78);
    must(cuMemUnmap(at, GRAIN));
    must(cuMemAddressFree(at, GRAIN));
    must(cuMemRelease(handle));
    gives(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(&fd, at, 4));
}

static void mapped_memory_needs_access(void)
{
    struct client c = client_of(0);
    CUfunction fill = kernel_of(&c, "kernel_fill");
    CUmemAllocationProp what = memory_of(0);
    CUmemGenericAllocationHandle handle;
    struct fill_argument a = {0, 1, 1};
    CUdeviceptr at;
    must(cuMemCreate(&handle, GRAIN, &what, 0));
    must(cuMemAddressReserve(&at, GRAIN, 0, 0, 0));
    must(cuMemMap(at, GRAIN, 0, handle, 0));
    a.to = at;
    launch_it(fill, 1, NULL, &a);
    cuCtxSynchronize();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        {"the host cannot read it", the_host_cannot_read_it, NULL, SIGSEGV},
        {"the host cannot write it", the_host_cannot_write_it, NULL, SIGSEGV},
        {"a kernel cannot use what was freed", a_kernel_cannot_use_what_was_freed, NULL, SIGSEGV},
        {"wild accesses are named", wild_accesses_are_named, NULL, 0},
        {"copies stay within allocations", copies_stay_within_allocations, NULL, 0},
        {"a device is full some day", a_device_is_full_some_day, "EMULATED_CUDA_MEMORY=16777216", 0},
        {"strict refuses pageable memory", strict_refuses_pageable_memory, "EMULATED_CUDA_STRICT=1", 0},
        {"pointers are known", pointers_are_known, NULL, 0},
        {"handles reach another process", handles_reach_another_process, NULL, 0},
        {"handles need peer access", handles_need_peer_access, "EMULATED_CUDA_PEERS=2-3", 0},
        {"descriptors reach another process", descriptors_reach_another_process, NULL, 0},
        {"mapped memory needs access", mapped_memory_needs_access, NULL, SIGSEGV},
    };
    if (argc == 2) {
        importer_main(atoi(argv[1]));
        return 0;
    }
    return run_cases("memory", tests, sizeof tests / sizeof *tests);
}
