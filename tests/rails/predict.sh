#!/usr/bin/env bash
# predict.sh - what `railccl plan --machine rig` says against what emulated rails measure, side by side. root; minutes.
#
#   tests/rails/predict.sh              16 cases that were not used for calibration, to 10 %; messages, to 20 %; a dead
#                                       NIC, leaf and spine, before and under a call, the
#                                       slowdown to 15 %. Status 1 when one is farther off
#   tests/rails/predict.sh cases|messages|faults|flight|spine   one of them; the spine alone
#   tests/rails/predict.sh calibrate    runs the shapes for calibration; prints the lines of tests/rails/calibration.txt
#
# Rail 0 is left alone, for the bootstrap is on it. A measured time is the shortest of RUNS=5 runs, each the slower of
# out of place
# and in place: whatever else the machine does only adds. Where switches hash, each of DRAWS=16 draws is run once. At
# 200 Mbit/s per NIC the wires are the bound, not the two cores, unless they are taken away.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
. tests/rails/rig.sh
. tests/rails/share.sh
tool=${BUILD:-build}/bin/railccl runs=${RUNS:-5} mbit=200 rig="" work="" bad=0
refused=$(rig_refused)
[ -z "$refused" ] || { echo "predict.sh: skipped: $refused"; exit 0; }
trap '[ -z "$rig" ] || rig_down "$rig"; [ -z "$work" ] || rm -rf "$work"' EXIT

least() { sort -n | head -1; }

# Microseconds of a call.
measured() { # SLOTS ALGORITHM BYTES
    local k line
    for ((k = 0; k < runs; k++)); do
        case $2 in
        alltoall | sendrecv) line=$(rail_share "$rig" "$1" "$3" "${CALLS:-4}" "$2_perf") || return 1 ;;
        *) line=$(RAILCCL_ALGO=$2 rail_share "$rig" "$1" "$3" "${CALLS:-4}") || return 1 ;;
        esac
        rail_value time_us "$line"
    done | least
}
predicted() { # OPTIONS...
    "$tool" plan --machine rig --rate 0.2 --json "$@" |
        python3 -c 'import json, sys; print("%.0f" % (json.load(sys.stdin)["cases"][0]["ns"] / 1e3))'
}

# Prints a line of the table; counts what is farther off than the bar.
verdict() { # NAME MEASURED PREDICTED BAR UNIT
    awk -v name="$1" -v m="$2" -v p="$3" -v bar="$4" -v unit="$5" 'BEGIN {
        off = m > 0 ? 100 * (p / m - 1) : 1e9
        printf "| %-44s | %10.4g %-2s | %10.4g %-2s | %+6.1f %% |%s\n", name, m, unit, p, unit, off,
            (off > bar || off < -bar) ? " farther than " bar " %" : ""
        exit off > bar || off < -bar }' || bad=$((bad + 1))
}

# ---- calibration: shapes 2x4, 3x3, 6x1 ----

calibrate_shape() { # HOSTS RAILS "SLOTS:ALGORITHM:BYTES ..."
    local case slots algorithm bytes
    rig=$(rig_name)
    rig_up "$rig" "$1" "$2" $mbit || exit 1
    for case in $3; do
        IFS=: read -r slots algorithm bytes <<<"$case"
        echo "$1 $2 $slots $algorithm $bytes $(measured "$slots" "$algorithm" "$bytes")"
    done
    rig_down "$rig"
    rig=""
}
if [ "${1:-}" = calibrate ]; then
    echo "# hosts rails ranks/host algorithm bytes microseconds; $mbit Mbit/s per NIC," \
        "load $(cut -d' ' -f1 /proc/loadavg)"
    CALLS=50 calibrate_shape 6 1 "1:ring:3072 1:ring:12288"
    CALLS=50 calibrate_shape 3 3 "1:ring:3072 1:ring:12288"
    CALLS=50 calibrate_shape 2 4 "1:tree:1024 1:tree:4096"
    calibrate_shape 2 4 "1:ring:33554432 2:ring:16777216 1:tree:33554432 4:rails:33554432"
    calibrate_shape 3 3 "1:ring:16777216 3:ring:16777216 3:rails:16777216"
    exit 0
fi

# ---- the sixteen ----

shape() { # HOSTS RAILS "SLOTS:ALGORITHM:BYTES[:MBIT of one NIC] ..."
    local case slots algorithm bytes slow options name
    rig=$(rig_name)
    rig_up "$rig" "$1" "$2" $mbit || exit 1
    for case in $3; do
        IFS=: read -r slots algorithm bytes slow <<<"$case"
        options=(--hosts "$1" --rails "$2" --gpus "$slots" --tiers 1 --hosts-per-leaf "$1" --size "$bytes")
        case $algorithm in
        alltoall | sendrecv) options+=(--collective "$algorithm") ;;
        *) options+=(--algo "$algorithm") ;;
        esac
        name="$1 hosts x $2 rails, $slots ranks, $algorithm, $((bytes >> 20)) MiB"
        [ -z "$slow" ] ||
            {
                rig_slow "$rig" 1 0 "$slow"
                options+=(--slow "nic:host1.0=$(awk "BEGIN { print $slow / $mbit }")")
                name+=", half a NIC"
            }
        verdict "$name" "$(measured "$slots" "$algorithm" "$bytes" | awk '{ print $1 / 1000 }')" \
            "$(predicted "${options[@]}" | awk '{ print $1 / 1000 }')" "${bar:-10}" ms
        [ -z "$slow" ] || rig_heal "$rig" 1 0
    done
    rig_down "$rig"
    rig=""
}
M=1048576
cases() {
    echo "| case, $mbit Mbit/s per NIC                       |      measured |     predicted | differs  |"
    echo "|---|---|---|---|"
    shape 4 4 "1:ring:$((16 * M)) 1:ring:$((64 * M)) 4:ring:$((16 * M)) 4:rails:$((16 * M)) 4:rails:$((64 * M))
        1:tree:$((16 * M)) 1:ring:$((16 * M)):100 4:rails:$((64 * M)):100"
    shape 5 3 "1:ring:$((16 * M)) 3:rails:$((16 * M)) 1:tree:$((16 * M))"
    shape 2 8 "1:ring:$((16 * M)) 2:rails:$((32 * M))"
    shape 3 2 "1:ring:$((8 * M)) 2:rails:$((16 * M)) 1:ring:$((16 * M)):100"
}
# What is predicted is that receivers are busy all the time; steps that drift apart leave them two senders now, none
# then.
messages() {
    local bar=20
    echo "| messages, $mbit Mbit/s per NIC                   |      measured |     predicted | differs  |"
    echo "|---|---|---|---|"
    shape 4 4 "1:alltoall:$((16 * M)) 4:alltoall:$((16 * M))
        1:sendrecv:$((16 * M)) 4:sendrecv:$((16 * M)) 1:alltoall:$((16 * M)):100"
    shape 5 3 "3:alltoall:$((16 * M)) 3:sendrecv:$((16 * M))"
}

# ---- parts that are dead: how much longer a call takes ----

slowdown() { # NAME WHOLE LESS, then options of plan for both, and after -- for the dead part
    local name=$1 whole=$2 less=$3 options=() p q
    shift 3
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    p=$(predicted "${options[@]}") q=$(predicted "${options[@]}" "$@")
    verdict "$name" "$(awk "BEGIN { print ${less:-0} / $whole }")" "$(awk "BEGIN { print $q / $p }")" 15 x
}
faults() {
    echo "| a dead part, ring, 16 MiB: time over the time before |      measured |     predicted | differs  |"
    rig=$(rig_name)
    rig_up "$rig" 4 4 $mbit || exit 1
    whole=$(measured 1 ring $((16 * M)))
    rig_cut "$rig" 1 2
    nic=$(measured 1 ring $((16 * M)))
    for host in 0 2 3; do rig_cut "$rig" $host 2; done
    leaf=$(measured 1 ring $((16 * M)))
    rig_down "$rig"
    rig=""
    options=(--hosts 4 --rails 4 --gpus 1 --tiers 1 --hosts-per-leaf 4 --algo ring --size $((16 * M)))
    slowdown "4 hosts x 4 rails, a NIC" "$whole" "$nic" "${options[@]}" -- --down nic:host1.2
    slowdown "4 hosts x 4 rails, a leaf" "$whole" "$leaf" "${options[@]}" -- --down leaf:2

    spine_draws
}

# Two pods of two hosts and two spines; hosts of the pods in turn, so that the whole ring climbs. A pair of NICs has one
# connection, and the two of a leaf and direction fall on one spine in half of the draws of the switches' hash: on one
# rail, both, or none of a direction. Each draw is told by the leaves' counters, and compared with predictions of its
# kind.
shared_rails() { # BEFORE AFTER, of rig_counters: most rails of one direction whose bytes took one route
    awk '$1 != "route" { next }
        NR == FNR { before[$2, $3, $4] = $5; next }
        { moved = $5 - before[$2, $3, $4]; sum[$2, $3] += moved; if (moved > most[$2, $3]) most[$2, $3] = moved }
        END { for (i in sum) { split(i, at, SUBSEP); n[at[2]] += most[i] > 0.9 * sum[i] }
              print (n[0] > n[1] ? n[0] : n[1]) + 0 }' "$1" "$2"
}
spine_predicted() { # HASH, options: seconds
    predicted --flows 1 --hash "$1" --fabric "$work/fabric" --rails 2 --gpus 1 --order given --spines 2 --algo ring \
        --size $((16 * M)) "${@:2}"
}
spine_draws() {
    local draw k hash
    work=$(mktemp -d)
    rig=$(rig_name)
    RIG_ROUTES=2 RIG_ROUTE_MBIT=$mbit rig_up "$rig" 4 2 $mbit routes || exit 1
    rig_hosts() { echo "$1-h0:$2,$1-h2:$2,$1-h1:$2,$1-h3:$2"; }
    for ((draw = 0; draw < ${DRAWS:-16}; draw++)); do
        rig_seed "$rig" $((RANDOM * 32768 + RANDOM + 1))
        rig_counters "$rig" >"$work/before"
        k=$(runs=1 measured 1 ring $((16 * M)))
        rig_counters "$rig" >"$work/after"
        echo "$(shared_rails "$work/before" "$work/after") $k" >>"$work/measured"
    done
    for leaf in l0 l1 l0p1 l1p1; do ip -n "$rig-$leaf" link set route0 down; done
    spine=$(measured 1 ring $((16 * M)))
    rig_down "$rig"
    rig=""
    printf '%s\n' "switch top" "switch a b under top" "hosts n0 under a" "hosts n2 under a" "hosts n1 under b" \
        "hosts n3 under b" >"$work/fabric"
    for ((hash = 1; hash <= 64; hash++)); do spine_predicted $hash; done >"$work/predicted"
    q=$(spine_predicted 1 --down spine:0)
    for k in 0 1 2; do # predictions are of three kinds: nothing is shared, one rail, both
        p=$(sort -nu "$work/predicted" | awk -v k=$k '{ t[NR] = $1 } END { if (NR == 3) print t[k + 1] }')
        m=$(awk -v k=$k '$1 == k { print $2 }' "$work/measured" | sort -n |
            awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] }')
        [ -z "$m" ] ||
            verdict "2 pods x 2 hosts x 2 rails, a spine; $k rails shared before" \
                "$(awk "BEGIN { print $spine / $m }")" \
            "$(awk "BEGIN { print $q / ${p:-1} }")" 15 x
    done
    echo "measured, rails shared and microseconds:" $(sort -n "$work/measured" | tr '\n' ',')
    echo "predicted, of 64 draws, microseconds:" $(sort -n "$work/predicted" | uniq -c | tr '\n' ',')
    rm -rf "$work"
    work=""
}

# ---- a part that dies under a call ----

# One call of 128 MiB, 2 s; the part dies when its NIC has sent a quarter of its bytes.
flight_time() { # rig_cut|rig_silent|true: microseconds
    local bin=${BUILD:-build}/bin before now pid out
    out=$(mktemp)
    before=$(rig_counters "$rig" | awk '$1 == "nic" && $2 == 1 && $3 == 2 { print $4 }')
    timeout 60 "$bin/railccl" run -n 4 --netns "$(rig_hosts "$rig" 1)" --no-prefix --timeout 60 \
        "$bin/all_reduce_perf" -b 128M -e 128M -n 1 -w 0 -c 0 >"$out" 2>&1 &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        now=$(rig_counters "$rig" | awk '$1 == "nic" && $2 == 1 && $3 == 2 { print $4 }')
        [ $((now - before)) -lt $((12 * M)) ] || break
        sleep 0.01
    done
    $1 "$rig" 1 2
    wait $pid
    awk '$1 ~ /^[0-9]+$/ { print $6 }' "$out"
    rm -f "$out"
    rig_heal "$rig" 1 2
}
flight() {
    local k how m p q at
    local options=(--hosts 4 --rails 4 --gpus 1 --tiers 1 --hosts-per-leaf 4 --algo ring --size $((128 * M)))
    export RAILCCL_ALGO=ring
    rig=$(rig_name)
    rig_up "$rig" 4 4 $mbit || exit 1
    p=$(predicted "${options[@]}")
    for how in true rig_cut rig_silent; do
        for ((k = 0; k < runs; k++)); do flight_time $how; done >"/tmp/predict-$$"
        m=$(sort -n "/tmp/predict-$$" | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] / 1000 }')
        at=$(awk "BEGIN { print $p / 4 / 1000 }")ms
        case $how in
        true) q=$p ;;
        rig_cut) q=$("$tool" plan --machine rig --rate 0.2 "${options[@]}" --json --fail "nic:host1.2@$at" |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["ns"] / 1e3)') ;;
        *) q=$("$tool" plan --machine rig --rate 0.2 "${options[@]}" --json --fail "nic:host1.2,silent@$at" |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["ns"] / 1e3)') ;;
        esac
        verdict "128 MiB, NIC under the call: $how" "$m" "$(awk "BEGIN { print $q / 1000 }")" 15 ms
        echo "  all: $(sort -n "/tmp/predict-$$" | tr '\n' ' ')"
    done
    rm -f "/tmp/predict-$$"
    rig_down "$rig"
    rig=""
}

case ${1:-} in
"") cases; messages; faults; flight ;;
cases | messages | faults | flight) $1 ;;
spine) spine_draws ;;
*) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
echo "$bad farther off than the bar"
exit $((bad > 0))
