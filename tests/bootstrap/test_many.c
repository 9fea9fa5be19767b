/* How long 512 processes take to join, to gather 512 bytes from each, and to close. Skipped unless
 * RAILCCL_TEST_LONG=1. */
#include <sys/resource.h>
#include <sys/wait.h>

#include "bootstrap/gang.h"

enum { RANKS = 512, EACH = 512 };

static double cpu_s(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int live(const uint8_t *id, uint32_t rank)
{
    static uint8_t table[RANKS * EACH];
    struct bootstrap *b;
    struct bootstrap_config config = {.id = id, .rank = rank, .n_ranks = RANKS,
                                      .deadline = rail_deadline_in_ns(60 * RAIL_NS_PER_S)};
    if (bootstrap_open(&config, &b) != RAIL_OK) return 1;
    for (uint32_t i = 0; i < EACH; i++) table[rank * EACH + i] = (uint8_t)(rank * 7 + i);
    if (bootstrap_allgather(b, table, EACH, config.deadline) != RAIL_OK) return 2;
    for (uint32_t i = 0; i < RANKS * EACH; i++)
        if (table[i] != (uint8_t)(i / EACH * 7 + i % EACH)) return 3;
    bootstrap_close(b);
    return 0;
}

static void five_hundred_and_twelve_processes_join_and_gather(void **state)
{
    (void)state;
    const char *wanted = getenv("RAILCCL_TEST_LONG");
    if (!wanted || wanted[0] != '1') {
        print_message("RAILCCL_TEST_LONG=1 runs this\n");
        skip();
    }
    skip_where_forking_is_not_allowed();
    uint8_t id[BOOTSTRAP_ID_BYTES];
    int go[2], failed = 0, status;
    new_id(id);
    assert_int_equal(pipe(go), 0);
    for (uint32_t r = 0; r < RANKS; r++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child > 0) continue;
        char byte;
        close(go[1]);
        _exit(read(go[0], &byte, 1) == 0 ? live(id, r) : 4); /* all start when the pipe is closed */
    }
    close(go[0]);
    sleep(1);
    double cpu_before_s = cpu_s(RUSAGE_SELF);
    uint64_t start = rail_now_ns();
    close(go[1]);
    while (wait(&status) > 0) failed += status != 0;
    double wall_s = (double)(rail_now_ns() - start) / 1e9;
    print_message("%d processes: open, all-gather of %d bytes each, close, exit: %.2f s; processor time %.2f s (ranks, "
                  "with "
                  "fork and exit) + %.2f s (root); %ld cores\n", RANKS, EACH, wall_s, cpu_s(RUSAGE_CHILDREN),
                  cpu_s(RUSAGE_SELF) - cpu_before_s, sysconf(_SC_NPROCESSORS_ONLN));
    assert_int_equal(failed, 0);
    assert_true(wall_s < 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(five_hundred_and_twelve_processes_join_and_gather)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
