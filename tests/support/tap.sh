# tap.sh - for test scripts: `. tests/support/tap.sh; tap_plan 2; tap_case "name" COMMAND...; tap_skip "name" "why"; tap_end`
tap_number=0 tap_failed=0

tap_plan() { echo "1..$1"; }

# The case passes when the command succeeds; what the command printed is shown when it does not.
tap_case() {
    local name=$1 output
    shift
    tap_number=$((tap_number + 1))
    if output=$("$@" 2>&1); then
        echo "ok $tap_number - $name"
    else
        echo "not ok $tap_number - $name"
        tap_failed=$((tap_failed + 1))
        printf '%s\n' "$output" | tail -n 40 | sed 's/^/# /'
    fi
}

# For what the script has run itself: its status, and the files that hold what it printed.
tap_result() { # STATUS NAME FILE...
    tap_case "$2" eval "cat ${*:3}; [ $1 -eq 0 ]"
}

tap_skip() {
    tap_number=$((tap_number + 1))
    echo "ok $tap_number - $1 # SKIP $2"
}

# Runs the arrays cases and steps (a command line each) one by one, not in a subshell as tap_case has it: a case leaves its
# rig to the next one. Shows the last LINES of what a case that passed has printed. With a reason all are skipped.
tap_steps() { # LINES [REASON]
    local i out status
    out=$(mktemp)
    for i in "${!cases[@]}"; do
        [ -z "${2:-}" ] || { tap_skip "${cases[$i]}" "$2"; continue; }
        ${steps[$i]} >"$out" 2>&1
        status=$?
        tap_case "${cases[$i]}" eval "cat $out; [ $status -eq 0 ]"
        [ $status -ne 0 ] || tail -n "$1" "$out" | sed 's/^/# /'
    done
    rm -f "$out"
}

tap_end() { exit $((tap_failed > 0)); }
