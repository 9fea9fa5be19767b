#!/usr/bin/env bash
# `railccl digest`: two runs alike, two that differ, files that are none; and what it is for: in deterministic mode one
# host and three give the same digests, call by call.
. tests/support/tap.sh
bin=$BUILD/bin
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

record() { # NAME SETTINGS... -- RUN-OPTIONS
    local name=$1 settings=()
    shift
    while [ "$1" != -- ]; do settings+=("$1"); shift; done
    shift
    env "${settings[@]}" RAILCCL_DIGEST=1 RAILCCL_DIGEST_FILE="$dir/$name" timeout 60 "$bin/railccl" run -n 3 "$@" \
        "$bin/reduce_scatter_perf" -b 8 -e 64K -f 16 -n 2 -w 1 >"$dir/$name.out" 2>&1
    sed -i '/AllReduce of .* float64/d' "$dir/$name" # the benchmark's own exchange of times
}

compare() { "$bin/railccl" digest "$dir/$1" "$dir/$2"; }
alike() { compare "$1" "$2" >"$dir/said"; local status=$?; cat "$dir/said" "$dir/$1.out"; [ $status -eq 0 ] && grep -q 'all alike' "$dir/said"; }
# STATUS WORDS A B: it ends with this status and says this
differs() { compare "$3" "$4" >"$dir/said" 2>&1; local status=$?; cat "$dir/said"; [ $status -eq "$1" ] && grep -q "$2" "$dir/said"; }

record a -- && record b --
record one RAILCCL_DETERMINISTIC=1 -- && record three RAILCCL_DETERMINISTIC=1 -- --hosts-emulate 3
line=$(grep -nE ' [0-9a-f]{16} ' "$dir/a" | sed -n '7s/:.*//p')
sed -E "${line}s/ [0-9a-f]{16} / 0123456789abcdef /" "$dir/a" >"$dir/changed"
want=$(sed -n "${line}p" "$dir/a" | sed -E 's|^([0-9]+) ([0-9]+)/([0-9]+) ([0-9]+) .*|communicator \1, call \4, rank \2 of \3|')
head -n 9 "$dir/a" >"$dir/short"
echo hello >"$dir/none"

tap_plan 6
tap_case "two runs of three ranks are alike" alike a b
tap_case "deterministic: one host and three hosts are alike" alike one three
tap_case "a difference is named" differs 1 "$want: .* against 0123456789abcdef" a changed
tap_case "calls that stand in one file only are counted" differs 1 "stand in one file only" a short
tap_case "a file of something else is refused with its line" differs 2 "none:1: not a line" a none
tap_case "a file that is not there is named" differs 2 "absent: No such file" a absent
tap_end
