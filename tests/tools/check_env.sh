#!/usr/bin/env bash
# railccl env and railccl run: programs of every kind that bring an NCCL of their own take ours, with what is set for them.
. tests/support/tap.sh
build=$PWD/${BUILD:-build}
railccl=$build/bin/railccl ours=$build/lib/libnccl.so.2
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset RAILCCL_LIBRARY LD_PRELOAD LD_LIBRARY_PATH VLLM_NCCL_SO_PATH
version=$(sed -n 's/^#define NCCL_VERSION_CODE //p' include/nccl.h)

# A wheel's library of version 22809, and programs that find it in the ways in which programs do; each prints the version
# that answers it.
programs() {
    mkdir -p "$work/wheel" "$work/bin"
    echo 'int ncclGetVersion(int *v) { return *v = 22809, 0; }' |
        $cc -shared -fPIC -Wl,-soname,libnccl.so.2 -xc - -o "$work/wheel/libnccl.so.2" || return 1
    cat >"$work/linked.c" <<'C'
#include <stdio.h>
int ncclGetVersion(int *);
int main(void) { int v = 0; ncclGetVersion(&v); return printf("%d\n", v) < 0; }
C
    cat >"$work/opened.c" <<'C'
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#ifndef PATH_VARIABLE
#define PATH_VARIABLE "NOTHING_OF_THAT_NAME"
#endif
int main(void)
{
    const char *path = getenv(PATH_VARIABLE);
    void *library = dlopen(path ? path : "libnccl.so.2", RTLD_NOW);
    int v = 0, (*get)(int *) = library ? (int (*)(int *))dlsym(library, "ncclGetVersion") : 0;
    if (!get) return fprintf(stderr, "%s\n", dlerror()), 1;
    get(&v);
    return printf("%d\n", v) < 0;
}
C
    $cc "$work/linked.c" "$work/wheel/libnccl.so.2" -Wl,--disable-new-dtags,-rpath,"$work/wheel" -o "$work/bin/rpath" &&
        $cc "$work/linked.c" "$work/wheel/libnccl.so.2" -Wl,--enable-new-dtags,-rpath,"$work/wheel" -o "$work/bin/runpath" &&
        $cc -w "$work/opened.c" -Wl,--enable-new-dtags,-rpath,"$work/wheel" -ldl -o "$work/bin/opens" &&
        $cc -w -DPATH_VARIABLE='"VLLM_NCCL_SO_PATH"' "$work/opened.c" -Wl,--disable-new-dtags,-rpath,"$work/wheel" -ldl -o "$work/bin/vllm"
}
kinds="rpath runpath opens vllm"
# VERSION COMMAND...: every program under COMMAND prints it
all_print() {
    local want=$1 kind got
    shift
    for kind in $kinds; do
        got=$("$@" "$work/bin/$kind")
        echo "$kind: $got"
        [ "$got" = "$want" ] || return 1
    done
}
under() { # SHELL OPTIONS: runs the rest of the words with what `railccl env` says
    local shell=$1 options=$2
    shift 2
    "$shell" -c 'eval "$("$0" env '"$options"')" && exec "$@"' "$railccl" "$@"
}
one() { # PROGRAM VERSION COMMAND...
    local program=$1 want=$2 got
    shift 2
    got=$("$@" "$work/bin/$program")
    echo "$program: $got, expected $want"
    [ "$got" = "$want" ]
}
library_path_alone() { # it serves the second and third kind; the first is why there is LD_PRELOAD
    one runpath "$version" under sh "--client nccl-tests" && one opens "$version" under sh "--client nccl-tests" &&
        one rpath 22809 under sh "--client nccl-tests"
}
client() { # NAME VARIABLES: the lines that are not remarks set exactly these
    [ "$("$railccl" env --client "$1" | sed -n 's/^export \([A-Z_]*\)=.*/\1/p' | tr '\n' ' ')" = "$2 " ]
}
what_was_there_stays() {
    echo 'int nothing_at_all;' | $cc -shared -fPIC -xc - -o "$work/other.so"
    LD_PRELOAD=$work/other.so under bash "" sh -c 'echo "$LD_PRELOAD"' >"$work/out"
    LD_PRELOAD=$work/other.so "$railccl" run -n 1 sh -c 'echo "$LD_PRELOAD"' >>"$work/out"
    printf '%s\n' "$ours:$work/other.so" "$ours:$work/other.so" | diff - "$work/out" &&
        [ "$(LD_LIBRARY_PATH=/somewhere under sh "--client nccl-tests" sh -c 'echo "$LD_LIBRARY_PATH"')" = "${ours%/*}:/somewhere" ]
}
json() {
    "$railccl" env --json | python3 -c '
import json, sys
said = json.load(sys.stdin)
ours = sys.argv[1]
assert said["library"] == ours and said["nccl"].startswith("2."), said
clients = {c["client"]: {v["name"]: (v["value"], v["in_front"]) for v in c["variables"]} for c in said["clients"]}
assert clients["torch"] == {"LD_PRELOAD": (ours, True)}, clients
assert clients["vllm"] == {"LD_PRELOAD": (ours, True), "VLLM_NCCL_SO_PATH": (ours, False)}, clients
assert clients["nccl-tests"] == {"LD_LIBRARY_PATH": (ours.rsplit("/", 1)[0], True)}, clients' "$ours"
}
# An installation in a folder of that name.
installed() { # FOLDER
    local root=$work/$1
    mkdir -p "$root/bin" "$root/lib" && cp "$railccl" "$root/bin" && cp "$ours" "$root/lib" &&
        ln -sfn libnccl.so.2 "$root/lib/libnccl.so"
}
elsewhere() {
    installed "it's" && railccl=$work/it\'s/bin/railccl && all_print "$version" under sh "" &&
        all_print "$version" "$railccl" run -n 1
}
cannot_be_named() { # FOLDER LETTER
    local status
    installed "$1" || return 1
    "$work/$1/bin/railccl" env >"$work/out" 2>&1; status=$?
    cat "$work/out"
    [ $status -eq 2 ] && grep -q "$2 in its path" "$work/out" || return 1
    "$work/$1/bin/railccl" run --preload -n 1 true >"$work/out" 2>&1; status=$?
    cat "$work/out"
    [ $status -eq 2 ] && grep -q "$2 in its path" "$work/out" &&
        "$work/$1/bin/railccl" run -n 1 true 2>&1 | grep -q 'take the one that they find'
}
without_library() {
    local status
    installed none && rm "$work/none/lib"/* && cp "$work/wheel/libnccl.so.2" "$work/none/lib" || return 1
    "$work/none/bin/railccl" env >"$work/out" 2>&1; status=$?
    [ $status -eq 2 ] && grep -q 'RAILCCL_LIBRARY' "$work/out" || return 1
    "$work/none/bin/railccl" run --preload -n 1 true >"$work/out" 2>&1; status=$?
    [ $status -eq 2 ] && grep -q 'preload needs one' "$work/out" &&
        all_print 22809 "$work/none/bin/railccl" run -n 1 2>"$work/out" &&
        grep -q 'take the one that they find' "$work/out" &&
            RAILCCL_LIBRARY=$ours all_print "$version" "$work/none/bin/railccl" run -n 1
}
vllm_was_told() {
    VLLM_NCCL_SO_PATH=$work/wheel/libnccl.so.2 one vllm 22809 "$railccl" run -n 1 &&
        one vllm 22809 "$railccl" run -n 1 --env VLLM_NCCL_SO_PATH="$work/wheel/libnccl.so.2"
}
set_variables() {
    NCCL_DEBUG=WARN NCCL_NONSENSE=1 RAILCCL_LIBRARY=$ours "$railccl" env --set >"$work/out" && cat "$work/out" &&
        grep -q '^NCCL_DEBUG=WARN' "$work/out" &&
        grep -A1 '^NCCL_NONSENSE' "$work/out" | grep -q 'NO EFFECT' && ! grep -q RAILCCL_LIBRARY "$work/out" &&
        [ "$("$railccl" env --all | grep -c '^[A-Z]')" -gt 50 ]
}
usage() { # WORDS OPTION...
    local words=$1 status
    shift
    "$railccl" env "$@" >"$work/out" 2>&1; status=$?
    cat "$work/out"
    [ $status -eq 2 ] && grep -q -- "$words" "$work/out"
}

# The page about being loaded says nothing that the tool does not know.
documented() {
    local page=docs/DROP-IN.md command option n=0
    while read -r command option; do
        n=$((n + 1))
        "$railccl" "$command" --help | grep -q -- "$option\b" || { echo "railccl $command has no $option"; return 1; }
    done < <(grep -oE 'railccl (env|install|run)( [^#|]*)?' "$page" | while read -r _ command rest; do
        grep -oE -- '--[a-z-]+|(^| )-n ' <<<"$rest" | sed "s/^ */$command /"
    done | sort -u)
    echo "$n options"
    [ $n -ge 6 ]
}
names=("without anything each takes its own" "railccl env, evaluated by sh" "railccl env, evaluated by bash" "twice is as good as once"
    "railccl run" "railccl run --no-preload leaves them their own" "LD_LIBRARY_PATH alone serves all but an RPATH"
    "what was in LD_PRELOAD and LD_LIBRARY_PATH stays" "an installation elsewhere, with a quote in its path"
    "a path with a blank is refused by name" "a path with a colon is refused by name" "a path with a dollar sign is refused by name"
    "no library of ours: said, or refused" "what vLLM was told stays")
tests=("all_print 22809 env" "all_print $version under sh ''" "all_print $version under bash ''" "all_print $version under sh '' $build/bin/railccl run -n 1"
    "all_print $version $railccl run -n 1" "all_print 22809 $railccl run -n 1 --no-preload" library_path_alone
    what_was_there_stays elsewhere
    "cannot_be_named 'a b' 'a blank'" "cannot_be_named a:b 'a colon'" "cannot_be_named 'a\$LIB' 'a dollar sign'"
    without_library vllm_was_told)
tap_plan $((${#names[@]} + 9))
sanitized=""
nm -D "$ours" 2>/dev/null | grep -qE ' U __(asan|tsan|ubsan)_' &&
    sanitized="a sanitizer's library cannot be loaded into other programs"
[ -n "$sanitized" ] || programs || sanitized="the programs could not be made"
for i in "${!names[@]}"; do
    if [ -n "$sanitized" ]; then tap_skip "${names[$i]}" "$sanitized"; else tap_case "${names[$i]}" eval "${tests[$i]}"; fi
done
tap_case "--client torch" client torch LD_PRELOAD
tap_case "--client vllm" client vllm "LD_PRELOAD VLLM_NCCL_SO_PATH"
tap_case "--client nccl-tests" client nccl-tests LD_LIBRARY_PATH
if command -v python3 >/dev/null; then tap_case "--json says the same" json; else tap_skip "--json says the same" "python3 is not installed"; fi
tap_case "--set and --all: the library's own variables" set_variables
tap_case "an unknown client is named, with those that there are" usage 'zebra: not known; there are torch, vllm' --client zebra
tap_case "an unknown option is named" usage 'no such option' --nonsense
tap_case "docs/DROP-IN.md names only options that there are" documented
tap_case "two tables at once are refused" usage 'each go alone' --set --all
tap_end
