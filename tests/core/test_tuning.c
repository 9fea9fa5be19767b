/* test_tuning.c - the file of measured limits: what is read, what is refused and how, whose counts, and what beats it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/comm_handle.h"
#include "core/comm.h"
#include "core/tuning.h"
#include "support/job.h"

enum { ONESHOT, ONESHOT_REDUCE, TWOSHOT };

/* ---- text ---- */

static struct tuning_file file;
static char why[TUNING_WHY_BYTES];
static bool parsed(const char *text) { return tuning_parse(text, strlen(text), &file, why); }

static void sections_and_limits_are_read(void **state)
{
    (void)state;
    assert_true(
        parsed("# a comment\n\n[ranks=4 hosts=1]\r\n  RAILCCL_ONESHOT_MAX_BYTES=24576 \nRAILCCL_TWOSHOT_MAX_BYTES=0\n"
               "[ranks=8 hosts=2]\nRAILCCL_RAILS_MIN_BYTES=1099511627776")); /* no last line end */
    assert_int_equal(file.n_rules, 2);
    const struct tuning *four = tuning_find(&file, 4, 1);
    assert_non_null(four);
    assert_int_equal(four->set, 1 << ONESHOT | 1 << TWOSHOT);
    assert_int_equal(four->bytes[ONESHOT], 24576);
    assert_non_null(tuning_find(&file, 8, 2));
    assert_null(tuning_find(&file, 8, 1));
    assert_null(tuning_find(NULL, 4, 1));
    assert_true(tuning_knows(&file, 8));
    assert_false(tuning_knows(&file, 2));
}

static void the_last_of_two_sections_wins(void **state)
{
    (void)state;
    assert_true(
        parsed("[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=1\n[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=2\n"));
    assert_int_equal(tuning_find(&file, 2, 1)->bytes[ONESHOT], 2);
}

static void anything_else_refuses_the_whole_file_and_names_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"RAILCCL_ONESHOT_MAX_BYTES=1\n", "line 1, \"RAILCCL_ONESHOT_MAX_BYTES=1\": it stands before"},
        {"[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=1\nhello\n", "line 3, \"hello\": want"},
        {"[ranks=2 hosts=1]\nRAILCCL_ALGO=1\n", "line 2, \"RAILCCL_ALGO=1\": no limit"},
        {"[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=24K\n", "want a number of bytes"},
        {"[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=-1\n", "want a number of bytes"},
        {"[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=\n", "want a number of bytes"},
        {"[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=99999999999999999999\n", "want a number of bytes"},
        {"[ranks=2 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=1099511627777\n", "want a number of bytes"},
        {"[ranks=2]\n", "want [ranks=N hosts=N]"},
        {"[ranks=2 hosts=1] x\n", "want [ranks=N hosts=N]"},
        {"[ranks=2 hosts=3]\n", "hosts <= ranks"},
        {"[ranks=0 hosts=0]\n", "hosts <= ranks"},
        {"\x7f"
         "ELF\x02\x01\n",
         "line 1, \"?ELF??\""},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        if (parsed(cases[k].text) || !strstr(why, cases[k].words))
            fail_msg("case %zu: \"%s\", not \"%s\"", k, why, cases[k].words);
        assert_int_equal(file.n_rules, 0);
    }
    assert_false(tuning_parse("[ranks=2 hosts=1]\0\n", 19, &file, why));
}

static void too_many_sections_are_refused(void **state)
{
    (void)state;
    char *text = calloc(TUNING_RULES_MAX + 1, 20);
    for (int k = 0; k <= TUNING_RULES_MAX; k++) strcat(text, "[ranks=2 hosts=1]\n");
    assert_false(parsed(text));
    assert_non_null(strstr(why, "too many"));
    free(text);
}

/* ---- the table ---- */

static void measured_limits_beat_the_built_in_ones_and_the_environment_beats_both(void **state)
{
    (void)state;
    const uint64_t keys[4] = {1, 1, 1, 1};
    const struct comm_config config = {.min_channels = CONFIG_UNSET, .max_channels = CONFIG_UNSET};
    const struct tuning measured = {.set = 1 << ONESHOT, .bytes = {[ONESHOT] = 4096}};
    struct choice_table built_in, table;
    struct shape shape;
    assert_int_equal(shape_build(&shape, 4, keys, 1), 0);
    choice_table_default(&built_in, &shape);
    assert_int_equal(table_make(&table, &shape, 4, &config, NULL), RAIL_OK);
    assert_int_equal(choice_table_hash(&table), choice_table_hash(&built_in));
    assert_int_equal(table_make(&table, &shape, 4, &config, &measured), RAIL_OK);
    assert_int_equal(table.one_shot_max_bytes, 4096);
    assert_int_equal(table.one_shot_reduce_max_bytes, built_in.one_shot_reduce_max_bytes);
    setenv("RAILCCL_ONESHOT_MAX_BYTES", "100", 1);
    rail_params_reload();
    assert_int_equal(table_make(&table, &shape, 4, &config, &measured), RAIL_OK);
    assert_int_equal(table.one_shot_max_bytes, 100);
    assert_int_equal(table.one_shot_reduce_max_bytes, 100);
    setenv("RAILCCL_ONESHOT_REDUCE_MAX_BYTES", "200", 1);
    rail_params_reload();
    assert_int_equal(table_make(&table, &shape, 4, &config, &measured), RAIL_OK);
    assert_int_equal(table.one_shot_max_bytes, 100);
    assert_int_equal(table.one_shot_reduce_max_bytes, 200);
    unsetenv("RAILCCL_ONESHOT_MAX_BYTES");
    unsetenv("RAILCCL_ONESHOT_REDUCE_MAX_BYTES");
    rail_params_reload();
    shape_clear(&shape);
}

/* ---- ranks ---- */

static char folder[] = "/tmp/railccl_test_tuning.XXXXXX";
static char good[200], other[200], broken[200], logged[200], missing[200];

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int times_logged(const char *what)
{
    static char text[1 << 20];
    FILE *f = fopen(logged, "r");
    int times = 0;
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f) fclose(f);
    for (const char *p = text; (p = strstr(p, what)); p++) times++;
    return times;
}

struct want {
    uint64_t one_shot_max;
    bool own_files;
};

/* Every rank is a process, which reads its file once, when its first communicator is made: so they are made here. */
static void look(struct job_rank *rank)
{
    const struct want *want = rank->arg;
    if (want->own_files) setenv("RAILCCL_TUNING_FILE", rank->rank == 0 ? good : rank->rank == 1 ? other : missing, 1);
    rail_params_reload();
    ncclComm_t handle;
    JOB_TRY(ncclCommInitRank(&handle, rank->n_ranks, rank->id, rank->rank));
    float one = 1, sum = 0;
    JOB_TRY(ncclAllReduce(&one, &sum, 1, ncclFloat32, ncclSum, handle, NULL));
    JOB_EXPECT(sum == (float)rank->n_ranks, "sum is %g", (double)sum);
    uint64_t is = comm_of(handle)->table.one_shot_max_bytes;
    JOB_EXPECT(want->one_shot_max == 0 || is == want->one_shot_max, "one-shot up to %llu, not %llu",
               (unsigned long long)is, (unsigned long long)want->one_shot_max);
    JOB_EXPECT(want->one_shot_max != 0 || is != 12345, "one-shot up to 12345, which nobody said");
    JOB_TRY(ncclCommDestroy(handle));
}

static void must(const char *env, struct want want, int hosts)
{
    char log_file[300];
    snprintf(log_file, sizeof log_file, "NCCL_DEBUG_FILE=%s", logged);
    const char *const all[] = {env, "NCCL_DEBUG=INFO", "NCCL_DEBUG_SUBSYS=ALL", log_file, NULL};
    unlink(logged);
    job_must(&(struct job){.n_ranks = 3, .ranks_per_process = 1, .n_hosts = hosts, .bare = true, .env = all}, look,
             &want);
}

static void all_ranks_take_the_limits_of_the_file_and_the_log_says_so(void **state)
{
    (void)state;
    char env[300];
    snprintf(env, sizeof env, "RAILCCL_TUNING_FILE=%s", good);
    must(env, (struct want){.one_shot_max = 12345}, 1);
    assert_int_equal(times_logged("limits for 2 shapes"), 3);
    assert_int_equal(times_logged("rank 0 of 3: RAILCCL_ONESHOT_MAX_BYTES=12345 by the tuning file"), 1);
}

static void hosts_are_part_of_the_shape(void **state)
{
    (void)state;
    char env[300];
    snprintf(env, sizeof env, "RAILCCL_TUNING_FILE=%s", good);
    must(env, (struct want){.one_shot_max = 0}, 3);
}

static void rank_0s_file_counts_where_others_have_another_or_none(void **state)
{
    (void)state;
    must("RAILCCL_TUNING_FILE=off", (struct want){.one_shot_max = 12345, .own_files = true}, 1);
    assert_int_equal(times_logged("rank 0's tuning file counts, which says other limits than mine"), 2);
}

static void a_broken_file_is_one_warning_a_process_and_the_built_in_limits(void **state)
{
    (void)state;
    char env[300];
    snprintf(env, sizeof env, "RAILCCL_TUNING_FILE=%s", broken);
    must(env, (struct want){.one_shot_max = 0}, 1);
    assert_int_equal(times_logged("line 2, \"RAILCCL_ONESHOT_MAX_BYTES=much\": want a number of bytes"), 3);
    assert_int_equal(times_logged("railccl tune --measure --save"), 3);
}

static void a_file_that_is_named_and_is_not_there_is_warned_of(void **state)
{
    (void)state;
    char env[300];
    snprintf(env, sizeof env, "RAILCCL_TUNING_FILE=%s", missing);
    must(env, (struct want){.one_shot_max = 0}, 1);
    assert_int_equal(times_logged("missing.conf: No such file or directory"), 3);
}

static int make_files(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(good, sizeof good, "%s/good.conf", folder);
    snprintf(other, sizeof other, "%s/other.conf", folder);
    snprintf(broken, sizeof broken, "%s/broken.conf", folder);
    snprintf(logged, sizeof logged, "%s/log", folder);
    snprintf(missing, sizeof missing, "%s/missing.conf", folder);
    write_file(good, "[ranks=3 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=12345\n[ranks=2 hosts=1]\n");
    write_file(other, "[ranks=3 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=777\n");
    write_file(broken, "[ranks=3 hosts=1]\nRAILCCL_ONESHOT_MAX_BYTES=much\n");
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(good), unlink(other), unlink(broken), unlink(logged);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_and_limits_are_read),
        cmocka_unit_test(the_last_of_two_sections_wins),
        cmocka_unit_test(anything_else_refuses_the_whole_file_and_names_the_line),
        cmocka_unit_test(too_many_sections_are_refused),
        cmocka_unit_test(measured_limits_beat_the_built_in_ones_and_the_environment_beats_both),
        cmocka_unit_test(all_ranks_take_the_limits_of_the_file_and_the_log_says_so),
        cmocka_unit_test(hosts_are_part_of_the_shape),
        cmocka_unit_test(rank_0s_file_counts_where_others_have_another_or_none),
        cmocka_unit_test(a_broken_file_is_one_warning_a_process_and_the_built_in_limits),
        cmocka_unit_test(a_file_that_is_named_and_is_not_there_is_warned_of),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
