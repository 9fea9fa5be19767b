/* lending.h - moves whose slots need no filling: the slot's content lies in the caller's own buffer as well, in memory that links
 * may send from (transport/link.h, lending).
 *
 *     input             -> slot-out              no copy at all
 *     anything          -> output, slot-out      written once, to the output
 *
 * What is lent must stay as it is until it is credited, which is later than its result may come back. So an input is lent only
 * where the call does not write over it, and an output only where what is written there is final. */
#ifndef RAIL_ENGINE_LENDING_H
#define RAIL_ENGINE_LENDING_H

#include "engine/moving.h"

/* Once everything is resolved: takes slots that are to be lent out of the destinations. */
void lending_choose(const struct host_op *op, const struct run *run, const struct plan_step *step, struct moving *m);
/* After the move: the k-th slot is lent, or filled where it cannot be after all. False: it is one like others, to be published. */
bool lending_publish(struct host_op *op, const struct run *run, const struct moving *m, int k);
/* Once nothing is left to run. RAIL_OK: all that was lent is the caller's again. Else *late is one of the links that keep it. */
enum rail_result lending_settled(const struct host_op *op, const struct link **late);

#endif
