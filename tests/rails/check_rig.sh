#!/usr/bin/env bash
# The rig does what docs/RAILS.md says, and AllReduce fills every rail of it: 15 seconds of `make check`. What takes longer
# is tests/rails/rails.sh, by `make check-rails`.
. tests/support/tap.sh
. tests/rails/rig.sh
. tests/rails/share.sh
cases=("a rig comes up and its idle spine counts nothing"
       "packets of one rail stay off the spine, those between rails are all on it"
       "a lossy NIC loses about what was asked for"
       "a deaf NIC sends and does not hear"
       "a cut NIC loses its carrier, a silent one keeps it, healed they are well"
       "AllReduce of 3 hosts uses 4 rails evenly and leaves the spine alone"
       "hosts that count their rails from another one on, one of them short of a rail: no byte leaves its rail"
       "hosts without a common rail are refused with NCCL_CROSS_NIC=0, by name"
       "a fabric file puts nodes of a leaf side by side in the ring, and rails where it says"
       "hosts with different fabric files, and a broken one, are told file and line"
       "two rigs stand side by side, and a rig that is taken down leaves nothing")
tap_plan ${#cases[@]}
refused=$(rig_refused)
if [ -n "$refused" ]; then
    for name in "${cases[@]}"; do tap_skip "$name" "$refused"; done
    tap_end
fi

rig=$(rig_name) other=$(rig_name)x
trap 'rig_down "$rig"; rig_down "$other"' EXIT
trap 'exit 1' INT TERM HUP

spine() { rig_counters "$rig" | awk '$1 == "spine" { sum += $3 } END { printf "%.0f\n", sum }'; }
# What a case saw, in its output should it fail; then the verdict.
want() { echo "$1: $2, wanted $3 $4"; rail_holds "$2" "$3" "$4"; }
send() { python3 tests/rails/datagrams.py "$rig-h$1" "$2" "$rig-h$3" "$4" "$5"; } # FROM ADDRESS TO ADDRESS N

comes_up() { rig_up "$rig" 3 4 200 spine && want "NICs" "$(rig_counters "$rig" | grep -c ^nic)" == 12 && want "spine" "$(spine)" == 0; }
stays() {
    want "came on rail 1" "$(send 0 10.77.1.1 2 10.77.1.3 20)" == 20 && want "on the spine" "$(spine)" "<" 2000 &&
        want "came from rail 1 to rail 2" "$(send 0 10.77.1.1 2 10.77.2.3 20)" == 20 && want "on the spine" "$(spine)" ">=" 20000
}
loses() {
    local came
    rig_lossy "$rig" 1 0 50 && came=$(send 0 10.77.0.1 1 10.77.0.2 200) && rig_heal "$rig" 1 0 &&
        want "of 200 at 50 % loss" "$came" ">" 40 && want "of 200 at 50 % loss" "$came" "<" 160
}
does_not_hear() {
    rig_deaf "$rig" 1 3 && want "to the deaf one" "$(send 0 10.77.3.1 1 10.77.3.2 20)" == 0 &&
        want "from it" "$(send 1 10.77.3.2 0 10.77.3.1 20)" == 20 && rig_heal "$rig" 1 3 &&
        want "to it, healed" "$(send 0 10.77.3.1 1 10.77.3.2 20)" == 20
}
carrier() { ip netns exec "$rig-h2" cat /sys/class/net/eth1/carrier; }
is_cut() {
    rig_cut "$rig" 2 1 && want "carrier when cut" "$(carrier)" == 0 && rig_heal "$rig" 2 1 && rig_silent "$rig" 2 1 &&
        want "carrier when silent" "$(carrier)" == 1 && want "came when silent" "$(send 0 10.77.1.1 2 10.77.1.3 5)" == 0 &&
        rig_heal "$rig" 2 1 && want "came when healed" "$(send 0 10.77.1.1 2 10.77.1.3 5)" == 5
}
# Before lanes were asked what they hold, the least used rail carried 0.5 to 18 per cent. Rates are not judged here.
fills() {
    local line
    line=$(RAIL_CHECK=1 RAIL_LIMIT_S=60 rail_share "$rig" 1 4M 3) || return 1
    echo "$line"
    want "least used rail, % of its host" "$(rail_value low "$line")" ">" 20 && want "spine %" "$(rail_value spine "$line")" "<" 0.1 &&
        want "wrong" "$(rail_value wrong "$line")" == 0
}
# Host H's eth0 is on rail H; host 1 has no NIC on rail 2. By index, three quarters of the bytes took the spine.
shuffled() {
    local line log
    rig_down "$rig"
    RIG_SHUFFLE=1 RIG_MISSING="1:2" rig_up "$rig" 3 4 200 spine || return 1
    line=$(RAIL_CHECK=1 RAIL_LIMIT_S=60 rail_share "$rig" 2 2M 2) || return 1
    echo "$line"
    want "spine %" "$(rail_value spine "$line")" "<" 0.1 && want "wrong" "$(rail_value wrong "$line")" == 0 &&
        want "most used rail, %" "$(rail_value high "$line")" "<" 60 || return 1
    log=$(NCCL_DEBUG=INFO "${BUILD:-build}/bin/railccl" run -n 3 --netns "$(rig_hosts "$rig" 1)" --timeout 60 \
        "${BUILD:-build}/bin/all_reduce_perf" -b 1M -e 1M -n 1)
    echo "$log" | grep rail
    [[ $log == *"rail 2: node 0 eth2 10.77.2.1/24, node 2 eth0 10.77.2.3/24 (2 of 3 nodes)"* ]] &&
        [[ $log == *"rail 1: node 0 eth1 10.77.1.1/24, node 1 eth0 10.77.1.2/24, node 2 eth3 10.77.1.3/24 (3 of 3 nodes)"* ]]
}
# Host 0 without rail 1, host 1 without rail 0.
refused() {
    local log perf="${BUILD:-build}/bin/all_reduce_perf"
    rig_down "$rig"
    RIG_MISSING="0:1 1:0" rig_up "$rig" 2 2 200 spine || return 1
    log=$(NCCL_CROSS_NIC=0 "${BUILD:-build}/bin/railccl" run -n 2 --netns "$(rig_hosts "$rig" 1)" --timeout 60 "$perf" -b 1M -e 1M -n 1 2>&1) &&
        { echo "$log"; return 1; }
    echo "$log"
    # Who speaks first names itself first.
    [[ $log == *"no rail in common"* && $log == *"eth0 10.77.0.1/24"* && $log == *"eth1 10.77.1.2/24"* ]] &&
        "${BUILD:-build}/bin/railccl" run -n 2 --netns "$(rig_hosts "$rig" 1)" --timeout 60 "$perf" -b 1M -e 1M -n 1
}
# h0 h2 hang on one leaf, h1 h3 on the other: in rank order every edge of the ring would change leaf. The file makes one
# rail of both subnets.
ordered() {
    local log file=/run/$rig.fabric
    rig_down "$rig"
    rig_up "$rig" 4 2 200 spine || return 1
    printf 'switch left right under top\nswitch top\nhosts h[0,2] under left\nhosts h[1,3] under right\nsubnet 10.77.0.0/23 rail 0\n' >"$file"
    log=$(NCCL_DEBUG=INFO RAILCCL_FABRIC=$file "${BUILD:-build}/bin/railccl" run -n 4 --netns "$(rig_hosts "$rig" 1)" --timeout 60 \
        tests/rails/as_host.sh "${BUILD:-build}/bin/all_reduce_perf" -b 1M -e 1M -n 1 -c 1 2>&1)
    local status=$?
    echo "$log" | grep -E "rail|fabric|1048576"
    [ $status -eq 0 ] && [[ $log == *"from node to node 4 times, a tree 3 times; 0 nodes"* ]] &&
        [[ $log == *"from leaf to leaf 2 times (in rank order 4), a tree 1 times; there are 2, so no other goes less"* ]] &&
        [[ $log == *"rail 0: node 0 eth0 10.77.0.1/24, node 1 eth0 10.77.0.3/24, node 2 eth0 10.77.0.2/24, node 3 eth0 10.77.0.4/24 (4"* ]]
}
disagree() {
    local log file=/run/$rig.fabric
    printf 'switch left\nhosts h[0-3 under left\n' >"$file.bad"
    log=$(RAILCCL_FABRIC=$file.bad "${BUILD:-build}/bin/railccl" run -n 2 --netns "$(rig_hosts "$rig" 1)" --timeout 60 \
        "${BUILD:-build}/bin/all_reduce_perf" -b 1M -e 1M -n 1 2>&1) && return 1
    echo "$log"
    [[ $log == *"$file.bad:2: list of hosts: a bracket is not closed"* ]] || return 1
    log=$("${BUILD:-build}/bin/railccl" run -n 2 --netns "$(rig_hosts "$rig" 1)" --timeout 60 \
        bash -c "[ \$RANK = 0 ] || export RAILCCL_FABRIC=$file; exec ${BUILD:-build}/bin/all_reduce_perf -b 1M -e 1M -n 1" 2>&1) && return 1
    echo "$log"
    [[ $log == *"RAILCCL_FABRIC: rank 0 (host "*") read none, rank 1 (host "*") read a file"* ]]
}
leaves_nothing() {
    rig_up "$other" 2 1 100 && rig_down "$rig" && want "left" "$(ls /run/netns /run | grep -c "^$rig[-.]")" == 0 &&
        want "NICs beside it" "$(rig_counters "$other" | wc -l)" == 2 && rig_down "$other" &&
        want "left" "$(ls /run/netns /run | grep -c "^$other[-.]")" == 0
}

steps=(comes_up stays loses does_not_hear is_cut fills shuffled refused ordered disagree leaves_nothing)
for i in "${!cases[@]}"; do tap_case "${cases[$i]}" "${steps[$i]}"; done
tap_end
