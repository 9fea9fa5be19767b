#!/usr/bin/env bash
# The library and all tests cross-compile for aarch64, and run there as far as an emulator can tell. -O1: the arithmetic's
# hundreds of kernels take four minutes at -O3, and an emulator tells nothing of speed.
. tests/support/tap.sh
out=build-arm64
packages=$out/packages
root=/usr/aarch64-linux-gnu
lib=$packages/usr/lib/aarch64-linux-gnu
emulator="qemu-aarch64 -L $root -E LD_LIBRARY_PATH=$PWD/$lib"

cases=("the library and its tests cross-compile for aarch64 without a warning" "the aarch64 library exports the same names"
    "a program on the aarch64 library runs under qemu-user" "tests of doors, plans and arithmetic pass under qemu-user")
tap_plan ${#cases[@]}

why=""
command -v aarch64-linux-gnu-gcc >/dev/null || why="aarch64-linux-gnu-gcc is not installed"
[ -n "$why" ] || why=$(bash scripts/arm64_packages.sh $packages 2>&1 | tail -n 1)
[ -e "$lib/libjansson.a" ] || why="no libsodium, libexpat or libjansson for arm64: ${why:-unknown}"
if [ ! -e "$lib/libjansson.a" ]; then
    for c in "${cases[@]}"; do tap_skip "$c" "$why"; done
    tap_end
fi

build() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -j"$(nproc)" CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar BUILD=$out \
        OPT=-O1 DEVICE_OPT=-O1 CFLAGS="-isystem $PWD/$packages/usr/include" LDFLAGS="-L$PWD/$lib" \
        SODIUM="$PWD/$lib/libsodium.a" EXPAT="$PWD/$lib/libexpat.a" JANSSON="$PWD/$lib/libjansson.a" all tests
}
exports() {
    aarch64-linux-gnu-nm -D --defined-only $out/lib/libnccl.so.2 | awk '{print $3}' | grep -vE '^rail[A-Z]' | sort |
        diff <(sort tests/abi/symbols-2.30.7.txt) -
}
# Two ranks in one process; arithmetic that has an exact answer.
smoke() {
    aarch64-linux-gnu-gcc -std=c11 -Wall -Wextra -Werror -Iinclude tests/house/smoke.c -o $out/smoke -L$out/lib -lnccl \
        -pthread || return 1
    RAILCCL_DEVICE=host qemu-aarch64 -L $root -E LD_LIBRARY_PATH="$PWD/$out/lib" $out/smoke
}
# What needs no second process and no timing. Emulation is some 15 times slower: of the plans, whose proofs know no machine,
# the short suites.
suites() {
    local t list=""
    for t in api/test_doors api/test_config plan/test_ranges plan/test_print plan/test_damaged_plans device/test_combine device/test_cuda_combine \
        device/test_float; do
        for f in "$out/tests/$t" "$out/tests/$t"/test_*; do [ -f "$f" ] && [ -x "$f" ] && list="$list ${f#"$out/tests/"}"; done
    done
    [ -n "$list" ] || { echo "none of them was built"; return 1; } # without names run.sh would run everything
    # shellcheck disable=SC2086
    BUILD=$out TEST_RUNNER="$emulator" bash tests/run.sh $list
}

tap_case "${cases[0]}" build
tap_case "${cases[1]}" exports
if command -v qemu-aarch64 >/dev/null; then
    tap_case "${cases[2]}" smoke
    tap_case "${cases[3]}" suites
else
    tap_skip "${cases[2]}" "qemu-aarch64 is not installed"
    tap_skip "${cases[3]}" "qemu-aarch64 is not installed"
fi
tap_end
