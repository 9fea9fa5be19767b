#!/usr/bin/env bash
# The public headers compile by themselves, in every dialect, alone or beside CUDA's, and say every exported name.
. tests/support/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
strict="-pedantic -Wall -Wextra -Wundef -Werror -Wno-missing-field-initializers -Iinclude -fsyntax-only"

cat >"$work/use.c" <<'EOC'
#include "railccl.h"
#include "nccl_device.h"
#include "nccl.h"
size_t use(void);
size_t use(void)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
    ncclDevCommRequirements_t needs = NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER;
    ncclCommProperties_t properties = NCCL_COMM_PROPERTIES_INITIALIZER;
    return config.size + info.size + needs.size + properties.size;
}
EOC
cp "$work/use.c" "$work/use.cc"

alone() { # COMPILER STANDARD SUFFIX
    local h
    for h in include/*.h; do "$1" -std="$2" $strict -x "$3" "$h" || return 1; done
    "$1" -std="$2" $strict "$work/use.${3/c++/cc}"
}
# The initialisers' values field by field: a value in the wrong place would be silent.
cat >"$work/values.c" <<'EOC'
#include <stdio.h>
#include "nccl_device.h"
#define IS(x, v) if ((x) != (v)) return printf("%s is not %s\n", #x, #v), 1
int main(void)
{
    ncclConfig_t c = NCCL_CONFIG_INITIALIZER;
    IS(c.size, 96); IS(c.magic, 0xcafebeef); IS(c.version, 23007); IS(c.netName, NULL); IS(c.commName, NULL);
    IS(c.blocking, INT_MIN); IS(c.cgaClusterSize, INT_MIN); IS(c.minCTAs, INT_MIN); IS(c.maxCTAs, INT_MIN);
    IS(c.splitShare, INT_MIN); IS(c.trafficClass, INT_MIN); IS(c.collnetEnable, INT_MIN); IS(c.CTAPolicy, INT_MIN);
    IS(c.shrinkShare, INT_MIN); IS(c.nvlsCTAs, INT_MIN); IS(c.nChannelsPerNetPeer, INT_MIN);
    IS(c.nvlinkCentricSched, INT_MIN); IS(c.graphUsageMode, INT_MIN); IS(c.numRmaCtx, INT_MIN);
    IS(c.maxP2pPeers, INT_MIN); IS(c.graphStreamOrdering, INT_MIN);
    ncclSimInfo_t s = NCCL_SIM_INFO_INITIALIZER;
    IS(s.size, 24); IS(s.magic, 0x74685283); IS(s.version, 23007); IS(s.estimatedTime, -1.0f);
    ncclDevCommRequirements_t r = NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER;
    IS(r.size, sizeof r); IS(r.magic, 0xcafebeef); IS(r.version, 23007); IS(r.ginContextCount, 4);
    IS(r.ginTrafficClass, INT_MIN); IS(r.ginStrongSignalsRequired, 1); IS(r.ginVaSignalsRequired, 1);
    IS(r.worldGinBarrierCount, 0); IS(r.ginConnectionType, NCCL_GIN_CONNECTION_NONE);
    IS(NCCL_VERSION(2, 8, 4), 2804); IS(NCCL_VERSION(2, 9, 6), 20906); IS(NCCL_VERSION(2, 30, 7), NCCL_VERSION_CODE);
    return 0;
}
EOC
# With RAILCCL_NCCL_2_27 the initialiser and the last values are that version's.
cat >"$work/old_values.c" <<'EOC'
#include <stddef.h>
#include <stdio.h>
#include "railccl.h"
#include "nccl.h"
#define IS(x, v) if ((x) != (v)) return printf("%s is not %s\n", #x, #v), 1
int main(void)
{
    ncclConfig_t c = NCCL_CONFIG_INITIALIZER;
    ncclSimInfo_t s = NCCL_SIM_INFO_INITIALIZER;
    IS(c.size, 72); IS(sizeof c, 72); IS(c.version, 22707); IS(c.nvlsCTAs, INT_MIN); IS(offsetof(ncclConfig_t, nvlsCTAs), 68);
    IS(c.shrinkShare, INT_MIN); IS(s.version, 22707); IS(ncclNumResults, 8); IS(NCCL_VERSION(2, 27, 7), NCCL_VERSION_CODE);
    IS(NCCL_MINOR, 27); IS(NCCL_PATCH, 7);
    return 0;
}
EOC
old_values() {
    ${CC:-gcc} -std=c11 -Wall -Wextra -Wundef -Werror -DRAILCCL_NCCL_2_27 -Iinclude "$work/old_values.c" -o "$work/values" && "$work/values" &&
        g++ $strict -std=c++11 -DRAILCCL_NCCL_2_27 -x c++ include/nccl.h &&
        ! ${CC:-gcc} -DRAILCCL_NCCL_2_27 -Iinclude -fsyntax-only -xc include/nccl_device.h 2>"$work/error" && grep 'came with NCCL 2.28' "$work/error"
}
names() { # FLAGS: what the headers declare
    ${CC:-gcc} -E -P -Iinclude -include nccl.h "$@" -xc /dev/null | tr '\n' ' ' | tr ';' '\n' |
        grep -oE '\bp?nccl[A-Za-z0-9]+ *\(' | tr -d ' (' | sort -u
}
# What NCCL got after 2.27, by its release notes and headers; each under both names.
later="AlltoAll CommGetUniqueId CommGrow CommMemStats CommResume CommRevoke CommSuspend Gather ParamBind ParamDumpAll ParamGet
    ParamGetAllParameterKeys ParamGetI16 ParamGetI32 ParamGetI64 ParamGetI8 ParamGetParameter ParamGetStr ParamGetU16 ParamGetU32
    ParamGetU64 ParamGetU8 PutSignal Scatter Signal WaitSignal WinGetUserPtr"
hidden() {
    comm -23 <(names) <(names -DRAILCCL_NCCL_2_27) >"$work/hidden"
    for n in $later; do printf 'nccl%s\npnccl%s\n' "$n" "$n"; done | sort | diff - "$work/hidden"
}
values() { ${CC:-gcc} -std=c11 -Iinclude "$work/values.c" -o "$work/values" && "$work/values"; }

# Every recorded name is declared, and nothing else of that kind.
declared() {
    names -include nccl_device.h >"$work/declared"
    grep -v '^#' tests/abi/symbols-2.30.7.txt | sort -u | diff - "$work/declared"
}

cuda=$(ls -d /usr/local/cuda*/include /usr/include 2>/dev/null |
    while read -r d; do [ -f "$d/cuda_runtime.h" ] && echo "$d" && break; done)
with_cuda() { # FIRST SECOND
    local cc
    printf '#include <%s>\n#include <%s>\ncudaStream_t stream;\n' "$1" "$2" >"$work/both.c"
    cp "$work/both.c" "$work/both.cc"
    for cc in "gcc -std=c99" "gcc -std=c11" "clang -std=c11" "g++ -std=c++17" "clang++ -std=c++17"; do
        $cc -Wall -Wextra -Werror -isystem "$cuda" -Iinclude -fsyntax-only \
            "$work/both.$([ "${cc/++/}" = "$cc" ] && echo c || echo cc)" || return 1
    done
}

dialects=("gcc c99 c" "gcc c11 c" "gcc c17 c" "clang c99 c" "clang c11 c" "g++ c++98 c++" "g++ c++11 c++" "g++ c++20 c++"
    "clang++ c++98 c++" "clang++ c++17 c++")
tap_plan $((${#dialects[@]} + 6))
for d in "${dialects[@]}"; do tap_case "the headers compile with ${d% *}" alone $d; done
tap_case "the initialisers put every value in its place" values
tap_case "the headers declare exactly the exported names" declared
tap_case "RAILCCL_NCCL_2_27: layout and values of that version, no device header" old_values
tap_case "RAILCCL_NCCL_2_27 hides exactly what came later" hidden
for order in "cuda_runtime.h nccl.h" "nccl.h cuda_runtime.h"; do
    if [ -n "$cuda" ]; then tap_case "${order% *} before ${order#* }" with_cuda $order
    else tap_skip "${order% *} before ${order#* }" "cuda_runtime.h is not installed"
    fi
done
tap_end
