#!/usr/bin/env bash
# Builds the guests. Zig has the C library and the linker: `pip install ziglang`.
set -euo pipefail
cd "$(dirname "$0")"
zig=(${ZIG:-python3 -m ziglang})
for source in *.c; do
    "${zig[@]}" cc -target riscv32-linux-musl -mcpu=generic_rv32+m+a+c -O2 -static -s \
        -o "${source%.c}.elf" "$source"
done
rm -f ./*.elf.o
