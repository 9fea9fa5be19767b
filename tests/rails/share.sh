#!/usr/bin/env bash
# share.sh - what share of each rail's rate a collective uses, from interface counters. Sourced after rig.sh:
#
#   rail_share NAME SLOTS BYTES CALLS [PROGRAM=all_reduce_perf [OPTION...]]
#
# runs the program with SLOTS ranks per host and prints one line of NAME=value:
#   time_us      of one call, the slower of out of place and in place, where there is both
#   mean, worst  per cent of the rate that the NICs sent, averaged over all NICs, and of the NIC that sent least
#   low, high    per cent of the bytes of its host that the least and the most used rail carried
#   host         per cent of the rate of all its NICs that the host sent which sent most: where hosts have different parts
#   formula      what 2 S (n-1)/n per host and call, divided by the rails, would be in the same time: a plan that sends
#                more than a ring shows as mean > formula
#   sent         what the host that sent most sent per call, over BYTES; busiest: the same of the NIC that sent most, times
#                the rails. The ring over all ranks sends 2 (n-1)/n, rails on m hosts 2 (m-1)/m (half of it for the halves)
#   spine        per cent of all bytes that climbed to the spine
#   wrong        elements, over all results that were checked after the measurement
# A NIC's bytes are those of the whole run over its number of calls, so beginning and end (some 100 KB) count as well.
# Status 1, with the program's output on stderr, when it failed.
rail_share() {
    local name=$1 slots=$2 bytes=$3 calls=$4 program=${5:-all_reduce_perf} bin=${BUILD:-build}/bin work hosts rails mbit
    shift $(($# < 5 ? $# : 5))
    read -r hosts rails mbit _ <"/run/$name.rig" || return 1
    work=$(mktemp -d)
    rig_counters "$name" >"$work/before"
    if ! timeout "${RAIL_LIMIT_S:-120}" "$bin/railccl" run -n $((hosts * slots)) --netns "$(rig_hosts "$name" "$slots")" --no-prefix \
        --timeout "${RAIL_LIMIT_S:-120}" "$bin/$program" -b "$bytes" -e "$bytes" -n "$calls" -w 1 -c "${RAIL_CHECK:-0}" "$@" \
        >"$work/out" 2>&1; then
        cat "$work/out" >&2
        rm -rf "$work"
        return 1
    fi
    rig_counters "$name" >"$work/after"
    awk -v calls=$((calls + 1 + ${RAIL_CHECK:-0})) -v rate="$mbit" -v hosts="$hosts" -v rails="$rails" \
        -v ranks=$((hosts * slots)) '
        FNR == 1 { file++ }
        file == 1 && $1 == "nic"   { before[$2, $3] = $4 }
        file == 1 && $1 == "spine" { before_spine += $3 }
        file == 2 && $1 == "nic"   { sent[$2, $3] = $4 - before[$2, $3]; of_host[$2] += $4 - before[$2, $3]; sum += $4 - before[$2, $3] }
        file == 2 && $1 == "spine" { spine += $3 }
        file == 3 && $1 ~ /^[0-9]+$/ { bytes = $1; time = $10 == "N/A" || $6 + 0 > $10 + 0 ? $6 : $10; calls *= $10 == "N/A" ? 1 : 2; wrong += $9 + $13; rows++ }
        END {
            if (rows != 1 || time <= 0) { print "share.sh: no row of results" >"/dev/stderr"; exit 1 }
            worst = low = 1e9
            for (i in sent) {
                split(i, at, SUBSEP)
                share = sent[i] / calls / time * 800 / rate
                if (share < worst) worst = share
                if (sent[i] > nic) nic = sent[i]
                if (of_host[at[1]] > most) most = of_host[at[1]]
                part = 100 * sent[i] / of_host[at[1]]
                if (part < low) low = part
                if (part > high) high = part
                n++
                mean += share
            }
            printf "time_us=%.0f mean=%.2f worst=%.2f low=%.2f high=%.2f host=%.2f formula=%.2f sent=%.3f busiest=%.3f spine=%.4f wrong=%s\n",
                time, mean / n, worst, low, high, most / calls / time * 800 / rate / (n / hosts),
                2 * bytes * (ranks - 1) / ranks / (n / hosts) / time * 800 / rate, most / calls / bytes, nic / calls / bytes * rails,
                (sum > 0 ? 100 * (spine - before_spine) / sum : 0), wrong
        }' "$work/before" "$work/after" "$work/out"
    local status=$?
    [ $status -eq 0 ] || cat "$work/out" >&2
    rm -rf "$work"
    return $status
}

# The value of one NAME in such a line.
rail_value() { local word; for word in $2; do [ "${word%%=*}" = "$1" ] && echo "${word#*=}"; done; }

# VALUE "<" BOUND, with fractions; either may be an expression. A value that is missing holds nothing.
rail_holds() { [ -n "$1" ] && awk "BEGIN { exit !(($1) $2 ($3)) }"; }
