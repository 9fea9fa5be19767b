#!/usr/bin/env bash
# NICs that go away between two communicators of the same processes: the second one is made of what is there, at once.
. tests/support/tap.sh
. tests/rails/rig.sh
name="a NIC without carrier here and one that is down there: the second communicator does without both"
tap_plan 1
refusal=$(rig_refused)
command -v python3 >/dev/null || refusal="python3 is not installed"
ldd "$BUILD/lib/libnccl.so.2" | grep -qE 'lib[at]san' && refusal="a sanitized library does not load into python"
[ -z "$refusal" ] || { tap_skip "$name" "$refusal"; tap_end; }
rig=$(rig_name)
dir=$(mktemp -d)
trap 'rig_down "$rig"; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP

rank() { # RANK, which is its host as well
    NCCL_DEBUG=INFO timeout 60 ip netns exec "$rig-h$1" python3 tests/rails/two_communicators.py "$BUILD/lib/libnccl.so.2" "$dir" "$1" >"$dir/out$1" 2>&1
}
says() { grep -qE -- "$2" "$dir/out$1" || { echo "no \"$2\" in rank $1's:"; cat "$dir/out$1"; return 1; }; }
goes_on() {
    local i first second took
    rig_up "$rig" 2 4 500 || return 1
    rank 0 & first=$!
    rank 1 & second=$!
    for ((i = 0; i < 3000; i++)); do [ -e "$dir/ready0" ] && [ -e "$dir/ready1" ] && break; sleep 0.01; done
    rig_cut "$rig" 1 1 && ip netns exec "$rig-h0" ip link set eth2 down || return 1
    touch "$dir/go"
    wait $first && wait $second || { cat "$dir/out0" "$dir/out1"; return 1; }
    says 1 'WARN NIC eth1 was chosen and is gone: it has no carrier' && says 0 'WARN NIC eth2 was chosen and is gone: it is down' &&
        says 0 'rail 0: node 0 eth0 .*\(2 of 2 nodes\)' && says 0 'rail .: node 0 eth3 .*node 1 eth3 .*\(2 of 2 nodes\)' &&
        says 0 'node 0 eth1 .* no partner' && says 1 'node 1 eth2 .* no partner' || return 1
    took=$(sed -n 's/.*right after \([0-9]*\).*/\1/p' "$dir/out0")
    [ "$took" -lt 20 ] || { echo "took $took s: it tried what is gone, which takes 30 s"; return 1; }
}
tap_case "$name" goes_on
tap_end
