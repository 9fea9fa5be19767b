/* order.h - happens-before among strands, by vector clocks, and memory cells that notice unordered accesses.
 *
 * Two accesses of which one writes must be ordered by messages, signals or program order; whether a schedule happened
 * to run them one after the other does not count. So a race shows in every schedule. */
#ifndef RAIL_PLAN_ORDER_H
#define RAIL_PLAN_ORDER_H

#include <stdbool.h>
#include <stdint.h>

struct order_access {
    uint32_t thread, clock; /* clock 0: there was none */
    uint32_t step;          /* for messages */
    bool write;
};

struct order_cell {
    uint32_t value;
    uint32_t reads; /* list of reads since the last write; 0 = none */
    struct order_access write;
};

struct order {
    uint32_t n_threads;
    uint32_t *clocks; /* [n_threads][n_threads] */
    struct order_read *reads;
    uint32_t n_reads, reads_room, free_read;
};

bool order_open(struct order *order, uint32_t n_threads); /* false: out of memory */
void order_close(struct order *order);

/* What `thread` knows of everybody. */
uint32_t *order_clock(const struct order *order, uint32_t thread);
/* `thread` learns what `clock` says. */
void order_join(const struct order *order, uint32_t thread, const uint32_t *clock);
/* `thread` has told somebody: what it does from now on is news. */
void order_tick(const struct order *order, uint32_t thread);

/* Records an access. Returns false and the access it races with, or (clock 0) false for out of memory. */
bool order_read(struct order *order, struct order_cell *cell, struct order_access access, struct order_access *other);
bool order_write(struct order *order, struct order_cell *cell, struct order_access access, struct order_access *other);
/* True when all accesses to the cell happened before what `thread` does now; else the one that did not. */
bool order_settled(const struct order *order, const struct order_cell *cell, uint32_t thread,
                   struct order_access *other);
void order_forget(struct order *order, struct order_cell *cell);

#endif
