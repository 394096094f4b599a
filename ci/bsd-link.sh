#!/usr/bin/env bash
# Links the conformance suite for FreeBSD and NetBSD: what the backends call is in their libc.
source "$(dirname "$0")/lib.sh"

export PYTHONPATH="$PWD/target/tools"
export HOSTMEM_ZIG="python3 -m ziglang"

# The package with clang, headers and stubs of many systems' libc.
install_zig() {
    python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip || return 1
    python3 -m pip install -qq --target "$PYTHONPATH" ziglang
}

if late; then
    skip "linking for the BSDs, since this machine is slow and time is short"
    exit 0
fi

step "the linker"
if ! $HOSTMEM_ZIG version 2>/dev/null && ! { install_zig && $HOSTMEM_ZIG version; }; then
    skip "linking for the BSDs: the compiler package cannot be had"
    exit 0
fi

targets=()
for system in freebsd.14.0 netbsd.10.1; do
    target=x86_64-unknown-${system%%.*}
    if has_library "$target"; then
        targets+=(--target "$target")
        name=${target^^} name=CARGO_TARGET_${name//-/_}
        export "${name}_LINKER=$PWD/ci/bsd-cc"
        export "${name}_RUSTFLAGS=-C link-args=--target=x86_64-$system-none"
    else
        skip "linking for $target: its library cannot be had"
    fi
done
if [ ${#targets[@]} != 0 ]; then
    step "the conformance suite"
    # Not to be run: neither fast nor debugged, it is made in a third of the time.
    quick=(--config profile.dev.debug=false)
    for package in hostmem-core hostmem-conformance bitvec; do
        quick+=(--config "profile.dev.package.$package.opt-level=0")
    done
    cargo test --quiet --no-run "${quick[@]}" "${targets[@]}" -p hostmem-conformance --test os \
        --all-features
fi
