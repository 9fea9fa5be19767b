/* order.c - see order.h. */
#include "plan/order.h"

#include <stdlib.h>
#include <string.h>

struct order_read {
    struct order_access access;
    uint32_t next;
};

bool order_open(struct order *o, uint32_t n_threads)
{
    memset(o, 0, sizeof *o);
    o->n_threads = n_threads;
    o->n_reads = 1; /* number 0 ends a list */
    o->reads_room = 1024;
    o->clocks = calloc((size_t)n_threads * n_threads, sizeof *o->clocks);
    o->reads = calloc(o->reads_room, sizeof *o->reads);
    if (!o->clocks || !o->reads) return false;
    for (uint32_t t = 0; t < n_threads; t++) order_clock(o, t)[t] = 1;
    return true;
}

void order_close(struct order *o)
{
    free(o->clocks);
    free(o->reads);
}

uint32_t *order_clock(const struct order *o, uint32_t thread) { return o->clocks + (size_t)thread * o->n_threads; }

void order_join(const struct order *o, uint32_t thread, const uint32_t *clock)
{
    uint32_t *mine = order_clock(o, thread);
    for (uint32_t t = 0; t < o->n_threads; t++) mine[t] = clock[t] > mine[t] ? clock[t] : mine[t];
}

void order_tick(const struct order *o, uint32_t thread) { order_clock(o, thread)[thread]++; }

static bool before(const struct order *o, const struct order_access *access, uint32_t thread)
{
    return access->clock == 0 || access->clock <= order_clock(o, thread)[access->thread];
}

bool order_read(struct order *o, struct order_cell *cell, struct order_access access, struct order_access *other)
{
    if (!before(o, &cell->write, access.thread)) {
        *other = cell->write;
        return false;
    }
    for (uint32_t at = cell->reads; at != 0; at = o->reads[at].next)
        if (o->reads[at].access.thread == access.thread) {
            o->reads[at].access = access; /* the later one stands for both */
            return true;
        }
    uint32_t at = o->free_read;
    if (at != 0) {
        o->free_read = o->reads[at].next;
    } else {
        if (o->n_reads == o->reads_room) {
            struct order_read *grown = realloc(o->reads, (size_t)o->reads_room * 2 * sizeof *grown);
            *other = (struct order_access){0};
            if (grown == NULL) return false;
            o->reads = grown;
            o->reads_room *= 2;
        }
        at = o->n_reads++;
    }
    o->reads[at] = (struct order_read){access, cell->reads};
    cell->reads = at;
    return true;
}

bool order_settled(const struct order *o, const struct order_cell *cell, uint32_t thread, struct order_access *other)
{
    *other = cell->write;
    if (!before(o, other, thread)) return false;
    for (uint32_t at = cell->reads; at != 0; at = o->reads[at].next) {
        *other = o->reads[at].access;
        if (!before(o, other, thread)) return false;
    }
    return true;
}

static void reads_forget(struct order *o, struct order_cell *cell)
{
    while (cell->reads != 0) {
        uint32_t at = cell->reads;
        cell->reads = o->reads[at].next;
        o->reads[at].next = o->free_read;
        o->free_read = at;
    }
}

bool order_write(struct order *o, struct order_cell *cell, struct order_access access, struct order_access *other)
{
    if (!order_settled(o, cell, access.thread, other)) return false;
    reads_forget(o, cell);
    cell->write = access;
    cell->write.write = true;
    return true;
}

void order_forget(struct order *o, struct order_cell *cell)
{
    reads_forget(o, cell);
    memset(cell, 0, sizeof *cell);
}
