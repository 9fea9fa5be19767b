#!/usr/bin/env bash
# The library and its rails on a real verbs stack, Linux's Soft-RoCE, in a virtual machine of its own: `make check-rdma`, some
# minutes at most. vm.sh says what the machine is, cases.sh what is proven. Where there can be no machine the cases are
# skipped with the reason; with RAIL_RDMA_REQUIRED=1 they fail. RAIL_RDMA_LIMIT_S=500 for what runs inside.
. tests/support/tap.sh
. tests/rdma_vm/cases.sh

if [ "${1:-}" = inside ]; then
    . tests/rdma_vm/guest.sh
    tap_steps 2
    tap_end
fi

tap_plan ${#cases[@]}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
trap 'exit 1' INT TERM HUP
tests/rdma_vm/vm.sh -t "${RAIL_RDMA_LIMIT_S:-500}" -o "$out" bash tests/rdma_vm/check_rdma.sh inside 2>"$out/why"
status=$?
if [ $status -eq 77 ]; then
    why=$(tail -n 1 "$out/why")
    for name in "${cases[@]}"; do
        if [ "${RAIL_RDMA_REQUIRED:-0}" = 1 ]; then
            tap_case "$name" eval 'echo "required by RAIL_RDMA_REQUIRED=1, but: $why"; false'
        else
            tap_skip "$name" "$why"
        fi
    done
    tap_end
fi
sed 's/^/# /' "$out/why"
# What a kernel says of itself when it is wrong, though nothing died of it.
grep -E 'WARNING:|BUG:|Oops|rdma_rxe: .*[Ff]ail|hung_task|blocked for more' "$out/dmesg" | head -n 5 | sed 's/^/# kernel: /'
exit $status
