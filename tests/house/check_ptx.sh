#!/usr/bin/env bash
# The plan is freestanding: clang makes PTX of plan.h and ranges.h without any CUDA toolkit.
. tests/support/tap.sh
name="plan.h and ranges.h compile to PTX"
tap_plan 1
out=$(bash tests/plan/ptx.sh 2>&1)
case $? in
0) tap_case "$name" true ;;
77) tap_skip "$name" "$out" ;;
*) tap_case "$name" sh -c 'echo "$1"; false' - "$out" ;;
esac
tap_end
