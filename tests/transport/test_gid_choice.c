/* test_gid_choice.c - which two addresses of two RDMA ports find one another, on tables as hosts have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <arpa/inet.h>

#include <cmocka.h>

#include "transport/lane/gid_choice.h"

enum { MAX = 12 };

struct table { struct ibverbs_gid at[MAX]; int n; };

static void address_of(const char *text, uint8_t out[16])
{
    memset(out, 0, 16);
    if (strchr(text, ':')) {
        assert_int_equal(inet_pton(AF_INET6, text, out), 1);
        return;
    }
    out[10] = out[11] = 0xff;
    assert_int_equal(inet_pton(AF_INET, text, out + 12), 1);
}

/* "1 fe80::1, 2 10.0.0.1": kinds and addresses; the index counts from 0; "-" leaves an entry out. */
static struct table table_of(const char *text)
{
    struct table t = {.n = 0};
    char copy[400], *save = NULL;
    int index = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *entry = strtok_r(copy, ",", &save); entry; entry = strtok_r(NULL, ",", &save), index++) {
        char kind[8], address[64];
        if (sscanf(entry, " %7s %63s", kind, address) != 2) continue;
        struct ibverbs_gid *g = &t.at[t.n++];
        g->index = (uint16_t)index;
        g->kind = kind[0] == 'i' ? IBVERBS_GID_IB : (uint8_t)(kind[0] - '0' + 1);
        address_of(address, g->raw);
    }
    return t;
}

struct side { const char *table, *rail; struct gid_wish wish; };

static int offer(const struct side *s, struct gid_candidate out[GID_OFFER_MAX], char why[200])
{
    struct table t = table_of(s->table);
    uint8_t rail[16];
    struct gid_wish wish = s->wish;
    address_of(s->rail, rail);
    if (wish.roce_version == 0) wish = (struct gid_wish){.index = -1, .roce_version = 2};
    why[0] = '\0';
    return gid_offer(t.at, t.n, &wish, rail, out, why, 200);
}

/* What both ends choose, which must be the same: "3 10.0.0.1 - 1 10.0.0.2", or why not. */
static void choice(const struct side *a, const struct side *b, char out[300])
{
    struct gid_candidate ours[GID_OFFER_MAX], theirs[GID_OFFER_MAX];
    struct gid_pair here = {0, 0}, there = {0, 0};
    char why[200], why_there[200], text[2][GID_TEXT_BYTES];
    int n = offer(a, ours, why), m = offer(b, theirs, why_there);
    if (n == 0 || m == 0) {
        snprintf(out, 300, "%s", n == 0 ? why : why_there);
        return;
    }
    bool found = gid_choose(ours, n, theirs, m, true, &here, why, sizeof why);
    assert_int_equal(gid_choose(theirs, m, ours, n, false, &there, why_there, sizeof why_there), found);
    if (!found) {
        snprintf(out, 300, "%s", why);
        return;
    }
    assert_int_equal(here.here, there.there);
    assert_int_equal(here.there, there.here);
    gid_text(&ours[here.here].gid, text[0]);
    gid_text(&theirs[here.there].gid, text[1]);
    snprintf(out, 300, "%s - %s", text[0], text[1]);
}

#define V4A "1 fe80::a, 2 fe80::a, 1 10.0.0.1, 2 10.0.0.1"
#define V4B "1 fe80::b, 2 fe80::b, 1 10.0.0.2, 2 10.0.0.2"

#define WISH(i, f, v) {.index = i, .family = f, .roce_version = v}

static const struct { const char *name; struct side a, b; const char *expected; } pairs[] = {
    {"two hosts set up alike use the rail's IPv4 address by RoCE v2", {V4A, "10.0.0.1", {0}}, {V4B, "10.0.0.2", {0}},
     "10.0.0.1 (RoCE v2, index 3) - 10.0.0.2 (RoCE v2, index 3)"},
    {"the same address stands at another index in a container", {V4A, "10.0.0.1", {0}},
     {"1 fe80::b, 2 fe80::b, -, -, -, 2 10.0.0.2", "10.0.0.2", {0}},
     "10.0.0.1 (RoCE v2, index 3) - 10.0.0.2 (RoCE v2, index 5)"},
    {"of several addresses those of the rail are used", {V4A ", 2 10.9.0.1", "10.9.0.1", {0}},
     {V4B ", 2 10.9.0.2", "10.9.0.2", {0}}, "10.9.0.1 (RoCE v2, index 4) - 10.9.0.2 (RoCE v2, index 4)"},
    {"where the rail's is not in the table the closest subnet is", {V4A ", 2 10.9.0.1", "10.7.0.1", {0}},
     {"2 172.16.0.2, 2 10.9.0.2", "10.7.0.2", {0}}, "10.9.0.1 (RoCE v2, index 4) - 10.9.0.2 (RoCE v2, index 1)"},
    {"hosts with IPv6 only do not fall to link-local addresses", {"2 fe80::a, 2 2001:db8::a", "10.0.0.1", {0}},
     {"2 fe80::b, 2 2001:db8::b", "10.0.0.2", {0}},
     "2001:db8::a (RoCE v2, index 1) - 2001:db8::b (RoCE v2, index 1)"},
    {"a common family is found where one has both", {"2 10.0.0.1, 2 2001:db8::a", "10.0.0.1", {0}},
     {"2 2001:db8::b", "2001:db8::b", {0}}, "2001:db8::a (RoCE v2, index 1) - 2001:db8::b (RoCE v2, index 0)"},
    {"link-local is the last resort", {"2 fe80::a", "10.0.0.1", {0}}, {"2 fe80::b", "10.0.0.2", {0}},
     "fe80::a (RoCE v2, index 0) - fe80::b (RoCE v2, index 0)"},
    {"a routed address does not go with a link-local one", {"2 fe80::a", "10.0.0.1", {0}},
     {"2 2001:db8::b", "10.0.0.2", {0}}, "no two GIDs go together: here RoCE v2 IPv6, there RoCE v2 IPv6"},
    {"different families are named", {"2 10.0.0.1", "10.0.0.1", {0}}, {"2 2001:db8::b", "10.0.0.2", {0}},
     "no two GIDs go together: here RoCE v2 IPv4, there RoCE v2 IPv6"},
    {"a port without RoCE v2 offers v1, and meets one that has both only by wish", {"1 10.0.0.1", "10.0.0.1", {0}},
     {V4B, "10.0.0.2", WISH(-1, 0, 1)}, "10.0.0.1 (RoCE v1, index 0) - 10.0.0.2 (RoCE v1, index 2)"},
    {"RoCE v1 does not go with v2", {"1 10.0.0.1", "10.0.0.1", {0}}, {V4B, "10.0.0.2", {0}},
     "no two GIDs go together: here RoCE v1 IPv4, there RoCE v2 IPv4, RoCE v2 IPv6"},
    {"an index that the user gives is used, whatever it is", {V4A, "10.0.0.1", WISH(2, 0, 2)},
     {V4B, "10.0.0.2", WISH(2, 0, 2)}, "10.0.0.1 (RoCE v1, index 2) - 10.0.0.2 (RoCE v1, index 2)"},
    {"an index without a GID is named", {V4A, "10.0.0.1", WISH(9, 0, 2)}, {V4B, "10.0.0.2", {0}},
     "the port has no GID at NCCL_IB_GID_INDEX=9 (it has 4): leave the index out, and the right one is found"},
    {"a family that the user asks for", {V4A ", 2 2001:db8::a", "10.0.0.1", WISH(-1, 6, 2)},
     {V4B ", 2 2001:db8::b", "10.0.0.2", {0}}, "2001:db8::a (RoCE v2, index 4) - 2001:db8::b (RoCE v2, index 4)"},
    {"a family that the port does not have", {"2 10.0.0.1", "10.0.0.1", WISH(-1, 6, 2)}, {V4B, "10.0.0.2", {0}},
     "none of the port's 1 GIDs is of the family that NCCL_IB_ADDR_FAMILY asks for"},
    {"an empty table", {"", "10.0.0.1", {0}}, {V4B, "10.0.0.2", {0}},
     "the port has no GID: give its interface an address"},
    {"InfiniBand's default prefix is no obstacle", {"i fe80::a", "10.0.0.1", {0}}, {"i fe80::b", "10.0.0.2", {0}},
     "fe80::a (InfiniBand, index 0) - fe80::b (InfiniBand, index 0)"},
    {"InfiniBand does not go with Ethernet", {"i fe80::a", "10.0.0.1", {0}}, {V4B, "10.0.0.2", {0}},
     "no two GIDs go together: here InfiniBand, there RoCE v2 IPv4, RoCE v2 IPv6"},
    {"of a long table the best are offered, not the first",
     {"2 fe80::1, 2 fe80::2, 2 fe80::3, 2 fe80::4, 2 fe80::5, 2 fe80::6, 2 fe80::7, 2 fe80::8, 2 10.0.0.1", "10.0.0.1", {0}},
     {V4B, "10.0.0.2", {0}}, "10.0.0.1 (RoCE v2, index 8) - 10.0.0.2 (RoCE v2, index 3)"},
};

static void pairs_are_chosen(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char got[300];
        choice(&pairs[i].a, &pairs[i].b, got);
        if (strcmp(got, pairs[i].expected) == 0) continue;
        print_error("%s:\n  expected %s\n  got      %s\n", pairs[i].name, pairs[i].expected, got);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Random tables, among them equal worths: both ends must still agree (choice() compares). */
static void both_ends_agree(void **state)
{
    (void)state;
    uint64_t x = 88172645463325252ull;
    for (int k = 0; k < 20000; k++) {
        char text[2][400] = {"", ""}, got[300];
        for (int side = 0; side < 2; side++)
            for (int i = 0; i < 6; i++) {
                x ^= x << 13, x ^= x >> 7, x ^= x << 17;
                size_t n = strlen(text[side]);
                static const char *const forms[] = {"%s%d 10.0.%d.%d", "%s%d fe80::%d:%d", "%s%d 2001:db8::%d:%d", "%s-"};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                snprintf(text[side] + n, sizeof text[side] - n, forms[x % 4], i ? ", " : "", (int)(1 + x / 4 % 2),
                         (int)(x / 8 % 2), (int)(1 + x / 16 % 3));
#pragma GCC diagnostic pop
            }
        struct side a = {text[0], "10.0.0.1", {0}}, b = {text[1], "10.0.1.1", {0}};
        choice(&a, &b, got);
    }
}

/* ---- the kernel's files ---- */

static void file(const char *root, const char *path, const char *text)
{
    char whole[300];
    snprintf(whole, sizeof whole, "%s/class/infiniband/rxe0/ports/1/%s", root, path);
    for (char *c = whole + strlen(root) + 1; (c = strchr(c, '/')) != NULL; c++) {
        *c = '\0';
        mkdir(whole, 0700);
        *c = '/';
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void ranges_are_read(void **state)
{
    static const struct { const char *text, *address; int bits; } cases[] = {
        {"10.1.0.0/16", "10.1.0.0", 112},  {"10.1.2.3/32", "10.1.2.3", 128}, {"0.0.0.0/0", "0.0.0.0", 96},
        {"fd00::/64", "fd00::", 64},       {"::/0", "::", 0},                {"2001:db8::1/128", "2001:db8::1", 128},
    };
    static const char *const nonsense[] = {"", "10.1.0.0", "10.1.0.0/", "10.1.0.0/33", "10.1/16", "fd00::/129",
                                           "fd00::/-1", "/16", "10.1.0.0/16x", "10.1.0.0/ 16", "ten/16",
                                           "10.1.0.0/99999999999999999999",
                                           "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb/16"};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gid_wish wish = {.index = -1};
        uint8_t address[16];
        address_of(cases[i].address, address);
        assert_true(gid_range(cases[i].text, &wish));
        assert_int_equal(wish.range_bits, cases[i].bits);
        assert_memory_equal(wish.range, address, 16);
    }
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        struct gid_wish wish = {.index = -1};
        assert_false(gid_range(nonsense[i], &wish));
        assert_int_equal(wish.range_bits, 0);
    }
}

static void only_what_is_in_the_range_is_offered(void **state)
{
    static const struct { const char *table, *range; int index, family; const char *offered, *why; } cases[] = {
        {V4A ", 2 10.1.0.1", "10.1.0.0/16", -1, 0, "10.1.0.1 (RoCE v2, index 4)", ""},
        {V4A ", 2 10.1.0.1", "10.0.0.0/16", -1, 0, "10.0.0.1 (RoCE v2, index 3)", ""},
        {V4A ", 2 fd00::1", "fd00::/8", -1, 0, "fd00::1 (RoCE v2, index 4)", ""},
        {V4A, "fd00::/8", -1, 0, NULL, "none of the port's 4 GIDs is in NCCL_IB_ADDR_RANGE"},
        {V4A ", 2 fd00::1", "fd00::/8", -1, 4, NULL,
         "none of the port's 5 GIDs is in NCCL_IB_ADDR_RANGE and of the family that NCCL_IB_ADDR_FAMILY asks for"},
        {V4A, "fd00::/8", 3, 0, "10.0.0.1 (RoCE v2, index 3)", ""}, /* named */
        {"i fe80::a", "10.0.0.0/8", -1, 0, "fe80::a (InfiniBand, index 0)", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side side = {cases[i].table, "10.9.9.9", WISH(cases[i].index, cases[i].family, 2)};
        struct gid_candidate out[GID_OFFER_MAX];
        char why[200], text[GID_TEXT_BYTES];
        assert_true(gid_range(cases[i].range, &side.wish));
        int n = offer(&side, out, why);
        assert_int_equal(n, cases[i].offered != NULL);
        assert_string_equal(why, cases[i].why);
        if (n == 0) continue;
        gid_text(&out[0].gid, text);
        assert_string_equal(text, cases[i].offered);
    }
}

static void tables_are_read_from_the_kernels_files(void **state)
{
    (void)state;
    char root[] = "/tmp/railccl_gids_XXXXXX", command[64], text[GID_TEXT_BYTES];
    assert_non_null(mkdtemp(root));
    file(root, "link_layer", "Ethernet\n");
    file(root, "gids/0", "fe80:0000:0000:0000:0202:c9ff:fe00:0001\n");
    file(root, "gid_attrs/types/0", "IB/RoCE v1\n");
    file(root, "gids/1", "0000:0000:0000:0000:0000:ffff:0a00:0001\n");
    file(root, "gid_attrs/types/1", "RoCE v2\n");
    file(root, "gids/2", "0000:0000:0000:0000:0000:0000:0000:0000\n"); /* not in use */
    file(root, "gids/3", "nonsense\n");
    file(root, "gids/4", "2001:0db8:0000:0000:0000:0000:0000:000a\n"); /* without a type: an old kernel's */
    struct ibverbs_gid table[MAX];
    assert_int_equal(ibverbs_gids_below(root, "rxe0", 1, table, MAX), 3);
    gid_text(&table[0], text);
    assert_string_equal(text, "fe80::202:c9ff:fe00:1 (RoCE v1, index 0)");
    gid_text(&table[1], text);
    assert_string_equal(text, "10.0.0.1 (RoCE v2, index 1)");
    gid_text(&table[2], text);
    assert_string_equal(text, "2001:db8::a (RoCE v1, index 4)");
    assert_int_equal(ibverbs_gids_below(root, "rxe0", 1, table, 1), 1);
    assert_int_equal(ibverbs_gids_below(root, "rxe0", 2, table, MAX), 0);
    assert_int_equal(ibverbs_gids_below(root, "../../rxe9", 1, table, MAX), 0);
    file(root, "link_layer", "InfiniBand\n");
    assert_int_equal(ibverbs_gids_below(root, "rxe0", 1, table, MAX), 3);
    assert_int_equal(table[0].kind, IBVERBS_GID_IB);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_are_chosen),
        cmocka_unit_test(both_ends_agree),
        cmocka_unit_test(ranges_are_read),
        cmocka_unit_test(only_what_is_in_the_range_is_offered),
        cmocka_unit_test(tables_are_read_from_the_kernels_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
