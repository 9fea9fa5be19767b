#!/usr/bin/env bash
# What a lane is worth beside perftest, on one rail of one boot, in interleaved pairs; no test: figures of a shared machine that
# emulates its CPUs. Only the ratios say something, and only of medians.
#   tests/rdma_vm/vm.sh -t 500 bash tests/rdma_vm/yardstick.sh [PAIRS=7]
#   tests/rdma_vm/vm.sh -t 560 bash tests/rdma_vm/yardstick.sh zero [PAIRS=7]   registered buffers, RAILCCL_RDMA_ZERO_COPY 0 and 1
#
#   write      ib_write_bw of 64 KiB, one queue pair, one way                            the yardstick
#   both       the same both ways at once, per direction
#   stream     Broadcast of 32 MiB between two ranks: one lane, one way                  wanted: 85 % of write
#   allreduce  AllReduce of 32 MiB of two ranks: each sends 32 MiB on the cable          wanted: 80 % of write; both ways at once, so
#              the fair comparison on two CPUs is with `both`
# MB/s are 10^6 bytes per second of payload.
. tests/rdma_vm/cases.sh
. tests/rdma_vm/guest.sh
lent=; [ "$1" = zero ] && { lent=1; shift; }
pairs=${1:-7}
mkdir -p $scratch
fabric_up 2 1 || exit 1

written() { # [OPTION...]: MB/s as perftest prints them, of 2^20 bytes
    rounds=1500 yardstick 0 1 0 "$@" | awk '/ib_write_bw/ { printf "%.1f\n", $(NF - 1) * 1.048576 }'
}
moved() { # PROGRAM [OPTION...]: the better of out of place and in place would be a choice; the mean is not
    RAIL_LIMIT_S=120 vm_ranks 2 1 1 "${BUILD:-build}/bin/$1" -b 32M -e 32M -n 3 -w 1 -c 0 "${@:2}" >$scratch/ranks 2>&1 || { cat $scratch/ranks >&2; return 1; }
    sed 's/^\[[0-9]*\] //' $scratch/ranks | awk '$1 == 33554432 { printf "%.1f\n", $1 * 2 / ($6 + (NF > 12 ? $10 : $6)) }'
}
column() { awk -v c="$1" '{ print $c }' $scratch/pairs | sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# Each in both ways, the one that begins in turns.
if [ "$lent" ]; then
    echo "write stream: copied, lent; allreduce: copied, lent (MB/s)"
    for ((i = 0; i < pairs; i++)); do
        write=$(written)
        for ((k = 0; k < 2; k++)); do
            export RAILCCL_RDMA_ZERO_COPY=$(((i + k) % 2))
            stream[RAILCCL_RDMA_ZERO_COPY]=$(moved broadcast_perf -R 1) all[RAILCCL_RDMA_ZERO_COPY]=$(moved all_reduce_perf -R 1)
        done
        echo "$write ${stream[*]} ${all[*]}" | tee -a $scratch/pairs
    done
    awk -v w="$(column 1)" -v c="$(column 2)" -v l="$(column 3)" -v a="$(column 4)" -v b="$(column 5)" 'BEGIN {
        printf "medians of %d: write %.1f, stream %.1f copied, %.1f lent; allreduce %.1f copied, %.1f lent MB/s\n", '"$pairs"', w, c, l, a, b
        printf "stream / write %.0f and %.0f %%, allreduce / write %.0f and %.0f %%\n", 100 * c / w, 100 * l / w, 100 * a / w, 100 * b / w }'
    exit
fi

echo "write both stream allreduce (MB/s)"
for ((i = 0; i < pairs; i++)); do
    write=$(written) both=$(written -b) stream=$(moved broadcast_perf) all=$(moved all_reduce_perf)
    [ -n "$write" ] && [ -n "$both" ] && [ -n "$stream" ] && [ -n "$all" ] || { echo "a measurement failed: '$write' '$both' '$stream' '$all'"; exit 1; }
    echo "$write $(awk "BEGIN { print $both / 2 }") $stream $all" | tee -a $scratch/pairs
done
awk -v w="$(column 1)" -v b="$(column 2)" -v s="$(column 3)" -v a="$(column 4)" 'BEGIN {
    printf "medians of %d: write %.1f, both %.1f, stream %.1f, allreduce %.1f MB/s\n", '"$pairs"', w, b, s, a
    printf "stream / write %.0f %% (wanted 85), allreduce / write %.0f %% (wanted 80), allreduce / both %.0f %%\n", 100 * s / w, 100 * a / w, 100 * a / b }'
