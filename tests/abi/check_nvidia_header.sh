#!/usr/bin/env bash
# Programs compiled against NVIDIA's own nccl.h run unchanged, on ordinary memory: client.c, and every example whose calls
# that header has. Headers are taken from $NVIDIA_NCCL_INCLUDE (folders, separated by colons), the system's include
# folders, CUDA's, and Python's nvidia-nccl-cu* packages. CUDA's headers are stood in for by cuda_stand_in/.
. tests/support/tap.sh
build=${BUILD:-build}
lib=$PWD/$build/lib/libnccl.so.2
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version_of() { sed -n 's/^#define NCCL_VERSION_CODE \([0-9]*\).*/\1/p' "$1/nccl.h"; }
folders() {
    tr ':' '\n' <<<"${NVIDIA_NCCL_INCLUDE:-}"
    ls -d /usr/include /usr/local/include /usr/local/cuda*/include 2>/dev/null
    for python in python3 /usr/bin/python3 "${VIRTUAL_ENV:-/nonexistent}/bin/python3"; do
        "$python" -c 'import site, sys; print("\n".join(p + "/nvidia/nccl/include" for p in sys.path if p))' 2>/dev/null
    done
}
# Each version once; ours, installed by somebody, is not NVIDIA's.
mapfile -t found < <(folders | while read -r d; do
    [ -f "$d/nccl.h" ] && ! grep -q railccl "$d/nccl.h" && echo "$(version_of "$d") $d"
done | sort -u -k1,1n)

compile() { # FOLDER SOURCE PROGRAM [ITS OWN FLAGS]
    local folder=$1 source=$2 program=$3
    shift 3
    $cc -std=c11 -D_GNU_SOURCE -Wall -Wno-strict-prototypes -pthread "$@" -isystem "$folder" -Itests/abi/cuda_stand_in \
        -o "$program" "$source" "$lib" -Wl,-rpath,"$(dirname "$lib")" -lm
}
client() {
    compile "$1" tests/abi/client.c "$work/client" && timeout 60 "$work/client"
}
# railccl.h stands beside our nccl.h, whose include guard theirs has set by then.
examples() {
    local f name ran=0
    for f in examples/*.c; do
        name=$(basename "$f" .c)
        calls=$(grep -ohE '\bnccl[A-Z][A-Za-z]*\(' "$f" | tr -d '(' | sort -u)
        for c in $calls; do grep -qw "$c" "$1/nccl.h" || continue 2; done
        mkdir -p "$work/include" && cp include/railccl.h "$work/include"
        compile "$1" "$f" "$work/$name" -I"$work/include" || return 1
        case $name in
        03_* | 04_*) timeout 60 "$work/$name" ;;
        *) timeout 60 "$build/bin/railccl" run -n 4 "$work/$name" ;;
        esac || return 1
        ran=$((ran + 1))
    done
    echo "$ran examples"
    [ $ran -ge 10 ]
}
ours() { compile include tests/abi/client.c "$work/client" && timeout 60 "$work/client" | grep 'against 23007'; }
ours_as_of_2_27() {
    compile include tests/abi/client.c "$work/client" -DRAILCCL_NCCL_2_27 &&
        timeout 60 "$work/client" | grep 'against 22707'
}
a_wrong_header_is_noticed() { # operators renumbered: Max is not Min
    mkdir -p "$work/wrong" &&
        sed 's/ncclMax = 2/ncclMax = 3/; s/ncclMin = 3/ncclMin = 2/' include/nccl.h >"$work/wrong/nccl.h"
    compile "$work/wrong" tests/abi/client.c "$work/client" && ! timeout 60 "$work/client"
}

if nm -D "$lib" | grep -qE ' U __(asan|tsan|ubsan)_'; then
    tap_plan 1
    tap_skip "programs compiled against NVIDIA's nccl.h" "a sanitizer's library needs the program to be built with it"
    tap_end
fi
tap_plan $((3 + (${#found[@]} ? 2 * ${#found[@]} : 1)))
tap_case "the client works with our own header" ours
tap_case "the client works with our own header as of NCCL 2.27" ours_as_of_2_27
tap_case "a header with other values would be noticed" a_wrong_header_is_noticed
for one in "${found[@]}"; do
    read -r version folder <<<"$one"
    tap_case "the client works with NVIDIA's header $version" client "$folder"
    tap_case "the examples work with NVIDIA's header $version" examples "$folder"
done
[ ${#found[@]} -gt 0 ] || tap_skip "programs compiled against NVIDIA's nccl.h" \
    "none is installed; set NVIDIA_NCCL_INCLUDE to its folder (pip download nvidia-nccl-cu12, unzip)"
tap_end
