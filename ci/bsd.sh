#!/usr/bin/env bash
# The BSDs from elsewhere: type-check for two targets, a minute; with `all`, for every target, and
# link the conformance suite, six more. On a BSD machine itself: ci/bsd-native.sh.
source "$(dirname "$0")/lib.sh"

packages=(-p hostmem-core -p hostmem-bsd -p hostmem-netbsd -p hostmem)

step "type-check where the library comes with the toolchain"
for target in x86_64-unknown-freebsd x86_64-unknown-netbsd; do
    if rustup target add "$target"; then
        cargo check --quiet --target "$target" "${packages[@]}" --lib --all-features
        cargo check --quiet --target "$target" "${packages[@]}" --lib --no-default-features
    else
        skip "$target: its library cannot be had"
    fi
done

if [ "${1:-}" != all ]; then
    skip "the other BSD targets, and linking: ci/bsd.sh all"
    exit 0
fi

step "type-check where it has to be built"
if ! dpkg -s rust-web-src >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q && apt-get install -q -y rustc-web cargo-web rust-web-src || true
fi
if [ -x /usr/bin/cargo ] && RUSTC_BOOTSTRAP=1 /usr/bin/rustc --version; then
    for target in aarch64-unknown-freebsd aarch64-unknown-netbsd x86_64-unknown-openbsd \
        aarch64-unknown-openbsd x86_64-unknown-dragonfly; do
        step "$target"
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo check --quiet -Zbuild-std=core,alloc \
            --target "$target" --target-dir target/build-std "${packages[@]}" --lib --features hostmem/sim
    done
else
    skip "the targets without a ready library: no toolchain with the library's source can be had"
fi

step "link the conformance suite"
tools=target/tools
if [ ! -x $tools/bin/python ] || ! $tools/bin/python -c 'import ziglang' 2>/dev/null; then
    if ! { python3 -m venv $tools && $tools/bin/pip install --quiet ziglang; }; then
        skip "linking for the BSDs: the compiler package cannot be installed"
        exit 0
    fi
fi
export HOSTMEM_ZIG="$PWD/$tools/bin/python -m ziglang"
export CARGO_TARGET_X86_64_UNKNOWN_FREEBSD_LINKER="$PWD/ci/bsd-cc"
export CARGO_TARGET_X86_64_UNKNOWN_NETBSD_LINKER="$PWD/ci/bsd-cc"
link() { # Rust target, compiler target
    if rustup target list --installed | grep -qx "$1"; then
        HOSTMEM_ZIG_TARGET=$2 cargo test --quiet --no-run --target "$1" -p hostmem-conformance \
            --test os --all-features
    fi
}
link x86_64-unknown-freebsd x86_64-freebsd.14.0-none
link x86_64-unknown-netbsd x86_64-netbsd.10.1-none
