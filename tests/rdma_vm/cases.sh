# cases.sh - what is proven on Soft-RoCE. check_rdma.sh has it run inside the virtual machine, once for all cases, and reads
# the names here when there is no machine. Columns of the table of collectives, by "|":
#
#   name | hosts | rails | slots | wire | environment | meanwhile | program and options
#
# HOSTS x SLOTS ranks, RAILS devices each out of the fabric's 4 x 4 (an empty name: one is made of the rest). The program verifies
# its results. Then the switch is asked: every cable of these hosts and rails must have carried data, others less than 64 KiB,
# lo less than a tenth; each rail's ports must have received by RDMA what its ports have sent; and no message may have found that
# there is no receive for it. wire: "tcp": not one packet by RDMA; "verbs": at most a tenth of the bytes were TCP's (give it a
# megabyte or more), and connections were made by hand; "cm": the same, but by librdmacm. meanwhile: commands of guest.sh's that begin with the program, must succeed, and must end before it:
# cables that are pulled; then only data on some cable of each host is asked for. They wait for bytes, not for time: how long a
# program takes here varies twentyfold, and trouble that outlasts it, or is over before it begins, proves nothing.
collectives=(
    "|2|1|1|tcp|NCCL_IB_DISABLE=1||all_reduce_perf -b 8 -e 1M -f 8 -n 2"
    "|4|4|1|tcp|NCCL_NET=Socket||all_reduce_perf -b 4M -e 4M -n 2"
    "a cable is pulled and put back under AllReduce over TCP: it goes by the other rails|4|4|1|tcp|NCCL_IB_DISABLE=1|once 1 2 3000000 cable_down 1 2 && further 1 20000000 cable_up 1 2|all_reduce_perf -b 4M -e 4M -n 12"
    "|2|1|1|verbs|NCCL_NET=IB||all_reduce_perf -b 8 -e 4M -f 16 -n 2"
    "|4|2|1|verbs|||all_gather_perf -b 8M -e 8M -n 2"
    "registered buffers: AllReduce sends from where they lie|2|1|1|verbs|||all_reduce_perf -b 4M -e 4M -n 3 -R 1"
    "registered buffers: AlltoAll sends from where they lie|4|2|1|verbs|||alltoall_perf -b 16M -e 16M -n 1 -R 1"
    "|4|4|1|verbs|||reduce_scatter_perf -b 4M -e 4M -n 2"
    "|4|4|1|verbs|||alltoall_perf -b 4M -e 4M -n 2"
    "|4|4|1|verbs|||all_reduce_perf -b 8M -e 8M -n 1 -w 1"
    "a cable is pulled and put back under AllReduce over RDMA: it goes by the other rails|4|4|1|verbs||once 1 2 1000000 cable_down 1 2 && further 1 8000000 cable_up 1 2|all_reduce_perf -b 1M -e 1M -n 20"
    "a cable is pulled and put back under Broadcast from registered buffers: what was lost is read there again|4|4|1|verbs||once 1 2 1000000 cable_down 1 2 && further 1 8000000 cable_up 1 2|broadcast_perf -b 4M -e 4M -n 20 -R 1"
    "a rail falls silent under AllReduce over RDMA, retried for ever: it goes by the other rails|4|4|1|verbs||once 2 3 1000000 rail_silent 2 3 && further 2 8000000 rail_heal 2 3|all_reduce_perf -b 1M -e 1M -n 20"
    "0.1 % of loss on all rails of a host under AllReduce over RDMA|2|2|1|verbs||once 0 1 1000000 rail_loss 0 1 0.1 && rail_loss 0 0 0.1 && further 0 24000000 lost_some 0 && rail_heal 0 0 && rail_heal 0 1|all_reduce_perf -b 1M -e 1M -n 30"
    "|2|1|1|cm|RAILCCL_IB_CM=1||all_reduce_perf -b 8 -e 4M -f 16 -n 2"
    "|4|2|1|cm|RAILCCL_IB_CM=1||all_gather_perf -b 4M -e 4M -n 1"
    "|4|4|1|cm|RAILCCL_IB_CM=1||alltoall_perf -b 4M -e 4M -n 1"
    "a cable is pulled and put back, connections by librdmacm: AllReduce goes by the other rails|4|4|1|cm|RAILCCL_IB_CM=1|once 1 2 1000000 cable_down 1 2 && further 1 8000000 cable_up 1 2|all_reduce_perf -b 1M -e 1M -n 20"
    "1 % of loss on a rail under AllReduce over RDMA|2|2|1|verbs||once 0 1 1000000 rail_loss 0 1 1 && further 0 16000000 lost_some 0 && rail_heal 0 1|all_reduce_perf -b 1M -e 1M -n 20"
)

cases=() steps=()
collective_name() { # ROW
    local name hosts rails slots wire environment meanwhile program
    IFS='|' read -r name hosts rails slots wire environment meanwhile program <<<"$1"
    echo "${name:-${program%% *} of $((hosts * slots)) ranks on $hosts hosts, $rails rails, by $wire${environment:+, $environment}}"
}
add() { cases+=("$1") steps+=("$2"); }
add "a machine comes up with rdma_rxe, verbs tools and this repository" machine
add "4 hosts of 4 rails: 16 devices, every port active, MTU 4096, one IPv4 GID each" fabric
add "railccl doctor sees every port, and the one whose cable is pulled" examined
add "what two devices of a rail send crosses their two ports, no other, and not lo" crosses
add "the switch sees a UDP source port for each of four queue pairs" spread
add "a cable pulled at the switch is an event at the near end within 1 s, and none at the far end" pulled
add "a silent rail stops and keeps its port active, healed it goes on with the same queue pair" silent
add "1 % of loss: every byte is right, and packets were sent again" lossy
for row in "${!collectives[@]}"; do add "$(collective_name "${collectives[row]}")" "collective $row"; done
add "AllReduce of 64 MiB over 4 rails: at most 40 work requests per MiB, one in four asks for a completion, no receive is missing" budget
add "four queue pairs per rail: the switch sees each with the UDP source port that was planned for it, and no other" routes
add "conformance on two hosts of two rails by RDMA, 1 to 5 ranks" "conforms two*hosts 2 verbs 5"
add "conformance on three hosts of processes of two threads by RDMA, 1 to 5 ranks" "conforms three*hosts*of*processes*of*two*threads 2 verbs 5"
for rails in 1 2 4; do
    [ $rails = 2 ] || add "every operation on two hosts, $rails rails, connections by hand, 1 to 4 ranks" "conforms two*hosts $rails verbs 4"
    add "every operation on two hosts, $rails rails, connections by librdmacm, 1 to 4 ranks" "conforms two*hosts $rails cm 4"
done

want() { echo "$1: $2, wanted $3 $4"; awk "BEGIN { exit !($2 $3 $4) }"; }
scratch=/tmp/cases
limit_s=${RAIL_LIMIT_S:-120} # of one program: four seconds here, a minute where eight others want the same two CPUs

machine() {
    mkdir -p $scratch
    uname -r && ls -d "${BUILD:-build}/bin/railccl" && command -v ibv_rc_pingpong ib_write_bw rping rdma && want "modules" "$(grep -c '^rdma_rxe ' /proc/modules)" == 1
}

port_is_right() { # HOST RAIL
    ibv_devinfo -d "rx_$1_$2" >$scratch/info && grep -q PORT_ACTIVE $scratch/info && grep -q 'active_mtu:.*4096' $scratch/info && vm_gid "$1" "$2" >/dev/null ||
        { cat $scratch/info; return 1; }
}
fabric() {
    local start=${EPOCHREALTIME/./}
    fabric_up 4 4 || return 1
    echo "set up in $(((${EPOCHREALTIME/./} - start) / 1000)) ms"
    want "devices" "$(ibv_devices | grep -c rx_)" == 16 && each_port port_is_right
}

examined() {
    "${BUILD:-build}/bin/railccl" doctor >$scratch/well
    want "exit status" $? "<=" 1 && want "active" "$(grep -c ' ACTIVE .*(RDMA 4096)  GID 1 ::ffff:10.77.*software' $scratch/well)" == 16 &&
        cable_down 1 1 && vm_until 3 is_down 1 1 || { cat $scratch/well; return 1; }
    "${BUILD:-build}/bin/railccl" doctor >$scratch/ill
    want "exit status" $? == 3 && grep '^error .*rx_1_1:1.*down' $scratch/ill && cable_up 1 1 && fabric_wait || { cat $scratch/ill; return 1; }
}
is_down() { [ "$(port_state "$1" "$2")" = DOWN ]; }

# OPTION...: bytes are checked by the program; FROM and TO are hosts
pingpong() { # FROM TO RAIL OPTION...
    local from=$1 to=$2 rail=$3 server port=$((18600 + RANDOM % 1000))
    shift 3
    timeout 40 ibv_rc_pingpong -d "rx_${to}_$rail" -g "$(vm_gid "$to" "$rail")" -p $port -m 4096 -c "$@" >$scratch/server 2>&1 &
    server=$!
    vm_until 5 listens $port || { cat $scratch/server; return 1; }
    timeout 40 ibv_rc_pingpong -d "rx_${from}_$rail" -g "$(vm_gid "$from" "$rail")" -p $port -m 4096 -c "$@" localhost >$scratch/client 2>&1 &&
        wait $server || { cat $scratch/client $scratch/server; return 1; }
    grep -h bytes $scratch/client
}
listens() { ss -Htln "sport = :$1" | grep -q .; }

carried_alone() { # FILE RAIL HOST HOST BYTES: since FILE, these two cables carried so much, all others next to nothing
    ports_since "$1" >$scratch/since
    awk -v r="$2" -v a="$3" -v b="$4" -v bytes="$5" '
        $2 == r && ($1 == a || $1 == b) { if ($3 + $4 < bytes) { print "too little: " $0; bad = 1 } else n++; next }
        $3 + $4 > 65536 { print "not on its rail: " $0; bad = 1 }
        END { exit bad || n != 2 }' $scratch/since
}
crosses() {
    local r lo other
    for r in 0 1 2 3; do
        other=$(((r + 1) % 4)) lo=$(fabric_lo)
        fabric_ports >$scratch/before
        pingpong $r $other $r -s 262144 -n 20 && carried_alone $scratch/before $r $r $other 10000000 &&
            want "bytes on lo" $(($(fabric_lo) - lo)) "<" 65536 || return 1
    done
    yardstick 0 1 0
}
# perftest's stream of one queue pair: what a lane of ours may be compared with. Its timeout is 2 s instead of 67 ms: on a busy
# machine acknowledgements come later than that, and what Linux 6.1's rxe then sends again of an RDMA write may be refused by
# its peer (REM_INV_REQ_ERR; 2 of 3 runs of four queue pairs at a load of 25, 0 of 8 with 2 s).
yardstick() { # FROM TO RAIL [OPTION...]
    local server from=$1 to=$2 rail=$3
    shift 3
    timeout 30 ib_write_bw -d "rx_${to}_$rail" -x "$(vm_gid "$to" "$rail")" -s 65536 -n "${rounds:-400}" -u 19 -F "$@" >$scratch/server 2>&1 &
    server=$!
    vm_until 5 listens 18515 || { cat $scratch/server; return 1; }
    timeout 30 ib_write_bw -d "rx_${from}_$rail" -x "$(vm_gid "$from" "$rail")" -s 65536 -n "${rounds:-400}" -u 19 -F "$@" localhost >$scratch/client 2>&1 && wait $server ||
        { cat $scratch/client $scratch/server; return 1; }
    awk '$1 == 65536 { print "ib_write_bw of 64 KiB: " $4 " MB/s" }' $scratch/client
}

# A flow label is made out of both queue pairs' numbers where nobody gives one, and the port out of the label.
spread() {
    flows_begin && yardstick 3 2 2 -q 4 && flows_end >$scratch/flows || return 1
    cat $scratch/flows
    want "queue pairs that data went to" "$(awk '$1 == 3 && $2 == 2 && $6 > 1000 { print $4 }' $scratch/flows | sort -u | wc -l)" == 4 &&
        want "their source ports" "$(awk '$1 == 3 && $2 == 2 && $6 > 1000 { print $3 }' $scratch/flows | sort -u | wc -l)" == 4 &&
        want "hosts that sent data" "$(awk '$6 > 0 { print $1, $2 }' $scratch/flows | sort -u | wc -l)" == 1
}

told() { grep -q "$1" "$2"; }
pulled() {
    local near far start status=1
    ibv_asyncwatch -d rx_2_1 >$scratch/near 2>&1 & near=$!
    ibv_asyncwatch -d rx_3_1 >$scratch/far 2>&1 & far=$!
    vm_until 5 told "async event FD" $scratch/near && vm_until 5 told "async event FD" $scratch/far && start=${EPOCHREALTIME/./} && cable_down 2 1 &&
        vm_until 3 told IBV_EVENT_PORT_ERR $scratch/near && want "PORT_ERR after ms" $(((${EPOCHREALTIME/./} - start) / 1000)) "<" 1000 &&
        [ "$(port_state 2 1)" = DOWN ] && [ "$(port_state 3 1)" = ACTIVE ] && ! told event_type $scratch/far && cable_up 2 1 &&
        vm_until 3 told IBV_EVENT_PORT_ACTIVE $scratch/near && fabric_wait && status=0
    kill $near $far
    wait $near $far 2>/dev/null
    cat $scratch/near
    return $status
}

silent() {
    local player one two
    fabric_ports >$scratch/before
    pingpong 0 1 1 -s 65536 -n 400 & player=$!
    vm_until 10 moves 0 1 1000000 && rail_silent 0 1 && sleep 0.3 && one=$(received 1 1) && sleep 0.5 && two=$(received 1 1) &&
        want "bytes that came in silence" $((two - one)) == 0 && [ "$(port_state 0 1)" = ACTIVE ] || { rail_heal 0 1; return 1; }
    rail_heal 0 1
    wait $player && want "bytes that came at last" "$(received 1 1)" ">" $((two + 10000000))
}
# Trouble comes when a host has sent so many bytes on a rail, and goes when it has sent so many more on all rails together.
once() { # HOST RAIL BYTES COMMAND...
    local host=$1 rail=$2 bytes=$3
    shift 3
    vm_until "$limit_s" moves "$host" "$rail" "$bytes" || { echo "h${host}r$rail did not send $bytes bytes, so this was not done: $*"; return 1; }
    "$@"
}
further() { # HOST BYTES COMMAND...
    local host=$1 more=$2 bytes
    shift 2
    bytes=$(($(sent_by "$host") + more))
    vm_until "$limit_s" has_sent "$host" "$bytes" || { echo "host $host did not send $more bytes more, so this was not done: $*"; return 1; }
    "$@"
}
sent_by() { ports_since $scratch/before | awk -v h="$1" '$1 == h { n += $3 } END { printf "%.0f\n", n }'; }
has_sent() { [ "$(sent_by "$1")" -ge "$2" ]; }
lost_some() { want "packets that were lost" "$(rail_lost "$1" 0) + $(rail_lost "$1" 1)" ">" 0; } # HOST
moves() { [ "$(ports_since $scratch/before | awk -v h="$1" -v r="$2" '$1 == h && $2 == r { print $3 }')" -gt "$3" ]; }
received() { ports_since $scratch/before | awk -v h="$1" -v r="$2" '$1 == h && $2 == r { print $4 }'; }

again() { echo $(($(rxe_counter 1 3 out_of_seq_request) + $(rxe_counter 0 3 completer_retry_err) + $(rxe_counter 1 3 completer_retry_err) + $(rxe_counter 1 3 duplicate_request))); }
# It is well again before the end: the last acknowledgement may be lost when its sender has gone, and rxe asks for it for ever.
lossy() {
    local player before
    before=$(again)
    fabric_ports >$scratch/before
    rail_loss 0 3 1 && { pingpong 0 1 3 -s 262144 -n 60 & player=$!; }
    vm_until 20 moves 0 3 8000000 || { rail_heal 0 3; return 1; }
    rail_heal 0 3
    wait $player && want "sent again, or asked for" $(($(again) - before)) ">" 0
}

# ---- collectives ----

each_device() { local d; for d in /sys/class/infiniband/*; do cat "$d/ports/1/$1" || return 1; done; }
rdma_packets() { each_device hw_counters/sent_pkts | awk '{ n += $1 } END { print n + 0 }'; }
cm_messages() { cat /sys/class/infiniband/*/ports/1/cm_tx_msgs/rep | awk '{ n += $1 } END { print n + 0 }'; }

# Since $scratch/before: data on every cable of HOSTS x RAILS (or, disturbed, on some cable of every host), on no other.
split_is_right() { # HOSTS RAILS DISTURBED
    ports_since $scratch/before >$scratch/since
    awk -v hosts="$1" -v rails="$2" -v disturbed="$3" '
        { mine = $1 < hosts && $2 < rails; total += $3; host[$1] += $3 }
        mine && !disturbed && $3 < 65536 { print "carried nothing: " $0; bad = 1 }
        !mine && $3 + $4 > 65536 { print "is not meant to carry: " $0; bad = 1 }
        END { for (h = 0; h < hosts; h++) if (host[h] < 65536) { print "host " h " sent nothing"; bad = 1 }
              printf "%.1f MB sent\n", total / 1e6; exit bad }' $scratch/since || { cat $scratch/since; return 1; }
}
# A receive that is not there when a message comes: the sender is told to try again.
ran_dry() { each_device hw_counters/send_rnr_err | awk '{ n += $1 } END { print n + 0 }'; }
# A segment is a packet of the MTU at most. Soft-RoCE counts packets alone, those that only acknowledge like others.
wire_is_right() { # WIRE SENT-BYTES RDMA-PACKETS MESSAGES TCP-SEGMENTS
    local tcp="$5 * $fabric_mtu"
    case $1 in
    tcp) want "RDMA packets" "$3" == 0 ;;
    verbs) want "bytes of TCP" "$tcp" "<" "0.1 * $2" && want "RDMA packets" "$3" ">" 0 && want "messages of the connection manager" "$4" == 0 ;;
    cm) want "bytes of TCP" "$tcp" "<" "0.1 * $2" && want "RDMA packets" "$3" ">" 0 && want "messages of the connection manager" "$4" ">" 0 ;;
    *) echo "no such wire: $1"; return 1 ;;
    esac
}
tcp_segments() { awk '$1 == "Tcp:" && $12 ~ /^[0-9]+$/ { print $12 }' /proc/net/snmp; }
# Of every rail: what its ports have sent by RDMA its ports have received, so none of it has left its rail. A fiftieth may be on
# its way when we look, or came to a queue pair that was closed; where there was trouble nothing is asked.
same_rail() { # FILE: each_port rail_packets, as it was before
    each_port rail_packets | awk '
        NR == FNR { sent[$2] -= $3; received[$2] -= $4; next }
        { sent[$2] += $3; received[$2] += $4 }
        END { for (r in sent) { gap = sent[r] - received[r]; all += sent[r]
                  if (gap > sent[r] / 50 + 256 || gap < -sent[r] / 50 - 256) { print "rail " r ": " sent[r] " packets sent, " received[r] " received"; bad = 1 } }
              print all " RDMA packets, each rail received what it sent"; exit bad }' "$1" -
}
rail_packets() { echo "$1 $2 $(rxe_counter "$1" "$2" sent_pkts) $(rxe_counter "$1" "$2" rcvd_pkts)"; } # HOST RAIL
collective() { run_row "${collectives[$1]}"; }
run_row() { # ROW, of the table
    local name hosts rails slots wire environment meanwhile program lo packets messages segments dry trouble="" status sent start=${EPOCHREALTIME/./}
    IFS='|' read -r name hosts rails slots wire environment meanwhile program <<<"$1"
    fabric_wait || return 1
    lo=$(fabric_lo) packets=$(rdma_packets) messages=$(cm_messages) segments=$(tcp_segments) dry=$(ran_dry)
    fabric_ports >$scratch/before
    each_port rail_packets >$scratch/rails
    [ -z "$meanwhile" ] || { eval "$meanwhile" & trouble=$!; }
    # shellcheck disable=SC2086
    ([ -z "$environment" ] || export $environment; RAIL_LIMIT_S=$limit_s vm_ranks "$hosts" "$rails" "$slots" "${BUILD:-build}/bin/"$program) >$scratch/ranks 2>&1
    status=$?
    cat $scratch/ranks
    [ -z "$trouble" ] || ! kill -0 $trouble 2>/dev/null || { echo "was over before its trouble was"; status=1; kill $trouble; }
    [ -z "$trouble" ] || wait $trouble || status=1
    [ -z "$trouble" ] || [ $status -eq 0 ] || { each_port rail_heal; each_port cable_up; } # the next case finds all well
    [ $status -eq 0 ] && split_is_right "$hosts" "$rails" "${meanwhile:+1}" && sent=$(awk '{ n += $3 } END { printf "%.0f\n", n }' $scratch/since) &&
        want "bytes on lo" $(($(fabric_lo) - lo)) "<" "0.1 * $sent" &&
        wire_is_right "$wire" "$sent" $(($(rdma_packets) - packets)) $(($(cm_messages) - messages)) $(($(tcp_segments) - segments)) &&
        { [ -n "$meanwhile" ] || same_rail $scratch/rails; } && want "receives that were not there" $(($(ran_dry) - dry)) == 0 || return 1
    echo "$(((${EPOCHREALTIME/./} - start) / 1000)) ms, $((sent / 1000000)) MB sent: $(awk '$2 > 0 && $3 ~ /float/ { print $1 " B in " $6 " us" }' <(sed 's/^\[[0-9]*\] //' $scratch/ranks) | tail -n 1)"
}

# ---- what 64 MiB cost, and by which routes they went ----

# Writes with immediate as the kernel counts them at their receivers; all work requests as the library counts them. What is more
# of these are questions, each with a completion, whether all before has arrived: after 20 ms without news, so there are the more
# the busier the machine is.
receives() { each_device hw_counters/rdma_recvs | awk '{ n += $1 } END { print n + 0 }'; }
budget() {
    local mib
    run_row "|2|4|1|verbs|$logged||all_reduce_perf -b 64M -e 64M -n 1 -w 0" && take_log || return 1
    mib=$(awk '{ n += $3 } END { print n / 1048576 }' $scratch/since)
    awk -v mib="$mib" '
        / took [0-9]+ work requests/ { for (i = 1; i < NF; i++) { if ($i == "took") all += $(i + 1); if ($i == "far,") some += $(i + 1) } }
        END { printf "%.1f work requests per MiB, one in %.1f asks for a completion\n", all / mib, some ? all / some : 0
              exit !(some > 0 && all / mib <= 40 && some <= all / 4) }' $scratch/log ||
        { grep 'work requests' $scratch/log; return 1; }
}
logged="NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=NET NCCL_DEBUG_FILE=$scratch/log.%p"
take_log() { cat $scratch/log.* >$scratch/log && rm -f $scratch/log.*; }
# The log's "lane 0 up: rail 0 (h0r0, RDMA) ... UDP source port 54508" beside the flows that the switch has seen: HOST RAIL PORT.
# A lane that was lost comes back with another one, on a busy machine.
routes() {
    flows_begin || return 1
    run_row "|2|2|1|verbs|$logged NCCL_IB_QPS_PER_CONNECTION=4||all_reduce_perf -b 1M -e 1M -n 2" || { flows_end; return 1; }
    flows_end >$scratch/flows && take_log || return 1
    sed -n 's/.*lane [0-9]* up: rail [0-9]* (h\([0-9]*\)r\([0-9]*\), RDMA).*UDP source port \([0-9]*\).*/\1 \2 \3/p' $scratch/log | sort >$scratch/planned
    awk '$1 != "lost" && $6 > 0 { print $1, $2, $3 }' $scratch/flows | sort -u >$scratch/seen
    want "lanes" "$(wc -l <$scratch/planned)" == 16 && want "ports that are another lane's, too" "$(uniq -d $scratch/planned | wc -l)" == 0 &&
        want "planned, and not seen" "$(comm -23 $scratch/planned $scratch/seen | wc -l)" == 0 &&
        want "seen, and not planned" "$(comm -13 $scratch/planned $scratch/seen | wc -l)" "<=" "$(grep -c 'lane [0-9]* is back: ' $scratch/log)" &&
        echo "all 16 seen: $(cut -d' ' -f3 $scratch/planned | sort -u | paste -sd' ')" ||
        { cat $scratch/flows; grep ' up: ' $scratch/log; return 1; }
}

# ---- every operation ----

conforms() { # PLACEMENT, of tests/conformance, RAILS WIRE RANKS; a seed from the clock, which is printed
    local h packets lo dry sent messages start=$SECONDS
    packets=$(rdma_packets) lo=$(fabric_lo) dry=$(ran_dry) messages=$(cm_messages)
    fabric_wait || return 1
    fabric_ports >$scratch/before
    each_port rail_packets >$scratch/rails
    for ((h = 0; h < fabric_hosts; h++)); do export "TEST_HOST_$h=NCCL_IB_HCA=$(vm_names rx_ _ $h "$2") NCCL_SOCKET_IFNAME=$(vm_names h r $h "$2")"; done
    CMOCKA_MESSAGE_OUTPUT=TAP NCCL_NET=IB TEST_RANKS_MOST=$4 RAILCCL_IB_CM=$([ "$3" = cm ] && echo 1 || echo 0) timeout $((2 * limit_s)) "${BUILD:-build}/tests/conformance/test_conformance" "${1//\*/?}" >$scratch/conformance 2>&1 ||
        { cat $scratch/conformance; return 1; }
    grep -h seed $scratch/conformance
    ports_since $scratch/before >$scratch/since
    sent=$(awk '{ n += $3 } END { printf "%.0f\n", n }' $scratch/since)
    want "jobs that ran" "$(grep -c '^ok 1' $scratch/conformance)" == 1 && want "packets by RDMA" $(($(rdma_packets) - packets)) ">" 4000 && same_rail $scratch/rails &&
        want "bytes on lo" $(($(fabric_lo) - lo)) "<" "0.1 * $sent" && want "receives that were not there" $(($(ran_dry) - dry)) == 0 &&
        want "messages of librdmacm" $(($(cm_messages) - messages)) "$([ "$3" = cm ] && echo ">" || echo ==)" 0 && split_is_right "$(hosts_of "$1")" "$2" 1 &&
        echo "$((SECONDS - start)) s"
}
hosts_of() { case $1 in two*) echo 2 ;; *) echo 3 ;; esac; }
