#!/usr/bin/env bash
# Collectives on rails, by interface counters: `make check-rails`, some minutes, needs root.
#
# Every case runs up to RAIL_TRIES=4 times and passes when one run meets all of its bars: another program that takes the
# CPU for a while costs a run its rate, but never makes one better. What a rate must be is RAIL_MEAN and RAIL_WORST, per
# cent of what tbf lets through (99.27 of 100 is TCP's payload at MTU 9000). Bytes on the spine and the split over rails
# are judged in every run, for they do not depend on the machine's mood. The goal is RAIL_MEAN=98 RAIL_WORST=97.
. tests/support/tap.sh
. tests/rails/rig.sh
. tests/rails/share.sh
tries=${RAIL_TRIES:-4} mean=${RAIL_MEAN:-90} worst=${RAIL_WORST:-88} rig=
trap 'rig_down "$rig"' EXIT
trap 'exit 1' INT TERM HUP

# HOSTS RAILS MBIT: RIG_* may stand before it
fresh() {
    [ -z "$rig" ] || rig_down "$rig"
    rig=$(rig_name)
    rig_up "$rig" "$@" spine
}

# What must hold in every run, whatever the machine is doing.
sound() { # LINE LOW
    rail_holds "$(rail_value spine "$1")" "<" 0.1 && rail_holds "$(rail_value low "$1")" ">=" "$2" &&
        [[ $(rail_value wrong "$1") =~ ^0$ ]]
}

# RAILS SLOTS BYTES CALLS [PROGRAM OPTION...]: mean and worst rail reach the bars, in one of the tries.
full() {
    local rails=$1 line try
    shift
    for ((try = 0; try < tries; try++)); do
        line=$(rail_share "$rig" "$@") || return 1
        echo "$line"
        sound "$line" "$(awk "BEGIN { print 90 / $rails }")" || { echo "spine or split is wrong"; return 1; }
        rail_holds "$(rail_value mean "$line")" ">=" "$mean" && rail_holds "$(rail_value worst "$line")" ">=" "$worst" && return 0
    done
    echo "wanted mean >= $mean, worst >= $worst in one of $tries tries"
    return 1
}

# HOSTS RAILS MBIT SLOTS BYTES CALLS
shape() { fresh "$1" "$2" "$3" && full "$2" "$4" "$5" "$6"; }
ring() { fresh "$1" "$2" "$3" && RAILCCL_ALGO=ring full "$2" "$4" "$5" "$6"; } # where rails would be chosen

# HOSTS RAILS MBIT SLOTS BYTES CALLS WAYS PROGRAM: a ring per rank of a host. What the busiest host and its busiest NIC send
# is WAYS (m-1)/m of BYTES, and 3 % for headers, beginning and end; a tenth more on one NIC of those that share it. The
# ring over all ranks would send 1 to 2 times more, by the shape: 1.25 on 4 hosts of 4.
hierarchical() {
    local rails=$2 line try least
    least=$(awk "BEGIN { print $7 * ($1 - 1) / $1 }")
    fresh "$1" "$2" "$3" || return 1
    for ((try = 0; try < tries; try++)); do
        line=$(RAILCCL_ALGO=rails rail_share "$rig" "$4" "$5" "$6" "$8") || return 1
        echo "$line: least $least"
        sound "$line" "$(awk "BEGIN { print 90 / $rails }")" || { echo "spine or split is wrong"; return 1; }
        rail_holds "$(rail_value sent "$line")" ">=" "$least" && rail_holds "$(rail_value sent "$line")" "<" "1.03 * $least" &&
            rail_holds "$(rail_value busiest "$line")" "<" "1.13 * $least" ||
            { echo "sent more, or less, than $least of the bytes"; return 1; }
        rail_holds "$(rail_value mean "$line")" ">=" "$mean" && rail_holds "$(rail_value worst "$line")" ">=" "$worst" && return 0
    done
    echo "wanted mean >= $mean, worst >= $worst in one of $tries tries"
    return 1
}

# One NIC at half rate: what all rails together still carry for the ring's slowest host is (RAILS - 1/2) of RAILS. A static
# split would wait for the slow one: 50 %.
half_rate() {
    local line try share left
    fresh 4 4 200 && rig_slow "$rig" 1 2 100 || return 1
    left=$(awk 'BEGIN { print 100 * 3.5 / 4 }')
    for ((try = 0; try < tries; try++)); do
        line=$(rail_share "$rig" 1 64M 2) || return 1
        share=$(awk -v m="$(rail_value formula "$line")" -v l="$left" 'BEGIN { printf "%.1f\n", 100 * m / l }')
        echo "$line: $share % of what is left"
        rail_holds "$(rail_value spine "$line")" "<" 0.1 || return 1
        rail_holds "$share" ">=" "${RAIL_HALF:-85}" && return 0
    done
    return 1
}

# Interfaces named and numbered differently on every host.
shuffled() { RIG_SHUFFLE=1 fresh 4 4 200 && full 4 1 16M 3 && full 4 4 16M 3; }

# Host 1 has no NIC on rail 2: the ring can carry what it can, 3 rails of 4; what is in common with it goes on 3.
short_of_one() {
    local line try share
    RIG_SHUFFLE=1 RIG_MISSING="1:2" fresh 4 4 200 || return 1
    for ((try = 0; try < tries; try++)); do
        line=$(rail_share "$rig" 1 64M 2) || return 1
        # formula divides by the mean number of NICs, 15 of 16
        share=$(awk -v m="$(rail_value formula "$line")" 'BEGIN { printf "%.1f\n", m * (15 / 4) / 3 }')
        echo "$line: $share % of what host 1 carries"
        rail_holds "$(rail_value spine "$line")" "<" 0.1 || return 1
        rail_holds "$share" ">=" "$mean" && return 0
    done
    return 1
}

# SLOTS BYTES CALLS FORMULA [LOW=0]: AllReduce by trees. In every run the host that sends most sends FORMULA times S
# (algos/family.c), beside headers, acknowledgements and what begins and ends a run; in one of the tries its NICs reach the bar
# and no NIC carries less than LOW per cent of its host's bytes.
tree() {
    local line try
    for ((try = 0; try < tries; try++)); do
        line=$(RAILCCL_ALGO=tree rail_share "$rig" "$1" "$2" "$3") || return 1
        echo "$line"
        rail_holds "$(rail_value spine "$line")" "<" 0.1 && rail_holds "$(rail_value sent "$line")" ">=" "$4" &&
            rail_holds "$(rail_value sent "$line")" "<" "$(awk "BEGIN { print 1.03 * $4 }")" ||
            { echo "wanted $4 S from the busiest host, nothing on the spine"; return 1; }
        rail_holds "$(rail_value host "$line")" ">=" "$mean" && rail_holds "$(rail_value low "$line")" ">=" "${5:-0}" && return 0
    done
    echo "wanted host >= $mean, low >= ${5:-0} in one of $tries tries"
    return 1
}
trees_of() { fresh "$1" "$2" "$3" && tree "$4" "$5" "$6" "$7"; } # HOSTS RAILS MBIT SLOTS BYTES CALLS FORMULA

# Bytes from h0 and h3, which stand under one leaf, to h1 and h2, which stand under the other.
count_leaf() {
    local h r to=""
    for ((r = 0; r < 4; r++)); do to="$to, 10.77.$r.2, 10.77.$r.3"; done
    for h in 0 3; do
        ip netns exec "$rig-h$h" nft "delete table inet leaf" 2>/dev/null
        ip netns exec "$rig-h$h" nft -f - <<END || return 1
table inet leaf {
    counter across { }
    chain out { type filter hook output priority 0; ip daddr { ${to#, } } counter name across; }
}
END
    done
}
leaf_bytes() {
    local h
    for h in 0 3; do ip netns exec "$rig-h$h" nft list counter inet leaf across; done |
        awk '{ for (i = 1; i < NF; i++) if ($i == "bytes") sum += $(i + 1) } END { printf "%.0f\n", sum }'
}
# FILE ALGORITHM TIMES: 4 calls of 16 MiB send that many times S from leaf to leaf, one way.
across() {
    local log times
    count_leaf || return 1
    log=$(NCCL_DEBUG=INFO RAILCCL_FABRIC=$1 RAILCCL_ALGO=$2 "${BUILD:-build}/bin/railccl" run -n 4 --timeout 60 --netns "$(rig_hosts "$rig" 1)" \
        tests/rails/as_host.sh "${BUILD:-build}/bin/all_reduce_perf" -b 16M -e 16M -n 1 -w 1 -c 0 2>&1) || { echo "$log"; return 1; }
    times=$(awk -v b="$(leaf_bytes)" 'BEGIN { printf "%.3f\n", b / 4 / (16 * 1048576) }')
    echo "$log" | grep fabric:
    echo "$2${1:+ with the file}: $times S from leaf to leaf, wanted $3"
    [ -z "$1" ] || [[ $log == *"from leaf to leaf 2 times (in rank order 2), a tree 1 times; there are 2, so no other"* ]] || return 1
    rail_holds "$times" ">=" "$3" && rail_holds "$times" "<" "$(awk "BEGIN { print 1.03 * $3 }")"
}
two_leaves() {
    fresh 4 4 200 || return 1
    printf 'switch left right under top\nswitch top\nhosts h[0,3] under left\nhosts h[1,2] under right\n' >"/run/$rig.fabric"
    # One edge of each tree, half of S each way; without the file it is all three. Two edges of a ring, one each way.
    across "" tree 3 && across "/run/$rig.fabric" tree 1 && across "/run/$rig.fabric" ring 1.5
}

# Two communicators in the same processes, 16 MB calls for 4 s: their rates are within 5 % of each other, and together the
# NICs carry the bar. 4 hosts, 1 rank each: a call sends 2 S 3/4 per host over its 4 NICs.
side_by_side() {
    local line try
    fresh 4 4 200 || return 1
    for ((try = 0; try < tries; try++)); do
        line=$("${BUILD:-build}/bin/railccl" run -n 4 --no-prefix --timeout 60 --netns "$(rig_hosts "$rig" 1)" \
            "${BUILD:-build}/bin/examples/13_side_by_side" 4 16 | grep "side by side") || return 1
        line=$(awk '{ a = $7; b = $9; low = a < b ? a : b
                      printf "of_the_other=%.1f of_the_wires=%.2f\n", 100 * low / (a + b - low), (a + b) * 1.5 * 8 / (4 * 200) * 100 }' <<<"$line")
        echo "two communicators: $line"
        rail_holds "$(rail_value of_the_other "$line")" ">=" 95 && rail_holds "$(rail_value of_the_wires "$line")" ">=" "$mean" && return 0
    done
    return 1
}

cases=(); steps=()
add() { cases+=("$1"); shift; steps+=("$*"); }
add "4 hosts x 4 rails x 500 Mbit/s, 1 rank a host, 16 MiB"  shape 4 4 500 1 16M 5
add "the same, 64 MiB"                                      full 4 1 64M 3
add "ring: 4 hosts x 4 rails x 200 Mbit/s, 4 ranks a host, 16 MiB" ring 4 4 200 4 16M 3
add "ring: the same, 64 MiB"                                ring 4 4 200 4 64M 2
add "ring: 3 hosts x 2 rails, 2 ranks a host"               ring 3 2 500 2 32M 4
add "5 hosts x 3 rails"                                     shape 5 3 200 1 16M 3
add "2 hosts x 8 rails"                                     shape 2 8 200 1 32M 3
add "rails: 4 hosts x 4 rails x 50 Mbit/s, 4 ranks a host, 16 MiB" hierarchical 4 4 50 4 16M 3 2 all_reduce_perf
add "rails: the same at 200 Mbit/s, 64 MiB"                 hierarchical 4 4 200 4 64M 3 2 all_reduce_perf
add "rails: 3 hosts x 2 rails, 2 ranks a host"              hierarchical 3 2 100 2 32M 3 2 all_reduce_perf
add "rails: 2 hosts x 2 rails, 4 ranks a host"              hierarchical 2 2 100 4 32M 3 2 all_reduce_perf
add "rails: ReduceScatter, 4 hosts x 4 rails, 4 ranks a host" hierarchical 4 4 50 4 16M 3 1 reduce_scatter_perf
add "rails: AllGather, 4 hosts x 4 rails, 4 ranks a host"   hierarchical 4 4 50 4 16M 3 1 all_gather_perf
add "hosts with shuffled interfaces"                        shuffled
add "a host short of one rail"                              short_of_one
add "one NIC at half rate: the others take over"            half_rate
add "two communicators at once share the rails evenly"      side_by_side
add "trees: 4 hosts x 4 rails, 1 rank a host, 16 MiB"        trees_of 4 4 200 1 16M 3 1.5
add "trees: the same, 64 MiB"                               tree 1 64M 2 1.5
add "trees: the same with 4 ranks a host, 16 MiB"           tree 4 16M 3 1.5
add "trees: the same with 4 ranks a host, 64 MiB"           tree 4 64M 2 1.5 24.5
add "trees: 5 hosts x 2 rails, 2 ranks a host"              trees_of 5 2 200 2 32M 2 2
add "trees and ring go from leaf to leaf as seldom as can be" two_leaves

tap_plan ${#cases[@]}
refused=$(rig_refused)
tap_steps 1 "$refused"
tap_end
