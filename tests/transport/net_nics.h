/* net_nics.h - NICs that can be cut, removed and renamed: virtual cables in a network namespace of each case's own. */
#ifndef TEST_NET_NICS_H
#define TEST_NET_NICS_H

#include <sched.h>
#include <sys/wait.h>

#include "transport/net_fixture.h"

#include <cmocka.h>

enum { NO_ROOT = 77, N_NICS = 3 };

static inline void must(const char *command) { if (system(command) != 0) _exit(NO_ROOT); }

/* n0 .. n2 with 10.9.R.1/24, their cables' other ends, p0 .. p2, up. */
static inline void three_nics(void)
{
    if (unshare(CLONE_NEWNET) != 0) _exit(NO_ROOT);
    must("ip link set lo up && for r in 0 1 2; do ip link add n$r type veth peer name p$r && ip link set p$r up && "
         "ip link set n$r up && ip addr add 10.9.$r.1/24 dev n$r || exit 1; done 2>/dev/null");
}

/* The namespace ends with the process. */
static inline void in_a_child(void (*body)(const void *), const void *argument)
{
    pid_t child = fork();
    if (child == 0) {
        body(argument);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_ROOT) {
        print_message("needs root and veth\n");
        skip();
    }
    assert_int_equal(status, 0);
}

#endif
