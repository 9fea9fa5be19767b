#!/usr/bin/env bash
# check_tune.sh - `railccl tune --measure` as its users see it: a small sweep, what follows from times that are known, the
# tuning file and who reads it, deadlines, signals, and what it refuses.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
tool=$PWD/${BUILD:-build}/bin/railccl
perf=$PWD/${BUILD:-build}/bin/all_reduce_perf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset RAILCCL_ALGO NCCL_ALGO RAILCCL_TUNING_FILE XDG_CACHE_HOME
export HOME=$work/home TMPDIR=$work/tmp NCCL_DEBUG=
mkdir "$work/home" "$work/tmp"
. tests/support/tap.sh
result() { tap_result "$1" "$2" "$work/out" "$work/err"; } # STATUS NAME
tap_plan 15

tune() { timeout 250 "$tool" tune --measure "$@" >"$work/out" 2>"$work/err"; }
refused() { # WORDS ARGUMENTS...
    tune "${@:2}"
    [ $? -eq 2 ] && [ ! -s "$work/out" ] && grep -q -- "$1" "$work/err"
}

# ---- measuring ----

tune -n 2 --rounds 2 --sizes 1K:4K --json "$work/a.json" --plot "$work/a.svg"
[ $? -le 1 ] && python3 - "$work/a.json" "$work/a.svg" <<'END'
import json, sys, xml.dom.minidom
a = json.load(open(sys.argv[1]))
assert (a["ranks"], a["hosts"], a["rounds"]) == (2, 1, 2) and a["processor"] and a["cores"] >= 1
(s,) = a["sweeps"]
assert s["collective"] == "all_reduce" and [k["size"] for k in s["sizes"]] == [1024, 2048, 4096]
for k in s["sizes"]:
    assert k["chooser"] == "oneshot" and "RAILCCL_ONESHOT_MAX_BYTES" in k["why"], k
    assert {"chooser", "oneshot", "twoshot", "ring", "tree", "doubling"} <= set(k["us"]) and len(k["us"]["chooser"]) == 2
    assert all(t > 0 for times in k["us"].values() for t in times) and k["factor"] >= 1
    assert k["above"] == (k["factor"] > 1.10)
xml.dom.minidom.parse(sys.argv[2])
END
result $? "a sweep runs the chooser and every algorithm, in rounds; JSON and SVG"

tune -n 3 --hosts-emulate 3 --rounds 1 --sizes 4K:8K --collective all_gather,reduce --json "$work/b.json"
[ $? -le 1 ] && python3 - "$work/b.json" <<'END'
import json, sys
b = json.load(open(sys.argv[1]))
assert [s["collective"] for s in b["sweeps"]] == ["reduce", "all_gather"] and b["hosts"] == 3
assert set(b["sweeps"][0]["sizes"][0]["us"]) == {"chooser", "ring", "tree", "ranktree"}, b["sweeps"][0]["sizes"][0]
gather = b["sweeps"][1]["sizes"]
assert all(abs(k["bytes"] * 3 - k["size"]) < 12 and "oneshot" not in k["us"] for k in gather)
END
result $? "other collectives, on pretended hosts: what does not fit there is not run; sizes are blocks for the chooser"

[ -z "$(ls -A "$work/tmp")" ]
result $? "nothing is left in the folder for temporary files"

# ---- what follows: times that are made up ----

# Two-shot is faster from 4 KiB on, by half an octave's distance; the chooser of 4 ranks takes one-shot up to 32 KiB.
python3 - "$work/made.json" <<'END'
import json, sys
sizes = []
for k in range(10, 18):
    s = 1 << k
    one, two = s / 1000.0, (2.0 ** 11.5) / 1000 * (s / 2.0 ** 11.5) ** 0.5
    took = "oneshot" if s <= 32768 else "twoshot"
    us = {"oneshot": [one] * 3, "twoshot": [two] * 3, "ring": [5 * (one + two)] * 1}
    # a machine that slows down from round to round, for all alike: ratios do not see it
    us = {n: [t * (1 + r) for r, t in enumerate(v)] for n, v in us.items()}
    us["chooser"] = us[took]
    sizes.append({"size": s, "bytes": s, "chooser": took, "us": us})
json.dump({"ranks": 4, "hosts": 1, "rounds": 3, "cores": 2, "processor": "made <up>",
           "sweeps": [{"collective": "all_reduce", "sizes": sizes}]}, open(sys.argv[1], "w"))
END
tune --from "$work/made.json" --json "$work/c.json" --plot "$work/c.svg"
[ $? -eq 1 ] && python3 - "$work/c.json" "$work/c.svg" <<'END'
import json, sys, xml.dom.minidom
c = json.load(open(sys.argv[1]))
by = {k["size"]: k for k in c["sweeps"][0]["sizes"]}
assert [s for s, k in by.items() if k["above"]] == [4096, 8192, 16384, 32768]
assert abs(by[8192]["factor"] - 2 ** 0.75) < 1e-6 and by[8192]["fastest"] == "twoshot"
assert by[2048]["factor"] == 1 and by[2048]["fastest"] == "oneshot" and by[65536]["factor"] == 1
assert all(k["tuned"] == k["fastest"] for k in by.values())
assert list(c["settings"]) == ["RAILCCL_ONESHOT_MAX_BYTES"]
assert abs(int(c["settings"]["RAILCCL_ONESHOT_MAX_BYTES"]) / 2 ** 11.5 - 1) < 0.01, c["settings"]
xml.dom.minidom.parse(sys.argv[2])
END
result $? "known times: factors of pairs, the crossing between two sizes, and a status that says so"

tune --from "$work/made.json"
grep -q "^ *8 KiB  oneshot .* twoshot .* 1.68 \* twoshot  *<= RAILCCL_ONESHOT_MAX_BYTES=32768$" "$work/out" &&
    grep -q "^4 of 8 sizes are above 1.10" "$work/out" && grep -q "^  RAILCCL_ONESHOT_MAX_BYTES=28[0-9][0-9]$" "$work/out" &&
    grep -q "Left alone.*RAILCCL_TWOSHOT_MAX_BYTES" "$work/out"
result $? "the table: the choice, its reason, the mark, the settings, and what hangs on other collectives"

tune --from "$work/c.json" --json "$work/d.json"
cmp -s "$work/c.json" "$work/d.json"
result $? "what --json writes is what --from reads"

# ---- the file ----

tune --from "$work/made.json" --save
saved=$(find "$work/home/.cache/railccl" -name '*.conf')
[ "$(echo "$saved" | wc -l)" = 1 ] && grep -q "^\[ranks=4 hosts=1\]$" "$saved" &&
    grep -q "^RAILCCL_ONESHOT_MAX_BYTES=28[0-9][0-9]$" "$saved" && ! grep -q TWOSHOT "$saved" && grep -q "^# Processor: made <up>$" "$saved"
result $? "--save writes the limits that differ from the built-in ones, by ranks and hosts"

NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=TUNING timeout 60 "$tool" run -n 4 "$perf" -b 1K -e 1K -n 1 -w 0 >"$work/out" 2>"$work/err"
[ $? -eq 0 ] && grep -q "tuning file $saved: limits for 1 shape" "$work/out" &&
    [ "$(grep -c "rank 0 of 4: RAILCCL_ONESHOT_MAX_BYTES=28[0-9][0-9] by the tuning file" "$work/out")" = 1 ]
result $? "ranks that start read it, and say so"

tune --from "$work/made.json" --json "$work/e.json"
grep -q "8 KiB .*this library would take twoshot" "$work/out"
result $? "what was measured under other limits is told apart"

sed -i 's/ranks=4/ranks=8/' "$saved"
tune --from "$work/made.json" --save
tune --from "$work/made.json" --save # a second time: no second section
[ "$(grep -c "^\[ranks=8 hosts=1\]$" "$saved")" = 1 ] && [ "$(grep -c "^\[ranks=4 hosts=1\]$" "$saved")" = 1 ] &&
    [ "$(grep -c "^RAILCCL" "$saved")" = 2 ]
result $? "other shapes stay, the same shape is replaced"

echo "rubbish" >"$saved"
timeout 60 "$tool" run -n 2 -x NCCL_DEBUG=WARN "$perf" -b 1K -e 1K -n 1 -w 0 >"$work/out" 2>"$work/err"
rc=$?
tune --from "$work/made.json" --save
[ $rc -eq 0 ] && grep -q "was broken (line 1, \"rubbish\"" "$work/err" && head -1 "$saved" | grep -q "^# Limits of railccl"
result $? "a broken file stops nobody, and --save writes it anew"

# ---- refusals and ends ----

RAILCCL_ONESHOT_MAX_BYTES=5 refused "RAILCCL_ONESHOT_MAX_BYTES is set" --from "$work/made.json" --save &&
    RAILCCL_TUNING_FILE=off refused "is \"off\"" --from "$work/made.json" --save &&
    RAILCCL_TUNING_FILE=/proc/none/x tune --from "$work/made.json" --save
[ $? -eq 2 ] && grep -q "/proc/none/x: .*RAILCCL_TUNING_FILE names another" "$work/err"
result $? "--save says what stands in its way"

RAILCCL_ALGO=ring refused "RAILCCL_ALGO is set" -n 2 && refused "from 2 to 1024" -n 1 && refused "8 <= A <= B" --sizes 1M:1K &&
    refused "a rank a host" -n 2 --hosts-emulate 3 && refused "names out of" --collective allreduce && refused "no such option" --frm x &&
    refused "No such file" --from "$work/none" && refused "not what" --from <(echo '{"ranks": 2}') &&
    refused "from:" --from <(echo '{') && TMPDIR=$work/none refused "TMPDIR names another" -n 2 --sizes 8:8 &&
    TMPDIR=$work/none refused "$work/none/x: cannot be written" -n 2 --sizes 8:8 --json "$work/none/x" &&
    TMPDIR=$work/none refused "$work/none/x: cannot be written" -n 2 --sizes 8:8 --plot "$work/none/x"
result $? "what cannot be is refused in one line"

tune -n 2 --sizes 64M:4G --timeout 1 --rounds 1
[ $? -eq 2 ] && grep -q "took more than 1 s: --timeout S allows more" "$work/err" && [ -z "$(ls -A "$work/tmp")" ]
result $? "a run that takes too long ends, with the remedy"

timeout -s INT -k 20 4 "$tool" tune --measure -n 2 --sizes 8:1G --rounds 9 --timeout 240 >"$work/out" 2>"$work/err"
sleep 1
[ -z "$(ls -A "$work/tmp")" ] && ! pgrep -f "$perf -b 4 -e 1073741824" >/dev/null
result $? "an interrupt ends all ranks and leaves nothing"
tap_end
