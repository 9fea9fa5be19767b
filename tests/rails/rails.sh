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

cases=(); steps=()
add() { cases+=("$1"); shift; steps+=("$*"); }
add "4 hosts x 4 rails x 500 Mbit/s, 1 rank a host, 16 MiB"  shape 4 4 500 1 16M 5
add "the same, 64 MiB"                                      full 4 1 64M 3
add "the same with 4 ranks a host, 16 MiB"                  full 4 4 16M 5
add "the same with 4 ranks a host, 64 MiB"                  full 4 4 64M 3
add "3 hosts x 2 rails"                                     shape 3 2 500 2 32M 4
add "5 hosts x 3 rails"                                     shape 5 3 200 1 16M 3
add "2 hosts x 8 rails"                                     shape 2 8 200 1 32M 3
add "hosts with shuffled interfaces"                        shuffled
add "a host short of one rail"                              short_of_one
add "one NIC at half rate: the others take over"            half_rate

tap_plan ${#cases[@]}
refused=$(rig_refused)
for i in "${!cases[@]}"; do
    if [ -n "$refused" ]; then
        tap_skip "${cases[$i]}" "$refused"
        continue
    fi
    # Not in a subshell as tap_case has it: a case leaves its rig to the next one.
    ${steps[$i]} >/tmp/rails-$$.out 2>&1
    status=$?
    tap_case "${cases[$i]}" eval "cat /tmp/rails-$$.out; [ $status -eq 0 ]"
    [ $status -ne 0 ] || tail -n 1 /tmp/rails-$$.out | sed 's/^/# /'
    rm -f /tmp/rails-$$.out
done
tap_end
