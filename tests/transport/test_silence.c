/* test_silence.c - which lanes are taken for dead: the decision alone, over histories of lanes made of a few numbers.
 *
 * The lanes imitate what TCP does: work moves every few milliseconds; what is lost at the tail is sent anew after the
 * timeout, which doubles; small frames that are put on an idle lane are acknowledged after the round trip, if it
 * lives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/link/silence.h"

enum { LANES = 4, TIMEOUT_MS = 200 };

enum kind {
    IDLE,   /* nothing to send */
    BUSY,   /* has work, always */
    BURSTS, /* a message of one segment every 10 ms */
    UNREAD, /* has work; the far end takes nothing from `from_ms` on */
    LATE,   /* all it had has arrived, and is not released: the far rank is elsewhere */
    MUTE,   /* the same, and the far process does not read it from `from_ms` on */
};

struct story {
    const char *name;
    struct { /* from_ms: it is dead, or unread, from then on; 0: never. rtt_us 0: there is no such lane */
        enum kind kind;
        int from_ms, every_ms, percent_lost, rtt_us;
    } lane[LANES];
    int away_ms, away_to_ms;       /* the far host, or all of the fabric */
    int stopped_ms;                /* the far process: its kernel still acknowledges, until buffers are full */
    bool quiet;                    /* the far process says nothing unless it is asked */
    bool no_probe_of_tail;         /* the kernel has no TLP */
    int late_ms, late_by_ms;       /* this process does not run */
    int often_late_by_ms;          /* every tick comes late by up to that */
    int for_ms;
    enum silence_cause cause;      /* what is to be found, at the latest ... */
    int lane_found, from_ms, to_ms;
};

struct lane_model {
    struct silence_lane silence;
    int next_move_ms;              /* work moves */
    int lost_ms;                   /* what is in flight was lost, or goes to a dead end, since then; -1: not */
    int repeat_ms, timeout_ms;
    int repeats_now;
    uint64_t acked, delivered, frames, reader_us;
    uint32_t repeats;
    bool small;                    /* a probe is in flight */
    int answer_ms;                 /* an answer to our question comes; -1: none */
};

static uint64_t random_state;
static uint32_t percent(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((random_state >> 33) % 100);
}

static bool is_dead(const struct story *s, int i, int ms)
{
    if (s->away_to_ms && ms >= s->away_ms && ms < s->away_to_ms) return true;
    return s->lane[i].kind != UNREAD && s->lane[i].kind != MUTE && s->lane[i].from_ms && ms >= s->lane[i].from_ms;
}

static bool is_held_back(const struct story *s, int i, int ms)
{
    if (s->stopped_ms && ms >= s->stopped_ms + 20 + 7 * i) return s->lane[i].kind != IDLE; /* buffers fill one by one */
    return s->lane[i].kind == UNREAD && s->lane[i].from_ms && ms >= s->lane[i].from_ms;
}

static bool has_work(const struct story *s, const struct lane_model *m, int i, int ms)
{
    if (m->small || m->lost_ms >= 0) return true;
    return s->lane[i].kind == BUSY || s->lane[i].kind == UNREAD || (s->lane[i].kind == BURSTS && ms % 10 < 2);
}

static void step_lost(const struct story *s, struct lane_model *m, int i, int ms)
{
    if (ms < m->repeat_ms) return;
    m->repeats++;
    m->repeats_now++;
    m->repeat_ms = ms + m->timeout_ms;
    m->timeout_ms *= 2;
    if (is_dead(s, i, ms) || percent() < (uint32_t)s->lane[i].percent_lost) return;
    m->lost_ms = -1;
    m->small = false;
    m->acked += 1000;
    m->delivered++;
}

static void step(const struct story *s, struct lane_model *m, int i, int ms)
{
    int rtt_ms = s->lane[i].rtt_us / 1000, every_ms = s->lane[i].every_ms ? s->lane[i].every_ms : 1;
    bool runs = !s->stopped_ms || ms < s->stopped_ms;
    if (!is_dead(s, i, ms)) {
        bool speaks = s->lane[i].kind == BUSY || s->lane[i].kind == BURSTS;
        if (runs && !s->quiet && speaks && ms % 5 == 0) m->frames++;
        bool reads = s->lane[i].kind != MUTE || ms < s->lane[i].from_ms;
        if (runs && reads && m->answer_ms >= 0 && ms >= m->answer_ms) m->frames++, m->answer_ms = -1;
    }
    if (m->lost_ms >= 0) {
        step_lost(s, m, i, ms);
        return;
    }
    if (is_held_back(s, i, ms) && !m->small) {
        m->reader_us += 1000;
        return;
    }
    if (!has_work(s, m, i, ms) || ms < m->next_move_ms) return;
    if (is_dead(s, i, ms) || percent() < (uint32_t)s->lane[i].percent_lost) {
        bool alone = s->lane[i].kind == BURSTS || m->small;
        m->lost_ms = ms;
        m->timeout_ms = TIMEOUT_MS + rtt_ms;
        m->repeat_ms = ms + (s->no_probe_of_tail || alone ? m->timeout_ms : 2 * rtt_ms + 1);
        if (s->no_probe_of_tail) m->timeout_ms *= 2;
        return;
    }
    m->acked += 1000;
    m->delivered++;
    m->small = false;
    m->next_move_ms = ms + every_ms;
}

static void look(const struct story *s, struct lane_model *m, int i, int ms)
{
    struct silence_lane *l = &m->silence;
    bool works = has_work(s, m, i, ms), held = is_held_back(s, i, ms) && m->lost_ms < 0 && !m->small;
    l->rail = (uint32_t)i;
    l->free = true;
    l->look = (struct silence_look){.acked_bytes = m->acked, .received_bytes = m->frames, .outstanding = works};
    l->look.carries = s->lane[i].kind == LATE || s->lane[i].kind == MUTE;
    if (!works) return;
    l->look.known = true;
    l->look.in_flight_segments = !held;
    l->look.unsent_bytes = held ? 100000 : 0;
    l->look.round_trip_us = (uint32_t)s->lane[i].rtt_us;
    l->look.repeats = m->repeats;
    l->look.delivered = m->delivered;
    l->look.reader_us = m->reader_us;
}

/* The first verdict with a cause and when it fell; probes and questions are carried out. */
static struct silence_verdict run(const struct story *s, uint64_t seed, int *at_ms, int *n_frames)
{
    struct lane_model models[LANES] = {0};
    struct silence_lane *lanes[LANES];
    struct silence_peer peer = {0};
    struct silence_verdict v = {0};
    uint32_t n = 0;
    random_state = seed;
    for (int i = 0; i < LANES; i++) {
        models[i].lost_ms = models[i].answer_ms = -1;
        if (s->lane[i].rtt_us) lanes[n++] = &models[i].silence;
    }
    int next_tick_ms = 0;
    *n_frames = 0;
    for (*at_ms = 0; *at_ms < s->for_ms; ++*at_ms) {
        for (uint32_t i = 0; i < n; i++) step(s, &models[i], (int)i, *at_ms);
        if (s->late_by_ms && *at_ms >= s->late_ms && *at_ms < s->late_ms + s->late_by_ms) continue;
        if (*at_ms < next_tick_ms) continue;
        next_tick_ms = *at_ms + 25 + (s->often_late_by_ms ? (int)percent() * s->often_late_by_ms / 100 : 0);
        for (uint32_t i = 0; i < n; i++) look(s, &models[i], (int)i, *at_ms);
        v = silence_judge(&peer, lanes, n, RAIL_NS_PER_S + (uint64_t)*at_ms * RAIL_NS_PER_MS);
        if (v.cause != SILENCE_NONE) return v;
        if (v.wish == SILENCE_NOTHING) continue;
        assert_true(v.on < n);
        assert_false(models[v.on].silence.look.outstanding);
        models[v.on].small = true;
        ++*n_frames;
        if (v.wish == SILENCE_ASK) models[v.on].answer_ms = *at_ms + 2;
    }
    return v;
}

#define A(kind) {kind, .rtt_us = 200}
#define BAD(kind) {kind, 1000, .rtt_us = 200} /* from 1000 ms on */
#define FINDS(what, index, least_ms, most_ms) .for_ms = 30000, .cause = SILENCE_##what, .lane_found = index, \
                                              .from_ms = least_ms, .to_ms = most_ms
#define FINDS_NONE .for_ms = 60000

static const struct story stories[] = {
    {"four busy lanes", {A(BUSY), A(BUSY), A(BUSY), A(BUSY)}, FINDS_NONE},
    {"four lanes with a message now and then", {A(BURSTS), A(BURSTS), A(BURSTS), A(BURSTS)}, FINDS_NONE},
    {"one dies, the others are busy", {BAD(BUSY), A(BUSY), A(BUSY)}, FINDS(SILENT, 0, 1250, 1330)},
    {"one dies, and the kernel does not probe tails", {A(BUSY), BAD(BUSY)}, .no_probe_of_tail = true,
     FINDS(SILENT, 1, 1600, 1700)},
    {"one dies with a single segment, as the others carry", {BAD(BURSTS), A(BURSTS)}, FINDS(SILENT, 0, 1400, 1500)},
    {"one dies, the others have nothing to do", {A(IDLE), A(IDLE), BAD(BUSY)}, FINDS(SILENT, 2, 1250, 1360)},
    {"the only lane in use dies, and so has the first sibling that could prove it", {BAD(IDLE), BAD(BUSY), A(IDLE)},
     FINDS(SILENT, 1, 1250, 1500)},
    {"one dies on a long way (60 ms): eight round trips",
     {{BUSY, 1000, .rtt_us = 60000}, {BUSY, .rtt_us = 60000}}, FINDS(SILENT, 0, 1480, 1650)},
    {"one loses 1 % always, then dies: it needs more repeats", {{BURSTS, 20000, 0, 1, 200}, A(BUSY)},
     FINDS(SILENT, 0, 20400, 21000)},
    {"all die: there is nobody to prove anything", {BAD(BUSY), BAD(BUSY), BAD(BUSY), BAD(BUSY)}, FINDS_NONE},
    {"the last lane dies", {BAD(BUSY)}, FINDS_NONE},
    {"the only lane in use dies, and all that are idle", {BAD(BUSY), BAD(IDLE)}, FINDS_NONE},
    {"a rail at a tenth of its rate: 64 KiB take 26 ms", {{BUSY, 0, 26, 0, 50000}, A(BUSY)}, FINDS_NONE},
    {"a rail at a hundredth: 64 KiB take 260 ms", {{BUSY, 0, 260, 0, 500000}, A(BUSY)}, FINDS_NONE},
    {"the far host goes away for 3 s and comes back", {A(BUSY), A(BUSY), A(BUSY), A(BUSY)},
     .away_ms = 1000, .away_to_ms = 4000, FINDS_NONE},
    {"the far host goes away for 150 ms", {A(BURSTS), A(BURSTS), A(BURSTS), A(BURSTS)},
     .away_ms = 1000, .away_to_ms = 1150, FINDS_NONE},
    {"the far host goes away while one lane alone is used", {A(BUSY), A(IDLE)},
     .away_ms = 1000, .away_to_ms = 9000, FINDS_NONE},
    {"the far process is stopped", {A(BUSY), A(BUSY), A(BUSY), A(BUSY)}, .stopped_ms = 1000, FINDS_NONE},
    {"the far process is stopped, and some lanes are idle", {A(BUSY), A(IDLE), A(IDLE)}, .stopped_ms = 1000,
     FINDS_NONE},
    {"one is not read, the process speaks on the others", {BAD(UNREAD), A(BUSY)}, FINDS(UNREAD, 0, 2000, 2100)},
    {"one is not read, the process speaks when it is asked", {BAD(UNREAD), A(IDLE)}, .quiet = true,
     FINDS(UNREAD, 0, 2000, 2200)},
    {"the last lane is not read", {BAD(UNREAD)}, FINDS_NONE},
    {"one is not read, and its kernel has room for all", {BAD(MUTE), A(BUSY)}, FINDS(MUTE, 0, 3000, 5200)},
    {"one is not read, its kernel has room, the process speaks when it is asked", {A(IDLE), BAD(MUTE)}, .quiet = true,
     FINDS(MUTE, 1, 3000, 5200)},
    {"all are not read, their kernels have room", {BAD(MUTE), BAD(MUTE)}, FINDS_NONE},
    {"a rank is late", {A(LATE), A(LATE), A(IDLE)}, .quiet = true, FINDS_NONE},
    {"a rank is late, and its process is stopped", {A(LATE), A(LATE), A(IDLE)}, .stopped_ms = 1000, FINDS_NONE},
    {"the last lane is not read, its kernel has room", {BAD(MUTE)}, FINDS_NONE},
    {"this process is away for 5 s: lanes that move again are left alone", {A(BUSY), A(BUSY)},
     .late_ms = 1000, .late_by_ms = 5000, FINDS_NONE},
    {"a lane dies while this process is away: its time begins afterwards", {{BUSY, 2000, .rtt_us = 200}, A(BUSY)},
     .late_ms = 1900, .late_by_ms = 2000, FINDS(SILENT, 0, 4150, 7000)},
    {"ticks late by up to 90 ms, and one dies", {BAD(BUSY), A(BUSY)}, .often_late_by_ms = 90,
     FINDS(SILENT, 0, 1250, 1750)},
    {"ticks late by up to 90 ms, four busy lanes", {A(BUSY), A(BUSY), A(BUSY), A(BUSY)}, .often_late_by_ms = 90,
     FINDS_NONE},
};

static void each_story_ends_as_it_should(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
        const struct story *s = &stories[i];
        int at_ms, n_frames;
        struct silence_verdict v = run(s, 1, &at_ms, &n_frames);
        bool right = v.cause == s->cause &&
                     (s->cause == SILENCE_NONE || ((int)v.suspect == s->lane_found && at_ms >= s->from_ms &&
                         at_ms <= s->to_ms));
        if (!right)
            fail_msg("%s: cause %d, lane %u, after %d ms (quiet %d ms, %u repeats)", s->name, (int)v.cause, v.suspect,
                at_ms,
                     (int)(v.quiet_ns / RAIL_NS_PER_MS), v.repeats);
    }
}

/* Messages of one segment each are the worst for TCP: every loss is one at the tail. An hour, for each of several
 * seeds. */
static void one_percent_of_loss_is_no_silence(void **state)
{
    (void)state;
    struct story s = {"", {{BURSTS, 0, 0, 1, 200}, {BURSTS, 0, 0, 1, 200}, A(BUSY)}, .for_ms = 3600000};
    for (uint64_t seed = 1; seed <= 4; seed++) {
        int at_ms, n_frames;
        struct silence_verdict v = run(&s, seed, &at_ms, &n_frames);
        if (v.cause != SILENCE_NONE) fail_msg("seed %d: lane %u after %d ms, %u repeats", (int)seed, v.suspect, at_ms,
            v.repeats);
    }
}

/* What is put on idle lanes is little: one probe for each repeat, one question a second. */
static void a_stopped_process_is_not_buried_in_questions(void **state)
{
    (void)state;
    struct story s = {"", {A(BUSY), {IDLE, .rtt_us = 200}}, .stopped_ms = 1000, .for_ms = 61000};
    int at_ms, n_frames;
    assert_int_equal(run(&s, 1, &at_ms, &n_frames).cause, SILENCE_NONE);
    assert_in_range(n_frames, 55, 65);
}

/* Two lanes carry what the late rank has not released: each is asked once a second. */
static void a_late_rank_is_asked_little(void **state)
{
    (void)state;
    struct story s = {"", {A(LATE), A(LATE), A(IDLE)}, .quiet = true, .for_ms = 60000};
    int at_ms, n_frames;
    assert_int_equal(run(&s, 1, &at_ms, &n_frames).cause, SILENCE_NONE);
    assert_in_range(n_frames, 100, 130);
}

static void healthy_lanes_get_no_frames(void **state)
{
    (void)state;
    struct story s = {"", {A(BUSY), A(BUSY), A(BUSY), A(BUSY)}, .for_ms = 60000};
    int at_ms, n_frames;
    assert_int_equal(run(&s, 1, &at_ms, &n_frames).cause, SILENCE_NONE);
    assert_int_equal(n_frames, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_story_ends_as_it_should),
        cmocka_unit_test(one_percent_of_loss_is_no_silence),
        cmocka_unit_test(a_stopped_process_is_not_buried_in_questions),
        cmocka_unit_test(a_late_rank_is_asked_little),
        cmocka_unit_test(healthy_lanes_get_no_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
