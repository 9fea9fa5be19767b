/* delivery.h - when do bytes arrive in a buffer that somebody else fills? Watched from beside, without asking who fills it.
 *
 * A mark is a word of the receive buffer, one per MARK_BYTES, that holds a poison until the library has written there. A
 * thread looks at the marks that are still poisoned every SAMPLE_NS: those that changed since the last look were delivered
 * in between. Also what came and went at this host's NICs, per interface.
 *
 * Which of the two is honest for "longest gap in delivered bytes"? The marks. A NIC counts acknowledgements, heartbeats,
 * retransmissions, and chunks that are thrown away as duplicates: a rank that waits for the one missing byte can have a busy
 * NIC, so a gap by counters is shorter than what the user waits. A mark changes only when the library has put bytes where
 * the user finds them. It can be wrong in one way, which lengthens gaps and never shortens them: when this thread gets no
 * CPU it sees late what came early. The longest time between two looks is told beside the gap (blind). The NICs' counters
 * are there for what only they know: which rail carries how much.
 *
 * What a gap is not: the time between two calls, and what follows the last byte of a call (this rank has all, and may have
 * to forward to others). From the start of a call to its first byte does count: callers start calls after a barrier. */
#ifndef TESTS_RAILS_DELIVERY_H
#define TESTS_RAILS_DELIVERY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    MARK_BYTES = 256 * 1024,   /* 2 ms at 1 Gbit/s, and 1024 loads per look at 256 MiB: 2 % of a core */
    SMALLEST_MARKS = 64,       /* a smaller buffer has as many, closer together */
    BUCKET_MS = 100,
};
#define SAMPLE_NS UINT64_C(5000000)

/* What a rank shows to whoever injects faults: a 64-byte line of a mapped file. Written by its rank alone, read at any time. */
enum board_phase { BOARD_START, BOARD_INIT, BOARD_READY, BOARD_BARRIER, BOARD_CALL, BOARD_BETWEEN, BOARD_DONE };
struct board_rank {
    _Atomic uint32_t phase, call;       /* calls count from 1 */
    _Atomic uint64_t delivered, total;  /* bytes of this call */
    _Atomic uint64_t moved_ns;          /* CLOCK_MONOTONIC of the last delivery, or of the call's start */
    _Atomic uint64_t wrong;             /* bytes so far */
    uint64_t unused[3];
};
/* The file's first line; written by the injector. */
struct board_head {
    _Atomic uint32_t go, stop; /* ranks that were told to wait go on at the first; rank 0 ends the run at the second */
    uint64_t unused[7];
};

struct delivery;

/* Starts the thread. `board` is this rank's line. NULL when there is no memory or no thread. */
struct delivery *delivery_start(struct board_rank *board, bool counts_nics);
/* Poisons the marks of `bytes` bytes and begins to look. Not two calls at once. */
void delivery_begin(struct delivery *d, void *receive, size_t bytes, uint32_t call);
/* Looks once more and ends it. */
void delivery_end(struct delivery *d);
/* As members of a JSON object, without braces: gap_ms, gap_at_s, gap_call (of the longest),
 * blind_ms, gaps (of 20 ms and more: [at_s, ms, call]), and per bucket of bucket_ms, the first of which begins at first_bucket * bucket_ms
 * of the clock: delivered (bytes), calling_ms (how much of it was within calls), nics (KiB that came and went). */
void delivery_print(struct delivery *d, FILE *out);

uint64_t delivery_now_ns(void); /* CLOCK_MONOTONIC, which all processes of a machine share */

#endif
