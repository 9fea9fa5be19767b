/* Home NICs: the nearest to where a rank's data lies, dealt out evenly; from the machines of tests/machines, with NICs that
 * lanes use named as interfaces or by their place on the bus. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "topo/home.h"
#include "topo/xml.h"

enum { MOST_RANKS = 32 };

static void look(const char *machine, const char *nics, const char *buses, struct home_view *out)
{
    char path[256], names[HOME_NICS_MAX][HOME_NAME_BYTES], list[512], *rest = list;
    uint64_t bus[HOME_NICS_MAX];
    uint32_t n = 0;
    struct topo_graph *graph;
    snprintf(path, sizeof path, "tests/machines/%s.xml", machine);
    assert_int_equal(topo_xml_read_file(path, &graph), RAIL_OK);
    snprintf(list, sizeof list, "%s", nics);
    for (char *name; (name = strsep(&rest, " ")); n++) {
        snprintf(names[n], sizeof names[n], "%.15s", name);
        bus[n] = TOPO_NO_BUS;
    }
    snprintf(list, sizeof list, "%s", buses ? buses : "");
    rest = list;
    char *one;
    for (uint32_t i = 0; buses && i < n && (one = strsep(&rest, " ")); i++) assert_true(topo_bus_parse(one, &bus[i]));
    assert_int_equal(home_look(graph, n, (const char(*)[HOME_NAME_BYTES])names, bus, out), RAIL_OK);
    topo_graph_destroy(graph);
}

/* "0 0 1 *": a rank on NUMA 0, another, one on NUMA 1, one anywhere; a bus number is a GPU. */
static uint32_t places_of(const char *text, struct home_place *out)
{
    char list[512], *rest = list, *word;
    uint32_t n = 0;
    uint64_t bus;
    snprintf(list, sizeof list, "%s", text);
    while ((word = strsep(&rest, " "))) {
        if (word[0] == '*') out[n] = (struct home_place){.kind = HOME_ANYWHERE};
        else if (topo_bus_parse(word, &bus)) out[n] = home_gpu(bus);
        else out[n] = (struct home_place){.kind = HOME_NUMA, .id = (uint32_t)atoi(word)};
        n++;
    }
    return n;
}

/* "eth0:PHB eth1:PHB" */
static void deal(const struct home_view *view, const char *nics, const char *places, uint16_t usable, char *out,
                 size_t bytes)
{
    struct home_place place[MOST_RANKS];
    struct home home[MOST_RANKS];
    uint32_t n = places_of(places, place);
    assert_int_equal(home_deal(view, usable, n, place, home), RAIL_OK);
    out[0] = '\0';
    for (uint32_t i = 0; i < n; i++) {
        const char *why = home[i].why == HOME_FLOATS ? "floats" : "unknown";
        char list[512], *rest = list, *name = NULL;
        snprintf(list, sizeof list, "%s", nics);
        for (uint32_t k = 0; k <= home[i].nic; k++) name = strsep(&rest, " ");
        size_t used = strlen(out);
        snprintf(out + used, bytes - used, "%s%s:%s", i ? " " : "", name,
                 home[i].why == HOME_NEAREST ? topo_class_name((enum topo_class)home[i].class)
                 : home[i].why == HOME_IN_TURN ? "turn" : why);
    }
}

static void ranks_get_the_nearest_nics_evenly(void **state)
{
    (void)state;
    static const struct { const char *name, *machine, *nics, *ranks, *homes; } cases[] = {
        {"one per NIC", "cpu-only-2numa-4eth", "eth0 eth1 eth2 eth3", "0 0 1 1", "eth0:PHB eth1:PHB eth2:PHB eth3:PHB"},
        {"whatever the order of ranks", "cpu-only-2numa-4eth", "eth0 eth1 eth2 eth3", "1 0 1 0",
         "eth2:PHB eth0:PHB eth3:PHB eth1:PHB"},
        {"whatever the order of NICs", "cpu-only-2numa-4eth", "eth3 eth1 eth2 eth0", "0 0 1 1",
         "eth1:PHB eth0:PHB eth3:PHB eth2:PHB"},
        {"two share each", "cpu-only-2numa-4eth", "eth0 eth1 eth2 eth3", "0 0 0 0 1 1 1 1",
         "eth0:PHB eth0:PHB eth1:PHB eth1:PHB eth2:PHB eth2:PHB eth3:PHB eth3:PHB"},
        {"near before even", "cpu-only-2numa-4eth", "eth0 eth1 eth2 eth3", "0 0 0 0", "eth0:PHB eth0:PHB eth1:PHB eth1:PHB"},
        {"only NICs that lanes use", "cpu-only-2numa-4eth", "eth2 eth3", "0 0 1 1", "eth2:SYS eth2:SYS eth3:PHB eth3:PHB"},
        {"one is left on a side", "cpu-only-2numa-4eth", "eth0 eth2 eth3", "0 0 1 1", "eth0:PHB eth0:PHB eth2:PHB eth3:PHB"},
        {"a rank that may run anywhere evens out", "cpu-only-2numa-4eth", "eth0 eth1 eth2 eth3", "* 0 1 1",
         "eth0:floats eth1:PHB eth2:PHB eth3:PHB"},
        {"a NUMA node nobody described", "cpu-only-2numa-4eth", "eth0 eth1", "7 7", "eth0:unknown eth1:unknown"},
        {"an unplaced NIC is nobody's home", "cpu-only-2numa-4eth", "veth0 eth1 eth2", "0 0 1", "eth1:PHB eth1:PHB eth2:PHB"},
        {"no NIC has a place", "cpu-only-2numa-4eth", "veth0 veth1 veth2", "0 0 1 1", "veth0:turn veth1:turn veth2:turn veth0:turn"},
        {"no NIC at all", "cpu-only-2numa-4eth", "x", "0", "x:turn"},
        {"a GPU's is below its switch", "nvswitch-8gpu-8nic", "mlx5_0 mlx5_1 mlx5_2 mlx5_3",
         "12:00.0 13:00.0 52:00.0 53:00.0", "mlx5_0:PIX mlx5_1:PIX mlx5_2:PIX mlx5_3:PIX"},
        {"NUMA nodes without NICs", "amd-nps4-4gpu-2nic", "mlx5_0 mlx5_1", "0 1 2 3",
         "mlx5_0:SYS mlx5_0:PHB mlx5_1:SYS mlx5_1:PHB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct home_view view;
        char have[512];
        look(cases[i].machine, cases[i].nics, NULL, &view);
        deal(&view, cases[i].nics, cases[i].ranks, 0xffff, have, sizeof have);
        if (strcmp(have, cases[i].homes) != 0) fail_msg("%s: %s, not %s", cases[i].name, have, cases[i].homes);
    }
}

static void nics_are_known_by_their_place_where_names_differ(void **state)
{
    (void)state;
    struct home_view view;
    char have[512];
    look("nvswitch-8gpu-8nic", "ens1 ens2 ens3", "96:00.0 16:00.0 ff:00.0", &view);
    assert_int_equal(view.placed, 3);
    deal(&view, "ens1 ens2 ens3", "0 1", 0xffff, have, sizeof have);
    assert_string_equal(have, "ens2:PHB ens1:PHB");
}

/* Lanes do not use a NIC that no other host has a partner for: it is nobody's home. */
static void a_nic_without_a_partner_is_no_home(void **state)
{
    (void)state;
    static const struct { const char *nics, *ranks, *homes; uint16_t usable; } cases[] = {
        {"eth0 eth1 eth2 eth3", "0 0 1 1", "eth1:PHB eth1:PHB eth2:PHB eth3:PHB", 0xe},
        {"eth0 eth1 eth2 eth3", "0 0 1 1", "eth2:unknown eth2:unknown eth3:PHB eth3:PHB", 0xc},
        {"veth0 veth1 veth2", "0 0 1 1", "veth0:turn veth2:turn veth0:turn veth2:turn", 0x5},
        {"veth0 eth1", "0 0", "veth0:turn veth0:turn", 0x1}, /* the one with a place has no partner */
        {"eth0 eth1", "0 0", "eth0:PHB eth1:PHB", 0},        /* nobody has one: as good as all */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct home_view view;
        char have[512];
        look("cpu-only-2numa-4eth", cases[i].nics, NULL, &view);
        deal(&view, cases[i].nics, cases[i].ranks, cases[i].usable, have, sizeof have);
        if (strcmp(have, cases[i].homes) != 0) fail_msg("%zu: %s, not %s", i, have, cases[i].homes);
    }
}

/* It comes from another process: nothing in it may lead beyond an array. */
static void any_bytes_will_do_as_a_view(void **state)
{
    (void)state;
    struct home_place places[5];
    struct home homes[5];
    unsigned seed = 20261125;
    for (int round = 0; round < 20000; round++) {
        struct home_view view;
        for (size_t i = 0; i < sizeof view; i++) ((unsigned char *)&view)[i] = (unsigned char)(rand_r(&seed) >> 7);
        if (round % 2) view.sight = HOME_SEEN;
        for (size_t i = 0; i < sizeof places; i++) ((unsigned char *)places)[i] = (unsigned char)(rand_r(&seed) >> 7);
        if (round % 3) places[0] = (struct home_place){.kind = view.at[3].kind, .id = view.at[3].id};
        assert_int_equal(home_deal(&view, (uint16_t)rand_r(&seed), 5, places, homes), RAIL_OK);
        char text[128], where[48];
        for (int i = 0; i < 5; i++) {
            assert_true(homes[i].nic < HOME_NICS_MAX && (homes[i].nic == 0 || homes[i].nic < view.n_nics));
            assert_true(strlen(home_why_text(&view, &homes[i], text)) < sizeof text);
            assert_true(strlen(home_place_text(places[i], where)) < sizeof where);
        }
    }
}

static char root[] = "/tmp/railccl-test-home-XXXXXX";

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

static void the_affinity_mask_says_where_a_rank_is(void **state)
{
    (void)state;
    cpu_set_t before, one;
    int cpu = 0;
    char list[64];
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(cpu, &before)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_non_null(mkdtemp(root));
    struct home_place here = home_here(root); /* no NUMA nodes: one, number 0, is assumed */
    assert_true(here.kind == HOME_NUMA && here.id == 0);
    put("/sys/devices/system/node/node0/cpulist", "4000-4095\n");
    snprintf(list, sizeof list, "3000,%d-%d\n", cpu, cpu);
    put("/sys/devices/system/node/node3/cpulist", list);
    put("/sys/devices/system/node/node4/cpulist", "\n"); /* memory alone */
    here = home_here(root);
    assert_true(here.kind == HOME_NUMA && here.id == 3);
    put("/sys/devices/system/node/node5/cpulist", "0-8191\n"); /* now it may run on two */
    assert_int_equal(home_here(root).kind, HOME_ANYWHERE);
    put("/sys/devices/system/node/node5/cpulist", "nonsense,7-\n");
    assert_int_equal(home_here(root).kind, HOME_NUMA);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void a_bond_is_where_its_first_member_is(void **state)
{
    (void)state;
    char command[700];
    put("/sys/devices/pci0000:00/0000:00:01.0/0000:05:00.0/net/ens1/mtu", "9000\n");
    put("/sys/class/net/.keep", "");
    put("/sys/devices/virtual/net/bond0/mtu", "9000\n");
    put("/sys/devices/virtual/net/veth0/mtu", "9000\n");
    snprintf(command, sizeof command,
             "cd %s/sys && ln -s ../.. devices/pci0000:00/0000:00:01.0/0000:05:00.0/net/ens1/device && "
             "ln -s ../../devices/pci0000:00/0000:00:01.0/0000:05:00.0/net/ens1 class/net/ens1 && "
             "ln -s ../../devices/virtual/net/bond0 class/net/bond0 && ln -s ../../devices/virtual/net/veth0 class/net/veth0 && "
             "ln -s ../../../pci0000:00/0000:00:01.0/0000:05:00.0/net/ens1 devices/virtual/net/bond0/lower_ens1", root);
    assert_int_equal(system(command), 0);
    uint64_t bus;
    assert_true(topo_bus_parse("0000:05:00.0", &bus));
    assert_true(home_bus_of(root, "ens1") == bus);
    assert_true(home_bus_of(root, "bond0") == bus);
    assert_true(home_bus_of(root, "veth0") == TOPO_NO_BUS);
    assert_true(home_bus_of(root, "none") == TOPO_NO_BUS);
    snprintf(command, sizeof command, "rm -rf %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_get_the_nearest_nics_evenly),
        cmocka_unit_test(nics_are_known_by_their_place_where_names_differ),
        cmocka_unit_test(a_nic_without_a_partner_is_no_home),
        cmocka_unit_test(any_bytes_will_do_as_a_view),
        cmocka_unit_test(the_affinity_mask_says_where_a_rank_is),
        cmocka_unit_test(a_bond_is_where_its_first_member_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
