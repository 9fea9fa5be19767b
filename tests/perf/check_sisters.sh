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
        ! awk '$1 ~ /^[0-9]+$/ && ($9 != 0 || ($13 != 0 && $13 != in_place))' in_place=$in_place out | grep .
}
# Wrong elements in both placements, in the footer, and in the exit status.
caught() {
    "$@" >out 2>err && { echo "exit status 0"; return 1; } # apart: complaints would stand within the rows
    tail -n 20 out
    grep -q 'Out of bounds values : .* FAILED' out &&
        awk '$1 ~ /^[0-9]+$/ {rows++; if ($9 + 0 > 0 && ($13 == in_place || $13 + 0 > 0)) seen++}
            END {exit !(rows > 0 && rows == seen)}' in_place=$in_place out
}
# COMMAND...: refused with exit status 2, in words
refused() {
    "$@" >out 2>&1
    [ $? -eq 2 ] && grep 'power of two' out
}

# in_place: what stands in the last column, 0 or N/A
sisters="broadcast reduce all_gather reduce_scatter gather scatter alltoall alltoallv sendrecv putsignal hypercube"
tap_plan 63
for s in $sisters; do
    perf=$bin/${s}_perf roots=1 n=3 in_place=0
    case $s in broadcast | reduce | gather | scatter) roots=3 ;; esac
    case $s in alltoall | alltoallv | sendrecv | putsignal) in_place=N/A ;; hypercube) n=4 ;; esac
    tap_case "$s: threads" good 3 "$perf" -t $n -b 12 -e 12K -f 32 -n 3 -w 1
    tap_case "$s: every root, processes" good $((2 * roots)) $run -n $n "$perf" -r -1 -b 24 -e 768K -f 32768 -n 3 -w 1
    tap_case "$s: two hosts" good 2 $run -n 4 --hosts-emulate 2 "$perf" -b 64 -e 1M -f 16384 -n 3 -w 1
    tap_case "$s: ranks of one thread, as a group" good 1 "$perf" -g $n -b 12K -e 12K -n 3 -w 1
    tap_case "$s: a planted wrong element is seen" caught "$perf" -t $n -b 12K -e 12K -n 1 -w 1 --break
done
in_place=N/A
tap_case "copy: every rank its own" good 3 "$bin/copy_perf" -t 3 -b 12 -e 12K -f 32 -n 3 -w 1
tap_case "copy: a planted wrong element is seen" caught "$bin/copy_perf" -t 3 -b 12K -e 12K -n 1 -w 1 --break
tap_case "alltoallv: seven ranks, in groups of five operations" good 2 $run -n 7 "$bin/alltoallv_perf" -b 4K -e 1M -f 256 -n 3 -m 5
tap_case "sendrecv: one rank, to itself" good 2 "$bin/sendrecv_perf" -b 4K -e 1M -f 256 -n 3
tap_case "putsignal: one rank, to itself" good 2 "$bin/putsignal_perf" -b 4K -e 1M -f 256 -n 3
tap_case "putsignal: five operations at a time" good 2 $run -n 3 "$bin/putsignal_perf" -b 4K -e 1M -f 256 -n 3 -m 5
tap_case "alltoall: no in-place numbers in the JSON" bash -c "'$bin/alltoall_perf' -t 2 -b 1K -e 1K -n 2 -J j && grep '\"in_place\": null' j"
tap_case "hypercube: three ranks are refused" refused "$bin/hypercube_perf" -t 3 -b 1K -e 1K -n 2
tap_end
