/* result.h - the one result type used inside the library, and the text that goes with it.
 *
 * The first function that knows the cause of a failure calls rail_fail() with the exact call, the object and the
 * numbers; everyone above passes the value up with RAIL_TRY. The doors in src/api/ translate to ncclResult_t. */
#ifndef RAIL_BASE_RESULT_H
#define RAIL_BASE_RESULT_H

#include <stddef.h>

enum rail_result {
    RAIL_OK = 0,
    RAIL_NOT_YET,      /* nothing is wrong: call again after progress; never reaches a door */
    RAIL_E_CUDA,       /* the GPU driver said no */
    RAIL_E_SYSTEM,     /* the operating system or the network said no */
    RAIL_E_INTERNAL,   /* a bug of ours */
    RAIL_E_ARGUMENT,   /* the caller passed a bad value */
    RAIL_E_USAGE,      /* good values, wrong moment, or not supported */
    RAIL_E_REMOTE,     /* another rank died, failed or disagreed */
    RAIL_E_TIMEOUT,    /* a deadline passed (reported as a system or remote error at the door) */
    RAIL_E_REVOKED,    /* some rank revoked the communicator: it may be split, grown and shrunk, not used */
    RAIL_E_ABORTED,    /* the user aborted the communicator */
    RAIL_IN_PROGRESS,  /* nothing is wrong: a thread of ours goes on with it (non-blocking communicators) */
};

/* Formats the text, keeps it for ncclGetLastError (process-wide, last writer wins), logs it at WARN, returns `result`.
 * Thread-safe. Never fails. Keeps errno. */
enum rail_result rail_fail(enum rail_result result, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Like rail_fail without the log line: for failures that are expected to be handled by the caller. */
enum rail_result rail_fail_quietly(enum rail_result result, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* The last failure's text, never NULL, "" when there was none. The pointer stays valid for the life of the calling
 * thread (each thread reads its own copy). */
const char *rail_last_error(void);

/* Of this thread alone: rail_own_error() says it, ncclGetLastError does not. For what happens behind a caller's back, on a
 * lane: somebody above says what it means, and whose fault it is, and must not be talked over. */
__attribute__((format(printf, 2, 3), cold)) enum rail_result rail_fail_privately(enum rail_result result,
                                                                                const char *format, ...);

/* The calling thread's own last failure: what to pass on together with a result that this thread just got, while other
 * threads may be failing, too. */
const char *rail_own_error(void);

/* Whose fault the calling thread's own last failure is, where that is another rank's. Remembered until its next
 * failure. Returns `result`. */
enum { RAIL_NOBODY = -1 };
enum rail_result rail_blame(int rank, enum rail_result result);
int rail_blamed(void); /* RAIL_NOBODY: not known */

/* A short stable word for a result, e.g. "remote". */
const char *rail_result_name(enum rail_result result);

/* The one macro that returns for its caller: passes anything but RAIL_OK up (RAIL_NOT_YET included). */
#define RAIL_TRY(expression)                                                                                           \
    do {                                                                                                               \
        enum rail_result rail_try_result_ = (expression);                                                              \
        if (__builtin_expect(rail_try_result_ != RAIL_OK, 0)) return rail_try_result_;                                 \
    } while (0)

#endif
