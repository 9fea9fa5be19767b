#!/usr/bin/env bash
# Our headers agree with the recorded table (layout-2.30.7.txt) in every size, offset and value, proven by the compiler;
# and with NVIDIA's own nccl.h where one is installed, in whatever its version shares with the table.
. tests/support/tap.sh
table=tests/abi/layout-2.30.7.txt
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Turns lines of the table into compile-time assertions.
assertions() {
    echo '#include <stddef.h>'
    awk '
        $1 == "size"   { printf "_Static_assert(sizeof(%s) == %s && _Alignof(%s) == %s, \"%s\");\n", $2, $3, $2, $4, $0 }
        $1 == "offset" { split($2, f, ".")
                         printf "_Static_assert(offsetof(%s, %s) == %s && sizeof(((%s *)0)->%s) == %s, \"%s\");\n",
                                f[1], f[2], $3, f[1], f[2], $4, $0 }
        $1 == "value"  { printf "_Static_assert((%s) == %s, \"%s\");\n", $2, $3, $0 }'
}

ours() { assertions <"$1" | "$cc" -std=c11 -Iinclude -include nccl.h -include nccl_device.h -xc -fsyntax-only -; }

# One wrong number at a time, in every line of the table, must be noticed.
notices_every_wrong_number() {
    local n=0 missed=0 lines
    grep -v '^#' "$table" | awk '{ for (i = 3; i <= NF; i++) { line = $1 " " $2; for (j = 3; j <= NF; j++)
        line = line " " (i == j ? $j + 1 : $j); print line } }' >"$work/wrong"
    lines=$(wc -l <"$work/wrong")
    n=$(ours "$work/wrong" 2>&1 | grep -c 'static assertion failed')
    echo "$n of $lines noticed"
    [ "$n" -eq "$lines" ]
}

# NVIDIA's header of some version: the lines of the table whose names it has; sizes of what grew only at equal versions.
theirs() {
    local header=$1 version
    version=$(sed -n 's/^#define NCCL_VERSION_CODE \([0-9]*\).*/\1/p' "$header")
    grep -v '^#' "$table" | while read -r kind name rest; do
        grep -qw "${name#*.}" "$header" && grep -qw "${name%.*}" "$header" || continue
        if [ "$version" != 23007 ]; then
            case $name in
            ncclConfig_t | ncclNumResults | NCCL_M*R | NCCL_PATCH | NCCL_VERSION_CODE | NCCL_API_MAGIC) continue ;;
            esac
        fi
        echo "$kind $name $rest"
    done >"$work/theirs"
    echo "version $version: $(wc -l <"$work/theirs") lines"
    [ "$(wc -l <"$work/theirs")" -gt 50 ] || return 1
    assertions <"$work/theirs" | "$cc" -std=c11 -w -isystem "$2" -include "$header" -xc -fsyntax-only -
}

tap_plan 3
tap_case "the headers agree with the recorded table" ours "$table"
tap_case "every single wrong number in the table would be noticed" notices_every_wrong_number
found=""
for f in "${NCCL_HEADER:-}" /usr/include/nccl.h /usr/local/include/nccl.h /usr/local/cuda*/include/nccl.h; do
    [ -f "$f" ] && ! grep -q railccl "$f" && found=$f && break
done
cuda=$(ls -d /usr/local/cuda*/include /usr/include 2>/dev/null | while read -r d; do [ -f "$d/cuda_runtime.h" ] && echo "$d" && break; done)
if [ -z "$found" ]; then tap_skip "the table agrees with NVIDIA's nccl.h" "none is installed"
elif [ -z "$cuda" ]; then tap_skip "the table agrees with $found" "it needs cuda_runtime.h, which is not installed"
else tap_case "the table agrees with $found" theirs "$found" "$cuda"
fi
tap_end
