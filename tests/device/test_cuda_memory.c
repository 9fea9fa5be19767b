/* test_cuda_memory.c - memory of devices and of the host, what pointers are, and memory that travels. */
#include <fcntl.h>
#include <sys/mman.h>

#include "base/memory.h"
#include "device/cuda_fixture.h"

static const char *const two[] = {"EMULATED_CUDA_DEVICES=2", "EMULATED_CUDA_PEERS=all", NULL};
static const char *const strangers[] = {"EMULATED_CUDA_DEVICES=2", "EMULATED_CUDA_PEERS=none", NULL};

static struct cuda_device *device_at(int ordinal)
{
    struct cuda_device *device;
    fixture_use(ordinal);
    MUST_OK(cuda_device_current("call", &device));
    return device;
}

/* Bytes of the device as they are. */
static bool holds(struct cuda_device *device, uint64_t address, const void *expected, size_t bytes)
{
    void *got = malloc(bytes);
    MUST_OK(cuda_copy(device, "call", (uintptr_t)got, address, bytes));
    bool same = !memcmp(got, expected, bytes);
    free(got);
    return same;
}

/* ---- plain ---- */

static void moves(void)
{
    fixture_open();
    struct cuda_device *device = device_at(1);
    struct cuda_census before = cuda_census();
    uint64_t memory, address;
    char text[4096], zero[4096] = "";
    void *host;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)(i * 7 + 1);
    MUST_OK(cuda_alloc(device, "call", 3 * sizeof text, &memory));
    MUST(memory % 256 == 0);
    MUST_OK(cuda_zero(device, "call", memory, 3 * sizeof text));
    MUST_OK(cuda_copy(device, "call", memory + sizeof text, (uintptr_t)text, sizeof text));
    MUST(holds(device, memory, zero, sizeof zero) && holds(device, memory + sizeof text, text, sizeof text));
    MUST(holds(device, memory + 2 * sizeof text, zero, sizeof zero)); /* not a byte more */
    MUST_OK(cuda_copy(device, "call", memory, memory + sizeof text, sizeof text));
    MUST(holds(device, memory, text, sizeof text));
    MUST_OK(cuda_pinned_alloc(device, "call", sizeof text, &host, &address));
    MUST(address && !memcmp(host, zero, sizeof zero));
    MUST_OK(cuda_copy(device, "call", address, memory, sizeof text));
    MUST(!memcmp(host, text, sizeof text));
    MUST_OK(cuda_zero(device, "call", memory, 0));
    MUST_OK(cuda_copy(device, "call", 0, 0, 0));
    cuda_pinned_free(device, host);
    cuda_pinned_free(device, NULL);
    cuda_free(device, memory);
    cuda_free(device, 0);
    MUST(fixture_census_is(before));
    cuda_device_drop(device);
}
static void bytes_move_between_device_pinned_and_plain_memory(void **state)
{
    (void)state;
    fixture_child(moves, two);
}

static void too_much(void)
{
    fixture_open();
    struct cuda_device *device = device_at(0);
    uint64_t memory = 1;
    MUST_SAY(cuda_alloc(device, "ncclMemAlloc", (size_t)1 << 45, &memory), RAIL_E_CUDA, "ncclMemAlloc: "
             "cuMemAlloc(35184372088832 bytes) on device 0: CUDA_ERROR_OUT_OF_MEMORY (out of memory)|free memory of "
             "the device");
    MUST(memory == 0);
    MUST_SAY(cuda_shareable_alloc(device, "ncclMemAlloc", (size_t)1 << 45, &memory), RAIL_E_CUDA,
             "ncclMemAlloc|35184372088832|CUDA_ERROR_OUT_OF_MEMORY");
    MUST(memory == 0);
    MUST_OK(cuda_alloc(device, "call", 4096, &memory));
    cuda_free(device, memory);
    cuda_device_drop(device);
}
static void too_much_is_named_with_its_size(void **state)
{
    (void)state;
    fixture_child(too_much, two);
}

/* ---- pinning what is there ---- */

static void pins(void)
{
    fixture_open();
    struct cuda_device *a = device_at(0), *b = device_at(1);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 8 * page;
    uint64_t at_a, at_b, other;
    int fd;
    void *p;
    MUST_OK(rail_memfd_create("segment", bytes, &fd));
    MUST_OK(rail_memfd_map(fd, bytes, &p));
    MUST_OK(cuda_register(a, "call", p, bytes, &at_a));
    MUST_OK(cuda_register(b, "call", p, bytes, &at_b)); /* the second communicator of the process */
    MUST(app.calls("cuMemHostRegister_v2") == 1 && cuda_census().registered == 1);
    strcpy(p, "seen by both");
    MUST(holds(a, at_a, "seen by both", 13) && holds(b, at_b, "seen by both", 13));
    MUST_SAY(cuda_register(a, "ncclCommInitRank", (char *)p + page, page, &other), RAIL_E_ARGUMENT, "overlaps");
    MUST_SAY(cuda_register(a, "ncclCommInitRank", (char *)p + 8, page, &other), RAIL_E_ARGUMENT, "whole pages");
    MUST_SAY(cuda_register(a, "ncclCommInitRank", p, page - 1, &other), RAIL_E_ARGUMENT, "whole pages");
    MUST_SAY(cuda_register(a, "ncclCommInitRank", p, 0, &other), RAIL_E_ARGUMENT, "whole pages");
    cuda_device_drop(a); /* it pinned the range, which is kept for the other */
    cuda_unregister(a, p);
    MUST(holds(b, at_b, "seen by both", 13));
    MUST(cuda_census().registered == 1 && cuda_census().devices == 2);
    cuda_unregister(b, p);
    MUST(cuda_census().registered == 0 && cuda_census().devices == 1);
    rail_memory_unmap(p, bytes);
    close(fd);
    cuda_device_drop(b);
}
static void a_segment_is_pinned_once_for_all_devices(void **state)
{
    (void)state;
    fixture_child(pins, two);
}

/* ---- pointers ---- */

static void accepted(void)
{
    fixture_open();
    struct cuda_device *a = device_at(0), *b = device_at(1);
    struct cuda_pointer found;
    uint64_t mine, theirs, mapped, pinned;
    cu_address managed;
    void *host;
    MUST_OK(cuda_alloc(b, "call", 8192, &theirs));
    MUST_OK(cuda_alloc(a, "call", 8192, &mine));
    MUST_OK(cuda_pinned_alloc(b, "call", 8192, &host, &pinned));
    MUST_OK(cuda_shareable_alloc(a, "call", 8192, &mapped));
    MUST_CU(app.alloc_managed(&managed, 8192, 1));
    MUST_OK(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", (void *)(mine + 64), 8192 - 64, &found));
    MUST(found.where == CUDA_DEVICE_MEMORY && found.base == mine && found.bytes == 8192 && found.ordinal == 0);
    MUST(found.address == mine + 64 && found.buffer_id);
    MUST_OK(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", (void *)mapped, 8192, &found));
    MUST(found.where == CUDA_DEVICE_MEMORY);
    MUST_OK(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", host, 8192, &found));
    MUST(found.where == CUDA_PINNED_MEMORY && found.ordinal == -1 && found.address == pinned);
    MUST_OK(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", (void *)managed, 8192, &found));
    MUST(found.where == CUDA_MANAGED_MEMORY);
    MUST_OK(cuda_peer_enable(a, "call", b));
    MUST_OK(cuda_peer_enable(a, "call", b)); /* again is fine */
    MUST_OK(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", (void *)theirs, 8192, &found));
    MUST(found.where == CUDA_PEER_MEMORY && found.ordinal == 1);
    MUST_OK(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", NULL, 0, NULL)); /* nothing to look at */
    MUST_CU(drv->free(managed));
    MUST_OK(cuda_shareable_free("call", mapped));
    cuda_pinned_free(b, host);
    cuda_free(a, mine);
    cuda_free(b, theirs);
    cuda_device_drop(a);
    cuda_device_drop(b);
}
static void memory_that_kernels_reach_is_welcome(void **state)
{
    (void)state;
    fixture_child(accepted, two);
}

static void refused(void)
{
    fixture_open();
    struct cuda_device *a = device_at(0), *b = device_at(1);
    uint64_t theirs, mine;
    char plain[64], place[40];
    MUST_OK(cuda_alloc(b, "call", 8192, &theirs));
    MUST_OK(cuda_alloc(a, "call", 8192, &mine));
    snprintf(place, sizeof place, "sendbuff %p|", (void *)plain);
    MUST_SAY(cuda_pointer_check(a, "ncclAllReduce", "sendbuff", plain, 64, NULL), RAIL_E_ARGUMENT,
             "ncclAllReduce: sendbuff|is plain host memory|device 0 (|cudaHostRegister|RAILCCL_DEVICE=host");
    MUST(!trouble_lacks(rail_last_error(), place));
    MUST_SAY(cuda_pointer_check(a, "ncclAllReduce", "recvbuff", NULL, 64, NULL), RAIL_E_ARGUMENT, "recvbuff|plain "
             "host");
    MUST_SAY(cuda_pointer_check(a, "ncclAllReduce", "recvbuff", (void *)theirs, 64, NULL), RAIL_E_ARGUMENT,
             "recvbuff|is memory of device 1|device 0 (|cannot reach|pass memory of device 0");
    MUST_SAY(cuda_pointer_check(a, "ncclAllReduce", "recvbuff", (void *)(mine + 4096), 4097, NULL), RAIL_E_ARGUMENT,
             "recvbuff|has 4096 bytes left in its allocation|4097 are needed|count");
    MUST_SAY(cuda_peer_enable(a, "ncclCommInitRank", b), RAIL_E_USAGE, "cannot reach|device 0|device "
             "1|NCCL_P2P_DISABLE=1");
    MUST(!cuda_peer_possible(a, b));
    cuda_free(a, mine);
    MUST_SAY(cuda_pointer_check(a, "ncclAllReduce", "recvbuff", (void *)mine, 64, NULL), RAIL_E_ARGUMENT, "was freed");
    cuda_free(b, theirs);
    cuda_device_drop(a);
    cuda_device_drop(b);
}
static void memory_that_kernels_cannot_reach_is_refused_by_name(void **state)
{
    (void)state;
    fixture_child(refused, strangers);
}

static void of_another_context(void)
{
    fixture_open();
    struct cuda_device *device = device_at(0), *second;
    cu_context other;
    uint64_t theirs;
    MUST_CU(app.context_create(&other, 0, 0));
    MUST_OK(cuda_device_current("call", &second));
    MUST_OK(cuda_alloc(second, "call", 4096, &theirs));
    MUST_SAY(cuda_pointer_check(device, "ncclSend", "sendbuff", (void *)theirs, 64, NULL), RAIL_E_ARGUMENT,
             "ncclSend: sendbuff|memory of context|both on device 0");
    cuda_free(second, theirs);
    cuda_device_drop(second);
    cuda_device_drop(device);
}
static void memory_of_another_context_is_refused(void **state)
{
    (void)state;
    fixture_child(of_another_context, two);
}

/* ---- memory that travels ---- */

/* The parent exports, the child, forked before either had a driver, imports, reads and answers. */
static int to_child[2], to_parent[2];

static void importer(void)
{
    struct cuda_handle handle;
    uint64_t base, address;
    fixture_open();
    struct cuda_device *device = device_at(1);
    MUST(read(to_child[0], &handle, sizeof handle) == (ssize_t)sizeof handle);
    MUST_OK(cuda_import(device, "call", &handle, &base, &address));
    MUST(address == base + 512 && cuda_census().imports == 1);
    MUST(holds(device, address, "from the parent", 16));
    MUST_OK(cuda_copy(device, "call", address, (uintptr_t)"from the child!", 16));
    cuda_import_close(device, base);
    cuda_import_close(device, 0);
    MUST(cuda_census().imports == 0);
    struct cuda_handle broken = handle;
    broken.offset = broken.bytes;
    MUST_SAY(cuda_import(device, "ncclCommInitRank", &broken, &base, &address), RAIL_E_REMOTE, "offset");
    MUST(write(to_parent[1], "x", 1) == 1);
    cuda_device_drop(device);
}
static void exporter(void)
{
    struct cuda_handle handle;
    uint64_t memory;
    char answer;
    MUST(pipe(to_child) == 0 && pipe(to_parent) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        close(to_child[1]), close(to_parent[0]);
        importer();
        _exit(0);
    }
    close(to_child[0]), close(to_parent[1]); /* whoever ends is noticed */
    fixture_open();
    struct cuda_device *device = device_at(0);
    MUST_OK(cuda_alloc(device, "call", 8192, &memory));
    MUST_OK(cuda_copy(device, "call", memory + 512, (uintptr_t)"from the parent", 16));
    MUST_OK(cuda_export(device, "call", memory + 512, &handle));
    MUST(handle.offset == 512 && handle.bytes >= 8192 && !memcmp(handle.uuid, device->uuid, 16));
    MUST(write(to_child[1], &handle, sizeof handle) == (ssize_t)sizeof handle);
    MUST(read(to_parent[0], &answer, 1) == 1);
    MUST(holds(device, memory + 512, "from the child!", 16));
    int status = -1;
    MUST(waitpid(child, &status, 0) == child && status == 0);
    cuda_free(device, memory);
    cuda_device_drop(device);
}
static void another_process_maps_exported_memory(void **state)
{
    (void)state;
    fixture_child(exporter, two);
}

static void not_exportable(void)
{
    fixture_open();
    struct cuda_device *device = device_at(0);
    struct cuda_handle handle;
    uint64_t mapped, pinned, plain, offset, bytes;
    int fd;
    void *host;
    MUST_OK(cuda_shareable_alloc(device, "call", 4096, &mapped));
    MUST_OK(cuda_pinned_alloc(device, "call", 4096, &host, &pinned));
    MUST_OK(cuda_alloc(device, "call", 4096, &plain));
    MUST_SAY(cuda_export(device, "ncclSend", mapped, &handle), RAIL_E_USAGE, "ncclSend|no memory that another process "
             "can map");
    MUST_SAY(cuda_export(device, "ncclSend", pinned, &handle), RAIL_E_USAGE, "no memory that another process can map");
    MUST_SAY(cuda_export_fd(device, "ncclSend", plain, &fd, &offset, &bytes), RAIL_E_USAGE, "ncclSend|has no "
             "descriptor");
    MUST(fd == -1);
    cuda_free(device, plain);
    cuda_pinned_free(device, host);
    MUST_OK(cuda_shareable_free("call", mapped));
    cuda_device_drop(device);
}
static void memory_that_cannot_travel_is_refused(void **state)
{
    (void)state;
    fixture_child(not_exportable, two);
}

static void descriptors(void)
{
    fixture_open();
    struct cuda_device *a = device_at(0), *b = device_at(1);
    struct cuda_census before = cuda_census();
    int fds = trouble_fds(), fd;
    uint64_t memory, offset, bytes, base;
    MUST_OK(cuda_shareable_alloc(a, "ncclMemAlloc", 3 << 20, &memory));
    MUST_OK(cuda_copy(a, "call", memory + 4096, (uintptr_t)"travels", 8));
    MUST_OK(cuda_export_fd(a, "call", memory + 4096, &fd, &offset, &bytes));
    MUST(offset == 4096 && bytes >= 3 << 20 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    MUST_OK(cuda_import_fd(b, "call", fd, bytes, &base));
    close(fd);
    MUST(base != memory && holds(b, base + offset, "travels", 8));
    MUST_SAY(cuda_shareable_free("ncclMemFree", memory + 4096), RAIL_E_ARGUMENT, "ncclMemFree|not what ncclMemAlloc "
             "gave");
    MUST_OK(cuda_shareable_free("ncclMemFree", memory));
    MUST_SAY(cuda_shareable_free("ncclMemFree", memory), RAIL_E_ARGUMENT, "freed before");
    MUST(holds(b, base + offset, "travels", 8)); /* the mapping keeps the memory */
    cuda_import_fd_close(b, base, bytes);
    MUST(fixture_census_is(before) && trouble_fds() == fds);
    cuda_device_drop(a);
    cuda_device_drop(b);
}
static void a_descriptor_carries_ncclmemallocs_memory(void **state)
{
    (void)state;
    fixture_child(descriptors, two);
}

static void no_vmm(void)
{
    fixture_open();
    struct cuda_device *device = device_at(0);
    uint64_t memory;
    app.order("cuMemCreate", 1, CU_E_NOT_SUPPORTED); /* no handles: a container */
    MUST_OK(cuda_shareable_alloc(device, "ncclMemAlloc", 4096, &memory));
    MUST(app.calls("cuMemCreate") == 2 && app.calls("cuMemAlloc_v2") == 0);
    MUST_OK(cuda_shareable_free("ncclMemFree", memory));
    app.order("cuMemCreate", 1, CU_E_NOT_PERMITTED);
    app.order("cuMemCreate", 2, CU_E_NOT_PERMITTED); /* nothing of it */
    MUST_OK(cuda_shareable_alloc(device, "ncclMemAlloc", 4096, &memory));
    MUST(app.calls("cuMemAlloc_v2") == 1);
    MUST_OK(cuda_zero(device, "call", memory, 4096));
    MUST_OK(cuda_shareable_free("ncclMemFree", memory));
    cuda_device_drop(device);
}
static void without_vmm_ncclmemalloc_gives_plain_memory(void **state)
{
    (void)state;
    fixture_child(no_vmm, two);
}

int main(void)
{
    fixture_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_move_between_device_pinned_and_plain_memory),
        cmocka_unit_test(too_much_is_named_with_its_size),
        cmocka_unit_test(a_segment_is_pinned_once_for_all_devices),
        cmocka_unit_test(memory_that_kernels_reach_is_welcome),
        cmocka_unit_test(memory_that_kernels_cannot_reach_is_refused_by_name),
        cmocka_unit_test(memory_of_another_context_is_refused),
        cmocka_unit_test(another_process_maps_exported_memory),
        cmocka_unit_test(memory_that_cannot_travel_is_refused),
        cmocka_unit_test(a_descriptor_carries_ncclmemallocs_memory),
        cmocka_unit_test(without_vmm_ncclmemalloc_gives_plain_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
