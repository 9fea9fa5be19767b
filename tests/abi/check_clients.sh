#!/usr/bin/env bash
# Every name that a known client binds is exported (clients.txt), and such a client loads: a program with all names of a
# client as undefined symbols starts with the library bound at once.
. tests/support/tap.sh
lib=$PWD/${BUILD:-build}/lib/libnccl.so.2
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mapfile -t clients < <(sed -n 's/^\([^#:][^:]*\):.*/\1/p' tests/abi/clients.txt)
names() { sed -n "s/^$1: //p" tests/abi/clients.txt | tr ' ' '\n' | sed 's/^/nccl/'; }

exported() {
    names "$1" | sort -u >"$work/wanted"
    [ "$(wc -l <"$work/wanted")" -ge 15 ] || { echo "only $(wc -l <"$work/wanted") names: is the list whole?"; return 1; }
    ! comm -23 "$work/wanted" "$work/have" | sed 's/$/ is missing/' | grep .
}
loads() {
    {
        names "$1" | sed 's/.*/void &(void);/'
        echo 'void *table[] = {'
        names "$1" | sed 's/.*/(void *)&,/'
        echo '}; int main(void) { for (unsigned i = 0; i < sizeof table / sizeof *table; i++) if (!table[i]) return 1; return 0; }'
    } >"$work/client.c"
    $cc -w -o "$work/client" "$work/client.c" "$lib" -Wl,-rpath,"$(dirname "$lib")" && LD_BIND_NOW=1 "$work/client"
}
a_name_that_is_missing_is_noticed() {
    grep -vx ncclCommResume "$work/have" >"$work/fewer"
    names torch-2.13.0 | sort -u >"$work/wanted"
    [ "$(comm -23 "$work/wanted" "$work/fewer")" = ncclCommResume ]
}

tap_plan $((2 * ${#clients[@]} + 1))
nm -D --defined-only "$lib" | awk '{print $3}' | sort -u >"$work/have"
for c in "${clients[@]}"; do
    tap_case "$c: every name is exported" exported "$c"
    if nm -D "$lib" | grep -qE ' U __(asan|tsan|ubsan)_'; then tap_skip "$c: loads" "a sanitizer's library"; continue; fi
    tap_case "$c: loads with all names bound" loads "$c"
done
tap_case "a name that is missing would be noticed" a_name_that_is_missing_is_noticed
tap_end
