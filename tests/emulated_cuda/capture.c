/* capture.c - stream capture: what is put into a capturing stream becomes a node of a graph.
 *
 *     BeginCapture(A)        A: tips {}         each stream remembers its tips: the nodes that its next one comes after
 *     launch in A            A: tips {k1}
 *     record e in A, B waits B: tips {k1}       B has joined the capture
 *     launch in B            B: tips {k2}
 *     record f in B, A waits A: tips {k1, k2}   joined again, as it must be when the capture ends
 *
 * Calls that are illegal in a capture fail and invalidate it. Calls that are merely unsafe (those that synchronise) do
 * so according to the modes of the captures and of the calling thread. */
#include "emulated_cuda/state.h"

#include <stdlib.h>
#include <string.h>

struct capture {
    uint64_t id;
    struct graph *graph;
    CUstreamCaptureMode mode;
    uint64_t thread;            /* that began it */
    struct stream *origin;
    bool invalidated;
    struct stream **streams;    /* all that take part, the origin too */
    size_t n;
    struct capture *next;
};

static struct capture *captures;
static uint64_t ids;
static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

static struct capture *capture_of(uint64_t id)
{
    struct capture *c = captures;
    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

static void set_tips(struct graph_node ***tips, size_t *n_tips, struct graph_node *const *to, size_t n)
{
    struct graph_node **copy = calloc(n + 1, sizeof *copy);
    if (copy == NULL)
        abort();
    for (size_t i = 0; i < n; i++)
        copy[i] = to[i];
    free(*tips);
    *tips = copy;
    *n_tips = n;
}

static void add_tips(struct stream *s, struct graph_node *const *more, size_t n)
{
    struct graph_node **all = calloc(s->n_tips + n + 1, sizeof *all);
    size_t k = s->n_tips;
    if (all == NULL)
        abort();
    for (size_t i = 0; i < k; i++)
        all[i] = s->tips[i];
    for (size_t i = 0; i < n; i++) {
        size_t j = 0;
        while (j < k && all[j] != more[i])
            j++;
        if (j == k)
            all[k++] = more[i];
    }
    set_tips(&s->tips, &s->n_tips, all, k);
    free(all);
}

static void take_part(struct capture *c, struct stream *s)
{
    struct stream **more = realloc(c->streams, (c->n + 1) * sizeof *more);
    if (more == NULL)
        abort();
    c->streams = more;
    c->streams[c->n++] = s;
    s->capture = c;
}

static void leave_capture(struct stream *s)
{
    s->capture = NULL;
    free(s->tips);
    s->tips = NULL;
    s->n_tips = 0;
}

/* The graph stays, unless it is the capture's own still. */
static void end(struct capture *c)
{
    struct capture **at = &captures;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    for (size_t i = 0; i < c->n; i++)
        leave_capture(c->streams[i]);
    if (c->graph != NULL)
        graph_free(c->graph);
    free(c->streams);
    free(c);
}

/* ---- what streams and events ask */

CUresult capture_forbids(const char *call)
{
    CUresult result = CUDA_SUCCESS;
    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    for (struct capture *c = captures; c != NULL; c = c->next) {
        bool mine = c->thread == thread_number() && c->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
        bool others = thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL && c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (!mine && !others)
            continue;
        say("%s is not allowed during a capture, which is invalid now", call);
        c->invalidated = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

CUresult capture_breaks(struct stream *stream)
{
    if (stream->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    stream->capture->invalidated = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

bool capture_blocks_legacy(const struct context *context)
{
    for (const struct stream *s = context->streams; s != NULL; s = s->next)
        if (s->blocking && s->capture != NULL)
            return true;
    return false;
}

void capture_forget(struct stream *stream)
{
    struct capture *c = stream->capture;
    if (c == NULL)
        return;
    c->invalidated = true;
    for (size_t i = 0; i < c->n; i++)
        if (c->streams[i] == stream)
            c->streams[i--] = c->streams[--c->n];
    leave_capture(stream);
    if (c->origin == stream) /* nobody can end it any more */
        end(c);
}

CUresult capture_work(struct stream *stream, struct work *work)
{
    struct capture *c = stream->capture;
    if (c->invalidated) {
        work_clear(work);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    struct graph_node *node = graph_add(c->graph, stream->context, work, stream->tips, stream->n_tips);
    if (node == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    set_tips(&stream->tips, &stream->n_tips, &node, 1);
    return CUDA_SUCCESS;
}

CUresult capture_record(struct stream *stream, struct event *event)
{
    if (stream->capture->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->capture_id = stream->capture->id;
    set_tips(&event->tips, &event->n_tips, stream->tips, stream->n_tips);
    return CUDA_SUCCESS;
}

CUresult capture_join(struct stream *stream, struct event *event)
{
    struct capture *c = capture_of(event->capture_id);
    if (c == NULL) /* that capture has ended: there is nothing that could be awaited */
        return CUDA_ERROR_CAPTURED_EVENT;
    if (c->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->legacy) {
        c->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    if (stream->capture != NULL && stream->capture != c) {
        c->invalidated = stream->capture->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (stream->capture == NULL)
        take_part(c, stream);
    add_tips(stream, event->tips, event->n_tips);
    return CUDA_SUCCESS;
}

/* ---- calls */

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode)
{
    struct context *context;
    struct stream *s;
    ENTER_IN(context);
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, context, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->legacy)
        return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (s->capture != NULL)
        return leave(CUDA_ERROR_ILLEGAL_STATE);
    struct capture *c = calloc(1, sizeof *c);
    struct graph *graph = graph_new();
    if (c == NULL || graph == NULL)
        abort();
    *c = (struct capture){.id = ++ids, .graph = graph, .mode = mode, .thread = thread_number(), .origin = s,
                          .next = captures};
    captures = c;
    take_part(c, s);
    return leave(CUDA_SUCCESS);
}

static void mark(struct graph_node *node)
{
    if (node->seen)
        return;
    node->seen = true;
    for (size_t i = 0; i < node->n_before; i++)
        mark(node->before[i]);
}

/* Whether all that other streams did comes before the end of the origin. */
static bool joined(const struct capture *c)
{
    for (size_t i = 0; i < c->graph->n; i++)
        c->graph->nodes[i]->seen = false;
    for (size_t i = 0; i < c->origin->n_tips; i++)
        mark(c->origin->tips[i]);
    for (size_t k = 0; k < c->n; k++)
        for (size_t i = 0; i < c->streams[k]->n_tips; i++)
            if (!c->streams[k]->tips[i]->seen)
                return false;
    return true;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph)
{
    struct context *context;
    struct stream *s;
    ENTER_IN(context);
    if (graph == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, context, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    struct capture *c = s->capture;
    *graph = NULL;
    if (c == NULL)
        return leave(CUDA_ERROR_ILLEGAL_STATE);
    if (c->origin != s)
        return leave((capture_breaks(s), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED));
    if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && c->thread != thread_number())
        return leave((capture_breaks(s), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD));
    result = c->invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                            : joined(c) ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    if (result == CUDA_SUCCESS) {
        *graph = c->graph;
        c->graph = NULL;
    }
    end(c);
    return leave(result);
}

/* What a stream's capture is; pointers that are NULL are not asked for. */
static CUresult info(CUstream handle, struct context *context, CUstreamCaptureStatus *status, uint64_t *id,
                     CUgraph *graph, const CUgraphNode **tips, size_t *n_tips)
{
    struct stream *s;
    if (status == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, context, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->legacy && capture_blocks_legacy(s->context))
        return leave(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    const struct capture *c = s->capture;
    *status = c == NULL ? CU_STREAM_CAPTURE_STATUS_NONE
                        : c->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
        return leave(CUDA_SUCCESS);
    if (id != NULL)
        *id = c->id;
    if (graph != NULL)
        *graph = c->graph;
    if (tips != NULL)
        *tips = s->tips; /* until the next call on the stream */
    if (n_tips != NULL)
        *n_tips = s->n_tips;
    return leave(CUDA_SUCCESS);
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    struct context *context;
    ENTER_IN(context);
    return info(stream, context, status, NULL, NULL, NULL, NULL);
}

CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph,
                                   const CUgraphNode **tips, size_t *n_tips)
{
    struct context *context;
    ENTER_IN(context);
    return info(stream, context, status, id, graph, tips, n_tips);
}

/* Edges carry no data here. */
CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph,
                                   const CUgraphNode **tips, const CUgraphEdgeData **edges, size_t *n_tips)
{
    struct context *context;
    ENTER_IN(context);
    if (edges != NULL)
        *edges = NULL;
    return info(stream, context, status, id, graph, tips, n_tips);
}

static CUresult update(CUstream handle, struct context *context, CUgraphNode *nodes, size_t n, unsigned flags)
{
    struct stream *s;
    if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (n > 0 && nodes == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&emulator);
    CUresult result = stream_of(handle, context, &s);
    if (result != CUDA_SUCCESS)
        return leave(result);
    if (s->capture == NULL)
        return leave(CUDA_ERROR_ILLEGAL_STATE);
    if (s->capture->invalidated)
        return leave(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    for (size_t i = 0; i < n; i++)
        if (nodes[i] == NULL || nodes[i]->kind != KIND_NODE || nodes[i]->graph != s->capture->graph)
            return leave(CUDA_ERROR_INVALID_VALUE);
    if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
        set_tips(&s->tips, &s->n_tips, nodes, n);
    else
        add_tips(s, nodes, n);
    return leave(CUDA_SUCCESS);
}

CUresult cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode *nodes, size_t n, unsigned flags)
{
    struct context *context;
    ENTER_IN(context);
    return update(stream, context, nodes, n, flags);
}

CUresult cuStreamUpdateCaptureDependencies_v2(CUstream stream, CUgraphNode *nodes, const CUgraphEdgeData *edges,
                                              size_t n, unsigned flags)
{
    struct context *context;
    ENTER_IN(context);
    (void)edges;
    return update(stream, context, nodes, n, flags);
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    ENTER();
    if (mode == NULL || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}
