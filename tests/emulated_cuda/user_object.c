/* user_object.c - user objects: counted by their client and by graphs; with the last reference the client's destructor
 * runs, on a thread of the driver that holds no lock. */
#include "emulated_cuda/state.h"

#include <stdlib.h>

struct user_object {
    enum kind kind;
    CUhostFn destroy;
    void *data;
    unsigned count;
};

static void destroy(void *argument)
{
    struct user_object *object = argument;
    object->destroy(object->data);
    free(object);
}

static void drop(struct user_object *object, unsigned n)
{
    object->count -= n;
    if (object->count > 0)
        return;
    object->kind = KIND_GONE;
    if (!pool_run(destroy, object))
        say("the destructor of a user object waits for a thread");
}

static bool hold(struct holding **list, struct user_object *object, unsigned n)
{
    struct holding *h = *list;
    while (h != NULL && h->object != object)
        h = h->next;
    if (h == NULL) {
        h = calloc(1, sizeof *h);
        if (h == NULL)
            return false;
        *h = (struct holding){.object = object, .next = *list};
        *list = h;
    }
    h->count += n;
    return true;
}

bool holdings_copy(struct holding **to, const struct holding *from)
{
    for (; from != NULL; from = from->next) {
        if (!hold(to, from->object, 1))
            return false;
        from->object->count++;
    }
    return true;
}

void holdings_free(struct holding **holdings)
{
    for (struct holding *h = *holdings, *next; h != NULL; h = next) {
        next = h->next;
        drop(h->object, h->count);
        free(h);
    }
    *holdings = NULL;
}

static bool valid(const struct user_object *object, unsigned n)
{
    return object != NULL && object->kind == KIND_OBJECT && n > 0 && n <= INT32_MAX;
}

CUresult cuUserObjectCreate(CUuserObject *object, void *data, CUhostFn destructor, unsigned count, unsigned flags)
{
    ENTER();
    if (object == NULL || destructor == NULL || count == 0 || count > INT32_MAX ||
        flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
        return CUDA_ERROR_INVALID_VALUE;
    struct user_object *o = calloc(1, sizeof *o);
    if (o == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *o = (struct user_object){.kind = KIND_OBJECT, .destroy = destructor, .data = data, .count = count};
    *object = o;
    return CUDA_SUCCESS;
}

CUresult cuUserObjectRetain(CUuserObject object, unsigned count)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (!valid(object, count))
        return leave(CUDA_ERROR_INVALID_VALUE);
    object->count += count;
    return leave(CUDA_SUCCESS);
}

CUresult cuUserObjectRelease(CUuserObject object, unsigned count)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (!valid(object, count) || count > object->count)
        return leave(CUDA_ERROR_INVALID_VALUE);
    drop(object, count);
    return leave(CUDA_SUCCESS);
}

/* The graph takes references over (MOVE) or adds its own. */
CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned count, unsigned flags)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (graph == NULL || graph->kind != KIND_GRAPH || !valid(object, count) || (flags & ~1u) != 0)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (!hold(&graph->holdings, object, count))
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    if ((flags & CU_GRAPH_USER_OBJECT_MOVE) == 0)
        object->count += count;
    return leave(CUDA_SUCCESS);
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned count)
{
    ENTER();
    pthread_mutex_lock(&emulator);
    if (graph == NULL || graph->kind != KIND_GRAPH || !valid(object, count))
        return leave(CUDA_ERROR_INVALID_VALUE);
    struct holding **at = &graph->holdings;
    while (*at != NULL && (*at)->object != object)
        at = &(*at)->next;
    if (*at == NULL || (*at)->count < count)
        return leave(CUDA_ERROR_INVALID_VALUE);
    struct holding *h = *at;
    h->count -= count;
    if (h->count == 0) {
        *at = h->next;
        free(h);
    }
    drop(object, count);
    return leave(CUDA_SUCCESS);
}
