#!/usr/bin/env bash
# ceiling_perf does the bytes of every collective it names and checks them itself; here: that it runs for all of them, with
# shares that are no whole lines and more threads than lines, and what it says to options that it does not take.
. tests/support/tap.sh
ceiling=${BUILD:-build}/bin/ceiling_perf

# ROWS OPTION...: so many rows of size, zero-copy and staged time, all above 0.
rows() {
    local wanted=$1
    shift
    "$ceiling" "$@" | awk -v wanted="$wanted" '/^#/ { next } NF != 3 || $2 <= 0 || $3 <= 0 { bad++ } { n++ } END { exit bad || n != wanted }'
}
# OPTION...: exit status 2, and the option by name.
refused() {
    local text status
    text=$("$ceiling" "$@" 2>&1)
    status=$?
    [ $status -eq 2 ] && grep -q -- "${1}" <<<"$text"
}

tap_plan 6
for what in all_reduce all_gather reduce_scatter; do
    tap_case "$what of 2, 3 and 8 ranks is done right" eval \
        "rows 3 -c $what -n 2 -b 4K -e 64K && rows 3 -c $what -n 3 -b 5000 -e 80000 -t 3 && rows 1 -c $what -n 8 -b 8K -e 8K -t 5"
done
tap_case "more threads than lines have nothing to do, and end" rows 1 -n 2 -b 128 -e 128 -t 16
tap_case "one rank is refused" refused -n 1
tap_case "a collective that it does not know is refused" refused -c broadcast
tap_end
