#!/usr/bin/env bash
# Measures AllReduce on this machine: 2 and 4 ranks as threads and as processes; then, when a compiler for MPI is there,
# against Open MPI in interleaved pairs. Tables on standard output, JSON under $BUILD/perf/.
#   BUILD=build scripts/perf.sh [--no-mpi]
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
out=$build/perf
rm -rf "$out"
mkdir -p "$out"
failed=0
for n in 2 4; do
    echo "== $n threads"
    "$build/bin/all_reduce_perf" -t $n -b 8 -e 128M -f 4 -n 0 -J "$out/threads-$n.json" || failed=1
    echo "== $n processes"
    "$build/bin/railccl" run -n $n "$build/bin/all_reduce_perf" -b 8 -e 128M -f 4 -n 0 -J "$out/processes-$n.json" || failed=1
done
if [ "${1:-}" != --no-mpi ] && command -v mpicc.openmpi >/dev/null && command -v python3 >/dev/null; then
    perf/compare_mpi.py --build "$build" --json "$out/openmpi.json" || failed=1
else
    echo "(not compared with MPI: needs mpicc.openmpi and python3; scripts/deps.sh compare installs them)"
fi
exit $failed
