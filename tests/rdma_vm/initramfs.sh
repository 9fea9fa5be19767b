#!/usr/bin/env bash
# Packs the virtual machine's first file system out of what fetch.sh has brought: some 30 MB, a second, no root.
#   tests/rdma_vm/initramfs.sh FOLDER      leaves FOLDER/initramfs.cpio; does nothing when it is newer than its parts
# It holds a kernel's modules in the order in which they are loaded, verbs tools, ip, tc, bash and busybox, with the libraries they
# need. The host's C library goes in, too: what was built on the host runs in there.
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$1" && pwd)
image=$folder/initramfs.cpio root=$folder/initramfs packages=$folder/root
version=$(cat "$folder/version")
exec 9>"$folder/lock"
flock -w 120 9
[ ! "$image" -nt "$here/init" ] || [ ! "$image" -nt "$here/initramfs.sh" ] || [ ! "$image" -nt "$folder/version" ] || exit 0

libraries=usr/lib/x86_64-linux-gnu
rm -rf "$root"
mkdir -p "$root"/{bin,sbin,lib,lib64,usr/bin,usr/sbin,$libraries/libibverbs,etc/libibverbs.d,proc,sys,dev,tmp,run,out,repository,host/usr,modules}
cp "$packages/bin/busybox" "$root/bin/"
# Its ip is another one, and where its shell has an applet it runs that one whatever PATH says: scripts are bash's.
for applet in $("$packages/bin/busybox" --list); do
    case $applet in busybox | ip | bash) ;; *) ln -s busybox "$root/bin/$applet" ;; esac
done

programs=()
bring() { # FILE...: those that are there
    local file
    for file; do
        [ -f "$file" ] && [ ! -e "$root/usr/bin/${file##*/}" ] || continue
        cp -L "$file" "$root/usr/bin/" && programs+=("$file")
    done
}
bring "$packages"/{usr/,}{bin,sbin}/{ip,tc,bridge,rdma,ss,nstat} "$packages"/usr/bin/{ibv_,ib_}* "$packages"/usr/bin/{rping,ucmatose,rdma_client,rdma_server}
bring /bin/bash /usr/bin/bash /usr/bin/setpriv /usr/bin/prlimit /usr/bin/taskset /usr/bin/setsid /usr/bin/unshare /usr/bin/strace
provider=$(ls "$packages/$libraries/libibverbs/"librxe-rdmav*.so)
cp "$provider" "$root/$libraries/libibverbs/"
cp "$packages/etc/libibverbs.d/rxe.driver" "$root/etc/libibverbs.d/"

# The packages' libraries before the host's; and some that are opened by name at run time.
export LD_LIBRARY_PATH=$packages/$libraries:$packages/lib/x86_64-linux-gnu
for file in $(ldd "${programs[@]}" "$provider" | awk '/=> \// { print $3 }' | sort -u) /lib/x86_64-linux-gnu/libgcc_s.so.1 \
    /lib/x86_64-linux-gnu/lib{dl,pthread,rt,m}.so.?; do
    [ ! -e "$file" ] || cp -L "$file" "$root/$libraries/"
done
unset LD_LIBRARY_PATH
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
for name in libibverbs librdmacm; do [ -e "$root/$libraries/$name.so.1" ]; done
echo "/$libraries" >"$root/etc/ld.so.conf"
/sbin/ldconfig -r "$root"
printf 'root:x:0:0::/tmp:/usr/bin/bash\nnobody:x:65534:65534::/tmp:/usr/bin/bash\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
printf '127.0.0.1 localhost vm\n' >"$root/etc/hosts"

# There is no modprobe in there: the order comes from here. rxe asks for crc32 by name, where no dependency tells.
wanted="virtio_pci virtio_net 9pnet_virtio 9p crc32_generic crc32c_generic ib_uverbs rdma_rxe rdma_ucm veth sch_netem sch_tbf bridge"
for module in $wanted; do
    "$folder/kmod/modprobe" -d "$folder/kernel" -S "$version" -D "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || true
done | awk '!seen[$0]++' | while read -r file; do
    name=${file##*/}
    case $name in
    *.xz) xz -dc "$file" >"$root/modules/${name%.xz}" ;;
    *) cp "$file" "$root/modules/" ;;
    esac
    echo "${name%.xz}" >>"$root/modules/list"
done
grep -q '^rdma_rxe.ko' "$root/modules/list"

cp "$here/init" "$root/init"
chmod 755 "$root/init"
# Not compressed: the emulated CPU would take longer than the copy does.
(cd "$root" && find . | bin/busybox cpio -o -H newc -R 0:0) >"$image.new" 2>/dev/null
mv "$image.new" "$image"
rm -rf "$root"
