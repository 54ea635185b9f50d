# Sourced by the tests beside it: skips where no machine can be emulated, because qemu cannot be installed.
# shellcheck shell=bash
skip() { echo "skipped: no machine can be emulated here: $1"; exit 77; }
[ "$(uname -m)" = x86_64 ] || skip "qemu would have to emulate an x86-64 processor for programs of $(uname -m)"
log=$("$(dirname "${BASH_SOURCE[0]}")"/../../scripts/deps vm 2>&1) || skip "$(tail -n 1 <<<"$log")"
command -v qemu-system-x86_64 >/dev/null || skip "qemu-system-x86_64 is missing and not in reach of apt-get"
