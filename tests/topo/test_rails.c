/* NICs are paired by rail: whatever their order and names, with hosts that lack some, and as NCCL_CROSS_NIC allows. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "topo/rails.h"

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in *in = (void *)&a;
    struct sockaddr_in6 *in6 = (void *)&a;
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) a.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) a.ss_family = AF_INET6;
    else fail_msg("%s is no address", text);
    return a;
}

static uint64_t key(const char *text, uint32_t bits)
{
    struct sockaddr_storage a = address_of(text);
    return rails_subnet_key(&a, bits);
}

static void a_subnet_is_a_rail_if_it_says_anything(void **state)
{
    (void)state;
    assert_true(key("10.77.0.1", 24) != 0);
    assert_true(key("10.77.0.1", 24) == key("10.77.0.254", 24));
    assert_true(key("10.77.0.1", 24) != key("10.77.1.1", 24));
    assert_true(key("10.77.0.1", 23) == key("10.77.1.1", 23));
    assert_true(key("10.77.0.1", 24) != key("10.77.0.1", 25)); /* hosts that disagree on the mask do not share it */
    assert_true(key("10.77.0.129", 25) != key("10.77.0.1", 25));
    assert_true(key("fd00:1::1", 64) == key("fd00:1::2:3", 64) && key("fd00:1::1", 64) != key("fd00:2::1", 64));
    static const struct { const char *address; uint32_t bits; } silent[] = {
        {"10.0.0.1", 30}, {"10.0.0.1", 31}, {"10.0.0.1", 32}, {"10.0.0.1", 0}, {"10.0.0.1", 200},
        {"fe80::1", 64}, {"fd00::1", 126}, {"fd00::1", 127}, {"fd00::1", 128}, {"fd00::1", 255},
    };
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++)
        if (key(silent[i].address, silent[i].bits) != 0) fail_msg("%s/%u says something", silent[i].address, silent[i].bits);
}

/* "here | there -> pairs": keys as letters, 0 unknown; pairs as "0-2 1-0", with ! where the rail is not known. */
static void pairs_are_of_one_rail(void **state)
{
    (void)state;
    static const struct { const char *name, *here, *there; enum rails_crossing crossing; const char *pairs; } cases[] = {
        {"the same order", "abcd", "abcd", RAILS_CROSS_AUTO, "0-0 1-1 2-2 3-3"},
        {"another order", "abcd", "cdab", RAILS_CROSS_AUTO, "0-2 1-3 2-0 3-1"},
        {"they lack one", "abcd", "abd", RAILS_CROSS_AUTO, "0-0 1-1 3-2"},
        {"we lack one", "bd", "abcd", RAILS_CROSS_AUTO, "0-1 1-3"},
        {"each lacks another", "abc", "bcd", RAILS_CROSS_AUTO, "1-0 2-1"},
        {"each lacks another, crossing allowed", "abc", "bcd", RAILS_CROSS_ALLOWED, "1-0 2-1 0-2!"},
        {"nothing in common", "ab", "cd", RAILS_CROSS_AUTO, "0-0! 1-1!"},
        {"nothing in common, never crossing", "ab", "cd", RAILS_CROSS_NEVER, ""},
        {"nothing known", "00", "000", RAILS_CROSS_NEVER, "0-0! 1-1!"},
        {"a management network and routed rails", "m00", "0m0", RAILS_CROSS_AUTO, "0-1 1-0! 2-2!"},
        {"two NICs in one subnet", "aab", "aba", RAILS_CROSS_AUTO, "0-0 1-2 2-1"},
        {"two against one", "aa", "a", RAILS_CROSS_AUTO, "0-0"},
        {"no NIC", "", "ab", RAILS_CROSS_ALLOWED, ""},
        {"sixteen turned round", "abcdefghijklmnop", "ponmlkjihgfedcba", RAILS_CROSS_NEVER,
         "0-15 1-14 2-13 3-12 4-11 5-10 6-9 7-8 8-7 9-6 10-5 11-4 12-3 13-2 14-1 15-0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t here[RAILS_NICS_MAX], there[RAILS_NICS_MAX];
        uint32_t n = (uint32_t)strlen(cases[i].here), m = (uint32_t)strlen(cases[i].there);
        for (uint32_t k = 0; k < n; k++) here[k] = cases[i].here[k] == '0' ? 0 : (uint64_t)cases[i].here[k];
        for (uint32_t k = 0; k < m; k++) there[k] = cases[i].there[k] == '0' ? 0 : (uint64_t)cases[i].there[k];
        struct rail_pair pairs[RAILS_NICS_MAX];
        uint32_t found = rails_match(here, n, there, m, cases[i].crossing, pairs);
        char got[200] = "";
        for (uint32_t k = 0; k < found; k++)
            sprintf(got + strlen(got), "%s%u-%u%s", k ? " " : "", pairs[k].here, pairs[k].there, pairs[k].crossing ? "!" : "");
        if (strcmp(got, cases[i].pairs) != 0) fail_msg("%s: %s, not %s", cases[i].name, got, cases[i].pairs);
    }
}

/* Whoever connects, the same NICs meet: known rails are paired alike from both sides. */
static void both_sides_see_the_same_pairs(void **state)
{
    (void)state;
    srand(5);
    for (int round = 0; round < 20000; round++) {
        uint64_t keys[2][RAILS_NICS_MAX];
        uint32_t n[2];
        for (int s = 0; s < 2; s++) {
            n[s] = (uint32_t)rand() % (RAILS_NICS_MAX + 1);
            for (uint32_t i = 0; i < n[s]; i++) keys[s][i] = (uint64_t)(rand() % 20); /* some twice, some unknown */
        }
        struct rail_pair one[RAILS_NICS_MAX], other[RAILS_NICS_MAX];
        enum rails_crossing crossing = (enum rails_crossing)(rand() % 3);
        uint32_t a = rails_match(keys[0], n[0], keys[1], n[1], crossing, one);
        uint32_t b = rails_match(keys[1], n[1], keys[0], n[0], crossing, other);
        assert_int_equal(a, b);
        uint32_t seen_here = 0, seen_there = 0;
        for (uint32_t i = 0; i < a; i++) {
            assert_true(one[i].here < n[0] && one[i].there < n[1]);
            assert_false(seen_here >> one[i].here & 1 || seen_there >> one[i].there & 1);
            seen_here |= 1u << one[i].here;
            seen_there |= 1u << one[i].there;
            bool same = keys[0][one[i].here] != 0 && keys[0][one[i].here] == keys[1][one[i].there];
            assert_int_equal(same, !one[i].crossing);
            bool there_too = false;
            for (uint32_t k = 0; k < b; k++) there_too |= other[k].here == one[i].there && other[k].there == one[i].here;
            assert_true(there_too);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_subnet_is_a_rail_if_it_says_anything),
        cmocka_unit_test(pairs_are_of_one_rail),
        cmocka_unit_test(both_sides_see_the_same_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
