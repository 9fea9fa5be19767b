#!/usr/bin/env bash
# Includes point down, and scripts/include_rule.sh would notice if they did not.
. tests/support/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One file with one include, in a tree of its own.
rule_on() { # FILE INCLUDED
    rm -rf "$work/src"
    mkdir -p "$work/src/$(dirname "$1")"
    echo "#include \"$2\"" >"$work/src/$1"
    bash scripts/include_rule.sh "$work/src"
}
refused() { local out; if out=$(rule_on "$1" "$2"); then echo "accepted"; return 1; fi; echo "$out"; [[ $out == *"$1:1:"* ]]; }

up=("base/log.c core/comm.h" "foreign/cuda.c topo/machine.h" "plan/check.c algos/algos.h" "plan/write.c topo/machine.h"
    "algos/ring.c engine/host.h" "algos/ring.c topo/machine.h" "topo/machine.c transport/net.h" "device/host.c engine/host.h"
    "transport/lane/tcp.c transport/link.h" "transport/lane/tcp.c engine/host.h" "transport/shm/shm.c transport/lane/lane.h"
    "transport/link/stripe.c engine/host.h" "engine/host.c core/comm.h" "engine/host.c algos/algos.h" "core/comm.c api/door.h"
    "core/comm.c nccl.h" "elsewhere/x.c base/log.h")
down=("base/log.c base/log.h" "foreign/cuda.c base/log.h" "algos/ring.c plan/plan.h" "plan/plan.h topo/shape.h"
    "transport/link/stripe.c transport/lane/lane.h" "engine/host.c transport/link.h" "core/comm.c engine/host.h"
    "api/door.c core/comm.h" "api/door.h nccl.h")

tap_plan $((1 + ${#up[@]} + ${#down[@]}))
tap_case "all includes of src point down" bash scripts/include_rule.sh src
for pair in "${up[@]}"; do tap_case "${pair% *} may not include ${pair#* }" refused $pair; done
for pair in "${down[@]}"; do tap_case "${pair% *} may include ${pair#* }" rule_on $pair; done
tap_end
