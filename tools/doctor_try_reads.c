/* doctor_try_reads.c - may a rank of this host read another's memory? Tried with two children of ours: ranks are siblings,
 * and where Yama lets a parent read its child, siblings may not. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"
#include "transport/shm/peer_memory.h"

/* As fork(2); the child does not outlive us. */
static pid_t fork_bound(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    return 0;
}

static pid_t start_holder(void)
{
    pid_t pid = fork_bound();
    if (pid != 0) return pid;
    for (;;) pause();
}

/* Reads as a rank does at its start, and writes 0 or errno to `answer`. */
static pid_t start_reader(const struct peer_memory_owner *owner, int answer)
{
    uint8_t seen[PEER_COOKIE_BYTES];
    pid_t pid = fork_bound();
    if (pid != 0) return pid;
    int32_t result = peer_memory_read(owner, seen, owner->cookie_address, sizeof seen) ? 0 : errno;
    _exit(write(answer, &result, sizeof result) != sizeof result);
}

/* A reader that hangs is killed and not waited for: who knows in what it hangs. */
static int32_t answer_of(pid_t reader, int answer, int limit_ms)
{
    int32_t result;
    struct pollfd there = {answer, POLLIN, 0};
    if (poll(&there, 1, limit_ms) <= 0) {
        kill(reader, SIGKILL);
        return ETIMEDOUT;
    }
    if (read(answer, &result, sizeof result) != sizeof result) result = ETIMEDOUT;
    waitpid(reader, NULL, 0);
    return result;
}

static int32_t read_by_another(const struct peer_memory_owner *owner, int limit_ms)
{
    int answer[2];
    if (pipe(answer) != 0) return DOCTOR_UNKNOWN;
    pid_t reader = start_reader(owner, answer[1]);
    close(answer[1]); /* so that a reader that was killed ends the pipe */
    int32_t result = reader > 0 ? answer_of(reader, answer[0], limit_ms) : DOCTOR_UNKNOWN;
    close(answer[0]);
    return result;
}

int32_t doctor_try_reads(int limit_ms)
{
    uint8_t held[PEER_COOKIE_BYTES] = "railccl doctor"; /* the holder has it at the same address */
    pid_t holder = start_holder();
    if (holder < 0) return DOCTOR_UNKNOWN;
    struct peer_memory_owner owner = {.pid = holder, .cookie_address = (uintptr_t)held};
    memcpy(owner.cookie, held, sizeof held);
    int32_t result = read_by_another(&owner, limit_ms);
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    return result;
}
