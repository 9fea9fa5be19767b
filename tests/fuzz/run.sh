#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS (20). A target NAME may have seeds: the files that tests/fuzz/NAME.seeds lists, one
# pattern per line; what it finds interesting stays in $BUILD/corpus/NAME and is where the next run begins. An input that
# breaks it is left in $BUILD and named.
#   BUILD=build-fuzz tests/fuzz/run.sh NAME...
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build-fuzz}
failed=0
for name in "$@"; do
    corpus=$build/corpus/$name
    mkdir -p "$corpus"
    seeds=tests/fuzz/$name.seeds
    [ -e "$seeds" ] || seeds=/dev/null
    while read -r pattern; do
        for f in $pattern; do cp "$f" "$corpus/seed-${f##*/}"; done
    done <"$seeds"
    log=$build/$name.log
    if "$build/tests/fuzz/$name" -max_total_time="${FUZZ_SECONDS:-20}" -max_len=32768 -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="$build/$name-" -print_final_stats=1 "$corpus" >"$log" 2>&1; then
        echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in ${FUZZ_SECONDS:-20} s, none broke it"
    else
        tail -n 40 "$log"
        echo "$name: BROKEN, see $log"
        failed=1
    fi
done
exit $failed
