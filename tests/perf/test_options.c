/* test_options.c - the command line of the benchmarks: what is accepted, what is refused and how it is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "perf/options.h"
#include "perf/types.h"

static char said[4096];

static enum perf_parsed parse(const char *line, struct perf_options *options)
{
    static char text[1024], name[] = "perf";
    char *argv[64] = {name};
    int argc = 1;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    memset(said, 0, sizeof said);
    FILE *errors = fmemopen(said, sizeof said - 1, "w"), *out = fopen("/dev/null", "w");
    enum perf_parsed parsed = perf_options_parse(argc, argv, options, out, errors);
    fclose(errors);
    fclose(out);
    return parsed;
}

static void the_defaults_are_those_of_nccl_tests(void **state)
{
    (void)state;
    struct perf_options o;
    assert_int_equal(parse("", &o), PERF_RUN);
    assert_true(o.threads == 1 && o.ranks_per_thread == 1 && o.min_bytes == 32u << 20 && o.max_bytes == 32u << 20);
    assert_true(o.iterations == 20 && o.aggregate == 1 && o.checks == 1 && o.op == PERF_SUM && o.type == ncclFloat32);
    assert_true(o.average == PERF_MEAN && o.step_bytes == 1u << 20 && o.cycles == 1 && !o.parallel_init && o.root == 0);
}

static void short_and_long_options_mean_the_same(void **state)
{
    (void)state;
    struct perf_options a, b;
    assert_int_equal(parse("-t 2 -g 3 -b 8 -e 128M -f 2 -n 0 -m 4 -w 7 -N 0 -p 1 -c 5 -o avg -d half -r -1 -z 3 -y 1 -T 9 -C 1 "
                           "-a 3 -R 2 -S 1 -J x.json -M 1 -u 3 -h0", &a), PERF_HELPED);
    assert_int_equal(parse("-t 2 -g 3 -b 8 -e 128M -f 2 -n 5 -m 4 -w 7 -N 0 -p 1 -c 5 -o avg -d half -r -1 -z 3 -y 1 -T 9 -C 1 "
                           "-a 3 -R 2 -S 1 -M 1 -u 3 -I 1 -K 2", &a), PERF_RUN);
    assert_int_equal(parse("--nthreads 2 --ngpus 3 --minbytes 8 --maxbytes 128M --stepfactor 2 --iters 5 --agg_iters 4 "
                           "--warmup_iters 7 --run_cycles 0 --parallel_init 1 --check 5 --op avg --datatype half --root -1 "
                           "--blocking 3 --stream_null 1 --timeout 9 --report_cputime 1 --average 3 --local_register 2 "
                           "--report_timestamps 1 --memory 1 --unalign 3 --per_iter_timing 1 --per_iter_skip 2", &b), PERF_RUN);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.threads == 2 && a.ranks_per_thread == 3 && a.max_bytes == 128u << 20 && a.step_factor == 2);
    assert_true(a.op == PERF_AVG && a.type == ncclFloat16 && a.root == -1 && a.per_iteration_skip == 2);
}

static void sizes_have_suffixes(void **state)
{
    (void)state;
    static const struct { const char *text; size_t bytes; bool good; } cases[] = {
        {"0", 0, true}, {"8", 8, true}, {"4k", 4096, true}, {"4K", 4096, true}, {"1.5M", 3 << 19, true},
        {"2G", 2ull << 30, true}, {"128MB", 128 << 20, true}, {"1T", 1ull << 40, true}, {"", 0, false}, {"-1", 0, false},
        {"8X", 0, false}, {"8KK", 0, false}, {"99999999G", 0, false}, {"0x10", 16, true}, {"inf", 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes = 0;
        bool good = perf_size_parse(cases[i].text, &bytes);
        if (good != cases[i].good || (good && bytes != cases[i].bytes)) fail_msg("\"%s\" gave %zu", cases[i].text, bytes);
    }
}

static void bad_usage_names_the_option_and_what_is_wanted(void **state)
{
    (void)state;
    static const struct { const char *line, *says; } cases[] = {
        {"-t 0", "--nthreads 0: want a whole number from 1"}, {"-t 1x", "--nthreads 1x"}, {"-n", "-n: needs a value"},
        {"--iters", "--iters: needs a value"}, {"-q", "-q: no such option"}, {"--quick", "--quick: no such option"},
        {"8", "8: not an option"}, {"-b 8Q", "--minbytes 8Q: want a size"}, {"-o add", "--op add: want sum"},
        {"-d fp32", "--datatype fp32: no such type"}, {"-p 2", "--parallel_init 2: want 0 or 1"},
        {"-b 2K -e 1K", "--minbytes 2048 is above --maxbytes 1024"}, {"-b 8 -e 16 -i 0", "--stepbytes 0"},
        {"-b 0 -e 16 -f 2", "--stepfactor 2 never leaves"}, {"-G 1 -n 0", "--cudagraph 1 needs a fixed number"},
        {"-G 1 -I 1", "--cudagraph 1 needs"}, {"-G 1 -z 3", "--cudagraph 1 needs"}, {"-G -1", "--cudagraph -1: want"},
        {"-x 1", "--cta_policy 1: not available"}, {"-D 1", "--device_implementation 1: not available"},
        {"-V 8", "--device_cta_count 8: not available"}, {"-K 2", "--per_iter_skip needs"},
        {"-I 1 -n 0", "--per_iter_timing needs a fixed"}, {"-I 1 -n 5 -K 5", "leaves none of 5"},
        {"--break -c 0", "--break without checking"}, {"--break=head", "--break=head: want output"},
        {"-u 1q", "--unalign 1q"}, {"-a 4", "--average 4"}, {"-z 4", "--blocking 4"}, {"-T -1", "--timeout -1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf_options o;
        enum perf_parsed parsed = parse(cases[i].line, &o);
        if (parsed != PERF_BAD_USAGE || strncmp(said, cases[i].says, strlen(cases[i].says)) != 0) {
            if (!strstr(said, cases[i].says) || parsed != PERF_BAD_USAGE)
                fail_msg("%s: %d \"%s\"", cases[i].line, (int)parsed, said);
        }
    }
}

static void options_that_ask_for_nothing_are_accepted(void **state)
{
    (void)state;
    struct perf_options o;
    assert_int_equal(parse("-G 0 -x 0 -D 0 -V 0 -y 0", &o), PERF_RUN);
}

static void break_takes_a_place_or_means_the_output(void **state)
{
    (void)state;
    struct perf_options o;
    assert_true(parse("--break", &o) == PERF_RUN && o.break_what == PERF_BREAK_OUTPUT);
    assert_true(parse("--break=input", &o) == PERF_RUN && o.break_what == PERF_BREAK_INPUT);
    assert_true(parse("--break=guard", &o) == PERF_RUN && o.break_what == PERF_BREAK_GUARD);
    assert_true(parse("", &o) == PERF_RUN && o.break_what == PERF_BREAK_NOTHING);
}

static void unalign_counts_elements_or_bytes(void **state)
{
    (void)state;
    struct perf_options o;
    assert_true(parse("-u 3", &o) == PERF_RUN && o.unalign == 3 && !o.unalign_in_bytes);
    assert_true(parse("-u 1b", &o) == PERF_RUN && o.unalign == 1 && o.unalign_in_bytes);
}

static void the_environment_is_heard(void **state)
{
    (void)state;
    struct perf_options o;
    setenv("NCCL_TESTS_MIN_BW", "1.5", 1);
    assert_true(parse("", &o) == PERF_RUN && o.least_bus_bandwidth == 1.5);
    setenv("NCCL_TESTS_MIN_BW", "fast", 1);
    assert_int_equal(parse("", &o), PERF_BAD_USAGE);
    assert_non_null(strstr(said, "NCCL_TESTS_MIN_BW=fast"));
    unsetenv("NCCL_TESTS_MIN_BW");
    setenv("NCCL_TESTS_SPLIT", "MOD 2", 1);
    assert_int_equal(parse("", &o), PERF_BAD_USAGE);
    assert_non_null(strstr(said, "NCCL_TESTS_SPLIT=MOD 2: not available"));
    unsetenv("NCCL_TESTS_SPLIT");
}

static void sizes_step_by_factor_or_by_bytes_and_end(void **state)
{
    (void)state;
    struct perf_options o;
    size_t seen[8], n = 0;
    parse("-b 8 -e 100 -f 3", &o);
    for (size_t b = o.min_bytes; b != SIZE_MAX; b = perf_options_next_size(&o, b)) seen[n++] = b;
    assert_true(n == 3 && seen[0] == 8 && seen[1] == 24 && seen[2] == 72);
    parse("-b 0 -e 8 -i 4", &o);
    for (size_t b = o.min_bytes, i = n = 0; b != SIZE_MAX; b = perf_options_next_size(&o, b), i++) seen[n++] = b;
    assert_true(n == 3 && seen[0] == 0 && seen[2] == 8);
    parse("-b 64 -e 64", &o);
    assert_true(perf_options_next_size(&o, 64) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_those_of_nccl_tests),
        cmocka_unit_test(short_and_long_options_mean_the_same),
        cmocka_unit_test(sizes_have_suffixes),
        cmocka_unit_test(bad_usage_names_the_option_and_what_is_wanted),
        cmocka_unit_test(options_that_ask_for_nothing_are_accepted),
        cmocka_unit_test(break_takes_a_place_or_means_the_output),
        cmocka_unit_test(unalign_counts_elements_or_bytes),
        cmocka_unit_test(the_environment_is_heard),
        cmocka_unit_test(sizes_step_by_factor_or_by_bytes_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
