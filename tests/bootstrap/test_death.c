/* Ranks as processes that die, abort or leave: the others hear of it, all of the same culprit, and in time. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "bootstrap/gang.h"
#include "topo/machine.h"

enum { RANKS_MAX = 24 };

enum event { JOINED, LOST, ENDED };

struct report {
    enum event event;
    uint32_t rank, culprit;
    enum rail_result result;
    double seconds;
    char text[480];
};

struct process { pid_t pid; uint32_t rank; };

/* Who is who, as core exchanges it. */
struct person { struct bootstrap_place place; uint64_t host_key; uint32_t pid; };
static struct person people[RANKS_MAX];

static bool who(void *owner, uint32_t rank, struct bootstrap_who *out)
{
    (void)owner;
    *out = (struct bootstrap_who){&people[rank].place, people[rank].host_key, people[rank].pid, "here"};
    return true;
}

static enum rail_result introduce(struct bootstrap *b, uint32_t rank)
{
    people[rank].host_key = machine_host_key();
    people[rank].pid = (uint32_t)getpid();
    enum rail_result result = bootstrap_place_here(&people[rank].place);
    if (result == RAIL_OK) result = bootstrap_allgather(b, people, sizeof *people, rail_deadline_never());
    if (result == RAIL_OK) bootstrap_know(b, who, NULL);
    return result;
}

static struct process processes[RANKS_MAX];
static int reports; /* the reading end */

static void report(int to, struct report r)
{
    if (write(to, &r, sizeof r) != sizeof r) _exit(99); /* below PIPE_BUF: whole */
}

/* What a child process is: joins, watches, works until told to end by a closed pipe. */
struct role {
    uint32_t n;
    const uint8_t *id;
    int out, go; /* reports; end of file on `go` means: close and end */
    double deadline_s;
    int collectives;    /* then */
    bool watch, tells;  /* tells: calls bootstrap_tell about itself */
    bool tells_before_watch;
    bool introduced; /* everybody knows who is who */
};

struct listener { int out; uint32_t rank; };

static void lost(void *owner, uint32_t culprit, enum rail_result result, const char *text)
{
    const struct listener *l = owner;
    struct report r = {.event = LOST, .rank = l->rank, .culprit = culprit, .result = result};
    snprintf(r.text, sizeof r.text, "%s", text);
    report(l->out, r);
}

static void live(const struct role *role, uint32_t rank)
{
    struct listener listener = {role->out, rank};
    struct bootstrap *b = NULL;
    uint64_t start = rail_now_ns();
    struct bootstrap_config config = {.id = role->id, .rank = rank, .n_ranks = role->n,
                                      .deadline = rail_deadline_in_ns((uint64_t)(role->deadline_s * 1e9))};
    uint8_t table[RANKS_MAX * 100] = {0};
    enum rail_result result = bootstrap_open(&config, &b);
    if (result == RAIL_OK && role->introduced) result = introduce(b, rank);
    if (result == RAIL_OK) report(role->out, (struct report){.event = JOINED, .rank = rank});
    /* Else the news could come while another is still joining, whose open then fails instead. */
    if (result == RAIL_OK && (role->tells || role->tells_before_watch)) result = bootstrap_barrier(b, config.deadline);
    if (result == RAIL_OK && role->tells_before_watch && rank == 2)
        bootstrap_tell(b, rank, RAIL_E_ABORTED, "rank 2 called it off");
    if (result == RAIL_OK && role->tells_before_watch) usleep(200000);
    const struct bootstrap_watch watch = {.lost = lost, .owner = &listener};
    if (result == RAIL_OK && role->watch) result = bootstrap_watch(b, watch);
    for (int i = 0; i < role->collectives && result == RAIL_OK; i++)
        result = bootstrap_allgather(b, table, (size_t)i % 100,
                                     rail_deadline_in_ns((uint64_t)(role->deadline_s * 1e9)));
    struct report end = {.event = ENDED, .rank = rank, .result = result,
        .seconds = (double)(rail_now_ns() - start) / 1e9};
    if (result != RAIL_OK) snprintf(end.text, sizeof end.text, "%s", rail_last_error());
    if (result == RAIL_OK && role->tells && rank == 2) {
        bootstrap_tell(b, rank, RAIL_E_ABORTED, "rank 2 called ncclCommAbort");
        bootstrap_tell(b, 1, RAIL_E_REMOTE, "a second piece of news that nobody should hear");
    }
    char byte;
    if (result == RAIL_OK && role->watch && read(role->go, &byte, 1) != 0) _exit(98);
    bootstrap_close(b);
    report(role->out, end);
    _exit(0);
}

/* Starts all; returns the writing end whose closing lets them end. */
static int start(struct role role)
{
    int out[2], go[2];
    uint8_t id[BOOTSTRAP_ID_BYTES];
    new_id(id);
    if (pipe(out) != 0 || pipe(go) != 0) abort();
    role.id = id;
    role.out = out[1];
    role.go = go[0];
    for (uint32_t r = 0; r < role.n; r++) {
        processes[r].rank = r;
        processes[r].pid = fork();
        if (processes[r].pid == 0) {
            close(go[1]);
            close(out[0]);
            live(&role, r);
        }
    }
    close(out[1]);
    close(go[0]);
    reports = out[0];
    return go[1];
}

/* The next report, or false at the end of all processes. Nothing for 20 s is a hang. */
static bool next(struct report *out)
{
    struct pollfd p = {.fd = reports, .events = POLLIN};
    if (poll(&p, 1, 20000) <= 0) fail_msg("no report for 20 s: somebody hangs");
    ssize_t n = read(reports, out, sizeof *out);
    return n == sizeof *out;
}

static void finish(uint32_t n)
{
    for (uint32_t r = 0; r < n; r++) {
        int status;
        if (waitpid(processes[r].pid, &status, 0) != processes[r].pid) fail_msg("rank %u is lost", r);
        if (WIFSIGNALED(status)) assert_int_equal(WTERMSIG(status), SIGKILL);
        else assert_int_equal(WEXITSTATUS(status), 0);
    }
    close(reports);
}

static void await_joined(uint32_t n)
{
    struct report r;
    for (uint32_t joined = 0; joined < n; ) {
        if (!next(&r)) fail_msg("they ended before all had joined");
        if (r.event == ENDED) fail_msg("rank %u: %s", r.rank, r.text);
        joined += r.event == JOINED;
    }
}

static void a_killed_rank_is_named_by_every_survivor(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    static const uint32_t victims[] = {0, 1, 2, 11, 19}; /* top, inner with children, inner, leaves */
    for (size_t v = 0; v < sizeof victims / sizeof victims[0]; v++) {
        char expected[64];
        uint32_t n = 20, heard = 0;
        int go = start((struct role){.n = n, .deadline_s = 20, .watch = true});
        await_joined(n);
        usleep(20000); /* all are past bootstrap_watch, or hear it when they get there */
        uint64_t killed_ns = rail_now_ns();
        kill(processes[victims[v]].pid, SIGKILL);
        snprintf(expected, sizeof expected, "rank %u (host ", victims[v]);
        for (struct report r; heard < n - 1 && next(&r); ) {
            if (r.event != LOST) continue;
            assert_int_equal(r.culprit, victims[v]);
            assert_int_equal(r.result, RAIL_E_REMOTE);
            assert_int_not_equal(r.rank, victims[v]);
            if (!strstr(r.text, expected) || !strstr(r.text, "died")) fail_msg("%s", r.text);
            heard++;
        }
        assert_int_equal(heard, n - 1);
        assert_true(rail_now_ns() - killed_ns < 5 * RAIL_NS_PER_S);
        close(go);
        for (struct report r; next(&r); ) assert_int_not_equal(r.event, LOST); /* once each */
        finish(n);
    }
}

/* Whoever is cut off from rank 0 by that appeals to it, or to the lowest rank that is left. */
static void of_ranks_that_die_together_all_survivors_name_the_same(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    /* two inner nodes; an inner node and a leaf elsewhere; the top and a child; the top and a leaf; four at once */
    static const uint32_t victims[][4] = {{1, 2, 99, 99}, {2, 9, 99, 99}, {0, 1, 99, 99}, {0, 19, 99, 99},
                                          {0, 1, 2, 3}};
    for (size_t v = 0; v < sizeof victims / sizeof victims[0]; v++) {
        char text[480] = "";
        uint32_t n = 20, dead = 0, heard = 0, culprit = 99;
        int go = start((struct role){.n = n, .deadline_s = 20, .watch = true, .introduced = true});
        await_joined(n);
        usleep(20000);
        uint64_t killed_ns = rail_now_ns();
        for (; dead < 4 && victims[v][dead] < n; dead++) kill(processes[victims[v][dead]].pid, SIGKILL);
        for (struct report r; heard < n - dead && next(&r); heard += r.event == LOST) {
            if (r.event != LOST) continue;
            if (!text[0]) snprintf(text, sizeof text, "%s", r.text);
            if (strcmp(text, r.text) != 0) fail_msg("rank %u says: %s; others: %s", r.rank, r.text, text);
            culprit = r.culprit;
        }
        assert_int_equal(heard, n - dead);
        assert_int_equal(culprit, victims[v][0]);
        assert_true(rail_now_ns() - killed_ns < 3 * RAIL_NS_PER_S);
        close(go);
        for (struct report r; next(&r); ) assert_int_not_equal(r.event, LOST);
        finish(n);
    }
}

static void an_abort_is_told_to_all_others_once(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    uint32_t n = 12, heard = 0;
    int go = start((struct role){.n = n, .deadline_s = 20, .watch = true, .tells = true});
    for (struct report r; heard < n - 1 && next(&r); ) {
        if (r.event != LOST) continue;
        assert_int_not_equal(r.rank, 2);
        assert_int_equal(r.culprit, 2);
        assert_int_equal(r.result, RAIL_E_ABORTED);
        assert_string_equal(r.text, "rank 2 called ncclCommAbort");
        heard++;
    }
    assert_int_equal(heard, n - 1);
    close(go);
    for (struct report r; next(&r); ) assert_int_not_equal(r.event, LOST);
    finish(n);
}

static void news_from_before_the_watch_is_reported_when_it_starts(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    uint32_t n = 10, heard = 0;
    int go = start((struct role){.n = n, .deadline_s = 20, .watch = true, .tells_before_watch = true});
    for (struct report r; heard < n - 1 && next(&r); ) {
        if (r.event != LOST) continue;
        assert_int_equal(r.culprit, 2);
        assert_string_equal(r.text, "rank 2 called it off");
        heard++;
    }
    assert_int_equal(heard, n - 1);
    close(go);
    while (next(&(struct report){0})) {}
    finish(n);
}

static void closing_is_no_death(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    for (int round = 0; round < 3; round++) {
        uint32_t n = 20, ended = 0;
        int go = start((struct role){.n = n, .deadline_s = 20, .watch = true, .collectives = 5});
        await_joined(n);
        usleep(30000);
        close(go); /* all close at once, in no order */
        for (struct report r; next(&r); ) {
            if (r.event == LOST) fail_msg("rank %u: %s", r.rank, r.text);
            if (r.event == ENDED && r.result != RAIL_OK) fail_msg("rank %u: %s", r.rank, r.text);
            ended += r.event == ENDED;
        }
        assert_int_equal(ended, n);
        finish(n);
    }
}

/* From before the first connection to after the last collective. */
static void whenever_a_rank_dies_the_survivors_end_and_name_it(void **state)
{
    (void)state;
    skip_where_forking_is_not_allowed();
    const char *given = getenv("RAILCCL_TEST_SEED"), *long_run = getenv("RAILCCL_TEST_LONG");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 4711;
    int rounds = long_run && long_run[0] == '1' ? 300 : 15, failed = 0;
    print_message("seed %u (RAILCCL_TEST_SEED)\n", seed);
    for (int round = 0; round < rounds; round++) {
        uint32_t n = 2 + (uint32_t)rand_r(&seed) % 17, victim = (uint32_t)rand_r(&seed) % n, ended = 0;
        useconds_t after_us = (useconds_t)(rand_r(&seed) % 60000);
        char name[32];
        snprintf(name, sizeof name, "rank %u ", victim);
        int go = start((struct role){.n = n, .deadline_s = 5, .collectives = 200});
        usleep(after_us);
        kill(processes[victim].pid, SIGKILL);
        for (struct report r; next(&r); ) {
            if (r.event != ENDED || r.rank == victim) continue;
            ended++;
            if (r.seconds > 14) fail_msg("rank %u of %u took %.1f s: %s", r.rank, n, r.seconds, r.text);
            failed += r.result != RAIL_OK;
            if (r.result != RAIL_OK && !strstr(r.text, name))
                fail_msg("rank %u of %u killed after %u us, rank %u says: %s", victim, n, (unsigned)after_us, r.rank,
                         r.text);
        }
        assert_int_equal(ended, n - 1);
        close(go);
        finish(n);
    }
    print_message("%d rounds, %d survivors met an error\n", rounds, failed);
    assert_true(failed > 0); /* else it always came too late, and nothing was tested */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_is_named_by_every_survivor),
        cmocka_unit_test(of_ranks_that_die_together_all_survivors_name_the_same),
        cmocka_unit_test(an_abort_is_told_to_all_others_once),
        cmocka_unit_test(news_from_before_the_watch_is_reported_when_it_starts),
        cmocka_unit_test(closing_is_no_death),
        cmocka_unit_test(whenever_a_rank_dies_the_survivors_end_and_name_it),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, warm_up, NULL);
}
