/* All hosts' NICs sorted into rails: which source decides, what none may do, and that every host sees the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "topo/nearest.h"
#include "topo/rails.h"

/* A NIC is three letters: label, leaf, subnet, and perhaps an earlier probe's (x: in vain); "-"
 * unknown. Hosts are apart by "|", NICs by blanks. */
static uint32_t read_nics(const char *text, struct rail_nic *nics)
{
    uint32_t n = 0, host = 0;
    for (; *text; text++) {
        if (*text == '|') host++;
        if (*text == '|' || *text == ' ') continue;
        nics[n] = (struct rail_nic){.host = host};
        if (text[0] != '-') nics[n].label = (uint64_t)text[0], nics[n].label_from = RAILS_BY_FABRIC;
        if (text[1] != '-') nics[n].leaf = (uint64_t)text[1];
        if (text[2] != '-') nics[n].subnet = (uint64_t)text[2];
        text += 2;
        if (text[1] && text[1] != ' ' && text[1] != '|' && *++text != '-') {
            nics[n].probed = *text == 'x' ? 0 : (uint64_t)*text;
            nics[n].tried = true;
        }
        n++;
    }
    return n;
}

/* Rails as letters in the order of their first NIC, "." where nothing is known; who said it as f, l, s, p, o. */
static void write_rails(const struct rail_nic *nics, uint32_t n, char *out)
{
    static const char by[] = "?fhlspo";
    for (uint32_t i = 0; i < n; i++) {
        char letter = 'A';
        if (i > 0 && nics[i].host != nics[i - 1].host) *out++ = '|';
        for (uint32_t k = 0; k < i && nics[k].key != nics[i].key; k++) {
            bool seen = nics[k].key == 0;
            for (uint32_t m = 0; m < k && !seen; m++) seen = nics[m].key == nics[k].key;
            letter = (char)(letter + !seen);
        }
        *out++ = nics[i].key ? letter : '.';
        *out++ = by[nics[i].by];
    }
    *out = '\0';
}

static void sources_decide_in_their_order(void **state)
{
    (void)state;
    /* near: pairs of NICs by place */
    static const struct { const char *name, *nics, *near, *rails; uint32_t conflicts; bool undecided; } cases[] = {
        {"subnets", "--a --b|--b --a", "", "AsBs|BsAs", 0, false},
        {"labels, whatever subnets say nothing", "0-- 1--|1-- 0--", "", "AfBf|BfAf", 0, false},
        {"labels against subnets", "0-a 1-b|0-b 1-a", "", "AfBf|AfBf", 2, false},
        {"a host that the file does not mention, by its subnets", "0-a 1-b|--b --a", "", "AfBf|BsAs", 0, false},
        {"one label for several subnets", "0-a 1-b|0-c 1-d", "", "AfBf|AfBf", 0, false},
        {"two NICs of a host on one label", "0-a 0-b|0-a 0-b", "", "AfAf|AfAf", 0, false},
        {"switches where subnets say nothing", "-x- -y-|-y- -x-", "", "AlBl|BlAl", 0, false},
        {"switches tell what one flat subnet does not", "-xf -yf|-yf -xf", "", "AlBl|BlAl", 0, false},
        {"rails over two pods: leaves differ, subnets do not", "-xa -yb|-za -wb", "", "AlBl|AlBl", 0, false},
        {"one switch, a VLAN for each rail", "-xa -xb|-xb -xa", "", "AsBs|BsAs", 0, false},
        {"two NICs on each of two switches, in order", "-x- -x- -y-|-y- -x- -x-", "", "AoAoBl|BlAoAo", 0, true},
        {"a cable in the wrong leaf", "-xa -yb|-xa -yb|-ya -xb", "", "AlBl|AlBl|BlAl", 2, false},
        {"a host without a daemon, by its subnets", "-xa -yb|--b --a", "", "AlBl|BsAs", 0, false},
        {"a label against a switch", "0x- 1y-|1x- 0y-", "", "AfBf|BfAf", 2, false},
        {"one flat subnet, nothing else", "--f --f|--f --f", "", "AoAo|AoAo", 0, true},
        {"nothing at all", "--- ---|--- ---", "", ".o.o|.o.o", 0, true},
        {"one NIC a host of which nothing is known", "---|---", "", ".o|.o", 0, false},
        {"probed", "--- ---|--- ---|--- ---", "0 3 1 2 2 5 3 4", "ApBp|BpAp|ApBp", 0, false},
        {"probed in one flat subnet", "--f --f|--f --f", "0 3 1 2", "ApBp|BpAp", 0, false},
        {"probed by half", "--- ---|--- ---", "0 3", "Ap.o|.oAp", 0, false},
        {"probes cannot put two NICs of a host on a rail", "--- ---|--- ---", "0 2 0 3", "Ap.o|Ap.o", 1, false},
        {"probes against subnets", "--a --b|--a --b", "0 3 1 2", "AsBs|AsBs", 2, false},
        {"probes that agree with subnets", "--a --b|--a --b", "0 2 1 3", "AsBs|AsBs", 0, false},
        {"a NIC that nobody shares", "--a --b|--a", "", "AsBs|As", 0, false},
        {"a management network beside rails of which nothing is known", "--m --- ---|--- --m ---", "", "As.o.o|.oAs.o", 0, true},
        {"probed by an earlier communicator", "---1 ---2|---2 ---1", "", "ApBp|BpAp", 0, false},
        {"a host more than when it was probed", "---1 ---2|---2 ---1|---- ----", "", "ApBp|BpAp|.o.o", 0, true},
        {"the same, probed again", "---1 ---2|---2 ---1|---- ----", "0 5 1 4 3 5", "ApBp|BpAp|BpAp", 0, false},
        {"probed in vain by an earlier communicator", "---x ---x|---x ---x", "", ".o.o|.o.o", 0, false},
        {"in vain, and a host more", "---x ---x|---x ---x|--- ---", "", ".o.o|.o.o|.o.o", 0, true},
        {"no NIC", "", "", "", 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rail_nic nics[32];
        struct rail_near near[16];
        struct rail_verdict verdict;
        uint32_t n = read_nics(cases[i].nics, nics), n_near = 0;
        for (const char *at = cases[i].near; *at; n_near++, at += strlen(at) > 3 ? 4 : 3)
            near[n_near] = (struct rail_near){(uint32_t)(at[0] - '0'), (uint32_t)(at[2] - '0')};
        char got[100];
        assert_int_equal(rails_group(nics, n, near, n_near, &verdict), 0);
        write_rails(nics, n, got);
        if (strcmp(got, cases[i].rails) != 0) fail_msg("%s: %s, not %s", cases[i].name, got, cases[i].rails);
        if (verdict.n_conflicts != cases[i].conflicts)
            fail_msg("%s: %u contradictions, not %u", cases[i].name, verdict.n_conflicts, cases[i].conflicts);
        if (verdict.undecided != cases[i].undecided) fail_msg("%s: undecided %d", cases[i].name, verdict.undecided);
    }
}

/* Any facts: a rail that no label made holds one NIC of each host; NICs of one label are one rail; conflicts name NICs. */
static void a_rail_has_one_nic_of_each_host(void **state)
{
    (void)state;
    srand(11);
    for (int round = 0; round < 20000; round++) {
        struct rail_nic nics[64], again[64];
        struct rail_near near[40];
        struct rail_verdict verdict, other;
        uint32_t n = 0, n_near = (uint32_t)rand() % 40;
        bool labels = rand() % 2;
        for (uint32_t host = 0; host < 8; host++)
            for (int k = rand() % 8; k > 0; k--)
                nics[n++] = (struct rail_nic){.host = host, .label = labels ? (uint64_t)(rand() % 5) : 0, .leaf = (uint64_t)(rand() % 7),
                                              .label_from = RAILS_BY_HCA, .subnet = (uint64_t)(rand() % 9),
                                              .probed = (uint64_t)(rand() % 9)};
        for (uint32_t i = 0; i < n_near; i++) near[i] = (struct rail_near){(uint32_t)rand() % 64, (uint32_t)rand() % 64};
        memcpy(again, nics, sizeof nics);
        assert_int_equal(rails_group(nics, n, near, n_near, &verdict), 0);
        assert_int_equal(rails_group(again, n, near, n_near, &other), 0);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(nics[i].key == again[i].key && nics[i].key != RAILS_LEFT_OUT && nics[i].by != RAILS_BY_NOBODY);
            for (uint32_t k = 0; k < i; k++) {
                bool same = nics[i].key != 0 && nics[i].key == nics[k].key;
                if (nics[i].label && nics[k].label) assert_int_equal(same, nics[i].label == nics[k].label);
                if (same && nics[i].host == nics[k].host && nics[i].by != RAILS_BY_ORDER)
                    assert_true(nics[i].label != 0 && nics[k].label != 0);
            }
        }
        for (uint32_t i = 0; i < verdict.n_conflicts && i < RAILS_CONFLICTS_MAX; i++) {
            const struct rail_conflict *c = &verdict.conflicts[i];
            assert_true(c->a < n && c->b < n && nics[c->a].key != nics[c->b].key);
            if (c->twin != UINT32_MAX) assert_int_equal(nics[c->twin].host, nics[c->doubled].host);
        }
    }
}

/* ---- nearest ---- */

/* Rows of "hops" or "hops:best-second", "." unheard, "b" blind. */
static void read_matrix(const char *text, struct near_matrix *m)
{
    memset(m, 0, sizeof *m);
    uint32_t j = 0;
    for (m->n = 1; *text; text++) {
        if (*text == ' ') continue;
        if (*text == '/') {
            m->n++;
            j = 0;
            continue;
        }
        struct near_cell *c = &m->at[m->n - 1][j++];
        if (j > m->m) m->m = j;
        c->blind = *text == 'b';
        if (*text == '.' || *text == 'b') continue;
        char *end;
        c->heard = true;
        c->hops = (uint8_t)strtol(text, &end, 10);
        if (*end == ':') c->best_ns = strtoull(end + 1, &end, 10);
        if (*end == '-') c->second_ns = strtoull(end + 1, &end, 10);
        text = end - 1;
    }
}

static void the_nearest_are_one_rail_if_both_think_so(void **state)
{
    (void)state;
    static const struct { const char *name, *matrix, *pairs; enum near_how how; } cases[] = {
        {"hops", "1 3 3/3 1 3/3 3 1", "012", NEAR_BY_HOPS},
        {"hops, turned round", "3 1/1 3", "10", NEAR_BY_HOPS},
        {"reach", ". 0/0 .", "10", NEAR_BY_REACH},
        {"one NIC each", "0", "0", NEAR_BY_REACH},
        {"nobody answers", ". ./. .", "--", NEAR_UNHEARD},
        {"all alike, nothing measured", "0 0/0 0", "--", NEAR_UNDECIDED},
        {"all alike, and clearly later elsewhere", "0:10-11 0:30-33/0:31-33 0:10-12", "01", NEAR_BY_TIME},
        {"a little later is no proof", "0:10-11 0:12-13/0:12-13 0:10-11", "--", NEAR_UNDECIDED},
        {"later once, but not twice", "0:10-40 0:30-33/0:31-33 0:10-40", "--", NEAR_UNDECIDED},
        {"both want the same one", "0:10-11 0:30-33/0:10-11 0:30-33", "--", NEAR_UNDECIDED},
        {"one of three unreached", "1 3 ./3 1 ./3 3 .", "01-", NEAR_BY_HOPS},
        {"they lack the rail of our second", "1/3", "0-", NEAR_BY_HOPS},
        {"each lacks another's: what is farther is no pair", "1 3/3 3", "0-", NEAR_BY_HOPS},
        {"a rival that cannot be measured", "0 b/. 0", "--", NEAR_UNDECIDED},
        {"nothing can be measured but two", "0 b b/b . ./b . 0", "---", NEAR_UNDECIDED},
        {"hops decide, whatever the time", "1:90-99 3:10-11/3:10-11 1:90-99", "01", NEAR_BY_HOPS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct near_matrix m;
        uint8_t out[RAILS_NICS_MAX];
        char got[RAILS_NICS_MAX + 1] = "";
        read_matrix(cases[i].matrix, &m);
        enum near_how how = near_assign(&m, out);
        for (uint32_t k = 0; k < m.n; k++) got[k] = out[k] == NEAR_NONE ? '-' : (char)('0' + out[k]);
        if (strcmp(got, cases[i].pairs) != 0) fail_msg("%s: %s, not %s", cases[i].name, got, cases[i].pairs);
        if (how != cases[i].how) fail_msg("%s: %s, not %s", cases[i].name, near_how_name(how), near_how_name(cases[i].how));
    }
}

/* Whatever was measured, nobody is taken twice. */
static void nobody_is_taken_twice(void **state)
{
    (void)state;
    srand(3);
    for (int round = 0; round < 20000; round++) {
        struct near_matrix m = {.n = 1 + (uint32_t)rand() % RAILS_NICS_MAX, .m = 1 + (uint32_t)rand() % RAILS_NICS_MAX};
        uint8_t out[RAILS_NICS_MAX];
        uint32_t taken = 0;
        for (uint32_t i = 0; i < m.n; i++)
            for (uint32_t j = 0; j < m.m; j++)
                m.at[i][j] = (struct near_cell){.heard = rand() % 3 > 0, .blind = rand() % 50 == 0, .hops = (uint8_t)(rand() % 3),
                                                .best_ns = (uint64_t)(rand() % 50), .second_ns = (uint64_t)(rand() % 50)};
        near_assign(&m, out);
        for (uint32_t i = 0; i < m.n; i++) {
            if (out[i] == NEAR_NONE) continue;
            assert_true(out[i] < m.m && m.at[i][out[i]].heard && !(taken >> out[i] & 1));
            taken |= 1u << out[i];
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sources_decide_in_their_order),
        cmocka_unit_test(a_rail_has_one_nic_of_each_host),
        cmocka_unit_test(the_nearest_are_one_rail_if_both_think_so),
        cmocka_unit_test(nobody_is_taken_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
