#!/usr/bin/env bash
# Rails that die and come back under collectives, every byte checked: `make check-faults`, some minutes, needs root.
#
#   tests/rails/faults.sh                                      the named cases, then RAIL_FAULTS=200 random schedules
#   tests/rails/faults.sh --only WORDS                         the named cases whose name has these words
#   tests/rails/faults.sh --random N --seed S [--only INDEX] [--kinds cut,reset]   random schedules alone; the same seed, the same schedules
#
# 4 hosts x 4 rails x 500 Mbit/s. What a fault is: docs/RAILS.md, "Faults"; what is measured: fault_run.py, delivery.h. In every
# run: no wrong byte, no hang, and no error, for there is always a way left. Times and rates are judged as in rails.sh: a case
# passes when one of RAIL_TRIES=3 runs meets its bars, as another program that takes the CPU lengthens gaps and costs rate. Bars:
#   RAIL_GAP=200            ms without a delivered byte at any rank when the host's interface tells of the fault (carrier, reset)
#   RAIL_GAP_SILENT=1000    ms when nothing tells
#   RAIL_LEFT=95            per cent of the surviving capacity, which is that of before times the rails that are left; a second later
#   RAIL_BACK=95            per cent of the rate of before, from 2 s after healing on
#   RAIL_OTHERS=93          per cent of the line that each other rail carries beside a lossy one (at most 99.27 is payload)
#   RAIL_FLAP=85            as RAIL_LEFT, while a rail comes and goes
#   RAIL_ON_OFF=1  RAIL_ON_OFF_SMALL=3    per cent that RAILCCL_REPAIR=1 may cost against 0: 64 MiB and 8 B over TCP
#   RAIL_ON_OFF_NS=10       ns that it may cost a call of 8 B inside a host
. tests/support/tap.sh
. tests/rails/rig.sh
. tests/rails/share.sh
tries=${RAIL_TRIES:-3} told=${RAIL_GAP:-200} untold=${RAIL_GAP_SILENT:-1000} left=${RAIL_LEFT:-95} back=${RAIL_BACK:-95}
large=${RAIL_BYTES:-256M} bin=${BUILD:-build}/bin rig="" second="" rigs=()
work=/tmp/railccl-faults-$$
finish() {
    local one
    for one in "$rig" "$second" "${rigs[@]}"; do [ -z "$one" ] || rig_down "$one"; done
    [ "$(ls -A $work 2>/dev/null)" ] || rm -rf $work
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# ---- one case -------------------------------------------------------------------------------------------------------

# Undoes what a script did.
whole() { # SCRIPT
    local h r
    while read -r h r; do rig_heal "$rig" "$h" "$r" || return 1; done < <(tr ';' '\n' <<<"$1" |
        awk -F: '{ if (split($2, word, " ") >= 3) print word[2], word[3] }' | sort -u)
}

# SCRIPT SLOTS BYTES "NAME OP BOUND; ..." [--settle S | OPTION of fault_meter ...]: the run is right, each time; the bounds hold in one of the tries.
fault() {
    local script=$1 slots=$2 bytes=$3 bounds=$4 try line out bound good name op value settle=1
    shift 4
    [ "${1:-}" != --settle ] || { settle=$2; shift 2; }
    for ((try = 0; try < tries; try++)); do
        out=$(tests/rails/fault_run.py --limit "${RAIL_LIMIT_S:-60}" --settle $settle "$rig" "$slots" "$script" --bytes "$bytes" "$@" 2>&1)
        local status=$?
        line=${out%%$'\n'*}
        echo "$line"
        whole "$script" || return 1
        [ $status -eq 0 ] || { echo "$out" | tail -n +2; return 1; }
        good=1
        while read -r name op value; do
            [ -n "$name" ] || continue
            [ "$name" = phase ] && { [[ ",$(rail_value phases "$line")," == *",$value,"* ]] || { good=0; echo "phase $value was not hit"; }; continue; }
            bound=$(rail_value "$name" "$line")
            rail_holds "$bound" "$op" "$value" || { good=0; echo "$name is $bound, wanted $op $value"; }
        done <<<"${bounds//;/$'\n'}"
        [ $good = 0 ] || return 0
    done
    return 1
}

# What is left of the rate when this many of the 4 rails of a host are.
of() { awk "BEGIN { printf \"%.2f\", $1 * $2 / 4 }"; } # PERCENT RAILS
down() { # VERB SLOTS BYTES GAP: one rail, and back
    fault "call 3 30: $1 1 2; +4: heal 1 2; +4: more 1" "$2" "$3" "gap <= $4; left >= $(of "$left" 3); back >= $back"
}
bootstrap() { # VERB GAP: rail 0 carries the connections by which the ranks found one another
    fault "call 3 30: $1 1 0; +4: heal 1 0; +4: more 1" 1 64M "gap <= $2; left >= $(of "$left" 3); back >= $back"
}
three() { # A B C
    fault "call 3 20: cut 1 $1; +0.7: cut 1 $2; +0.7: cut 1 $3; +4: heal 1 $1; +0: heal 1 $2; +0: heal 1 $3; +4: more 1" 1 64M \
        "gap <= $told; left >= $(of "$left" 1); back >= $back"
}
# The rail that was dead is the last one later: a lane that was taken back must be as good as new.
swap() {
    fault "call 3 20: cut 1 3; +1: heal 1 3; +3: cut 1 0; +0.3: cut 1 1; +0.3: cut 1 2; +3: more 1" 1 64M "gap <= $told" # what is left changes too often for a rate
}
# Different rails at different hosts: each pair still has one.
scattered() {
    fault "call 3 20: cut 0 0; +0: cut 1 1; +0: cut 2 2; +0: silent 3 1; +4: more 1" 1 64M "gap <= $untold; left >= $(of "$left" 2)"
}
lossy() { fault "call 2 10: lossy 1 2 1; +6: more 1" 1 "$large" "others >= ${RAIL_OTHERS:-93}"; } # long calls: few beginnings and ends
slowed() { fault "call 3 10: slow 1 2 50; +7: more 1" 1 64M "left >= $(of "$left" 3.1)" --settle 2; }
flaps() { fault "call 3 10: flap 1 2 $1 6; +6.5: more 1" 1 64M "gap <= $told; left >= $(of "${RAIL_FLAP:-85}" 3)"; }
resets() { fault "call 3 30: reset 1 2; +4: more 1" 1 64M "gap <= $told; left >= $left" --settle 2; }
renamed() { fault "call 3 30: rename 1 2; +3: heal 1 2; +3: more 1" 1 64M "gap <= $told; left >= $left"; }
at() { fault "${1//,/ }: $2 1 2; +2: more 1" 1 64M "gap <= $3; barrier <= $3; left >= $(of "$left" 3); phase = $4"; } # WHEN VERB GAP PHASE
# No call came before the fault whose rate could be compared: the host's other NICs are compared with the line instead.
unconnected() { fault "ready: $1 1 2; +4: more 1" 1 64M "gap <= $2; barrier <= $2; others >= ${RAIL_OTHERS:-93}; phase = connect" --settle 2; } # VERB GAP

# Its rate depends on who sends what; that it moves again, and is right, does not.
collective_cut() { fault "call 2 30: cut 1 2; +1: heal 1 2; +0.5: more 1" 1 32M "gap <= $told" --collective "$1"; }
# Longer than TCP waits (30 s, bootstrap/sockets.c): whoever depends on a connection of that rail notices.
for_long() { fault "call 2 30: $1 1 $2; +36: more 2" 1 64M "gap <= $3; others >= ${RAIL_OTHERS:-93}"; } # VERB RAIL GAP
# Every 20 ms another connection, of all rails but the bootstrap's.
storm() {
    local k script="call 2 5: reset 1 1"
    for ((k = 0; k < 40; k++)); do script+="; +0.02: reset $((k % 4)) $((1 + k % 3))"; done
    fault "$script; +2: more 1" 2 16M "gap <= $untold" --collective mix
}

# ---- on against off -------------------------------------------------------------------------------------------------

# Time per call in us of one run.
time_of() { # REPAIR ARGUMENTS of railccl run ... program
    RAILCCL_REPAIR=$1 timeout 60 "$bin/railccl" run --no-prefix --timeout 60 "${@:2}" 2>/dev/null |
        awk '$1 ~ /^[0-9]+$/ { print $6 < $10 ? $6 : $10; exit }'
}
# PAIRS "median|least" BOUND ARGUMENTS...: the runs take turns, and those of all tries count. median: of the pairs' ratios, per cent;
# least: the least of each, in ns, for nothing makes a call faster than it is.
on_off() {
    local pairs=$1 how=$2 bound=$3 k on off try cost="" all=""
    shift 3
    "$bin/railccl" env --all 2>/dev/null | grep -q RAILCCL_REPAIR || { echo "this library has no RAILCCL_REPAIR"; return 1; }
    for ((try = 0; try < tries; try++)); do
        for ((k = 0; k < pairs; k++)); do
            # Who goes first changes: a burst that the pause before has saved up must not be one side's.
            if [ $((k % 2)) = 0 ]; then on=$(time_of 1 "$@") off=$(time_of 0 "$@"); else off=$(time_of 0 "$@") on=$(time_of 1 "$@"); fi
            [ -n "$on" ] && [ -n "$off" ] || { echo "a run gave no time: on '$on', off '$off'"; return 1; }
            all+="$on $off"$'\n'
        done
        cost=$(awk -v how="$how" 'NF == 2 {
                ratio[++n] = 100 * ($1 / $2 - 1)
                if (!least_on || $1 < least_on) least_on = $1
                if (!least_off || $2 < least_off) least_off = $2
            }
            END {
                for (i = 2; i <= n; i++) for (j = i; j > 1 && ratio[j] < ratio[j - 1]; j--) { t = ratio[j]; ratio[j] = ratio[j - 1]; ratio[j - 1] = t }
                if (how == "least") printf "%.1f\n", 1000 * (least_on - least_off)
                else printf "%.2f\n", n % 2 ? ratio[(n + 1) / 2] : (ratio[n / 2] + ratio[n / 2 + 1]) / 2
            }' <<<"$all")
        echo "us on and off: $(tr '\n' ';' <<<"$all") $how: $cost, wanted <= $bound"
        rail_holds "$cost" "<=" "$bound" && return 0
    done
    return 1
}
on_off_large() {
    on_off 4 median "${RAIL_ON_OFF:-1}" -n 4 --netns "$(rig_hosts "$rig" 1)" "$bin/all_reduce_perf" -b 64M -e 64M -n 6 -w 1 -c 0
}
on_off_small() {
    on_off 6 median "${RAIL_ON_OFF_SMALL:-3}" -n 2 --netns "$rig-h0:1,$rig-h1:1" "$bin/all_reduce_perf" -b 8 -e 8 -n 10000 -w 100 -c 0
}
on_off_inside() { on_off 10 least "${RAIL_ON_OFF_NS:-10}" -n 2 "$bin/all_reduce_perf" -b 8 -e 8 -n 300000 -w 1000 -c 0; }

# On 2 hosts x 2 rails. Lanes that are new fill the queue of 1 MiB, 1.6 s at 5 Mbit/s, before they know their rate; the ranks' own
# connections, which were on the other rail, stand behind it.
slow_queue() {
    second=$(rig_name)q
    local rig=$second
    rig_up "$rig" 2 2 200 && fault "ready: readdress 0 0; +0: cut 1 0; stalled: slow 0 1 5; +0: more 1" 1 4M ""
}

# ---- random ---------------------------------------------------------------------------------------------------------

random_rigs() { # how many of each shape
    local k
    for ((k = 0; k < $1; k++)); do
        rigs+=("$(rig_name)r2$k" "$(rig_name)r3$k")
        rig_up "${rigs[-2]}" 2 2 100 && rig_up "${rigs[-1]}" 3 3 100 || return 1
    done
}
random_schedules() { # N SEED [OPTION...]
    local n=$1 seed=$2
    shift 2
    [ ${#rigs[@]} -gt 0 ] || random_rigs $((n < 4 ? 1 : 2)) || return 1
    python3 tests/rails/fault_random.py --n "$n" --seed "$seed" --limit "${RAIL_LIMIT_S:-30}" --work $work "$@" "${rigs[@]}"
}

# ---- the cases ------------------------------------------------------------------------------------------------------

only="" n="" kinds="" seed=$RANDOM
while [ $# -gt 0 ]; do
    case $1 in
    --random) n=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --kinds) kinds=$2; shift 2 ;;
    *) sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
refused=$(rig_refused)
command -v python3 >/dev/null || refused="python3 is not installed"
meter=${BUILD:-build}/tests/rails/fault_meter
[ -x "$meter" ] || { echo "faults.sh: $meter is not built: make $meter, or make check-faults" >&2; exit 1; }
if [ -n "$n" ]; then
    [ -z "$refused" ] || { echo "faults.sh: $refused" >&2; exit 1; }
    random_schedules "$n" "$seed" ${only:+--only "$only"} ${kinds:+--kinds "$kinds"}
    exit
fi

cases=(); steps=()
add() { [[ $1 == *"$only"* ]] || return 0; cases+=("$1"); shift; steps+=("$*"); }
add "carrier lost in AllReduce of $large, 1 rank a host; and back"   down cut 1 "$large" "$told"
add "carrier lost in AllReduce of $large, 2 ranks a host; and back"  down cut 2 "$large" "$told"
add "silent cut; and back"                                 down silent 1 64M "$untold"
add "one way: the host does not hear; and back"            down deaf 1 64M "$untold"
add "one way: the host is not heard; and back"             down mute 1 64M "$untold"
add "carrier lost on the bootstrap's rail; and back"       bootstrap cut "$told"
add "silent cut on the bootstrap's rail; and back"         bootstrap silent "$untold"
add "three of four rails one after another; and back"      three 3 2 1
add "three of four, the bootstrap's among them; and back"  three 0 1 2
add "a rail that was dead is the last one"                 swap
add "a different rail at each host"                        scattered
add "1 % loss on a rail: the others carry all they can"    lossy
add "a rail at a tenth of its rate"                        slowed
add "a rail comes and goes every 300 ms"                   flaps 300
add "a rail comes and goes every 2 s"                      flaps 2000
add "connections of a rail are reset"                      resets
add "connections of three rails are reset again and again" storm
add "an interface is renamed"                              renamed
add "an interface gets another address; and its own back"  down readdress 1 64M "$untold"
add "an interface is removed; and comes back"              down remove 1 64M "$told"
add "carrier lost between calls"                           at between,3 cut "$told" between
add "silent cut between calls"                             at between,3 silent "$untold" between
add "carrier lost in the last chunk"                       at call,3,98 cut "$told" last
add "silent cut in the last chunk"                         at call,3,98 silent "$untold" last
add "carrier lost before lanes are connected"              unconnected cut "$told"
add "silent cut before lanes are connected"                unconnected silent "$untold"
add "the only rail left is slow, with seconds of queue"     slow_queue
if [ "${RAIL_FAULTS:-200}" -ge 200 ]; then # what takes long
    add "carrier lost for 36 s on the bootstrap's rail"    for_long cut 0 "$told"
    add "silent cut for 36 s on the bootstrap's rail"      for_long silent 0 "$untold"
fi
for kind in all_gather reduce_scatter broadcast alltoall sendrecv; do
    add "carrier lost in $kind"                            collective_cut $kind
done
add "repair on against off: AllReduce of 64 MiB over the rails"  on_off_large
add "repair on against off: AllReduce of 8 B over TCP"     on_off_small
add "repair on against off: AllReduce of 8 B inside a host"  on_off_inside
add "${RAIL_FAULTS:-200} random schedules, seed $seed"     random_schedules "${RAIL_FAULTS:-200}" "$seed"

tap_plan ${#cases[@]}
if [ -z "$refused" ]; then
    rig=$(rig_name)
    rig_up "$rig" 4 4 500 || refused="the rig does not come up"
fi
tap_steps 4 "$refused"
tap_end
