#!/usr/bin/env bash
# Fetches Debian's arm64 libsodium, libexpat, libjansson and cmocka into a folder, for cross-building. Nothing on the host
# changes: apt works in a state of its own, with the host's sources and keys (so what is fetched is verified).
#   scripts/arm64_packages.sh FOLDER      afterwards FOLDER/usr/lib/aarch64-linux-gnu/libsodium.a, libexpat.a, libjansson.a are there
set -eu
folder=$1
lib=$folder/usr/lib/aarch64-linux-gnu
[ ! -e "$lib/libsodium.a" ] || [ ! -e "$lib/libexpat.a" ] || [ ! -e "$lib/libjansson.a" ] || exit 0
command -v apt-get >/dev/null || { echo "apt-get is not here" >&2; exit 1; }
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
: >"$folder/apt/status"
folder=$(cd "$folder" && pwd)
apt() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$folder/apt" \
        -o Dir::State::status="$folder/apt/status" -o Dir::State::lists="$folder/apt/lists" \
        -o Dir::Cache="$folder/apt/cache" -o Acquire::Retries=2 -o Acquire::http::Timeout=30 \
        -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 "$@"
}
cd "$folder/apt"
apt update >update.log 2>&1 || { tail -n 3 update.log >&2; exit 1; }
apt download libsodium-dev libexpat1-dev libjansson-dev libcmocka-dev libcmocka0 >download.log 2>&1 || { tail -n 3 download.log >&2; exit 1; }
for p in ./*.deb; do dpkg -x "$p" "$folder"; done
rm -rf "$folder/apt"
