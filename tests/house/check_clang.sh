#!/usr/bin/env bash
# The library, its programs and all tests build with clang, with every warning an error. Nothing of it runs, so nothing is
# optimised: that takes a third of the time. But for the arithmetic, whose inlined branches would fill gigabytes.
. tests/support/tap.sh
tap_plan 1
if command -v clang >/dev/null; then
    tap_case "everything builds with $(clang --version | head -1) without a warning" \
        env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -j"$(nproc)" CC=clang OPT=-O0 DEVICE_OPT=-O1 BUILD=build-clang all tests
else
    tap_skip "everything builds with clang without a warning" "clang is not installed"
fi
tap_end
