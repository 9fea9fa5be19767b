/* log.h - NCCL_DEBUG's levels and subsystems. A disabled line costs one load and one test. */
#ifndef RAIL_BASE_LOG_H
#define RAIL_BASE_LOG_H

#include <stdatomic.h>
#include <stdint.h>

enum rail_log_level { RAIL_LOG_NONE, RAIL_LOG_VERSION, RAIL_LOG_WARN, RAIL_LOG_INFO, RAIL_LOG_ABORT, RAIL_LOG_TRACE };

/* NCCL_DEBUG_SUBSYS' names, as bits. */
enum rail_log_subsystem {
    RAIL_INIT = 1u << 0, RAIL_COLL = 1u << 1, RAIL_P2P = 1u << 2, RAIL_SHM = 1u << 3, RAIL_NET = 1u << 4,
    RAIL_GRAPH = 1u << 5, RAIL_TUNING = 1u << 6, RAIL_ENV = 1u << 7, RAIL_ALLOC = 1u << 8, RAIL_CALL = 1u << 9,
    RAIL_PROXY = 1u << 10, RAIL_NVLS = 1u << 11, RAIL_BOOTSTRAP = 1u << 12, RAIL_REG = 1u << 13,
    RAIL_PROFILE = 1u << 14, RAIL_RAS = 1u << 15, RAIL_DESTROY = 1u << 16,
};

/* RAIL_LOG_STARTED | (subsystem bits << 8) | level, 0 until the first line is considered; read without a lock. */
#define RAIL_LOG_STARTED (1u << 31)
extern _Atomic uint32_t rail_log_gate;

/* Reads NCCL_DEBUG, NCCL_DEBUG_SUBSYS, NCCL_DEBUG_FILE (%h host, %p pid) and the time-stamp variables once.
 * Called by itself from the first line; rail_log_restart() reads them again (tests, ncclResetDebugInit). */
void rail_log_start(void);
void rail_log_restart(void);

/* "rank 3" in front of every line of this thread while it works for a communicator; -1 for none. */
void rail_log_set_rank(int rank);

/* `file` NULL: without a place. Level RAIL_LOG_NONE: something the program asked to be printed, always written. Subsystems filter INFO and TRACE only. One write(2) per line; control characters in the
 * text become blanks, so that what a peer sends cannot forge lines. Keeps errno, raises no SIGPIPE, may be called from
 * a forked child. */
void rail_log_line(enum rail_log_level level, uint32_t subsystem, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static inline int rail_log_enabled(enum rail_log_level level, uint32_t subsystem)
{
    uint32_t gate = atomic_load_explicit(&rail_log_gate, memory_order_relaxed);
    if (__builtin_expect(gate == 0, 0)) {
        rail_log_start();
        gate = atomic_load_explicit(&rail_log_gate, memory_order_relaxed);
    }
    return (gate & 0xff) >= (uint32_t)level && (level < RAIL_LOG_INFO || (gate & (subsystem << 8)) != 0);
}

#define RAIL_WARN(...) rail_log_line(RAIL_LOG_WARN, 0, __FILE__, __LINE__, __VA_ARGS__)
#define RAIL_INFO(subsystem, ...)                                                                                      \
    do {                                                                                                               \
        if (rail_log_enabled(RAIL_LOG_INFO, (subsystem)))                                                              \
            rail_log_line(RAIL_LOG_INFO, (subsystem), __FILE__, __LINE__, __VA_ARGS__);                                \
    } while (0)
#define RAIL_TRACE(subsystem, ...)                                                                                     \
    do {                                                                                                               \
        if (rail_log_enabled(RAIL_LOG_TRACE, (subsystem)))                                                             \
            rail_log_line(RAIL_LOG_TRACE, (subsystem), __FILE__, __LINE__, __VA_ARGS__);                               \
    } while (0)

#endif
