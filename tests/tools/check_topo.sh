#!/usr/bin/env bash
# `railccl topo`: a machine from NCCL's XML, from sysfs (a tree of files made here), from hwloc; as text, JSON, drawing and
# XML; two machines compared; bad input.
. tests/support/tap.sh
bin=$BUILD/bin/railccl
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
machines=tests/machines

topo() { timeout 60 "$bin" topo "$@" >"$dir/out" 2>"$dir/err"; }
says() { grep -qE -- "$1" "$dir/out" || { echo "no \"$1\" in:"; cat "$dir/out" "$dir/err"; return 1; }; }

# --- a machine in sysfs: two sockets, each a switch with a GPU and a NIC, socket 1's NIC with bonded ports; a board's
# graphics chip, a management port that is down, a virtual function, loopback
root=$dir/root
device() { # FOLDER CLASS VENDOR NUMA SPEED WIDTH MAXSPEED MAXWIDTH
    local path=$root/sys/devices/$1
    mkdir -p "$path" "$root/sys/bus/pci/devices"
    echo "$2" >"$path/class"; echo "$3" >"$path/vendor"; echo 0x1234 >"$path/device"; echo "$4" >"$path/numa_node"
    [ -z "$5" ] || { echo "$5 GT/s PCIe" >"$path/current_link_speed"; echo "$6" >"$path/current_link_width"
                     echo "$7 GT/s PCIe" >"$path/max_link_speed"; echo "$8" >"$path/max_link_width"; }
    ln -s "../../../devices/$1" "$root/sys/bus/pci/devices/${1##*/}"
}
interface() { # NAME PCI-FOLDER STATE SPEED MTU
    local path=$root/sys/devices/$2/net/$1
    mkdir -p "$path" "$root/sys/class/net"
    echo "$3" >"$path/operstate"; echo "$4" >"$path/speed"; echo "$5" >"$path/mtu"; echo 1 >"$path/type"
    ln -s ../.. "$path/device"
    ln -s "../../devices/$2/net/$1" "$root/sys/class/net/$1"
}
verbs() { # NAME PCI-FOLDER RATE STATE [ADDRESS]: with link-local addresses, that one, and an empty entry
    local path=$root/sys/devices/$2/infiniband/$1
    mkdir -p "$path/ports/1" "$root/sys/class/infiniband"
    echo "$3" >"$path/ports/1/rate"; echo "$4" >"$path/ports/1/state"; echo Ethernet >"$path/ports/1/link_layer"
    echo b859:9f03:00ab:cdef >"$path/node_guid"
    mkdir -p "$path/ports/1/gids" "$path/ports/1/gid_attrs/types"
    local i=0 gid
    for gid in "RoCE v1 fe80:0000:0000:0000:ba59:9fff:feab:cdef" "RoCE v2 fe80:0000:0000:0000:ba59:9fff:feab:cdef" ${5:+"RoCE v2 $5"} \
        "IB/RoCE v1 0000:0000:0000:0000:0000:0000:0000:0000"; do
        echo "${gid##* }" >"$path/ports/1/gids/$i"; echo "${gid% *}" >"$path/ports/1/gid_attrs/types/$i"; i=$((i + 1))
    done
    ln -s ../.. "$path/device"
    ln -s "../../devices/$2/infiniband/$1" "$root/sys/class/infiniband/$1"
}
make_root() {
    local n
    for n in 0 1; do
        mkdir -p "$root/sys/devices/system/node/node$n" "$root/sys/devices/system/cpu/cpu$((8 * n))/topology"
        echo "$((8 * n))-$((8 * n + 7))" >"$root/sys/devices/system/node/node$n/cpulist"
        echo $n >"$root/sys/devices/system/cpu/cpu$((8 * n))/topology/physical_package_id"
        local port=pci0000:${n}0/0000:${n}0:01.0
        device "$port" 0x060400 0x8086 $n 32.0 16 32.0 16
        device "$port/0000:${n}1:00.0" 0x060400 0x1000 $n 32.0 16 32.0 16
        device "$port/0000:${n}1:00.0/0000:${n}2:00.0" 0x060400 0x1000 $n 32.0 16 32.0 16
        device "$port/0000:${n}1:00.0/0000:${n}2:00.0/0000:${n}3:00.0" 0x030200 0x10de $n 2.5 16 32.0 16
        device "$port/0000:${n}1:00.0/0000:${n}2:04.0" 0x060400 0x1000 $n 32.0 16 32.0 16
        nic[n]="$port/0000:${n}1:00.0/0000:${n}2:04.0/0000:${n}5:00.0"
        device "${nic[n]}" 0x020000 0x15b3 $n 32.0 $((16 - 8 * n)) 32.0 16
    done
    mkdir -p "$root/sys/devices/system/node/node2"; echo >"$root/sys/devices/system/node/node2/cpulist" # memory alone
    verbs mlx5_0 "${nic[0]}" "400 Gb/sec (4X NDR)" "4: ACTIVE" 0000:0000:0000:0000:0000:ffff:0a4d:0001
    interface ens1 "${nic[0]}" up 400000 4200
    verbs mlx5_bond_0 "${nic[1]}" "400 Gb/sec (4X NDR)" "4: ACTIVE"
    interface ens2f0 "${nic[1]}" up 200000 9000
    device pci0000:00/0000:00:1c.0 0x030000 0x1a03 0 "" "" "" ""
    device pci0000:00/0000:00:1d.0 0x020000 0x8086 0 5.0 4 5.0 4
    interface eno1 pci0000:00/0000:00:1d.0 down -1 1500
    device pci0000:00/0000:00:1e.0 0x020000 0x15b3 0 "" "" "" ""
    interface vf0 pci0000:00/0000:00:1e.0 up 400000 1500
    ln -s ../0000:00:1d.0 "$root/sys/devices/pci0000:00/0000:00:1e.0/physfn"
    mkdir -p "$root/sys/module/nvidia" "$root/sys/bus/pci/devices/0000:03:00.0/iommu_group"
    echo DMA-FQ >"$root/sys/bus/pci/devices/0000:03:00.0/iommu_group/type"
    mkdir -p "$root/sys/devices/virtual/net/lo"; ln -s ../../devices/virtual/net/lo "$root/sys/class/net/lo"
    mkdir -p "$root/proc"
    printf 'processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n\n' >"$root/proc/cpuinfo"
}
declare -a nic
make_root

# NVML as $dir/nvml.txt has it (tests/topo/fake_nvml.c).
fake_nvml() { ${CC:-cc} -std=c11 -shared -fPIC -o "$dir/libfake-nvml.so" tests/topo/fake_nvml.c; }
nvml() { # LINE...: what NVML says of the machine above
    printf '%s\n' "$@" >"$dir/nvml.txt"
    FAKE_NVML=$dir/nvml.txt RAILCCL_NVML_LIB=$dir/libfake-nvml.so topo --root "$root"
}
two_gpus=("gpu 00000000:13:00.0 5 9 0" "gpu 00000000:03:00.0 4 9 0")
nvml_links() {
    fake_nvml && nvml "${two_gpus[@]}" "link 0 0 up gpu 00000000:03:00.0" "link 0 1 up gpu 00000000:03:00.0" "link 0 2 down gpu -" \
        "link 1 0 up gpu 00000000:13:00.0" "link 1 1 up gpu 00000000:13:00.0" || return 1
    says 'GPU GPU 0 0000:13:00.0, compute capability 9.0, /dev/nvidia5' && says "driver's number 1  \[NVML: the driver\]" &&
        says 'NVLink to GPU 1 x 2, 41.2 GB/s' && says 'GPU 0 .*0000:13:00.0 .*mlx5_bond_0 .*PIX' &&
        nvml "${two_gpus[@]}" "link 0 0 up switch -" "link 0 1 up switch -" "link 1 0 up switch -" "c2c 0 10 45000" &&
        says 'NVLink to NVSwitch x 2' && says 'NVSwitch NVSwitch  \[NVML' && says 'C2C to NUMA 1 x 10, 450.0 GB/s  \[NVML' &&
        nvml "${two_gpus[@]}" "without nvmlDeviceGetNvLinkRemoteDeviceType" "link 0 0 up gpu 00000000:03:00.0" && says 'NVLink to GPU 1 x 1'
}
nvml_refuses() {
    local call
    nvml "fail nvmlInit_v2 9" && says 'NVML: nvmlInit of the driver: fake error 9 \(9\)' && nvml "fail nvmlDeviceGetCount_v2 3" && says 'nvmlDeviceGetCount' &&
        nvml "count 4000000000" && says 'tells of 4000000000 GPUs' || return 1
    for call in HandleByIndex_v2:HandleByIndex PciInfo_v3:PciInfo CudaComputeCapability:CudaComputeCapability NvLinkState:NvLinkState \
        NvLinkRemotePciInfo_v2:NvLinkRemotePciInfo; do
        nvml "${two_gpus[@]}" "fail nvmlDeviceGet${call%:*} 999" "link 0 0 up gpu 00000000:03:00.0" && says "NVML: nvmlDeviceGet${call#*:} of .*\(999\)" || return 1
    done
    nvml "${two_gpus[@]}" "fail nvmlDeviceGetMinorNumber 3" "fail nvmlDeviceGetFieldValues 3" "c2c 0 1 1" && says 'compute capability 9.0'
}
nvml_lies() {
    nvml "gpu 00000000:77:00.0 0 9 0" "${two_gpus[@]}" "${two_gpus[0]}" "gpu nonsense 1 9 0" "gpu 00000000:05:00.0 1 9 0" \
        "link 1 0 up gpu 00000000:aa:00.0" "link 1 1 up cpu 00000000:00:00.0" "link 1 2 up unknown 00000000:05:00.0" "link 1 3 up gpu 00000000:13:00.0" \
        "link 1 4 up gpu nonsense" "c2c 2 4000000000 5" || return 1
    says 'device 0 is 0000:77:00.0, of which sysfs knows no GPU' && says 'device 3 is 0000:13:00.0, as another one is' && says 'device 4 has no bus number' &&
        says 'link 0 leads to a GPU 0000:aa:00.0, which is not known here' && says 'link 1 leads to a CPU' && says 'link 2 leads to something 0000:05' &&
        says 'link 3 leads to a GPU 0000:13:00.0' && says 'link 4 leads to a device without a bus number' && says '4000000000 C2C links' &&
        nvml "gpu 00000000:13:00.0 1 -3 700" && says 'capability -3.700, which none has'
}
no_nvml() {
    RAILCCL_NVML_LIB=$dir/none.so NCCL_DEBUG=INFO topo --root "$root" && says 'INFO NVML is not asked: .*none.so: cannot open' && says 'note .*NVLinks, C2C and the driver' &&
        RAILCCL_NVML_LIB=libc.so.6 topo --root "$root" && says 'libc.so.6 has no nvmlInit_v2' && RAILCCL_NVML_LIB=0 topo --root "$root" && ! says 'NVML' >/dev/null
}

answers() { local m; for m in "$machines"/*.xml; do
    topo --brief --paths --file "$m" || return 1
    sed "1s/^${m##*/}: //" "$dir/out" | diff - "${m%.xml}.txt" || return 1
done; }
from_sysfs() {
    topo --root "$root" && says '2 NUMA nodes, 2 PCI switches, 2 GPUs, 4 NICs with 4 ports' &&
        says 'GPU 0 .*0000:03:00.0 .*mlx5_0 .*rail 0 .*PIX .*48.0 GB/s' &&
        says 'GPU 1 .*0000:13:00.0 .*mlx5_bond_0 .*rail 1 .*PIX .*24.0 GB/s' && says 'rail 1 .*400 Gbit/s .*bond of 2 ports' &&
        says 'SYS to NUMA 1, 22.0 GB/s .*Sapphire' && says 'rate 400 Gbit/s .*infiniband/mlx5_0/ports/1/rate'
}
rdma_facts() {
    topo --root "$root" && says 'port mlx5_0, RoCE, GUID b8599f0300abcdef, interface ens1' && says 'RDMA MTU 4096 bytes .*derives' &&
        says 'GID 0 RoCE v1 fe80::ba59:9fff:feab:cdef  \[/sys/class/infiniband/mlx5_0/ports/1/gids' && says 'GID 2 RoCE v2 ::ffff:10.77.0.1' &&
        says 'mlx5_bond_0 has no RoCE v2 GID with an address .* ens2f0 an address' && [ "$(grep -c 'GID [0-9]' "$dir/out")" -eq 5 ] || return 1
    topo --root "$root" --json && grep -q '"gid": "RoCE v2 ::ffff:10.77.0.1"' "$dir/out" && grep -q '"link_layer": "Ethernet"' "$dir/out" || return 1
    mkdir -p "$dir/bare/sys/devices/system/node/node0" && echo 0-3 >"$dir/bare/sys/devices/system/node/node0/cpulist"
    topo --root "$dir/bare" --brief && says "no RDMA device: looked in $dir/bare/sys/class/infiniband"
}
what_is_wrong() {
    topo --root "$root" --check && { echo "--check saw nothing"; return 1; }
    says 'MTU: mlx5_0 has 4200 bytes, mlx5_bond_0 9000' && says 'runs at 32 GT/s x 8 and could do 32 GT/s x 16' &&
        says 'port eno1 is down' && says 'nvidia_peermem is not loaded' && says 'IOMMU translates .*DMA-FQ' && says 'vf0 is a virtual function' && says '1 port of 50.0 GB/s and a slot of 24.0'
}
sysfs_to_xml() {
    topo --root "$root" --xml && cp "$dir/out" "$dir/machine.xml" && topo --file "$dir/machine.xml" --xml &&
        diff "$dir/machine.xml" "$dir/out" && topo --file "$dir/machine.xml" && says 'GPU 1 .*mlx5_bond_0 .*rail 1 .*PIX'
}
itself() { topo && says 'NUMA node NUMA' && says '\[/sys/'; }
by_variable() { NCCL_TOPO_FILE=$machines/seven-of-eight.xml topo && says 'rail 3 is missing'; }
# What a cloud ships: places without what stands in them, which this machine's sysfs then tells.
places_only() {
    topo --xml && grep -vE '</?nic>|<net ' "$dir/out" >"$dir/places.xml" && topo --json && cp "$dir/out" "$dir/whole.json" || return 1
    NCCL_TOPO_FILE=$dir/places.xml topo --brief && says 'without <gpu> or <nic>' || return 1
    local name
    for name in $(python3 -c 'import json, sys
for r in json.load(open(sys.argv[1]))["hosts"][0]["rails"]: print(r["nic"])' "$dir/whole.json"); do says "^  rail .* $name " || return 1; done
}
levels() {
    NCCL_NET_GDR_LEVEL=SYS topo --file $machines/pcie-4gpu-1nic.xml --brief && [ "$(grep -c GPUDirect "$dir/out")" = 4 ] &&
        topo --file $machines/pcie-4gpu-1nic.xml --brief --gdr-level PHB && [ "$(grep -c 'GB/s  GPUDirect' "$dir/out")" = 2 ]
}
json() {
    local m
    for m in "$machines"/*.xml; do topo --json --file "$m" && cp "$dir/out" "$dir/${m##*/}.json" || return 1; done
    python3 - "$dir" "$machines"/*.xml <<'PY'
import json, os, sys
for xml in sys.argv[2:]:
    machine = json.load(open(os.path.join(sys.argv[1], os.path.basename(xml) + ".json")))
    host = machine["hosts"][0]
    assert all(node["source"]["text"] for node in host["nodes"]), "a node without source"
    assert all(link["source"]["text"] and link["gb_per_s"] > 0 for link in host["links"]), "a link without source"
    text = open(xml[:-4] + ".txt").read()
    for b in host["gpus"]:
        assert "rail %-3u %s" % (b["rail"], b["class"]) in text and b["nic"] in text, b
PY
}
cat >"$dir/fabric" <<'END'
switch spine
switch podA podB under spine
switch leaf1 leaf2 under podA
switch leaf3 under podB
hosts  n[01-16] under leaf1
hosts  n[17-31],login under leaf2
hosts  m[001-004],m7 under leaf3
nic    n[01-31]:mlx5_0 rail 0
nic    n[01-30]:mlx5_1 rail 1
subnet 10.77.2.0/24 rail 2
END
fabric() {
    topo --file $machines/nvswitch-8gpu-8nic.xml --fabric "$dir/fabric" --host n03.cluster &&
        says 'GPU 1 -> mlx5_1 +-> rail 1 +-> leaf1 - podA - spine  \(rail by .*fabric\)' && says 'mlx5_2 .*\(rail unknown: no address' &&
        says '^fabric .*: 3 tiers, 6 switches, 37 hosts' && says '^ +leaf1  16 hosts: n\[01-16\]' && says 'leaf2  16 hosts: login,n\[17-31\]' &&
        says 'leaf3  5 hosts: m\[001-004\],m7' && says 'rail 1: 30 NICs of 30 hosts  odd: others have NICs of 31' && says 'rail 2: 0 NICs .*1 subnet' &&
        RAILCCL_FABRIC=$dir/fabric topo --file $machines/cpu-only-2numa-4eth.xml --host nobody && says 'wrong  the fabric file does not mention this host' || return 1
    printf 'SwitchName=s1 Switches=s[2-3]\nSwitchName=s2 Nodes=a[1-3]\nSwitchName=s3 Nodes=a[4-6]\n' >"$dir/topology.conf"
    topo --file $machines/cpu-only-2numa-4eth.xml --brief --fabric "$dir/topology.conf" --host a5 && says 'eth0 +-> rail 0 +-> s3 - s1' || return 1
    echo 'switch leaf9 under nowhere' >"$dir/broken"
    bad 'broken:1: ' --file $machines/cpu-only-2numa-4eth.xml --fabric "$dir/broken" && bad 'none' --fabric "$dir/none" || return 1
    topo --json --file $machines/nvswitch-8gpu-8nic.xml --fabric "$dir/fabric" --host n17 && python3 - "$dir/out" <<'PY'
import json, sys
fabric = json.load(open(sys.argv[1]))["fabric"]
assert fabric["path"] == ["leaf2", "podA", "spine"] and len(fabric["hosts"]) == 37 and len(fabric["switches"]) == 6, fabric
assert {"name": "n20", "leaf": "leaf2"} in fabric["hosts"] and fabric["rails"][1]["hosts"] == 30, fabric
PY
}
drawing() { # every device, and the fabric's switches, within the drawing's bounds
    local m
    for m in "$machines"/*.xml; do topo --svg "$dir/${m##*/}.svg" --file "$m" || return 1; done
    topo --svg "$dir/fabric.svg" --file $machines/two-nics-8gpu.xml --fabric "$dir/fabric" --host m7 || return 1
    python3 - "$dir" "$machines"/*.xml <<'PY'
import os, re, sys, xml.etree.ElementTree as tree
TEXT = "{http://www.w3.org/2000/svg}text"
def look(drawing, machine, more=()):
    svg = tree.parse(drawing).getroot()
    words = [t.text or "" for t in svg.iter(TEXT)]
    gpus = int(re.search("([0-9]+) GPU", open(machine[:-4] + ".txt").read()).group(1))
    assert sum(w.startswith("GPU ") and w[4:].isdigit() for w in words) == gpus, words
    for net in tree.parse(machine).getroot().iter("net"): assert any(net.get("name")[-9:] in w for w in words), net.get("name")
    for word in more: assert word in words, word
    width, height = float(svg.get("width")), float(svg.get("height"))
    for r in svg.iter(TEXT): assert 0 <= float(r.get("x")) <= width and 0 <= float(r.get("y")) <= height, r.text
for machine in sys.argv[2:]: look(os.path.join(sys.argv[1], os.path.basename(machine) + ".svg"), machine)
look(os.path.join(sys.argv[1], "fabric.svg"), "tests/machines/two-nics-8gpu.xml", ("podB", "leaf3", "spine"))
PY
}
compared() {
    topo --diff $machines/bonded-8gpu-8nic.xml $machines/bonded-8gpu-8nic.xml && says '^alike: ' || return 1
    sed 's/link_width="16"/link_width="8"/; s/speed="400000"/speed="200000"/' "$machines/bonded-8gpu-8nic.xml" >"$dir/other.xml"
    topo --diff $machines/bonded-8gpu-8nic.xml "$dir/other.xml"
    [ $? -eq 1 ] && says '^rail 0' && says 'other.xml: mlx5_bond_0 .*200 Gbit/s' && says 'PCI link of 0000:10:00.0'
}
bad() {
    local status words
    words=$1; shift
    topo "$@"; status=$?
    [ $status -eq 2 ] && grep -qE -- "$words" "$dir/err" || { echo "status $status"; cat "$dir/err"; return 1; }
}
bad_input() {
    head -c 700 $machines/seven-of-eight.xml >"$dir/cut.xml"
    bad 'cut.xml:[0-9]+: .*cut off' --file "$dir/cut.xml" && bad 'No such file' --file "$dir/none.xml" &&
        bad 'no such option' --nonsense && bad 'named by --file' stray && bad 'takes two files' --diff "$dir/cut.xml" &&
        bad 'is not there' --root "$dir/empty" && bad 'No such file or directory' --file $machines/seven-of-eight.xml --svg "$dir/no/x.svg"
}
hwloc() {
    topo --synthetic "package:2 numa:1 core:4 pu:2" && says '2 NUMA nodes' && says 'package 1' &&
        bad 'no synthetic text' --synthetic "zebra:2" && bad 'hwloc cannot read' --hwloc $machines/seven-of-eight.xml
}

tap_plan 19
tap_case "every machine's answer, by the tool" answers
tap_case "sysfs: switches, GPUs, verbs and other ports, bonds, NUMA nodes" from_sysfs
tap_case "sysfs: different MTU, a narrow slot, ports that are down or virtual" what_is_wrong
tap_case "sysfs: link layer, GUID, MTU and GIDs of verbs ports; none" rdma_facts
tap_case "NVML: driver numbers, NVLinks to GPUs and switches, C2C" nvml_links
tap_case "NVML: every call refused" nvml_refuses
tap_case "NVML: unknown devices, impossible counts" nvml_lies
tap_case "NVML: no library, another library" no_nvml
tap_case "sysfs to NCCL's XML and back" sysfs_to_xml
tap_case "this machine, each fact with its source" itself
tap_case "NCCL_TOPO_FILE is read" by_variable
if topo --xml && grep -A2 '<pci ' "$dir/out" | grep -q '<net ' && command -v python3 >/dev/null
then tap_case "a file of places alone is filled in from sysfs" places_only
else tap_skip "a file of places alone is filled in from sysfs" "this machine shows no NIC on a PCI bus"; fi
tap_case "NCCL_NET_GDR_LEVEL and --gdr-level decide about GPUDirect" levels
if command -v python3 >/dev/null; then
    tap_case "JSON says what the text says, each fact with its source" json
    tap_case "drawings show every GPU and port within their bounds" drawing
    tap_case "a fabric: GPU, NIC, rail and leaf, the whole of it, the host that is not in it" fabric
else
    tap_skip "JSON says what the text says, each fact with its source" "python3 is not installed"
    tap_skip "drawings show every GPU and port within their bounds" "python3 is not installed"
    tap_skip "a fabric: GPU, NIC, rail and leaf, the whole of it, the host that is not in it" "python3 is not installed"
fi
tap_case "two machines compared, alike and not" compared
tap_case "bad input is named, exit status 2" bad_input
if topo --synthetic "numa:1 pu:1"; then tap_case "hwloc's synthetic text; its bad input" hwloc
else tap_skip "hwloc's synthetic text; its bad input" "$(head -c 150 "$dir/err")"; fi
tap_end
