#!/usr/bin/env bash
# The torch backend: every operation against gloo, DDP against one process, what goes wrong, the same bits everywhere.
# With the Python in $PYTHON, else Debian's (python3-torch).
. tests/support/tap.sh
lib=$PWD/${BUILD:-build}/lib/libnccl.so.2
skip_all() {
    tap_plan 1
    tap_skip "the torch backend" "$1"
    tap_end
}
python=${PYTHON:-/usr/bin/python3}
command -v "$python" >/dev/null || skip_all "no $python"
[ -f "$lib" ] || skip_all "$lib is not built (make all)"
nm -D "$lib" | grep -qE ' U __(asan|tsan|ubsan)_' && skip_all "a sanitizer's library cannot be loaded into Python"
why=$("$python" -c 'import torch, torch.distributed as d; assert d.is_gloo_available(), "torch without gloo"' 2>&1) ||
    skip_all "$python: $(tail -n 1 <<<"$why") (Debian: apt-get install python3-torch)"
export RAILCCL_LIBRARY=$lib PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
exec "$python" tests/python/check_torch.py "$@"
