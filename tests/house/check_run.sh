#!/usr/bin/env bash
# tests/run.sh itself: programs that behave in every way a test can, and what it must count for each.
. tests/support/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tests/t"
: >"$work/waiting"; : >"$work/either"

fake() { # NAME: a test program from standard input
    { echo '#!/bin/bash'; cat; } >"$work/tests/t/test_$1"
    chmod +x "$work/tests/t/test_$1"
}
# EXPECTED NAME...: the last line and whether the exit status says the same.
counts() {
    local expected=$1 rc last
    shift
    last=$(BUILD=$work TEST_WAITING=$work/waiting TEST_EITHER=$work/either TEST_LIMIT_S=1 TEST_RETRY=${retry:-0} TEST_RETRY_PAUSE_S=0 TEST_FAILURES= bash tests/run.sh "${@/#/t/test_}")
    rc=$?
    last=${last##*$'\n'}
    echo "expected: $expected; got: $last (exit status $rc)"
    [ "$last" = "$expected" ] || return 1
    if [ "$last" != "${last/ 0 failed/}" ]; then [ $rc -eq 0 ]; else [ $rc -ne 0 ]; fi
}

fake good <<<'echo 1..2; echo "ok 1 - a"; echo "ok 2 - b"'
fake chatty <<<'echo 1..2; echo "look: ok"; printf "no newline"; echo "ok 1 - a"; echo "ok 2 - b"'
fake groups <<<'echo 1..1; echo "ok 1 - a"; echo "# ok - one"; echo 1..2; echo "ok 1 - b"; echo "ok 2 - c"; echo "# ok - two"'
fake bad <<<'echo 1..2; echo "ok 1 - a"; echo "not ok 2 - b"; exit 1'
fake skips <<<'echo 1..3; echo "ok 1 - a"; echo "not ok 2 # SKIP b"; echo "ok 3 - c # skip no device"'
fake dies <<<'echo 1..3; echo "ok 1 - a"; kill -SEGV $$'
fake leaves <<<'echo 1..3; echo "ok 1 - a"; exit 0'
fake hangs <<<'echo 1..2; echo "ok 1 - a"; exec sleep 60'
fake empty <<<'exit 0'
fake lies <<<'echo 1..1; echo "ok 1 - a"; exit 3'

# Fails at every odd run: what a machine that stalls for a second does to a test.
fake unsteady <<<'echo 1..1; f=$0.ran; if [ -e $f ]; then rm $f; echo "ok 1 - a"; else touch $f; echo "not ok 1 - a"; exit 1; fi'
again() { retry=1 counts "$@"; }
named() {
    BUILD=$work TEST_WAITING=$work/waiting TEST_EITHER=$work/either TEST_LIMIT_S=1 TEST_RETRY=1 TEST_FAILURES=$work/failures bash tests/run.sh t/test_good t/test_unsteady &&
        cat "$work/failures" && grep -q 't/test_unsteady passed only when run again; first: not ok 1 - a' "$work/failures"
}

# Side by side: each waits for the other to have begun.
fake first <<<'echo 1..1; touch ${0%/*}/first.ran; for i in {1..40}; do [ -e ${0%/*}/second.ran ] && echo "ok 1 - a" && exit; sleep 0.02; done; echo "not ok 1 - a"; exit 1'
fake second <<<'echo 1..1; touch ${0%/*}/second.ran; for i in {1..40}; do [ -e ${0%/*}/first.ran ] && echo "ok 1 - b" && exit; sleep 0.02; done; echo "not ok 1 - b"; exit 1'
listed() { # FILE COMMAND...: with second, bad and unsteady on a list
    local rc file=$1
    shift
    printf '%s\n' '# a list' t/test_second t/test_bad t/test_unsteady >"$file"
    rm -f "$work"/tests/t/*.ran
    "$@"
    rc=$?
    : >"$file"
    return $rc
}
beside() { listed "$work/waiting" "$@"; }
either() { listed "$work/either" "$@"; }
named_beside() { beside named; }

tap_plan 24
tap_case "every passing case counts once" counts "2 passed, 0 failed, 0 skipped" good
tap_case "output of the cases does not count" counts "2 passed, 0 failed, 0 skipped" chatty
tap_case "several groups in one program add up" counts "3 passed, 0 failed, 0 skipped" groups
tap_case "a failed case counts once" counts "1 passed, 1 failed, 0 skipped" bad
tap_case "both spellings of a skipped case are skipped" counts "1 passed, 0 failed, 2 skipped" skips
tap_case "a program that dies is a failure" counts "1 passed, 1 failed, 0 skipped" dies
tap_case "a program that leaves early with success is a failure" counts "1 passed, 1 failed, 0 skipped" leaves
tap_case "a program that hangs is stopped and is a failure" counts "1 passed, 1 failed, 0 skipped" hangs
tap_case "a program without cases is a failure" counts "0 passed, 1 failed, 0 skipped" empty
tap_case "an exit status without a failed case is a failure" counts "1 passed, 1 failed, 0 skipped" lies
tap_case "a program that is not there is a failure" counts "0 passed, 1 failed, 0 skipped" missing
tap_case "a program that fails once is a failure" counts "0 passed, 1 failed, 0 skipped" unsteady
rm -f "$work/tests/t/test_unsteady.ran"
tap_case "with TEST_RETRY it passes when it passes the second time" again "1 passed, 0 failed, 0 skipped" unsteady
tap_case "and is named with its first failure" named
tap_case "with TEST_RETRY what fails twice is a failure" again "1 passed, 1 failed, 0 skipped" bad
tap_case "programs add up" counts "8 passed, 2 failed, 2 skipped" good bad groups skips dies

tap_case "one after another, two that need one another fail" counts "1 passed, 1 failed, 0 skipped" first second
tap_case "one of a list of those that wait runs beside the rest" beside counts "2 passed, 0 failed, 0 skipped" first second
tap_case "what fails there counts, too" beside counts "3 passed, 1 failed, 0 skipped" good bad
tap_case "and is named there" named_beside
tap_case "one that either queue may run is taken by the one that is free" either counts "2 passed, 0 failed, 0 skipped" first second
tap_case "of several each is run once, and counts" either counts "3 passed, 2 failed, 0 skipped" good second bad
tap_case "and is named, whoever ran it" either named

# The real cmocka, one case of each kind.
real_cmocka() {
    ${CC:-gcc} -x c - -o "$work/tests/t/test_cmocka" -lcmocka <<'C' && counts "1 passed, 2 failed, 1 skipped" cmocka
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
static void passes(void **state) { (void)state; }
static void fails(void **state) { (void)state; assert_int_equal(1, 2); }
static void skips(void **state) { (void)state; skip(); }
static int no_setup(void **state) { (void)state; return -1; }
int main(void)
{
    const struct CMUnitTest cases[] = {cmocka_unit_test(passes), cmocka_unit_test(fails), cmocka_unit_test(skips),
                                       cmocka_unit_test_setup(passes, no_setup)};
    return cmocka_run_group_tests(cases, NULL, NULL);
}
C
}
tap_case "cmocka's own report of a pass, two failures and a skip" real_cmocka
tap_end
