#!/usr/bin/env bash
# `railccl doctor`: a healthy machine laid out as files, and then one thing after another goes wrong with it: each gives one
# finding and its exit status, nothing else is said. Two hosts against one another. A host without RDMA. Bad input.
. tests/support/tap.sh
bin=$BUILD/bin/railccl
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

doctor() { timeout 30 "$bin" doctor "$@" >"$dir/out" 2>"$dir/err"; }
says() { grep -qE -- "$1" "$dir/out" || { echo "no \"$1\" in:"; cat "$dir/out" "$dir/err"; return 1; }; }

# --- a machine: 2 NUMA nodes, each with a GPU and a NIC behind a bridge; RoCE v2 over IPv4 on 10.77.0.0/24 and 10.77.1.0/24
lay() { # FILE TEXT
    local file=$root/$1
    [ -d "${file%/*}" ] || mkdir -p "${file%/*}"
    printf '%s\n' "$2" >"$file"
}
pci() { # FOLDER CLASS VENDOR DEVICE NUMA
    lay "sys/devices/$1/class" "$2"; lay "sys/devices/$1/vendor" "$3"; lay "sys/devices/$1/device" "$4"; lay "sys/devices/$1/numa_node" "$5"
    head -c 4096 /dev/zero >"$root/sys/devices/$1/config"
    mkdir -p "$root/sys/bus/pci/devices" && ln -s "../../../devices/$1" "$root/sys/bus/pci/devices/${1##*/}"
}
gid() { # PORT INDEX TYPE GID
    lay "$1/gids/$2" "$4"; lay "$1/gid_attrs/types/$2" "$3"
}
nic() { # NUMBER
    local bus=pci0000:${1}0/0000:${1}0:01.0/0000:${1}1:00.0 port i
    pci "${bus%/*}" 0x060400 0x8086 0x1234 "$1"
    pci "$bus" 0x020000 0x15b3 0x1021 "$1"
    mkdir -p "$root/sys/class/infiniband" "$root/sys/class/net" "$root/sys/devices/$bus/infiniband/mlx5_$1" "$root/sys/devices/$bus/net/ens$1"
    ln -s ../.. "$root/sys/devices/$bus/infiniband/mlx5_$1/device"
    ln -s "../../devices/$bus/infiniband/mlx5_$1" "$root/sys/class/infiniband/mlx5_$1"
    ln -s "../../devices/$bus/net/ens$1" "$root/sys/class/net/ens$1"
    lay "sys/class/net/ens$1/mtu" 9000; lay "sys/class/net/ens$1/dev_port" 0
    lay "sys/devices/$bus/iommu_group/type" identity
    port=sys/class/infiniband/mlx5_$1/ports/1
    lay $port/state "4: ACTIVE"; lay $port/phys_state "5: LinkUp"; lay $port/link_layer Ethernet; lay $port/rate "400 Gb/sec (4X NDR)"
    lay $port/lid 0x0; lay $port/sm_lid 0x0; lay $port/gid_attrs/ndevs/0 "ens$1"
    gid $port 0 "IB/RoCE v1" "fe80:0000:0000:0000:0000:00ff:fe00:000$1"; gid $port 1 "RoCE v2" "fe80:0000:0000:0000:0000:00ff:fe00:000$1"
    gid $port 2 "IB/RoCE v1" "0000:0000:0000:0000:0000:ffff:0a4d:0${1}01"; gid $port 3 "RoCE v2" "0000:0000:0000:0000:0000:ffff:0a4d:0${1}01"
    for i in 4 5 6 7; do gid $port $i "IB/RoCE v1" 0000:0000:0000:0000:0000:0000:0000:0000; done
    lay $port/counters/link_downed 0; lay $port/counters/symbol_error 0; lay $port/hw_counters/out_of_sequence 0
    lay "sys/class/infiniband_verbs/uverbs$1/ibdev" "mlx5_$1"; lay "dev/infiniband/uverbs$1" ""; chmod 666 "$root/dev/infiniband/uverbs$1"
}
healthy() { # laid out once, and copied
    [ -d "$dir/well" ] || { root=$dir/well && mkdir "$root" && chmod 755 "$dir" && lay_out; }
    root=$dir/root
    rm -rf "$root" && cp -a "$dir/well" "$root"
}
lay_out() {
    local n
    for n in 0 1; do
        nic $n
        pci pci0000:${n}0/0000:${n}0:02.0/0000:${n}2:00.0 0x030200 0x10de 0x2330 $n
        lay sys/devices/system/node/node$n/cpulist "$((8 * n))-$((8 * n + 7))"
    done
    for n in ib_uverbs rdma_ucm mlx5_ib nvidia nvidia_peermem; do mkdir -p "$root/sys/module/$n"; done
    lay dev/infiniband/rdma_cm ""
    lay proc/sys/kernel/hostname node7; lay proc/sys/kernel/osrelease 6.1.0; lay proc/cmdline "BOOT_IMAGE=/vmlinuz root=/dev/sda1 iommu=pt quiet"
    lay proc/self/status "Name:	railccl
CapEff:	0000000000000000
Cpus_allowed_list:	0-15"
    limits unlimited 1048576
    lay proc/net/route "Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
ens0	00000000	01004D0A	0003	0	0	0	00000000	0	0	0
ens0	00004D0A	00000000	0001	0	0	0	00FFFFFF	0	0	0
ens1	00014D0A	00000000	0001	0	0	0	00FFFFFF	0	0	0"
    lay proc/meminfo "MemTotal:       528000000 kB"
    lay proc/self/cgroup "0::/job/step"
    lay sys/fs/cgroup/cpu.max "max 100000"; lay sys/fs/cgroup/memory.max max
    lay proc/self/mounts "tmpfs /dev/shm tmpfs rw,nosuid 0 0"
    lay sys/kernel/mm/transparent_hugepage/enabled "always [madvise] never"
    lay proc/kallsyms "0000000000000000 T ib_umem_get	[ib_uverbs]"
}
limits() { # MEMLOCK FILES
    lay proc/self/limits "$(printf '%-26s%-21s%-21s%-10s\n' Limit "Soft Limit" "Hard Limit" Units "Max open files" "$2" "$2" files "Max locked memory" "$1" unlimited bytes)"
}
p0=sys/class/infiniband/mlx5_0/ports/1 p1=sys/class/infiniband/mlx5_1/ports/1

is_well() { healthy && doctor --root "$root" && says "^node7: 2 RDMA ports, 2 active; 2 GPUs; kernel 6.1.0" &&
    says "mlx5_0:1 +ACTIVE +RoCE +400 Gbit/s  ens0 MTU 9000 \(RDMA 4096\)  GID 3 ::ffff:10.77.0.1 in 10.77.0.0/24  NUMA 0" && says "^0 errors, 0 warnings, 0 notes: exit status 0"; }

# What goes wrong: finding | severity | exit status | words | what is done to the machine
down() { lay $p1/state "1: DOWN"; lay $p1/phys_state "3: Disabled"; }
no_manager() { lay $p1/state "2: INIT"; lay $p1/link_layer InfiniBand; }
empty_gids() { rm "$root"/$p0/gids/*; }
v1_only() { rm "$root"/$p0/gids/[13]; }
link_local() { rm "$root"/$p0/gids/[23]; }
only_v6() { rm "$root"/$p0/gids/2; gid $p0 2 "RoCE v2" fd00:0000:0000:0000:0000:0000:0000:0001; rm "$root"/$p0/gids/3; }
gap() { gid $p0 4 "RoCE v2" 0000:0000:0000:0000:0000:ffff:0a4d:0009; lay $p0/gids/2 0000:0000:0000:0000:0000:0000:0000:0000; }
small_mtu() { lay sys/class/net/ens0/mtu 1500; lay sys/class/net/ens1/mtu 1500; }
other_mtu() { lay sys/class/net/ens1/mtu 4200; }
slow() { lay $p1/rate "100 Gb/sec (4X EDR)"; }
other_layer() { lay $p1/link_layer InfiniBand; }
no_file() { rm "$root/dev/infiniband/uverbs1"; }
owner_only() { chmod 660 "$root/dev/infiniband/uverbs1"; }
no_uverbs() { rm -r "$root/sys/class/infiniband_verbs/uverbs1"; }
unload() { rm -r "$root/sys/module/$1"; }
no_peermem() { unload nvidia_peermem; }
dmabuf() { unload nvidia_peermem; lay proc/kallsyms "0000000000000000 T ib_umem_dmabuf_get	[ib_uverbs]"; lay proc/driver/nvidia/version "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54"; }
closed() { dmabuf; lay proc/driver/nvidia/version "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54"; }
acs() { # at 0x100: advanced errors (1), next 0x148; there: ACS (13), control word 0x1d
    printf '\x01\x00\x81\x14' | dd of="$root/sys/devices/pci0000:10/0000:10:01.0/config" bs=1 seek=256 conv=notrunc status=none
    printf '\x0d\x00\x01\x00\x00\x00\x1d\x00' | dd of="$root/sys/devices/pci0000:10/0000:10:01.0/config" bs=1 seek=328 conv=notrunc status=none
}
no_acs() { acs; printf '\x00' | dd of="$root/sys/devices/pci0000:10/0000:10:01.0/config" bs=1 seek=334 conv=notrunc status=none; }
short_config() { head -c 64 /dev/zero >"$root/sys/devices/pci0000:10/0000:10:01.0/config"; }
iommu() { lay sys/devices/pci0000:10/0000:10:01.0/0000:11:00.0/iommu_group/type DMA-FQ; lay proc/cmdline "quiet intel_iommu=on"; }
far() { lay proc/self/status "Cpus_allowed_list:	0-3,5"; }
no_numa() { lay sys/devices/pci0000:10/0000:10:01.0/0000:11:00.0/numa_node -1; }
root_limit() { limits 65536 65536; lay proc/self/status "CapEff:	000001ffffffffff
Cpus_allowed_list:	0-15"; }
quota() { lay sys/fs/cgroup/job/cpu.max "250000 100000"; lay sys/fs/cgroup/job/step/cpu.max "400000 100000"; }
old_quota() { lay sys/fs/cgroup/cpu/cpu.cfs_quota_us 50000; lay sys/fs/cgroup/cpu/cpu.cfs_period_us 100000; }
shm() { lay proc/self/mounts "shm /dev/shm tmpfs rw,nosuid,size=65536k 0 0"; }
no_huge() { lay sys/kernel/mm/transparent_hugepage/enabled "always madvise [never]"; }
extra_nic() { pci pci0000:00/0000:00:07.0 0x020000 0x14e4 0x16d7 0; }
yama=proc/sys/kernel/yama/ptrace_scope
all_read() { lay $yama 2; lay proc/self/status "CapEff:	0000000000080000
Cpus_allowed_list:	0-15"; }
nobody_reads() { all_read; lay $yama 3; }
wrong=(
    "port-down|error|3|mlx5_1:1: .*down \(state DOWN, Disabled\)|down"
    "port-no-subnet-manager|error|3|subnet manager \(state INIT\)|no_manager"
    "gid-none|error|3|mlx5_0:1: the GID table is empty|empty_gids"
    "gid-v1-only|error|3|2 GIDs are RoCE v1|v1_only"
    "gid-unroutable|error|3|half filled: 1 RoCE v2 GIDs, all link-local|link_local"
    "gid-no-ipv4|warning|1|ens0 reaches 10.77.0.0/24, but no RoCE v2 GID|only_v6"
    "gid-hole|note|0|gap at index 2|gap"
    "mtu-small mtu-small|warning|1|ens0 has an MTU of 1500 bytes, so RDMA packets carry 1024|small_mtu"
    "mtu-differs|warning|1|mlx5_0 and mlx5_1: .* 9000 and 4200 bytes|other_mtu"
    "rate-differs|warning|1|400 and 100 Gbit/s|slow"
    "layer-differs|note|0|one is Ethernet, the other InfiniBand|other_layer"
    "dev-missing|error|3|/dev/infiniband/uverbs1 is not there|no_file"
    "dev-permission|warning|1|only its owner and group may open /dev/infiniband/uverbs1|owner_only"
    "verbs-none|error|3|mlx5_1:1: .*no uverbs device|no_uverbs"
    "module-uverbs|error|3|ib_uverbs is not loaded|unload ib_uverbs"
    "module-ucm|note|0|rdma_ucm is not loaded|unload rdma_ucm"
    "module-ucm|note|0|rdma_cm is not there|rm DIR/dev/infiniband/rdma_cm"
    "gpudirect-none|warning|1|neither nvidia_peermem nor dma-buf|no_peermem"
    "gpudirect-dmabuf|note|0|by dma-buf|dmabuf"
    "gpudirect-none|warning|1|through host memory|closed"
    "gpu-driver|note|0|2 GPUs and no NVIDIA driver|unload nvidia"
    "acs|warning|1|mlx5_1:1: the PCI bridge 0000:10:01.0|acs"
    "|||0 notes: exit status 0|no_acs"
    "acs-unseen|note|0|cannot be read by this user|short_config"
    "iommu|warning|1|group type DMA-FQ, intel_iommu=on|iommu"
    "numa-far|warning|1|mlx5_1:1: it is on NUMA node 1, of whose CPUs|far"
    "numa-unknown|note|0|has 2 NUMA nodes and does not tell|no_numa"
    "memlock|error|3|8 MiB may be locked|limits 8388608 65536"
    "memlock|warning|1|1024 MiB may be locked|limits 1073741824 65536"
    "memlock|note|0|by others than root|root_limit"
    "files|warning|1|1024 descriptors|limits unlimited 1024"
    "cpu-quota|warning|1|may use 2.5 CPUs' time and 16 CPUs|quota"
    "cpu-quota|warning|1|may use 0.5 CPUs' time|old_quota"
    "memory-limit|warning|1|may use 512 MiB|lay sys/fs/cgroup/job/step/memory.max 536870912"
    "shm|warning|1|/dev/shm has 64 MiB|shm"
    "hugepages|note|0|no huge pages|no_huge"
    "firewall|note|0|ufw filters|lay etc/ufw/ufw.conf ENABLED=yes"
    "firewall|note|0|nftables filters|lay sys/module/nf_tables/refcnt 3"
    "symbol-errors|warning|1|mlx5_0:1: 7 symbol errors|lay $p0/counters/symbol_error 7"
    "link-downs|note|0|went down 2 times|lay $p0/counters/link_downed 2"
    "resent|note|0|12 packets came out of order|lay $p0/hw_counters/out_of_sequence 12"
    "gave-up|note|0|3 requests were given up after all retries|lay $p0/hw_counters/req_transport_retries_exceeded 3"
    "no-receive|note|0|5 messages found no receive|lay $p0/hw_counters/rnr_nak_retry_err 5"
    "congestion|note|0|70 notices of congestion|lay $p0/hw_counters/np_cnp_sent 70"
    "peer-reads|warning|1|32 KiB on, are copied twice, .*ptrace_scope is 1: a process reads its descendants|lay $yama 1"
    "peer-reads|warning|1|ptrace_scope is 2: only who has CAP_SYS_PTRACE|lay $yama 2"
    "peer-reads|warning|1|ptrace_scope is 3: nobody|nobody_reads"
    "|||0 notes: exit status 0|lay $yama 0"
    "|||0 notes: exit status 0|all_read"
    "nic-idle|warning|1|0000:00:07.0 could be an RDMA device with driver bnxt_re|extra_nic"
)
goes_wrong() { # ROW
    local ids severity status words change found got
    IFS='|' read -r ids severity status words change <<<"$1"
    healthy
    ${change//DIR/$root} || return 1
    doctor --root "$root"
    got=$?
    found=$(sed -nE 's/^(error|warning|note) .*\[([a-z0-9-]*)\]$/\2/p' "$dir/out" | paste -sd' ')
    [ "$found" = "$ids" ] && [ $got -eq "${status:-0}" ] && says "^${severity:-0 errors}.*$words" &&
        [ "$(grep -c '^         remedy: ..' "$dir/out")" -eq "$(wc -w <<<"$ids")" ] ||
        { echo "status $got, findings '$found', wanted $status, '$ids':"; cat "$dir/out" "$dir/err"; return 1; }
}
each_goes_wrong() { local row; for row in "${wrong[@]}"; do goes_wrong "$row" || { echo "in: $row"; return 1; }; done; }
# As root a file's mode hinders nobody.
not_permitted() {
    healthy && owner_only && chmod -R a+rX "$dir" && chmod 660 "$root/dev/infiniband/uverbs1" || return 1
    timeout 30 setpriv --reuid 65534 --regid 65534 --clear-groups "$bin" doctor --root "$root" >"$dir/out" 2>"$dir/err"
    [ $? -eq 3 ] && says '^error +mlx5_1:1: this user may not open /dev/infiniband/uverbs1 \[dev-permission\]'
}
# As in a virtual machine: rxe names its interface in `parent`, and no PCI device is behind it.
software() {
    healthy && rm -r "$root/sys/class/infiniband" "$root"/sys/class/infiniband_verbs/* "$root"/sys/devices/pci*/*/*/infiniband && mkdir -p "$root/sys/class/net/veth0" && lay sys/class/net/veth0/mtu 4200 || return 1
    local port=sys/class/infiniband/rx0/ports/1
    lay sys/class/infiniband/rx0/parent veth0; lay $port/state "4: ACTIVE"; lay $port/link_layer Ethernet; lay $port/rate "10 Gb/sec (1X QDR)"
    gid $port 0 "RoCE v2" fe80:0000:0000:0000:0000:00ff:fe00:0001; gid $port 1 "RoCE v2" 0000:0000:0000:0000:0000:ffff:0a4d:0001
    lay sys/class/infiniband_verbs/uverbs0/ibdev rx0
    doctor --root "$root"
    [ $? -eq 1 ] && says 'rx0:1 +ACTIVE +RoCE +10 Gbit/s  veth0 MTU 4200 \(RDMA 4096\)  GID 1 ::ffff:10.77.0.1  software' &&
        says '^note +rx0: 1 of 1 ports are .*software device.*\[software-device\]' && says 'the NIC 0000:01:00.0 could be .*mlx5_ib .*\[nic-idle\]'
}
# The worst come first; ports beyond the 64 that are looked at are told.
all_at_once() {
    healthy; down; small_mtu; limits 65536 1024; no_peermem; gap
    doctor --root "$root"
    [ $? -eq 3 ] && [ "$(sed -nE 's/^(error|warning|note) .*/\1/p' "$dir/out" | uniq | paste -sd' ')" = "error warning note" ] || { cat "$dir/out"; return 1; }
    local n
    for n in $(seq 2 80); do cp -rs "$root/sys/class/infiniband/mlx5_0/" "$root/sys/class/infiniband/more_$n" || return 1; done
    doctor --root "$root"
    [ $? -eq 3 ] && says '17 more ports were not looked at'
}

without() { # no device, and why
    local status
    mkdir -p "$dir/bare/sys/class/infiniband" && root=$dir/bare
    doctor --root "$root"
    [ $? -eq 4 ] && says "no RDMA device: $dir/bare/sys/class/infiniband has none, on the PCI bus is no NIC .*ib_uverbs is not loaded" &&
        says 'remedy: none: railccl uses TCP' && says 'exit status 4' || return 1
    healthy; rm -r "$root/sys/class/infiniband" "$root"/sys/devices/pci*/*/*/infiniband
    doctor --root "$root"
    [ $? -eq 4 ] && says '^error .*though the NIC 0000:01:00.0 could be one with driver mlx5_ib' && says 'remedy: `modprobe mlx5_ib`' || return 1
    doctor
    status=$?
    if [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ]; then [ $status -ne 2 ]; else [ $status -eq 4 ] && says 'no RDMA device: /sys/class/infiniband has none'; fi
}

# What is tried is tried here: files of another machine say nothing of it.
tried() {
    healthy && doctor --root "$root" && ! says 'read one another' >/dev/null && doctor --root "$root" --json && ! says '"peer_read"' >/dev/null || return 1
    doctor
    if says '^  ranks of this host read one another.s buffers: one copy' >/dev/null; then ! says '\[peer-reads\]$' >/dev/null || return 1
    else says '^warning  .*\[peer-reads\]$' || return 1; fi
    doctor --json; says '"peer_read": [0-9]+'
}

# --- two hosts
write() { doctor --root "$root" --json; cp "$dir/out" "$dir/$1.json"; }
differ() { # STATUS WORDS CHANGE: the second host is the first one, changed
    healthy && write a && $3 && write b && doctor --compare "$dir/a.json" "$dir/b.json"
    local got=$?
    [ $got -eq "$1" ] && says "$2" && [ "$(grep -c '\[pair-' "$dir/out")" -eq "${4:-1}" ] || { echo "status $got, wanted $1"; cat "$dir/out" "$dir/err"; return 1; }
}
not_routable() { rm "$root"/$p0/gids/[23]; gid $p0 2 "RoCE v2" fd00:0000:0000:0000:0000:0000:0000:0001; gid $p0 3 "RoCE v2" fd00:0000:0000:0000:0000:0000:0000:0002; }
moved_gid() { gid $p0 2 "RoCE v2" 0000:0000:0000:0000:0000:ffff:0a4d:0001; gid $p0 3 "IB/RoCE v1" 0000:0000:0000:0000:0000:ffff:0a4d:0001; }
elsewhere() { sed -i 's/^ens1	00014D0A/ens1	00034D0A/' "$root/proc/net/route"; }
swapped() { sed -i 's/^ens1	00014D0A/ensX	00004D0A/; s/^ens0	00004D0A/ens0	00014D0A/; s/^ensX/ens1/' "$root/proc/net/route"; }
lost_gpu() { rm -r "$root/sys/bus/pci/devices/0000:02:00.0"; }
no_rdma() { rm -r "$root/sys/class/infiniband"; }
compares() {
    differ 0 '^0 errors, 0 warnings, 0 notes: exit status 0' true 0 && differ 1 'pair-ports' down && differ 3 'mlx5_1:1 and mlx5_1:1: one is Ethernet' other_layer &&
        differ 1 '400 and 100 Gbit/s \[pair-rate' slow && differ 1 'packets of 4096 and 1024 bytes \(interfaces: 9000 and 1500\)' small_mtu 2 &&
        differ 3 'no address family in common .*: IPv4, and IPv6' not_routable 2 && differ 0 'at index 3 and at index 2' moved_gid &&
        differ 1 'in 10.77.1.0/24 and 10.77.3.0/24' elsewhere && differ 0 'exit status 0' swapped 0 && differ 1 '2 and 1 GPUs' lost_gpu &&
        differ 1 'by nvidia_peermem and by host memory' no_peermem && differ 0 'different limits of locked' "limits 65536 65536" &&
        differ 0 'kernels 6.1.0 and 5.4.0' "lay proc/sys/kernel/osrelease 5.4.0" && differ 3 'has no RDMA device, node7 has' no_rdma || return 1
    sed 's/"version": "[0-9.]*"/"version": "0.0.1"/' "$dir/a.json" >"$dir/b.json"
    doctor --compare "$dir/a.json" "$dir/b.json"
    [ $? -eq 1 ] && says 'and 0.0.1 \[pair-version' || return 1
    healthy; no_rdma; write a; doctor --compare "$dir/a.json" "$dir/a.json"; [ $? -eq 4 ]
}
# What is written is read back as it was, and it is JSON.
round_trip() {
    healthy && write a && python3 - "$dir/a.json" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
f = d["facts"]
assert d["exit_status"] == 0 and d["findings"] == [] and f["memlock"] == "unlimited" and f["memory"] == 528000000 << 10 and f["gpus"] == 2, d
p = f["ports"][1]
assert (p["device"], p["mtu"], p["rdma_mtu"], p["gid_first"], p["gid"], p["subnet"], p["numa"], p["bus"]) == \
    ("mlx5_1", 9000, 4096, 3, "::ffff:10.77.1.1", "10.77.1.0/24", 1, "0000:11:00.0"), p
assert "gid_hole" not in p and "memory_limit" not in f, "what is not known is left out"
PY
}

bad() { # WORDS OPTION...
    local words=$1 status
    shift
    doctor "$@"; status=$?
    [ $status -eq 2 ] && grep -qE -- "$words" "$dir/err" || { echo "status $status"; cat "$dir/out" "$dir/err"; return 1; }
}
bad_input() {
    healthy && write a && head -c 700 "$dir/a.json" >"$dir/cut.json" && echo '{"doctor": 2, "facts": {}}' >"$dir/later.json" && echo '[]' >"$dir/list.json" &&
        head -c 5000000 /dev/zero >"$dir/big.json" && bad 'cut.json:[0-9]+: .*cut off' --compare "$dir/cut.json" "$dir/a.json" &&
        bad 'later.json: not what this version' --compare "$dir/a.json" "$dir/later.json" && bad 'list.json: not what' --compare "$dir/list.json" "$dir/a.json" &&
        bad 'big.json: .*at most' --compare "$dir/big.json" "$dir/a.json" && bad 'none.json: No such file' --compare "$dir/none.json" "$dir/a.json" &&
        bad 'takes two files' --compare "$dir/a.json" && bad 'takes two files' --compare --json "$dir/a.json" "$dir/a.json" && bad 'by --compare' stray &&
        bad 'no such option' --nonsense && bad 'is no folder' --root "$dir/none" && bad 'is no folder' --root "$dir/a.json" || return 1
    # Values of the wrong kind are not known.
    sed 's/"mtu": 9000/"mtu": "much"/; s/"gid_first": 3/"gid_first": 1e300/; s/"device": "mlx5_0"/"device": 7/' "$dir/a.json" >"$dir/odd.json"
    doctor --compare "$dir/a.json" "$dir/odd.json" && says 'exit status 0'
}

tap_plan 10
tap_case "a healthy machine: no finding, exit status 0" is_well
tap_case "${#wrong[@]} things that go wrong: one finding each, with remedy and exit status" each_goes_wrong
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then tap_case "a device file that this user may not open" not_permitted
else tap_skip "a device file that this user may not open" "not root, or no setpriv"; fi
tap_case "a software device: its interface, and that it is one" software
tap_case "several findings: the worst first; more ports than are looked at" all_at_once
tap_case "no RDMA device: what was looked for, and the NIC that could be one" without
tap_case "whether ranks of this host read one another's memory is tried" tried
if command -v python3 >/dev/null; then tap_case "JSON: facts by name, what is not known left out" round_trip
else tap_skip "JSON: facts by name, what is not known left out" "python3 is not installed"; fi
tap_case "two hosts: what they do not agree on, ports met by subnet" compares
tap_case "bad input is named, exit status 2" bad_input
tap_end
