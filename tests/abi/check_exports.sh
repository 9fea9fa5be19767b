#!/usr/bin/env bash
# What libnccl.so.2 shows and what it needs, read from the file itself.
. tests/support/tap.sh
lib=$BUILD/lib/libnccl.so.2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
LC_ALL=C

cases=("exactly the public names of NCCL 2.30.7 and of railccl.h" "weak ncclX over strong pncclX at one address"
    "names carry no version" "SONAME is libnccl.so.2" "needs only libc (and the loader)"
    "no symbol of glibc newer than 2.34" "no mention of libraries that are loaded at run time" "no text relocations, immediate binding"
    "no constructor but the compiler's own")
tap_plan ${#cases[@]}
if [ ! -f "$lib" ]; then
    for c in "${cases[@]}"; do tap_case "$c" sh -c "echo $lib is not built; false"; done
    tap_end
fi
if nm -D "$lib" | grep -qE ' U __(asan|tsan|ubsan)_'; then
    for c in "${cases[@]}"; do tap_skip "$c" "a sanitizer's build shows and needs more"; done
    tap_end
fi

nm -D --defined-only "$lib" >"$work/defined"
exactly() {
    awk '{print $3}' "$work/defined" | grep -vE '^rail[A-Z]' | sort >"$work/have"
    grep -v '^#' tests/abi/symbols-2.30.7.txt | sort | diff - "$work/have" || return 1
    grep -oE '\brail[A-Z][A-Za-z]*\(' include/railccl.h | tr -d '(' | sort -u >"$work/ours"
    awk '{print $3}' "$work/defined" | grep -E '^rail[A-Z]' | sort -u | diff "$work/ours" -
}
twins() {
    awk '$3 ~ /^pnccl/ { if ($2 != "T") { print $0 ": not strong"; bad = 1 } strong[substr($3, 2)] = $1 }
         $3 ~ /^nccl/  { if ($2 != "W") { print $0 ": not weak"; bad = 1 } weak[$3] = $1 }
         END { for (n in weak) if (weak[n] != strong[n]) { print n ": " weak[n] " is not " strong[n]; bad = 1 } exit bad }' \
        "$work/defined"
}
unversioned() { ! awk '{print $3}' "$work/defined" | grep '@'; }
soname() { readelf -d "$lib" | grep -q 'SONAME.*\[libnccl\.so\.2\]'; }
needed() {
    readelf -d "$lib" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | tee "$work/needed"
    grep -qx libc.so.6 "$work/needed" && ! grep -vE '^(libc\.so\.6|ld-linux.*\.so\.[0-9]+)$' "$work/needed"
}
old_glibc() {
    objdump -T "$lib" | grep -oE 'GLIBC_[0-9.]+.*' | sort -Vu
    ! objdump -T "$lib" | grep -oE 'GLIBC_[0-9]+\.[0-9]+' | awk -F'[_.]' '$2 > 2 || $3 > 34' | grep .
}
no_foreign() { ! nm -D --undefined-only "$lib" | grep -iE ' (ibv_|rdma_|cu[A-Z]|cuda|hwloc_|numa_|nvml|crypto_|sodium_|XML_|json_)'; }
hardened() {
    readelf -d "$lib" >"$work/dynamic"
    ! grep TEXTREL "$work/dynamic" && grep -qE 'BIND_NOW|FLAGS.*NOW' "$work/dynamic"
}
# .init_array holds pointers; their names come from the relocations. frame_dummy is the start file's, and
# __cpu_indicator_init libgcc's (it asks the CPU for its features).
constructors() {
    local start size
    read -r start size < <(readelf -SW "$lib" | sed 's/^ *\[ *[0-9]*\]//' | awk '$1 == ".init_array" {print $3, $5}')
    [ -n "$start" ] || return 1
    readelf -rW "$lib" | awk '{print $1, $NF}' | while read -r at to; do
        [[ $at =~ ^[0-9a-f]{16}$ ]] && ((16#$at >= 16#$start && 16#$at < 16#$start + 16#$size)) || continue
        printf '%016x\n' "$((16#$to))"
    done >"$work/constructors"
    echo "$(wc -l <"$work/constructors") constructors in $((16#$size)) bytes"
    [ "$(wc -l <"$work/constructors")" -eq $((16#$size / 8)) ] || return 1
    ! nm "$lib" | grep -Ff "$work/constructors" | awk '{print $3}' | grep -vxE 'frame_dummy|__cpu_indicator_init|__x86_.*'
}

i=0
for test in exactly twins unversioned soname needed old_glibc no_foreign hardened constructors; do
    tap_case "${cases[$i]}" $test
    i=$((i + 1))
done
tap_end
