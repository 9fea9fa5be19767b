/* fault.h - why a communicator no longer works: set once, by whoever learns of it first, from any thread. */
#ifndef RAIL_CORE_FAULT_H
#define RAIL_CORE_FAULT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/result.h"

struct fault {
    _Atomic uint32_t stop;   /* non-zero: everything that waits gives up; written under lock, read anywhere */
    pthread_mutex_t lock;    /* protects the rest; never destroyed, since a stale handle may still be asked */
    enum rail_result result;
    char text[512];
    _Atomic uint32_t *beside; /* set with `stop`, where somebody looks who cannot look there; NULL: nobody */
    struct fault *heir;      /* of a communicator that is being made of the owner's; NULL: none */
    int heir_hears_all;
};

void fault_init(struct fault *fault);
/* The first call wins. Returns 1 if this was it. */
int fault_raise(struct fault *fault, enum rail_result result, const char *text);
/* `word` is set when the fault is raised, at once if it was; until NULL is given. */
void fault_beside(struct fault *fault, _Atomic uint32_t *word);
/* From now until fault_disown, what stops the owner stops `heir`, too: `hears_all`: every fault, the present one
 * included; else only fault_raise_heir. The owner's lock is taken before the heir's. */
void fault_lend(struct fault *fault, struct fault *heir, int hears_all);
void fault_disown(struct fault *fault);
/* An heir is being made that outlives what stops the owner: a shrink. */
int fault_outlived(struct fault *fault);
void fault_raise_heir(struct fault *fault, enum rail_result result, const char *text);
/* Is this why it stopped? Says nothing. */
int fault_is(struct fault *fault, enum rail_result result);
/* RAIL_OK or the fault's result; its text becomes the caller's last error. */
enum rail_result fault_result(struct fault *fault);

#endif
