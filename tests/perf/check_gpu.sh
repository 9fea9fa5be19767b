#!/usr/bin/env bash
# The benchmarks with ranks on GPUs (of the emulated driver): buffers in device memory, CUDA graphs, every shape of a
# launch, several ranks on one GPU, and that a wrong element is seen there, too.
. tests/support/tap.sh
build=$(realpath "${BUILD:-build}")
bin=$build/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
perf=$bin/all_reduce_perf run="timeout 100 $bin/railccl run --timeout 90"
export RAILCCL_CUDA_LIBRARY=$build/tests/emulated_cuda/libcuda.so.1
export RAILCCL_CUDA_KERNEL=$build/tests/emulated_cuda/interpreter.so
export EMULATED_CUDA_DEVICES=4
# A real driver's objects go with their context, which the benchmark gives up as it ends; the emulated one's do not. That the
# library gives back what it takes is counted elsewhere (cuda_census in core/test_gpu and device/test_cuda_faults).
echo 'leak:libcuda.so.1' >lsan
export LSAN_OPTIONS="suppressions=$work/lsan:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"

# ROWS COMMAND...: exit status 0, that many rows, none with a wrong element, and every rank on a GPU
good() {
    local rows=$1
    shift
    timeout 60 "$@" >out 2>&1 || { echo "exit status $?"; tail -n 20 out; return 1; }
    tail -n 20 out
    [ "$(awk '$1 ~ /^[0-9]+$/ && NF >= 13' out | wc -l)" -eq "$rows" ] && grep -q '^# Out of bounds values : 0 OK' out &&
        ! grep -q 'device host-memory' out && grep -q 'device gpu' out &&
        ! awk '$1 ~ /^[0-9]+$/ && ($9 != 0 || ($13 != 0 && $13 != "N/A"))' out | grep .
}
# Wrong elements in both placements, in the footer, and in the exit status.
caught() {
    timeout 100 "$@" >out 2>err && { echo "exit status 0"; return 1; }
    tail -n 20 out err
    grep -q 'Out of bounds values : .* FAILED' out &&
        awk '$1 ~ /^[0-9]+$/ {rows++; if ($9 > 0 && $13 > 0) seen++} END {exit !(rows > 0 && rows == seen)}' out
}
devices() { # WANTED COMMAND...: the ranks' devices, in order
    local wanted=$1
    shift
    good 1 "$@" && [ "$(awk '/^# +Rank/ {sub(/@.*/, "", $NF); printf "%s ", $NF}' out)" = "$wanted " ]
}
host_memory() {
    RAILCCL_DEVICE=host timeout 100 "$perf" -t 2 -b 64 -e 64 >out 2>&1 && tail -n 20 out &&
        [ "$(grep -c 'device host-memory' out)" -eq 2 ]
}
graphs_are_told() {
    good 1 "$perf" -t 2 -b 64 -e 64 -G 2 -n 3 -J g.json && grep -q '"graph": 2' g.json && grep -q 'graph: 2' out
}
graph_refused() {
    RAILCCL_DEVICE=host "$perf" -t 2 -b 64 -e 64 -G 1 >out 2>&1
    [ $? -eq 2 ] && grep -q -- '--cudagraph 1: .*host memory' out
}

each_iteration() { # the time of an operation, not of handing it over: more than nothing, and less than all of them
    timeout 100 "$perf" -t 2 -I 1 -b 4K -e 4K -n 5 -w 1 -J i.json >out 2>&1 && tail -n 20 out && python3 - <<'END'
import json
row = json.load(open("i.json"))["results"][0]
each = row["out_of_place_per_iter"]["times_us"]
assert len(each) == 5 and sum(each) / 5 >= 0.5 * row["out_of_place"]["time"], row
END
}

tap_plan 44
tap_case "threads, a GPU each" devices "gpu0 gpu1 gpu2" "$perf" -t 3 -b 4K -e 4K -n 3 -w 1
tap_case "a thread with several GPUs" devices "gpu0 gpu1 gpu2 gpu3" "$perf" -t 2 -g 2 -b 4K -e 4K -n 3 -w 1
tap_case "processes, a GPU each" devices "gpu0 gpu1 gpu2" $run -n 3 "$perf" -b 4K -e 4K -n 3 -w 1
tap_case "the first GPU is chosen" devices "gpu3 gpu0" env NCCL_TESTS_DEVICE=3 "$perf" -t 2 -b 4K -e 4K -n 3 -w 1
tap_case "threads on one GPU" devices "gpu0 gpu0" env EMULATED_CUDA_DEVICES=1 "$perf" -t 2 -b 4K -e 4K -n 3 -w 1
tap_case "processes on one GPU" devices "gpu0 gpu0" env EMULATED_CUDA_DEVICES=1 $run -n 2 "$perf" -b 4K -e 4K -n 3 -w 1
tap_case "sizes" good 4 "$perf" -t 2 -b 8 -e 2M -f 64 -n 3 -w 1
tap_case "operators and types" good 24 "$perf" -t 2 -b 1000 -e 1000 -d all -o avg -n 1 -w 0 -N 2
tap_case "misaligned by a byte" good 1 "$perf" -t 2 -u 1b -b 4K -e 4K -n 2 -w 1
tap_case "several operations in a group, several checks" good 1 "$perf" -t 2 -m 4 -c 3 -b 4K -e 4K -n 2 -w 1
tap_case "registered buffers" good 1 "$perf" -t 2 -R 1 -b 64K -e 64K -n 2 -w 1
tap_case "a barrier after each operation" good 1 "$perf" -t 2 -z 1 -b 4K -e 4K -n 3 -w 1
tap_case "each iteration timed" each_iteration
tap_case "a graph, threads" good 2 "$perf" -t 2 -G 3 -b 64 -e 64K -f 1024 -n 4 -w 1
tap_case "a graph, processes" good 2 $run -n 2 "$perf" -G 3 -b 64 -e 64K -f 1024 -n 4 -w 1
tap_case "a graph of groups" good 1 "$perf" -t 2 -G 3 -m 3 -b 4K -e 4K -n 4 -w 1
tap_case "graphs are told" graphs_are_told
tap_case "graphs of host memory are refused" graph_refused
tap_case "RAILCCL_DEVICE=host is host memory" host_memory
tap_case "a spoiled output is caught" caught "$perf" -t 3 -b 4 -e 4K -f 32 -n 1 -w 1 --break
tap_case "a spoiled input is caught on every rank" caught "$perf" -t 3 -b 4 -e 4K -f 32 -n 1 -w 1 --break=input
tap_case "a byte outside of the buffer is caught" caught "$perf" -t 3 -b 4 -e 4K -f 32 -n 1 -w 1 --break=guard
tap_case "copy: the driver's" good 2 "$bin/copy_perf" -t 2 -b 16 -e 16K -f 1024 -n 2 -w 1
tap_case "copy: a graph" good 1 "$bin/copy_perf" -t 2 -b 16K -e 16K -n 2 -w 1 -G 2
for s in all_gather reduce_scatter broadcast reduce gather scatter alltoall alltoallv sendrecv hypercube; do
    tap_case "$s" good 2 "$bin/${s}_perf" -t 4 -b 16 -e 16K -f 1024 -n 2 -w 1
    tap_case "$s: a graph" good 1 "$bin/${s}_perf" -t 2 -b 16K -e 16K -n 2 -w 1 -G 2
done
tap_end
