#!/usr/bin/env bash
# Communicators look at the machine: each rank's home NIC, NCCL_TOPO_FILE and NCCL_TOPO_DUMP_FILE at init, hosts that were
# not set up alike. Hosts are network namespaces; NCCL_TOPO_FILE gives their virtual NICs a place on a bus.
. tests/support/tap.sh
. tests/rails/rig.sh
cases=("virtual NICs have no place: ranks take them in turn, and it is said"
       "NCCL_TOPO_FILE: home NICs are those of the ranks' NUMA node, evenly"
       "processes of one host that share no memory share its NICs all the same"
       "RAILCCL_TOPO=0: nobody looks"
       "a broken description that an agent left stops no job"
       "hosts of one NIC less, of another MTU are named"
       "NCCL_TOPO_DUMP_FILE: the rank that is asked for writes what railccl topo reads"
       "within one host nobody looks, unless a file is named"
       "an error in NCCL_TOPO_FILE is everybody's init error, with file, line and remedy")
tap_plan ${#cases[@]}
bin=$BUILD/bin
dir=$(mktemp -d)
rig=$(rig_name)
trap 'rig_down "$rig" 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP

# Two NUMA nodes; eth0 and eth1 on the first, which all ranks may run on, eth2 and eth3 on the second.
sed 's/speed="25000"/speed="10000"/' tests/machines/cpu-only-2numa-4eth.xml >"$dir/machine.xml"
sed '4s/0000:17/0000:97/' "$dir/machine.xml" >"$dir/twice.xml"
numa=$(find /sys/devices/system/node -maxdepth 1 -name 'node[0-9]*' 2>/dev/null | wc -l)

run() { # RANKS PLACE COMMAND...: its log in $dir/out
    local ranks=$1 place=$2
    shift 2
    NCCL_DEBUG=INFO timeout 60 "$bin/railccl" run -n "$ranks" ${place:+--netns "$place"} "$@" >"$dir/out" 2>&1
}
reduce() { run "$1" "$2" "$bin/all_reduce_perf" -b 8 -e 8 -n 1 -w 0; }
says() { grep -qE -- "$1" "$dir/out" || { echo "no \"$1\" in:"; cat "$dir/out"; return 1; }; }
silent() { ! grep -E -- "$1" "$dir/out"; }
hosts() { rig_hosts "$rig" "$1"; }

in_turn() {
    reduce 8 "$(hosts 4)" && says 'rank 0: .*home rail 0 \(eth0\), in turn, as its NICs have no PCI device' &&
        says 'rank 3: .*home rail 3 \(eth3\), in turn' && says 'rank 4: .*home rail 0 \(eth0\)' && silent 'different'
}
by_file() {
    export NCCL_TOPO_FILE=$dir/machine.xml
    reduce 8 "$(hosts 4)" || return 1
    [ "$(grep -c 'machine: NCCL.s XML' "$dir/out")" -eq 2 ] || { echo "one leader a host should look"; cat "$dir/out"; return 1; }
    says 'rank 0: NUMA node 0, home rail 0 \(eth0\), PHB, one of 2 as near, shared by 2 ranks' && says 'rank 1: .*home rail 0' &&
        says 'rank 2: .*home rail 1 \(eth1\), PHB' && says 'rank 7: .*home rail 1'
}
processes_apart() {
    NCCL_SHM_DISABLE=1 reduce 8 "$(hosts 4)" && says 'rank 3: .*home rail 3 \(eth3\)' && says 'rank 6: .*home rail 2'
}
not_looked() { RAILCCL_TOPO=0 NCCL_TOPO_FILE=$dir/machine.xml reduce 4 "$(hosts 2)" && says 'rank 1: .*home rail 1 .*was not looked at' && silent 'machine:'; }
agents() { # in a mount namespace whose /run has it; two processes without shared memory are two nodes
    local log
    log=$(unshare -m bash -c 'mount -t tmpfs none /run && mkdir /run/nvidia-topologyd && echo "<system" >/run/nvidia-topologyd/virtualTopology.xml &&
        NCCL_DEBUG=INFO NCCL_SHM_DISABLE=1 NCCL_SOCKET_IFNAME=lo timeout 60 "$0" run -n 2 "$1" -b 8 -e 8 -n 1 -w 0' "$bin/railccl" "$bin/all_reduce_perf" 2>&1)
    [ $? -eq 0 ] && grep -q 'machine: not understood (/var/run/.*virtualTopology.xml:1: ' <<<"$log" && grep -q 'Out of bounds values : 0 OK' <<<"$log" || { echo "$log"; return 1; }
}
unlike() {
    ip netns exec "$rig-h1" ip link set eth1 mtu 1500 && ip netns exec "$rig-h1" ip link set eth3 down || return 1
    reduce 4 "$(hosts 2)" && says 'WARN.*different numbers of NICs: node 0 \(host .*\) has 4, node 1 \(host .*\) has 3' &&
        says 'WARN.*different MTUs: eth1 of node 0 \(host .*\) has 9000 bytes, eth1 of node 1 \(host .*\) has 1500 bytes' &&
        silent 'different rates'
}
dumped() {
    NCCL_TOPO_FILE=$dir/machine.xml NCCL_TOPO_DUMP_FILE=$dir/dump.xml NCCL_TOPO_DUMP_FILE_RANK=1 reduce 2 "" || return 1
    says '\[1\].*written to .*dump.xml' && "$bin/railccl" topo --diff "$dir/machine.xml" "$dir/dump.xml" >"$dir/out" && says alike &&
        NCCL_TOPO_DUMP_FILE=$dir/none/dump.xml reduce 2 "" && says 'WARN.*none/dump.xml.*cannot be written: No such file' &&
        [ "$(ls "$dir" | grep -c dump)" -eq 1 ]
}
one_host() {
    reduce 2 "" && silent 'machine:|home rail' && NCCL_TOPO_FILE=$dir/machine.xml reduce 2 "" && says "machine: NCCL's XML" && silent 'home rail'
}
refused() {
    NCCL_TOPO_FILE=$dir/twice.xml reduce 2 "" && { echo "a bad file was taken"; return 1; }
    says 'twice.xml:[0-9]+: bus 0000:97:00.0 was already given .*twice.xml:4; every device has' || return 1
    NCCL_TOPO_FILE=$dir/none.xml reduce 2 "" && { echo "no file was taken"; return 1; }
    says 'none.xml: No such file'
}

refusal=$(rig_refused)
[ -n "$refusal" ] || rig_up "$rig" 2 4 200 || exit 1
tap_rig() {
    if [ -n "$refusal" ]; then tap_skip "$1" "$refusal"; else tap_case "$@"; fi
}
tap_rig "${cases[0]}" in_turn
if [ "$numa" -gt 1 ]; then tap_skip "${cases[1]}" "ranks of this machine are on $numa NUMA nodes"; else tap_rig "${cases[1]}" by_file; fi
unset NCCL_TOPO_FILE
tap_rig "${cases[2]}" processes_apart
tap_rig "${cases[3]}" not_looked
tap_rig "${cases[4]}" agents
tap_rig "${cases[5]}" unlike
tap_case "${cases[6]}" dumped
tap_case "${cases[7]}" one_host
tap_case "${cases[8]}" refused
tap_end
