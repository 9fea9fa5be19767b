#!/usr/bin/env bash
# Includes point down: for every #include "..." in the tree, is the including layer allowed to know the included file?
#   scripts/include_rule.sh [DIRECTORY=src]      prints FILE:LINE: reason for each that is not; exits 1 if there is one
set -u
cd "${1:-src}" || exit 2
# A layer is a folder (the longest that matches); what follows it are the folders and files it may include. New folders
# get a line here, and their place in ARCHITECTURE.md.
find . -name '*.[ch]' -o -name '*.def' -o -name '*.cu' | sort | sed 's|^\./||' | xargs -r grep -nHE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' |
awk -F: '
BEGIN {
    may["base"]           = "base"
    may["foreign"]        = "base foreign"
    may["device"]         = "base foreign device"
    may["plan"]           = "base plan topo/shape.h"
    may["algos"]          = "base plan algos topo/shape.h"
    may["topo"]           = "base foreign topo"
    may["simulate"]       = "base plan algos topo transport/link/repair.h transport/link/silence.h simulate"
    may["bootstrap"]      = "base foreign topo/machine.h bootstrap"
    may["telemetry"]      = "base telemetry"
    may["transport/lane"] = "base foreign bootstrap telemetry topo/machine.h transport/lane transport/net.h"
    may["transport/shm"]  = "base foreign device telemetry transport/shm transport/link.h"
    may["transport"]      = "base foreign device plan bootstrap telemetry topo/shape.h topo/machine.h topo/rails.h transport"
    may["engine"]         = "base foreign device plan telemetry topo/shape.h transport engine"
    may["core"]           = "base foreign device plan algos topo simulate bootstrap telemetry transport engine core"
    may["api"]            = may["core"] " api nccl.h nccl_device.h railccl.h"
}
{
    file = $1
    included = $0
    sub(/^[^"]*"/, "", included)
    sub(/".*/, "", included)
    layer = ""
    for (l in may) if (index(file, l "/") == 1 && length(l) > length(layer)) layer = l
    if (layer == "") { printf "%s:%s: this folder is no layer known to scripts/include_rule.sh\n", file, $2; bad = 1; next }
    n = split(may[layer], allowed, " ")
    for (i = 1; i <= n; i++) if (included == allowed[i] || index(included, allowed[i] "/") == 1) next
    printf "%s:%s: %s may not include \"%s\" (only: %s)\n", file, $2, layer, included, may[layer]
    bad = 1
}
END { exit bad }'
