#!/usr/bin/env bash
# rig.sh - hosts x rails out of network namespaces: what the library's network is proven on. docs/RAILS.md has the drawing.
#
#   tests/rails/rig.sh up NAME HOSTS RAILS [RATE_MBIT=500] [spine]     RIG_SHUFFLE=1, RIG_MISSING="H:R ...", RIG_MTU=9000
#   tests/rails/rig.sh up NAME HOSTS RAILS RATE_MBIT routes    two pods, RIG_ROUTES=4 equal routes of RIG_ROUTE_MBIT each,
#                                              the leaves' hash from RIG_SEED (random)
#   tests/rails/rig.sh down NAME
#   tests/rails/rig.sh hosts NAME [SLOTS]      NAME-h0:SLOTS,NAME-h1:SLOTS ... as `railccl run --netns` wants them
#   tests/rails/rig.sh exec NAME HOST COMMAND...
#   tests/rails/rig.sh counters NAME           one line per NIC: "nic HOST RAIL TX RX", per uplink: "spine RAIL BYTES",
#                                              per route: "route RAIL POD ROUTE BYTES", sent by the leaf in POD
#   tests/rails/rig.sh cut|silent|heal NAME HOST RAIL ;  slow NAME HOST RAIL MBIT ;  lossy NAME HOST RAIL PERCENT
#   tests/rails/rig.sh deaf NAME HOST RAIL     one way: what the host sends arrives, what is sent to it does not; mute: vice versa
#   tests/rails/rig.sh rename|readdress|remove NAME HOST RAIL    what an administrator does to an interface; heal undoes it
#   tests/rails/rig.sh reset NAME HOST RAIL    ends its TCP connections there, with a reset to the others
#   tests/rails/rig.sh route-slow NAME RAIL ROUTE MBIT     one of the equal routes, both ways
#   tests/rails/rig.sh seed NAME SEED          another hash in all leaves: every route of every connection is drawn anew
#
# Sourced, it gives the same as functions: rig_up NAME 4 4 500 spine. rig_name prints a name that no other rig has and
# sweeps away rigs whose script died. Everything lives in namespaces called NAME-...: nothing of it is seen outside.
# Failures are told in one line on stderr; status 1.
export LC_ALL=C

rig_name() {
    local space pid
    for space in /run/netns/rails-*-h0; do
        [ -e "$space" ] || continue
        pid=${space#/run/netns/rails-} pid=${pid%%-*}
        [[ $pid =~ ^[0-9]+$ ]] && ! [ -d "/proc/$pid" ] && rig_down "$(basename "${space%-h0}")"
    done
    echo "rails-$$-$RANDOM"
}

# Why there can be no rig here; empty when there can.
rig_refused() {
    local probe=rails-probe-$$-$RANDOM tool
    [ "$(id -u)" = 0 ] || { echo "not root: network namespaces cannot be made"; return; }
    for tool in ip tc nft sysctl; do command -v $tool >/dev/null || { echo "$tool is not installed"; return; }; done
    ip netns add $probe 2>/dev/null || { echo "ip netns add is refused on this machine"; return; }
    ip -n $probe link add br0 type bridge 2>/dev/null || echo "the kernel has no bridges"
    ip -n $probe link set lo up && tc -n $probe qdisc add dev lo root tbf rate 1mbit burst 131072 limit 1048576 2>/dev/null ||
        echo "the kernel has no token bucket (tbf)"
    ip netns del $probe
}

# The name of rail R on host H. Shuffled, host H counts its rails from another one on, and so does the kernel.
rig_nic() { # NAME HOST RAIL
    local shuffle rails
    read -r _ rails _ shuffle _ <"/run/$1.rig"
    if [ "$shuffle" = 1 ]; then echo "eth$((($3 - $2 % rails + rails) % rails))"; else echo "eth$3"; fi
}

# Where the cable of HOST on RAIL ends: its pod's leaf. The second half of the hosts is pod 1, where there are pods.
rig_leaf_of() { # NAME HOST RAIL
    local hosts routes
    read -r hosts _ _ _ _ routes <"/run/$1.rig"
    if [ "${routes:-0}" -gt 0 ] && [ "$2" -ge $(((hosts + 1) / 2)) ]; then echo "$1-l$3p1"; else echo "$1-l$3"; fi
}

# Its address on rail R is 10.77.R.this. Pods are halves of the subnet.
rig_address() { # NAME HOST RAIL
    local hosts
    read -r hosts _ <"/run/$1.rig"
    if [[ $(rig_leaf_of "$@") == *p1 ]]; then echo $((129 + $2 - (hosts + 1) / 2)); else echo $(($2 + 1)); fi
}

rig_bucket() { # MBIT [MS]: burst holds a 64 KiB packet and a millisecond; limit is the switch's buffer, 20 ms or 1 MiB, or MS
    local burst=$(($1 * 125)) limit=$(($1 * 2500))
    [ $burst -ge 131072 ] || burst=131072
    [ $limit -ge 1048576 ] || limit=1048576
    [ -z "${2:-}" ] || limit=$(($1 * 125 * $2))
    [ $limit -ge 131072 ] || limit=131072
    echo "tbf rate $1mbit burst ${RIG_BURST:-$burst} limit $limit"
}

rig_is_missing() { [[ " ${RIG_MISSING:-} " == *" $1:$2 "* ]]; } # HOST RAIL

rig_space() { # NAME: a namespace without IPv6, so that an idle fabric counts nothing
    ip netns add "$1" && ip -n "$1" link set lo up &&
        ip netns exec "$1" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 \
            net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.ip_forward="$2" \
            net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
}

# One cable: NIC ethK of HOST to its leaf on RAIL. The first cable of a host carries its default route, where there is a spine.
rig_cable() { # NAME HOST RAIL K MBIT SPINE
    local name=$1 h=$2 r=$3 nic=eth$4 net=10.77.$3 leaf at bucket mtu=${RIG_MTU:-9000} first=0
    leaf=$(rig_leaf_of "$name" "$h" "$r") at=$(rig_address "$name" "$h" "$r") bucket=$(rig_bucket "$5")
    [ -n "$(ip -n "$name-h$h" route show default)" ] || first=1
    ip link add $nic netns "$name-h$h" mtu "$mtu" type veth peer name "h$h" netns "$leaf" mtu "$mtu" || return 1
    ip -n "$leaf" link set "h$h" master leaf up || return 1
    # A socket bound to a rail's address leaves by that rail, whoever it talks to.
    ip -n "$name-h$h" -batch - <<END || return 1
addr add $net.$at/24 dev $nic
link set $nic up
rule add from $net.$at table $((100 + r))
route replace $net.0/24 dev $nic src $net.$at table $((100 + r))
route replace $([ "$6" = 1 ] && echo "default via $net.254 dev $nic" || echo "unreachable default") table $((100 + r))
$([ "$6" = 1 ] && [ $first = 1 ] && echo "route add default via $net.254 dev $nic")
END
    tc -n "$name-h$h" qdisc add dev $nic root handle 1: $bucket && tc -n "$leaf" qdisc add dev "h$h" root handle 1: $bucket
}

# The cables of a host. Order matters: the kernel numbers interfaces as they are made.
rig_host() { # NAME HOST RAILS MBIT SPINE SHUFFLE
    local k r
    rig_space "$1-h$2" 0 || return 1
    ip netns exec "$1-h$2" sysctl -qw net.ipv4.tcp_congestion_control="${RIG_CC:-reno}" || return 1
    for ((k = 0; k < $3; k++)); do
        r=$k
        [ "$6" = 0 ] || r=$(((k + $2) % $3))
        rig_is_missing "$2" $r || rig_cable "$1" "$2" $r $k "$4" "$5" || return 1
    done
}

rig_leaf() { # NAME RAIL SPINE MBIT
    local name=$1 r=$2 mtu=${RIG_MTU:-9000} bucket
    rig_space "$name-l$r" 1 && ip -n "$name-l$r" link add leaf mtu "$mtu" type bridge && ip -n "$name-l$r" link set leaf up || return 1
    [ "$3" = 1 ] || return 0
    bucket=$(rig_bucket "${RIG_SPINE_MBIT:-$4}")
    ip link add spine netns "$name-l$r" mtu "$mtu" type veth peer name "leaf$r" netns "$name-s" mtu "$mtu" &&
        ip -n "$name-l$r" -batch - <<END && ip -n "$name-s" -batch - <<END2 &&
addr add 10.77.$r.254/24 dev leaf
addr add 10.78.$r.1/30 dev spine
link set spine up
route add default via 10.78.$r.2
END
addr add 10.78.$r.2/30 dev leaf$r
link set leaf$r up
route add 10.77.$r.0/24 via 10.78.$r.1
END2
        tc -n "$name-l$r" qdisc add dev spine root handle 1: $bucket &&
        tc -n "$name-s" qdisc add dev "leaf$r" root handle 1: $bucket
}

# Acknowledgements share a route with the data of the other direction: behind a buffer of 1 MiB they would come 40 ms late.
rig_route_bucket() { rig_bucket "$1" "${RIG_ROUTE_QUEUE_MS:-10}"; }

# A leaf of a pod. It answers ARP for the other pod's half of the subnet at once, and routes there over all spines alike:
# by the hash of addresses and ports, whose seed nobody knows.
rig_pod_leaf() { # NAME RAIL POD ROUTES MBIT
    local name=$1 r=$2 p=$3 leaf=$1-l$2 k uplink bucket hops="" mtu=${RIG_MTU:-9000} halves=(0 128)
    [ "$p" = 0 ] || leaf=${leaf}p1
    bucket=$(rig_route_bucket "$5")
    rig_space "$leaf" 1 && ip -n "$leaf" link add leaf mtu "$mtu" type bridge && ip -n "$leaf" link set leaf up &&
        ip netns exec "$leaf" sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv4.conf.leaf.proxy_arp=1 \
            net.ipv4.neigh.leaf.proxy_delay=0 && ip -n "$leaf" addr add "10.77.$r.$((halves[p] + 126))/25" dev leaf || return 1
    for ((k = 0; k < $4; k++)); do
        uplink=10.$((80 + p)).$((r * 8 + k))
        ip link add "route$k" netns "$leaf" mtu "$mtu" type veth peer name "r${r}p$p" netns "$name-s$k" mtu "$mtu" &&
            ip -n "$leaf" -batch - <<END && ip -n "$name-s$k" -batch - <<END2 &&
addr add $uplink.1/30 dev route$k
link set route$k up
END
addr add $uplink.2/30 dev r${r}p$p
link set r${r}p$p up
route add 10.77.$r.${halves[p]}/25 via $uplink.1
END2
            tc -n "$leaf" qdisc add dev "route$k" root handle 1: $bucket || return 1
        hops="$hops nexthop via $uplink.2 weight 1"
    done
    ip -n "$leaf" route add "10.77.$r.${halves[1 - p]}/25" $hops
}

rig_pods() { # NAME RAILS ROUTES MBIT
    local r p k
    for ((k = 0; k < $3; k++)); do rig_space "$1-s$k" 1 || return 1; done
    for ((r = 0; r < $2; r++)); do
        for p in 0 1; do rig_pod_leaf "$1" $r $p "$3" "$4" || return 1; done
    done
    rig_seed "$1" "${RIG_SEED:-$((RANDOM * 32768 + RANDOM + 1))}"
}

rig_seed() { # NAME SEED
    local space
    for space in /run/netns/"$1"-l[0-9]* /run/netns/"$1"-s[0-9]*; do
        ip netns exec "$(basename "$space")" sysctl -qw net.ipv4.fib_multipath_hash_seed="$2" || return 1
    done
}

# Cables need a moment until they carry.
rig_carriers() { # NAME HOSTS
    local h down
    for _ in $(seq 100); do
        down=0
        for ((h = 0; h < $2; h++)); do
            down=$((down + $(ip -n "$1-h$h" -o link show type veth | grep -vc "state UP")))
        done
        [ $down -gt 0 ] || return 0
        sleep 0.1
    done
    echo "rig $1: $down NICs do not come up" >&2
    return 1
}

rig_build() { # NAME HOSTS RAILS MBIT SPINE ROUTES
    local r h shuffle=${RIG_SHUFFLE:-0}
    echo "$2 $3 $4 $shuffle $5 $6" >"/run/$1.rig" || return 1
    [ "$5" = 0 ] || rig_space "$1-s" 1 || return 1
    if [ "$6" -gt 0 ]; then
        rig_pods "$1" "$3" "$6" "${RIG_ROUTE_MBIT:-$4}" || return 1
    else
        for ((r = 0; r < $3; r++)); do rig_leaf "$1" $r "$5" "$4" || return 1; done
    fi
    for ((h = 0; h < $2; h++)); do rig_host "$1" $h "$3" "$4" "$5" "$shuffle" || return 1; done
    rig_carriers "$1" "$2"
}

rig_up() { # NAME HOSTS RAILS [MBIT] [spine|routes]
    local spine=0 routes=0
    [ "${5:-}" != spine ] || spine=1
    if [ "${5:-}" = routes ]; then
        routes=${RIG_ROUTES:-4}
        [[ $routes =~ ^[1-8]$ && ${RIG_ROUTE_MBIT:-1} =~ ^[0-9]+$ ]] && [ "$2" -le 100 ] && [ "$3" -le 16 ] ||
            { echo "rig_up: at most 8 routes, 100 hosts and 16 rails: got RIG_ROUTES=$routes, '$*'" >&2; return 1; }
    fi
    [[ $2 =~ ^[0-9]+$ && $3 =~ ^[0-9]+$ && ${4:-500} =~ ^[0-9]+$ ]] && [ "$2" -le 200 ] && [ "$3" -le 64 ] ||
        { echo "rig_up NAME HOSTS RAILS [MBIT] [spine|routes]: got '$*'" >&2; return 1; }
    ! [ -e "/run/netns/$1-h0" ] || { echo "rig $1 is up already" >&2; return 1; }
    rig_build "$1" "$2" "$3" "${4:-500}" $spine $routes && return 0
    echo "rig $1 could not be built" >&2
    rig_down "$1"
    return 1
}

# Ends what still runs in there, and removes it all; harmless when there is nothing.
rig_down() { # NAME
    local space pid
    for space in /run/netns/"$1"-[hls][0-9]* /run/netns/"$1-s"; do
        [ -e "$space" ] || continue
        space=$(basename "$space")
        for pid in $(ip netns pids "$space" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
        ip netns del "$space" 2>/dev/null
    done
    rm -f "/run/$1.rig" "/run/$1.fabric" "/run/$1.fabric.bad"
    return 0
}

rig_hosts() { # NAME [SLOTS]
    local hosts h list=""
    read -r hosts _ <"/run/$1.rig" || return 1
    for ((h = 0; h < hosts; h++)); do list=$list,$1-h$h${2:+:$2}; done
    echo "${list#,}"
}

rig_exec() { local name=$1 host=$2; shift 2; ip netns exec "$name-h$host" "$@"; }

rig_counters() { # NAME
    local hosts rails spine routes h r nic name=$1
    read -r hosts rails _ _ spine routes <"/run/$name.rig" || return 1
    for ((h = 0; h < hosts; h++)); do
        for ((r = 0; r < rails; r++)); do echo "$(rig_nic "$name" $h $r) nic $h $r"; done >"/run/$name.names"
        ip netns exec "$name-h$h" cat /proc/net/dev | tr : ' ' |
            awk 'NR == FNR { is[$1] = $2 " " $3 " " $4; next } $1 in is { printf "%s %.0f %.0f\n", is[$1], $10, $2 }' "/run/$name.names" -
    done
    rm -f "/run/$name.names"
    [ "$spine" = 0 ] || ip netns exec "$name-s" cat /proc/net/dev | tr : ' ' |
        awk '$1 ~ /^leaf/ { printf "spine %s %.0f\n", substr($1, 5), $2 }' # what came up to it: each packet once
    [ "${routes:-0}" = 0 ] || for ((r = 0; r < rails; r++)); do rig_route_counters "$name" $r; done
}
rig_route_counters() { # NAME RAIL: what each pod's leaf sent into each route
    local p leaf=("$1-l$2" "$1-l$2p1")
    for p in 0 1; do
        ip netns exec "${leaf[p]}" cat /proc/net/dev | tr : ' ' |
            awk -v at="route $2 $p" '$1 ~ /^route/ { printf "%s %s %.0f\n", at, substr($1, 6), $10 }'
    done
}

rig_cut()    { ip -n "$(rig_leaf_of "$1" "$2" "$3")" link set "h$2" down; }
rig_silent() { ip -n "$(rig_leaf_of "$1" "$2" "$3")" link set "h$2" nomaster; }
rig_slow() { # NAME HOST RAIL MBIT
    tc -n "$1-h$2" qdisc replace dev "$(rig_nic "$1" "$2" "$3")" root handle 1: $(rig_bucket "$4") &&
        tc -n "$(rig_leaf_of "$1" "$2" "$3")" qdisc replace dev "h$2" root handle 1: $(rig_bucket "$4")
}
rig_route_slow() { # NAME RAIL ROUTE MBIT
    tc -n "$1-l$2" qdisc replace dev "route$3" root handle 1: $(rig_route_bucket "$4") &&
        tc -n "$1-l$2p1" qdisc replace dev "route$3" root handle 1: $(rig_route_bucket "$4")
}
# Whatever was done to it. A NIC that was removed comes back as another interface of the same name and address.
rig_heal() { # NAME HOST RAIL
    local mbit spine nic
    read -r _ _ mbit _ spine _ <"/run/$1.rig" && nic=$(rig_nic "$1" "$2" "$3") || return 1
    ip -n "$1-h$2" link set "x$nic" name "$nic" 2>/dev/null
    if ! ip -n "$1-h$2" link show "$nic" >/dev/null 2>&1; then
        ip -n "$1-h$2" rule del table $((100 + $3)) 2>/dev/null
        rig_cable "$1" "$2" "$3" "${nic#eth}" "$mbit" "$spine" || return 1
    fi
    rig_address_back "$1" "$2" "$3" "$nic" "$spine" &&
        ip -n "$(rig_leaf_of "$1" "$2" "$3")" link set "h$2" master leaf gso_max_segs 65535 up && rig_slow "$1" "$2" "$3" "$mbit" || return 1
    ip netns exec "$1-h$2" nft delete table inet "rail$3" 2>/dev/null
    ip netns exec "$(rig_leaf_of "$1" "$2" "$3")" nft delete table netdev "mute$2" 2>/dev/null
    return 0
}
rig_address_back() { # NAME HOST RAIL NIC SPINE
    local net=10.77.$3 at
    at=$(rig_address "$1" "$2" "$3")
    [ -z "$(ip -n "$1-h$2" -o addr show dev "$4" to $net.$at)" ] || return 0
    ip -n "$1-h$2" -batch - <<END
addr flush dev $4
addr add $net.$at/24 dev $4
route replace $net.0/24 dev $4 src $net.$at table $((100 + $3))
route replace $([ "$5" = 1 ] && echo "default via $net.254 dev $4" || echo "unreachable default") table $((100 + $3))
END
}
# The other way round than deaf: the leaf does not let in what the host sends.
rig_mute() { # NAME HOST RAIL
    ip netns exec "$(rig_leaf_of "$1" "$2" "$3")" nft -f - <<END
table netdev mute$2 {
    chain in {
        type filter hook ingress device "h$2" priority 0;
        drop
    }
}
END
}
# What an administrator may do to an interface that is in use. Since Linux 6.2 one that is up can be renamed.
rig_rename() { # NAME HOST RAIL
    local nic
    nic=$(rig_nic "$@")
    ip -n "$1-h$2" link set "$nic" name "x$nic"
}
rig_readdress() { # NAME HOST RAIL: 10.77.RAIL.(100 more); what is bound to the old address is cut off
    local nic at
    nic=$(rig_nic "$@") at=$(rig_address "$@")
    ip -n "$1-h$2" addr add "10.77.$3.$((at + 100))/24" dev "$nic" && ip -n "$1-h$2" addr del "10.77.$3.$at/24" dev "$nic"
}
rig_remove() { ip -n "$1-h$2" link del "$(rig_nic "$@")"; } # NAME HOST RAIL
# Ends every connection of HOST to others on RAIL: an error here, a reset there (CONFIG_INET_DIAG_DESTROY).
rig_reset() { ip netns exec "$1-h$2" ss -K dst "10.77.$3.0/24" >/dev/null; } # NAME HOST RAIL
# Dropped as they come in, after the counters. The leaf hands them over one by one (gso_max_segs): 64 KiB that were lost as one
# packet would be another loss than that of a wire.
rig_lossy() { # NAME HOST RAIL PERCENT
    local rule=drop
    ip -n "$(rig_leaf_of "$1" "$2" "$3")" link set "h$2" gso_max_segs 1 || return 1
    [ "$4" -ge 100 ] || rule="numgen random mod 100 < $4 drop"
    ip netns exec "$1-h$2" nft -f - <<END
table inet rail$3 {
    chain in {
        type filter hook input priority 0
        iifname "$(rig_nic "$1" "$2" "$3")" $rule
    }
}
END
}
rig_deaf() { rig_lossy "$1" "$2" "$3" 100; }

# Sourced: functions only.
(return 0 2>/dev/null) && return 0
verb=${1:-}
case $verb in
up | down | hosts | exec | counters | cut | silent | heal | slow | lossy | deaf | mute | rename | readdress | remove | reset | route-slow | seed)
    shift
    [ $# -gt 0 ] || { echo "rig.sh $verb: which rig?" >&2; exit 1; }
    "rig_${verb//-/_}" "$@"
    ;;
*) sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
