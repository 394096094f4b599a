#!/usr/bin/env bash
# Builds the malloc for programs in C and installs it:
#
#   [DESTDIR=DIRECTORY] capi/install.sh PREFIX
#
#   PREFIX/lib/libhostmem_malloc.so.0, libhostmem_malloc.so, libhostmem_malloc.a
#   PREFIX/lib/pkgconfig/hostmem_malloc.pc
#   PREFIX/include/hostmem_malloc.h
#
# For another machine TARGET is its name for Rust and CROSS begins its tools' names:
# TARGET=aarch64-unknown-linux-gnu CROSS=aarch64-linux-gnu-. LIBDIR names another folder than lib.
set -euo pipefail

prefix=${1:-}
if [ $# != 1 ] || [[ $prefix != /* ]]; then
    printf 'usage: [DESTDIR=DIRECTORY] %s PREFIX    # an absolute path\n' "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/.."

cross=${CROSS:-}
target=()
built=${CARGO_TARGET_DIR:-target}
if [ -n "${TARGET:-}" ]; then
    target=(--target "$TARGET")
    built=$built/$TARGET
fi
"${CARGO:-cargo}" build --quiet --profile capi -p hostmem_malloc "${target[@]}"
built=$built/capi

lib=${DESTDIR:-}$prefix/${LIBDIR:-lib}
include=${DESTDIR:-}$prefix/include
mkdir -p "$lib/pkgconfig" "$include"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One relocatable object, of which only the calls themselves are global: it goes beside any other
# archive of Rust's, whose names it would meet otherwise.
"${cross}nm" -P -g --defined-only "$built/libhostmem_malloc.a" 2>/dev/null | cut -d ' ' -f 1 |
    grep -xFf capi/malloc/symbols.txt | sort -u >"$work/symbols.txt"
roots=()
while read -r name; do
    roots+=(-u "$name")
done <"$work/symbols.txt"
"${cross}ld" -r --gc-sections "${roots[@]}" -o "$work/whole.o" "$built/libhostmem_malloc.a"
"${cross}objcopy" --strip-debug --keep-global-symbols="$work/symbols.txt" \
    "$work/whole.o" "$work/hostmem_malloc.o"
rm -f "$work/libhostmem_malloc.a"
"${cross}ar" rcsD "$work/libhostmem_malloc.a" "$work/hostmem_malloc.o"
install -m 644 "$work/libhostmem_malloc.a" "$lib/libhostmem_malloc.a"

"${cross}strip" --strip-unneeded -o "$work/libhostmem_malloc.so" "$built/libhostmem_malloc.so"
install -m 755 "$work/libhostmem_malloc.so" "$lib/libhostmem_malloc.so.0"
ln -sf libhostmem_malloc.so.0 "$lib/libhostmem_malloc.so"

install -m 644 capi/include/hostmem_malloc.h "$include/hostmem_malloc.h"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
cat >"$lib/pkgconfig/hostmem_malloc.pc" <<END
prefix=$prefix
libdir=\${prefix}/${LIBDIR:-lib}
includedir=\${prefix}/include

Name: hostmem_malloc
Description: A malloc for emulators: checked frees, exact ownership, memory below 4 GiB
Version: $version
Libs: -L\${libdir} -lhostmem_malloc
Libs.private: -pthread
Cflags: -I\${includedir}
END
