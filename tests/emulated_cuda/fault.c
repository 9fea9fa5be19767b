/* fault.c - one line before the process dies of a wild access: whose kernel, or which host code, touched what.
 *
 * The handler says its line for addresses of devices only, puts back what was there before it, and returns: the access
 * faults again, and whoever handled such signals before (a sanitizer, nobody) goes on as if the emulator were not
 * there. */
#include "emulated_cuda/state.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Not allocated at first use, which could be within the handler. */
static _Thread_local const struct op *running __attribute__((tls_model("initial-exec")));
static _Thread_local uint32_t running_block __attribute__((tls_model("initial-exec")));
static struct sigaction before;

void fault_kernel(const struct op *op, uint32_t block)
{
    running = op;
    running_block = block;
}

static void handler(int number, siginfo_t *info, void *machine)
{
    uintptr_t at = (uintptr_t)info->si_addr, seen = at - (uintptr_t)space.shift;
    char line[320];
    int n = 0;
    (void)machine;
    if (running != NULL && (in_space(at) || in_space(seen)))
        n = snprintf(line, sizeof line,
                     "emulated cuda[%d]: kernel %s, block %u of %u, touches %#zx: %s\n", (int)getpid(),
                     running->work.function->name, running_block, running->work.n_blocks, in_space(at) ? at : seen,
                     in_space(at) ? "an address of a device, not through emulated_real()"
                                  : "no memory is there, or none that it may use");
    else if (in_space(at))
        n = snprintf(line, sizeof line, "emulated cuda[%d]: the host touches memory of a device at %#zx\n",
                     (int)getpid(), at);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        _exit(128 + number);
    sigaction(number, &before, NULL);
}

void fault_watch(void)
{
    struct sigaction ours = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&ours.sa_mask);
    sigaction(SIGSEGV, &ours, &before);
}
