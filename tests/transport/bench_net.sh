#!/usr/bin/env bash
# Makes two namespaces joined by one rate-limited wire and measures links against plain TCP there, then on loopback.
#   tests/transport/bench_net.sh [RATE_MBIT=500]      needs root, ip, tc; from the root of the repository
# RUN="chrt -r 1" in front makes figures bearable on a busy machine. Everything it makes is named rnet*, and removed.
set -eu
rate=${1:-500} build=${BUILD:-build} run=${RUN:-}
bench=$build/tests/transport/bench_net
make --no-print-directory -s BUILD="$build" "$bench"
a=rnet$$a b=rnet$$b
trap 'ip netns del $a 2>/dev/null; ip netns del $b 2>/dev/null || true' EXIT
ip netns add $a; ip netns add $b
ip -n $a link add rnet0 mtu 9000 type veth peer name rnet0 mtu 9000 netns $b
ip -n $a addr add 10.99.0.1/24 dev rnet0; ip -n $b addr add 10.99.0.2/24 dev rnet0
for n in $a $b; do
    ip -n $n link set lo up; ip -n $n link set rnet0 up
    ip netns exec $n sysctl -qw net.ipv4.tcp_congestion_control=reno
    tc -n $n qdisc add dev rnet0 root tbf rate "${rate}mbit" burst 131072 limit 1048576
done
echo "== stream, $rate Mbit/s each way, MTU 9000"
LINE_MBIT=$rate SECONDS_EACH=${SECONDS_EACH:-4} UNPINNED=1 $run "$bench" stream 10.99.0.1 10.99.0.2 $a $b
[ -z "${ONLY_STREAM:-}" ] || exit 0
for n in $a $b; do tc -n $n qdisc del dev rnet0 root; done
echo "== 8 bytes over veth"
$run "$bench" pingpong 10.99.0.1 10.99.0.2 $a $b
echo "== 8 bytes over loopback"
$run "$bench" pingpong 127.0.0.1 127.0.0.1
echo "== a spin in vain"
$run "$bench" idle 127.0.0.1 127.0.0.1
SOCKETS=16 $run "$bench" idle 127.0.0.1 127.0.0.1
echo "== stream over loopback"
SECONDS_EACH=2 $run "$bench" stream 127.0.0.1 127.0.0.1
