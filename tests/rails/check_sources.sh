#!/usr/bin/env bash
# Which NIC is on which rail where subnets do not say it: measured, from LLDP, from NCCL_IB_HCA; over IPv6; and NICs of one
# subnet that the kernel would all send out of one port. Counters of interfaces prove where bytes went. Root.
#
#   routed(H, R)   NIC r of every host has a /31 with its leaf; leaves route to one another over a spine (or do not)
#        h0 eth0 ── leaf 0 (a namespace that routes) ── h1 ethX       hosts count their NICs from another one on
#                      └── spine ──┘
#   bridged(...)   leaves are bridges: one flat subnet, IPv6 subnets, link-local addresses alone
. tests/support/tap.sh
. tests/rails/rig.sh
bin=${BUILD:-build}/bin
cases=("rails of /31s that only routers join are found by hops: no byte crosses the spine"
       "what was measured once holds for communicators made of this one"
       "with RAILCCL_PROBE=off they are paired in order, and bytes do cross it"
       "rails of /31s that nothing joins are found by reach"
       "NCCL_NETDEVS_POLICY=MAX:1 keeps one rail, the same on all hosts"
       "NCCL_IB_HCA's rails are believed where subnets say nothing, without probing"
       "switches heard by LLDP make rails, and hosts hang where they hear"
       "lldpd is asked, and one that does not answer delays nothing for long"
       "what LLDP and subnets say against one another is told, with both NICs"
       "what the fabric file and subnets say against one another, too"
       "IPv6 subnets are rails: bytes stay on them, and RAILCCL_PROBE=on finds the same"
       "NICs with link-local addresses alone are told apart by reach"
       "one subnet over leaves that nothing joins: bound to their devices, its NICs are told apart by reach"
       "two NICs of one subnet on one bridge: bytes leave by both with arp_ignore, and are told of without"
       "a bond is one NIC on one rail")
tap_plan ${#cases[@]}
refused=$(rig_refused)
if [ -n "$refused" ]; then
    for name in "${cases[@]}"; do tap_skip "$name" "$refused"; done
    tap_end
fi
rig=$(rig_name)
files=$(mktemp -d)
trap 'rig_down "$rig"; rm -rf "$files"' EXIT
trap 'exit 1' INT TERM HUP

# Interface of rail R on host H: host H counts from rail H on.
nic() { echo "eth$((($2 - $1 + RAILS) % RAILS))"; }
space() { # NAME: routes, IPv6 or not
    ip netns add "$1" && ip -n "$1" link set lo up &&
        ip netns exec "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 net.ipv6.conf.all.disable_ipv6="${V6:-1}" \
            net.ipv6.conf.default.disable_ipv6="${V6:-1}" net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
}
# Cases run in subshells: what one leaves for the next is the rig alone.
# Cables before the kernel counts them: host by host, in the host's own order.
cable() { # HOST RAIL: eth? in the host, hH in the leaf
    ip link add "$(nic "$1" "$2")" netns "$rig-h$1" type veth peer name "h$1" netns "$rig-l$2"
}
build() { # HOSTS
    local h r k
    rig_down "$rig"
    HOSTS=$1
    echo "$1 $RAILS 0 0 0" >"/run/$rig.rig"
    for ((r = 0; r < RAILS; r++)); do space "$rig-l$r" || return 1; done
    for ((h = 0; h < HOSTS; h++)); do
        space "$rig-h$h" || return 1
        for ((k = 0; k < RAILS; k++)); do cable $h $(((k + h) % RAILS)) || return 1; done
    done
}
routed() { # HOSTS [spine]: host H's NIC on rail R is 10.(R+1).H.1/31, its leaf 10.(R+1).H.0
    local h r i
    build "$1" || return 1
    [ -z "${2:-}" ] || space "$rig-s" || return 1
    for ((r = 0; r < RAILS; r++)); do
        if [ -n "${2:-}" ]; then
            ip link add spine netns "$rig-l$r" type veth peer name "leaf$r" netns "$rig-s"
            ip -n "$rig-l$r" -batch - <<END || return 1
addr add 10.200.$r.1/31 dev spine
link set spine up
route add default via 10.200.$r.0
END
            ip -n "$rig-s" -batch - <<END || return 1
addr add 10.200.$r.0/31 dev leaf$r
link set leaf$r up
route add 10.$((r + 1)).0.0/16 via 10.200.$r.1
END
        fi
        for ((h = 0; h < HOSTS; h++)); do
            i=$(nic $h $r)
            ip -n "$rig-l$r" addr add "10.$((r + 1)).$h.0/31" dev "h$h" && ip -n "$rig-l$r" link set "h$h" up || return 1
            ip -n "$rig-h$h" -batch - <<END || return 1
addr add 10.$((r + 1)).$h.1/31 dev $i
link set $i up
rule add from 10.$((r + 1)).$h.1 table $((100 + r))
route add default via 10.$((r + 1)).$h.0 dev $i table $((100 + r))
$([ "$r" = 0 ] && echo "route add default via 10.1.$h.0 dev $i")
END
        done
    done
    rig_carriers "$rig" "$HOSTS"
}
bridged() { # HOSTS ADDRESS: leaves as bridges; ADDRESS HOST RAIL prints an address or nothing
    local h r
    build "$1" || return 1
    for ((r = 0; r < RAILS; r++)); do
        ip -n "$rig-l$r" link add leaf type bridge mcast_snooping 0 && ip -n "$rig-l$r" link set leaf up || return 1
        for ((h = 0; h < HOSTS; h++)); do
            ip -n "$rig-l$r" link set "h$h" master leaf up || return 1
            [ -z "$("$2" $h $r)" ] || ip -n "$rig-h$h" addr add "$("$2" $h $r)" dev "$(nic $h $r)" || return 1
            ip -n "$rig-h$h" link set "$(nic $h $r)" up || return 1
        done
    done
    rig_carriers "$rig" "$HOSTS"
}

sent() { ip netns exec "$rig-h$1" cat /proc/net/dev | tr : ' ' | awk -v nic="$2" '$1 == nic { print $10 }'; } # HOST INTERFACE
spine() { ip netns exec "$rig-s" cat /proc/net/dev | tr : ' ' | awk '$1 ~ /^leaf/ { s += $2 } END { print s + 0 }'; }
want() { echo "$1: $2, wanted $3 $4"; awk -v a="$2" -v b="$4" "BEGIN { exit !(a $3 b) }"; }
# AllReduce over all hosts, its log in $log; NAME=VALUE in front.
run() {
    log=$(env NCCL_DEBUG=INFO "$@" "$bin/railccl" run -n "$HOSTS" --netns "$(rig_hosts "$rig" 1)" --timeout 60 \
        ${AS_HOST:+tests/rails/as_host.sh} "$bin/all_reduce_perf" -b 4M -e 4M -n 2 -w 1 -c 1 2>&1)
    local status=$?
    echo "$log" | grep -E "rails?[: ]|4194304|rror|WARN|run:"
    [ $status -eq 0 ] && [[ $log == *"4194304"* ]]
}
# Every NIC of every host sent a fair part: 4 MB in 4 calls and a check give some 10 MB per host or more.
all_sent() {
    local h r
    for ((h = 0; h < HOSTS; h++)); do
        for ((r = 0; r < RAILS; r++)); do want "host $h rail $r sent" "$(sent $h "$(nic $h $r)")" ">" 500000 || return 1; done
    done
}

by_hops() {
    RAILS=3 && routed 3 spine && run A=1 && all_sent && want "on the spine" "$(spine)" "<" 300000 &&
        [[ $log == *"others are behind more routers"* && $log == *"by a probe"* ]]
}
# Of three ranks' communicator two are made, or one with several hosts: that one is told what was measured before.
once() {
    HOSTS=3 RAILS=3
    log=$(NCCL_DEBUG=INFO "$bin/railccl" run -n 6 --netns "$(rig_hosts "$rig" 2)" --timeout 60 "$bin/examples/07_split" 2>&1) || { echo "$log"; return 1; }
    echo "$log" | grep rail
    want "probes" "$(grep -c 'probing took' <<<"$log")" == 3 && want "NICs on rails by a probe" "$(grep -c 'by a probe' <<<"$log")" ">" 9
}
in_order() { local before; HOSTS=3 RAILS=3; before=$(spine); run RAILCCL_PROBE=off && want "on the spine" "$(spine)" ">" $((before + 1000000)); }
by_reach() { RAILS=2 && routed 3 && run A=1 && all_sent && [[ $log == *"others are not reached"* ]]; }
limited() {
    local h r used=0
    HOSTS=3 RAILS=2
    for ((h = 0; h < HOSTS; h++)); do for ((r = 0; r < RAILS; r++)); do before[h * RAILS + r]=$(sent $h "$(nic $h $r)"); done; done
    run NCCL_NETDEVS_POLICY=MAX:1 NCCL_IGNORE_NET_MISMATCH=0 || return 1
    for ((r = 0; r < RAILS; r++)); do
        for ((h = 0; h < HOSTS; h++)); do
            [ $(($(sent $h "$(nic $h $r)") - before[h * RAILS + r])) -lt 500000 ] || used=$((used + 10 ** r))
        done
    done
    want "hosts that used rail 0, and 10 times those that used rail 1" "$used" == 3 && [[ $log == *"left out by NCCL_NETDEVS_POLICY"* ]] &&
        ! run NCCL_NETDEVS_POLICY=MAX:0 && [[ $log == *'NCCL_NETDEVS_POLICY="MAX:0": must be'* ]]
}
# Device mlx5_R belongs to the interface on rail R: below a folder per host, which is all that differs.
declared() {
    local h r
    HOSTS=3 RAILS=2
    for ((h = 0; h < HOSTS; h++)); do
        for ((r = 0; r < RAILS; r++)); do
            mkdir -p "$files/h$h/sys/class/infiniband/mlx5_$r/ports/1/gid_attrs/ndevs" &&
                nic $h $r >"$files/h$h/sys/class/infiniband/mlx5_$r/ports/1/gid_attrs/ndevs/0" || return 1
        done
    done
    cat >"$files/wrap" <<'END'
#!/bin/bash
space=$(ip netns identify)
export RAILCCL_SYSFS_ROOT=$FILES/${space##*-}
exec "$@"
END
    chmod +x "$files/wrap"
    log=$(FILES=$files NCCL_DEBUG=INFO NCCL_IB_HCA="=mlx5_0:1:7,mlx5_1:1:9:2" "$bin/railccl" run -n "$HOSTS" --netns "$(rig_hosts "$rig" 1)" \
        --timeout 60 "$files/wrap" "$bin/all_reduce_perf" -b 4M -e 4M -n 2 -c 1 2>&1) || { echo "$log"; return 1; }
    echo "$log" | grep rail
    [[ $log == *"eth0 10.1.0.1/31 is on rail 0 by NCCL_IB_HCA, called 7"* && $log == *"by NCCL_IB_HCA, called 9 plane 2"* ]] &&
        [[ $log != *"probing took"* ]] || return 1
    ! run NCCL_IB_HCA="mlx5_0:1:x" && [[ $log == *'NCCL_IB_HCA, character 10, "x": a rail is a number'* ]]
}
# A file per host as `lldpctl -f json0` writes it: rail R hangs on leafR.
hears() { # HOST SWITCH-OF-RAIL-0 SWITCH-OF-RAIL-1
    local h=$1 r
    shift
    {
        echo '{"lldp":[{"interface":['
        for r in 0 1; do
            echo "{\"name\":\"$(nic "$h" $r)\",\"chassis\":[{\"id\":[{\"type\":\"mac\",\"value\":\"00:00:00:00:00:0$1\"}],\"name\":[{\"value\":\"leaf$1\"}]}]}"
            [ $r = 1 ] || echo ,
            shift
        done
        echo ']}]}'
    } >"$files/h$h.json"
}
with_lldp() {
    cat >"$files/hear" <<'END'
#!/bin/bash
space=$(ip netns identify)
export RAILCCL_LLDP=$FILES/${space##*-}.json
exec "$@"
END
    chmod +x "$files/hear"
    log=$(env FILES="$files" NCCL_DEBUG=INFO "$@" "$bin/railccl" run -n "$HOSTS" --netns "$(rig_hosts "$rig" 1)" \
        --timeout 60 "$files/hear" "$bin/all_reduce_perf" -b 4M -e 4M -n 2 -c 1 2>&1) || { echo "$log"; return 1; }
    echo "$log" | grep rail
}
heard() {
    HOSTS=3 RAILS=2
    hears 0 0 1 && hears 1 0 1 && hears 2 0 1 && with_lldp && [[ $log == *"on rail 0 by LLDP"* && $log != *"probing took"* ]] &&
        [[ $log == *"eth1 hangs on switch leaf1, port ?"* && $log == *"a ring goes from leaf to leaf 0 times"* ]] || return 1
    printf 'switch leaf1 leaf2\nhosts h0 under leaf1\n' >"$files/fabric"
    log=$(ip netns exec "$rig-h0" env RAILCCL_LLDP="$files/h0.json" "$bin/railccl" topo --brief --fabric "$files/fabric" --host h0 2>&1)
    echo "$log"
    [[ $log == *"rail by LLDP: hangs on switch leaf1"* ]]
}
# An lldpctl of our own, in a mount namespace: over the machine's, if it has one.
slow_daemon() {
    local out
    HOSTS=3 RAILS=2
    printf '#!/bin/sh\nexec sleep 20\n' >"$files/slow"
    printf '#!/bin/sh\n[ -z "$NCCL_DEBUG" ] && sed s/eth0/lo/ "%s"\n' "$files/h0.json" >"$files/quick"
    chmod +x "$files/slow" "$files/quick"
    out=$(unshare -m bash -c 'at=/usr/sbin/lldpctl
        [ -e $at ] || { at=/usr/local/sbin/lldpctl && mount -t tmpfs none /usr/local/sbin && touch $at; } || exit 1
        export NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=ALL
        for how in slow quick; do
            mount --bind "$1/$how" $at && ip netns exec "$3" "$2/railccl" run \
                -n 2 --hosts-emulate 2 --timeout 60 "$2/all_reduce_perf" -b 8 -e 8 -n 1 || exit 1
        done' x "$files" "$bin" "$rig-h0" 2>&1) || { echo "$out"; return 1; }
    echo "$out" | grep -E 'LLDP|ready after'
    [[ $out == *"/lldpctl did not answer within 300 ms"*"lo hangs on switch leaf0"* ]] &&
        want "slowest init, ms" "$(sed -n 's/.*ready after \([0-9.]*\) ms.*/\1/p' <<<"$out" | sort -g | tail -n 1)" "<" 5000
}
# Rails by a file that swaps host 1's, against its subnets.
miswritten() {
    RAILS=2 && bridged 2 v4 || return 1
    printf 'nic h0:eth0 rail 0\nnic h0:eth1 rail 1\nnic h1:eth1 rail 1\nnic h1:eth0 rail 0\n' >"$files/fabric"
    log=$(NCCL_DEBUG=INFO RAILCCL_FABRIC=$files/fabric timeout 10 "$bin/railccl" run -n 2 --netns "$(rig_hosts "$rig" 1)" --timeout 3 \
        tests/rails/as_host.sh "$bin/all_reduce_perf" -b 8 -e 8 -n 1 2>&1) # what the file joins nothing routes: only words count
    echo "$log" | grep contradiction
    [[ $log == *"node 0 (host h0) eth0 10.50.0.1/24 and node 1 (host h1) eth1 10.50.0.2/24 are in one subnet; but the first is on rail 0 by the fabric file, the second on rail 1 by the fabric file"* ]]
}
v4() { echo "10.50.$2.$(($1 + 1))/24"; }
contradicted() {
    RAILS=2 && bridged 3 v4 && hears 0 0 1 && hears 1 0 1 && hears 2 1 0 || return 1
    # The lanes of host 2 then join different subnets, which nothing routes: only what is said counts.
    log=$(env FILES="$files" NCCL_DEBUG=INFO timeout 10 "$bin/railccl" run -n "$HOSTS" --netns "$(rig_hosts "$rig" 1)" \
        --timeout 3 "$files/hear" "$bin/all_reduce_perf" -b 4M -e 4M -n 2 -c 1 2>&1)
    echo "$log" | grep -E 'contradiction'
    [[ $log == *"contradiction: node 0"*"belong together by its subnet"*"node 2"* ]]
}
v6() { echo "fd00:$(($2 + 1))::$(($1 + 1))/64"; }
over_v6() {
    V6=0 RAILS=2 && bridged 3 v6 && run RAILCCL_PROBE=on && all_sent && [[ $log == *"fd00:1::1/64 is on rail 0 by its subnet"* ]] &&
        [[ $log == *"others are not reached"* && $log != *contradiction* ]]
}
none() { :; }
# `railccl run` wants an address that ranks can be told: a management network of its own, which lanes do not use.
link_local() {
    local h
    V6=0 RAILS=2 && bridged 3 none && space "$rig-l2" && ip -n "$rig-l2" link add leaf type bridge && ip -n "$rig-l2" link set leaf up || return 1
    for ((h = 0; h < HOSTS; h++)); do
        ip link add mgmt netns "$rig-h$h" type veth peer name "h$h" netns "$rig-l2" && ip -n "$rig-l2" link set "h$h" master leaf up &&
            ip -n "$rig-h$h" addr add "10.80.0.$((h + 1))/24" dev mgmt && ip -n "$rig-h$h" link set mgmt up || return 1
    done
    rig_carriers "$rig" $HOSTS && run NCCL_SOCKET_IFNAME=eth && all_sent && [[ $log == *"fe80:"*"by a probe"* ]]
}
flat() { echo "10.60.0.$((10 * $1 + $2 + 1))/24"; }
quiet_arp() {
    local h
    for h in 0 1; do
        ip netns exec "$rig-h$h" sysctl -qw net.ipv4.conf.all.arp_ignore="$1" net.ipv4.conf.all.arp_announce="$2"
        ip -n "$rig-h$h" neigh flush dev eth0 && ip -n "$rig-h$h" neigh flush dev eth1
    done
}
apart() { RAILS=2 && bridged 2 flat && quiet_arp 1 2 && run A=1 && all_sent && [[ $log == *"others are not reached"* ]]; }
topo() { # WORDS
    local said
    said=$(ip netns exec "$rig-h0" "$bin/railccl" topo --brief)
    echo "$said"
    [[ $said == *"$1"* ]]
}
# The two leaves become one network.
one_port() {
    HOSTS=2 RAILS=2
    quiet_arp 0 0
    ip link add trunk netns "$rig-l0" type veth peer name trunk netns "$rig-l1" && ip -n "$rig-l0" link set trunk master leaf up &&
        ip -n "$rig-l1" link set trunk master leaf up || return 1
    for _ in $(seq 50); do ip -n "$rig-l0" link show trunk | grep -q 'state UP' && break; sleep 0.05; done
    run A=1 && [[ $log == *"by another NIC, and binding to the device does not help (arp_ignore is 0"* ]] &&
        topo "are in one subnet, and what eth1 should send leaves by another port (arp_ignore is 0" || return 1
    before=$(sent 0 eth1)
    quiet_arp 1 2
    topo "are in one subnet: railccl binds its sockets" && run A=1 && want "more by eth1" "$(($(sent 0 eth1) - before))" ">" 2000000 && [[ $log == *"its sockets are bound to the device"* ]]
}
bond() {
    local h
    RAILS=2 && build 2 || return 1
    ip -n "$rig-l1" link set h0 netns "$rig-l0" name h0b && ip -n "$rig-l1" link set h1 netns "$rig-l0" name h1b || return 1
    ip -n "$rig-l0" link add leaf type bridge && ip -n "$rig-l0" link set leaf up
    for h in 0 1; do
        ip -n "$rig-l0" link set "h$h" master leaf up && ip -n "$rig-l0" link set "h${h}b" master leaf up &&
            ip -n "$rig-h$h" link add bond0 type bond mode balance-rr miimon 100 && ip -n "$rig-h$h" link set eth0 master bond0 &&
            ip -n "$rig-h$h" link set eth1 master bond0 && ip -n "$rig-h$h" addr add "10.70.0.$((h + 1))/24" dev bond0 &&
            ip -n "$rig-h$h" link set bond0 up || return 1
    done
    sleep 0.5
    run A=1 && [[ $log == *"bond0 10.70.0.1/24 is on rail 0 by its subnet"* ]]
}
# Asked for in a namespace of its own: nothing of it is seen outside.
has_bonding() { unshare -n ip link add bondtest type bond 2>/dev/null; }

steps=(by_hops once in_order by_reach limited declared heard slow_daemon contradicted miswritten over_v6 link_local apart one_port bond)
for i in "${!cases[@]}"; do
    if [ "${steps[$i]}" = bond ] && ! has_bonding; then tap_skip "${cases[$i]}" "this kernel has no bonding"; continue; fi
    [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" ${steps[$i]} "* ]] || { tap_skip "${cases[$i]}" "not asked for"; continue; }
    tap_case "${cases[$i]}" "${steps[$i]}"
done
tap_end
