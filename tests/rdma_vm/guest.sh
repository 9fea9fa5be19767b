# guest.sh - hosts x rails with Soft-RoCE, inside the virtual machine (vm.sh): `. tests/rdma_vm/guest.sh; fabric_up 4 4`
#
#      host 0                        host 1            rail R is one switch (a bridge) with one cable from every host.
#   rx_0_0   rx_0_1               rx_1_0   rx_1_1      Host H's device there is rx_H_R on interface hHrR, 10.77.R.(H+1)/24.
#   h0r0 |   h0r1 |               h1r0 |   h1r1 |
#        |        +-- rail 1 ----------|--------+      The other end of that cable is in namespace "sw" and called hHrR, too:
#        +----------- rail 0 ----------+               pulling it there loses no address and no route.
#
# Linux 6.1 has rxe in the first network namespace alone, so all hosts share it: a process belongs to host H by NCCL_HOSTID,
# NCCL_IB_HCA and NCCL_SOCKET_IFNAME (vm_on_host, vm_ranks). Packets between two addresses of one machine would stay in it; rules
# by source address send them over the cables, which ports and `fabric_lo` prove. A program must bind its source address to cross
# (a queue pair always does, by its GID); a socket that is not bound stays on lo, and no cut cable troubles it.
#
#   fabric_up HOSTS RAILS            all of it; once per boot. fabric_wait [S]: until every port is active
#   cable_down HOST RAIL ; cable_up  pulled at the switch: the host's port loses its carrier, the others' do not
#   rail_silent HOST RAIL            both ways nothing arrives and nobody is told; rail_loss HOST RAIL PERCENT, rail_rate HOST RAIL MBIT
#   rail_lost HOST RAIL              packets that were dropped so far; rail_heal HOST RAIL undoes the three
#   fabric_ports                     one line per cable: "HOST RAIL SENT RECEIVED", bytes as the switch's port counts them
#   ports_since FILE                 the same less what an earlier fabric_ports wrote to FILE
#   fabric_lo                        bytes that crossed lo
#   flows_begin ; flows_end          RoCE packets by what a switch's hash sees, between the two (flows.c says the columns)
#   rxe_counter HOST RAIL NAME       /sys/class/infiniband/rx_H_R/ports/1/hw_counters/NAME
#   port_state HOST RAIL             "ACTIVE", "DOWN"
#   vm_address HOST RAIL ; vm_gid HOST RAIL     its address, and the index of its RoCE v2 GID over IPv4
#   vm_on_host HOST RAILS COMMAND... with what makes a process one of host H with the rails 0 ... RAILS-1
#   vm_ranks HOSTS RAILS SLOTS COMMAND...       railccl run, SLOTS ranks on each host
fabric_hosts=0 fabric_rails=0
fabric_mtu=${RAIL_RDMA_MTU:-4200} # 4096 of payload and RoCE's headers; 1500 gives an MTU of 1024

vm_address() { echo "10.77.$2.$(($1 + 1))"; }
vm_hardware() { printf '02:00:00:77:%02x:%02x' "$2" "$1"; }
each_port() { # COMMAND [ARGUMENT...]: with HOST RAIL behind
    local h r
    for ((h = 0; h < fabric_hosts; h++)); do for ((r = 0; r < fabric_rails; r++)); do "$@" $h $r || return 1; done; done
}

fabric_port_lines() { # HOST RAIL: what ip does for one cable. Own addresses are local in its table, too: what lo began stays there.
    local nic=h$1r$2 at table=$((1000 + 16 * $1 + $2)) other
    at=$(vm_address "$1" "$2")
    echo "addr add $at/24 dev $nic noprefixroute"
    echo "link set $nic up"
    echo "route add 10.77.$2.0/24 dev $nic src $at table $table"
    echo "route add local $at dev lo src $at table $table"
    echo "rule add pref 10 from $at to 10.77.$2.0/24 iif lo lookup $table"
    # The connection manager asks whether the NIC that a request came by leads back to who sent it: not from lo.
    echo "rule add pref 11 from $at to 10.77.$2.0/24 oif $nic lookup $table"
    for ((other = 0; other < fabric_hosts; other++)); do
        [ $other = "$1" ] || echo "neigh replace $(vm_address $other "$2") lladdr $(vm_hardware $other "$2") dev $nic nud permanent"
    done
}
fabric_link_line() {
    echo "link add h$1r$2 address $(vm_hardware "$1" "$2") mtu $fabric_mtu type veth peer name h$1r$2 mtu $fabric_mtu netns sw"
}
fabric_switch_lines() { printf 'link set h%sr%s master leaf%s\nlink set h%sr%s up\n' "$1" "$2" "$2" "$1" "$2"; }
# A switch sends what is for an address that it does not know yet to every port; here each port counts its own alone.
fabric_forward_line() { echo "fdb replace $(vm_hardware "$1" "$2") dev h$1r$2 master static"; }
fabric_rdma_line() { echo "link add rx_$1_$2 type rxe netdev h$1r$2"; }

fabric_up() { # HOSTS RAILS
    local all=/proc/sys/net/ipv4/conf r
    fabric_hosts=$1 fabric_rails=$2
    # Everything that is local here is local to some host: rules by source come before the table of local addresses.
    ip rule add pref 1000 lookup local && ip rule del pref 0 || return 1
    for r in all default; do
        echo 1 >$all/$r/accept_local; echo 0 >$all/$r/rp_filter; echo 1 >$all/$r/arp_ignore; echo 2 >$all/$r/arp_announce
    done
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 # an idle fabric counts nothing
    ip netns add sw && ip netns exec sw bash -c 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6' || return 1
    for ((r = 0; r < fabric_rails; r++)); do
        printf 'link add leaf%s mtu %s type bridge stp_state 0 mcast_snooping 0\nlink set leaf%s up\n' $r "$fabric_mtu" $r
    done | ip -n sw -batch - && each_port fabric_link_line | ip -batch - && each_port fabric_switch_lines | ip -n sw -batch - &&
        each_port fabric_forward_line | bridge -n sw -batch - &&
        each_port fabric_port_lines | ip -batch - && each_port fabric_rdma_line >/tmp/fabric.rdma && rdma -b /tmp/fabric.rdma &&
        fabric_wait 10
}

port_state() { sed 's/.*: //' "/sys/class/infiniband/rx_$1_$2/ports/1/state"; }
port_is_active() { [ "$(port_state "$1" "$2")" = ACTIVE ]; }
# Until COMMAND holds, at most S seconds.
vm_until() { # S COMMAND...
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do [ $SECONDS -lt $end ] && sleep 0.05 || return 1; done
}
fabric_wait() { vm_until "${1:-10}" each_port port_is_active || { echo "not every port became active: $(rdma link)" >&2; return 1; }; }

cable_down() { ip -n sw link set "h$1r$2" down; }
cable_up() { ip -n sw link set "h$1r$2" up; }

# A qdisc on each end: the host's shapes what it sends, the switch port's what it is sent.
rail_shape() { # HOST RAIL QDISC...
    local nic=h$1r$2
    shift 2
    tc qdisc replace dev "$nic" root handle 1: "$@" && tc -n sw qdisc replace dev "$nic" root handle 1: "$@"
}
rail_silent() { rail_shape "$1" "$2" netem loss 100%; }
rail_loss() { rail_shape "$1" "$2" netem loss "$3%" limit 10000; }
rail_lost() { # HOST RAIL: packets that its two qdiscs have dropped
    { tc -s qdisc show dev "h$1r$2" root; tc -n sw -s qdisc show dev "h$1r$2" root; } | awk '{ for (i = 1; i < NF; i++) if ($i == "(dropped") n += $(i + 1) } END { print n + 0 }'
}
rail_rate() { rail_shape "$1" "$2" tbf rate "$3mbit" burst 131072 limit 1048576; }
rail_heal() { tc qdisc del dev "h$1r$2" root 2>/dev/null; tc -n sw qdisc del dev "h$1r$2" root 2>/dev/null; return 0; }

# What a port of the switch received is what its host sent.
fabric_ports() {
    ip netns exec sw cat /proc/net/dev | tr : ' ' | sed -n 's/^ *h\([0-9]*\)r\([0-9]*\) /\1 \2 /p' |
        awk '{ printf "%d %d %.0f %.0f\n", $1, $2, $3, $11 }' | sort -n -k1 -k2
}
ports_since() { fabric_ports | awk 'NR == FNR { s[$1, $2] = $3; r[$1, $2] = $4; next } { printf "%d %d %.0f %.0f\n", $1, $2, $3 - s[$1, $2], $4 - r[$1, $2] }' "$1" -; }
fabric_lo() { awk '/^ *lo:/ { sub(/.*lo:/, ""); print $1 }' /proc/net/dev; }
flows_begin() {
    ip netns exec sw "${BUILD:-build}/tests/rdma_vm/flows" /tmp/flows & flows_reader=$!
    vm_until 5 flows_read || { echo "flows does not start" >&2; return 1; }
}
flows_read() { [ "$(ip netns exec sw cat /proc/net/packet | wc -l)" -gt 1 ]; }
flows_end() { kill $flows_reader && wait $flows_reader && cat /tmp/flows; }
rxe_counter() { cat "/sys/class/infiniband/rx_$1_$2/ports/1/hw_counters/$3"; }

vm_gid() { # the GID table of Soft-RoCE is v2 alone; an IPv4 address is in it as ::ffff:a.b.c.d
    local file want
    want=$(printf '0000:0000:0000:0000:0000:ffff:0a4d:%02x%02x' "$2" $(($1 + 1)))
    for file in "/sys/class/infiniband/rx_$1_$2/ports/1/gids"/*; do
        [ "$(cat "$file")" != "$want" ] || { echo "${file##*/}"; return 0; }
    done
    return 1
}

vm_names() { # PREFIX MIDDLE HOST RAILS: "=h0r0,h0r1"
    local r list=""
    for ((r = 0; r < $4; r++)); do list=$list,$1$3$2$r; done
    echo "=${list#,}"
}
vm_on_host() { # HOST RAILS COMMAND...
    local host=$1 rails=$2
    shift 2
    NCCL_HOSTID=vm-h$host NCCL_IB_HCA=$(vm_names rx_ _ "$host" "$rails") NCCL_SOCKET_IFNAME=$(vm_names h r "$host" "$rails") "$@"
}
vm_ranks() { # HOSTS RAILS SLOTS COMMAND...
    local hosts=$1 rails=$2 slots=$3
    shift 3
    "${BUILD:-build}/bin/railccl" run -n $((hosts * slots)) --timeout "${RAIL_LIMIT_S:-60}" \
        bash -c '. tests/rdma_vm/guest.sh; rails=$1 slots=$2; shift 2; vm_on_host $((RANK / slots)) $rails exec "$@"' ranks "$rails" "$slots" "$@"
}
