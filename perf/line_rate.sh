#!/usr/bin/env bash
# What share of a wire AllReduce uses: two namespaces joined by one cable that carries RATE Mbit/s each way (token bucket
# on both ends, MTU 9000), two ranks.
#
#   perf/line_rate.sh [RATE_MBIT=500] [FIRST=16M] [LAST=64M]        needs root, ip, tc
#
# A token bucket charges headers, so the most that TCP can carry is (MTU - 52) / (MTU + 14) = 99.27 %. For 2 ranks every
# algorithm moves S bytes each way, so S / time is what one direction of the wire carries.
# The burst (128 KiB) holds one full segmentation packet, the limit is the switch's buffer. Everything is removed at the end.
set -eu
cd "$(dirname "$0")/.."
rate=${1:-500} first=${2:-16M} last=${3:-64M} bin=${BUILD:-build}/bin
a=rail-line-$$-a b=rail-line-$$-b
. scripts/two_namespaces.sh
trap 'namespaces_gone "$a" "$b"' EXIT
two_namespaces "$a" "$b"
for n in "$a" "$b"; do
    tc -n "$n" qdisc add dev eth0 root tbf rate "${rate}mbit" burst 131072 limit 1048576
    ip netns exec "$n" sysctl -qw net.ipv4.tcp_congestion_control=reno
done
"$bin/railccl" run -n 2 --netns "$a,$b" --no-prefix --timeout 300 "$bin/all_reduce_perf" -b "$first" -e "$last" -f 2 -n 5 -w 1 |
    awk -v rate="$rate" '
        /^#/ { next }
        $1 ~ /^[0-9]+$/ { printf "%12d B   out of place %6.2f %%   in place %6.2f %%   of %d Mbit/s each way   wrong %s %s\n",
                          $1, 800 * $1 / $6 / rate, 800 * $1 / $10 / rate, rate, $9, $13; rows++; wrong += $9 + $13 }
        END { exit !(rows && !wrong) }'
