#!/usr/bin/env bash
# The bootstrap tree on 4 hosts x 2 rails, alone (tree_rank.c): it outlives the NIC that carries it, and when a host is cut
# off all others name it, alike and in time. A stopped process is waited for.
. tests/support/tap.sh
. tests/rails/rig.sh
tap_plan 14
refusal=$(rig_refused)
rig=$(rig_name)
dir=$(mktemp -d)
trap 'rig_down "$rig"; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
n=8 pids=()
# Survivors are to know within 3 s; a machine of few cores with other work on it may take the rest.
late_ms=$((3000 + ${TEST_SLACK_MS:-700}))

host_of() { echo $(($1 % 4)); } # neighbours in the tree are on different hosts, inner nodes on several
start() { # RANKS idle|busy
    local r
    n=$1 pids=()
    rm -rf "${dir:?}"/*
    for ((r = 0; r < n; r++)); do
        TREE_HOST=h$(host_of $r) timeout 100 ip netns exec "$rig-h$(host_of $r)" "$BUILD/tests/rails/tree_rank" "$dir" $r "$n" "$2" \
            >"$dir/out.$r" 2>&1 &
        pids+=($!)
    done
    for ((r = 0; r < 3000; r++)); do [ "$(ls "$dir" | grep -c '^joined')" = "$n" ] && return 0; kill -0 "${pids[0]}" || break; sleep 0.01; done
    echo "they do not join"; show; return 1
}
show() { tail -n 3 "$dir"/out.*; }
pid_of() { pgrep -f "tree_rank $dir $1 $n "; } # pids[] are of `timeout`
stop() { # lets them end: all must be well. Sets gathers, longest (ms) and how many connections were replaced and suspected
    local r
    touch "$dir/stop"
    for ((r = 0; r < n; r++)); do wait "${pids[r]}"; done
    [ "$(cat "$dir"/out.* | grep -c '^ok')" = "$n" ] || { echo "not all are well:"; show; return 1; }
    read -r gathers longest resumed suspected < <(awk '
        { gathers = $2; if ($5 > longest) longest = $5; resumed += $7; suspected += $9 }
        END { printf "%d %d %d %d\n", gathers, longest, resumed, suspected }' "$dir"/out.*)
    echo "# $gathers gathers, longest $longest ms, $resumed connections replaced, $suspected suspected"
}
now_ms() { "$BUILD/tests/rails/tree_rank"; }

# All but those on HOST have said the same, naming a rank of it, in time; those on HOST have an idea that it is they.
all_blame() { # HOST SINCE_MS
    local r texts slowest doubts=0
    for ((r = 0; r < n; r++)); do [ "$(host_of $r)" != "$1" ] || ! grep -q '^lost.*may be cut off' "$dir/out.$r" || doubts=1; done
    [ $doubts = 1 ] || { echo "those who are cut off blame others only:"; for ((r = $1; r < n; r += 4)); do tail -n 1 "$dir/out.$r"; done; return 1; }
    for ((r = 0; r < n; r++)); do [ "$(host_of $r)" = "$1" ] && kill -9 $(pid_of $r) 2>/dev/null; wait "${pids[r]}" 2>/dev/null; done
    for ((r = 0; r < n; r++)); do [ "$(host_of $r)" = "$1" ] || tail -n 1 "$dir/out.$r"; done >"$dir/said"
    texts=$(sed 's/^lost at [0-9]* //' "$dir/said" | sort -u)
    slowest=$(awk -v since="$2" '/^lost/ && $3 - since > worst { worst = $3 - since } END { print worst + 0 }' "$dir/said")
    echo "# $slowest ms: $texts"
    [ "$(echo "$texts" | wc -l)" = 1 ] && [[ $texts == "culprit $1: rank $1 (host h$1, pid "*"cannot be reached over any network"* ]] &&
        [ "$slowest" -le $late_ms ] || { echo "not one verdict of host $1 within $late_ms ms:"; cat "$dir/said"; return 1; }
}
lost_host() { # RANKS idle|busy HOST cut|silent
    local since
    start "$1" "$2" || return 1
    sleep 1
    "rig_$4" "$rig" "$3" 0; "rig_$4" "$rig" "$3" 1
    since=$(now_ms) # not before: the kernel's lock on all interfaces may be somebody else's for long
    sleep 4
    all_blame "$3" "$since"
    local status=$?
    rig_heal "$rig" "$3" 0; rig_heal "$rig" "$3" 1
    rig_carriers "$rig" 4
    return $status
}

# Busy while rail 0 (which the kernel and the endpoints prefer) goes away, comes back, and rail 1 goes.
rails_go() { # cut|silent HOST
    start 20 busy || return 1
    sleep 0.3; "rig_$1" "$rig" "$2" 0
    sleep 3; rig_heal "$rig" "$2" 0; rig_carriers "$rig" 4
    sleep 1; "rig_$1" "$rig" "$2" 1
    sleep 3; rig_heal "$rig" "$2" 1; rig_carriers "$rig" 4
    stop && [ "$resumed" -gt 1 ] && [ "$longest" -lt 2500 ]
}
idle_then_gathers() {
    start 8 idle || return 1
    rig_cut "$rig" 1 0
    sleep 2
    stop || return 1
    rig_heal "$rig" 1 0; rig_carriers "$rig" 4
    [ "$resumed" -ge 1 ] && [ "$gathers" = 1 ] && [ "$longest" -lt 1000 ]
}
# Rank 1 has children; while it is stopped, its NIC goes as well.
stopped() { # SECONDS [cut]
    local pid
    start 20 busy || return 1
    pid=$(pid_of 1)
    kill -STOP $pid
    [ -z "${2:-}" ] || rig_cut "$rig" 1 0
    sleep "$1"
    kill -CONT $pid
    sleep 1
    stop || return 1
    [ -z "${2:-}" ] || { rig_heal "$rig" 1 0; rig_carriers "$rig" 4; }
    [ "$gathers" -gt 10 ] || return 1
    [ -n "${2:-}" ] || [ "$suspected" = 0 ] || { echo "$suspected suspected"; return 1; }
}

# Ranks accuse one another, "1:2 3:2" as 1 of 2 and 3 of 2; all, wherever they are, hear that CULPRIT is lost.
accused() { # CULPRIT TEXT ACCUSATION...
    local culprit=$1 text=$2 pair said
    shift 2
    start 8 idle || return 1
    for pair in "$@"; do echo "${pair#*:}" >"$dir/.new" && mv "$dir/.new" "$dir/accuse.${pair%%:*}"; done
    for ((r = 0; r < n; r++)); do wait "${pids[r]}"; done
    said=$(sed 's/^lost at [0-9]* //' "$dir"/out.* | sort -u)
    echo "# $said"
    [ "$(cat "$dir"/out.* | grep -c '^lost')" = 8 ] && [[ $said == "culprit $culprit: "*"$text"* ]] && [ "$(echo "$said" | wc -l)" = 1 ]
}
# 8 loops beside it on what cores there are: nobody is taken for lost.
healthy_under_load() { # RUNS
    local k loops=() i status=0 all_suspected=0
    for k in 1 2 3 4 5 6 7 8; do (while :; do :; done) & loops+=($!); done
    for ((i = 0; i < $1 && status == 0; i++)); do
        start 20 $([ $((i % 2)) = 0 ] && echo busy || echo idle) && sleep 3 && stop || status=1
        all_suspected=$((all_suspected + suspected))
    done
    kill "${loops[@]}"; wait "${loops[@]}" 2>/dev/null
    echo "# $i runs, $all_suspected suspected"
    return $status
}

[ -z "$refusal" ] && { rig_up "$rig" 4 2 500 || exit 1; }
case_of() { if [ -z "$refusal" ]; then tap_case "$@"; else tap_skip "$1" "$refusal"; fi; }
case_of "a NIC loses its carrier, then the other one: gathers go on" rails_go cut 1
case_of "a NIC goes silent, then the other one: gathers go on" rails_go silent 0
case_of "a NIC is lost while nobody gathers: the next gather is at once" idle_then_gathers
case_of "a host of leaves is cut off: one verdict" lost_host 8 busy 3 cut
case_of "a host with inner nodes is cut off silently: one verdict" lost_host 20 busy 1 silent
case_of "the same while nobody gathers" lost_host 20 idle 2 cut
case_of "rank 0's host is cut off: one verdict" lost_host 20 busy 0 cut
case_of "a process is stopped for 20 s: nobody is suspected" stopped "${STOPPED_S:-20}"
case_of "a process is stopped and its NIC is lost: it is waited for" stopped 6 cut
case_of "two hosts that do not reach one another: the one of the higher rank" accused 2 "cannot be reached from rank 1's host" 1:2 2:1
case_of "a host that two others do not reach" accused 1 "cannot be reached" 2:1 3:1 1:2
case_of "a link that failed, after a second without better findings" accused 3 "a link failed" "1:link 3"
case_of "a host that cannot be reached weighs more than a link" accused 2 "cannot be reached" "1:link 3" 3:2
case_of "busy cores: nobody is lost" healthy_under_load "${HEALTHY_RUNS:-4}"
tap_end
