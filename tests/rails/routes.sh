#!/usr/bin/env bash
# Lanes over equal routes, by the leaves' counters: part of `make check-rails`, some 3 minutes, needs root.
#
# 2 hosts in 2 pods, 8 lanes on one rail, 4 routes of 200 Mbit/s, NICs that fill them; the leaves' hash drawn anew for every
# run. As in rails.sh a case passes when one of RAIL_TRIES=4 runs meets its bars, for a busy machine costs a run its rate and
# blurs its evidence, but never makes one better. Bars: the busiest route of either direction carries at most RAIL_BUSY=115
# per cent of the mean; all together RAIL_TOTAL=80 per cent of what they can (the goal, on a machine with nothing else to do, is
# 95), and one halved in flight leaves RAIL_AFTER=80 (90) per cent of the rest a second later.
. tests/support/tap.sh
. tests/rails/rig.sh
. tests/rails/share.sh
. tests/rails/spread.sh
export RIG_ROUTE_MBIT=200
tries=${RAIL_TRIES:-4} most=${RAIL_BUSY:-115} total=${RAIL_TOTAL:-80} left=${RAIL_AFTER:-80} rig=
trap '[ -z "$rig" ] || rig_down "$rig"' EXIT
trap 'exit 1' INT TERM HUP

fixed() { RAILCCL_ROUTES=0 NCCL_SOCKET_NTHREADS=8 NCCL_NSOCKS_PERTHREAD=1 rail_spread "$rig" 5; }
moving() { RAILCCL_ROUTES=4 rail_spread "$rig" "$@"; }
draw() { rig_seed "$rig" $((RANDOM * 32768 + RANDOM + 1)); }

# Each of SEEDS draws, by one of the tries: the same seed again is another draw of ports.
spreads() { # SEEDS
    local seed try line
    for ((seed = 0; seed < $1; seed++)); do
        for ((try = 0; try < tries; try++)); do
            draw && line=$(moving 5) || return 1
            echo "moving: $line"
            [ "$(rail_value wrong "$line")" = 0 ] || return 1
            rail_holds "$(rail_value busy "$line")" "<=" "$most" && rail_holds "$(rail_value total "$line")" ">=" "$total" && break
        done
        [ $try -lt "$tries" ] || { echo "wanted busy <= $most, total >= $total in one of $tries tries"; return 1; }
    done
}

# What it is good for: without it a draw is uneven nine times of ten.
stays_uneven() {
    local line try
    for ((try = 0; try < 4; try++)); do
        draw && line=$(fixed) || return 1
        echo "fixed: $line"
        [ "$(rail_value moved "$line")" = 0 ] || return 1
        rail_holds "$(rail_value busy "$line")" ">" 115 && return 0
    done
    return 1
}

halves() {
    local line try
    for ((try = 0; try < tries; try++)); do
        draw && line=$(moving 10 $((RANDOM % 4))) || return 1
        echo "halved: $line"
        [ "$(rail_value wrong "$line")" = 0 ] || return 1
        # A bucket passes its burst now and then: some per cent more than its rate.
        rail_holds "$(rail_value share "$line")" "<=" 110 && rail_holds "$(rail_value after "$line")" ">=" "$left" && return 0
    done
    echo "wanted after >= $left in one of $tries tries"
    return 1
}

# Lanes of a rail without routes share one bottleneck, which TCP divides by chance: some are taken for slow. Of 8 lanes at each
# of two ends, in some 10 s, few more than a dozen may move, or evidence has become noise.
rests() {
    local log n try
    rig_down "$rig"
    rig_up "$rig" 2 1 400 || return 1
    for ((try = 0; try < tries; try++)); do
        log=$(NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=NET RAILCCL_ROUTES=4 timeout 120 "${BUILD:-build}/bin/railccl" run -n 2 --netns \
            "$(rig_hosts "$rig" 1)" --timeout 120 "${BUILD:-build}/bin/all_reduce_perf" -b 64M -e 64M -n 3 -w 1 -c 1 2>&1) ||
            { echo "$log"; return 1; }
        n=$(grep -c "lane [0-9]* moved" <<<"$log")
        echo "moves on a rail of one route, both ends: $n"
        [ "$n" -le 16 ] && return 0
    done
    return 1
}

cases=() steps=()
add() { cases+=("$1"); shift; steps+=("$*"); }
add "8 lanes over 4 equal routes: evenly after 2 s, for 3 seeds" spreads 3
add "with keys held fixed they are not" stays_uneven
add "a route halved in flight: a second later the rest is in use" halves
add "where all lanes share one way, few move" rests

tap_plan ${#cases[@]}
refused=$(rig_refused)
[ -n "$refused" ] || [ -e /proc/sys/net/ipv4/fib_multipath_hash_seed ] || refused="the kernel's multipath hash has no seed to set (Linux 6.11)"
if [ -z "$refused" ]; then
    rig=$(rig_name)
    rig_up "$rig" 2 1 1000 routes || refused="the rig does not come up"
fi
tap_steps 1 "$refused"
tap_end
