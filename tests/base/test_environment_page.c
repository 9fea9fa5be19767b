/* test_environment_page.c - docs/ENVIRONMENT.md says what the table says. Run from the repository's root;
 * RAILCCL_TEST_UPDATE=1 writes the page anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/params.h"

static const char page[] = "docs/ENVIRONMENT.md";

static char *generate(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    assert_non_null(f);
    rail_params_markdown(f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void the_page_is_the_table(void **state)
{
    (void)state;
    char *expected = generate(), have[65536] = "";
    if (getenv("RAILCCL_TEST_UPDATE")) {
        FILE *out = fopen(page, "w");
        assert_non_null(out);
        assert_int_equal(fputs(expected, out) >= 0, 1);
        assert_int_equal(fclose(out), 0);
    }
    FILE *f = fopen(page, "r");
    if (!f) fail_msg("%s is not there (run from the root of the repository)", page);
    have[fread(have, 1, sizeof have - 1, f)] = 0;
    fclose(f);
    if (strcmp(have, expected) != 0)
        fail_msg("%s differs from src/base/params.def: run this test once with RAILCCL_TEST_UPDATE=1, commit the page", page);
    free(expected);
}

static void every_variable_is_on_the_page_once(void **state)
{
    (void)state;
    char *text = generate();
    for (int i = 0; i < RAIL_PARAM_COUNT; i++) {
        char row[128];
        snprintf(row, sizeof row, "\n| `%s` |", rail_param_name((enum rail_param)i));
        const char *at = strstr(text, row);
        if (!at) fail_msg("%s is missing", rail_param_name((enum rail_param)i));
        assert_null(strstr(at + 1, row));
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_the_table),
        cmocka_unit_test(every_variable_is_on_the_page_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
