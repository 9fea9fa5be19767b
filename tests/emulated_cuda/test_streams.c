/* test_streams.c - everything in a stream is asynchronous, in order, and ordered with other streams exactly as the real
 * driver has it. */
#include "emulated_cuda/fixture.h"

static void launch_returns_before_the_kernel_ends(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    uint32_t *gate = pinned_words(2);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING);
    launch_gate(meet, s, gate);
    gate_reached(gate);
    gives(CUDA_ERROR_NOT_READY, cuStreamQuery(s));
    open_gate(gate);
    must(cuStreamSynchronize(s));
    must(cuStreamQuery(s));
}

static void work_of_a_stream_is_in_order(void)
{
    struct client c = client_of(0);
    CUfunction fill = kernel_of(&c, "kernel_fill"), add = kernel_of(&c, "kernel_add");
    CUdeviceptr a = device_words(1000), b = device_words(1000);
    CUstream s = stream_with(0);
    for (uint32_t i = 1; i <= 50; i++) {
        struct fill_argument f = {a, 1000, i};
        struct add_argument more = {a, 1000, 1000};
        launch_it(fill, 3, s, &f);
        launch_it(add, 2, s, &more);
        must(cuMemcpyDtoDAsync_v2(b, a, 4000, s));
    }
    must(cuStreamSynchronize(s));
    check(word_at(b) == 1050 && word_at(b + 3996) == 1050);
}

static void a_kernel_waits_for_a_later_launch_of_another_stream(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    CUdeviceptr words = device_words(2);
    CUstream s[2] = {stream_with(CU_STREAM_NON_BLOCKING), stream_with(CU_STREAM_NON_BLOCKING)};
    for (uint32_t i = 1; i <= 200; i++) {
        struct meet_argument first = {words, words + 4, i}, second = {words + 4, words, i};
        launch_it(meet, 1, s[0], &first);
        launch_it(meet, 1, s[1], &second);
    }
    must(cuCtxSynchronize());
    check(word_at(words) == 200);
}

static void kernels_of_two_devices_wait_for_one_another(void)
{
    struct client zero = client_of(0), one = client_of(1);
    must(cuCtxEnablePeerAccess(zero.context, 0));
    CUdeviceptr b = device_words(1);
    CUfunction meet_one = kernel_of(&one, "kernel_meet");
    must(cuCtxSetCurrent(zero.context));
    must(cuCtxEnablePeerAccess(one.context, 0));
    CUdeviceptr a = device_words(1);
    CUfunction meet_zero = kernel_of(&zero, "kernel_meet");
    struct meet_argument x = {b, a, 7}, y = {a, b, 7};
    launch_it(meet_zero, 1, CU_STREAM_PER_THREAD, &x);
    must(cuCtxSetCurrent(one.context));
    launch_it(meet_one, 1, NULL, &y);
    must(cuCtxSynchronize());
    must(cuCtxSetCurrent(zero.context));
    must(cuStreamSynchronize(CU_STREAM_PER_THREAD));
}

static void all_blocks_of_a_launch_run_at_once(void)
{
    struct client c = client_of(0);
    CUfunction gather = kernel_of(&c, "kernel_gather");
    for (unsigned blocks = 1; blocks <= 64; blocks *= 4) {
        struct gather_argument a = {device_words(1)};
        launch_it(gather, blocks, NULL, &a);
        must(cuCtxSynchronize());
        check(word_at(a.counter) == blocks);
    }
}

static void threads_of_a_block_share_memory_and_meet(void)
{
    struct client c = client_of(0);
    CUfunction threads = kernel_of(&c, "kernel_threads");
    struct threads_argument a = {device_words(3)};
    void *p = &a;
    must(cuLaunchKernel(threads, 3, 1, 1, 64, 1, 1, 256, NULL, &p, NULL));
    must(cuLaunchKernel(threads, 1, 1, 1, 4, 1, 1, 256, NULL, &p, NULL));
    must(cuCtxSynchronize());
    check(word_at(a.sums + 4) == 36 && word_at(a.sums + 8) == 36); /* EMULATED_CUDA_THREADS=8 of the 64 */
    check(word_at(a.sums) == 10);                                  /* of the 4, all */
}

static void the_legacy_stream_waits_and_is_waited_for(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet"), fill = kernel_of(&c, "kernel_fill");
    uint32_t *gate = pinned_words(2);
    CUdeviceptr a = device_words(3);
    CUstream blocking = stream_with(0), other = stream_with(0), free_one = stream_with(CU_STREAM_NON_BLOCKING);
    struct fill_argument legacy = {a, 1, 1}, behind = {a + 4, 1, 1}, beside_it = {a + 8, 1, 1};
    launch_gate(meet, blocking, gate);
    launch_it(fill, 1, NULL, &legacy);  /* after the gate */
    launch_it(fill, 1, other, &behind); /* after the legacy stream */
    launch_it(fill, 1, free_one, &beside_it);
    must(cuStreamSynchronize(free_one));
    gate_reached(gate);
    usleep(20000);
    gives(CUDA_ERROR_NOT_READY, cuStreamQuery(NULL));
    gives(CUDA_ERROR_NOT_READY, cuStreamQuery(other));
    open_gate(gate);
    must(cuStreamSynchronize(CU_STREAM_LEGACY));
    must(cuStreamSynchronize(other));
    check(word_at(a) == 1 && word_at(a + 4) == 1 && word_at(a + 8) == 1);
}

static void events_order_streams_and_tell_time(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    uint32_t *gate = pinned_words(2), *seen = pinned_words(1);
    CUstream s[2] = {stream_with(CU_STREAM_NON_BLOCKING), stream_with(CU_STREAM_NON_BLOCKING)};
    CUevent begin, end;
    float ms = -1;
    must(cuEventCreate(&begin, 0));
    must(cuEventCreate(&end, 0));
    must(cuEventQuery(end)); /* never recorded: done */
    must(cuEventRecord(begin, s[0]));
    launch_gate(meet, s[0], gate);
    must(cuEventRecord(end, s[0]));
    must(cuStreamWaitEvent(s[1], end, 0));
    must(cuStreamWriteValue32_v2(s[1], (uintptr_t)seen, 9, 0));
    usleep(30000);
    check(__atomic_load_n(seen, __ATOMIC_ACQUIRE) == 0);
    gives(CUDA_ERROR_NOT_READY, cuEventQuery(end));
    gives(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&ms, begin, end));
    open_gate(gate);
    must(cuEventSynchronize(end));
    must(cuEventElapsedTime(&ms, begin, end));
    check(ms >= 25 && ms < 20000);
    must(cuStreamSynchronize(s[1]));
    check(*seen == 9);
}

static void a_destroyed_stream_still_ends_its_work(void)
{
    struct client c = client_of(0);
    CUfunction meet = kernel_of(&c, "kernel_meet");
    uint32_t *gate = pinned_words(2), *seen = pinned_words(1);
    CUstream s = stream_with(0);
    launch_gate(meet, s, gate);
    must(cuStreamWriteValue32_v2(s, (uintptr_t)seen, 5, 0));
    must(cuStreamDestroy_v2(s));
    open_gate(gate);
    must(cuCtxSynchronize());
    check(*seen == 5);
}

static void note(void *data)
{
    __atomic_add_fetch((int *)data, 1, __ATOMIC_ACQ_REL);
}

static void values_are_written_and_waited_for(void)
{
    client_of(0);
    int calls = 0;
    uint64_t *host = (uint64_t *)pinned_words(4);
    CUdeviceptr device = device_words(4);
    CUstream s = stream_with(CU_STREAM_NON_BLOCKING), t = stream_with(CU_STREAM_NON_BLOCKING);
    must(cuStreamWaitValue64_v2(s, (uintptr_t)host, 3, CU_STREAM_WAIT_VALUE_GEQ));
    must(cuStreamWriteValue64_v2(s, device, 0x100000001, 0));
    must(cuLaunchHostFunc(s, note, &calls));
    must(cuStreamWaitValue64_v2(t, device, 0x100000001, CU_STREAM_WAIT_VALUE_EQ));
    must(cuStreamWaitValue32_v2(t, device, 1, CU_STREAM_WAIT_VALUE_AND));
    must(cuStreamWriteValue32_v2(t, device + 8, 77, 0));
    usleep(20000);
    check(__atomic_load_n(&calls, __ATOMIC_ACQUIRE) == 0);
    gives(CUDA_ERROR_NOT_READY, cuStreamQuery(t));
    __atomic_store_n(host, 4, __ATOMIC_RELEASE);
    must(cuStreamSynchronize(t));
    must(cuStreamSynchronize(s));
    check(calls == 1 && word_at(device + 8) == 77);
    gives(CUDA_ERROR_INVALID_VALUE, cuStreamWriteValue32_v2(s, device + 2, 1, 0)); /* not aligned */
    gives(CUDA_ERROR_INVALID_VALUE, cuStreamWaitValue32_v2(s, (uintptr_t)&calls, 1, 0)); /* not pinned */
}

static void streams_know_their_context(void)
{
    struct client zero = client_of(0), one = client_of(1);
    CUcontext of;
    CUdevice ordinal;
    unsigned long long id[2];
    CUstream s = stream_with(0);
    must(cuCtxSetCurrent(zero.context));
    must(cuStreamGetCtx(s, &of));
    check(of == one.context);
    must(cuStreamGetDevice(s, &ordinal));
    check(ordinal == 1);
    must(cuStreamGetCtx(NULL, &of));
    check(of == zero.context);
    must(cuStreamGetId(s, &id[0]));
    must(cuStreamGetId(NULL, &id[1]));
    check(id[0] != id[1]);
    struct fill_argument a = {device_words(1), 1, 1};
    void *p = &a;
    gives(CUDA_ERROR_INVALID_HANDLE,
          cuLaunchKernel(kernel_of(&zero, "kernel_fill"), 1, 1, 1, 1, 1, 1, 0, s, &p, NULL)); /* of another context */
}

int main(void)
{
    static const struct test tests[] = {
        {"a launch returns before the kernel ends", launch_returns_before_the_kernel_ends, NULL, 0},
        {"work of a stream is in order", work_of_a_stream_is_in_order, NULL, 0},
        {"a kernel waits for a later launch of another stream",
         a_kernel_waits_for_a_later_launch_of_another_stream, NULL, 0},
        {"kernels of two devices wait for one another", kernels_of_two_devices_wait_for_one_another, NULL, 0},
        {"all blocks of a launch run at once", all_blocks_of_a_launch_run_at_once, NULL, 0},
        {"threads of a block share memory and meet", threads_of_a_block_share_memory_and_meet,
         "EMULATED_CUDA_THREADS=8", 0},
        {"the legacy stream waits and is waited for", the_legacy_stream_waits_and_is_waited_for, NULL, 0},
        {"events order streams and tell time", events_order_streams_and_tell_time, NULL, 0},
        {"a destroyed stream still ends its work", a_destroyed_stream_still_ends_its_work, NULL, 0},
        {"values are written and waited for", values_are_written_and_waited_for, NULL, 0},
        {"streams know their context", streams_know_their_context, NULL, 0},
    };
    return run_cases("streams", tests, sizeof tests / sizeof *tests);
}
