#!/usr/bin/env bash
# `railccl topo` in a network namespace whose two NICs are in one subnet: found, unless each address has a rule of its own.
. tests/support/tap.sh
bin=$BUILD/bin/railccl
space=rail-one-subnet-$$
out=$(mktemp)
trap 'ip netns del "$space" 2>/dev/null; rm -f "$out"' EXIT
names=("two NICs of one subnet send out of one" "a rule and a table per address mends it" "subnets of their own do, too")
tap_plan ${#names[@]}
made=$(ip netns add "$space" 2>&1 && for r in 0 1; do
    ip -n "$space" link add "n$r" type veth peer name "p$r" && ip -n "$space" link set "p$r" up && ip -n "$space" link set "n$r" up &&
        ip -n "$space" addr add "10.9.0.$((r * 4 + 1))/24" dev "n$r" || exit 1
done 2>&1)
[ $? -eq 0 ] || { for n in "${names[@]}"; do tap_skip "$n" "needs root and veth: ${made:0:80}"; done; tap_end; }

topo() { ip netns exec "$space" "$bin" topo >"$out" 2>&1; }
wrong() { topo && grep -qE 'wrong +(n0|n1) .*in one subnet, and what n1 should send leaves by another port' "$out" || { cat "$out"; return 1; }; }
mended() {
    local r
    for r in 0 1; do
        ip -n "$space" rule add from "10.9.0.$((r * 4 + 1))" table $((100 + r)) && ip -n "$space" route add 10.9.0.0/24 dev "n$r" table $((100 + r)) || return 1
    done
    topo && ! grep 'in one subnet' "$out" && grep -q 'the kernel sends by n1' "$out" || { cat "$out"; return 1; }
}
apart() {
    ip -n "$space" rule del table 100; ip -n "$space" rule del table 101
    ip -n "$space" addr flush dev n1 && ip -n "$space" addr add 10.9.1.5/24 dev n1 && topo && ! grep 'in one subnet' "$out" || { cat "$out"; return 1; }
}
tap_case "${names[0]}" wrong
tap_case "${names[1]}" mended
tap_case "${names[2]}" apart
tap_end
