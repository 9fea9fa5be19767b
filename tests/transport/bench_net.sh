#!/usr/bin/env bash
# Makes two namespaces joined by one rate-limited wire and measures links against plain TCP there, then on loopback.
#   tests/transport/bench_net.sh [RATE_MBIT=500]      needs root, ip, tc
# RUN="chrt -r 1" in front makes figures bearable on a busy machine. Everything it makes is named rnet*, and removed.
set -eu
cd "$(dirname "$0")/../.."
rate=${1:-500} build=${BUILD:-build} run=${RUN:-}
bench=$build/tests/transport/bench_net
make --no-print-directory -s BUILD="$build" "$bench"
a=rnet$$a b=rnet$$b
. scripts/two_namespaces.sh
trap 'namespaces_gone $a $b' EXIT
two_namespaces $a $b
for n in $a $b; do
    ip netns exec $n sysctl -qw net.ipv4.tcp_congestion_control=reno
    tc -n $n qdisc add dev eth0 root tbf rate "${rate}mbit" burst 131072 limit 1048576
done
echo "== stream, $rate Mbit/s each way, MTU 9000"
LINE_MBIT=$rate SECONDS_EACH=${SECONDS_EACH:-4} UNPINNED=1 $run "$bench" stream 10.0.0.1 10.0.0.2 $a $b
[ -z "${ONLY_STREAM:-}" ] || exit 0
for n in $a $b; do tc -n $n qdisc del dev eth0 root; done
echo "== 8 bytes over veth"
$run "$bench" pingpong 10.0.0.1 10.0.0.2 $a $b
echo "== 8 bytes over loopback"
$run "$bench" pingpong 127.0.0.1 127.0.0.1
echo "== a spin in vain"
$run "$bench" idle 127.0.0.1 127.0.0.1
SOCKETS=16 $run "$bench" idle 127.0.0.1 127.0.0.1
echo "== stream over loopback"
SECONDS_EACH=2 $run "$bench" stream 127.0.0.1 127.0.0.1
