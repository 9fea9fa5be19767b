#!/usr/bin/env bash
# check_plan.sh - `railccl plan` as its users see it: the same numbers as text and as JSON, 131072 ranks within bounds
# of time and
# memory, what it refuses, and drawings that are XML.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
tool=${BUILD:-build}/bin/railccl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/support/tap.sh
result() { tap_result "$1" "$2" "$work/out" "$work/err"; } # STATUS NAME
tap_plan 19

plan() { timeout 250 "$tool" plan "$@" >"$work/out" 2>"$work/err"; }
# The field of the only case, or of case N.
field() {
    python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["cases"][int(sys.argv[3])][sys.argv[2]])' \
        "$work/out" "$1" "${2:-0}"
}

# ---- numbers ----

plan --hosts 4 --rails 2 --gpus 1 --hosts-per-leaf 2 --algo ring --size 64M --json
[ "$(field sent_bytes)" = "$((6 * 67108864)).0" ] || [ "$(field sent_bytes)" = "$((6 * 67108864))" ] &&
    [ "$(field cross_rail_bytes)" = 0 ] && [ "$(field hops)" = 6 ]
result $? "a ring of 4 hosts sends 6 S, in 6 hops, on its rails"

plan --hosts 4 --rails 2 --gpus 1 --hosts-per-leaf 2 --algo ring --size 64M && grep -q "^ring .* 64 MiB" "$work/out" &&
    grep -q "memory:  at most" "$work/out"
result $? "the same as a table, with the bound of memory in front"

plan --hosts 64 --hosts-per-leaf 8 --place shuffled:7 --algo ring,tree,rails --compare --json &&
    python3 - "$work/out" <<'END'
import json, sys
cases = json.load(open(sys.argv[1]))["cases"]
assert len(cases) == 12
by = {(c["algorithm"], c["nics"], c["order"]): c for c in cases}
for a in ("ring", "tree", "rails"):
    best = by[a, "aligned", "ours"]
    assert best["cross_rail_bytes"] == 0
    assert by[a, "unaware", "ours"]["cross_rail_bytes"] > best["sent_bytes"] / 2
    for other in ("unaware", "ours"), ("aligned", "given"), ("unaware", "given"):
        assert by[(a,) + other]["switches_per_byte"] > best["switches_per_byte"], (a, other)
END
result $? "aligned NICs and our order shorten every way, and nothing changes rail"

no_hops="--cost hop_ns=0 --cost switch_ns=0 --cost step_ns=0"
four_rails="--hosts 8 --rails 4 --tiers 1 --gpus 1 --algo ring $no_hops --json"
plan $four_rails && whole=$(field ns) && plan $four_rails --down nic:host3.1 && less=$(field ns) &&
    python3 -c "import sys; sys.exit(not 1.33 < $less / $whole < 1.34)"
result $? "without one of 4 NICs a large message takes four thirds of the time"

plan --hosts 8 --gpus 8 --jobs 2 --algo ring --json && both=$(field ns) &&
    plan --hosts 8 --gpus 8 --jobs 2 --job-hosts 4 --place shuffled:5 --tiers 2 --hosts-per-leaf 2 --order given \
        --algo ring --json &&
    python3 -c "import sys; sys.exit(not $(field ns) > $both)"
result $? "two jobs that share leaves are in each other's way"

# ---- messages ----

plan --hosts 16 --hosts-per-leaf 8 --collective alltoall --size 1G --json &&
    python3 -c "import sys
sys.exit(not ($(field sent_bytes) == 16 * 8 * 15 * 8 * (1 << 30) / 128 and $(field cross_rail_bytes) == 0))"
result $? "AlltoAll of 128 ranks: every host sends its 8 ranks' blocks to 15 others"

# ---- under the call ----

plan $four_rails --size 64G --fail nic:host3.1@100ms..300ms --timeline "$work/fails.svg" &&
    python3 - "$work/out" "$work/fails.svg" <<'END'
import json, sys, xml.dom.minidom
t = json.load(open(sys.argv[1]))
xml.dom.minidom.parse(sys.argv[2])
assert t["shown"] == "host3" and t["lanes_ended"] == t["lanes_back"] == 8
# one millisecond nothing, 200 at three quarters of the pace
assert abs(t["ns"] - t["whole_ns"] - (1 + 200 / 4) * 1e6) < 0.5e6, t["ns"] - t["whole_ns"]
waits = [s for s in t["stretches"] if s["waits"]]
less = [s for s in t["stretches"] if not s["waits"] and s["rail_gbyte_s"][1] == 0]
assert len(waits) == len(less) == 1 and all(r > 0 for k, r in enumerate(less[0]["rail_gbyte_s"]) if k != 1)
assert "dies" in t["events"][0]["what"] and "through" in t["events"][-1]["what"]
END
result $? "a NIC that is dead for 200 ms costs a quarter of them, and what it takes to see it"

plan --hosts 8 --rails 4 --algo ring --size 64G --fail nic:host3.1,silent@100ms &&
    grep -q "by their silence" "$work/out" && grep -q "waits" "$work/out" &&
    grep -q "^ *100 ms  nic:host3.1 dies, and its carrier stays" "$work/out"
result $? "the same as a table, and silent"

# ---- large ----

# AddressSanitizer's shadow alone is terabytes of addresses.
limit_memory() { nm "${BUILD:-build}/bin/railccl" 2>/dev/null | grep -q __asan_init || ulimit -v 4194304; }

for algo in rails ring tree; do
    before=$(awk '{ print $16 + $17 }' /proc/$$/stat) # of children that ended, in ticks
    (limit_memory; plan --hosts 16384 --gpus 8 --rails 8 --tiers 3 --oversubscription 2 --algo $algo --size 16G --json)
    status=$?
    ticks=$(($(awk '{ print $16 + $17 }' /proc/$$/stat) - before))
    [ $status -eq 0 ] && [ "$(field cross_rail_bytes)" = 0 ] && [ "$(field plans)" -ge 131072 ] &&
        [ "$(field by_classes)" = False ] &&
        [ "$ticks" -lt $((10 * $(getconf CLK_TCK))) ]
    result $? "131072 ranks by $algo: all plans built, nothing changes rail, 10 s of a core ($ticks ticks), 4 GiB"
done

# ---- drawings ----

plan --hosts 16 --svg "$work/few.svg" && plan --hosts 512 --down leaf:9 --svg "$work/many.svg" &&
    plan --hosts 16 --sizes 1M:64M --algo all --plot "$work/plot.svg" &&
    python3 -c 'import sys, xml.dom.minidom as m; [m.parse(f) for f in sys.argv[1:]]' "$work"/*.svg &&
    grep -q "leaf:9 is down" "$work/many.svg"
result $? "drawings are XML, and say what is down"

# ---- a fabric file ----

printf 'switch top\nswitch a b under top\nhosts n[01-04] under a\nhosts n[05-08] under b\n' >"$work/fabric"
plan --fabric "$work/fabric" --rails 2 --gpus 2 --down nic:n03.1 --algo ring &&
    grep -q "8 hosts of 2 NICs" "$work/out" && grep -q "nic:n0" "$work/out"
result $? "a fabric file's hosts have their names"

# ---- hosts as they are ----

for h in n1 n2 n3 n4; do cp tests/machines/nvswitch-8gpu-8nic.xml "$work/$h.xml"; done
cp tests/machines/seven-of-eight.xml "$work/n3.xml"
files() { local h; for h in n1 n2 n3 n4; do echo "--topology $work/$h.$1"; done; }
for h in n1 n2 n3 n4; do "$tool" topo --file "$work/$h.xml" --json >"$work/$h.json"; done
plan $(files xml) --algo ring --json && cp "$work/out" "$work/by_xml" && plan $(files json) --algo ring --json &&
    cmp "$work/out" "$work/by_xml" &&
    python3 -c 'import json,sys
sys.exit(json.load(open(sys.argv[1]))["cases"][0]["tiers"][0]["links_up"] != 31)' "$work/out"
result $? "dumps of four hosts, as XML and JSON: 31 NICs, as one host has seven"

printf 'switch top\nswitch a b under top\nhosts n[1-2] under a\nhosts n[3-4] under b\n' >"$work/fabric4"
plan $(files xml) --fabric "$work/fabric4" --algo ring --down nic:n4.0 && grep -q "nic:n" "$work/out" &&
    grep -q "4 hosts of 8 NICs" "$work/out" &&
    grep -q "of 8 ranks" "$work/out" && plan $(files json) --fabric "$work/fabric4" --fail nic:n3.2@1ms --size 16G &&
    grep -q " n3 sees it" "$work/out"
result $? "below a fabric file's switches, by their names"

# ---- bad input: exit status 2, one line that says what ----

refused() { # PATTERN OPTIONS...
    local pattern=$1
    shift
    plan "$@"
    [ $? -eq 2 ] && grep -q -- "$pattern" "$work/err" && return 0
    echo "options $*: wanted $pattern" >>"$work/err"
    return 1
}
refused "99 hosts; the fabric has 16" --job-hosts 99 && refused "1 PiB" --size 2048T &&
    refused "no host host17" --down nic:host17.3 &&
    refused "rate of zero is --down" --slow leaf:0=0 && refused "the fabric has 8 of these" --down leaf:8 &&
    refused "hosts; 1 to" --hosts 99999999 &&
    refused "whole number above 0" --hosts 0 && refused "whole number above 0" --gpus -3 &&
    refused "at most 4294967295" --hosts 99999999999 && refused "what has no rate is --down" --rate 0 &&
    refused "0.000001 to" --rate -5 && refused "0.000001 to" --rate 1e-300 && refused "0.000001 to" --rate inf &&
    refused "64 at most: ask for fewer" --hosts 4 --gpus 1000 &&
    refused "above 0, or two" --oversubscription 0 && refused "above 0, or two" --oversubscription 2,0 &&
    refused "does not reach" --hosts 64 --tiers 1 --algo ring &&
    refused "does not reach" $(printf -- "--down leaf:%d " 0 1 2 3 4 5 6 7) &&
    refused "--memory-limit" --hosts 16384 --memory-limit 0.1 &&
    refused "can be planned" --hosts 1000000 --gpus 8 --memory-limit 64 &&
    refused "does not fit" --algo oneshot && refused "no such option" --bogus &&
    refused "at most 32 sizes" --sizes 1:1T:1.1 &&
    refused "No such file" --fabric "$work/none" && refused "at most 2048" --hosts 4096 --collective alltoall &&
    refused "1 to 127" --collective sendrecv --shift 128 && refused "not negative" --cost hop_ns=-1 &&
    refused "at most 256" --flows 4000000000 &&
refused "twice" --topology "$work/n1.xml" --topology "$work/n1.json" &&
refused "the fabric has 4" --topology "$work/n1.xml" --fabric "$work/fabric4" &&
    refused "No such file" --topology "$work/none.xml" && refused "$work/fabric4" --topology "$work/fabric4" &&
    refused "hosts" --topology "$work/by_xml" &&
    refused "host99" --fail nic:host99.1@1ms && refused "FROM" --fail nic:host3.1 &&
    refused "FROM" --fail nic:host3.1@5 && refused "FROM" --fail leaf:0=2@1ms &&
    refused "after the beginning" --fail nic:host3.1@5ms..2ms && refused "name a part" --timeline "$work/x.svg" &&
    refused "one job" --jobs 2 --fail leaf:0@1ms &&
    refused "does not reach" --hosts 8 --rails 1 --fail nic:host3.0@1ms &&
    refused "one job" --sizes 1M:1G --fail leaf:0@1ms
result $? "what cannot be is refused in one line"

refused "several sizes" --plot "$work/x.svg" && refused "not both" --all --classes &&
    refused "other steps\|its class" --classes --algo tree
result $? "so is what contradicts itself"

# Over all sizes, the chooser's factor and that of the settings: their products' logarithms, and the settings' worst.
factors() { awk '$NF ~ /^[0-9.]+$/ && $(NF - 1) ~ /^[a-z]+$/ && $(NF - 2) ~ /^[0-9.]+$/ {
        n++; a += log($(NF - 2)); b += log($NF); if ($NF > most) most = $NF
    }
    END { print (n == 13), a, b, most }' "$1"; }
for hosts in 8 128; do
    timeout 250 "$tool" tune --hosts $hosts --plot "$work/tune$hosts.svg" >"$work/tune$hosts" 2>"$work/err"
done
"$tool" tune --hosts 8 --json >"$work/out" 2>"$work/err"
[ $? -eq 2 ] && cat "$work/tune8" "$work/tune128" >"$work/out" &&
    [ "$(grep -c "^  RAILCCL_[A-Z_]*=[0-9]*$" "$work/tune128")" = 4 ] &&
    grep -q "</svg>" "$work/tune128.svg" && [ "$(factors "$work/tune8" | awk '{ print ($1 && $3 < $2) }')" = 1 ] &&
    [ "$(factors "$work/tune128" | awk '{ print ($1 && $3 < $2 && $4 < 1.05) }')" = 1 ]
result $? "tune's settings are better than the chooser's, and on 1024 ranks the fastest at every size"

plan --help && grep -q "^Usage: railccl plan" "$work/out" && "$tool" help | grep -q "^  plan "
result $? "help helps"
tap_end
