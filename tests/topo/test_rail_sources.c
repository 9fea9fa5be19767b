/* What NCCL_IB_HCA and LLDP say of a NIC's rail: read as NCCL and lldpd write it, and nonsense is refused with its place. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuzz/fuzz_hca.c"
#define LLVMFuzzerTestOneInput fuzz_lldp
#include "fuzz/fuzz_lldp.c"
#undef LLVMFuzzerTestOneInput

/* ---- NCCL_IB_HCA ---- */

/* "rail/plane" of a device's port; "-" when nothing is said. */
static void expect_label(const char *text, const char *device, int port, const char *wanted)
{
    struct hca_list list;
    char got[60];
    if (hca_parse(text, &list) != RAIL_OK) fail_msg("\"%s\": %s", text, rail_own_error());
    struct rail_label label = hca_label(&list, device, port);
    snprintf(got, sizeof got, "%s%s%s", label.rail[0] ? label.rail : "-", label.plane[0] ? "/" : "", label.plane);
    if (strcmp(got, wanted) != 0) fail_msg("\"%s\" says %s of %s:%d, not %s", text, got, device, port, wanted);
}

static void a_list_means_what_it_means_to_nccl(void **state)
{
    (void)state;
    static const struct { const char *text, *device; int port; const char *label; } cases[] = {
        {"", "mlx5_0", 1, "-"},
        {"mlx5", "mlx5_0", 1, "-"},
        {"mlx5_0:1:3", "mlx5_0", 1, "3"},
        {"mlx5_0:1:3", "mlx5_0", 2, "-"},         /* another port */
        {"mlx5_0::3", "mlx5_0", 2, "3"},          /* any port */
        {"mlx5_0:-1:3", "mlx5_0", 2, "3"},
        {"mlx5_1:1:3", "mlx5_12", 1, "3"},        /* a prefix */
        {"=mlx5_1:1:3", "mlx5_12", 1, "-"},       /* the whole name */
        {"=mlx5_1:1:3,mlx5_12:1:4", "mlx5_12", 1, "4"},
        {"mlx5_1:1:3,mlx5_12:1:4", "mlx5_12", 1, "3"}, /* the first that names it */
        {"mlx5_12:1,mlx5_1:1:3", "mlx5_12", 1, "-"},
        {"mlx5_0:1:3:0", "mlx5_0", 1, "3/0"},
        {"mlx5_0:1:3:1,", "mlx5_0", 1, "3/1"},
        {",,mlx5_0:1:0,,", "mlx5_0", 1, "0"},     /* NCCL skips empty items */
        {"mlx5_0:1:-1:-1", "mlx5_0", 1, "-"},
        {"^mlx5_0", "mlx5_1", 1, "-"},
        {"^=mlx5_0:1", "mlx5_1", 1, "-"},
        {"mlx5_0:1:007", "mlx5_0", 1, "7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_label(cases[i].text, cases[i].device, cases[i].port, cases[i].label);
}

static void planes_are_other_rails(void **state)
{
    (void)state;
    struct rail_label a = {.rail = "3"}, b = {.rail = "3", .plane = "0"}, c = {.rail = "3", .plane = "1"}, none = {{0}, {0}};
    assert_true(rails_label_key(&a) != rails_label_key(&b) && rails_label_key(&b) != rails_label_key(&c));
    assert_int_equal(rails_label_key(&none), 0);
}

static void nonsense_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct { const char *text, *error; } cases[] = {
        {"mlx5_0:x", "character 8, \"x\": a port is a number"},
        {"=mlx5_0:1:two", "character 11, \"two\": a rail is a number"},
        {"mlx5_0:1:2,mlx5_1:1:1:-2", "character 23, \"-2\": a plane is a number"},
        {"mlx5_0:1:2:3:4", "character 14, \"4\": a fifth field"},
        {":1:2", "character 1, \"\": a device's name"},
        {"^mlx5_0:1:2", "character 11, \"2\": a rail for what ^ excludes"},
        {"mlx5_0:1::2", "a plane without a rail"},
        {"mlx5_0:1:1234567", "character 10, \"1234567\": a rail is a number from 0 to 999999"},
        {"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6,7", "character 65, \"7\": more than 32 devices"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hca_list list;
        assert_int_equal(hca_parse(cases[i].text, &list), RAIL_E_ARGUMENT);
        if (!strstr(rail_own_error(), cases[i].error)) fail_msg("\"%s\": %s", cases[i].text, rail_own_error());
        assert_non_null(strstr(rail_own_error(), "write [^][=]hca[:port[:rail[:plane]]],..."));
    }
}

static char root[] = "/tmp/rail-sources-XXXXXX";

static void lay(const char *path, const char *text)
{
    char full[400], command[500];
    snprintf(full, sizeof full, "%s%s", root, path);
    snprintf(command, sizeof command, "mkdir -p \"$(dirname %s)\"", full);
    assert_int_equal(system(command), 0);
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_root(void **state)
{
    (void)state;
    if (!mkdtemp(root)) return -1;
    lay("/sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0", "eth0\n");
    lay("/sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/1", "");
    lay("/sys/class/infiniband/mlx5_1/ports/1/state", "4: ACTIVE\n"); /* an old kernel: no gid_attrs, two ports */
    lay("/sys/class/infiniband/mlx5_1/ports/2/state", "4: ACTIVE\n");
    lay("/sys/class/infiniband/mlx5_1/device/net/eth1/dev_port", "0\n");
    lay("/sys/class/infiniband/mlx5_1/device/net/eth2/dev_port", "1\n");
    lay("/sys/class/infiniband/mlx5_bond_0/ports/1/gid_attrs/ndevs/0", "bond0\n");
    lay("/sys/class/infiniband/mlx5_3/ports/1/gid_attrs/ndevs/0", "eth9\n");
    lay("/sys/class/infiniband/mlx5_4/ports/1/gid_attrs/ndevs/0", "eth9\n");
    lay("/sys/class/infiniband/rxe0/ports/1/state", "4: ACTIVE\n");
    lay("/sys/class/infiniband/rxe0/parent", "soft0\n");
    lay("/sys/class/net/bond0/lower_p0/x", "");
    lay("/sys/class/net/bond0/lower_p1/x", "");
    lay("/sys/class/net/bond0.7/lower_bond0/x", "");
    lay("/sys/class/net/bond1/lower_p2/x", "");
    lay("/sys/class/net/bond1/lower_p3/x", "");
    lay("/sys/class/net/bond2/lower_p4/x", "");
    lay("/sys/class/net/bond3/lower_p5/x", "");
    lay("/sys/class/net/bond3/lower_p6/x", "");
    return 0;
}

static int remove_root(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static void an_interface_is_found_below_its_device(void **state)
{
    (void)state;
    static const struct { const char *interface, *hca, *rail, *other; } cases[] = {
        {"eth0", "mlx5_0:1", "0", ""},  {"eth1", "mlx5_1:1", "1", ""},      {"eth2", "mlx5_1:2", "2", ""},
        {"eth3", "", "", ""},           {"bond0", "mlx5_bond_0:1", "5", ""}, {"eth9", "mlx5_3:1", "7", "8"},
    };
    struct hca_list list;
    assert_int_equal(hca_parse("=mlx5_0:1:0,mlx5_1:1:1,mlx5_1:2:2,mlx5_bond_0:1:5,mlx5_3:1:7,mlx5_4:1:8", &list), RAIL_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char hca[HCA_NAME_BYTES + 8];
        struct rail_label other, label = hca_label_of_interface(&list, root, cases[i].interface, hca, &other);
        assert_string_equal(hca, cases[i].hca);
        assert_string_equal(label.rail, cases[i].rail);
        assert_string_equal(other.rail, cases[i].other);
    }
}

/* Which device carries lanes over RDMA. rxe0 is Soft-RoCE: it names its interface itself. */
static void an_interface_uses_a_device_that_the_list_admits(void **state)
{
    (void)state;
    static const struct { const char *list, *interface, *device; int port; bool refused; } cases[] = {
        {"", "eth0", "mlx5_0", 1, false},          {"", "eth2", "mlx5_1", 2, false},  {"", "eth3", "", 0, false},
        {"", "soft0", "rxe0", 1, false},           {"", "eth9", "mlx5_3", 1, false},  {"mlx5", "soft0", "", 0, true},
        {"^mlx5_3", "eth9", "mlx5_4", 1, false},   {"=rxe0", "soft0", "rxe0", 1, false},
        {"^=rxe0", "soft0", "", 0, true},          {"mlx5_1:1", "eth2", "", 0, true}, {"mlx5_1:2", "eth2", "mlx5_1", 2, false},
        {"=mlx5", "eth0", "", 0, false},           {"^mlx5_1:2", "eth1", "mlx5_1", 1, false},
        {"mlx5_0:1:3", "eth0", "mlx5_0", 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hca_list list;
        char device[HCA_NAME_BYTES];
        int port = -1;
        bool refused;
        assert_int_equal(hca_parse(cases[i].list, &list), RAIL_OK);
        bool found = hca_of_interface(&list, root, cases[i].interface, device, &port, &refused);
        if (strcmp(device, cases[i].device) != 0 || (found && port != cases[i].port) || refused != cases[i].refused)
            fail_msg("\"%s\" for %s: %s:%d, refused %d", cases[i].list, cases[i].interface, device, port, refused);
        assert_int_equal(found, device[0] != '\0');
    }
}

/* A GID table has up to 1024 entries: 16 devices, asked for 4 interfaces by 4 ranks, took 12 s. The entry is a pipe here, and
 * what is in it must still be there. */
static void tables_of_devices_without_a_rail_are_not_read(void **state)
{
    (void)state;
    static const struct { const char *text, *hca; int left; } cases[] = {
        {"=mlx5_9", "", 5}, {"mlx5", "", 5}, {"^mlx5_9", "", 5}, {"=mlx5_0:1:0,=mlx5_1", "", 5}, {"=mlx5_9:1:0", "mlx5_9:1", 0},
    };
    char entry[300], hca[HCA_NAME_BYTES + 8];
    lay("/sys/class/infiniband/mlx5_9/ports/1/gid_attrs/ndevs/1", "");
    snprintf(entry, sizeof entry, "%s/sys/class/infiniband/mlx5_9/ports/1/gid_attrs/ndevs/0", root);
    assert_int_equal(mkfifo(entry, 0600), 0);
    int pipe = open(entry, O_RDWR | O_NONBLOCK), left;
    assert_true(pipe >= 0);
    assert_int_equal(write(pipe, "eth8\n", 5), 5);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hca_list list;
        struct rail_label other;
        assert_int_equal(hca_parse(cases[i].text, &list), RAIL_OK);
        hca_label_of_interface(&list, root, "eth8", hca, &other);
        assert_string_equal(hca, cases[i].hca);
        assert_int_equal(ioctl(pipe, FIONREAD, &left), 0);
        assert_int_equal(left, cases[i].left);
    }
    close(pipe);
    unlink(entry);
}

/* ---- LLDP ---- */

static const char json0[] =
    "{\"lldp\":[{\"interface\":[{\"name\":\"eth0\",\"via\":\"LLDP\",\"rid\":\"1\",\"chassis\":[{\"id\":[{\"type\":\"mac\","
    "\"value\":\"00:1C:73:aa:bb:01\"}],\"name\":[{\"value\":\"leaf0\"}],\"capability\":[{\"type\":\"Bridge\",\"enabled\":true},"
    "{\"type\":\"Router\",\"enabled\":false}]}],\"port\":[{\"id\":[{\"type\":\"ifname\",\"value\":\"Ethernet7\"}]}]},"
    "{\"name\":\"eth1\",\"chassis\":[{\"id\":[{\"type\":\"mac\",\"value\":\"00:1c:73:aa:bb:02\"}],"
    "\"capability\":[{\"type\":\"Station\",\"enabled\":true}]}]}]}]}";
static const char json[] =
    "{\"lldp\":{\"interface\":[{\"eth0\":{\"via\":\"LLDP\",\"chassis\":{\"leaf0\":{\"id\":{\"type\":\"mac\",\"value\":"
    "\"00:1c:73:aa:bb:01\"},\"capability\":{\"type\":\"Bridge\",\"enabled\":true}}},\"port\":{\"id\":{\"type\":\"ifname\","
    "\"value\":\"Ethernet7\"}}}},{\"eth1\":{\"chassis\":{\"id\":{\"type\":\"local\",\"value\":\"x\"},"
    "\"capability\":{\"type\":\"Station\",\"enabled\":true}}}}]}}";
static const char one[] = "{\"lldp\":{\"interface\":{\"eth0\":{\"chassis\":{\"leaf0\":{\"id\":{\"type\":\"mac\",\"value\":"
                          "\"00:1c:73:aa:bb:01\"}}},\"port\":{\"id\":{\"type\":\"ifname\",\"value\":\"Ethernet7\"}}}}}}";

/* A frame behind its length, as systemd-networkd keeps it. */
static size_t frame(uint8_t *out)
{
    static const uint8_t body[] = {
        0x01, 0x80, 0xc2, 0, 0, 0x0e, 2, 2, 2, 2, 2, 2, 0x88, 0xcc,
        1 << 1, 7, 4, 0x00, 0x1c, 0x73, 0xaa, 0xbb, 0x01,                      /* chassis: mac */
        2 << 1, 10, 5, 'E', 't', 'h', 'e', 'r', 'n', 'e', 't', '7',            /* port: name */
        3 << 1, 2, 0, 120, 5 << 1, 5, 'l', 'e', 'a', 'f', '0',                 /* time to live, system name */
        7 << 1, 4, 0, 0x14, 0, 0x04, 0, 0,                                     /* can bridge and route; bridges; end */
    };
    memset(out, 0, 8);
    out[0] = sizeof body;
    memcpy(out + 8, body, sizeof body);
    return 8 + sizeof body;
}

static void leaf0_is_heard(const struct lldp_table *t)
{
    bool several;
    const struct lldp_neighbour *n = lldp_switch_of(t, "eth0", &several);
    assert_non_null(n);
    assert_string_equal(n->chassis, "mac 00:1c:73:aa:bb:01");
    assert_string_equal(n->name, "leaf0");
    assert_string_equal(n->port, "Ethernet7");
    assert_null(lldp_switch_of(t, "eth1", &several)); /* a host, no switch */
    assert_null(lldp_switch_of(t, "eth", &several));
}

static void all_daemons_tell_of_one_switch_alike(void **state)
{
    (void)state;
    static const char *const texts[] = {json0, json, one};
    uint64_t keys[4];
    for (int i = 0; i < 4; i++) {
        struct lldp_table t = {.n = 0};
        uint8_t frames[200];
        enum rail_result r = i < 3 ? lldp_read_json(texts[i], strlen(texts[i]), "lldpctl", &t)
                                   : lldp_read_frames(frames, frame(frames), "networkd", "eth0", &t);
        if (r != RAIL_OK) fail_msg("%s", rail_own_error());
        leaf0_is_heard(&t);
        keys[i] = lldp_key(&t.at[0]);
        assert_true(keys[i] == keys[0]);
    }
}

/* As mlx5 ports bonded over two leaves, a VLAN on that, and a bond on one leaf. */
static void a_bond_hangs_where_its_ports_hang(void **state)
{
    (void)state;
    static const struct { const char *interface, *name; } cases[] = {
        {"p0", "leaf0"}, {"bond0", "leaf0+leaf1"}, {"bond0.7", "leaf0+leaf1"}, {"bond1", "leaf0"}, {"bond2", ""}, {"none", ""},
        {"bond3", "leaf1+leaf0"},
    };
    static const char *const heard[][2] = {{"p0", "leaf0"}, {"p1", "leaf1"}, {"p2", "leaf0"}, {"p3", "leaf0"}, {"p5", "leaf1"},
                                           {"p6", "leaf0"}};
    struct lldp_table t = {.n = 0};
    uint64_t keys[7];
    for (size_t i = 0; i < sizeof heard / sizeof *heard; i++) {
        struct lldp_neighbour *n = &t.at[t.n++];
        memset(n, 0, sizeof *n);
        snprintf(n->interface, sizeof n->interface, "%s", heard[i][0]);
        snprintf(n->name, sizeof n->name, "%s", heard[i][1]);
        snprintf(n->chassis, sizeof n->chassis, "local %s", heard[i][1]);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lldp_leaf leaf;
        lldp_leaf_of(&t, root, cases[i].interface, &leaf);
        if (strcmp(leaf.name, cases[i].name) != 0) fail_msg("%s hangs on %s", cases[i].interface, leaf.name);
        assert_int_equal(leaf.key != 0, leaf.name[0] != 0);
        keys[i] = leaf.key;
    }
    assert_true(keys[1] == keys[2] && keys[1] == keys[6] && keys[0] == keys[3] && keys[0] != keys[1]);
}

static void two_switches_on_one_interface_say_nothing(void **state)
{
    (void)state;
    struct lldp_table t = {.n = 0};
    bool several;
    uint8_t frames[400];
    size_t n = frame(frames);
    memcpy(frames + n, frames, n);
    assert_int_equal(lldp_read_frames(frames, 2 * n, "networkd", "eth0", &t), RAIL_OK);
    assert_non_null(lldp_switch_of(&t, "eth0", &several)); /* the same one twice */
    assert_false(several);
    frames[n + 8 + 14 + 3 + 5] = 2;
    assert_int_equal(lldp_read_frames(frames, 2 * n, "networkd", "eth0", &t), RAIL_OK);
    assert_null(lldp_switch_of(&t, "eth0", &several));
    assert_true(several);
}

static void what_is_cut_off_is_refused(void **state)
{
    (void)state;
    uint8_t frames[200];
    size_t n = frame(frames);
    for (size_t cut = 1; cut < n; cut++) {
        struct lldp_table t = {.n = 0};
        if (lldp_read_frames(frames, cut, "networkd", "eth0", &t) != RAIL_E_ARGUMENT) fail_msg("%zu bytes are read", cut);
        assert_non_null(strstr(rail_own_error(), "networkd: byte "));
    }
    for (size_t cut = 1; cut < strlen(json0); cut++) {
        struct lldp_table t = {.n = 0};
        if (lldp_read_json(json0, cut, "lldpctl", &t) != RAIL_E_ARGUMENT) fail_msg("%zu bytes are read", cut);
    }
    static const char *const others[] = {"[]", "{}", "17", "{\"a\":1}"};
    for (int i = 0; i < 4; i++) {
        struct lldp_table t = {.n = 0};
        if (lldp_read_json(others[i], strlen(others[i]), "lldpctl", &t) != RAIL_E_ARGUMENT) fail_msg("%s is read", others[i]);
    }
}

static void mutated_texts_are_survived(void **state)
{
    (void)state;
    srand(7);
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[900];
        const char *texts[] = {json0, json, one, "=mlx5_0:1:3:0,mlx5_1::2"};
        int k = i % 5;
        bytes[0] = k == 4;
        size_t n = 1 + (k == 4 ? frame(bytes + 1) : strlen(texts[k]));
        if (k != 4) memcpy(bytes + 1, texts[k], n - 1);
        for (int m = rand() % 4; m >= 0; m--) bytes[1 + (size_t)rand() % (n - 1)] = (uint8_t)rand();
        if (k == 3) LLVMFuzzerTestOneInput(bytes + 1, n - 1);
        else fuzz_lldp(bytes, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_means_what_it_means_to_nccl),
        cmocka_unit_test(planes_are_other_rails),
        cmocka_unit_test(nonsense_is_refused_with_its_place),
        cmocka_unit_test(an_interface_is_found_below_its_device),
        cmocka_unit_test(an_interface_uses_a_device_that_the_list_admits),
        cmocka_unit_test(tables_of_devices_without_a_rail_are_not_read),
        cmocka_unit_test(all_daemons_tell_of_one_switch_alike),
        cmocka_unit_test(a_bond_hangs_where_its_ports_hang),
        cmocka_unit_test(two_switches_on_one_interface_say_nothing),
        cmocka_unit_test(what_is_cut_off_is_refused),
        cmocka_unit_test(mutated_texts_are_survived),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
