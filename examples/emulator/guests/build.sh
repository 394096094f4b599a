#!/usr/bin/env bash
# Builds the guests. Zig has the C library and the linker: `pip install ziglang`.
set -euo pipefail
cd "$(dirname "$0")"
zig=(${ZIG:-python3 -m ziglang})
zig+=(cc -target riscv32-linux-musl -mcpu=generic_rv32+m+a+c -static)
for source in *.c; do
    options=(-O2 -s)
    # With names and lines, but none of the folder that it was built in.
    [ "$source" != debug.c ] || options=(-O0 -g -fno-sanitize=undefined -nostdlib
        "-fdebug-prefix-map=$PWD=." -fdebug-compilation-dir=.)
    "${zig[@]}" "${options[@]}" -o "${source%.c}.elf" "$source"
done
rm -f ./*.elf.o
