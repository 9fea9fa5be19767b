#!/usr/bin/env bash
# PyTorch's wheel for CUDA, as pip installs it, takes our library in the place of the wheel's NCCL: preloaded, and exchanged
# by `railccl install --wheel`. No GPU is needed: torch loads and binds, and torch.cuda.nccl.unique_id() is answered. cupy,
# where it is installed too, adds up ordinary memory. $WHEEL_PYTHON names the environment's interpreter (5.4 GB):
#   python3 -m venv /tmp/v && /tmp/v/bin/pip install torch numpy cupy-cuda13x
#   WHEEL_PYTHON=/tmp/v/bin/python make check-run T=abi/check_torch_wheel.sh
# Nothing in that environment is changed: the exchange is made in a copy of symbolic links.
. tests/support/tap.sh
build=$PWD/${BUILD:-build}
railccl=$build/bin/railccl ours=$build/lib/libnccl.so.2
python=${WHEEL_PYTHON:-python3}
ask=$PWD/tests/abi/wheel_clients.py
unset LD_PRELOAD LD_LIBRARY_PATH VLLM_NCCL_SO_PATH
export PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
skip_all() {
    tap_plan 1
    tap_skip "PyTorch's wheel with our library" "$1"
    tap_end
}
nm -D "$ours" | grep -qE ' U __(asan|tsan|ubsan)_' && skip_all "a sanitizer's library cannot be loaded into Python"
why=$("$python" -c 'import torch; assert torch.version.cuda, "torch without CUDA"' 2>&1) ||
    skip_all "$python: $(tail -n 1 <<<"$why") (WHEEL_PYTHON: a Python with pip's torch for CUDA)"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
theirs=$site/nvidia/nccl/lib/libnccl.so.2
[ -f "$theirs" ] || skip_all "$theirs is not there: no wheel"
theirs=$(realpath "$theirs")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cupy=""
"$python" -c 'import cupy, numpy' 2>/dev/null && cupy=yes

says() { cat "$work/out"; grep -qE -- "$1" "$work/out" || { echo "nothing says: $1"; return 1; }; }
asked() { timeout 120 "$@" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }; }
is_ours() { says "^calls $ours\$" && says "available True" && says "^id b'railcuid'"; }
its_own() { asked "$python" "$ask" torch && says "^calls $theirs\$" && ! grep -q railcuid "$work/out"; }
preloaded() { asked env LD_PRELOAD="$ours" "$python" "$ask" torch && is_ours; }
every_name() {
    asked env LD_PRELOAD="$ours" LD_DEBUG=bindings LD_DEBUG_OUTPUT="$work/bindings" "$python" -c 'import torch' ||
        return 1
    cat "$work"/bindings.* | sed -n "s/.*binding file [^ ]*libtorch_cuda.so \[0\] to \([^ ]*\) .*symbol .\(nccl[A-Za-z0-9]*\)'.*/\2 \1/p" | sort -u >"$work/names"
    echo "$(wc -l <"$work/names") names"
    [ "$(wc -l <"$work/names")" -ge 30 ] && ! grep -v " $ours\$" "$work/names"
}
launched() { asked "$railccl" run -n 1 "$python" "$ask" torch && is_ours; }
evaluated() { asked sh -c 'eval "$("$0" env)"; exec "$@"' "$railccl" "$python" "$ask" torch && is_ours; }
opened_before() { asked "$python" "$ask" torch "$ours" && is_ours; }
library_path() { asked env LD_LIBRARY_PATH="$build/lib" "$python" "$ask" torch && says "^calls $theirs\$"; }
exchanged() {
    mkdir "$work/site" && cp -as "$site/." "$work/site/" && rm "$work/site/nvidia/nccl/lib/libnccl.so.2" &&
        cp "$theirs" "$work/site/nvidia/nccl/lib/" || return 1
    asked "$railccl" install --wheel "$work/site" && says "done" &&
        asked env PYTHONPATH="$work/site" "$python" "$ask" torch &&
        says "^calls $work/site/nvidia/nccl/lib/libnccl.so.2\$" && says "^id b'railcuid'" &&
            says "^mapped $work/site/nvidia/nccl/lib/libnccl.so.2\$" || return 1
    asked "$railccl" install --restore --wheel "$work/site" &&
        asked env PYTHONPATH="$work/site" "$python" "$ask" torch &&
        says "^calls $work/site/nvidia/nccl/lib/libnccl.so.2\$" && ! grep -q railcuid "$work/out"
}
cupy_calls() { asked env LD_PRELOAD="$ours" "$python" "$ask" cupy && says "^id b'railcuid'" && says "^mapped $ours\$"; }
cupy_adds() { asked env LD_PRELOAD="$ours" RAILCCL_DEVICE=host NCCL_DEBUG=VERSION "$python" "$ask" cupy_sum 3 &&
    says "from $ours" && says "sum right on 3 ranks"; }

tap_plan 10
tap_case "by itself torch calls the wheel's NCCL" its_own
tap_case "LD_PRELOAD: torch calls ours" preloaded
tap_case "LD_PRELOAD: every name that libtorch_cuda.so binds is ours" every_name
tap_case "railccl run: torch calls ours" launched
tap_case "railccl env: torch calls ours" evaluated
tap_case "ours opened with RTLD_GLOBAL before import torch" opened_before
if readelf -d "$site/torch/lib/libtorch_cuda.so" | grep -q '(RPATH).*nvidia/nccl/lib'; then tap_case "LD_LIBRARY_PATH alone does not reach it" library_path
else tap_skip "LD_LIBRARY_PATH alone does not reach it" "this wheel has no DT_RPATH"; fi
tap_case "railccl install --wheel: torch calls ours and maps no other; --restore: the wheel's" exchanged
if [ -n "$cupy" ]; then
    tap_case "LD_PRELOAD: cupy calls ours" cupy_calls
    tap_case "LD_PRELOAD: three ranks add up ordinary memory through cupy" cupy_adds
else
    tap_skip "LD_PRELOAD: cupy calls ours" "no cupy and numpy in that environment"
    tap_skip "LD_PRELOAD: three ranks add up ordinary memory through cupy" "no cupy and numpy in that environment"
fi
tap_end
