#!/usr/bin/env bash
# Other CPUs: all tests for AArch64 Linux, under qemu-user.
source "$(dirname "$0")/lib.sh"

# 8.1 and newer run rewritten code rightly: older ones run stale code after a rewrite through a
# second mapping, and with them the tests would prove nothing.
QEMU_LEAST=8.1
target=aarch64-unknown-linux-gnu

qemu_is_new_enough() {
    local version
    version=$(qemu-aarch64 --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && [ "$(printf '%s\n' "$QEMU_LEAST" "$version" | sort -V | head -n 1)" = "$QEMU_LEAST" ]
}

# Debian 12's own qemu is too old; its backports have one that is not.
install_qemu() {
    local list=/etc/apt/sources.list.d suite
    suite="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")-backports"
    if [ -e "$list/debian.sources" ] && ! grep -rqs backports "$list"; then
        awk '/^$/ { exit } { print }' "$list/debian.sources" |
            sed "s/^Suites:.*/Suites: $suite/" >"$list/hostmem-backports.sources"
        apt-get update -q || return 1
    fi
    apt-get install -q -y -t "$suite" qemu-user || apt-get install -q -y qemu-user
}

install_tools() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get update -q && apt-get install -q -y gcc-aarch64-linux-gnu libc6-dev-arm64-cross || return 1
    qemu_is_new_enough || install_qemu
}

# A toolchain of Debian's with its library for the target.
install_debian_rust() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    dpkg --add-architecture arm64 && apt-get update -q &&
        apt-get install -q -y rustc-web cargo-web libstd-rust-web-dev:arm64
}

# Lets the kernel start AArch64 programs by itself, as tests that start themselves again need.
register_qemu() {
    local folder=/proc/sys/fs/binfmt_misc
    [ -e $folder/register ] || mount -t binfmt_misc none $folder || return 1
    grep -qs -l '^magic 7f454c460201010000000000000000000200b700' $folder/* && return 0
    # An ELF header: 64 bits, little-endian, EM_AARCH64. F: opened now, found in every namespace.
    printf '%s' ':hostmem-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$(command -v qemu-aarch64)"':F' \
        >$folder/register
}

step "tools for $target"
if ! qemu_is_new_enough || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    install_tools || true
fi
if ! qemu_is_new_enough || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    skip "AArch64: qemu-user $QEMU_LEAST and gcc-aarch64-linux-gnu cannot be had"
    exit 0
fi

# The toolchain in use, if its library for the target can be had; else Debian's.
cargo=cargo
if ! rustup target add "$target"; then
    if ! install_debian_rust; then
        skip "AArch64: no library for $target can be had"
        exit 0
    fi
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
    cargo=/usr/bin/cargo
fi

if ! register_qemu; then
    skip "AArch64: tests that start themselves again, since binfmt_misc cannot be set up"
    exit 0
fi

step "all tests for $target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="timeout 600 qemu-aarch64"
export HOSTMEM_EMULATED=1
"$cargo" test --quiet --target "$target" --all-features \
    -p hostmem-core -p hostmem-linux -p hostmem
# What depends on the CPU and on the page size. The emulator keeps mappings out of the process map
# that it does not let others have, and takes MADV_REMOVE for advice, so the rest would fail there.
"$cargo" test --quiet --target "$target" -p hostmem-conformance --test os -- \
    "linux jit" "linux arena" "sim 16 KiB jit" "sim 64 KiB jit" "sim 64 KiB pages"

step "the main job for $target"
"$cargo" run --quiet --target "$target" --example expression -- 'x*x - 3*y + 7' x=6 y=5
"$cargo" run --quiet --target "$target" --example expression -- --bench 500

step "a freestanding program for $target"
(
    cd tests/embed # Its .cargo/config.toml says how to link and run.
    unset CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER
    "$cargo" run --quiet --release --target "$target" --target-dir ../../target/embed
)
