#!/usr/bin/env bash
# Format and lints.
source "$(dirname "$0")/lib.sh"

cargo fmt --all --check
# Named within macros, where cargo fmt does not look.
rustfmt --edition 2024 --check src/*.rs examples/emulator/src/{*,*/*,*/*/*}.rs
for own_workspace in tests/embed tests/bare tests/backend tests/fuzz tests/miri benches/heap \
    examples/emulator/freestanding; do
    (cd "$own_workspace" && cargo fmt --check)
done
cargo clippy --workspace --all-targets --all-features -- -D warnings
# As where no peer is installed.
cargo clippy -p hostmem-bench --no-default-features --all-targets -- -D warnings
