#!/usr/bin/env bash
# Builds the libraries for programs in C and C++ and installs them:
#
#   [DESTDIR=DIRECTORY] capi/install.sh PREFIX
#
#   PREFIX/lib/libhostmem.so.0, libhostmem.so, libhostmem.a    (the number is capi/soname's)
#   PREFIX/lib/libhostmem_malloc.so.0, libhostmem_malloc.so, libhostmem_malloc.a
#   PREFIX/lib/pkgconfig/hostmem.pc, hostmem_malloc.pc
#   PREFIX/lib/cmake/hostmem/hostmem-config.cmake, hostmem-config-version.cmake
#   PREFIX/include/hostmem.h, hostmem.hpp, hostmem_malloc.h
#   PREFIX/include/hostmem/*.hpp: the parts of hostmem.hpp, and adapters for code generators
#
# For another machine TARGET is its name for Rust and CROSS begins its tools' names:
# TARGET=aarch64-unknown-linux-gnu CROSS=aarch64-linux-gnu-. LIBDIR names another folder than lib.
# LIBRARIES names some of the libraries, hostmem and hostmem_malloc, where not both are wanted.
# NM, LD, OBJCOPY, AR and STRIP name tools one by one. VENDOR is a folder that `cargo vendor` made:
# then cargo needs no network.
#
# No path of the machine that builds is in what is installed.
set -euo pipefail

prefix=${1:-}
if [ $# != 1 ] || [[ $prefix != /* ]]; then
    printf 'usage: [DESTDIR=DIRECTORY] %s PREFIX    # an absolute path\n' "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/.."

cross=${CROSS:-}
nm=${NM:-${cross}nm} ld=${LD:-${cross}ld} objcopy=${OBJCOPY:-${cross}objcopy}
ar=${AR:-${cross}ar} strip=${STRIP:-${cross}strip}
soname=$(<capi/soname)

options=()
built=${CARGO_TARGET_DIR:-target}
if [ -n "${TARGET:-}" ]; then
    options+=(--target "$TARGET")
    built=$built/$TARGET
fi
built=$built/capi
if [ -n "${VENDOR:-}" ]; then
    options+=(--offline --config 'source.crates-io.replace-with="vendored"')
    options+=(--config "source.vendored.directory=\"$(realpath "$VENDOR")\"")
fi

rustc=${RUSTC:-rustc}
for_target=${TARGET:-$("$rustc" -vV | sed -n 's/^host: //p')}
flags=("--remap-path-prefix=$PWD=hostmem")
flags+=("--remap-path-prefix=$("$rustc" --print sysroot)/lib/rustlib/src/rust=rust")
flags+=("--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo")
if [ -n "${VENDOR:-}" ]; then
    flags+=("--remap-path-prefix=$(realpath "$VENDOR")=vendor")
fi
# The C library is the program's: the archive contains none, and there is a shared library.
[[ $for_target != *-musl ]] || flags+=(-Ctarget-feature=-crt-static)
if [ -n "${RUSTFLAGS:-}" ]; then
    # What cargo would take instead of those below.
    export RUSTFLAGS="$RUSTFLAGS ${flags[*]}"
else
    options+=(--config "target.$for_target.rustflags=[$(printf '"%s",' "${flags[@]}")]")
fi

lib=${DESTDIR:-}$prefix/${LIBDIR:-lib}
include=${DESTDIR:-}$prefix/include
mkdir -p "$lib/pkgconfig" "$include"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Installs a library, of which only the calls themselves are global.
install_library() { # name, its package's name, what it is, lists of its calls
    local name=$1 package=$2 what=$3 how=(build) types=() roots=() call
    shift 3
    if [ "$package" = hostmem_c ]; then
        # For cargo it is a library of Rust's. Programs that are linked to it look for the name; it
        # is not unloaded, as they have its blocks and its code.
        how=(rustc)
        types=(--crate-type "cdylib,staticlib" --)
        types+=(-C "link-arg=-Wl,-soname=lib$name.so.$soname" -C "link-arg=-Wl,-z,nodelete")
    fi
    "${CARGO:-cargo}" "${how[@]}" --quiet --profile capi -p "$package" "${options[@]}" \
        "${types[@]}"

    # One relocatable object: it goes beside any other archive of Rust's, whose names it would meet
    # otherwise.
    "$nm" -P -g --defined-only "$built/lib$package.a" 2>/dev/null | cut -d ' ' -f 1 |
        grep -xFf <(cat "$@") | sort -u >"$work/symbols.txt"
    while read -r call; do
        roots+=(-u "$call")
    done <"$work/symbols.txt"
    "$ld" -r --gc-sections "${roots[@]}" -o "$work/whole.o" "$built/lib$package.a"
    # Without what Rust's own library has for its compiler, which another LLVM stumbles over.
    "$objcopy" --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd \
        --keep-global-symbols="$work/symbols.txt" \
        "$work/whole.o" "$work/$name.o"
    rm -f "$work/lib$name.a"
    "$ar" rcsD "$work/lib$name.a" "$work/$name.o"
    install -m 644 "$work/lib$name.a" "$lib/lib$name.a"

    "$strip" --strip-unneeded -o "$work/lib$name.so" "$built/lib$package.so"
    install -m 755 "$work/lib$name.so" "$lib/lib$name.so.$soname"
    ln -sf "lib$name.so.$soname" "$lib/lib$name.so"

    cat >"$lib/pkgconfig/$name.pc" <<END
prefix=$prefix
libdir=\${prefix}/${LIBDIR:-lib}
includedir=\${prefix}/include

Name: $name
Description: $what
Version: $version
Libs: -L\${libdir} -l$name
Libs.private: -pthread
Cflags: -I\${includedir}
END
}

for library in ${LIBRARIES:-hostmem hostmem_malloc}; do
    case $library in
    hostmem)
        install_library hostmem hostmem_c "Host memory for emulators and JIT runtimes" \
            capi/c/symbols.txt
        ;;
    hostmem_malloc)
        install_library hostmem_malloc hostmem_malloc \
            "A malloc for emulators: checked frees, exact ownership, memory below 4 GiB" \
            capi/malloc/symbols.txt capi/c/symbols.txt
        install -m 644 capi/include/hostmem_malloc.h "$include/hostmem_malloc.h"
        ;;
    *)
        printf '%s is no library of this project\n' "$library" >&2
        exit 2
        ;;
    esac
done
# For find_package(hostmem) of CMake: what is not installed is not there.
cmake=$lib/cmake/hostmem
mkdir -p "$cmake"
from=$prefix/${LIBDIR:-lib}/cmake/hostmem
sed -e "s|@INCLUDE@|$(realpath -m --relative-to="$from" "$prefix/include")|" \
    -e "s|@SONAME@|$soname|" capi/hostmem-config.cmake >"$work/hostmem-config.cmake"
install -m 644 "$work/hostmem-config.cmake" "$cmake/hostmem-config.cmake"
cat >"$work/hostmem-config-version.cmake" <<END
set(PACKAGE_VERSION $version)
# Before 1.0 the same minor number serves.
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION OR
   NOT "\${PACKAGE_FIND_VERSION_MAJOR}.\${PACKAGE_FIND_VERSION_MINOR}" VERSION_EQUAL ${version%.*})
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
END
install -m 644 "$work/hostmem-config-version.cmake" "$cmake/hostmem-config-version.cmake"

# Both have these calls.
install -m 644 capi/include/hostmem.h "$include/hostmem.h"
install -m 644 capi/include/hostmem.hpp "$include/hostmem.hpp"
mkdir -p "$include/hostmem"
install -m 644 capi/include/hostmem/*.hpp "$include/hostmem"
