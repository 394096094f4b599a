#!/usr/bin/env bash
# Other people's programs on the emulator, beside the same ones on the host: Lua, zlib, bzip2, zstd,
# Duktape and SQLite, of Debian's sources; then how fast Lua and SQLite are beside qemu. Minutes,
# most of them to compile.
source "$(dirname "$0")/lib.sh"

folder=${1:-${TMPDIR:-/tmp}/hostmem-strangers}
status=0
examples/emulator/strangers/run.sh "$folder" || status=$?
case $status in
    0) ;;
    77)
        skip "other people's programs on the emulator: see above"
        exit 0
        ;;
    *) exit "$status" ;;
esac

step "Lua and SQLite beside qemu"
command -v qemu-riscv32 >/dev/null || install_packages qemu-user ||
    skip "Lua and SQLite beside qemu: qemu-user cannot be had"
for row in lua-qemu sqlite-qemu; do
    said=$(HOSTMEM_STRANGERS=$folder \
        cargo bench --quiet -p hostmem-bench --bench emulator -- --quick --only "$row")
    grep "^row: $row ours=[0-9]" <<<"$said"
done
