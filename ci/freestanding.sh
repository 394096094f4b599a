#!/usr/bin/env bash
# Programs without std, alloc and libc: on Linux, where they run, and on no operating system at all.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

step "the core on machines without an operating system"
for target in x86_64-unknown-none aarch64-unknown-none; do
    if has_library "$target"; then
        cargo build --quiet -p hostmem-core --target "$target"
        # With a provider over a static array, as a library in which nothing may be missing.
        (cd tests/bare && cargo build --quiet --target "$target" --target-dir ../../target/bare)
    else
        skip "$target: its library cannot be had"
    fi
done

cd tests/embed # Its .cargo/config.toml says how to link and run.
host=$(rustc -vV | sed -n 's/^host: //p')
step "a freestanding program for $host"
cargo clippy --quiet --release --target "$host" --target-dir ../../target/embed -- -D warnings
cargo run --quiet --release --target "$host" --target-dir ../../target/embed

step "a freestanding program for $aarch64"
if aarch64_tools; then
    if [ "$aarch64_cargo" != cargo ]; then
        # Debian's library calls its libc's stack protector.
        export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=core
    fi
    "$aarch64_cargo" run --quiet --release --target "$aarch64" --target-dir ../../target/embed
fi
