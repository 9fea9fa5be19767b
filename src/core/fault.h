/* fault.h - why a communicator no longer works: set once, by whoever learns of it first, from any thread. */
#ifndef RAIL_CORE_FAULT_H
#define RAIL_CORE_FAULT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/result.h"

struct fault {
    _Atomic uint32_t stop;   /* non-zero: everything that waits gives up; written under lock, read anywhere */
    pthread_mutex_t lock;    /* protects the rest */
    enum rail_result result;
    char text[512];
};

void fault_init(struct fault *fault);
void fault_clear(struct fault *fault);
/* The first call wins. Returns 1 if this was it. */
int fault_raise(struct fault *fault, enum rail_result result, const char *text);
/* RAIL_OK or the fault's result; its text becomes the caller's last error. */
enum rail_result fault_result(struct fault *fault);

#endif
