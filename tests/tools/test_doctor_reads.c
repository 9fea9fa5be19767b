/* `railccl doctor` tries whether ranks read one another's memory, and says what forbids it. process_vm_readv is this program's:
 * it does what a kernel, a filter or a security module does. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tools/doctor.h"

enum { LIMIT_MS = 20000, NO_TIME_MS = 50 };
enum kernel { READS, REFUSES, READS_ANOTHER, YAMA, KILLS, HANGS };
static enum kernel kernel;
static int refusal;

static int parent_of(int pid)
{
    char path[40], line[100];
    int parent = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "re");
    while (f && parent < 0 && fgets(line, sizeof line, f)) sscanf(line, "PPid: %d", &parent);
    if (f) fclose(f);
    return parent;
}

/* Nobody writes what both have since the fork: the reader's own is the other's. */
static ssize_t copy(const struct iovec *here, const struct iovec *there, unsigned long n)
{
    ssize_t bytes = 0;
    for (unsigned long i = 0; i < n; i++) {
        memcpy(here[i].iov_base, there[i].iov_base, here[i].iov_len);
        bytes += (ssize_t)here[i].iov_len;
    }
    return bytes;
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *here, unsigned long n_here, const struct iovec *there,
                         unsigned long n_there, unsigned long flags)
{
    (void)n_there, (void)flags;
    if (kernel == KILLS) raise(SIGKILL);
    if (kernel == HANGS) pause();
    if (kernel == REFUSES) return errno = refusal, -1;
    if (kernel == YAMA && pid != getpid() && parent_of(pid) != getpid()) return errno = EPERM, -1;
    ssize_t n = copy(here, there, n_here);
    if (kernel == READS_ANOTHER) *(unsigned char *)here[0].iov_base ^= 1;
    return n;
}

static int32_t try(enum kernel as, int errno_of, int limit_ms)
{
    kernel = as, refusal = errno_of;
    return doctor_try_reads(limit_ms);
}

static void tries_as_ranks_do(void **state)
{
    (void)state;
    assert_int_equal(try(READS, 0, LIMIT_MS), 0);
    assert_int_equal(try(REFUSES, EPERM, LIMIT_MS), EPERM);
    assert_int_equal(try(REFUSES, ENOSYS, LIMIT_MS), ENOSYS);
    assert_int_equal(try(READS_ANOTHER, 0, LIMIT_MS), ESRCH);
}

/* Yama's scope 1, under which a parent may read its child: ranks have one parent, and may not. */
static void tries_between_siblings(void **state)
{
    (void)state;
    assert_int_equal(try(YAMA, 0, LIMIT_MS), EPERM);
}

static void comes_back(void **state)
{
    (void)state;
    assert_int_equal(try(KILLS, 0, LIMIT_MS), ETIMEDOUT);
    assert_int_equal(try(HANGS, 0, NO_TIME_MS), ETIMEDOUT);
}

/* What was seen, and what is said of it; no words: nothing is. */
struct said { int32_t scope, peer_read; bool may_trace, seccomp; enum doctor_severity severity; const char *text, *remedy; };
static const struct said table[] = {
    {DOCTOR_UNKNOWN, 0, false, false, 0, NULL, NULL},
    {0, 0, false, true, 0, NULL, NULL},
    {1, 0, false, false, 0, NULL, NULL},                           /* what was tried counts */
    {DOCTOR_UNKNOWN, DOCTOR_UNKNOWN, false, true, 0, NULL, NULL},  /* another machine's files */
    {0, DOCTOR_UNKNOWN, false, false, 0, NULL, NULL},
    {1, DOCTOR_UNKNOWN, true, false, 0, NULL, NULL},
    {2, DOCTOR_UNKNOWN, true, false, 0, NULL, NULL},
    {1, DOCTOR_UNKNOWN, false, false, DOCTOR_WARNING, "ptrace_scope is 1: a process reads its descendants alone", "sysctl kernel.yama.ptrace_scope=0"},
    {1, EPERM, false, true, DOCTOR_WARNING, "ptrace_scope is 1:", "--cap-add SYS_PTRACE"},
    {2, EPERM, false, false, DOCTOR_WARNING, "ptrace_scope is 2: only who has CAP_SYS_PTRACE", "securityContext.capabilities"},
    {3, EPERM, true, false, DOCTOR_WARNING, "ptrace_scope is 3: nobody", "restart the host"},
    {0, EPERM, false, true, DOCTOR_WARNING, "not permitted; a seccomp filter", "docker: --cap-add SYS_PTRACE"},
    {1, ENOSYS, false, true, DOCTOR_WARNING, "not implemented; a seccomp filter", "a profile that lets the call through"},
    {1, EPERM, true, true, DOCTOR_WARNING, "not permitted; a seccomp filter", "a profile that lets the call through"},
    {DOCTOR_UNKNOWN, ENOSYS, true, false, DOCTOR_WARNING, "kernel was built without it", "CONFIG_CROSS_MEMORY_ATTACH"},
    {DOCTOR_UNKNOWN, EPERM, false, false, DOCTOR_WARNING, "neither Yama nor a seccomp filter", "deny_ptrace off"},
    {0, EACCES, true, false, DOCTOR_WARNING, "Permission denied; neither", "slower, not wrong"},
    {1, ETIMEDOUT, false, true, DOCTOR_ERROR, "gives no answer, or kills", "SCMP_ACT_ERRNO"},
};

static void says_what_forbids_it(void **state)
{
    static struct doctor_facts facts;
    static struct doctor_findings findings;
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct said *s = &table[i];
        facts.ptrace_scope = s->scope, facts.peer_read = s->peer_read;
        facts.may_trace = s->may_trace, facts.seccomp = s->seccomp;
        findings.n = 0;
        doctor_judge_reads(&facts, &findings);
        const struct doctor_finding *f = &findings.at[0];
        if (findings.n != (s->text != NULL)) fail_msg("row %zu: %d findings", i, findings.n);
        if (!s->text) continue;
        assert_string_equal(f->id, "peer-reads");
        assert_int_equal(f->severity, s->severity);
        if (!strstr(f->text, s->text)) fail_msg("row %zu: no \"%s\" in: %s", i, s->text, f->text);
        if (!strstr(f->remedy, s->remedy)) fail_msg("row %zu: no \"%s\" in: %s", i, s->remedy, f->remedy);
        assert_true(strlen(f->text) < sizeof f->text - 1 && strlen(f->remedy) < sizeof f->remedy - 1); /* not cut off */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tries_as_ranks_do),
        cmocka_unit_test(tries_between_siblings),
        cmocka_unit_test(comes_back),
        cmocka_unit_test(says_what_forbids_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
