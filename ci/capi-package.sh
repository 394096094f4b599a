#!/usr/bin/env bash
# The library for C as other projects take it: that programs which were built before still run with
# it, release archives, CMake without cargo for another machine and with it for this one, what
# CMake says where something is missing, and a host of the program's own on Windows.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step "the interface that $(<capi/soname) in the libraries' names stands for"
if command -v abidiff >/dev/null || install_packages abigail-tools; then
    capi/abi.sh
    cp -r capi/include "$work/include"
    for change in 's/^hm_status hm_heap_close(/&uint64_t more, /' 's/^ *HM_OK = 0/HM_OK = 1/' \
        's/^hm_status hm_heap_close(/hm_status hm_heap_end(/' 's/^} hm_range;/int more; &/'; do
        sed "$change" capi/include/hostmem.h >"$work/include/hostmem.h"
        if INCLUDE=$work/include capi/abi.sh >/dev/null 2>&1; then
            printf 'not seen: %s\n' "$change" >&2
            exit 1
        fi
    done
    # What may grow may; nothing was taken away.
    sed 's/^} hm_heap_config;/uint64_t more; &/' capi/include/hostmem.h >"$work/include/hostmem.h"
    INCLUDE=$work/include capi/abi.sh >/dev/null
else
    skip "the C interface against its description: abigail-tools cannot be had"
fi

command -v cmake >/dev/null || install_packages cmake make || {
    skip "builds by CMake: there is no CMake"
    exit 0
}

# Runs CMake's first step, which is to fail and to say something.
refused() { # what it says, options of cmake
    local said=$1
    rm -rf "$work/refused"
    if cmake -S capi/examples -B "$work/refused" -DHOSTMEM_FROM_SOURCE=ON "${@:2}" \
        >"$work/log" 2>&1 || ! tr -s ' \n' ' ' <"$work/log" | grep -qF "$said"; then
        printf 'CMake does not say "%s":\n' "$said" >&2
        cat "$work/log" >&2
        exit 1
    fi
    printf 'CMake says: %s\n' "$said"
}

quietly() {
    "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}

step "what CMake says where something is missing"
mkdir "$work/empty" "$work/bin" "$work/broken"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
here=hostmem-$version-$(uname -m)-unknown-linux-gnu
printf 'no archive' >"$work/broken/$here.tar.xz"
printf '%064d  %s\n' 0 "$here.tar.xz" >"$work/broken/SHA256SUMS"
refused "no $here.tar.xz in HOSTMEM_PREBUILT" -DHOSTMEM_PREBUILT="$work/empty"
refused "is not the file that SHA256SUMS beside it lists" -DHOSTMEM_PREBUILT="$work/broken"
refused "no library for Linux on riscv64" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=riscv64
refused "rustc knows no target nothing" -DHOSTMEM_TARGET=nothing
refused "is no folder that \`cargo vendor\` made" -DHOSTMEM_VENDOR="$work/empty"
# All programs of this machine but Rust's.
ln -s /usr/bin/* "$work/bin/"
rm -f "$work"/bin/{cargo,rustc,rustup}*
(
    export PATH=$work/bin HOME=$work/empty CARGO_HOME=$work/empty
    refused "no cargo, which builds it"
)
if command -v x86_64-linux-musl-gcc >/dev/null; then
    cmake -S capi/examples -B "$work/musl" -DHOSTMEM_FROM_SOURCE=ON -DHOSTMEM_CARGO=none \
        -DCMAKE_C_COMPILER=x86_64-linux-musl-gcc >"$work/log" 2>&1 || true
    grep 'hostmem: for x86_64-unknown-linux-musl' "$work/log"
fi

step "the guide's example, from source, without a network"
awk '/^```cmake$/ { on = 1; next } /^```$/ { on = 0 } on' docs/C.md >"$work/CMakeLists.txt"
[ "$(wc -l <"$work/CMakeLists.txt")" -le 12 ]
printf '%s\n' '#include <hostmem.h>' '#include <stdio.h>' 'int main(void) {' \
    '    unsigned v = hm_version();' \
    '    printf("%u.%u.%u\n", v >> 16, v >> 8 & 255, v & 255);' '    return 0;' '}' \
    >"$work/emulator.c"
if cargo vendor --quiet --locked "$work/vendor" >/dev/null 2>"$work/log"; then
    (
        # A registry that is empty.
        export CARGO_HOME=$work/registry
        quietly cmake -S "$work" -B "$work/example" -DHOSTMEM_VENDOR="$work/vendor" \
            -DFETCHCONTENT_SOURCE_DIR_HOSTMEM="$PWD" \
            -DHOSTMEM_CARGO="$(command -v cargo)"
        quietly cmake --build "$work/example"
    )
    said=$("$work/example/emulator")
    printf 'hm_version() is %s\n' "$said"
    [ "$said" = "$version" ]
    # Once more there is nothing to do.
    touch "$work/example/stamp"
    quietly cmake --build "$work/example"
    [ -z "$(find "$work/example" -name 'libhostmem*' -newer "$work/example/stamp")" ]
else
    cat "$work/log" >&2
    skip "the guide's example from source: the sources of dependencies cannot be had"
fi

step "a host of the program's own, on Windows"
windows=x86_64-pc-windows-gnu
if ! command -v x86_64-w64-mingw32-gcc >/dev/null &&
    ! install_packages --no-install-recommends gcc-mingw-w64-x86-64; then
    skip "Windows: there is no x86_64-w64-mingw32-gcc"
elif ! has_library $windows; then
    skip "Windows: no library for $windows can be had"
else
    # Less optimized than a release, for the sake of time.
    CARGO_PROFILE_CAPI_LTO=off CARGO_PROFILE_CAPI_CODEGEN_UNITS=16 CARGO_PROFILE_CAPI_OPT_LEVEL=1 \
        cargo rustc --quiet --profile capi -p hostmem_c --target $windows --crate-type staticlib
    x86_64-w64-mingw32-gcc -std=c11 -O1 -Wall -Wextra -Wpedantic -Werror -I capi/include \
        -o "$work/host.exe" capi/examples/windows/host.c \
        "${CARGO_TARGET_DIR:-target}/$windows/capi/libhostmem_c.a"
    wine=$(command -v wine64 || command -v /usr/lib/wine/wine64 || true)
    if [ -z "$wine" ] && install_packages --no-install-recommends wine64; then
        wine=/usr/lib/wine/wine64
    fi
    if [ -n "$wine" ]; then
        said=$(WINEPREFIX=$work/wine WINEDEBUG=-all timeout 600 "$wine" "$work/host.exe" |
            tr -d '\r')
        printf 'host: %s\n' "$said"
        [ "$said" = 42 ]
    else
        skip "Windows: the program is linked, and there is no wine to run it"
    fi
fi

step "release archives with musl"
# zig has a C library and a linker for AArch64.
printf '%s\n' '#!/bin/sh' 'exec python3 -m ziglang cc -target aarch64-linux-musl "$@"' >"$work/zig"
chmod +x "$work/zig"
while read -r cpu compiler emulator; do
    target=$cpu-unknown-linux-musl
    if ! has_library "$target" || ! "$compiler" --version >/dev/null 2>&1; then
        skip "the archive for $target: no library of Rust's for it, or no compiler"
        continue
    fi
    if [ "$emulator" != none ] && ! command -v "$emulator" >/dev/null; then
        skip "the archive for $target: there is no $emulator"
        continue
    fi
    export "COMPILER_${target//-/_}=$compiler"
    HOSTMEM_STRICT=1 capi/release.sh "$work/musl" "$target"
    tar -C "$work" -xf "$work/musl/hostmem-$version-$target.tar.xz"
    for library in hostmem hostmem_malloc; do
        "$compiler" -std=c11 -O1 -Wall -Wextra -Wpedantic -Werror -static -pthread \
            -I "$work/hostmem-$version-$target/include" -o "$work/function" \
            capi/examples/function.c "$work/hostmem-$version-$target/lib/lib$library.a"
        run=("$work/function")
        [ "$emulator" = none ] || run=("$emulator" "${run[@]}")
        printf '%s, %s: %s\n' "$target" "$library" "$("${run[@]}" </dev/null | tail -n 1)"
    done
done <<END
x86_64 musl-gcc none
aarch64 $work/zig qemu-aarch64
END

step "release archives, and CMake for AArch64 without cargo"
aarch64_tools || exit 0
command -v aarch64-linux-gnu-g++ >/dev/null || install_packages g++-aarch64-linux-gnu || {
    skip "CMake for AArch64: there is no aarch64-linux-gnu-g++"
    exit 0
}
if [ "$aarch64_cargo" != cargo ]; then
    export CARGO=$aarch64_cargo
fi
for out in first second; do
    HOSTMEM_STRICT=1 capi/release.sh "$work/$out" "$aarch64"
done
cmp "$work/first/SHA256SUMS" "$work/second/SHA256SUMS"
archive=hostmem-$version-$aarch64
tar -tf "$work/first/$archive.tar.xz" | grep -v / && exit 1
tar -C "$work" -xf "$work/first/$archive.tar.xz"
(cd "$work/$archive" && sha256sum --quiet -c SHA256SUMS)
if grep -rlF -e "$PWD" -e "$HOME/" "$work/$archive"; then
    printf 'these have paths of this machine in them\n' >&2
    exit 1
fi
(
    export PATH=$work/bin HOME=$work/empty
    if command -v cargo || command -v rustc; then exit 1; fi
    toolchain=(-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64)
    toolchain+=(-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc)
    toolchain+=(-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_C_FLAGS=-DEMULATED=1)
    refused "is of $version $aarch64, and" -DHOSTMEM_PREBUILT="$work/$archive"
    # The archive as a subfolder, the folder of archives, an installed package.
    while read -r how library options; do
        read -ra options <<<"$options"
        printf '%s, %s:\n' "$how" "$library"
        quietly cmake -S capi/examples -B "$work/$how-$library" -DLIBRARY="$library" \
            "${toolchain[@]}" "${options[@]}"
        quietly cmake --build "$work/$how-$library"
        (cd "$work/$how-$library" && ctest --timeout 600 --output-on-failure | tail -n 3)
    done <<END
prebuilt hostmem_static -DHOSTMEM_FROM_SOURCE=ON -DHOSTMEM_PREBUILT=$work/first \
-DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64
unpacked malloc_static -DHOSTMEM_FROM_SOURCE=ON -DHOSTMEM_PREBUILT=$work/$archive \
-DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64
package hostmem -DCMAKE_PREFIX_PATH=$work/$archive \
-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu
END
)
