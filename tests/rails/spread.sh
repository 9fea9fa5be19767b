#!/usr/bin/env bash
# spread.sh - how an AllReduce spreads over equal routes, from the leaves' counters. Sourced after rig.sh and share.sh:
#
#   rail_spread NAME CALLS [HALVED]    8 lanes on each rail, 64 MiB; the environment says whether keys are fixed
#
# begins to count 2 s after the first bytes have come, for 2 s. With HALVED that route is then halved, and a second later
# counted for 1.5 s more. Prints one line of NAME=value:
#   busy, idle     the busiest and the idlest route, per cent of the mean of its direction; the worse direction
#   total          all routes together, per cent of what their buckets let through
#   after          the same when one is halved, per cent of what is left; share: what that one carries, per cent of its half
#   moved          lanes, by the log: each end prints its own line
#   wrong          elements, all results checked
# Status 1, with the program's output on stderr, when it failed.
rail_routes_now() { # NAME: milliseconds, then all routes
    echo "at $(($(date +%s%N) / 1000000))"
    local rails r
    read -r _ rails _ <"/run/$1.rig"
    for ((r = 0; r < rails; r++)); do rig_route_counters "$1" $r; done
}

# From FILE to FILE: "busy idle total share", rates in Mbit/s as given; HALVED 0 when none is.
rail_routes_between() { # FILE FILE MBIT [ROUTE HALF_MBIT]
    awk -v mbit="$3" -v slow="${4:--1}" -v half="${5:-0}" '
        $1 == "at" { ms = $2 - ms; next }
        NR == FNR { before[$2, $3, $4] = $5; next }
        {
            d = $5 - before[$2, $3, $4]; way = $2 SUBSEP $3
            if (!(way in most) || d > most[way]) most[way] = d
            if (!(way in least) || d < least[way]) least[way] = d
            sum[way] += d; n[way]++; all += d
            can += $4 == slow ? half : mbit
            if ($4 == slow) { of_slow += d; slow_can += half }
        }
        END {
            busy = 0; idle = 1e9
            for (w in sum) if (sum[w] > 0) {
                if (100 * most[w] * n[w] / sum[w] > busy) busy = 100 * most[w] * n[w] / sum[w]
                if (100 * least[w] * n[w] / sum[w] < idle) idle = 100 * least[w] * n[w] / sum[w]
            }
            printf "%.1f %.1f %.1f %.1f\n", busy, idle, all * 0.8 / ms / can, slow_can ? of_slow * 0.8 / ms / slow_can : 0
        }' "$1" "$2"
}

rail_spread() { # NAME CALLS [HALVED]
    local name=$1 calls=$2 halved=${3:-} bin=${BUILD:-build}/bin work hosts pid waited mbit=${RIG_ROUTE_MBIT:?} spread after="0 0 0 0"
    read -r hosts _ <"/run/$name.rig" || return 1
    work=$(mktemp -d)
    NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=NET NCCL_DEBUG_FILE=$work/log.%p timeout "${RAIL_LIMIT_S:-120}" "$bin/railccl" run -n "$hosts" \
        --netns "$(rig_hosts "$name" 1)" --no-prefix --timeout "${RAIL_LIMIT_S:-120}" "$bin/all_reduce_perf" -b 64M -e 64M \
        -n "$calls" -w 1 -c 1 >"$work/out" 2>&1 &
    pid=$!
    rail_routes_now "$name" >"$work/first"
    for ((waited = 0; waited < 300; waited++)); do
        sleep 0.1
        rail_routes_now "$name" >"$work/now"
        awk 'NR == FNR { b[$2, $3, $4] = $5; next } $1 == "route" { s += $5 - b[$2, $3, $4] } END { exit s < 1e7 }' \
            "$work/first" "$work/now" && break
    done
    sleep 2
    rail_routes_now "$name" >"$work/a"
    sleep 2
    rail_routes_now "$name" >"$work/b"
    spread=$(rail_routes_between "$work/a" "$work/b" "$mbit")
    if [ -n "$halved" ]; then
        rig_route_slow "$name" 0 "$halved" $((mbit / 2))
        sleep 1
        rail_routes_now "$name" >"$work/a"
        sleep 1.5
        rail_routes_now "$name" >"$work/b"
        after=$(rail_routes_between "$work/a" "$work/b" "$mbit" "$halved" $((mbit / 2)))
    fi
    # The measurement is over before the program is: else it measured the end.
    if ! kill -0 $pid 2>/dev/null; then echo "spread.sh: the program was done too early; more CALLS" >&2; fi
    wait $pid
    local status=$?
    [ -z "$halved" ] || rig_route_slow "$name" 0 "$halved" "$mbit"
    set -- $spread $after
    echo "busy=$1 idle=$2 total=$3 after=$7 share=$8 moved=$(cat "$work"/log.* 2>/dev/null | grep -c "railccl INFO lane [0-9]* moved")" \
        "wrong=$(awk '$1 == 67108864 { wrong = $9 + $13; rows++ } END { print rows == 1 ? wrong : "?" }' "$work/out")"
    [ $status -eq 0 ] || cat "$work/out" >&2
    rm -rf "$work"
    return $status
}
