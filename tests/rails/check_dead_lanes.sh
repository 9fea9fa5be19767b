#!/usr/bin/env bash
# Lanes that die under way: found in time, with the NIC and the cause in the text; and healthy ones never.
. tests/support/tap.sh
. tests/rails/rig.sh
# How long nothing may happen is about the code's own speed: a sanitizer's build only goes through it.
ours=${BUILD:-build}/lib/libnccl.so.2
if nm -D "$ours" 2>/dev/null | grep -qE ' U __(asan|tsan|ubsan)_'; then healthy_s=4; else healthy_s=20; fi
calm_s=$((healthy_s / 2))
loaded="2 processes x 4 rails at 200 Mbit/s beside 8 busy loops: no lane is suspected in ${HEALTHY_S:=$healthy_s} s"
lossy="1 % loss on a rail: no lane is suspected in $calm_s s"
slow="a rail at a tenth of its rate: no lane is suspected in $calm_s s"
stopped="a process that is stopped for 4 s: no lane is suspected"
names=("a cable is out" "a NIC is switched off" "a NIC is removed" "an address is removed" "a NIC gets another address"
    "a rail loses everything, with carrier" "a rail is deaf: what comes in is lost")
tap_plan $((${#names[@]} + 4))
refusal=$(rig_refused)
if [ -n "$refusal" ]; then
    for name in "${names[@]}" "$loaded" "$lossy" "$slow" "$stopped"; do tap_skip "$name" "$refusal"; done
    tap_end
fi
rig=$(rig_name)
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rig_down "$rig"; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP

# Two ranks, one per host, that add 4 MiB again and again for SECONDS or more (60 to 90 ms each, twice).
begin() { # SECONDS
    : >"$dir/out"
    rig_up "$rig" 2 4 200 || return 1
    NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=INIT,NET timeout $(($1 + 90)) "$BUILD/bin/railccl" run -n 2 \
        --netns "$(rig_hosts "$rig" 1)" "$BUILD/bin/all_reduce_perf" -b 4M -e 4M -n $(($1 * 6)) -w 1 -c 1 \
        >"$dir/out" 2>&1 &
    job=$!
    local i
    for ((i = 0; i < 200; i++)); do
        [ "$(grep -c 'lane . up' "$dir/out")" -ge 8 ] && break
        sleep 0.05
    done
    sleep 0.5
    kill -0 $job 2>/dev/null || { cat "$dir/out"; return 1; }
}
end() { wait $job; status=$?; rig_down "$rig"; }

# A lane's death is found within MS, the log names NIC and cause, and all calls end well by the other lanes.
dies() { # MS TEXT COMMAND...
    local within=$1 text=$2 from took i
    shift 2
    begin 8 || return 1
    from=$(date +%s%N)
    "$@" || return 1
    for ((i = 0; i < 1000; i++)); do grep -qE -- "$text" "$dir/out" && break; sleep 0.005; done
    took=$((($(date +%s%N) - from) / 1000000))
    if ! grep -qE -- "$text" "$dir/out"; then
        echo "no \"$text\" within 5 s"
        grep -v 'up:' "$dir/out" | tail -20
        end
        return 1
    fi
    end
    [ $status -eq 0 ] && grep -q 'Out of bounds values : 0 OK' "$dir/out" || { tail -20 "$dir/out"; return 1; }
    echo "# found after $took ms"
    [ $took -le "$within" ] || { echo "found after $took ms, not $within"; return 1; }
}
off()       { ip -n "$rig-h1" link set eth2 down; }
removed()   { ip -n "$rig-h1" link del eth2; }
addressless() { ip -n "$rig-h1" addr del 10.77.2.2/24 dev eth2; }
readdressed() { ip -n "$rig-h1" -batch - <<<$'addr del 10.77.2.2/24 dev eth2\naddr add 10.77.2.9/24 dev eth2'; }
gone='lane . is down: rail 2 \(eth2\) 10\.77\.2\.2:.*: NIC eth2 is gone: '
silent='lane . is down: rail 2 \(eth2\) .* is silent: nothing was acknowledged'
# 200 ms of these are asked for; the rest is for a busy machine and for `ip` itself.
tap_case "${names[0]}" dies 400 "${gone}it has no carrier" rig_cut "$rig" 1 2
tap_case "${names[1]}" dies 400 "${gone}it is down" off
tap_case "${names[2]}" dies 400 "${gone}it was removed" removed
tap_case "${names[3]}" dies 400 "${gone}it has lost its address" addressless
tap_case "${names[4]}" dies 400 "${gone}it has lost its address" readdressed
tap_case "${names[5]}" dies 1000 "$silent" rig_silent "$rig" 1 2
tap_case "${names[6]}" dies 1000 "$silent" rig_deaf "$rig" 1 2

# A fault that is none, or none of a lane: everything ends well, and nothing is said of any lane.
goes_on() { # SECONDS COMMAND...
    local seconds=$1
    shift
    begin "$seconds" || return 1
    "$@" || return 1
    end
    ! grep -E 'is silent|is not read|is gone' "$dir/out" || return 1
    [ $status -eq 0 ] && grep -q 'Out of bounds values : 0 OK' "$dir/out" || { tail -20 "$dir/out"; return 1; }
}
busy() {
    local i
    for ((i = 0; i < 8; i++)); do timeout $((HEALTHY_S + 5)) sh -c 'while :; do :; done' & done
}
pause() {
    local pid=$(ip netns pids "$rig-h1" | while read -r p; do grep -q all_reduce "/proc/$p/comm" && echo "$p"; done)
    kill -STOP $pid && sleep 4 && kill -CONT $pid
}
tap_case "$loaded" goes_on $HEALTHY_S busy
tap_case "$lossy" goes_on $calm_s rig_lossy "$rig" 1 2 1
tap_case "$slow" goes_on $calm_s rig_slow "$rig" 1 2 20
tap_case "$stopped" goes_on 10 pause
tap_end
