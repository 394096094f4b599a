#!/usr/bin/env bash
# The declared minimum Rust version builds everything.
source "$(dirname "$0")/lib.sh"

msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if rustup run "$msrv" cargo --version 2>/dev/null; then
    rustup run "$msrv" cargo check --quiet --workspace --all-features --target-dir target/msrv
elif rustc --version | grep -q "^rustc $msrv\."; then
    step "Rust $msrv is the toolchain that everything else ran with"
else
    skip "Rust $msrv is not installed, so the minimum version was not checked"
fi
