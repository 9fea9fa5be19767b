/* test_report.c - the small parts of the report: JSON, numbers in narrow columns, statistics, guard bands. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "perf/buffers.h"
#include "perf/json.h"
#include "perf/report.h"
#include "perf/statistics.h"

static void json_has_its_commas_and_escapes(void **state)
{
    (void)state;
    char path[] = "/tmp/railccl-json-XXXXXX", used[128], text[512] = "";
    struct perf_json json;
    close(mkstemp(path));
    assert_true(perf_json_create(&json, path, used, sizeof used)); /* the file exists: a new name, never overwritten */
    assert_string_not_equal(used, path);
    perf_json_open(&json, NULL, '{');
    perf_json_text(&json, "a\"b", "back\\slash, tab\t, \xc3\xa9");
    perf_json_open(&json, "list", '[');
    perf_json_end(&json, ']');
    perf_json_open(&json, "more", '[');
    perf_json_whole(&json, NULL, -3);
    perf_json_number(&json, NULL, 0.25);
    perf_json_number(&json, NULL, NAN);
    perf_json_open(&json, NULL, '{');
    perf_json_end(&json, '}');
    perf_json_end(&json, ']');
    perf_json_null(&json, "none");
    perf_json_end(&json, '}');
    assert_true(perf_json_close(&json));
    FILE *file = fopen(used, "r");
    char flat[512] = "";
    size_t n = fread(text, 1, sizeof text - 1, file), to = 0;
    fclose(file);
    for (size_t i = 0; i < n; i++)
        if (text[i] != '\n' && !(text[i] == ' ' && (i == 0 || text[i - 1] == '\n' || text[i - 1] == ' '))) flat[to++] = text[i];
    assert_string_equal(flat, "{\"a\\\"b\": \"back\\\\slash, tab\\u0009, \\u00c3\\u00a9\",\"list\": [],"
                              "\"more\": [-3,0.25,null,{}],\"none\": null}");
    unlink(used);
    unlink(path);
}

static void json_that_cannot_be_created_says_so(void **state)
{
    (void)state;
    struct perf_json json;
    char used[64];
    assert_false(perf_json_create(&json, "/nonexistent/folder/x.json", used, sizeof used));
    assert_int_equal(errno, ENOENT);
}

static void numbers_keep_their_column(void **state)
{
    (void)state;
    static const struct { double value; int width; const char *text; } cases[] = {
        {0.1434, 7, "   0.14"}, {1234.567, 7, "1234.57"}, {12345.67, 7, "12345.7"}, {123456.7, 7, " 123457"},
        {1234567.8, 7, "1234568"}, {123456789, 7, "1.2e+08"}, {1234567, 6, " 1e+06"}, {0, 6, "  0.00"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        perf_report_fit(text, sizeof text, cases[i].width, cases[i].value);
        assert_string_equal(text, cases[i].text);
    }
}

static void statistics_of_few_and_many(void **state)
{
    (void)state;
    double one[] = {5}, many[200];
    struct perf_statistics s = perf_statistics_of(one, 1);
    assert_true(s.min == 5 && s.max == 5 && s.mean == 5 && s.p50 == 5 && s.p99 == 5 && s.deviation == 0);
    for (int i = 0; i < 200; i++) many[i] = 200 - i; /* 1 .. 200 */
    s = perf_statistics_of(many, 200);
    assert_true(s.min == 1 && s.max == 200 && s.mean == 100.5 && s.p50 == 100 && s.p95 == 190 && s.p99 == 198);
    assert_true(fabs(s.deviation - sqrt((200.0 * 200 - 1) / 12)) < 1e-9);
}

static void guard_bands_see_one_byte_on_either_side(void **state)
{
    (void)state;
    static const size_t uses[] = {0, 1, 100, 5000};
    for (size_t u = 0; u < 4; u++) {
        for (size_t unalign = 0; unalign < 3; unalign++) {
            struct perf_buffer buffer;
            size_t used = uses[u];
            assert_true(perf_buffer_create(NULL, 5000, unalign, false, &buffer));
            assert_true((uintptr_t)buffer.data % 4096 == unalign);
            perf_buffer_poison(&buffer, used);
            assert_true(perf_buffer_guard_wrong(&buffer, used) == 0);
            memset(buffer.data, 0, used); /* what belongs to the operation */
            assert_true(perf_buffer_guard_wrong(&buffer, used) == 0);
            buffer.data[-1] ^= 1;
            buffer.data[used] ^= 1;
            buffer.data[used + PERF_GUARD_BYTES - 1] ^= 1;
            assert_true(perf_buffer_guard_wrong(&buffer, used) == 3);
            perf_buffer_destroy(&buffer, false);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_its_commas_and_escapes),
        cmocka_unit_test(json_that_cannot_be_created_says_so),
        cmocka_unit_test(numbers_keep_their_column),
        cmocka_unit_test(statistics_of_few_and_many),
        cmocka_unit_test(guard_bands_see_one_byte_on_either_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
