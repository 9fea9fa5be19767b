/* doctor_judge_reads.c - what keeps ranks of this host from reading one another's memory: Yama, a seccomp filter, the kernel,
 * or who else; and what to do about it. */
#include <errno.h>
#include <string.h>

#include "doctor.h"

#define OR_LEAVE "; or leave it: what is copied twice is slower, not wrong"
#define CAPABILITY "docker: --cap-add SYS_PTRACE; Kubernetes: SYS_PTRACE in securityContext.capabilities.add"

/* NULL: Yama lets one rank read another, or is not there. */
static const char *yama_forbids(const struct doctor_facts *f)
{
    if (f->ptrace_scope >= 3) return "kernel.yama.ptrace_scope is 3: nobody reads another process";
    if (f->ptrace_scope <= 0 || f->may_trace) return NULL;
    return f->ptrace_scope == 1 ? "kernel.yama.ptrace_scope is 1: a process reads its descendants alone, and ranks are siblings"
                                : "kernel.yama.ptrace_scope is 2: only who has CAP_SYS_PTRACE reads another process";
}

static const char *yama_remedy(const struct doctor_facts *f)
{
    return f->ptrace_scope >= 3
               ? "kernel.yama.ptrace_scope=0 in /etc/sysctl.d, and restart the host: 3 cannot be taken back" OR_LEAVE
               : "`sysctl kernel.yama.ptrace_scope=0` on the host, for good in /etc/sysctl.d; or give ranks the "
                 "capability (" CAPABILITY ")" OR_LEAVE;
}

static void say_copied(struct doctor_findings *out, const char *why, const char *remedy)
{
    doctor_say(out, DOCTOR_WARNING, "peer-reads", "", remedy,
               "ranks of this host cannot read one another's buffers: messages from 8 KiB on, and blocks of collectives "
               "from 32 KiB on, are copied twice, through shared memory (%s)",
               why);
}

/* Yama refuses with EPERM alone; what else does is not told by the call. */
static void say_refused(const struct doctor_facts *f, struct doctor_findings *out)
{
    char why[120];
    bool missing = f->peer_read == ENOSYS && !f->seccomp;
    snprintf(why, sizeof why, "process_vm_readv: %s; %s", strerror(f->peer_read),
             f->seccomp ? "a seccomp filter is in force"
             : missing  ? "this kernel was built without it"
                        : "neither Yama nor a seccomp filter does that");
    say_copied(out, why,
               f->seccomp ? "a profile that lets the call through, as theirs do with the capability: " CAPABILITY OR_LEAVE
               : missing  ? "a kernel with CONFIG_CROSS_MEMORY_ATTACH" OR_LEAVE
                          : "look at the security module (SELinux: `setsebool deny_ptrace off`; AppArmor: a ptrace rule); "
                            "in a container: " CAPABILITY OR_LEAVE);
}

void doctor_judge_reads(const struct doctor_facts *facts, struct doctor_findings *out)
{
    const char *yama = yama_forbids(facts);
    if (facts->peer_read == 0) return;
    if (facts->peer_read == ETIMEDOUT)
        doctor_say(out, DOCTOR_ERROR, "peer-reads", "",
                   "let process_vm_readv through, or have it refused by EPERM (seccomp profile: SCMP_ACT_ERRNO; systemd: "
                   "SystemCallErrorNumber=EPERM)",
                   "process_vm_readv gives no answer, or kills who calls it: every rank calls it when it starts");
    else if (yama && (facts->peer_read == EPERM || facts->peer_read == DOCTOR_UNKNOWN))
        say_copied(out, yama, yama_remedy(facts));
    else if (facts->peer_read != DOCTOR_UNKNOWN)
        say_refused(facts, out);
}
