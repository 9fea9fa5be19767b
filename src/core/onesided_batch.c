/* onesided_batch.c - the one-sided operations of a group.
 *
 * Waits do not hold back puts, whatever was called first: two ranks that both wait for the other and then put would
 * never get on. All waits begin before the first put, so each has the signals that its place among the calls gives
 * it. */
#include <stdlib.h>

#include "core/collective.h"
#include "core/onesided.h"

struct onesided_queued {
    struct onesided_queued *next;
    struct onesided_op op;
};

static void append(struct onesided_queued **first, struct onesided_queued **last, struct onesided_queued *q)
{
    if (*last) (*last)->next = q;
    else *first = q;
    *last = q;
}

enum rail_result onesided_batch_add(struct onesided_batch *batch, struct onesided_op *op)
{
    struct onesided_queued *q = malloc(sizeof *q);
    if (!q) {
        const char *call = op->waits ? "ncclWaitSignal" : op->put.call;
        onesided_free(op);
        return rail_fail(RAIL_E_SYSTEM, "%s: out of memory for one more call of the group", call);
    }
    *q = (struct onesided_queued){.op = *op};
    if (op->waits) append(&batch->waits, &batch->last_wait, q);
    else append(&batch->puts, &batch->last_put, q);
    return RAIL_OK;
}

static struct onesided_queued *done(struct onesided_queued *q)
{
    struct onesided_queued *next = q->next;
    onesided_free(&q->op);
    free(q);
    return next;
}

static enum rail_result start(struct onesided_batch *batch)
{
    for (struct onesided_queued *q = batch->waits; q; q = q->next) RAIL_TRY(onesided_start(&q->op));
    if (batch->puts) RAIL_TRY(onesided_start(&batch->puts->op));
    return RAIL_OK;
}

static enum rail_result puts_progress(struct onesided_batch *batch)
{
    while (batch->puts) {
        RAIL_TRY(onesided_progress(&batch->puts->op));
        batch->puts = done(batch->puts);
    }
    return RAIL_OK;
}

static enum rail_result waits_progress(struct onesided_batch *batch)
{
    enum rail_result result = RAIL_OK;
    for (struct onesided_queued **at = &batch->waits; *at;) {
        enum rail_result one = onesided_progress(&(*at)->op);
        if (one == RAIL_OK) {
            *at = done(*at);
            continue;
        }
        if (one != RAIL_NOT_YET) return one;
        result = RAIL_NOT_YET;
        at = &(*at)->next;
    }
    return result;
}

enum rail_result onesided_batch_progress(struct onesided_batch *batch)
{
    if (!batch->puts && !batch->waits) return RAIL_OK;
    if (!batch->started) RAIL_TRY(start(batch));
    batch->started = true;
    enum rail_result put = puts_progress(batch);
    if (put != RAIL_OK && put != RAIL_NOT_YET) return put;
    enum rail_result waited = waits_progress(batch);
    return waited == RAIL_OK ? put : waited;
}

enum rail_result onesided_batch_put_on(struct onesided_batch *batch, cu_stream stream)
{
    RAIL_TRY(start(batch));
    for (const struct onesided_queued *q = batch->puts; q; q = q->next) RAIL_TRY(onesided_put_on(&q->op, stream));
    return RAIL_OK;
}

enum rail_result onesided_batch_wait_on(struct onesided_batch *batch, uint32_t number, cu_stream stream)
{
    for (const struct onesided_queued *q = batch->waits; q; q = q->next) RAIL_TRY(onesided_wait_on(&q->op, number, stream));
    return RAIL_OK;
}

enum rail_result onesided_batch_suspect(const struct onesided_batch *batch)
{
    for (const struct onesided_queued *q = batch->waits; q && batch->started; q = q->next) {
        enum rail_result result = onesided_suspect(&q->op);
        if (result != RAIL_OK) return comm_failed(q->op.comm, result);
    }
    return RAIL_OK;
}

void onesided_batch_free(struct onesided_batch *batch)
{
    while (batch->puts) batch->puts = done(batch->puts);
    while (batch->waits) batch->waits = done(batch->waits);
}
