#!/usr/bin/env bash
# Brings what the virtual machine is made of below one folder: kernel, qemu, verbs tools, all of them Debian packages that
# are unpacked there. Nothing is installed, nothing needs root, and no network when all is there already.
#   tests/rdma_vm/fetch.sh FOLDER
# Leaves FOLDER/root (the packages' files), FOLDER/kernel/vmlinuz and FOLDER/kernel/lib/modules/VERSION, FOLDER/version.
# Exit status 77 with the reason on stderr when it cannot be had. About 95 MB are fetched, 190 MB are left on the disk.
set -u
export LC_ALL=C
folder=${1:?folder to unpack into}
refuse() { echo "$*" >&2; exit 77; }

[ "$(uname -m)" = x86_64 ] || refuse "the virtual machine runs Debian's amd64 kernel; this machine is $(uname -m)"
for tool in apt-get apt-cache dpkg-deb tar flock; do
    command -v $tool >/dev/null || refuse "$tool is not installed: the virtual machine is made of Debian packages"
done
mkdir -p "$folder/debs" || refuse "cannot make $folder"
folder=$(cd "$folder" && pwd)
exec 9>"$folder/lock"
flock -w 300 9 || refuse "another process has been fetching into $folder for 5 minutes"
tools="busybox-static kmod iproute2 ibverbs-utils ibverbs-providers libibverbs1 librdmacm1 rdmacm-utils perftest"
command -v qemu-system-x86_64 >/dev/null || tools="$tools qemu-system-x86"
[ ! -s "$folder/version" ] || [ "$(cat "$folder/tools" 2>/dev/null)" != "$tools" ] || exit 0
rm -f "$folder/version"
cd "$folder/debs" || refuse "cannot enter $folder/debs"

# The machine's own lists of packages, or a private copy of them, made without root, where they are missing or too old.
apt=(-o APT::Sandbox::User=root)
# Not a linux-image-*-cloud: those have no rdma_rxe and no 9p.
kernel_package() { apt-cache "${apt[@]}" depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }'; }
# What the tools need and this machine lacks, by simulating their installation; the kernel needs nothing of it.
lacking() { apt-get "${apt[@]}" install -s --no-install-recommends $tools 2>/dev/null | awk '/^Inst / { print $2 }'; }
download() {
    kernel=$(kernel_package)
    # shellcheck disable=SC2046
    [ -n "$kernel" ] && apt-get "${apt[@]}" -q download "$kernel" $(printf '%s\n' $tools $(lacking) | sort -u) >apt.log 2>&1
}
if ! download; then
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
    apt+=(-o "Dir::State::lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache")
    timeout 120 apt-get "${apt[@]}" -q update >update.log 2>&1 && download ||
        refuse "packages cannot be had ($(cat update.log apt.log 2>/dev/null | grep -E '^[EW]:' | head -n 2 | tr '\n' ' '))"
fi

# Of the kernel's 400 MB only what may be loaded: networking, verbs, 9p, virtio and what these need.
version=${kernel#linux-image-}
rm -rf "$folder/root" "$folder/kernel"
mkdir -p "$folder/root" "$folder/kernel"
for package in ./*.deb; do
    case $package in
    ./linux-image-*) dpkg-deb --fsys-tarfile "$package" | tar -x -C "$folder/kernel" --wildcards "./boot/vmlinuz-*" "*/modules.*" \
        "*/kernel/drivers/infiniband/core" "*/kernel/drivers/infiniband/sw" "*/kernel/drivers/virtio" "*/kernel/drivers/net/*.ko*" \
        "*/kernel/net/9p" "*/kernel/net/sched" "*/kernel/net/bridge" "*/kernel/net/core" "*/kernel/net/802" "*/kernel/net/llc" \
        "*/kernel/net/ipv4" "*/kernel/net/ipv6" "*/kernel/fs/9p" "*/kernel/fs/netfs" "*/kernel/fs/fscache" "*/kernel/fs/configfs" \
        "*/kernel/lib" "*/kernel/crypto" "*/kernel/arch/x86/crypto" 2>/dev/null ;; # not every kernel has every folder
    *) dpkg-deb -x "$package" "$folder/root" || refuse "$package cannot be unpacked" ;;
    esac
done
mv "$folder/kernel/boot/vmlinuz-$version" "$folder/kernel/vmlinuz" || refuse "$kernel has no vmlinuz"
[ -d "$folder/kernel/lib" ] || mv "$folder/kernel/usr/lib" "$folder/kernel/lib"
ls "$folder/kernel/lib/modules/$version/kernel/drivers/infiniband/sw/rxe/"rdma_rxe.ko* >/dev/null 2>&1 ||
    refuse "$kernel has no rdma_rxe"
# kmod does what it is called. Debian's own links are absolute and would run this machine's.
kmod=$(ls "$folder/root/bin/kmod" "$folder/root/usr/bin/kmod" 2>/dev/null | head -n 1)
kmod=../${kmod#"$folder"/}
mkdir -p "$folder/kmod" && ln -sf "$kmod" "$folder/kmod/depmod" && ln -sf "$kmod" "$folder/kmod/modprobe"
"$folder/kmod/depmod" -b "$folder/kernel" "$version" || refuse "depmod fails on $kernel"
rm -f ./*.deb && rm -rf "$folder/apt"
echo "$tools" >"$folder/tools" && echo "$version" >"$folder/version"
