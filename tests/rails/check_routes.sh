#!/usr/bin/env bash
# The rig with equal routes does what docs/RAILS.md says, and lanes over it deliver what was sent while they move: 15 seconds
# of `make check`. How evenly, and how soon, is tests/rails/routes.sh, by `make check-rails`: evidence takes a calm machine.
. tests/support/tap.sh
. tests/rails/rig.sh
. tests/rails/share.sh
. tests/rails/spread.sh
export RIG_ROUTE_MBIT=200
cases=("four routes join the pods, and one connection keeps to one of them"
       "a route that is made slow says so, both ways"
       "AllReduce with 8 lanes uses every route both ways, and every element is right")
tap_plan ${#cases[@]}
refused=$(rig_refused)
[ -n "$refused" ] || [ -e /proc/sys/net/ipv4/fib_multipath_hash_seed ] || refused="the kernel's multipath hash has no seed to set (Linux 6.11)"
if [ -n "$refused" ]; then
    for name in "${cases[@]}"; do tap_skip "$name" "$refused"; done
    tap_end
fi
rig=$(rig_name)
trap 'rig_down "$rig"' EXIT
trap 'exit 1' INT TERM HUP

# Routes that pod 0's leaf has sent more than a few packets into.
used() { rig_counters "$rig" | awk '$1 == "route" && $3 == 0 && $5 > 3000 { n++ } END { print n + 0 }'; }
joins() {
    rig_up "$rig" 2 1 1000 routes && [ "$(rig_counters "$rig" | grep -c "^route 0 [01] [0-3] 0$")" = 8 ] &&
        [ "$(python3 tests/rails/datagrams.py "$rig-h0" 10.77.0.1 "$rig-h1" 10.77.0.129 20)" = 20 ] && [ "$(used)" = 1 ]
}
slows() {
    rig_route_slow "$rig" 0 2 50 && [ "$(tc -n "$rig-l0" qdisc show dev route2 | grep -c "rate 50Mbit")" = 1 ] &&
        [ "$(tc -n "$rig-l0p1" qdisc show dev route2 | grep -c "rate 50Mbit")" = 1 ] && rig_route_slow "$rig" 0 2 200
}
# Eight ports by chance miss a route in one of two runs, in one direction or the other.
uses_all() {
    local line try
    for try in 1 2 3; do
        rig_seed "$rig" $((RANDOM * 32768 + RANDOM + 1)) && line=$(RAILCCL_ROUTES=4 RAIL_LIMIT_S=90 rail_spread "$rig" 5) || return 1
        echo "$line"
        [ "$(rail_value wrong "$line")" = 0 ] || return 1
        rail_holds "$(rail_value idle "$line")" ">" 40 && return 0
    done
    return 1
}
steps=(joins slows uses_all)
for i in "${!cases[@]}"; do tap_case "${cases[$i]}" "${steps[$i]}"; done
tap_end
