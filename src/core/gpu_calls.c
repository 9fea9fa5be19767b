/* gpu_calls.c - the calls of a GPU rank: what can be found wrong at once, then launches in the order of their streams. */
#include <stdlib.h>
#include <string.h>

#include "algos/pairwise.h"
#include "core/gpu_rank.h"
#include "core/notes.h"
#include "core/queue.h"
#include "plan/collective.h"

/* ---- checks ---- */

/* Whatever device is current: one thread calls for the communicators of several, as nccl-tests does. */
enum rail_result gpu_rank_accept(const struct comm *comm, const char *call, cu_stream stream)
{
    return cuda_stream_check(comm->gpu_device, call, stream);
}

enum rail_result gpu_rank_collective_check(const struct comm *comm, const struct collective *a)
{
    struct collective_extent e = collective_extent(comm, a);
    RAIL_TRY(cuda_pointer_check(comm->gpu_device, a->call, "sendbuff", a->input, e.input, NULL));
    return cuda_pointer_check(comm->gpu_device, a->call, "recvbuff", a->output, e.output, NULL);
}

enum rail_result gpu_rank_p2p_check(const struct comm *comm, const struct p2p_call *a)
{
    bool sends = a->direction == MESSAGE_SEND;
    return cuda_pointer_check(comm->gpu_device, a->call, sends ? "sendbuff" : "recvbuff", a->buffer,
                              a->count * rail_type_bytes((enum rail_type)a->type), NULL);
}

enum rail_result gpu_rank_scalar(struct comm *comm, const char *call, enum rail_type type, const void *scalar, int *handle_out)
{
    struct cuda_pointer at;
    RAIL_TRY(cuda_pointer_check(comm->gpu_device, call, "scalar", scalar, rail_type_bytes(type), &at));
    return redop_create_at(&comm->redops, type, at.address, handle_out);
}

/* ---- messages ---- */

/* Flows and messages of one launch, growing. */
struct table {
    struct gpu_flow *flows;
    struct gpu_message *messages;
    uint32_t n_flows, n_messages;
};

static enum rail_result table_open(struct table *t, uint32_t flows, uint32_t messages)
{
    *t = (struct table){calloc(flows ? flows : 1, sizeof *t->flows), calloc(messages ? messages : 1, sizeof *t->messages), 0, 0};
    return t->flows && t->messages ? RAIL_OK : rail_fail(RAIL_E_SYSTEM, "ncclGroupEnd: %u messages: out of memory", messages);
}

static void table_close(struct table *t)
{
    free(t->flows);
    free(t->messages);
}

static struct gpu_flow *flow_begin(struct table *t, struct link *link, bool receives, uint64_t finished)
{
    struct gpu_flow *f = &t->flows[t->n_flows++];
    *f = (struct gpu_flow){.link = link, .receives = receives, .first = t->n_messages, .finished = finished};
    return f;
}

static void message_add(struct table *t, struct gpu_flow *f, const void *buffer, uint64_t bytes, uint64_t signature)
{
    t->messages[t->n_messages++] = (struct gpu_message){buffer, bytes, signature};
    f->n++;
}

static enum rail_result launch(struct comm *comm, const struct table *t, uint64_t signature, bool counts, cu_stream stream)
{
    const struct gpu_batch batch = {t->flows, t->messages, t->n_flows, t->n_messages, signature, counts};
    return gpu_messages(comm->gpu, &batch, stream);
}

/* Links that the group's messages want, opened before the table is made. */
static enum rail_result open_flows(struct comm *comm, const struct p2p_batch *batch, uint32_t *n_posts)
{
    struct p2p_walk walk = {batch->first, 0};
    const struct p2p_post *p;
    for (*n_posts = 0; (p = p2p_walk_on(&walk)); ++*n_posts)
        if (p->peer != comm->rank) RAIL_TRY(p2p_flow_open(comm, p->direction, p->peer));
    return RAIL_OK;
}

/* One peer's and direction's posts, in posting order: put together by counting. */
static void sort_posts(struct comm *comm, const struct p2p_batch *batch, struct table *t, uint32_t *start)
{
    uint32_t n = comm->n_ranks, at = 0;
    struct p2p_walk walk = {batch->first, 0};
    const struct p2p_post *p;
    while ((p = p2p_walk_on(&walk))) start[p->direction * n + p->peer]++;
    for (uint32_t d = 0; d < n; d++) /* rank-relative rounds, oneself first */
        for (uint32_t way = 0; way < MESSAGE_DIRECTIONS; way++) {
            uint32_t peer = way == MESSAGE_SEND ? (comm->rank + d) % n : (comm->rank + n - d) % n;
            uint32_t *count = &start[way * n + peer];
            struct message_flow *m = messages_flow(&comm->p2p, way, peer);
            if (d > 0 && *count) {
                t->flows[t->n_flows++] = (struct gpu_flow){m->link, way == MESSAGE_RECEIVE, at, *count, m->finished};
                m->finished += *count;
            }
            uint32_t here = at;
            at += *count;
            *count = here;
        }
    walk = (struct p2p_walk){batch->first, 0};
    while ((p = p2p_walk_on(&walk)))
        t->messages[start[p->direction * n + p->peer]++] =
            (struct gpu_message){p->message.buffer, p->message.bytes, p->message.signature};
    t->n_messages = at;
}

/* What is sent to oneself stands first, then what is received: made pairs, a flow of their own. */
static enum rail_result pair_own(const struct comm *comm, const struct p2p_batch *batch, struct table *t)
{
    uint32_t n = 0;
    struct p2p_walk walk = {batch->first, 0};
    const struct p2p_post *p;
    while ((p = p2p_walk_on(&walk))) n += p->peer == comm->rank;
    if (n == 0) return RAIL_OK;
    struct gpu_message *pairs = malloc(n * sizeof *pairs);
    if (!pairs) return rail_fail(RAIL_E_SYSTEM, "ncclGroupEnd: %u messages: out of memory", n);
    for (uint32_t k = 0; k < n / 2; k++) {
        pairs[2 * k] = t->messages[k];
        pairs[2 * k + 1] = t->messages[n / 2 + k];
    }
    memcpy(t->messages, pairs, n * sizeof *pairs);
    free(pairs);
    t->flows[t->n_flows++] = (struct gpu_flow){.n = n};
    return RAIL_OK;
}

static enum rail_result launch_p2p(struct comm *comm, const struct p2p_batch *batch, cu_stream stream)
{
    struct table t;
    uint32_t n_posts, ways = MESSAGE_DIRECTIONS * comm->n_ranks;
    RAIL_TRY(p2p_open(comm));
    RAIL_TRY(open_flows(comm, batch, &n_posts));
    uint32_t *start = calloc(ways, sizeof *start);
    enum rail_result result = table_open(&t, (n_posts < ways ? n_posts : ways) + 1, n_posts);
    if (result == RAIL_OK && !start) result = rail_fail(RAIL_E_SYSTEM, "ncclGroupEnd: %u ranks: out of memory", comm->n_ranks);
    if (result == RAIL_OK) {
        sort_posts(comm, batch, &t, start);
        result = pair_own(comm, batch, &t);
    }
    if (result == RAIL_OK) result = launch(comm, &t, 0, false, stream);
    table_close(&t);
    free(start);
    return result;
}

/* ---- collectives ---- */

static enum rail_result alltoall_table(struct comm *comm, const struct collective *a, uint64_t signature, struct table *t)
{
    uint64_t bytes = collective_extent(comm, a).block;
    const unsigned char *in = a->input;
    unsigned char *out = a->output;
    struct link *link;
    for (uint32_t d = 1; d < comm->n_ranks; d++) {
        struct pairwise_step step = pairwise_step(&comm->shape, comm->rank, d);
        RAIL_TRY(wires_pair(&comm->wires, step.to, PLAN_LINK_OUT, LINK_CHANNEL_ALLTOALL, &link));
        message_add(t, flow_begin(t, link, false, 0), in + bytes * step.to, bytes, signature);
        RAIL_TRY(wires_pair(&comm->wires, step.from, PLAN_LINK_IN, LINK_CHANNEL_ALLTOALL, &link));
        message_add(t, flow_begin(t, link, true, 0), out + bytes * step.from, bytes, signature);
    }
    struct gpu_flow *own = flow_begin(t, NULL, false, 0);
    message_add(t, own, in + bytes * comm->rank, bytes, signature);
    message_add(t, own, out + bytes * comm->rank, bytes, signature);
    return RAIL_OK;
}

static enum rail_result launch_alltoall(struct comm *comm, const struct collective *a, uint64_t signature, cu_stream stream)
{
    struct table t;
    enum rail_result result = table_open(&t, 2 * comm->n_ranks, 2 * comm->n_ranks);
    if (result == RAIL_OK) result = alltoall_table(comm, a, signature, &t);
    if (result == RAIL_OK) result = launch(comm, &t, signature, true, stream);
    table_close(&t);
    return result;
}

/* Decided by what all ranks know. */
static bool is_small(const struct comm *comm, const struct collective *a)
{
    size_t most = gpu_express_bytes(comm->gpu);
    return a->count <= most && a->count * rail_type_bytes((enum rail_type)a->type) <= most;
}

static enum rail_result launch_small(struct comm *comm, const struct collective *a, struct gpu_collective c, cu_stream stream)
{
    c.call.input = a->input;
    c.call.output = a->output;
    c.call.split.count = a->count;
    c.call.signature = collective_signature(a);
    c.collective = (uint32_t)a->kind;
    c.root = (uint32_t)a->root;
    c.balanced = comm->table.deterministic;
    return gpu_express(comm->gpu, &c, stream);
}

static enum rail_result launch_collective(struct comm *comm, const struct collective *a, cu_stream stream)
{
    struct gpu_collective c = {.scale_at = redop_scalar_at(&comm->redops, a->op)};
    RAIL_TRY(collective_resolve(comm, a, &c.call.how));
    if (!collective_kind(a->kind).reduces) c.scale_at = 0;
    if (comm->n_ranks == 1) {
        c.call.input = a->input;
        c.call.output = a->output;
        bool nothing = a->count == 0 || (a->input == a->output && !c.call.how.scaled && c.call.how.divide <= 1);
        return nothing ? RAIL_OK : gpu_copy(comm->gpu, &c, a->count, stream);
    }
    if (a->count == 0) {
        c.call.signature = collective_signature(a);
        return gpu_collective(comm->gpu, &c, stream);
    }
    if (is_small(comm, a)) {
        enum rail_result result = launch_small(comm, a, c, stream);
        if (result != RAIL_NOT_YET) return result;
    }
    RAIL_TRY(collective_lay_out(comm, a, &c.call.how, &c.call, &c.instances));
    if (!c.instances) return launch_alltoall(comm, a, c.call.signature, stream);
    return gpu_collective(comm->gpu, &c, stream);
}

/* ---- a group's calls ---- */

static bool has_onesided(const struct queue *q) { return q->onesided.puts || q->onesided.waits; }
static bool onesided_alone(const struct queue *q) { return has_onesided(q) && !q->first && !q->p2p.first; }

/* Collectives one after another, messages beside them. */
static enum rail_result launch_launches(struct queue *q)
{
    struct comm *comm = q->comm;
    cu_stream stream = q->gpu_launch, side = stream;
    bool both = q->first && q->p2p.first;
    if (both) RAIL_TRY(gpu_fork(comm->gpu, stream, &side));
    for (const struct queued_call *c = q->first; c; c = c->next) RAIL_TRY(launch_collective(comm, &c->args, stream));
    if (q->p2p.first) RAIL_TRY(launch_p2p(comm, &q->p2p, side));
    return both ? gpu_join(comm->gpu, stream) : RAIL_OK;
}

/* Puts first and waits last: neither the one nor the other holds back what peers wait for. */
static enum rail_result launch_all(struct queue *q)
{
    uint32_t batch;
    if (!has_onesided(q)) return launch_launches(q);
    RAIL_TRY(gpu_batch_open(q->comm->gpu, &batch));
    enum rail_result result = onesided_batch_put_on(&q->onesided, q->gpu_launch);
    if (result == RAIL_OK) result = launch_launches(q);
    if (result == RAIL_OK) result = onesided_batch_wait_on(&q->onesided, batch, q->gpu_launch);
    if (result == RAIL_OK) result = gpu_batch_close(q->comm->gpu, batch, q->gpu_launch);
    if (result != RAIL_OK) gpu_batch_fail(q->comm->gpu, batch);
    return result;
}

/* Another communicator of the group launches on the same stream and device: a rank that waits for the next one, mostly. */
static bool shares(const struct queue *queues, const struct queue *mine)
{
    for (const struct queue *q = queues; q; q = q->next)
        if (q != mine && q->comm->gpu && q->comm->gpu_device == mine->comm->gpu_device &&
            q->gpu_streams[0] == mine->gpu_streams[0])
            return true;
    return false;
}

static enum rail_result start(struct queue *q, bool apart)
{
    struct comm *comm = q->comm;
    struct cuda_scope scope;
    RAIL_TRY(fault_result(&comm->fault));
    RAIL_TRY(cuda_enter(comm->gpu_device, "ncclGroupEnd", &scope));
    gpu_watch_wake();
    enum rail_result result =
        onesided_alone(q) ? gpu_begin_beside(comm->gpu, q->gpu_streams, q->n_gpu_streams, apart, &q->gpu_launch)
                          : gpu_begin(comm->gpu, q->gpu_streams, q->n_gpu_streams, apart, &q->gpu_launch);
    if (result == RAIL_OK) result = launch_all(q);
    gpu_watch_wake(); /* it may have found nothing under way in between */
    cuda_leave(&scope);
    return result == RAIL_OK ? RAIL_OK : comm_failed(comm, result);
}

static enum rail_result finish(const struct queue *q)
{
    struct cuda_scope scope;
    RAIL_TRY(cuda_enter(q->comm->gpu_device, "ncclGroupEnd", &scope));
    enum rail_result result =
        onesided_alone(q) ? gpu_end_beside(q->comm->gpu, q->gpu_streams, q->n_gpu_streams, q->gpu_launch)
                          : gpu_end(q->comm->gpu, q->gpu_streams, q->n_gpu_streams, q->gpu_launch);
    cuda_leave(&scope);
    return result == RAIL_OK ? RAIL_OK : comm_failed(q->comm, result);
}

/* What is waited for counts up over the communicator's life: a replay would find it there. */
static enum rail_result check_capture(const struct queue *q)
{
    struct cuda_capture capture;
    for (uint32_t k = 0; has_onesided(q) && k < q->n_gpu_streams; k++) {
        RAIL_TRY(cuda_stream_capture(q->comm->gpu_device, "ncclGroupEnd", q->gpu_streams[k], &capture));
        if (capture.active)
            return rail_fail(RAIL_E_USAGE, "ncclPutSignal, ncclSignal, ncclWaitSignal: not in a captured graph in this release: "
                             "signals count over the life of the communicator; call them outside, or use ncclSend and ncclRecv");
    }
    return RAIL_OK;
}

/* An abort waits for whoever is inside. */
static enum rail_result enter(struct queue *q)
{
    RAIL_TRY(check_capture(q));
    RAIL_TRY(comm_alone(q->comm, "ncclGroupEnd"));
    atomic_store_explicit(&q->comm->inside, 1, memory_order_relaxed);
    notes_watch(q->comm);
    return comm_runs_check(q->comm, "ncclGroupEnd");
}

static struct queue *take_gpu_queues(struct queue **queues)
{
    struct queue *taken = NULL, **end = &taken;
    for (struct queue **at = queues; *at;) {
        struct queue *q = *at;
        if (!q->comm->gpu) {
            at = &q->next;
            continue;
        }
        *at = q->next;
        q->next = NULL;
        *end = q;
        end = &q->next;
    }
    return taken;
}

enum rail_result gpu_rank_enqueue(struct queue **queues)
{
    struct queue *mine = take_gpu_queues(queues), *entered = mine, *started = mine;
    enum rail_result result = RAIL_OK;
    for (; entered && result == RAIL_OK; entered = entered->next) result = enter(entered);
    for (; started && result == RAIL_OK; started = started->next) result = start(started, shares(mine, started));
    for (struct queue *q = mine; q != started; q = q->next) { /* what was launched is waited for, whatever failed since */
        enum rail_result finished = finish(q);
        if (result == RAIL_OK) result = finished;
    }
    for (struct queue *q = mine; q != entered; q = q->next) atomic_store_explicit(&q->comm->inside, 0, memory_order_release);
    queues_free(mine);
    return result;
}
