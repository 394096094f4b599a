#!/usr/bin/env bash
# Format and lints.
source "$(dirname "$0")/lib.sh"

cargo fmt --all --check
(cd tests/embed && cargo fmt --check)
cargo clippy --workspace --all-targets --all-features -- -D warnings
