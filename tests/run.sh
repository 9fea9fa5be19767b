#!/usr/bin/env bash
# Runs tests, each under a time limit, and counts their cases exactly. They run one after another, in two queues side by side: what
# mostly waits (tests/waiting.txt) beside the rest, for it leaves its core idle. Then whichever is free takes the next of those that
# may run beside anything (tests/either.txt), so that both end at about the same time.
#
#   BUILD=build tests/run.sh [--all] [LAYER/NAME ...]
#
# Without names, or with --all in front of more names: every test_NAME that was built and every tests/*/check_NAME.sh.
# A test is a program build/tests/LAYER/test_NAME (cmocka) or a script tests/LAYER/check_NAME.sh; both report in TAP:
# "1..N", then "ok I - name", "not ok I - name", or "ok I - name # SKIP reason" per case. A program that dies, hangs,
# runs no case, or reports more or fewer cases than it announced is one failure more. The checks of the whole house
# (tests/house: other compilers, installation ...) run only when named; `make check` names them. So it is with what needs a
# virtual machine (tests/rdma_vm), for which packages are fetched: `make check-rdma` names that.
# TEST_RETRY=N runs a test that failed up to N times more, when the machine has calmed down; what passes only then counts as
# passed, and is named with its first failure before the last line: a shared machine may steal seconds from a test, but
# a test that always fails is broken, and one that is named again and again wants mending.
# Last line: "N passed, N failed, N skipped".
set -u
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
limit=${TEST_LIMIT_S:-300}
house_limit=$((limit > 900 ? limit : 900)) # these compile the whole library
export BUILD=$build CMOCKA_MESSAGE_OUTPUT=TAP
# What somebody has measured on this machine is no part of what is tested.
export RAILCCL_TUNING_FILE=${RAILCCL_TUNING_FILE:-off}
# Tests of host memory stay there on a machine with GPUs; those of GPUs ask for them (tests/support/gpu.h).
[ ! -e /dev/nvidiactl ] || export RAILCCL_DEVICE=${RAILCCL_DEVICE:-host}
passed=0 failed=0 skipped=0
waiting=${TEST_WAITING:-tests/waiting.txt} either=${TEST_EITHER:-tests/either.txt}
unsteady="" # tests that passed only when run again

# Prints "passed failed skipped announced" of the TAP in a file. Text without a newline may stand before a result
# (a case that prints), and cmocka 1.1 writes a skipped case as "not ok I # SKIP name".
count() {
    awk '
        /^1\.\.[0-9]+ *$/ { announced += substr($0, 4); next }
        /ok [0-9]+ (- .*)?# [Ss][Kk][Ii][Pp]/ { skipped++; next }
        /not ok [0-9]+ - / { failed++; next }
        /ok [0-9]+ - / { passed++; next }
        END { print passed + 0, failed + 0, skipped + 0, announced + 0 }' "$1"
}

# Runs one test into $log; leaves p f s (its cases), why (it failed as a whole), tenths (its time) and cpu (the seconds that it
# and what it waited for kept a core busy).
attempt() { # COMMAND...
    local start rc n TIMEFORMAT='%U %S'
    start=$(date +%s%N)
    cpu=$({ time timeout -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null; } 2>&1)
    rc=$?
    cpu=$(awk '{ print $1 + $2 }' <<<"${cpu##*$'\n'}")
    tenths=$((($(date +%s%N) - start) / 100000000))
    read -r p f s n < <(count "$log")
    why=""
    if [ $rc -eq 124 ] || [ $rc -eq 137 ]; then why="stopped after $limit s"
    elif [ $rc -gt 128 ]; then why="died of signal $((rc - 128))"
    elif [ "$n" -eq 0 ] && [ $rc -eq 0 ]; then why="ran no case"
    elif [ $((p + f + s)) -ne "$n" ]; then why="$((p + f + s)) of $n announced cases reported, exit status $rc"
    elif [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then why="exit status $rc"
    fi
    [ -z "$why" ] || f=$((f + 1))
}

show() { # NAME: the line of an attempt, and what went wrong
    printf '%-44s %4d passed %3d failed %3d skipped %5d.%d s, CPU %.1f\n' "$1" "$p" "$f" "$s" $((tenths / 10)) $((tenths % 10)) "$cpu"
    [ "$s" -eq 0 ] || grep -iE '# skip|^#? *skipped:' "$log" | sed 's/^/  | /'
    if [ "$f" -gt 0 ]; then
        [ -z "$why" ] || echo "  ($why)"
        grep -E '^not ok' "$log" | grep -v '# SKIP' | sed 's/^/  | /'
        echo "  | ..."
        tail -n "${TEST_TAIL:-60}" "$log" | sed 's/^/  | /'
    fi
}

run() { # NAME COMMAND...
    local name=$1 log p f s why tenths cpu first left
    shift
    log=$(mktemp)
    attempt "$@"
    show "$name"
    if [ "$f" -gt 0 ] && [ "${TEST_RETRY:-0}" -gt 0 ]; then
        first=$(grep -E '^not ok' "$log" | grep -v '# SKIP' | head -n 3 | tr '\n' ';')
        first=${why:+$why; }$first
        for ((left = TEST_RETRY; left > 0 && f > 0; left--)); do
            sleep "${TEST_RETRY_PAUSE_S:-5}"
            attempt "$@"
            show "$name (again)"
        done
        [ "$f" -gt 0 ] || unsteady="$unsteady  $name passed only when run again; first: $first"$'\n'
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -eq 0 ] || [ -z "${TEST_FAILURES:-}" ] || { show "$name" && echo; } >>"$TEST_FAILURES"
    rm -f "$log"
}

if [ $# -eq 0 ] || [ "$1" = --all ]; then
    [ $# -eq 0 ] || shift
    # shellcheck disable=SC2046
    set -- $( (find "$build/tests" -type f -name 'test_*' ! -name '*.*' -printf '%P\n'
               find tests -name 'check_*.sh' ! -path 'tests/house/*' ! -path 'tests/rdma_vm/*' -printf '%P\n') 2>/dev/null | sort) "$@"
fi
queue() { # NAME...
    local t
    for t in "$@"; do
        case $t in
        house/*) limit=$house_limit run "$t" bash "tests/$t" ;;
        *.sh) run "$t" bash "tests/$t" ;;
        *) run "$t" ${TEST_RUNNER:-} "$build/tests/$t" ;; # TEST_RUNNER: e.g. qemu-aarch64
        esac
    done
}

# Of those that either may run, what the other queue has not taken.
queue_either() {
    local t
    for t in "${both[@]}"; do mkdir "$beside/taken/${t//\//+}" 2>/dev/null && queue "$t"; done
}

# The other queue, whose results are in the files $beside/*.
queue_beside() { # NAME...
    TEST_FAILURES=${TEST_FAILURES:+$beside/failures}
    { queue "$@"; queue_either; } >"$beside/output" 2>&1
    printf '%s' "$unsteady" >"$beside/unsteady"
    echo "$passed $failed $skipped" >"$beside/counts"
}
take_beside() {
    local p=0 f=1 s=0 # a queue that left nothing is a failure
    cat "$beside/output"
    read -r p f s <"$beside/counts" || echo "the tests that wait ended without a count"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    unsteady=$unsteady$(cat "$beside/unsteady" && echo .)
    unsteady=${unsteady%.}
    [ ! -s "$beside/failures" ] || cat "$beside/failures" >>"$TEST_FAILURES"
}

mapfile -t idle < <(printf '%s\n' "$@" | grep -xFf - "$waiting") # in the order of that list
mapfile -t both < <(printf '%s\n' "$@" | grep -xFf - "$either")
mapfile -t busy < <(printf '%s\n' "$@" | grep -vxFf "$waiting" | grep -vxFf "$either")
if [ $(((${#busy[@]} > 0) + (${#idle[@]} > 0) + ${#both[@]})) -gt 1 ]; then
    beside=$(mktemp -d)
    mkdir "$beside/taken"
    queue_beside "${idle[@]}" &
    other=$! # process substitutions change it
    trap 'kill $other 2>/dev/null; rm -rf "$beside"' EXIT
    trap 'exit 130' INT TERM
    queue "${busy[@]}"
    queue_either
    wait $other
    take_beside
    n=$(find "$beside/taken" -mindepth 1 | wc -l)
    [ "$n" -eq ${#both[@]} ] || { echo "of ${#both[@]} tests that either queue may run $n were run"; failed=$((failed + 1)); }
else
    queue "$@"
fi
printf '%s' "$unsteady"
[ -z "$unsteady" ] || [ -z "${TEST_FAILURES:-}" ] || printf '%s' "$unsteady" >>"$TEST_FAILURES"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
