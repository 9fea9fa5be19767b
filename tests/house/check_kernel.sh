#!/usr/bin/env bash
# The kernel for GPUs: clang makes PTX of it without CUDA's headers, and the toolkit's ptxas machine code of that for every
# chip from Turing to Blackwell, with loads and stores of 128 bits and without contraction of floats; nvcc takes it, too.
# Registers, spills and shared memory are printed. Without clang, ptxas, a disassembler or nvcc the case is skipped.
# RAIL_KERNEL_SM chooses the chips (default 90: each takes some seconds; "75 80 86 89 90 100 120" is all).
. tests/support/tap.sh
cuda=${CUDA_HOME:-/usr/local/cuda}/bin
clang=${CLANG:-clang}
chips=${RAIL_KERNEL_SM:-90}
disassembler=$(command -v nvdisasm || ls "$cuda"/nvdisasm 2>/dev/null)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tap_plan $((5 + $(echo "$chips" | wc -w)))

ptx() { "$clang" -x cuda -nocudainc -nocudalib --cuda-device-only -S --cuda-gpu-arch=sm_75 -O2 -ffp-contract=off -Wall -Wextra \
    -Werror -Wno-unknown-cuda-version -Isrc -o "$folder/kernel.ptx" src/engine/interpreter.cu; }
entry() { grep -q '\.visible \.entry rail_interpret(' "$folder/kernel.ptx" && ! grep -qE '^[[:space:]]*\.extern \.func' "$folder/kernel.ptx"; }
rounds() { ! grep -E '[[:space:]](fma|mad)\.[a-z.]*f(32|64)|\.ftz|[[:space:]](add|mul|sub)\.f(32|64)' "$folder/kernel.ptx"; }
assembles() { "$cuda/ptxas" -v -arch="sm_$1" -o "$folder/kernel.$1.cubin" "$folder/kernel.ptx" 2>"$folder/said"; }
wide() { for sm in $chips; do "$disassembler" -c "$folder/kernel.$sm.cubin" >"$folder/sass" && grep -qE 'LDG?\.E\.128|LD\.E\.128' "$folder/sass" &&
    grep -qE 'STG?\.E\.128|ST\.E\.128' "$folder/sass" || return 1; done; }
by_nvcc() { "$cuda/nvcc" -ptx -arch=compute_75 -O3 -fmad=false -Isrc -o "$folder/nvcc.ptx" src/engine/interpreter.cu; }

if "$clang" --print-targets 2>/dev/null | grep -q nvptx64; then
    tap_case "clang makes PTX of the kernel" ptx
    tap_case "the PTX has the entry and calls nobody outside" entry
    tap_case "no float operation is contracted, flushed or left without its rounding" rounds
else
    for name in "clang makes PTX" "the entry" "no contraction"; do tap_skip "$name" "no $clang with NVPTX"; done
fi
for sm in $chips; do
    if [ -s "$folder/kernel.ptx" ] && [ -x "$cuda/ptxas" ]; then
        tap_case "it assembles for sm_$sm" assembles "$sm"
        grep -E 'spill|Used' "$folder/said" | sed "s/^/# sm_$sm: /; s/ptxas info *: //; s/  */ /g"
    else tap_skip "it assembles for sm_$sm" "no $cuda/ptxas"; fi
done
if [ -n "$disassembler" ] && ls "$folder"/*.cubin >/dev/null 2>&1; then tap_case "memory is read and written 128 bits at a time" wide
else tap_skip "memory is read and written 128 bits at a time" "no nvdisasm, or nothing assembled"; fi

if [ -x "$cuda/nvcc" ]; then tap_case "nvcc takes it" by_nvcc
else tap_skip "nvcc takes it" "no $cuda/nvcc"; fi
tap_end
