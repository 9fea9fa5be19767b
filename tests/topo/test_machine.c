/* The machine's facts: interface filters as NCCL reads them, cores under control groups given as files, host keys. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/params.h"
#include "topo/machine.h"

static void set(const char *name, const char *value)
{
    if (value) setenv(name, value, 1);
    else unsetenv(name);
    rail_params_reload();
}

static void filters_are_prefixes_exact_names_and_exclusions(void **state)
{
    (void)state;
    static const struct { const char *filter, *name; bool admitted; int place; } cases[] = {
        {"eth", "eth0", true, 0},          {"eth", "ib0", false, 0},        {"eth,ib", "ib0", true, 1},
        {"eth0", "eth01", true, 0},        {"=eth0", "eth01", false, 0},    {"=eth0", "eth0", true, 0},
        {"=eth1,eth0", "eth0", true, 1},   {"^eth", "eth0", false, 0},      {"^eth", "ib0", true, 0},
        {"^eth,ib", "ib7", false, 0},      {"^=eth0", "eth01", true, 0},    {"^=eth0", "eth0", false, 0},
        {"", "eth0", false, 0},            {",,eth", "eth0", true, 2},      {" eth , ib ", "ib0", true, 1},
        {"^", "eth0", true, 0},            {"=", "eth0", false, 0},         {"eth0:1", "eth0", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int place = -1;
        bool admitted = machine_interface_admitted(cases[i].filter, cases[i].name, &place);
        if (admitted != cases[i].admitted || (admitted && place != cases[i].place))
            fail_msg("\"%s\" on %s: %d at %d", cases[i].filter, cases[i].name, admitted, place);
    }
}

static void loopback_is_used_only_when_asked_for_by_name(void **state)
{
    (void)state;
    struct machine_interface found[16];
    set("NCCL_SOCKET_IFNAME", "lo");
    int n = machine_interfaces(found, 16);
    assert_true(n >= 1);
    for (int i = 0; i < n; i++) assert_true(found[i].loopback && found[i].up && strcmp(found[i].name, "lo") == 0);
    set("NCCL_SOCKET_IFNAME", NULL);
    n = machine_interfaces(found, 16);
    assert_true(n >= 1);
    bool any_other = false;
    for (int i = 0; i < n && i < 16; i++) any_other = any_other || !found[i].loopback;
    for (int i = 0; i < n && i < 16; i++) assert_true(found[i].up && found[i].loopback == !any_other);
}

static void the_family_limits_the_addresses(void **state)
{
    (void)state;
    static const struct { const char *text; int family; } cases[] = {{"AF_INET", AF_INET}, {"AF_INET6", AF_INET6},
                                                                     {"af_inet6", AF_INET6}};
    struct machine_interface found[16];
    for (int c = 0; c < 3; c++) {
        set("NCCL_SOCKET_FAMILY", cases[c].text);
        int n = machine_interfaces(found, 16);
        for (int i = 0; i < n && i < 16; i++) assert_int_equal(found[i].address.ss_family, cases[c].family);
    }
    set("NCCL_SOCKET_FAMILY", NULL);
}

static void each_interface_and_family_appears_once_ipv4_first(void **state)
{
    (void)state;
    struct machine_interface found[16];
    int n = machine_interfaces(found, 16);
    for (int i = 0; i < n && i < 16; i++)
        for (int j = 0; j < i; j++) {
            if (strcmp(found[i].name, found[j].name) != 0) continue;
            assert_int_not_equal(found[i].address.ss_family, found[j].address.ss_family);
            assert_int_equal(found[j].address.ss_family, AF_INET);
        }
}

static void fewer_places_than_interfaces_still_count_all(void **state)
{
    (void)state;
    struct machine_interface all[16], one[2];
    memset(one, 0x5A, sizeof one);
    int n = machine_interfaces(all, 16);
    assert_int_equal(machine_interfaces(one, 1), n);
    assert_string_equal(one[0].name, all[0].name);
    assert_int_equal(*(unsigned char *)&one[1], 0x5A);
    assert_int_equal(machine_interfaces(NULL, 0), n);
}

static void without_any_interface_the_error_names_variable_and_choices(void **state)
{
    (void)state;
    set("NCCL_SOCKET_IFNAME", "=nosuch");
    assert_int_equal(machine_interfaces(NULL, 0), 0);
    assert_non_null(strstr(rail_last_error(), "NCCL_SOCKET_IFNAME=\"=nosuch\""));
    assert_non_null(strstr(rail_last_error(), "lo 127.0.0.1"));
    set("NCCL_SOCKET_IFNAME", NULL);
}

static void a_namespace_of_its_own_is_another_host_and_has_only_loopback(void **state)
{
    (void)state;
    uint64_t here = machine_host_key();
    assert_int_equal(here, machine_host_key());
    pid_t child = fork();
    if (child == 0) {
        if (unshare(CLONE_NEWNET) != 0) _exit(77);
        struct machine_interface found[4];
        if (machine_host_key() == here) _exit(1);
        if (machine_interfaces(found, 4) != 0) _exit(2); /* lo is down there */
        if (!strstr(rail_last_error(), "(down)")) _exit(3);
        if (system("ip link set lo up 2>/dev/null") != 0) _exit(77);
        if (machine_interfaces(found, 4) < 1 || !found[0].loopback) _exit(4);
        set("NCCL_SOCKET_IFNAME", "^lo"); /* excluded by name: not even then */
        if (machine_interfaces(found, 4) != 0) _exit(5);
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("needs root (unshare)\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void a_given_host_id_decides(void **state)
{
    (void)state;
    uint64_t real = machine_host_key();
    set("NCCL_HOSTID", "a");
    uint64_t a = machine_host_key();
    set("NCCL_HOSTID", "b");
    uint64_t b = machine_host_key();
    set("NCCL_HOSTID", "a");
    assert_int_equal(machine_host_key(), a);
    set("NCCL_HOSTID", NULL);
    assert_true(a != b && a != real && b != real);
    assert_int_equal(machine_host_key(), real);
    assert_true(machine_host_name()[0] != '\0');
}

static char root[] = "/tmp/railccl-test-machine-XXXXXX";

static void put(const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *slash = strchr(whole + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(whole, 0700) != 0 && errno != EEXIST) abort();
        *slash = '/';
    }
    FILE *f = fopen(whole, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

static void clear(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/proc %s/sys", root, root);
    if (system(command) != 0) abort();
}

static void cgroup_quotas_limit_the_cores_rounded_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(machine_cores_under(root, 8), 8); /* no control groups at all */

    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(machine_cores_under(root, 8), 8);
    put("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    assert_int_equal(machine_cores_under(root, 8), 3);
    assert_int_equal(machine_cores_under(root, 2), 2);
    put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n"); /* a group above limits, too */
    assert_int_equal(machine_cores_under(root, 8), 1);
    put("/sys/fs/cgroup/a/cpu.max", "1000 100000\n");
    assert_int_equal(machine_cores_under(root, 8), 1); /* never none */
    put("/sys/fs/cgroup/a/cpu.max", "nonsense\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "-5 0\n");
    assert_int_equal(machine_cores_under(root, 8), 8);

    clear();
    put("/proc/self/cgroup", "0::/\n"); /* inside a container the own group is the root of what is seen */
    put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    assert_int_equal(machine_cores_under(root, 8), 4);

    clear();
    put("/proc/self/cgroup", "12:memory:/x\n4:cpu,cpuacct:/docker/1\n1:cpuset:/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
    assert_int_equal(machine_cores_under(root, 8), 8);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "510000\n");
    assert_int_equal(machine_cores_under(root, 8), 6);

    clear();
    put("/proc/self/cgroup", "12:memory:/x\n7:cpuset:/y\n"); /* groups that do not limit cpu time are not read */
    put("/sys/fs/cgroup/x/cpu.max", "100000 100000\n");
    put("/sys/fs/cgroup/y/cpu.max", "100000 100000\n");
    assert_int_equal(machine_cores_under(root, 8), 8);
    clear();
    rmdir(root);
}

static void the_affinity_mask_limits_the_cores(void **state)
{
    (void)state;
    assert_true(machine_cores() >= 1 && machine_cores() <= sysconf(_SC_NPROCESSORS_CONF));
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(machine_cores(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_are_prefixes_exact_names_and_exclusions),
        cmocka_unit_test(loopback_is_used_only_when_asked_for_by_name),
        cmocka_unit_test(the_family_limits_the_addresses),
        cmocka_unit_test(each_interface_and_family_appears_once_ipv4_first),
        cmocka_unit_test(fewer_places_than_interfaces_still_count_all),
        cmocka_unit_test(without_any_interface_the_error_names_variable_and_choices),
        cmocka_unit_test(a_namespace_of_its_own_is_another_host_and_has_only_loopback),
        cmocka_unit_test(a_given_host_id_decides),
        cmocka_unit_test(cgroup_quotas_limit_the_cores_rounded_up),
        cmocka_unit_test(the_affinity_mask_limits_the_cores),
    };
    set("NCCL_SOCKET_IFNAME", NULL);
    set("NCCL_SOCKET_FAMILY", NULL);
    set("NCCL_HOSTID", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
