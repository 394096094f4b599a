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

step "the core on a target without std"
if rustup target add x86_64-unknown-none; then
    cargo build --quiet -p hostmem-core --target x86_64-unknown-none
    cargo build --quiet -p hostmem-core --features sim --target x86_64-unknown-none
else
    skip "no std for x86_64-unknown-none can be had; the freestanding program below still shows it"
fi

step "a freestanding program: links without std, alloc and libc, and runs"
host=$(rustc -vV | sed -n 's/^host: //p')
(
    cd tests/embed # Its .cargo/config.toml says how to link.
    cargo clippy --quiet --release --target "$host" --target-dir ../../target/embed -- -D warnings
    cargo run --quiet --release --target "$host" --target-dir ../../target/embed
)
