#!/usr/bin/env bash
# Format and lints.
source "$(dirname "$0")/lib.sh"

cargo fmt --all --check
for own_workspace in tests/embed tests/bare; do
    (cd "$own_workspace" && cargo fmt --check)
done
cargo clippy --workspace --all-targets --all-features -- -D warnings
