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

# Builds and lints a program without std and libc; its .cargo/config.toml says how to link and run.
freestanding() { # folder, target, cargo
    (
        cd "$1"
        "$3" clippy --quiet --release --target "$2" --target-dir "$root/target/embed" -- -D warnings
        "$3" build --quiet --release --target "$2" --target-dir "$root/target/embed"
    )
}

# Refuses a program that asks for anything from outside, and runs the emulator's guests with it, by
# the tests of the hosted one; without those of what it does not have.
check_emulator() { # target, what runs its programs
    local program=$root/target/embed/$1/release/emulator
    [ -z "$(nm -u "$program")" ]
    readelf -lW "$program" | awk '/INTERP|DYNAMIC/ { exit 1 }'
    ${2:-} "$program"
    EMULATOR="${2:-} $program" cargo test --quiet -p hostmem-emulator --test guests -- \
        --skip a_long_program_tells_a_terminal --skip the_address_space_is_drawn \
        --skip translated_code_is_named
}

root=$PWD
host=$(rustc -vV | sed -n 's/^host: //p')
step "freestanding programs for $host"
freestanding tests/embed "$host" cargo
"target/embed/$host/release/hostmem-embed"
freestanding examples/emulator/freestanding "$host" cargo
check_emulator "$host"

step "freestanding programs for $aarch64"
if aarch64_tools; then
    if [ "$aarch64_cargo" != cargo ]; then
        # Debian's library calls its libc's stack protector.
        export RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=core,alloc
    fi
    freestanding tests/embed "$aarch64" "$aarch64_cargo"
    qemu-aarch64 "target/embed/$aarch64/release/hostmem-embed"
    freestanding examples/emulator/freestanding "$aarch64" "$aarch64_cargo"
    unset CARGO_UNSTABLE_BUILD_STD
    check_emulator "$aarch64" qemu-aarch64
fi
