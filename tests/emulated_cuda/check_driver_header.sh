#!/usr/bin/env bash
# The emulator's own words about the driver API (driver.h, driver_calls.h) say the same as NVIDIA's cuda.h, where there
# is one ($CUDA_INCLUDE, CUDA's usual folders): values, layouts, and how many arguments a call has.
. tests/support/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc=${CC:-gcc}
include=""
for folder in "${CUDA_INCLUDE:-}" /usr/local/cuda/include /usr/local/cuda-*/include /usr/include; do
    [ -n "$folder" ] && [ -f "$folder/cuda.h" ] && include=$folder && break
done

# Names that driver.h gives itself: NVIDIA's have another name, or none.
others="CU_DEVICE_P2P_ATTRIBUTE_ARRAY_ACCESS_SUPPORTED CU_FUNC_ATTRIBUTES CU_DEVICE_ATTRIBUTE_MAX"
values() { # as "NAME VALUE", from the preprocessed enums
    printf '#include "emulated_cuda/driver.h"\n' >"$work/names.c"
    grep -oE '^ *(CU|CUDA)_[A-Z0-9_a-z]+( =|,|;)' tests/emulated_cuda/driver.h |
        grep -oE '[A-Z][A-Z0-9_a-z]+' | sort -u |
        grep -vwF "$(tr ' ' '\n' <<<"$others")" >"$work/names"
    {
        printf '#include "emulated_cuda/driver.h"\n#include <stdio.h>\nint main(void) {\n'
        while read -r name; do
            printf '    printf("%%s %%lld\\n", "%s", (long long)%s);\n' "$name" "$name"
        done <"$work/names"
        printf '}\n'
    } >"$work/ours.c"
    $cc -std=c11 -Itests -o "$work/ours" "$work/ours.c" && "$work/ours" >"$work/values" || return 1
    {
        printf '#include <cuda.h>\n'
        while read -r name value; do
            printf '_Static_assert((long long)%s == %s, "%s");\n' "$name" "$value" "$name"
        done <"$work/values"
    } >"$work/theirs.c"
    [ "$(wc -l <"$work/values")" -gt 150 ] && $cc -std=c11 -isystem "$include" -fsyntax-only "$work/theirs.c"
}
layouts() {
    {
        printf '#include "emulated_cuda/driver.h"\n#include <stdio.h>\n'
        printf '#define S(t) printf("sizeof(" #t ") %%zu\\n", sizeof(t));\n'
        printf '#define O(t, m, n) printf("offsetof(" #t ", " #n ") %%zu\\n", offsetof(t, m));\nint main(void) {\n'
        printf 'S(CUuuid) S(CUipcMemHandle) S(CUmemLocation) S(CUmemAllocationProp) S(CUmemAccessDesc)\n'
        printf 'S(CUlaunchAttribute) S(CUlaunchConfig) S(CUgraphEdgeData) S(CUstreamBatchMemOpParams) S(CUdeviceptr)\n'
        printf 'O(CUmemAllocationProp, location, location) O(CUmemAllocationProp, allocFlags, allocFlags)\n'
        printf 'O(CUlaunchAttribute, value, value) O(CUlaunchConfig, hStream, hStream)\n'
        printf 'O(CUlaunchConfig, numAttrs, numAttrs)\n'
        printf 'O(CUstreamBatchMemOpParams, value.address, waitValue.address)\n'
        printf 'O(CUstreamBatchMemOpParams, value.value64, waitValue.value64)\n'
        printf 'O(CUstreamBatchMemOpParams, value.flags, writeValue.flags)\nreturn 0; }\n'
    } >"$work/ours.c"
    $cc -std=c11 -Itests -o "$work/ours" "$work/ours.c" && "$work/ours" |
        sed -E 's/^(.*) ([0-9]+)$/_Static_assert(\1 == \2, "\1");/' >"$work/layout" || return 1
    { printf '#include <cuda.h>\n#include <stddef.h>\n'; cat "$work/layout"; } >"$work/theirs.c"
    [ "$(wc -l <"$work/layout")" -eq 18 ] && $cc -std=c11 -isystem "$include" -fsyntax-only "$work/theirs.c"
}
arguments() {
    printf '#include <cuda.h>\n' >"$work/theirs.c"
    printf '#include "emulated_cuda/driver_calls.h"\n' >"$work/ours.c"
    # __CUDA_API_VERSION_INTERNAL declares every form by the name of its export.
    $cc -std=c11 -D__CUDA_API_VERSION_INTERNAL -isystem "$include" -fsyntax-only -aux-info "$work/theirs" \
        "$work/theirs.c" &&
        $cc -std=c11 -Itests -fsyntax-only -aux-info "$work/all_ours" "$work/ours.c" || return 1
    for f in theirs all_ours; do
        grep -oE ' cu[A-Z][A-Za-z0-9_]* \(.*\);' "$work/$f" | sed -E 's/\(\*[^)]*\) *\([^)]*\)/callback/g' |
            awk '{name = $1; print name, gsub(/,/, ",") + 1}' | sort -u >"$work/$f.counts"
    done
    [ "$(wc -l <"$work/all_ours.counts")" -gt 120 ] || return 1
    # What NVIDIA's header does not declare must not be a name of ours, but for forms that CUDA 13 has dropped from it.
    awk 'NR == FNR { n[$1] = $2; next }
         !($1 in n) { print $1, "is not in cuda.h"; bad = 1; next }
         n[$1] != $2 { print $1, "has", $2, "arguments,", n[$1], "in cuda.h"; bad = 1 }
         END { exit bad }' "$work/theirs.counts" <(grep -v '^cuCtxCreate_v2 ' "$work/all_ours.counts")
}

errors() {
    { printf '#include <cuda.h>\n'
      sed -nE 's/^ *N\(([0-9]+), ([A-Z_]+), .*/_Static_assert(CUDA_\2 == \1, "\2");/p' tests/emulated_cuda/errors.c
    } >"$work/theirs.c"
    [ "$(wc -l <"$work/theirs.c")" -gt 20 ] && $cc -std=c11 -isystem "$include" -fsyntax-only "$work/theirs.c"
}

cases=("values are NVIDIA's" "layouts are NVIDIA's" "calls have NVIDIA's numbers of arguments"
    "names of errors are NVIDIA's")
steps=(values layouts arguments errors)
tap_plan ${#cases[@]}
for i in "${!cases[@]}"; do
    if [ -z "$include" ]; then tap_skip "${cases[$i]}" "no cuda.h here"; else tap_case "${cases[$i]}" "${steps[$i]}"; fi
done
tap_end
