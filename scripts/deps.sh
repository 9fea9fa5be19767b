#!/usr/bin/env bash
# Installs the Debian packages that a target needs and that are missing; does nothing, and needs no network, when none is.
#   scripts/deps.sh build|demo|check|compare [--list]
# build: the library and its programs. demo: what its network namespaces need. check: everything `make check` runs.
# compare: peers for `make perf`. As root or with sudo it installs; otherwise it prints the command and fails.
set -u
build="gcc make libc6-dev libsodium-dev libexpat1-dev libjansson-dev libibverbs-dev librdmacm-dev"
demo="$build iproute2 procps"
check="$demo bc binutils clang g++ libclang-rt-14-dev libcmocka-dev nftables pkg-config python3 python3-torch qemu-user
       gcc-aarch64-linux-gnu libc6-dev-arm64-cross openmpi-bin mpich libpmix-dev libpmi2-0 libhwloc-dev libhwloc15"
compare="openmpi-bin libopenmpi-dev mpich libmpich-dev python3"

case "${1:-}" in
build) packages=$build ;;
demo) packages=$demo ;;
check) packages=$check ;;
compare) packages=$compare ;;
*) echo "usage: $0 build|demo|check|compare [--list]" >&2; exit 2 ;;
esac
if [ "${2:-}" = --list ]; then echo $packages; exit 0; fi

have() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Another distribution: the tools themselves decide, later, with their own messages.
if ! command -v dpkg-query >/dev/null; then
    echo "note: not a Debian system; needed are, by Debian's names: $(echo $packages)" >&2
    exit 0
fi
missing=""
for p in $packages; do
    # pkgconf is what pkg-config became.
    have "$p" || { [ "$p" = pkg-config ] && have pkgconf; } || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

command="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" = 0 ]; then as=""
elif sudo -n true 2>/dev/null; then as="sudo -n"
elif [ -t 0 ] && command -v sudo >/dev/null; then as=sudo
else
    printf 'These Debian packages are missing:%s\nInstall them as root, then try again:\n  apt-get update && %s\n' \
        "$missing" "$command" >&2
    exit 1
fi
echo "installing:$missing"
log=$(mktemp)
if ! { $as apt-get update && $as env DEBIAN_FRONTEND=noninteractive $command; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    printf 'Could not install these Debian packages:%s\n  (tried: apt-get update && %s; whole output in %s)\n' \
        "$missing" "$command" "$log" >&2
    exit 1
fi
rm -f "$log"
