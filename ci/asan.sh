#!/usr/bin/env bash
# AddressSanitizer: the core's tests, and the conformance suite on a simulated host. Reads and writes
# beyond tables end the run.
source "$(dirname "$0")/lib.sh"

host=$(rustc -vV | sed -n 's/^host: //p')

if ! cargo +nightly --version 2>/dev/null; then
    skip "AddressSanitizer: there is no nightly compiler"
    exit 0
fi
case "$host" in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
    *)
        skip "AddressSanitizer: not for $host"
        exit 0
        ;;
esac

export RUSTFLAGS="-Zsanitizer=address"
export ASAN_OPTIONS=detect_leaks=0 # A test of the core leaks the blocks that it makes.
sanitized() {
    cargo +nightly test --quiet --target "$host" --target-dir target/asan "$@"
}

step "the core under AddressSanitizer"
sanitized -p hostmem-core --lib --features sim
step "the conformance suite on a simulated host under AddressSanitizer"
sanitized -p hostmem-conformance --test os -- "sim 4 KiB"
