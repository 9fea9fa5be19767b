#!/usr/bin/env bash
# Runs a command inside a throw-away virtual machine with a real verbs stack: Debian's kernel, Linux's Soft-RoCE (rdma_rxe) on
# virtual cables. No root, no /dev/kvm, nothing is installed; the first run fetches 95 MB (fetch.sh). 5 to 10 s from start to end.
#
#   tests/rdma_vm/vm.sh [-t SECONDS] [-o OUT] COMMAND [ARGUMENT...]
#   tests/rdma_vm/vm.sh bash -c '. tests/rdma_vm/guest.sh; fabric_up 2 1; ibv_devices'
#   tests/rdma_vm/vm.sh bash -c '. tests/rdma_vm/guest.sh; fabric_up 2 2; vm_ranks 2 1 2 $BUILD/bin/all_reduce_perf -b 1M -e 1M'
#
# The command is run as root in /repository, which is this repository, read-only: what was built on the host runs in there,
# with the host's libraries. /tmp and /out are writable; files in /out come back in OUT. What the command prints is printed
# here as it comes; OUT also gets its output, the kernel's messages (dmesg) and the console. BUILD and all variables that
# begin with NCCL_, RAIL or TEST_ are passed on. guest.sh has functions for the inside: hosts, rails, cables, counters.
#
# Exit status: the command's; 77 with the reason on stderr when there can be no such machine here; 124 when the command took
# longer than SECONDS (180), its machine is ended then; 125 when the machine died under it, which is a failure: the kernel oopsed.
# A machine that never got as far as running the command is started once more; a command is never run twice.
#
# Variables: RAIL_RDMA_CACHE=build-vm, where packages are unpacked; may be shared by several clones.
# RAIL_RDMA_CPUS=2 (with 1, programs that poll starve their peers), RAIL_RDMA_MEMORY_MB=2048, RAIL_RDMA_BOOT_S=90.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
cache=${RAIL_RDMA_CACHE:-$repository/build-vm}
limit=180 out="" boot_limit=${RAIL_RDMA_BOOT_S:-90}
while getopts t:o: option; do
    case $option in
    t) limit=$OPTARG ;;
    o) out=$OPTARG ;;
    *) sed -n '/^#   tests/s/^#   //p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] && [[ $limit =~ ^[0-9]+$ ]] || { sed -n '/^#   tests/s/^#   //p' "$0" >&2; exit 2; }

bash "$here/fetch.sh" "$cache" || exit $?
bash "$here/initramfs.sh" "$cache" || { echo "the first file system could not be packed in $cache" >&2; exit 1; }

scratch=$(mktemp -d)
[ -n "$out" ] || out=$scratch/out
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
machine="" reader=""
trap '[ -z "$machine" ] || kill $machine 2>/dev/null; [ -z "$reader" ] || kill $reader 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM HUP

{
    echo "export BUILD=$(printf %q "${BUILD:-build}")"
    while IFS= read -r name; do [ "$name" = BUILD ] || echo "export $name=$(printf %q "${!name}")"; done < <(compgen -e | grep -E '^(NCCL_|RAIL|TEST_)')
    printf '%q ' "$@"
    echo
} >"$out/command"

# -accel tcg: where /dev/kvm is there it may not work (nested and paravirtual hosts hang in it), and 3 s to boot are fast enough.
# Without ERMS, kernel and libc copy by words and vectors: `rep movsb`, which they take for fast where it is offered, is emulated
# byte by byte (ib_write_bw 51 MB/s with it, 81 without). An oops ends the machine at once: waiting for the deadline would tell less.
start() {
    local qemu=qemu-system-x86_64 data=() libraries=""
    if [ -x "$cache/root/usr/bin/$qemu" ]; then
        qemu=$cache/root/usr/bin/$qemu
        data=(-L "$cache/root/usr/share/qemu" -L "$cache/root/usr/share/seabios")
        libraries=$cache/root/usr/lib/x86_64-linux-gnu:$cache/root/lib/x86_64-linux-gnu
    fi
    : >"$out/output"
    : >"$out/console"
    LD_LIBRARY_PATH=$libraries timeout -k 2 $((limit + boot_limit)) "$qemu" "${data[@]}" -M q35 -accel tcg,thread=multi,tb-size=512 \
        -cpu max,-erms -smp "${RAIL_RDMA_CPUS:-2}" -m "${RAIL_RDMA_MEMORY_MB:-2048}" -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$out/console" -monitor none -kernel "$cache/kernel/vmlinuz" -initrd "$cache/initramfs.cpio" \
        -append "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr random.trust_cpu=on tsc=reliable" \
        -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
        -fsdev "local,id=r,path=$repository,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=r,mount_tag=repository \
        -fsdev local,id=u,path=/usr,security_model=none,readonly=on -device virtio-9p-pci,fsdev=u,mount_tag=usr \
        -fsdev "local,id=o,path=$out,security_model=none" -device virtio-9p-pci,fsdev=o,mount_tag=out >"$out/qemu" 2>&1 </dev/null &
    machine=$!
}
running() { [ -n "$machine" ] && kill -0 "$machine" 2>/dev/null; }
stop() { kill "$machine" 2>/dev/null; wait "$machine" 2>/dev/null; machine=""; }
said() { grep -aq "^VM $1" "$out/console"; }
until_said() { # WORD SECONDS: false when the machine ends, or the time, before it says so
    local end=$((SECONDS + $2))
    while ! said "$1"; do
        running || { said "$1"; return; }
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# qemu 7.2 emulating two CPUs loses 1 boot in some 17 of newer kernels to a race in the kernel's text patching.
for try in 1 2; do
    start
    ! until_said ready "$boot_limit" || break
    stop
    [ $try = 1 ] || { echo "the virtual machine did not boot, twice: $(cat "$out/qemu") $(tail -n 3 "$out/console")" >&2; exit 77; }
done

tail -n +1 -f --pid=$machine -s 0.1 "$out/output" &
reader=$!
until_said "done" "$limit"
ended=$?
running && [ $ended -ne 0 ] && late=1 || late=0
for _ in $(seq 50); do running && [ $late = 0 ] && sleep 0.1 || break; done # it powers off
stop
sleep 0.3 # what it printed last
kill $reader 2>/dev/null
wait $reader 2>/dev/null
reader=""
if [ $ended -ne 0 ]; then
    [ $late = 0 ] || { echo "vm.sh: stopped after $limit s: $*" >&2; exit 124; }
    { echo "vm.sh: the machine died under: $*"; cat "$out/qemu"; tail -n 40 "$out/console"; } >&2
    exit 125
fi
exit "$(sed -n 's/^VM done rc=\([0-9]*\).*/\1/p' "$out/console" | tail -n 1)"
