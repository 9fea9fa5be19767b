/* launch.c - kernels: every thread of every block is a thread of the process, all of them at the same time.
 *
 * So the blocks of a launch may wait for one another, and for kernels of other streams, in whatever order these were
 * launched. A block has as many threads as EMULATED_CUDA_THREADS allows (1 by default), not more than were launched. */
#include "emulated_cuda/state.h"

#include <stdlib.h>
#include <string.h>

struct launch {
    struct op *op;
    uint32_t running;            /* threads that have not ended: the last one ends the operation */
    struct block *blocks;
    struct place *places;
};

struct block {
    pthread_barrier_t barrier;
    void *shared;
};

/* One thread of one block. */
struct place {
    struct emulated_thread here; /* first: what the kernel sees is where its place is */
    struct launch *launch;
};

static void sync_block(const struct emulated_thread *here)
{
    const struct place *place = (const struct place *)here;
    if (here->n_threads > 1)
        pthread_barrier_wait(&place->launch->blocks[here->block].barrier);
}

static void launch_free(struct launch *launch)
{
    for (uint32_t b = 0; launch->blocks != NULL && b < launch->op->work.n_blocks; b++) {
        if (launch->blocks[b].shared != NULL)
            pthread_barrier_destroy(&launch->blocks[b].barrier);
        free(launch->blocks[b].shared);
    }
    free(launch->blocks);
    free(launch->places);
    free(launch);
}

static void run(void *argument)
{
    struct place *place = argument;
    struct launch *launch = place->launch;
    struct op *op = launch->op;
    fault_kernel(op, place->here.block);
    op->work.function->run(op->work.argument, &place->here);
    fault_kernel(NULL, 0);
    if (__atomic_sub_fetch(&launch->running, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    launch_free(launch);
    pthread_mutex_lock(&emulator);
    op_finish(op);
    pthread_mutex_unlock(&emulator);
}

static struct launch *launch_new(struct op *op)
{
    const struct work *w = &op->work;
    struct launch *launch = calloc(1, sizeof *launch);
    if (launch == NULL)
        return NULL;
    *launch = (struct launch){.op = op, .running = w->n_blocks * w->n_threads,
                              .blocks = calloc(w->n_blocks, sizeof *launch->blocks),
                              .places = calloc((size_t)w->n_blocks * w->n_threads, sizeof *launch->places)};
    size_t shared = (w->shared_bytes + 64) / 64 * 64;
    bool whole = launch->blocks != NULL && launch->places != NULL;
    for (uint32_t b = 0; whole && b < w->n_blocks; b++) {
        void *memory = aligned_alloc(64, shared);
        whole = memory != NULL && pthread_barrier_init(&launch->blocks[b].barrier, NULL, w->n_threads) == 0;
        if (!whole) {
            free(memory);
            break;
        }
        launch->blocks[b].shared = memset(memory, 0, shared);
        for (uint32_t t = 0; t < w->n_threads; t++)
            launch->places[b * w->n_threads + t] = (struct place){
                .here = {.block = b, .n_blocks = w->n_blocks, .thread = t, .n_threads = w->n_threads, .shared = memory,
                         .sync = sync_block, .device_begin = space.begin, .device_end = space.end,
                         .device_shift = space.shift},
                .launch = launch};
    }
    if (whole)
        return launch;
    launch_free(launch);
    return NULL;
}

void launch_run(struct op *op)
{
    CUresult result = call_ordered("kernel");
    struct launch *launch = result == CUDA_SUCCESS ? launch_new(op) : NULL;
    pthread_mutex_lock(&emulator);
    op->begun_ns = now_ns();
    if (launch == NULL) {
        context_failed(op->context, result != CUDA_SUCCESS ? result : CUDA_ERROR_LAUNCH_FAILED);
        op_finish(op);
    }
    pthread_mutex_unlock(&emulator);
    if (launch == NULL)
        return;
    /* The last place runs here; `launch` may be gone as soon as it has begun. */
    uint32_t n = launch->running;
    struct place *places = launch->places;
    for (uint32_t i = 0; i + 1 < n; i++)
        if (!pool_run(run, &places[i])) {
            say("no thread for block %u of %u of kernel %s", places[i].here.block, op->work.n_blocks,
                op->work.function->name);
            abort();
        }
    run(&places[n - 1]);
}

/* ---- calls */

struct shape {
    unsigned grid[3], block[3], shared_bytes;
    bool cooperative;
};

static CUresult check_shape(const struct shape *q, const struct function *f)
{
    uint64_t blocks = 1, threads = 1;
    for (int i = 0; i < 3; i++) {
        if (q->grid[i] == 0 || q->block[i] == 0 || q->block[i] > MAX_BLOCK_THREADS || (i > 0 && q->grid[i] > 65535))
            return CUDA_ERROR_INVALID_VALUE;
        blocks *= q->grid[i];
        threads *= q->block[i];
    }
    if (threads > (unsigned)f->attribute[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] ||
        q->shared_bytes > (unsigned)f->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES])
        return CUDA_ERROR_INVALID_VALUE;
    /* What a device holds at once, at one block per multiprocessor: more is launched here in vain, or not together. */
    if (blocks > 4096)
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (q->cooperative && blocks > (uint64_t)settings.multiprocessors * (2048 / threads > 32 ? 32 : 2048 / threads))
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    return CUDA_SUCCESS;
}

/* Where the argument lies: the first of `parameters`, or the buffer of `extra`. NULL: neither is right. */
static const void *argument_of(const struct function *f, void **parameters, void **extra)
{
    const void *buffer = NULL;
    size_t bytes = 0;
    if (parameters != NULL)
        return extra == NULL ? parameters[0] : NULL;
    for (; extra != NULL && extra[0] != CU_LAUNCH_PARAM_END; extra += 2)
        if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer = extra[1];
        else if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            bytes = *(const size_t *)extra[1];
    return bytes == f->argument_bytes ? buffer : NULL;
}

static CUresult launch(const char *call, struct context *c, struct function *f, const struct shape *q, CUstream handle,
                       void **parameters, void **extra)
{
    struct stream *s;
    if (f == NULL || f->kind != KIND_FUNCTION)
        return CUDA_ERROR_INVALID_HANDLE;
    const void *argument = argument_of(f, parameters, extra);
    CUresult result = check_shape(q, f);
    if (result != CUDA_SUCCESS || (argument == NULL && f->argument_bytes > 0))
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    result = stream_of(handle, c, &s);
    if (result == CUDA_SUCCESS && f->module->context != s->context)
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && s->capture == NULL) /* of a graph: when it is instantiated */
        result = function_load(f, call);
    if (result != CUDA_SUCCESS)
        return leave(result);
    unsigned threads = q->block[0] * q->block[1] * q->block[2], most = (unsigned)settings.block_threads;
    size_t own_shared = (size_t)f->attribute[CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES];
    struct work work, given = {.kind = WORK_KERNEL, .function = f, .shared_bytes = q->shared_bytes + own_shared,
                               .n_blocks = q->grid[0] * q->grid[1] * q->grid[2],
                               .n_threads = threads < most ? threads : most};
    memcpy(&given.argument, &argument, sizeof argument); /* which only work_copy reads */
    if (!work_copy(&work, &given))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    return leave(stream_work(s, &work));
}

CUresult cuLaunchKernel(CUfunction f, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **parameters,
                        void **extra)
{
    struct context *c;
    ENTER_IN(c);
    struct shape q = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, false};
    return launch(__func__, c, f, &q, stream, parameters, extra);
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                   unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                                   void **parameters)
{
    struct context *c;
    ENTER_IN(c);
    struct shape q = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, true};
    return launch(__func__, c, f, &q, stream, parameters, NULL);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **parameters, void **extra)
{
    struct context *c;
    ENTER_IN(c);
    if (config == NULL || (config->numAttrs > 0 && config->attrs == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct shape q = {{config->gridDimX, config->gridDimY, config->gridDimZ},
                      {config->blockDimX, config->blockDimY, config->blockDimZ}, config->sharedMemBytes, false};
    for (unsigned i = 0; i < config->numAttrs; i++)
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            q.cooperative = config->attrs[i].value.cooperative != 0;
    return launch(__func__, c, f, &q, config->hStream, parameters, extra);
}
