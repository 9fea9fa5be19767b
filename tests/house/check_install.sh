#!/usr/bin/env bash
# `make install` into an empty folder; a program built against it by pkg-config alone; `make uninstall` leaves nothing.
. tests/support/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make="env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make BUILD=$BUILD"
prefix=/opt/railccl

cat >"$work/program.c" <<'EOC'
#include <stdio.h>
#include <nccl.h>
#include <railccl.h>
int main(void)
{
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess) return 1;
    printf("%d %s\n", version, railGetVersion());
    return version != NCCL_VERSION_CODE;
}
EOC

files() { (cd "$work/root" && find . -type f -o -type l | sort); }
installs() {
    $make install DESTDIR="$work/root" PREFIX=$prefix || return 1
    local f
    for f in lib/libnccl.so.2 lib/libnccl.so include/nccl.h include/nccl_device.h include/railccl.h \
        lib/pkgconfig/nccl.pc lib/pkgconfig/railccl.pc; do
        [ -e "$work/root$prefix/$f" ] || { echo "missing: $f"; return 1; }
    done
    # Every program that was built is there, and nothing of ours lies elsewhere.
    for f in "$BUILD"/bin/*; do [ ! -f "$f" ] || [ -x "$work/root$prefix/bin/${f##*/}" ] || { echo "missing: $f"; return 1; }; done
    ! files | grep -v "^\.$prefix/"
}
# $1: the pkg-config name. The compiler is given nothing but what pkg-config says.
compiles() {
    export PKG_CONFIG_PATH=$work/root$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work/root
    local flags
    flags=$(pkg-config --cflags --libs "$1") || return 1
    echo "$flags"
    # shellcheck disable=SC2086
    ${CC:-gcc} "$work/program.c" $flags -o "$work/program" || return 1
    LD_LIBRARY_PATH=$work/root$prefix/lib "$work/program"
}
# Programs find the library beside them, wherever the tree was put.
programs_run() {
    local p
    for p in "$work/root$prefix"/bin/*; do
        [ -x "$p" ] || continue
        ! ldd "$p" 2>&1 | grep -q 'not found' || { ldd "$p"; return 1; }
    done
}
# The tool speaks of the library of its own installation, wherever that was put.
tool_knows_its_library() {
    local bin=$work/root$prefix/bin want=$work/root$prefix/lib/libnccl.so.2 got
    got=$("$bin/railccl" env) && grep -F "export LD_PRELOAD='$want'" <<<"$got" || { echo "$got"; return 1; }
    [ "$("$bin/railccl" run -n 1 sh -c 'echo "$LD_PRELOAD"')" = "$want" ]
}
uninstalls() { $make uninstall DESTDIR="$work/root" PREFIX=$prefix && ! files | grep .; }

tap_plan 6
tap_case "make install puts library, headers, programs and pkg-config files under PREFIX" installs
tap_case "a program compiles and runs with pkg-config railccl" compiles railccl
tap_case "a program compiles and runs with pkg-config nccl" compiles nccl
tap_case "installed programs find their library" programs_run
tap_case "the installed railccl env and run name the installed library" tool_knows_its_library
tap_case "make uninstall leaves nothing" uninstalls
tap_end
