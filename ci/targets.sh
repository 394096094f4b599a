#!/usr/bin/env bash
# Type-checks the core, the backends and the facade for targets other than Linux; for two that have
# no backend the interface for C too, which stands on a provider of the program's there. Those whose
# library must be built first, a minute each, are one of each system and CPU; with the argument
# `all` they are all.
source "$(dirname "$0")/lib.sh"

targets=(
    x86_64-unknown-{freebsd,netbsd,openbsd,dragonfly,none} aarch64-unknown-{freebsd,none}
)
if [ "${1:-}" = all ]; then
    targets+=(aarch64-unknown-{netbsd,openbsd})
fi

# All targets at once, so that cargo keeps every core busy.
check() { # cargo and its options
    # The facade's own features but for `std`, which a library built here lacks.
    local most="--no-default-features --features hostmem/sim,hostmem/linux,hostmem/bsd,hostmem/netbsd"
    for features in "$most" --no-default-features; do
        # shellcheck disable=SC2086 # the features are words
        "$@" --quiet -p hostmem-core -p hostmem-bsd -p hostmem-netbsd -p hostmem --lib $features
    done
}

# A toolchain that has the library's source: the one in use, else Debian's.
find_source() {
    cargo=cargo
    rustup component add rust-src >/dev/null 2>&1 || true
    can_build_library && return
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc
    can_build_library || { install_packages rustc-web cargo-web rust-web-src && can_build_library; }
}

can_build_library() {
    RUSTC_BOOTSTRAP=1 "$cargo" fetch --quiet -Zbuild-std=core "${without_library[@]}" 2>/dev/null
}

with_library=() without_library=()
for target in "${targets[@]}"; do
    if has_library "$target"; then
        with_library+=(--target "$target")
    else
        without_library+=(--target "$target")
    fi
done

if [ ${#with_library[@]} != 0 ]; then
    step "with the toolchain's library: ${with_library[*]}"
    check cargo check "${with_library[@]}"
fi

if [ ${#without_library[@]} != 0 ]; then
    step "with a library built here: ${without_library[*]}"
    if find_source; then
        # Without alloc and std, since nothing here may need them.
        RUSTC_BOOTSTRAP=1 check "$cargo" check -Zbuild-std=core --target-dir target/build-std \
            "${without_library[@]}"
    else
        skip "${without_library[*]/--target/}: neither their library nor its source can be had"
    fi
fi

foreign=()
for target in x86_64-pc-windows-gnu aarch64-apple-darwin; do
    if has_library "$target"; then
        foreign+=(--target "$target")
    else
        skip "$target: its library cannot be had"
    fi
done
if [ ${#foreign[@]} != 0 ]; then
    step "on a provider of the program's own: ${foreign[*]}"
    # As the library for C is built: without the standard library.
    cargo check --quiet --profile capi -p hostmem-core -p hostmem -p hostmem_c --lib \
        --no-default-features --features hostmem/sim,hostmem/allocator-api2 "${foreign[@]}"
fi
