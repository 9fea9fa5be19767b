#!/usr/bin/env bash
# The kernel for GPUs: clang makes PTX of it without CUDA's headers, and the toolkit's ptxas machine code of that for every
# chip from Turing to Blackwell, without a byte of stack or spill, with loads and stores of 128 bits and without contraction
# of floats; nvcc's PTX of it spills no more. Registers, spills, stack and shared memory of each chip are printed. Without
# clang, ptxas, a disassembler (nvdisasm: the toolkit's, or of `pip install nvidia-cuda-nvdisasm` on PATH) or nvcc the case is
# skipped. RAIL_KERNEL_SM chooses the chips (each takes some seconds).
#
# Stack counts as spilling: the kernel has no array that needs any, and ptxas does not count all that it moves there.
. tests/support/tap.sh
cuda=${CUDA_HOME:-/usr/local/cuda}/bin
clang=${CLANG:-clang}
chips=${RAIL_KERNEL_SM:-75 80 86 89 90 100 120}
disassembler=$(command -v nvdisasm || ls "$cuda"/nvdisasm 2>/dev/null)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tap_plan $((7 + $(echo "$chips" | wc -w)))

ptx() { "$clang" -x cuda -nocudainc -nocudalib --cuda-device-only -S --cuda-gpu-arch=sm_75 -O2 -ffp-contract=off -Wall -Wextra \
    -Werror -Wno-unknown-cuda-version -Isrc -o "$folder/kernel.ptx" src/engine/interpreter.cu; }
entry() { grep -q '\.visible \.entry rail_interpret(' "$folder/kernel.ptx" && ! grep -qE '^[[:space:]]*\.extern \.func' "$folder/kernel.ptx"; }
rounds() { ! grep -E '[[:space:]](fma|mad)\.[a-z.]*f(32|64)|\.ftz|[[:space:]](add|mul|sub)\.f(32|64)' "$folder/kernel.ptx"; }

# assembles PTX CHIP CUBIN: what ptxas -v says goes to said, and what spills or has a stack is named.
assembles() { "$cuda/ptxas" -v -arch="sm_$2" -o "$3" "$1" 2>"$folder/said" && spills_nothing "$folder/said"; }
spills_nothing() { awk '/Function properties for/ { who = $NF; functions++ }
    /bytes stack frame/ && $1 + $5 + $9 { print who ":" $0; bad = 1 }
    END { if (!functions) print "ptxas -v names no function"; exit bad || !functions }' "$1"; }
# 1024 threads a block leave each half the registers.
half() { sed 's/^\.maxntid .*/.maxntid 1024, 1, 1/' "$folder/kernel.ptx" >"$folder/half.ptx" &&
    assembles "$folder/half.ptx" 75 "$folder/half.o" | grep rail_interpret; }
# Of the kernel and its functions: registers, the most of each of the others; shared memory is dynamic.
say() { awk -v sm="$1" -v shared="$(sed -n 's/^ *KERNEL_SHARED_BYTES = \([0-9]*\) << 10,.*/\1/p' src/engine/kernel.h)" '
    /bytes stack frame/ { if ($1 > stack) stack = $1; stores += $5; loads += $9 }
    /Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") registers = $(i + 1) }
    /smem/ { match($0, /[0-9]+ bytes smem/); fixed = substr($0, RSTART, RLENGTH) + 0 }
    END { printf "# sm_%s: %d registers, %d bytes of spill stores, %d of spill loads, %d of stack, %d of shared memory\n", sm,
          registers, stores, loads, stack, shared * 1024 + fixed }' "$folder/said"; }
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
    name="it assembles for sm_$sm and spills nothing"
    if [ -s "$folder/kernel.ptx" ] && [ -x "$cuda/ptxas" ]; then
        tap_case "$name" assembles "$folder/kernel.ptx" "$sm" "$folder/kernel.$sm.cubin"
        say "$sm"
    else tap_skip "$name" "no clang with NVPTX, or no $cuda/ptxas"; fi
done
name="with half the registers it would spill, and be found out"
if [ -s "$folder/kernel.ptx" ] && [ -x "$cuda/ptxas" ]; then tap_case "$name" half
else tap_skip "$name" "no clang with NVPTX, or no $cuda/ptxas"; fi
if [ -n "$disassembler" ] && ls "$folder"/*.cubin >/dev/null 2>&1; then tap_case "memory is read and written 128 bits at a time" wide
else tap_skip "memory is read and written 128 bits at a time" "no nvdisasm, or nothing assembled"; fi

if [ -x "$cuda/nvcc" ]; then
    tap_case "nvcc takes it" by_nvcc
    tap_case "what nvcc makes of it spills nothing" assembles "$folder/nvcc.ptx" "${chips%% *}" "$folder/nvcc.o"
else
    for name in "nvcc takes it" "what nvcc makes of it spills nothing"; do tap_skip "$name" "no $cuda/nvcc"; done
fi
tap_end
