/* table.h - the chooser's table of a communicator: the built-in values, then what was measured
 * (tuning.h), then what the program's configuration says, then what the environment says. */
#ifndef RAIL_CORE_TABLE_H
#define RAIL_CORE_TABLE_H

#include "algos/algos.h"
#include "base/params.h"
#include "base/result.h"
#include "core/config.h"

/* The sizes at which the chooser goes from one algorithm to another. */
struct table_limit {
    enum rail_param param; /* the variable that sets it */
    uint32_t at;           /* offset of the uint64_t in a table */
    bool least;            /* the smallest size for its algorithm; else the largest */
};
enum { TABLE_LIMITS = 8 };
extern const struct table_limit table_limits[TABLE_LIMITS];
uint64_t table_limit(const struct choice_table *table, int limit);
void table_limit_set(struct choice_table *table, int limit, uint64_t bytes);

/* Slots of every link of a communicator with or without network links, and of a node with or without GPUs. */
uint32_t table_slots(bool network, bool gpus);

struct tuning; /* core/tuning.h */
/* What ranks take that nobody told anything. `cores`: of the host that has fewest of them; 0 where ranks are GPUs. */
void table_built_in(struct choice_table *out, const struct shape *shape, int cores);
/* `tuning` may be NULL. The environment beats it. */
enum rail_result table_make(struct choice_table *out, const struct shape *shape, int cores, const struct comm_config *config,
                            const struct tuning *tuning);
/* The communicator has one node, and its ranks read one another's buffers where they are. */
void table_direct(struct choice_table *table, const struct shape *shape);
/* The communicator has one node, whose ranks have registered a window that all of them reach. The same at all ranks or none. */
void table_shared(struct choice_table *table, const struct shape *shape);

#endif
