#!/usr/bin/env bash
# Makes release archives of the libraries for C, which need no Rust where they are used:
#
#   capi/release.sh [OUT [TARGET...]]
#
#   OUT/hostmem-VERSION-TARGET.tar.xz, OUT/SHA256SUMS     OUT is target/release-archives by default
#
# TARGETs are Rust's names; by default x86-64 and AArch64 Linux, each with glibc and with musl. A
# target whose tools are missing is named and left out; with HOSTMEM_STRICT=1 that is an error.
# COMPILER_<target> (dashes are underscores) names another compiler than those looked for.
#
# Of the same sources, Rust and linker the archives are the same, byte by byte: files are as old as
# the last commit, or as SOURCE_DATE_EPOCH says.
set -euo pipefail

out=$(realpath -m "${1:-$(dirname "$0")/../target/release-archives}")
cd "$(dirname "$0")/.."
targets=("${@:2}")
if [ ${#targets[@]} = 0 ]; then
    targets=({x86_64,aarch64}-unknown-linux-{gnu,musl})
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
rustc=${RUSTC:-rustc}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export LC_ALL=C TZ=UTC
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
left_out=0

leave_out() { # target, why
    printf 'left out: %s: %s\n' "$1" "$2" >&2
    left_out=1
}

# Sets $compiler and $cross, the beginning of the names of binutils that know the target.
find_tools() { # target
    local cpu=${1%%-*} library=${1##*-} own=COMPILER_${1//-/_} candidate names=()
    names=("${!own:-$cpu-linux-$library-gcc}" "$cpu-unknown-linux-$library-gcc")
    [ "$cpu" != "$(uname -m)" ] || case $library in
    gnu) names+=(gcc cc) ;;
    musl) names+=(musl-gcc) ;;
    esac
    compiler=''
    for candidate in "${names[@]}"; do
        if command -v "$candidate" >/dev/null; then
            compiler=$candidate
            break
        fi
    done
    [ -n "$compiler" ] || {
        leave_out "$1" "there is none of ${names[*]}"
        return 1
    }
    for cross in "$cpu-linux-$library-" "$cpu-unknown-linux-$library-" "$cpu-linux-gnu-" ''; do
        if command -v "${cross}objcopy" >/dev/null &&
            "${cross}ld" -V 2>/dev/null | grep -q "$cpu"; then
            break
        fi
        [ -n "$cross" ] || {
            leave_out "$1" "no binutils know $cpu"
            return 1
        }
    done
    library=$("$rustc" --print target-libdir --target "$1")
    if ! compgen -G "$library/libcore-*.rlib" >/dev/null; then
        leave_out "$1" "this Rust has no library for it; rustup target add $1"
        return 1
    fi
}

# Copies the licences of all crates that the libraries contain, and of Rust's own library.
copy_licences() { # target, to
    local crate name_version sources=() from sysroot
    mkdir -p "$2"
    cp LICENSE-APACHE LICENSE-MIT "$2"
    mapfile -t sources < <(printf '%s\n' "${VENDOR:-}" "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*)
    "${CARGO:-cargo}" tree --quiet --locked "${vendored[@]}" -p hostmem_malloc --target "$1" \
        -e no-dev,no-build,no-proc-macro --prefix none --format '{p}' |
        grep -v '(/' | sed 's/ (.*//; s/ v/-/' | sort -u >"$work/crates.txt"
    while read -r name_version; do
        from=''
        for source in "${sources[@]}"; do
            for crate in "$source/$name_version" "$source/${name_version%-*}"; do
                [ -z "$source" ] || [ ! -d "$crate" ] || from=$crate
            done
        done
        mkdir -p "$2/$name_version"
        if ! cp -r "${from:-none}"/*LICEN[CS]E* "$2/$name_version/" 2>/dev/null; then
            printf 'no licence of %s is found\n' "$name_version" >&2
            return 1
        fi
    done <"$work/crates.txt"
    sysroot=$("$rustc" --print sysroot)
    mkdir -p "$2/rust"
    cp "$sysroot"/share/doc/rust/COPYRIGHT-library.html "$2/rust/" 2>/dev/null ||
        printf 'Rust core library: MIT or Apache-2.0, https://www.rust-lang.org\n' \
            >"$2/rust/COPYRIGHT"
}

pack() { # target
    local name=hostmem-$version-$1 variable=${1//-/_} root=$work/packed
    rm -rf "${root:?}"
    mkdir -p "$root"
    export "CARGO_TARGET_${variable^^}_LINKER=$compiler"
    DESTDIR=$root TARGET=$1 CROSS=$cross capi/install.sh "/$name"
    # Wherever it is unpacked.
    # shellcheck disable=SC2016 # pkg-config's variable
    sed -i 's|^prefix=.*|prefix=${pcfiledir}/../..|' "$root/$name"/lib/pkgconfig/*.pc
    copy_licences "$1" "$root/$name/licences"
    printf '%s %s\n' "$version" "$1" >"$root/$name/TARGET"
    # For FetchContent of this archive alone.
    cp capi/cmake/archive.cmake "$root/$name/CMakeLists.txt"
    (cd "$root/$name" && find . -type f -printf '%P\n' | sort | xargs sha256sum) >"$work/sums"
    mv "$work/sums" "$root/$name/SHA256SUMS"
    chmod -R u=rwX,go=rX "$root/$name"
    tar -C "$root" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" -cf "$work/$name.tar" "$name"
    # With one thread, as how many there are changes what comes out.
    xz -9e -T1 "$work/$name.tar"
    mv "$work/$name.tar.xz" "$out/$name.tar.xz"
    printf 'made: %s\n' "$out/$name.tar.xz"
}

vendored=()
if [ -n "${VENDOR:-}" ]; then
    vendored=(--offline --config 'source.crates-io.replace-with="vendored"')
    vendored+=(--config "source.vendored.directory=\"$(realpath "$VENDOR")\"")
fi
mkdir -p "$out"
for target in "${targets[@]}"; do
    if find_tools "$target"; then
        pack "$target"
    fi
done
if compgen -G "$out/hostmem-$version-*.tar.xz" >/dev/null; then
    (cd "$out" && sha256sum "hostmem-$version"-*.tar.xz >SHA256SUMS)
fi
[ $left_out = 0 ] || [ "${HOSTMEM_STRICT:-}" != 1 ]
