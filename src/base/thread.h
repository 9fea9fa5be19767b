/* thread.h - starting a thread of the library's inside somebody's process: all signals blocked, the caller's affinity as
 * it is, named "railccl". */
#ifndef RAIL_BASE_THREAD_H
#define RAIL_BASE_THREAD_H

#include <pthread.h>

#include "base/result.h"

/* `out` NULL: detached. RAIL_E_SYSTEM with a text that begins with `call`. */
enum rail_result rail_thread_start(const char *call, void *(*work)(void *), void *argument, pthread_t *out);

#endif
