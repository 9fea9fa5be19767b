#!/usr/bin/env bash
# At its first communicator the library says which file it is; a second libnccl in the process is warned of, once, with who
# gets the calls.
. tests/support/tap.sh
build=$PWD/${BUILD:-build}
ours=$build/lib/libnccl.so.2
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LD_PRELOAD LD_LIBRARY_PATH NCCL_DEBUG NCCL_DEBUG_FILE

cases=("the file is named once, a single library is no cause for a warning" "a wheel's, opened by its path beside ours"
    "a wheel's that came first, ours opened by its path" "one that comes later is noticed at the next communicator, once"
    "a wheel's that is renamed as auditwheel does" "NCCL's plugins are no second library"
    "our own file, installed anew meanwhile, is no second library" "nothing is said, and nothing looked at, unless asked")
tap_plan ${#cases[@]}
skip_all() {
    for c in "${cases[@]}"; do tap_skip "$c" "$1"; done
    tap_end
}
nm -D "$ours" 2>/dev/null | grep -qE ' U __(asan|tsan|ubsan)_' &&
    skip_all "a sanitizer's library cannot be loaded into other programs"
fake='int ncclGetVersion(int *v) { return *v = 22809, 0; } int pncclGetVersion(int *v) { return ncclGetVersion(v); }'
mkdir -p "$work/wheel" "$work/own"
echo "$fake" | $cc -shared -fPIC -Wl,-soname,libnccl.so.2 -xc - -o "$work/wheel/libnccl.so.2" &&
    cp "$work/wheel/libnccl.so.2" "$work/wheel/libnccl-1a2b3c4d.so.2.28.9" &&
    echo 'int ncclNetPlugin_v8;' | $cc -shared -fPIC -xc - -o "$work/wheel/libnccl-net.so" &&
    cp "$work/wheel/libnccl-net.so" "$work/wheel/libnccl-tuner-efa.so" && $cc -o "$work/opens" tests/abi/opens.c -ldl ||
    skip_all "the libraries could not be made"

said() { RAILCCL_DEVICE=host NCCL_DEBUG=${LEVEL:-WARN} "$work/opens" "$@" >"$work/out" 2>&1; local status=$?; cat "$work/out"; [ $status -eq 0 ]; }
times() { # N WORDS
    [ "$(grep -cF -- "$2" "$work/out")" -eq "$1" ] || { echo "expected $1 times: $2"; return 1; }
}
second="a second NCCL library is mapped: "
one() { LEVEL=VERSION said open "$ours" comm comm && times 1 "interface) from $ours" &&
    LEVEL=INFO said open "$ours" comm && times 1 "from $ours" && times 0 "$second"; }
beside() {
    LD_PRELOAD=$ours said open "$work/wheel/libnccl.so.2" open libnccl.so.2 comm comm &&
        times 1 "$second$work/wheel/libnccl.so.2 beside $ours: " &&
        times 1 "what is linked with NCCL calls this one"
}
theirs_first() {
    said global "$work/wheel/libnccl.so.2" open "$ours" comm &&
        times 1 "$second$work/wheel/libnccl.so.2 beside $ours: " && times 1 "may call that one, which came first" &&
        said open "$work/wheel/libnccl.so.2" open "$ours" comm && times 1 "calls may reach either"
}
later() {
    LD_PRELOAD=$ours said open libnccl.so.2 comm open "$work/wheel/libnccl.so.2" sleep 1100 open libnccl.so.2 comm sleep 1100 comm && times 1 "$second"
}
auditwheel() { said open "$work/wheel/libnccl-1a2b3c4d.so.2.28.9" open "$ours" comm &&
    times 1 "${second}$work/wheel/libnccl-1a2b3c4d.so.2.28.9"; }
plugins() { said open "$work/wheel/libnccl-net.so" open "$work/wheel/libnccl-tuner-efa.so" open "$ours" comm &&
    times 0 "$second"; }
anew() {
    cp "$ours" "$work/own/libnccl.so.2" &&
        LEVEL=INFO said open "$work/own/libnccl.so.2" do "cp '$ours' '$work/own/new' && mv '$work/own/new' '$work/own/libnccl.so.2'" comm &&
        times 0 "$second" && times 1 "from $work/own/libnccl.so.2 (deleted)"
}
quiet() { LEVEL=NONE said open "$work/wheel/libnccl.so.2" open "$ours" comm && [ ! -s "$work/out" ]; }

i=0
for test in one beside theirs_first later auditwheel plugins anew quiet; do
    tap_case "${cases[$i]}" $test
    i=$((i + 1))
done
tap_end
