#!/usr/bin/env bash
# What an AllReduce of 8 bytes takes over TCP, beside the least that it could: half a round trip of a plain ping-pong of 8
# bytes whose ends spin on recv. Two namespaces joined by one cable without a rate limit, two ranks, interleaved runs.
#
#   perf/tcp_latency.sh [PAIRS=20]        needs root, ip
#
# One line per pair: the ping-pong's median of a run (tests/transport/bench_net.c), AllReduce out of place and in place, all in
# microseconds; then medians, and the median, least and most of the ratios of pairs. The kernel's part depends on the machine
# more than ours does, so only ratios compare machines. Two cores at least. Everything is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
pairs=${1:-20} build=${BUILD:-build} a=rail-lat-$$-a b=rail-lat-$$-b
[[ $pairs =~ ^[1-9][0-9]*$ ]] || { echo "perf/tcp_latency.sh: PAIRS is '$pairs'; wanted: a number from 1 on" >&2; exit 2; }
make --no-print-directory -s BUILD="$build" all "$build/tests/transport/bench_net"
. scripts/two_namespaces.sh
trap 'namespaces_gone "$a" "$b"' EXIT
two_namespaces "$a" "$b"
echo "half a ping-pong, AllReduce of 8 B out of place, in place (us)"
for ((i = 0; i < pairs; i++)); do
    half=$(timeout 60 "$build/tests/transport/bench_net" pingpong 10.0.0.1 10.0.0.2 "$a" "$b" |
        sed -n 's/^plain ping-pong, half .*median *\([0-9.]*\) us$/\1/p') || half=
    ours=$("$build/bin/railccl" run -n 2 --netns "$a,$b" --no-prefix --timeout 60 "$build/bin/all_reduce_perf" -b 8 -e 8 -w 2000 -n 100000 |
        awk '$1 == "8" { if ($9 + $13) exit 1; print $6, $10 }') || ours=
    [ -n "$half" ] && [ -n "$ours" ] || { echo "a measurement failed: '$half' '$ours'" >&2; exit 1; }
    echo "$half $ours"
done | tee "$build/tcp_latency.txt"
sort_of() { awk "{ print $1 }" "$build/tcp_latency.txt" | sort -n; }
median() { awk '{ v[NR] = $1 } END { printf "%.2f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
echo "medians: half a ping-pong $(sort_of '$1' | median) us, AllReduce $(sort_of '$2' | median) and $(sort_of '$3' | median) us"
for column in 2 3; do
    ratios=$(sort_of "\$$column / \$1")
    printf '%s: %s of half a ping-pong (%.2f to %.2f; wanted: 1.5)\n' "$([ $column = 2 ] && echo out of place || echo in place)" \
        "$(median <<<"$ratios")" "$(head -n 1 <<<"$ratios")" "$(tail -n 1 <<<"$ratios")"
done
