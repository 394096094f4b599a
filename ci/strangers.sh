#!/usr/bin/env bash
# Other people's programs on the emulator, beside the same ones on the host: Lua, zlib, bzip2, zstd,
# Duktape and SQLite, of Debian's sources. Minutes, most of them to compile.
source "$(dirname "$0")/lib.sh"

folder=${1:-${TMPDIR:-/tmp}/hostmem-strangers}
status=0
examples/emulator/strangers/run.sh "$folder" || status=$?
case $status in
    0) ;;
    77) skip "other people's programs on the emulator: see above" ;;
    *) exit "$status" ;;
esac
