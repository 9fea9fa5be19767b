#!/usr/bin/env bash
# The sisters of all_reduce_perf: right in and out of place, for every root, on threads, processes and between hosts; and
# none can overlook a wrong element.
. tests/support/tap.sh
bin=$PWD/${BUILD:-build}/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
run="$bin/railccl run --timeout 100"

# ROWS COMMAND...: exit status 0, that many rows, none with a wrong element, and the footer says so
good() {
    local rows=$1
    shift
    "$@" >out 2>&1 || { echo "exit status $?"; tail -n 20 out; return 1; }
    tail -n 20 out
    [ "$(awk '$1 ~ /^[0-9]+$/ && NF >= 13' out | wc -l)" -eq "$rows" ] && grep -q '^# Out of bounds values : 0 OK' out &&
        ! awk '$1 ~ /^[0-9]+$/ && ($9 != 0 || $13 != 0)' out | grep .
}
# Wrong elements in both placements, in the footer, and in the exit status.
caught() {
    "$@" >out 2>&1 && { echo "exit status 0"; return 1; }
    tail -n 20 out
    grep -q 'Out of bounds values : .* FAILED' out &&
        awk '$1 ~ /^[0-9]+$/ {rows++; if ($9 > 0 && $13 > 0) seen++} END {exit !(rows > 0 && rows == seen)}' out
}

sisters="broadcast reduce all_gather reduce_scatter gather scatter"
tap_plan 30
for s in $sisters; do
    perf=$bin/${s}_perf roots=1
    case $s in broadcast | reduce | gather | scatter) roots=3 ;; esac
    tap_case "$s: threads" good 3 "$perf" -t 3 -b 12 -e 12K -f 32 -n 3 -w 1
    tap_case "$s: every root, processes" good $((2 * roots)) $run -n 3 "$perf" -r -1 -b 24 -e 768K -f 32768 -n 3 -w 1
    tap_case "$s: two hosts" good 2 $run -n 4 --hosts-emulate 2 "$perf" -b 64 -e 1M -f 16384 -n 3 -w 1
    tap_case "$s: ranks of one thread, as a group" good 1 "$perf" -g 3 -b 12K -e 12K -n 3 -w 1
    tap_case "$s: a planted wrong element is seen" caught "$perf" -t 3 -b 12K -e 12K -n 1 -w 1 --break
done
tap_end
