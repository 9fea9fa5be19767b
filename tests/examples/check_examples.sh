#!/usr/bin/env bash
# Every program of examples/ ends well and says what it should, on 4 ranks of one host, on 3, and on 4 pretended hosts.
. tests/support/tap.sh
bin=${BUILD:-build}/bin

says() { # TEXT COMMAND...
    local text=$1 output
    shift
    output=$("$@" 2>&1)
    local status=$?
    printf '%s\n' "$output"
    [ $status -eq 0 ] && grep -qF -- "$text" <<<"$output"
}
alone() { timeout 100 "$bin/examples/$1"; }
ranks() { timeout 100 "$bin/railccl" run -n "$1" "$bin/examples/$2"; }
hosts() { timeout 100 "$bin/railccl" run -n 4 --hosts-emulate 4 "$bin/examples/$1"; }
listed_in_readme() {
    local f missing=0
    for f in examples/*.c; do
        grep -qF "$(basename "$f" .c)" examples/README.md || { echo "$f is not in examples/README.md"; missing=1; }
        [ "$(wc -l <"$f")" -le 90 ] || { echo "$f has more than 90 lines"; missing=1; }
    done
    return $missing
}

# Name, then what it must say on 4 ranks (the threads' examples have 4 of their own).
words=(
    01_hello "the sum of 0 .. 3 is 6"
    02_in_place "4 ranks summed 4000 numbers"
    03_threads "4 threads put 100000 numbers together"
    04_groups "one thread was 4 ranks"
    05_ring "4 blocks went round a ring of 4 ranks"
    06_transpose "a 128 x 128 matrix was transposed by 4 ranks"
    07_split "4 ranks as 2 rows of 2"
    08_operator "the mean over 10 samples of 4 ranks ends in 2"
    09_errors "given up:"
    10_nonblocking "4 ranks never waited inside a call"
    11_halo "4 pieces hold 1000 together"
    12_training "4 ranks learned 8 weights from 1024 samples"
    13_side_by_side "two communicators of 4 ranks summed"
    14_go_on "3 processes went on without the one that died, and then with a new one"
)
tap_plan $((${#words[@]} / 2 + 4))
for ((i = 0; i < ${#words[@]}; i += 2)); do
    name=${words[i]}
    case $name in
    03_* | 04_* | 14_*) tap_case "$name" says "${words[i + 1]}" alone "$name" ;;
    *) tap_case "$name" says "${words[i + 1]}" ranks 4 "$name" ;;
    esac
done
tap_case "05_ring with 3 ranks" says "3 blocks went round a ring of 3 ranks" ranks 3 05_ring
tap_case "06_transpose between 4 hosts" says "transposed by 4 ranks" hosts 06_transpose
tap_case "11_halo between 4 hosts" says "4 pieces hold 1000 together" hosts 11_halo
tap_case "each has its line in the README and at most 90 lines" listed_in_readme
tap_end
