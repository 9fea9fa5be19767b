#!/usr/bin/env bash
# Shows AllReduce between 4 processes on 2 hosts of 2 ranks, from 8 bytes to 128 MiB, every element checked.
#
#        host a                      host b
#   rank 0 - rank 1   <- TCP ->  rank 2 - rank 3          inside a host: shared memory
#
# As root the hosts are network namespaces joined by a virtual cable; otherwise this host plays both, over loopback.
#   BUILD=build scripts/demo.sh [--loopback]
set -u
export RAILCCL_DEVICE=host # two hosts in one machine: its GPUs are nobody's
cd "$(dirname "$0")/.." || exit 1
. scripts/two_namespaces.sh
bin=${BUILD:-build}/bin
start=$(date +%s)
work=$(mktemp -d)
a=rail-demo-$$-a b=rail-demo-$$-b

cleanup() {
    namespaces_gone "$a" "$b"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ "${1:-}" != --loopback ] && two_namespaces "$a" "$b" 2>"$work/why"; then
    hosts=(--netns "$a,$b") how="2 network namespaces joined by a virtual cable, MTU 9000"
else
    hosts=(--hosts-emulate 2) how="2 pretended hosts on this machine, over loopback"
    if [ -s "$work/why" ]; then echo "(no network namespaces here: $(head -n 1 "$work/why"))"; fi
fi

echo "4 processes, 2 hosts x 2 ranks: $how"
echo
"$bin/railccl" run -n 4 "${hosts[@]}" --no-prefix --timeout 200 "$bin/all_reduce_perf" -b 8 -e 128M -f 2 -n 0 -c 1 | tee "$work/table"
status=${PIPESTATUS[0]}

# The table itself, not only the exit status: 25 sizes, two placements, all columns "#wrong" 0, four ranks.
rows=$(awk '$1 ~ /^[0-9]+$/ && NF == 13 && $9 == 0 && $13 == 0' "$work/table" | wc -l)
ranks=$(grep -c '^#  Rank' "$work/table")

# And the check can fail: one byte of one result is spoiled on purpose.
"$bin/railccl" run -n 4 "${hosts[@]}" --no-prefix --timeout 60 "$bin/all_reduce_perf" -b 1M -e 1M -n 1 --break >"$work/spoiled" 2>&1
spoiled=$?
found=$(awk '$1 ~ /^[0-9]+$/ && NF == 13 && $9 == 1 && $13 == 1' "$work/spoiled" | wc -l)

seconds=$(($(date +%s) - start))
if [ "$status" -eq 0 ] && [ "$rows" -eq 25 ] && [ "$ranks" -eq 4 ] && [ $spoiled -ne 0 ] && [ "$found" -eq 1 ]; then
    echo "PASS: AllReduce of 4 processes as 2 hosts x 2 ranks ($how), 8 B to 128 MiB: 50 results, every element checked on every"
    echo "      rank, none wrong; a byte spoiled on purpose was found. $seconds s."
    exit 0
fi
echo "FAIL: exit status $status (want 0), $rows of 25 sizes without a wrong element, $ranks of 4 ranks;" \
     "spoiled byte: exit status $spoiled (want 1), found in $found of 1 row. $seconds s."
[ "$found" -eq 1 ] || tail -n 20 "$work/spoiled"
exit 1
