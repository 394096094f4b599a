#!/usr/bin/env bash
# Every feature alone, none, and all; no std, no alloc, no libc where none is promised.
source "$(dirname "$0")/lib.sh"

for features in "" linux bsd netbsd std sim linux,sim; do
    step "hostmem with features '$features'"
    cargo check --quiet --no-default-features --features "$features"
done
cargo check --quiet --all-features
cargo build --quiet -p hostmem-core --no-default-features
cargo build --quiet -p hostmem-linux --no-default-features

step "the core on machines without an operating system"
for target in x86_64-unknown-none aarch64-unknown-none; do
    if rustup target add "$target"; then
        cargo build --quiet -p hostmem-core --target "$target"
        # With a provider over a static array, as a library in which nothing may be missing.
        (cd tests/bare && cargo build --quiet --target "$target" --target-dir ../../target/bare)
    else
        skip "$target: its library cannot be had"
    fi
done

step "a freestanding program: links without std, alloc and libc, and runs"
host=$(rustc -vV | sed -n 's/^host: //p')
(
    cd tests/embed # Its .cargo/config.toml says how to link.
    cargo clippy --quiet --release --target "$host" --target-dir ../../target/embed -- -D warnings
    cargo run --quiet --release --target "$host" --target-dir ../../target/embed
)
