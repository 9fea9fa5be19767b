#!/usr/bin/env bash
# railccl run: what a rank is told, exit statuses, signals, output, and that nothing stays behind.
. tests/support/tap.sh
railccl=$PWD/${BUILD:-build}/bin/railccl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

run() { "$railccl" run "$@"; } # in the foreground; in the background $! must be railccl itself

# EXPECTED COMMAND...: the exit status
status() {
    local want=$1 got
    shift
    "$@"
    got=$?
    echo "exit status $got, expected $want"
    [ $got -eq "$want" ]
}
# TEXT COMMAND...: somewhere in the output, whatever the exit status
says() {
    local want=$1 got
    shift
    got=$("$@" 2>&1)
    printf 'expected: %s\ngot: %s\n' "$want" "$got"
    [[ $got == *"$want"* ]]
}
# Waits up to 5 s until no process has this marker in its environment.
nobody() {
    local i
    for i in $(seq 50); do
        grep -lsa "MARK=$1" /proc/[0-9]*/environ >"$work/left" || return 0
        sleep 0.1
    done
    cat "$work/left"
    return 1
}
# Waits up to 5 s for a file with that many lines.
lines() {
    local i
    for i in $(seq 100); do
        [ "$(cat "$1" 2>/dev/null | wc -l)" -ge "$2" ] && return 0
        sleep 0.05
    done
    return 1
}

every_rank_knows_itself() {
    run -n 3 --no-prefix sh -c 'echo $RAILCCL_RANK/$RAILCCL_WORLD_SIZE $RAILCCL_LOCAL_RANK/$RAILCCL_LOCAL_SIZE \
        $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR' | sort >got
    printf '%s\n' "0/3 0/3 0/3 0/3 127.0.0.1" "1/3 1/3 1/3 1/3 127.0.0.1" "2/3 2/3 2/3 2/3 127.0.0.1" | diff - got
}
all_have_one_root_and_one_secret() {
    run -n 4 --no-prefix sh -c 'echo $RAILCCL_ROOT $MASTER_PORT $RAILCCL_SECRET' | sort -u >got
    cat got
    [ "$(wc -l <got)" -eq 1 ] && grep -qE '^127\.0\.0\.1:[0-9]+ [0-9]+ [0-9a-f]{64}$' got
}
a_new_secret_each_time() {
    [ "$(run -n 1 printenv RAILCCL_SECRET)" != "$(run -n 1 printenv RAILCCL_SECRET)" ]
}
hosts_are_filled() { # MAP EXPECTED
    local got
    got=$(run -n 5 --hosts-emulate 2 --map "$1" --no-prefix sh -c 'echo $RANK:${NCCL_HOSTID##*-}.$LOCAL_RANK/$LOCAL_WORLD_SIZE' | sort | tr '\n' ' ')
    echo "$got"
    [ "$got" = "$2" ]
}
env_wins() {
    says "a=1 b=x=y r=7" run -n 1 --env A=1 -x B=x=y --env RANK=6 --env RANK=7 sh -c 'echo a=$A b=$B r=$RANK'
}
lines_never_mix() {
    # 8 ranks, 2000 lines each, written in pieces: every line must come out whole and with the right number in front.
    run -n 8 sh -c 'i=0; while [ $i -lt 2000 ]; do printf "%s" "rank $RANK line"; echo " $i end"; i=$((i+1)); done' >got || return 1
    sed -E 's/^\[[0-9]+\] //' got | sort | uniq -c | awk '$1 != 1' | head
    [ "$(grep -cE '^(\[([0-9])\] )?rank ([0-9]) line [0-9]+ end$' got)" -eq 16000 ] || return 1
    ! sed -nE 's/^\[([0-9])\] rank ([0-9]) .*/\1 \2/p' got | awk '$1 != $2' | grep .
}
one_writer_has_no_prefix() {
    [ "$(run -n 4 sh -c '[ $RANK = 2 ] && echo hello && echo again; true')" = "hello
again" ]
}
tag_marks_every_line() { [ "$(run -n 1 --tag echo hello)" = "[0] hello" ]; }
no_end_of_line_is_added_an_end() { [ "$(run -n 2 sh -c '[ $RANK = 0 ] && printf hello; true')" = "hello" ]; }
errors_stay_errors() {
    run -n 2 --tag sh -c 'echo out; echo err >&2' >out 2>err
    [ "$(sort out | tr '\n' ' ')" = "[0] out [1] out " ] && [ "$(sort err | tr '\n' ' ')" = "[0] err [1] err " ]
}
input_goes_to_rank_0() {
    [ "$(printf 'a\nb\n' | run -n 3 --tag sh -c 'cat' | sort | tr '\n' ' ')" = "[0] a [0] b " ]
}
input_of_a_single_rank() { [ "$(echo hello | run -n 1 cat)" = hello ]; }
long_output_is_complete() { [ "$(run -n 1 --tag seq 200000 | sed 's/^\[0\] //' | sha256sum)" = "$(seq 200000 | sha256sum)" ]; }

one_dies_the_rest_stops() {
    MARK=a$$ status 5 run -n 4 sh -c '[ $RANK = 2 ] && exit 5; sleep 600' && nobody a$$
}
a_signal_is_named() {
    MARK=b$$ says "rank 1 (pid " run -n 3 sh -c '[ $RANK = 1 ] && kill -KILL $$; sleep 600' &&
        MARK=b$$ says "was killed by SIGKILL; stopping the other 2" run -n 3 sh -c '[ $RANK = 1 ] && kill -KILL $$; sleep 600' &&
        MARK=b$$ status 137 run -n 3 sh -c '[ $RANK = 1 ] && kill -KILL $$; sleep 600' && nobody b$$
}
the_stubborn_are_killed() {
    MARK=c$$ status 3 run -n 3 --grace 1 sh -c 'trap "" TERM; [ $RANK = 0 ] && sleep 0.3 && exit 3; while :; do sleep 1; done' &&
        nobody c$$
}
the_first_failure_counts() {
    status 9 run -n 3 sh -c 'trap "exit 77" TERM; [ $RANK = 1 ] && sleep 0.3 && exit 9; while :; do sleep 0.1; done'
}
grandchildren_go_too() {
    MARK=d$$ status 0 run -n 2 sh -c 'sleep 600 & exit 0' && nobody d$$
}
keep_going() {
    rm -f done_*
    status 4 run -n 3 --keep-going sh -c '[ $RANK = 0 ] && exit 4; sleep 0.5; touch done_$RANK' && [ -e done_1 ] && [ -e done_2 ]
}
time_limit() {
    MARK=e$$ status 124 run -n 2 --timeout 1 sleep 600 && nobody e$$
}
# SIGNAL EXPECTED-STATUS: sent to railccl run, seen by every rank
passed_on() {
    rm -f seen ready
    MARK=f$$ "$railccl" run -n 3 bash -c 'trap "echo $RANK >>seen; exit 0" '"$1"'; echo >>ready; while :; do sleep 0.05; done' &
    local pid=$!
    lines ready 3 || return 1
    kill -"$1" $pid
    wait $pid
    local got=$?
    sort seen | tr '\n' ' '
    echo "status $got"
    [ $got -eq "$2" ] && [ "$(sort seen | tr '\n' ' ')" = "0 1 2 " ] && nobody f$$
}
killed_by_a_passed_signal() {
    rm -f ready
    MARK=g$$ "$railccl" run -n 2 bash -c 'trap - TERM; echo >>ready; sleep 600' &
    local pid=$!
    lines ready 2 || return 1
    kill -TERM $pid
    wait $pid
    status 143 sh -c "exit $?" && nobody g$$
}
the_second_signal_kills() {
    rm -f ready
    MARK=h$$ "$railccl" run -n 2 bash -c 'trap "" TERM; echo >>ready; while :; do sleep 0.2; done' &
    local pid=$!
    lines ready 2 || return 1
    kill -TERM $pid
    sleep 0.3
    kill -0 $pid || return 1
    kill -TERM $pid
    wait $pid
    status 137 sh -c "exit $?" && nobody h$$
}
usr1_does_not_end_anything() {
    rm -f seen ready
    "$railccl" run -n 2 bash -c 'trap "echo $RANK >>seen" USR1; echo >>ready; for i in 1 2 3 4 5 6 7 8; do sleep 0.2; done; exit 0' &
    local pid=$!
    lines ready 2 || return 1
    kill -USR1 $pid
    wait $pid
    status 0 sh -c "exit $?" && [ "$(sort seen | tr '\n' ' ')" = "0 1 " ]
}
launcher_killed() {
    rm -f ready
    MARK=i$$ "$railccl" run -n 3 sh -c 'echo >>ready; exec sleep 600' &
    local pid=$!
    lines ready 3 || return 1
    kill -KILL $pid
    wait $pid 2>/dev/null
    nobody i$$
}
nobody_reads() {
    MARK=j$$ timeout 20 "$railccl" run -n 2 yes | head -n 3 >got
    [ "$(wc -l <got)" -eq 3 ] && nobody j$$
}
# Our output is blocked by a reader that never reads. GRACE TIMES: SIGTERM that often, until everything has ended.
reader_does_not_read() {
    rm -f pipe
    mkfifo pipe
    sleep 600 <pipe &
    local reader=$! pid i
    MARK=k$$ "$railccl" run --grace "$1" -n 2 yes >pipe 2>/dev/null &
    pid=$!
    sleep 0.7
    for i in $(seq 30); do
        [ "$i" -gt "$2" ] || kill -TERM $pid 2>/dev/null || break
        kill -0 $pid 2>/dev/null || break
        sleep 0.4
    done
    kill -0 $pid 2>/dev/null
    local alive=$?
    kill $reader
    wait $pid $reader 2>/dev/null
    echo "ended after $i looks"
    [ $alive -ne 0 ] && [ "$i" -gt 1 ] && nobody k$$
}
last_words() { # what was written before the kill is passed on, also when the rank had to be killed
    rm -f armed
    run -n 2 --grace 1 sh -c 'if [ $RANK = 0 ]; then while [ ! -e armed ]; do sleep 0.05; done; exit 1; fi
        trap "" TERM; echo >armed; sleep 0.2; echo last words; while :; do sleep 1; done' | grep -q 'last words'
}
many_processes() {
    [ "$(run -n 512 --tag sh -c 'echo $RANK' | sed -E 's/^\[([0-9]+)\] ([0-9]+)$/\1 \2/' | awk '$1 == $2' | sort -n | uniq | wc -l)" -eq 512 ]
}

# A stand-in for ssh: the rest of the words to a shell, as sshd does.
cat >rsh <<'END'
#!/bin/sh
HOST=$1; export HOST; shift
[ "$HOST" = unreachable ] && { echo "rsh: no route" >&2; exit 255; }
exec sh -c "$*"
END
chmod +x rsh
far() { RAILCCL_RSH=$work/rsh "$railccl" run "$@"; }
far_ranks() {
    local got
    got=$(far --hosts a:2,b:2 sh -c 'echo $RANK $LOCAL_RANK/$LOCAL_WORLD_SIZE $HOST $RAILCCL_ROOT' | sed -E 's/^\[[0-9]\] //; s/:[0-9]+$//' |
        sort | tr '\n' ';')
    echo "$got"
    [ "$got" = "0 0/2 a a;1 1/2 a a;2 0/2 b a;3 1/2 b a;" ]
}
far_secret_is_one_and_hidden() {
    far --hosts a,b -n 2 --no-prefix sh -c 'echo $RAILCCL_SECRET $MASTER_PORT; tr "\0" " " </proc/$PPID/cmdline >cmd_$RANK' >got
    sort -u got | sed 's/^/secret /'
    [ "$(sort -u got | wc -l)" -eq 1 ] && ! grep -F "$(awk 'NR == 1 {print $1}' got)" cmd_0 cmd_1
}
far_words_arrive_as_they_are() {
    [ "$(far --hosts a -n 1 --no-prefix printf '%s|' "a b" "c'd" '$HOME' 'x"y' '')" = "a b|c'd|\$HOME|x\"y||" ]
}
far_failure() {
    MARK=l$$ status 6 far --hosts a:2,b:2 sh -c '[ $RANK = 3 ] && exit 6; sleep 600' && nobody l$$
}
far_signal() {
    rm -f ready
    MARK=m$$ RAILCCL_RSH=$work/rsh "$railccl" run --hosts a:2,b:2 bash -c 'trap - TERM; echo >>ready; sleep 600' &
    local pid=$!
    lines ready 4 || return 1
    kill -TERM $pid
    wait $pid
    status 143 sh -c "exit $?" && nobody m$$
}
far_launcher_killed() {
    rm -f ready
    MARK=n$$ RAILCCL_RSH=$work/rsh "$railccl" run --hosts a:2,b:2 bash -c 'echo >>ready; sleep 600' &
    local pid=$!
    lines ready 4 || return 1
    kill -KILL $pid
    wait $pid 2>/dev/null
    nobody n$$
}
far_unreachable() { MARK=o$$ status 255 far --hosts a,unreachable -n 2 sleep 600 && nobody o$$; }

netns_ranks() {
    local a=rt$$a b=rt$$b got
    ip netns add $a && ip netns add $b || return 1
    ip link add rt$$x netns $a type veth peer name rt$$y netns $b
    ip -n $a addr add 10.99.7.1/24 dev rt$$x; ip -n $a link set rt$$x up
    ip -n $b addr add 10.99.7.2/24 dev rt$$y; ip -n $b link set rt$$y up
    got=$(run -n 4 --netns $a,$b --no-prefix sh -c 'echo $RANK $LOCAL_RANK/$LOCAL_WORLD_SIZE $(ip netns identify $$) ${RAILCCL_ROOT%:*}' | sort | tr '\n' ';')
    ip netns del $a; ip netns del $b
    echo "$got"
    [ "$got" = "0 0/2 $a 10.99.7.1;1 1/2 $a 10.99.7.1;2 0/2 $b 10.99.7.1;3 1/2 $b 10.99.7.1;" ]
}

tap_plan 57
tap_case "every rank is told its numbers, in both spellings" every_rank_knows_itself
tap_case "all ranks have the same root and the same random secret" all_have_one_root_and_one_secret
tap_case "the next run has another secret" a_new_secret_each_time
tap_case "block map fills host after host" hosts_are_filled block "0:0.0/3 1:0.1/3 2:0.2/3 3:1.0/2 4:1.1/2 "
tap_case "cyclic map deals out in turn" hosts_are_filled cyclic "0:0.0/3 1:1.0/2 2:0.1/3 3:1.1/2 4:0.2/3 "
tap_case "--env sets, later beats earlier, and beats ours" env_wins
tap_case "--dry-run prints the environment without the secret" says "RAILCCL_SECRET=(random)" run -n 2 --dry-run true
tap_case "ranks are given this installation's library" says "LD_PRELOAD=${railccl%/bin/railccl}/lib/libnccl.so.2" run -n 1 --preload --dry-run true
tap_case "lines of many ranks never mix" lines_never_mix
tap_case "a single writer has no prefix" one_writer_has_no_prefix
tap_case "--tag marks every line" tag_marks_every_line
tap_case "a last line without an end is passed on" no_end_of_line_is_added_an_end
tap_case "standard error stays standard error" errors_stay_errors
tap_case "standard input goes to rank 0 alone" input_goes_to_rank_0
tap_case "a single rank has our standard input" input_of_a_single_rank
tap_case "long output is complete" long_output_is_complete
tap_case "success is 0" status 0 run -n 3 true
tap_case "the exit status of a single rank" status 7 run -n 1 sh -c 'exit 7'
tap_case "when one fails, the rest is stopped" one_dies_the_rest_stops
tap_case "a rank that is killed is named with its signal" a_signal_is_named
tap_case "who ignores SIGTERM is killed after the grace" the_stubborn_are_killed
tap_case "the first failure decides the exit status" the_first_failure_counts
tap_case "what a rank leaves in the background goes with it" grandchildren_go_too
tap_case "--keep-going lets the others finish" keep_going
tap_case "--timeout stops everything" time_limit
tap_case "SIGTERM reaches every rank" passed_on TERM 0
tap_case "SIGHUP reaches every rank" passed_on HUP 0
tap_case "ranks that die of a passed signal give its status" killed_by_a_passed_signal
tap_case "the second signal kills" the_second_signal_kills
tap_case "SIGUSR1 is passed on and ends nothing" usr1_does_not_end_anything
tap_case "when railccl run itself is killed, no rank stays" launcher_killed
tap_case "when nobody reads the output, the ranks end" nobody_reads
tap_case "a reader that does not read holds up nothing beyond the grace" reader_does_not_read 1 1
tap_case "a reader that does not read cannot hold up the second signal" reader_does_not_read 600 30
tap_case "the last words of a rank that had to be killed are passed on" last_words
tap_case "512 processes" many_processes
tap_case "a program that is not there" status 127 run -n 3 ./no-such-program
tap_case "and says so once" says "cannot run ./no-such-program: No such file" run -n 3 ./no-such-program
tap_case "a program that is not executable" status 126 run -n 2 "$work"
tap_case "no command" says "no command given" run -n 2
tap_case "no number of ranks" says "how many ranks? -n N" run true
tap_case "a bad number of ranks" says "--ranks two: want a whole number" run -n two true
tap_case "an unknown option" says "--fast: no such option" run --fast -n 2 true
tap_case "an option without its value" says "--map: needs a value" run --map
tap_case "bad usage is exit status 2" status 2 run -n 2 --map wild true
tap_case "too few slots" says "5 ranks do not fit: 2 hosts with 4 slots" run -n 5 --hosts a:2,b:2 true
tap_case "a host name that looks like an option is refused" says "not a host name" run -n 2 --hosts a,-oProxyCommand=x true
tap_case "two kinds of hosts are refused" says "only one of" run -n 2 --hosts a --netns b true
tap_case "a namespace that is not there" says "--netns no-such-ns" run -n 2 --netns no-such-ns true
tap_case "other hosts: numbers and root" far_ranks
tap_case "other hosts: one secret, on no command line" far_secret_is_one_and_hidden
tap_case "other hosts: words arrive as they are" far_words_arrive_as_they_are
tap_case "other hosts: a failure stops all hosts" far_failure
tap_case "other hosts: a signal reaches every rank" far_signal
tap_case "other hosts: when the launcher is killed, no rank stays" far_launcher_killed
tap_case "other hosts: one cannot be reached" far_unreachable
if [ "$(id -u)" = 0 ] && ip netns add rt$$p 2>/dev/null; then
    ip netns del rt$$p
    tap_case "network namespaces as hosts" netns_ranks
else
    tap_skip "network namespaces as hosts" "needs root and network namespaces"
fi
tap_end
