#!/usr/bin/env bash
# The libraries for C as they are installed: how large they are, that the header is the crate's,
# that examples are built with it, that code generators run on its adapters, and that all of it
# serves programs for AArch64, too. Their tests on this machine are among all others.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

# What a program gets at most: code, and unwind tables. The malloc contains the other library.
MALLOC_ARCHIVE_MOST=2000000
MALLOC_SHARED_MOST=1200000
ARCHIVE_MOST=1700000
SHARED_MOST=1000000

# Another version writes another header.
CBINDGEN_VERSION=0.29.4

WARNINGS=(-Wall -Wextra -Wpedantic -Werror)
# What the headers and the examples are free of, too.
STRICT=(-Wconversion -Wshadow)

# The code generators that there are adapters for, and Debian's packages of them.
declare -A GENERATORS=([asmjit]=libasmjit-dev [xbyak]=libxbyak-dev [llvm]=llvm-dev)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

row() { # name, file, most
    local bytes met=yes
    bytes=$(stat -L -c %s "$2")
    [ "$bytes" -le "$3" ] || met=no
    printf 'row: %s ours=%dB peer=none:absent ratio=none target=%dB met=%s\n' \
        "$1" "$bytes" "$3" $met
    [ $met = yes ]
}

# Says whether there is a cbindgen of the version that the header is made by, and names it.
have_cbindgen() {
    local tool
    for tool in "${CBINDGEN:-cbindgen}" "${CARGO_TARGET_DIR:-target}/cbindgen/bin/cbindgen"; do
        if [ "$("$tool" --version 2>/dev/null)" = "cbindgen $CBINDGEN_VERSION" ]; then
            export CBINDGEN=$tool
            return
        fi
    done
    return 1
}

install_cbindgen() {
    timeout 900 cargo install --quiet --locked --version "$CBINDGEN_VERSION" \
        --root "${CARGO_TARGET_DIR:-target}/cbindgen" cbindgen && have_cbindgen
}

step "the header"
if have_cbindgen || install_cbindgen; then
    capi/header.sh "$work/hostmem.h"
    diff capi/include/hostmem.h "$work/hostmem.h"
else
    skip "cbindgen $CBINDGEN_VERSION is not installed and could not be built"
fi
# What is declared is what is exported.
diff capi/c/symbols.txt <(grep -oE '\bhm_[a-z0-9_]+\(' capi/include/hostmem.h |
    tr -d '(' | grep -vx hm_sized | LC_ALL=C sort -u)

step "install"
DESTDIR=$work capi/install.sh /usr
find "$work/usr" -type f -o -type l | sed "s|^$work||" | sort
row hostmem-archive "$work/usr/lib/libhostmem.a" $ARCHIVE_MOST
row hostmem-shared "$work/usr/lib/libhostmem.so" $SHARED_MOST
row malloc-archive "$work/usr/lib/libhostmem_malloc.a" $MALLOC_ARCHIVE_MOST
row malloc-shared "$work/usr/lib/libhostmem_malloc.so" $MALLOC_SHARED_MOST

step "an archive that is not optimized as a whole"
# Another build than capi/install.sh's, and quicker.
CARGO_PROFILE_CAPI_LTO=off CARGO_PROFILE_CAPI_CODEGEN_UNITS=16 CARGO_PROFILE_CAPI_OPT_LEVEL=1 \
    CARGO_TARGET_DIR=$work/parts cargo rustc --quiet --profile capi -p hostmem_c \
    --crate-type staticlib
gcc -std=c11 "${WARNINGS[@]}" -I capi/include -o "$work/parts/layers" \
    capi/c/tests/programs/layers.c "$work/parts/capi/libhostmem_c.a" -pthread
"$work/parts/layers"
rm -r "$work/parts"

step "the parts of the header for C++"
for part in "$work"/usr/include/hostmem/*.hpp; do
    name=$(basename "$part" .hpp)
    [ -z "${GENERATORS[${name%%_*}]:-}" ] || continue
    g++ -std=c++17 "${WARNINGS[@]}" "${STRICT[@]}" -fno-exceptions -fno-rtti -fsyntax-only \
        -I "$work/usr/include" -include "hostmem/$name.hpp" -x c++ /dev/null
done

step "examples"
export PKG_CONFIG_PATH=$work/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$work
if command -v pkg-config >/dev/null || install_packages pkg-config; then
    for compiler in gcc clang g++ clang++; do
        if ! command -v $compiler >/dev/null; then
            skip "examples: there is no $compiler"
            continue
        fi
        sources=(capi/examples/*.c) standard=c11
        if [[ $compiler = *++ ]]; then
            sources=(capi/examples/containers.cpp) standard=c++17
        fi
        for library in hostmem hostmem_malloc; do
            read -ra flags <<<"$(pkg-config --cflags --libs $library)"
            for source in "${sources[@]}"; do
                name=$(basename "${source%.*}")
                printf '%s, %s, %s:\n' "$name" $compiler $library
                $compiler -std=$standard -O2 "${WARNINGS[@]}" "${STRICT[@]}" -o "$work/$name" \
                    "$source" "${flags[@]}"
                LD_LIBRARY_PATH=$work/usr/lib "$work/$name"
            done
        done
    done
else
    skip "examples: there is no pkg-config"
fi

step "adapters for code generators"
# Prints how to compile and link with a code generator; fails where it is not installed.
generator_flags() { # its name
    case $1 in
    asmjit)
        local prefix=${HOSTMEM_ASMJIT:-/usr}
        [ -e "$prefix/include/asmjit/core.h" ] || return 1
        [ "$prefix" = /usr ] || printf '%s ' -isystem "$prefix/include" -L "$prefix/lib"
        printf '%s ' -DASMJIT_STATIC -lasmjit -lrt
        ;;
    xbyak) pkg-config --exists xbyak ;;
    llvm)
        command -v llvm-config >/dev/null && [ -e "$(llvm-config --includedir)/llvm" ] || return 1
        printf '%s ' -isystem "$(llvm-config --includedir)" -L "$(llvm-config --libdir)" \
            "$(llvm-config --libs core orcjit jitlink asmparser native)"
        ;;
    esac
}

# Compiles a program with a code generator and runs it, and prints all that is said at the end.
adapter_program() { # its source, the generator's name, a compiler, more flags
    local source=$1 name=$2 compiler=$3 program flags generator level=-O1
    shift 3
    [ "$name" != llvm ] || level=-O0 # Its headers take long enough.
    program=$work/$name-$compiler-$(basename "$(dirname "$source")")
    read -ra flags <<<"$(pkg-config --cflags --libs hostmem)"
    read -ra generator <<<"$(generator_flags "$name")"
    {
        printf '%s, %s, %s%s:\n' "$source" "$name" "$compiler" "${*:+ $*}"
        "$compiler" -std=c++17 $level "${WARNINGS[@]}" "$@" -o "$program" "$source" "${flags[@]}" \
            "${generator[@]}" -pthread && LD_LIBRARY_PATH=$work/usr/lib "$program"
    } >"$program.log" 2>&1 || touch "$program.failed"
    cat "$program.log"
    [ ! -e "$program.failed" ]
}

# The test and the example of an adapter by both compilers, each bare by one of them.
check_adapter() { # its name
    local test=capi/c/tests/adapters/$1.cpp example=capi/examples/$1.cpp
    local bare=(-fno-exceptions -fno-rtti) programs=() program
    [ "$1" != xbyak ] || bare+=(-DXBYAK_NO_EXCEPTION)
    for compiler in g++ clang++; do
        command -v $compiler >/dev/null || continue
        if [ $compiler = g++ ]; then
            adapter_program "$test" "$1" $compiler &
        else
            adapter_program "$test" "$1" $compiler "${bare[@]}" &
        fi
        programs+=($!)
        adapter_program "$example" "$1" $compiler
    done
    for program in "${programs[@]}"; do
        wait "$program"
    done
}

if [ "$(uname -m)" != x86_64 ]; then
    skip "adapters: the code generators are for x86-64"
elif ! command -v pkg-config >/dev/null; then
    skip "adapters: there is no pkg-config"
else
    for name in "${!GENERATORS[@]}"; do
        generator_flags "$name" >/dev/null || install_packages "${GENERATORS[$name]}" || true
        if ! generator_flags "$name" >/dev/null; then
            skip "adapters: there is no $name"
            continue
        fi
        check_adapter "$name"
    done
fi

step "examples by CMake"
if command -v cmake >/dev/null || install_packages cmake make; then
    for library in hostmem hostmem_static malloc malloc_static; do
        printf '%s:\n' "$library"
        # The example for LLVM takes the longest, and is the same for all libraries.
        cmake -S capi/examples -B "$work/build-$library" -DCMAKE_PREFIX_PATH="$work/usr" \
            -DCMAKE_DISABLE_FIND_PACKAGE_LLVM="$([ "$library" = hostmem ] && echo OFF || echo ON)" \
            -DLIBRARY="$library" >"$work/cmake.log" || { cat "$work/cmake.log"; exit 1; }
        cmake --build "$work/build-$library" >"$work/cmake.log" || { cat "$work/cmake.log"; exit 1; }
        (cd "$work/build-$library" && ctest --output-on-failure | tail -n 3)
    done
else
    skip "examples: there is no CMake"
fi

step "both libraries for AArch64"
aarch64_tools || exit 0
if [ "$aarch64_cargo" != cargo ]; then
    export CARGO=$aarch64_cargo
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
DESTDIR=$work/arm TARGET=$aarch64 CROSS=aarch64-linux-gnu- capi/install.sh /usr
lib=$work/arm/usr/lib
needs() { # archive
    aarch64-linux-gnu-nm -P --undefined-only "$1" | awk 'NF > 1 { print $1 }' | LC_ALL=C sort -u
}
needs "$lib/libhostmem_malloc.a" | diff capi/malloc/undefined.aarch64.txt -
needs "$lib/libhostmem.a" | diff capi/c/undefined.aarch64.txt -

# Not among these are `children`, as children of vfork have memory of their own under qemu-user,
# and `threads`: where another thread has one of the emulator's own locks at a fork, the child
# waits for it.
while read -r program expected; do
    for how in static preloaded; do
        arguments=(-O1 -fno-builtin -w -pthread -I "$work/arm/usr/include")
        arguments+=("capi/malloc/tests/programs/$program.c")
        preload=()
        if [ $how = static ]; then
            arguments+=(-DSTATIC -static "$lib/libhostmem_malloc.a")
        else
            arguments+=(-ldl)
            preload=(-E "LD_PRELOAD=$lib/libhostmem_malloc.so.0")
        fi
        aarch64-linux-gnu-gcc -o "$work/$program" "${arguments[@]}"
        said=$(timeout 600 qemu-aarch64 -L /usr/aarch64-linux-gnu "${preload[@]}" "$work/$program" \
            2>/dev/null </dev/null | tail -n 1)
        printf '%-9s %-10s %s\n' "$program" $how "$said"
        [ "$said" = "$expected" ]
    done
done <<'END'
list all are there
rules all hold
misuse went on
early the end
settings secure=0 low=0 hardening=1 known=1 usable=1
END

# `heap` forks with threads, for which the emulator's own locks are a matter of luck.
programs=(status null pages provider jit code retire turns region layers mmap map)
programs=("${programs[@]/#/capi/c/tests/programs/}")
for source in "${programs[@]/%/.c}" capi/examples/*.c; do
    name=$(basename "$source" .c)
    aarch64-linux-gnu-gcc -std=c11 -O1 "${WARNINGS[@]}" -DEMULATED=1 -static -pthread \
        -I "$work/arm/usr/include" -o "$work/$name" "$source" "$lib/libhostmem.a"
    said=$(timeout 600 qemu-aarch64 "$work/$name" </dev/null)
    printf '%-12s %s\n' "$name" "$(tail -n 1 <<<"$said")"
done
