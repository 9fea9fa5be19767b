#!/usr/bin/env bash
# The fuzz targets build, start from their seeds, and nothing breaks them in a few seconds. `make fuzz` takes longer.
. tests/support/tap.sh
tap_plan 1
if command -v clang >/dev/null; then
    tap_case "fuzz targets build, and nothing breaks them in 5 seconds each" \
        env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL FUZZ_SECONDS="${FUZZ_SECONDS:-5}" make fuzz
else
    tap_skip "fuzz targets build, and nothing breaks them in 5 seconds each" "clang is not installed"
fi
tap_end
