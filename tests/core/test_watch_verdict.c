/* From what ranks told of themselves to one line: every kind of culprit, and what is to blame where several
 * complain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/watch_verdict.h"
#include "engine/signature.h"
#include "support/trouble.h"

enum { N = 8, HOSTS = 4, RAILS = 2, CALL = 42 };

#define NOW (1000 * RAIL_NS_PER_S)
#define MS RAIL_NS_PER_MS

/* Ranks 0, 1 on host h0, 2, 3 on h1, ... Every host has two NICs, on two rails. */
static struct member members[N];
static struct net_address addresses[N];
static struct watch_note notes[N];
static struct watch_view view;

static uint64_t the_call(void) { return signature_make(signature_collective(PLAN_ALLREDUCE), RAIL_F32, 0, 0, 1000); }

static void is_in(uint32_t r, uint64_t number)
{
    notes[r].last.history.number = number;
    notes[r].last.history.left_ms = 0;
    notes[r].inside_ns = NOW - 5000 * MS;
}

/* Waits in the call it is in, for data of that rank. */
static void waits_for(uint32_t r, uint32_t whom)
{
    struct watch_state *s = &notes[r].last.state;
    s->number = notes[r].last.history.number;
    s->waits = (struct waits){.n = 1, .on = {{whom, WAITS_FOR_DATA}}, .done = 400, .total = 1000};
    s->still_ms = 2000;
    s->waited = 900;
    s->absent = 0;
}

/* All have called, and wait for the one before them in a ring; all have answered. */
static void everybody_waits(void)
{
    memset(notes, 0, sizeof notes);
    for (uint32_t r = 0; r < N; r++) {
        snprintf(members[r].host_name, sizeof members[r].host_name, "h%u", r / 2);
        members[r].host = 100 + r / 2;
        members[r].pid = 70 + (int)r;
        members[r].process[0] = (uint8_t)(1 + r);
        addresses[r].n_rails = RAILS;
        for (uint32_t i = 0; i < RAILS; i++) {
            snprintf(addresses[r].rails[i].name, sizeof addresses[r].rails[i].name, "eth%u", i);
            addresses[r].rails[i].rail = 500 + i;
        }
        notes[r].at_ns = NOW - 200 * MS;
        notes[r].last.history.rank = r;
        for (int i = 0; i < SHM_CALLS; i++) notes[r].last.history.signature[i] = the_call();
        is_in(r, CALL);
        waits_for(r, (r + N - 1) % N);
    }
    view = (struct watch_view){members, addresses, notes, N, CALL, NOW, NOW - 250 * MS, NOW - 3000 * MS};
}

static void has_not_called(uint32_t r)
{
    notes[r].last.history.number = CALL - 1;
    notes[r].last.history.left_ms = 1501;
    notes[r].last.state = (struct watch_state){0};
    notes[r].inside_ns = 0;
}

static void does_not_answer(uint32_t r, uint64_t for_ms) { notes[r].at_ns = NOW - for_ms * MS; }

static void complains(uint32_t r, uint32_t peer, uint8_t nic, bool unreachable, const char *why)
{
    struct watch_state *s = &notes[r].last.state;
    if (s->n_troubles == 0) snprintf(s->why, sizeof s->why, "%s", why);
    struct watch_trouble trouble = {.rank = peer, .nic = nic, .unreachable = unreachable, .since_ms = 800};
    s->troubles[s->n_troubles++] = trouble;
}

static void says(const char *line)
{
    struct watch_line out;
    bool found = watch_conclude(&view, &out);
    if (strcmp(out.text, line) != 0) print_message("said:     %s\nexpected: %s\n", out.text, line);
    assert_int_equal(found, line[0] != 0);
    assert_string_equal(out.text, line);
    assert_int_equal(out.key != 0, found);
}

#define THE_CALL "AllReduce #42 of 1000 float32, sum: "

static void who_never_called(void **state)
{
    (void)state;
    everybody_waits();
    has_not_called(5);
    says(THE_CALL "rank 5 (host h2, pid 75) has not called it (its last call was AllReduce #41 of 1000 float32, sum; "
                  "it left "
                  "that 1.5 s ago)");
    has_not_called(6);
    has_not_called(7);
    notes[6].last.history.number = 0;
    says(THE_CALL "rank 5 (host h2, pid 75) has not called it (its last call was AllReduce #41 of 1000 float32, sum; "
                  "it left "
                  "that 1.5 s ago); rank 6 (host h3, pid 76) has not called it (it has made no call yet); nor did "
                  "rank 7");
}

static void who_does_not_answer(void **state)
{
    (void)state;
    everybody_waits();
    does_not_answer(5, 1000); /* not yet */
    notes[5].last.state.looked_ms = 1000;
    view.asked_ns = NOW - 200 * MS;
    notes[5].last.state.number = 0;
    says("");
    does_not_answer(5, 2000);
    says(THE_CALL "rank 5 (host h2, pid 75) has not answered for 2.0 s: its process is stopped, or its host is not "
                  "reachable");
    complains(0, 5, 0, true, "the NIC has no carrier");
    says(THE_CALL "rank 5 (host h2, pid 75) has not answered for 2.0 s: its process is stopped, or its host is not "
                  "reachable; no "
                  "lane has been up for 0.8 s: host h0, on all its rails: the NIC has no carrier");
    does_not_answer(5, 600);
    notes[5].stopped = true; /* the kernel says so: sooner */
    says(THE_CALL "rank 5 (host h2, pid 75) has not answered for 0.6 s: its process is stopped (SIGSTOP, or a "
                  "debugger)");
}

static void who_is_behind_a_silent_one_is_not_blamed(void **state)
{
    (void)state;
    static struct member many[20];
    static struct watch_note their[20];
    everybody_waits();
    for (uint32_t r = 0; r < 20; r++) { /* 9 to 16 report by way of rank 1 */
        many[r] = members[r % N];
        their[r] = notes[0];
        their[r].last.history.rank = r;
        if (r == 1 || (r >= 9 && r < 17)) their[r].at_ns = NOW - 2000 * MS;
    }
    view.members = many;
    view.notes = their;
    view.n_ranks = 20;
    view.addresses = NULL;
    says(THE_CALL "rank 1 (host h0, pid 71) has not answered for 2.0 s: its process is stopped, or its host is not "
                  "reachable");
}

static void who_is_in_an_earlier_call_is_followed_there(void **state)
{
    (void)state;
    everybody_waits();
    for (uint32_t r = 5; r < 7; r++) is_in(r, CALL - 1), waits_for(r, 7);
    is_in(7, CALL - 1);
    notes[7].last.state.number = 0;
    says("AllReduce #41 of 1000 float32, sum: rank 7 (host h3, pid 77) has called it, waits for nobody, and has done "
         "nothing "
         "for 2.0 s; the others stand at 40 %");
}

/* Rank 7 gave all its data to #40 and never came out: 6 waits for it in #41, everybody else in #42. */
static void who_waits_for_one_further_back_is_not_blamed(void **state)
{
    (void)state;
    everybody_waits();
    is_in(6, CALL - 1), waits_for(6, 7);
    is_in(7, CALL - 2);
    notes[7].last.state.number = 0;
    says(THE_CALL "rank 7 (host h3, pid 77) has not called it (it is still in AllReduce #40 of 1000 float32, sum)");
}

static void whom_all_wait_for(void **state)
{
    (void)state;
    everybody_waits();
    notes[5].last.state.waits.n = 0;
    says(THE_CALL "rank 5 (host h2, pid 75) has called it, waits for nobody, and has done nothing for 2.0 s; the "
                  "others stand at "
                  "40 %");
    notes[5].inside_ns = NOW - 300 * MS; /* it came only just now */
    says("");
}

static void who_is_slow(void **state)
{
    (void)state;
    everybody_waits();
    for (uint32_t r = 0; r < N; r++) notes[r].last.state.still_ms = 20;
    says(""); /* all move, nobody holds up the others */
    notes[5].last.state.waited = 50;
    says(""); /* a rank that waits little: between hosts everybody waits for the network */
    notes[5].last.state.absent = 800;
    notes[5].last.state.bytes_per_s_k = 3100;
    notes[5].last.state.waits.done = 120;
    says(THE_CALL "rank 5 (host h2, pid 75) is slow: it has done 12 % at 3.1 MB/s while the others stand at 40 % and "
                  "wait for it "
                  "90 % of the time");
    notes[6].last.state.absent = 800; /* two: it is the machine */
    says("");
}

static void a_ring_of_waits(void **state)
{
    (void)state;
    everybody_waits();
    says("");
    for (uint32_t r = 0; r < N; r++) notes[r].last.state.still_ms = 4000;
    says(THE_CALL "all wait for one another and nothing has moved for 4.0 s: rank 0 (host h0) for data of rank 7 "
                  "(host h3), rank 1 "
                  "(host h0) for data of rank 0 (host h0), rank 2 (host h1) for data of rank 1 (host h0), rank 3 "
                  "(host h1) for "
                  "data of rank 2 (host h1)");
}

static void communicators_crossed(void **state)
{
    (void)state;
    everybody_waits();
    has_not_called(5);
    notes[5].last.state.elsewhere = (struct watch_elsewhere){
        .number = 7, .signature = the_call(), .process = watch_process_of(&members[4])};
    says(THE_CALL "deadlock between communicators: rank 4 (host h2, pid 74) waits in it for rank 5 (host h2, pid "
                  "75), which waits "
                  "for that one in AllReduce #7 of 1000 float32, sum of another communicator. Make the calls in the "
                  "same order on "
                  "all ranks");
    notes[5].last.state.elsewhere.process = 4711; /* somebody else's */
    says(THE_CALL "rank 5 (host h2, pid 75) has not called it (it waits in AllReduce #7 of 1000 float32, sum of "
                  "another "
                  "communicator)");
}

/* ---- lanes ---- */

static void is_blamed(bool only_unreachable, const char *line)
{
    char text[WATCH_TEXT] = "";
    bool found = watch_blame(&view, only_unreachable, text, sizeof text);
    if (strcmp(text, line) != 0) print_message("said:     %s\nexpected: %s\n", text, line);
    assert_int_equal(found, line[0] != 0);
    assert_string_equal(text, line);
}

static void a_nic_that_all_complain_of(void **state)
{
    (void)state;
    everybody_waits();
    is_blamed(false, "");
    complains(0, 4, 1, false, "nothing came back for 250 ms");
    is_blamed(true, ""); /* other lanes lead there */
    is_blamed(false, "lanes have been down for 0.8 s: NIC eth1 (rail 1) of host h0 to NIC eth1 (rail 1) of host h2: "
                     "nothing came "
                     "back for 250 ms");
    complains(2, 4, 1, false, "nothing came back for 250 ms");
    complains(3, 5, 1, false, "");
    is_blamed(false, "lanes have been down for 0.8 s: NIC eth1 (rail 1) of host h2: nothing came back for 250 ms");
    complains(4, 0, 1, false, "the NIC has no carrier");
    is_blamed(false, "lanes have been down for 0.8 s: NIC eth1 (rail 1) of host h2: the NIC has no carrier");
}

static void a_nic_that_says_so_itself(void **state)
{
    (void)state;
    everybody_waits();
    complains(4, 0, 1, false, "the NIC has no carrier");
    is_blamed(false, "lanes have been down for 0.8 s: NIC eth1 (rail 1) of host h2: the NIC has no carrier");
}

static void a_rail_on_several_hosts(void **state)
{
    (void)state;
    everybody_waits();
    complains(0, 2, 1, false, "nothing came back for 250 ms");
    complains(4, 6, 1, false, "nothing came back for 250 ms");
    is_blamed(false, "lanes have been down for 0.8 s: rail 1, all of it (NIC eth1 of host h0 and 1 more lanes): "
                     "nothing came back "
                     "for 250 ms");
}

static void a_host_on_all_rails(void **state)
{
    (void)state;
    everybody_waits();
    complains(0, 4, 0, false, "nothing came back for 250 ms");
    complains(2, 5, 1, false, "");
    is_blamed(false, "lanes have been down for 0.8 s: host h2, on all its rails: nothing came back for 250 ms");
    everybody_waits();
    complains(0, 4, 0, true, "nothing came back for 250 ms");
    complains(2, 4, 0, true, "");
    is_blamed(true, "no lane has been up for 0.8 s: host h2, on all its rails: nothing came back for 250 ms");
}

static void a_wait_that_runs_into_it(void **state)
{
    (void)state;
    everybody_waits();
    complains(0, 7, 0, true, "nothing came back for 250 ms");
    complains(5, 7, 0, true, "");
    says(THE_CALL "rank 0 (host h0, pid 70) waits for rank 7 (host h3, pid 77): no lane has been up for 0.8 s: host "
                  "h3, on all its "
                  "rails: nothing came back for 250 ms");
}

static void what_a_peer_sends_may_be_nonsense(void **state)
{
    (void)state;
    struct watch_line out;
    unsigned seed = 1;
    for (int round = 0; round < 20000; round++) {
        everybody_waits();
        for (int k = 0; k < 12; k++) {
            uint8_t *at = (uint8_t *)&notes[(seed = seed * 1664525u + 1013904223u) >> 8 & (N - 1)].last.state;
            seed = seed * 1664525u + 1013904223u;
            at[(seed >> 8) % sizeof(struct watch_state)] = (uint8_t)(seed >> 24);
        }
        for (int r = 0; r < N; r++) notes[r].last.state.why[WATCH_WHY - 1] = 0; /* as watch_notes.c does */
        view.number = round % 3 ? CALL : WATCH_UNCOUNTED;
        (void)watch_conclude(&view, &out);
        assert_true(strlen(out.text) < sizeof out.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_never_called),
        cmocka_unit_test(who_does_not_answer),
        cmocka_unit_test(who_is_behind_a_silent_one_is_not_blamed),
        cmocka_unit_test(who_is_in_an_earlier_call_is_followed_there),
        cmocka_unit_test(who_waits_for_one_further_back_is_not_blamed),
        cmocka_unit_test(whom_all_wait_for),
        cmocka_unit_test(who_is_slow),
        cmocka_unit_test(a_ring_of_waits),
        cmocka_unit_test(communicators_crossed),
        cmocka_unit_test(a_nic_that_all_complain_of),
        cmocka_unit_test(a_nic_that_says_so_itself),
        cmocka_unit_test(a_rail_on_several_hosts),
        cmocka_unit_test(a_host_on_all_rails),
        cmocka_unit_test(a_wait_that_runs_into_it),
        cmocka_unit_test(what_a_peer_sends_may_be_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
