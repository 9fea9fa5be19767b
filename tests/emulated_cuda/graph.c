/* graph.c - graphs: work with an order but no time; and executable copies of them, launched again and again.
 *
 *     stream ── start ──> roots ─> ... ─> leaves ──> end ── stream goes on
 *                 └ after the exec's previous launch
 *
 * A launch makes an operation of every node, with the node's own copy of its arguments. */
#include "emulated_cuda/state.h"

#include <stdlib.h>
#include <string.h>

struct graph_exec {
    enum kind kind;
    unsigned references;       /* the handle, and launches that have not ended */
    struct graph *graph;       /* its own copy */
    struct op *last;           /* end of the newest launch, or NULL */
};

struct graph *graph_new(void)
{
    struct graph *g = calloc(1, sizeof *g);
    if (g != NULL)
        g->kind = KIND_GRAPH;
    return g;
}

struct graph_node *graph_add(struct graph *graph, struct context *context, struct work *work,
                             struct graph_node *const *before, size_t n_before)
{
    struct graph_node *node = calloc(1, sizeof *node);
    struct graph_node **nodes = realloc(graph->nodes, (graph->n + 1) * sizeof *nodes);
    struct graph_node **list = calloc(n_before + 1, sizeof *list);
    if (nodes != NULL)
        graph->nodes = nodes;
    if (node == NULL || nodes == NULL || list == NULL) {
        free(node);
        free(list);
        work_clear(work);
        return NULL;
    }
    for (size_t i = 0; i < n_before; i++)
        list[i] = before[i];
    *node = (struct graph_node){.kind = KIND_NODE, .graph = graph, .context = context, .work = *work, .before = list,
                                .n_before = n_before, .index = graph->n};
    nodes[graph->n++] = node;
    return node;
}

void graph_free(struct graph *graph)
{
    for (size_t i = 0; i < graph->n; i++) {
        work_clear(&graph->nodes[i]->work);
        graph->nodes[i]->kind = KIND_GONE;
        free(graph->nodes[i]->before);
        free(graph->nodes[i]);
    }
    holdings_free(&graph->holdings);
    graph->kind = KIND_GONE;
    free(graph->nodes);
    free(graph);
}

static struct graph *graph_copy(const struct graph *from)
{
    struct graph *to = graph_new();
    if (to == NULL || !holdings_copy(&to->holdings, from->holdings))
        abort();
    for (size_t i = 0; i < from->n; i++) {
        const struct graph_node *node = from->nodes[i];
        struct work work;
        struct graph_node *copy = work_copy(&work, &node->work)
                                      ? graph_add(to, node->context, &work, node->before, node->n_before) : NULL;
        if (copy == NULL)
            abort();
        for (size_t k = 0; k < copy->n_before; k++)
            copy->before[k] = to->nodes[node->before[k]->index];
    }
    return to;
}

static void exec_drop(struct graph_exec *exec)
{
    if (--exec->references > 0)
        return;
    graph_free(exec->graph);
    op_drop(exec->last);
    free(exec);
}

/* ---- calls on graphs */

CUresult cuGraphCreate(CUgraph *graph, unsigned flags)
{
    ENTER();
    if (graph == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    struct graph *g = graph_new();
    if (g == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *graph = g;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (graph == NULL || graph->kind != KIND_GRAPH)
        return leave(CUDA_ERROR_INVALID_VALUE);
    graph_free(graph);
    return leave(CUDA_SUCCESS);
}

CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *before, size_t n_before)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    if (node == NULL || graph == NULL || graph->kind != KIND_GRAPH || (n_before > 0 && before == NULL))
        return leave(CUDA_ERROR_INVALID_VALUE);
    for (size_t i = 0; i < n_before; i++)
        if (before[i] == NULL || before[i]->kind != KIND_NODE || before[i]->graph != graph)
            return leave(CUDA_ERROR_INVALID_VALUE);
    struct graph_node *new = graph_add(graph, c, &(struct work){.kind = WORK_NOTHING}, before, n_before);
    if (new == NULL)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *node = new;
    return leave(CUDA_SUCCESS);
}

/* Without an array: how many there are. With one: as many as fit, *n of them. */
CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (graph == NULL || graph->kind != KIND_GRAPH || n == NULL)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (nodes == NULL) {
        *n = graph->n;
        return leave(CUDA_SUCCESS);
    }
    for (size_t i = 0; i < *n; i++)
        nodes[i] = i < graph->n ? graph->nodes[i] : NULL;
    if (*n > graph->n)
        *n = graph->n;
    return leave(CUDA_SUCCESS);
}

CUresult cuGraphNodeGetType(CUgraphNode node, int *type)
{
    static const int types[] = {
        [WORK_NOTHING] = CU_GRAPH_NODE_TYPE_EMPTY, [WORK_KERNEL] = CU_GRAPH_NODE_TYPE_KERNEL,
        [WORK_COPY] = CU_GRAPH_NODE_TYPE_MEMCPY, [WORK_FILL] = CU_GRAPH_NODE_TYPE_MEMSET,
        [WORK_HOST] = CU_GRAPH_NODE_TYPE_HOST, [WORK_WRITE] = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
        [WORK_WAIT] = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, [WORK_RECORD] = CU_GRAPH_NODE_TYPE_EVENT_RECORD,
        [WORK_AWAIT] = CU_GRAPH_NODE_TYPE_WAIT_EVENT};
    ENTER();
    if (node == NULL || node->kind != KIND_NODE || type == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *type = types[node->work.kind];
    return CUDA_SUCCESS;
}

/* ---- calls on what executes them */

/* Loads the functions of its kernels, which may synchronise. */
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    struct context *c;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    if (exec == NULL || graph == NULL || graph->kind != KIND_GRAPH || flags > 15)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if ((flags & 4) != 0) /* launched by the device itself */
        return leave(CUDA_ERROR_NOT_SUPPORTED);
    for (size_t i = 0; i < graph->n; i++)
        if (graph->nodes[i]->work.kind == WORK_KERNEL) {
            CUresult result = function_load(graph->nodes[i]->work.function, __func__);
            if (result != CUDA_SUCCESS)
                return leave(result);
        }
    struct graph_exec *e = calloc(1, sizeof *e);
    if (e == NULL)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *e = (struct graph_exec){.kind = KIND_EXEC, .references = 1, .graph = graph_copy(graph)};
    *exec = e;
    return leave(CUDA_SUCCESS);
}

/* What is in flight of it still ends. */
CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (exec == NULL || exec->kind != KIND_EXEC)
        return leave(CUDA_ERROR_INVALID_VALUE);
    exec->kind = KIND_GONE;
    exec_drop(exec);
    return leave(CUDA_SUCCESS);
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    if (exec == NULL || exec->kind != KIND_EXEC)
        return leave(CUDA_ERROR_INVALID_VALUE);
    return leave(stream_of(stream, c, &s)); /* it lies in memory already */
}

static void launch_ended(struct op *end)
{
    exec_drop(end->owner);
}

static CUresult launch(struct graph_exec *exec, struct stream *stream)
{
    const struct graph *g = exec->graph;
    struct op **ops = calloc(g->n + 1, sizeof *ops);
    if (ops == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct op *start = op_new(stream->context, &(struct work){.kind = WORK_NOTHING});
    stream_order(stream, start);
    op_after(start, exec->last);
    for (size_t i = 0; i < g->n; i++) {
        const struct graph_node *node = g->nodes[i];
        struct work work;
        if (!work_copy(&work, &node->work))
            abort();
        ops[i] = op_new(node->context, &work);
        op_after(ops[i], start);
        for (size_t k = 0; k < node->n_before; k++)
            op_after(ops[i], ops[node->before[k]->index]);
    }
    struct op *end = op_new(stream->context, &(struct work){.kind = WORK_NOTHING});
    op_after(end, start);
    for (size_t i = 0; i < g->n; i++)
        op_after(end, ops[i]);
    end->ended = launch_ended;
    end->owner = exec;
    exec->references++;
    op_drop(exec->last);
    exec->last = op_hold(end);
    op_drop(stream->last);
    stream->last = op_hold(end);
    /* From the end, so that nothing has ended that another still has to be put after. */
    op_submit(end);
    for (size_t i = g->n; i-- > 0;)
        op_submit(ops[i]);
    op_submit(start);
    free(ops);
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle)
{
    struct context *c;
    struct stream *s;
    ENTER_IN(c);
    pthread_mutex_lock(&emulator);
    if (exec == NULL || exec->kind != KIND_EXEC)
        return leave(CUDA_ERROR_INVALID_VALUE);
    CUresult result = stream_of(handle, c, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->capture != NULL) { /* graphs within graphs are not emulated */
        say("cuGraphLaunch into a capturing stream is not emulated");
        return leave((capture_breaks(s), CUDA_ERROR_NOT_SUPPORTED));
    }
    if (s->legacy && capture_blocks_legacy(s->context))
        return leave(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    return leave(launch(exec, s));
}
