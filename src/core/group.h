/* group.h - ncclGroupStart .. ncclGroupEnd: calls of one thread that begin together and progress together.
 *
 * Thread-local and nestable; only the outermost end acts. Collectives of one communicator run in call order, its sends
 * and receives (p2p.h) and its one-sided operations (onesided.h) beside them, communicators side by side. New
 * communicators (InitRank, Split ...) are made side by side, too, before those calls run, and so are windows. */
#ifndef RAIL_CORE_GROUP_H
#define RAIL_CORE_GROUP_H

#include "core/collective.h"
#include "core/comm.h"
#include "core/making.h"
#include "core/p2p.h"
#include "core/stream.h"
#include "core/window_calls.h"
#include "foreign/cuda.h"

/* A call that fails inside a group refuses the group: its end starts nothing and returns the first such failure, for a
 * caller who looks only there. The communicators work on. */
/* This thread is inside a group. */
bool group_open(void);
/* Passes `result` on; the group, if one is open, takes note of a failure. */
enum rail_result group_noted(enum rail_result result);
void group_start(void);
enum rail_result group_end(void);
/* Ends the group without running anything. The outermost one writes how long its operations would take. */
enum rail_result group_simulate_end(double *ns);
/* Inside a group only: it runs later, when the streams named in it have come to it. NULL: its end waits for it. */
enum rail_result group_on_stream(struct stream *stream);

/* The same of a GPU rank: its calls in the group are ordered by all streams that it names. */
enum rail_result group_on_gpu_stream(struct comm *comm, cu_stream stream);
/* Inside a group only. Copies `like`; *like->out is written by group_end. */
enum rail_result group_add_making(const struct making *like);
enum rail_result group_add_collective(struct comm *comm, const struct collective *args);
enum rail_result group_add_p2p(struct comm *comm, const struct p2p_call *args);
/* Takes over what the operation holds, on failure too. */
enum rail_result group_add_onesided(struct onesided_op *op);
/* Copies `call`; *call->out is written by group_end. */
enum rail_result group_add_window(const struct window_call *call);

#endif
