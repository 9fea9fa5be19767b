#!/usr/bin/env bash
# railccl install --wheel: the exchange in a Python environment made of small libraries, back again, everything that is
# refused, and a run that is stopped or fails at each of its steps.
. tests/support/tap.sh
build=$PWD/${BUILD:-build}
railccl=$build/bin/railccl ours=$build/lib/libnccl.so.2
cc=${CC:-gcc}
work=$(mktemp -d)
# Environments lie in memory where there is room for them: a hundred runs that each sync take a minute on a busy disk.
sites=$(mktemp -d -p /dev/shm 2>/dev/null) || sites=$(mktemp -d)
trap 'rm -rf "$work" "$sites"' EXIT
chmod 755 "$work" "$sites"
unset RAILCCL_LIBRARY
lib=$sites/site/nvidia/nccl/lib
file=$lib/libnccl.so.2 backup=$lib/before-railccl-libnccl.so.2 new=$lib/.railccl-new-libnccl.so.2

library() { # OUTPUT SONAME CODE [FLAGS]: a library of that soname
    local out=$1 soname=$2 code=$3
    shift 3
    echo "$code" | $cc -shared -fPIC -nostdlib -Wl,-soname,"$soname" "$@" -xc - -o "$out"
}
make_libraries() {
    library "$work/nvidia1" libnccl.so.2 'int ncclGetVersion(int *v) { return *v = 22809, 0; }' &&
        library "$work/nvidia2" libnccl.so.2 'int ncclGetVersion(int *v) { return *v = 22907, 0; }' -Wl,--hash-style=sysv &&
        library "$work/railccl2" libnccl.so.2 'int ncclGetVersion(int *v) { return *v = 1, 0; } int railGetVersion(void) { return 0; }' &&
        library "$work/soname" libfoo.so.2 'int ncclGetVersion(int *v) { return *v = 1, 0; }' &&
        library "$work/nothing" libnccl.so.2 'int something(void) { return 0; } int ncclGetVersion(int *); int other(void) { return ncclGetVersion(0); }' &&
        library "$work/variable" libnccl.so.2 'int ncclGetVersion = 7;' || return 1
    { cat "$work/nvidia1"; head -c 300000 /dev/zero; } >"$work/grown" && mv "$work/grown" "$work/nvidia1"
    head -c 700 "$work/nvidia1" >"$work/cut"
    # A download that ended early: headers, names and symbols are there, of the data a part.
    library "$work/long" libnccl.so.2 'int data[100000] = {1}; int ncclGetVersion(int *v) { return *v = data[99999], 0; }'
    head -c 200000 "$work/long" >"$work/short"
    { head -c 18 "$work/nvidia1"; printf '\363\0'; tail -c +21 "$work/nvidia1"; } >"$work/riscv"
    { head -c 4 "$work/nvidia1"; printf '\1'; tail -c +6 "$work/nvidia1"; } >"$work/elf32"
    echo 'int main(void) { return 0; }' | $cc -no-pie -xc - -o "$work/program"
    printf 'This environment was moved elsewhere.\n' >"$work/text"
    : >"$work/empty"
}
record() { # PACKAGE VERSION FILE: as an installer leaves it
    local info=$sites/site/$1-$2.dist-info
    mkdir -p "$info"
    [ -f "$3.record" ] || python3 - "$3" >"$3.record" <<'PY'
import base64, hashlib, sys
data = open(sys.argv[1], "rb").read()
digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
print("nvidia/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0")
print("nvidia/nccl/lib/libnccl.so.2,sha256=%s,%d" % (digest, len(data)))
PY
    cp "$3.record" "$info/RECORD"
}
site() { # [FILE]: a new environment with that file as NVIDIA's
    rm -rf "$sites/site" && mkdir -p "$lib" && cp "${1:-$work/nvidia1}" "$file" && chmod 644 "$file" &&
        echo bytecode >"$lib/libnccl_device.bc" &&
        record nvidia_nccl_cu13 2.28.9 "$work/nvidia1"
}
install() { "$railccl" install --wheel "$sites/site" "$@" >"$work/out" 2>"$work/err"; }
says() { cat "$work/out" "$work/err"; grep -qE -- "$1" "$work/out" "$work/err" ||
    { echo "nothing says: $1"; return 1; }; }
is() { cmp "$1" "$2" || { ls -la "$lib"; return 1; }; }
gone() { [ ! -e "$1" ] && [ ! -L "$1" ] || { echo "still there: $1"; return 1; }; }
inode() { stat -c %i "$1"; }
# Names, kinds, modes, owners, contents: whatever could change.
picture() { (cd "$sites/site" && find . -printf '%P %y %m %U %l\n' | sort &&
    find . -type f -print0 | sort -z | xargs -0 sha256sum 2>/dev/null); }
plain() { is "$file" "$work/nvidia1" && [ "$(ls -A "$lib" | tr '\n' ' ')" = "libnccl.so.2 libnccl_device.bc " ] ||
    { ls -lA "$lib"; return 1; }; }

there_and_back() {
    local before mode
    site && chmod 640 "$file" && before=$(inode "$file") && mode=$(stat -c '%a %u %g' "$file")
    install && says "kept as before-railccl" && says "installed by nvidia-nccl-cu13 2.28.9" && is "$file" "$ours" &&
        [ "$(inode "$backup")" = "$before" ] && [ "$(stat -c '%a %u %g' "$file")" = "$mode" ] && gone "$new" &&
        install --restore && plain && [ "$(inode "$file")" = "$before" ]
}
twice() {
    local before
    site && install && before=$(inode "$file") && install && says "already, of this very build" &&
        [ "$(inode "$file")" = "$before" ] &&
        is "$backup" "$work/nvidia1" && install --restore && plain && install --restore && says "it is NVIDIA's" &&
            plain
}
another_build() {
    site && RAILCCL_LIBRARY=$work/railccl2 install && is "$file" "$work/railccl2" && install && says "another build" &&
        is "$file" "$ours" &&
        is "$backup" "$work/nvidia1" && install --restore && plain
}
owner() {
    site && chown 4321:8765 "$file" && install && [ "$(stat -c '%u:%g' "$file")" = 4321:8765 ] && install --restore &&
        [ "$(stat -c '%u:%g' "$file")" = 4321:8765 ]
}
hard_links() { # as uv makes them: one file in its cache and in every environment
    site && ln "$file" "$sites/cache" && install && is "$sites/cache" "$work/nvidia1" && install --restore &&
        is "$sites/cache" "$work/nvidia1" &&
        [ "$(inode "$file")" = "$(inode "$sites/cache")" ]; local good=$?
    rm -f "$sites/cache"
    return $good
}
symbolic_link() {
    site && rm "$file" && ln -s "$work/nvidia1" "$file" && install --status && says "by a symbolic link" && install &&
        is "$file" "$ours" &&
        [ ! -L "$file" ] && install --restore && [ "$(readlink "$file")" = "$work/nvidia1" ]
}
# A program that has NVIDIA's file open goes on with it.
in_use() {
    site && exec 9<"$file" && install && cmp - "$work/nvidia1" <&9; local good=$?
    exec 9<&-
    return $good
}
two_packages() {
    site "$work/nvidia2" && record nvidia_nccl_cu12 2.29.7 "$work/nvidia2"
    install --status && says 'nvidia-nccl-cu12 2.29.7' && says 'nvidia-nccl-cu13 2.28.9' &&
        says "NVIDIA's file is nvidia-nccl-cu12's" &&
        says "overwrite one another" && install && says "nvidia-nccl-cu12's" && install --restore &&
            is "$file" "$work/nvidia2"
}
no_record() { site && rm -r "$sites/site"/*.dist-info && install --status && says 'no installed package lists' &&
    install && install --restore && plain; }
changed_since() { site "$work/nvidia2" && install --status && says "not as it was installed"; }
status_says() {
    site && install --status && says "file    NVIDIA's, $(stat -c %s "$work/nvidia1") bytes" &&
        says "backup  absent" && install && install --status &&
        says "file    railccl's, .* of this build" && says "backup  NVIDIA's"
}
dry_run() {
    local before
    site && before=$(picture) && install --dry-run && says '^would do: ' && [ "$(picture)" = "$before" ] && install &&
        before=$(picture) &&
        install --dry-run --restore && says '^would do: ' && [ "$(picture)" = "$before" ]
}

# WORDS OPTION... : refused with status 2, with that text, and nothing has changed
refused() {
    local words=$1 before status
    shift
    before=$(picture)
    install "$@"
    status=$?
    [ $status -eq 2 ] || { echo "status $status"; says .; return 1; }
    says "$words" && [ "$(picture)" = "$before" ]
}
no_library() { # FILE WORDS
    site "$work/$1" &&
        refused "$file: no libnccl.so.2 that this program knows: $2.*pip install --force-reinstall --no-deps nvidia-nccl-cu13==2.28.9" &&
        refused "$2" --restore
}
no_file() {
    site && rm "$file" && mkdir "$file" && refused 'no regular file' && rmdir "$file" && mkfifo "$file" &&
        refused 'no regular file' && rm "$file" &&
        ln -s nowhere "$file" && refused 'leads nowhere'
}
absent() { site && rm "$file" && refused "$file: it is not there. pip install" && refused "it is not there" --restore; }
ours_without_backup() {
    site && install && rm "$backup" && install && says "no backup" &&
        refused "no backup. pip install --force-reinstall" --restore &&
        RAILCCL_LIBRARY=$work/railccl2 refused "already, of another build.*pip install"
}
old_backup() { # pip has put another version there while ours was installed
    site && install && rm "$file" && cp "$work/nvidia2" "$file" &&
        refused "$backup: a backup is there already.*rm '$backup'" &&
        refused "rm '$backup'" --restore && rm "$backup" && install && is "$backup" "$work/nvidia2"
}
strange_backup() {
    site && cp "$work/text" "$backup" && refused "$backup: should be NVIDIA's.*Remove it" &&
        refused "should be NVIDIA's" --restore &&
        cp "$ours" "$backup" && refused "it is railccl's"
}
two_files() { site && cp "$work/nvidia2" "$lib/libnccl.so.2.29.7" && refused "libnccl.so.2.29.7 lies beside"; }
layout() {
    rm -rf "$sites/site" && mkdir -p "$sites/site" && refused "$sites/site/nvidia/nccl/lib: No such file.*no wheel" &&
        says 'get_paths' || return 1
    mkdir -p "$sites/site/nvidia/cu14/lib" && cp "$work/nvidia1" "$sites/site/nvidia/cu14/lib/libnccl.so.2" &&
        refused "cu14/lib/libnccl.so.2 is there, but" &&
        "$railccl" install --wheel "$work/none" >"$work/out" 2>"$work/err"
    [ $? -eq 2 ] && says "$work/none: No such file"
}
as_nobody() { # the folder is root's: another user is refused, and told whose it is
    local before status
    site && before=$(picture)
    chmod 755 "$work" && cp "$railccl" "$work/railccl" && cp "$ours" "$work/own"
    RAILCCL_LIBRARY=$work/own setpriv --reuid=65534 --regid=65534 --clear-groups "$work/railccl" install --wheel "$sites/site" >"$work/out" 2>"$work/err"
    status=$?
    says "$lib: cannot be changed: Permission denied.*user 0" && [ $status -eq 2 ] && [ "$(picture)" = "$before" ] ||
        return 1
    chmod 0 "$file"
    RAILCCL_LIBRARY=$work/own setpriv --reuid=65534 --regid=65534 --clear-groups "$work/railccl" install --wheel "$sites/site" >"$work/out" 2>"$work/err"
    [ $? -eq 2 ] && says "it cannot be read"
}
at_work() {
    site && exec 8<"$lib" && flock -n 8 && refused "another .railccl install. is at work"; local good=$?
    exec 8<&-
    return $good
}
usage() {
    "$railccl" install >"$work/out" 2>"$work/err"; [ $? -eq 2 ] && says "where\?" && site &&
        refused "no such option" --force && refused "takes no arguments" here &&
        refused "goes without" --status --restore && "$railccl" install --help >"$work/out" &&
            says "Usage: railccl install"
}
# Our library is found beside the program, whatever LIBDIR was; NVIDIA's beside it is not taken for ours.
found() { # LIBDIR
    rm -rf "$work/p" && mkdir -p "$work/p/bin" "$work/p/lib" "$work/p/$1" &&
        cp "$work/nvidia2" "$work/p/lib/libnccl.so.2" &&
        cp "$railccl" "$work/p/bin" && cp "$ours" "$work/p/$1/libnccl.so.2" && site &&
            "$work/p/bin/railccl" install --wheel "$sites/site" && is "$file" "$ours"
}
not_found() {
    rm -rf "$work/p" && mkdir -p "$work/p/bin" "$work/p/lib" && cp "$work/nvidia2" "$work/p/lib/libnccl.so.2" &&
        cp "$railccl" "$work/p/bin" && site || return 1
    "$work/p/bin/railccl" install --wheel "$sites/site" >"$work/out" 2>"$work/err"
    [ $? -eq 2 ] && says "$work/p/{lib,.*no libnccl.so.2 of railccl's" && plain &&
        RAILCCL_LIBRARY=$work/nvidia2 refused 'RAILCCL_LIBRARY'
}
full() { # a limit on file sizes stands for a full disk
    site || return 1
    (ulimit -f 64; install)
    [ $? -eq 1 ] && says "cannot be written: File too large" && is "$file" "$work/nvidia1" && gone "$new" && install &&
        install --restore && plain
}

# Every call that changes something can be the last: SHIM_AT=k ends the process at the k-th, before or after it, or lets it fail.
cat >"$work/shim.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
static int calls;
static int at(void) { const char *k = getenv("SHIM_AT"); return k ? atoi(k) : 0; }
static int mode(const char *m) { const char *is = getenv("SHIM_MODE"); return is && !strcmp(is, m); }
#define STEP(type, call, ...)                                                            \
    static type (*real)();                                                               \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #call);                                \
    int now = ++calls == at();                                                           \
    if (now && mode("before")) _exit(99);                                                \
    if (now && mode("fail")) { errno = EIO; return -1; }                                 \
    type result = real(__VA_ARGS__);                                                     \
    if (now && mode("after")) _exit(99);                                                 \
    return result
int linkat(int a, const char *b, int c, const char *d, int e)
{
    if (getenv("SHIM_NO_LINKS")) { errno = EPERM; return -1; }
    STEP(int, linkat, a, b, c, d, e);
}
int renameat(int a, const char *b, int c, const char *d) { STEP(int, renameat, a, b, c, d); }
int unlinkat(int a, const char *b, int c) { STEP(int, unlinkat, a, b, c); }
int fsync(int a) { STEP(int, fsync, a); }
int fchmod(int a, mode_t b) { STEP(int, fchmod, a, b); }
int fchown(int a, uid_t b, gid_t c) { STEP(int, fchown, a, b, c); }
ssize_t write(int a, const void *b, size_t c) { STEP(ssize_t, write, a, b, c); }
int openat(int a, const char *b, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t m = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    STEP(int, openat, a, b, flags, m);
}
C
whole() { cmp -s "$file" "$work/nvidia1" || cmp -s "$file" "$ours" ||
    { echo "half a file"; ls -la "$lib"; return 1; }; }
taken_by_torch() { # the same pattern as torch's
    local match=("$lib"/libnccl.so.*[0-9])
    [ "${match[*]}" = "$file" ]
}
stopped() { # MODE [NAME=VALUE]: install and restore, each stopped at every step
    local way=$1 more=${2:-A=b} k action status n=0
    for action in "" --restore; do
        site || return 1 # every step leaves it as it was
        for k in $(seq 1 60); do
            [ -z "$action" ] || install || return 1
            env "$more" SHIM_AT="$k" SHIM_MODE="$way" LD_PRELOAD="$work/shim.so" "$railccl" install --wheel "$sites/site" $action >"$work/out" 2>&1
            status=$?
            echo "step $k $action: status $status"
            whole && taken_by_torch || return 1
            if [ $status -eq 0 ] && [ -z "$action" ]; then is "$file" "$ours" || return 1; fi
            if [ $status -eq 0 ] && [ -n "$action" ]; then is "$file" "$work/nvidia1" || return 1; fi
            [ $status -eq 0 ] || n=$((n + 1))
            # Either command goes on from there.
            if [ $((k % 2)) -eq 0 ]; then install && is "$file" "$ours" && is "$backup" "$work/nvidia1" ||
                { says .; return 1; }; fi
            install --restore && plain || { says .; return 1; }
            [ $status -ne 0 ] || [ "$k" -lt 12 ] || break
        done
        [ "$k" -lt 60 ] || { echo "no run came through"; return 1; }
    done
    echo "stopped $n times"
    [ $n -ge 10 ]
}
no_links() { # a file system without hard links: the backup is a copy
    site && SHIM_NO_LINKS=1 LD_PRELOAD=$work/shim.so "$railccl" install --wheel "$sites/site" &&
        is "$backup" "$work/nvidia1" && [ "$(inode "$backup")" != "$(inode "$file")" ] &&
        is "$file" "$ours" && install --restore && plain
}

sanitized=""
nm -D "$ours" 2>/dev/null | grep -qE ' U __(asan|tsan|ubsan)_' && sanitized="a sanitizer must be loaded first"
make_libraries || { echo "1..1"; echo "not ok 1 - libraries to exchange"; exit 1; }
$cc -w -shared -fPIC -o "$work/shim.so" "$work/shim.c" -ldl

tap_plan 40
tap_case "there and back: contents, permissions, the very same file" there_and_back
tap_case "either may be run again" twice
tap_case "another build of ours is replaced, the backup kept" another_build
if [ "$(id -u)" = 0 ]; then tap_case "root keeps the file's owner" owner; else tap_skip "root keeps the file's owner" "not root"; fi
tap_case "a file shared by hard links stays as it is elsewhere" hard_links
tap_case "a symbolic link comes back as one" symbolic_link
tap_case "who has NVIDIA's file open keeps it" in_use
tap_case "wheels for CUDA 12 and 13 at one path: whose file it is" two_packages
tap_case "an environment without lists of files" no_record
tap_case "a file that differs from its package's list is said to" changed_since
tap_case "--status says what is there" status_says
tap_case "--dry-run changes nothing" dry_run
for pair in "text:it is no ELF file" "empty:it is no ELF file" "cut:(it|its program headers|its dynamic section) (is|are) cut off" "elf32:it is no 64-bit ELF" \
    "riscv:it is for another kind of processor" "program:it is no shared library" "soname:its soname is not libnccl.so.2" \
    "short:it is cut off" "nothing:it does not export ncclGetVersion" "variable:it does not export ncclGetVersion"; do
    tap_case "refused: a file, since ${pair#*:} (${pair%%:*})" no_library "${pair%%:*}" "${pair#*:}"
done
tap_case "refused: a folder, a FIFO, a link to nowhere" no_file
tap_case "refused: nothing there" absent
tap_case "refused: ours already, without a backup" ours_without_backup
tap_case "refused: a backup of another version" old_backup
tap_case "refused: a backup that is none" strange_backup
tap_case "refused: a second library beside it" two_files
tap_case "refused: no wheel, an unknown layout, no such folder" layout
if [ "$(id -u)" != 0 ] ||
    ! command -v setpriv >/dev/null; then tap_skip "refused: no permission" "needs root and setpriv"
elif [ -n "$sanitized" ]; then tap_skip "refused: no permission" "a sanitizer's library may be unreadable for others"
else tap_case "refused: no permission" as_nobody
fi
tap_case "refused: another run is at work" at_work
tap_case "bad usage is named" usage
tap_case "our library is found in PREFIX/lib64" found lib64
tap_case "our library is found in a multi-architecture folder" found "lib/$(uname -m)-linux-gnu"
tap_case "NVIDIA's library is not taken for ours" not_found
if [ -n "$sanitized" ]; then
    for c in "a full disk" "stopped before each step" "stopped after each step" "each step fails" "without hard links"; do tap_skip "$c" "$sanitized"; done
else
    tap_case "a full disk leaves everything as it was" full
    tap_case "stopped before each step: the file is whole, and either command goes on" stopped before
    tap_case "stopped after each step: the file is whole, and either command goes on" stopped after
    tap_case "each step fails: the file is whole, and either command goes on" stopped fail
    tap_case "without hard links the backup is a copy, and may be interrupted" eval "no_links && stopped before SHIM_NO_LINKS=1"
fi
tap_end
