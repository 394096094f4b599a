# Builds and runs programs for AArch64 Linux on another machine. Sourced, not run.

# 8.1 and newer run rewritten code rightly: older ones run stale code after a rewrite through a
# second mapping, and with them the tests would prove nothing.
QEMU_LEAST=8.1
aarch64=aarch64-unknown-linux-gnu
aarch64_cargo=cargo

# Where freestanding programs are built.
embed=$PWD/target/embed

# Makes $aarch64_cargo build for $aarch64 and qemu-aarch64 run that, or says aloud why not.
aarch64_tools() {
    if ! have_emulator && ! { install_emulator && have_emulator; }; then
        skip "AArch64: qemu-user $QEMU_LEAST and gcc-aarch64-linux-gnu cannot be had"
        return 1
    fi
    if ! has_library "$aarch64" && ! use_debian_rust; then
        skip "AArch64: no library for $aarch64 can be had"
        return 1
    fi
}

have_emulator() {
    local version
    command -v aarch64-linux-gnu-gcc >/dev/null || return 1
    version=$(qemu-aarch64 --version 2>/dev/null | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && printf '%s\n' "$QEMU_LEAST" "$version" | sort -C -V
}

install_emulator() {
    install_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross || return 1
    have_emulator || { add_backports && install_packages -t "$backports" qemu-user; } || install_packages qemu-user
}

# Debian 12's own qemu is too old; its backports have one that is not.
add_backports() {
    local list=/etc/apt/sources.list.d
    backports="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")-backports"
    grep -rqs "$backports" "$list" && return
    [ -e "$list/debian.sources" ] || return 1
    awk '/^$/ { exit } { print }' "$list/debian.sources" |
        sed "s/^Suites:.*/Suites: $backports/" >"$list/hostmem-backports.sources"
}

# A toolchain of Debian's with its library for the target.
use_debian_rust() {
    dpkg --add-architecture arm64 2>/dev/null &&
        install_packages rustc-web cargo-web rust-web-src libstd-rust-web-dev:arm64 || return 1
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
    aarch64_cargo=/usr/bin/cargo
    has_library "$aarch64"
}

# Builds a program without std and libc; the .cargo/config.toml of its folder says how to link it.
build_freestanding() { # folder, target
    (
        cd "$1"
        cargo=cargo
        if [ "$2" = "$aarch64" ] && [ "$aarch64_cargo" != cargo ]; then
            # Debian's library calls its libc's stack protector.
            export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=core,alloc
            cargo=$aarch64_cargo
        fi
        "$cargo" build --quiet --release --target "$2" --target-dir "$embed"
    )
}
