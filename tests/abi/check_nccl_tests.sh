#!/usr/bin/env bash
# NVIDIA's nccl-tests: built against NVIDIA's header, and against ours as of NCCL 2.27, every program links with our library
# and starts on it. Its sources are not here: $NCCL_TESTS_SOURCE names a folder with them (git clone
# https://github.com/NVIDIA/nccl-tests); nvcc is taken from $CUDA_HOME (/usr/local/cuda). NVIDIA's headers are found as in
# check_nvidia_header.sh, $NVIDIA_NCCL_INCLUDE first. From 2.28 on the kernels on nccl_device.h take minutes to compile:
#   TEST_LIMIT_S=3600 NCCL_TESTS_SOURCE=/path/to/nccl-tests make check-run T=abi/check_nccl_tests.sh
# With a GPU each also runs on it, and finds every result right.
. tests/support/tap.sh
build=$PWD/${BUILD:-build}
cuda=${CUDA_HOME:-/usr/local/cuda}
source=${NCCL_TESTS_SOURCE:-}
skip_all() {
    tap_plan 1
    tap_skip "NVIDIA's nccl-tests" "$1"
    tap_end
}
[ -n "$source" ] || skip_all "NCCL_TESTS_SOURCE does not name a folder with its sources (github.com/NVIDIA/nccl-tests)"
[ -f "$source/src/all_reduce.cu" ] || skip_all "$source/src/all_reduce.cu is not there"
[ -x "$cuda/bin/nvcc" ] || skip_all "$cuda/bin/nvcc is not there"
nm -D "$build/lib/libnccl.so.2" | grep -qE ' U __(asan|tsan|ubsan)_' &&
    skip_all "a sanitizer's library needs programs of its own"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gpu=$(nvidia-smi -L 2>/dev/null | head -n 1)
code=$(sed -n 's/^#define NCCL_VERSION_CODE //p' include/nccl.h)

version_of() { sed -n 's/^#define NCCL_VERSION_CODE \([0-9]*\).*/\1/p' "$1/nccl.h"; }
folders() {
    tr ':' '\n' <<<"${NVIDIA_NCCL_INCLUDE:-}"
    ls -d /usr/include /usr/local/include "$cuda/include" 2>/dev/null
    python3 -c 'import sys; print("\n".join(p + "/nvidia/nccl/include" for p in sys.path if p))' 2>/dev/null
}
mapfile -t found < <(folders | while read -r d; do
    [ -f "$d/nccl.h" ] && ! grep -q railccl "$d/nccl.h" && echo "$(version_of "$d") $d"
done | sort -u -k1,1n)

# The toolkit's folder of libraries may hold an NCCL, and nccl-tests' Makefile looks there first.
mkdir -p "$work/cudart"
ln -s "$cuda"/lib64/libcudart* "$cuda"/lib64/libcudadevrt.a "$work/cudart/"
builds() { # NAME INCLUDE [FLAG]
    mkdir -p "$work/$1" && ln -sfn "$2" "$work/$1/include" && ln -sfn "$build/lib" "$work/$1/lib" &&
        cp -r "$source" "$work/$1/source" &&
        env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -j"$(nproc)" -C "$work/$1/source/src" CUDA_HOME="$cuda" CUDA_LIB="$work/cudart" \
            NCCL_HOME="$work/$1" BUILDDIR="$work/$1/build" NVCC="$cuda/bin/nvcc ${3:-}" \
            NVCC_GENCODE="${NVCC_GENCODE:--gencode=arch=compute_80,code=compute_80}" >"$work/log" 2>&1 ||
                { tail -n 20 "$work/log"; return 1; }
    [ "$(ls "$work/$1/build"/*_perf | wc -l)" -ge 10 ]
}
# Every name is bound, and the first line says which header and which library. Without a GPU that is where they end.
starts() { # NAME HEADER
    local p
    for p in "$work/$1/build"/*_perf; do
        LD_BIND_NOW=1 LD_LIBRARY_PATH=$build/lib timeout 120 "$p" -b 8 -e 1M -f 8 -g 1 >"$work/out" 2>&1
        grep -q "nccl-headers=$2 nccl-library=$code" "$work/out" || { echo "$p"; cat "$work/out"; return 1; }
        ! grep -q 'symbol lookup error' "$work/out" || return 1
        [ -z "$gpu" ] || grep -qE 'Out of bounds values *: 0 OK' "$work/out" ||
            { echo "$p"; cat "$work/out"; return 1; }
    done
}
both() { # NAME HEADER INCLUDE FLAG WORDS
    tap_case "$5: builds" builds "$1" "$3" "$4"
    tap_case "$5: every program starts on our library${gpu:+ and is right on $gpu}" starts "$1" "$2"
}
tap_plan $((2 + 2 * ${#found[@]}))
both ours 22707 "$PWD/include" -DRAILCCL_NCCL_2_27 "nccl-tests against our header as of NCCL 2.27"
for one in "${found[@]}"; do
    read -r version folder <<<"$one"
    both "nvidia$version" "$version" "$folder" "" "nccl-tests against NVIDIA's header $version"
done
tap_end
