#!/usr/bin/env bash
# AddressSanitizer: the core's tests, the conformance suite on a simulated host, and the general
# heap with threads and forks. Reads and writes beyond tables end the run.
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
# A test of the core leaks the blocks that it makes, and another one wants to know where its stack
# is.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
sanitized() {
    cargo +nightly test --quiet --target "$host" --target-dir target/asan "$@"
}

step "the core under AddressSanitizer"
# Not the longest one, which does with large nodes what another does with small ones.
sanitized -p hostmem-core --lib --features sim -- --skip nodes_of_the_real_size
step "the conformance suite on a simulated host under AddressSanitizer"
sanitized -p hostmem-conformance --test os -- "sim 4 KiB"
step "the general heap on real memory under AddressSanitizer"
# Not the one that wants all low addresses, of which half are the sanitizer's. Without `std` the
# tests' own memory is the sanitizer's, too, and not a heap's that it does not know.
sanitized -p hostmem --no-default-features --features linux --test heap -- \
    general:: fork:: --skip a_low_heap_serves_nearly_4_gib
