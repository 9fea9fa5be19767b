#!/usr/bin/env bash
# kernel_perf over the emulated driver: the kernel combines what it is given, whatever the number of blocks and sources, and
# what is wrong is seen. Its speed is none: devices are host memory.
. tests/support/tap.sh
build=$(realpath "${BUILD:-build}")
perf=$build/bin/kernel_perf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export RAILCCL_CUDA_LIBRARY=$build/tests/emulated_cuda/libcuda.so.1
export RAILCCL_CUDA_KERNEL=$build/tests/emulated_cuda/interpreter.so
export EMULATED_CUDA_MULTIPROCESSORS=20
echo 'leak:libcuda.so.1' >lsan # as in check_gpu.sh: the emulated driver's own
export LSAN_OPTIONS="suppressions=$work/lsan:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"

# ROWS ARGUMENTS...: exit status 0, that many rows with a time, none with a wrong element
good() {
    local rows=$1
    shift
    timeout 60 "$perf" -n 2 "$@" >out 2>&1 || { echo "exit status $?"; tail -n 20 out; return 1; }
    tail -n 20 out
    [ "$(awk '$1 ~ /^[0-9]+$/ && NF == 8 && $4 > 0 && $8 == 0' out | wc -l)" -eq "$rows" ] &&
        grep -q '^# Out of bounds values : 0 OK' out
}
shapes() { # the columns: sources and blocks of each row
    good 12 -b 64K -e 64K && [ "$(awk '$1 ~ /^[0-9]+$/ {printf "%s:%s ", $2, $3}' out)" = \
        "1:8 1:16 1:32 1:20 2:8 2:16 2:32 2:20 4:8 4:16 4:32 4:20 " ]
}
# GB/s of the kernel is (sources + 1) x size / time, as printed.
formula() {
    good 3 -b 1M -e 1M -B 4 && awk '$1 ~ /^[0-9]+$/ { want = ($2 + 1) * $1 / $4 / 1000
        if ($5 < 0.98 * want - 0.01 || $5 > 1.02 * want + 0.01) { print "expected", want; bad = 1 } } END { exit bad }' out
}
spoiled() {
    timeout 60 "$perf" -b 4K -e 64K -f 4 -n 1 --break >out 2>&1 && { echo "exit status 0"; return 1; }
    tail -n 20 out
    grep -q 'Out of bounds values : .* FAILED' out && ! awk '$1 ~ /^[0-9]+$/ && $8 == 0' out | grep .
}
without_a_gpu() {
    RAILCCL_CUDA_LIBRARY=/nowhere/libcuda.so.1 timeout 60 "$perf" -b 4K -e 4K >out 2>&1
    [ $? -eq 1 ] && cat out && grep -q /nowhere/libcuda.so.1 out
}
refused() { # ARGUMENTS...
    timeout 60 "$perf" "$@" >out 2>&1
    local status=$?
    cat out
    [ $status -eq 2 ] && grep -q usage out
}
out_of_memory() {
    timeout 60 "$perf" -b 1K -e 1T -f 1048576 >out 2>&1
    [ $? -eq 1 ] && cat out && grep -q CUDA_ERROR_OUT_OF_MEMORY out
}

tap_plan 18
tap_case "1, 2 and 4 sources by 8, 16, 32 blocks and one per multiprocessor" shapes
tap_case "bandwidth is what the memory moves" formula
tap_case "sizes that are not multiples of anything" good 8 -b 1 -e 4M -f 7 -d int8 -s 3 -B 5
tap_case "as many sources as there can be" good 1 -b 100K -e 100K -s 64 -B 16
for type in half bfloat16 double f8e4m3 int32 uint64; do
    tap_case "$type" good 2 -b 300000 -e 300000 -d $type -s 2,4 -B 16
done
for op in prod max min; do tap_case "$op" good 2 -b 300000 -e 300000 -d half -o $op -s 2,4 -B 16; done
tap_case "a spoiled result is seen" spoiled
tap_case "without a GPU it says so" without_a_gpu
tap_case "memory that the device does not have is named" out_of_memory
tap_case "numbers of blocks are numbers" refused -B 8,many
tap_case "more sources than the kernel takes are refused" refused -s 65
tap_end
