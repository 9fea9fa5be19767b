#!/usr/bin/env bash
# plan.h and ranges.h are freestanding: clang turns them into PTX without the CUDA toolkit. Needs clang with the NVPTX
# target (Debian's has it); without it exits 77 = skipped. Prints one line.
set -eu
cd "$(dirname "$0")/../.."
clang=${CLANG:-clang}
arch=${CUDA_ARCH:-sm_75}
command -v "$clang" >/dev/null || { echo "ptx: skipped, no $clang"; exit 77; }
"$clang" --print-targets 2>/dev/null | grep -q nvptx64 || { echo "ptx: skipped, $clang has no NVPTX target"; exit 77; }
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$clang" -x cuda -nocudainc -nocudalib --cuda-device-only -S --cuda-gpu-arch="$arch" -O2 -Wall -Wextra -Werror \
    -Wno-unknown-cuda-version -Isrc -o "$out" tests/plan/plan_to_ptx.cu
fail() { echo "ptx: FAILED, $1"; exit 1; }
grep -q '\.visible \.entry plan_locate(' "$out" || fail "no entry plan_locate"
grep -q "\.target $arch" "$out" || fail "not for $arch"
grep -Eq 'rem\.[su]64|rem\.[su]32|div\.[su]64' "$out" || fail "no index arithmetic in the kernel"
grep -Eq '^[[:space:]]*\.extern' "$out" && fail "the kernel calls something that nobody defines"
echo "ptx: ok, $(wc -l <"$out") lines of PTX for $arch"
