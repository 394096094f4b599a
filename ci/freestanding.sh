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

# Refuses a program that asks for anything from outside, and runs the emulator's guests with it, by
# the tests of the hosted one; without those of what it does not have.
check_emulator() { # target, tests
    local program=$PWD/target/embed/$1/release/emulator
    [ -z "$(nm -u "$program")" ]
    readelf -lW "$program" | awk '/INTERP|DYNAMIC/ { exit 1 }'
    if [ "$1" = "$aarch64" ]; then
        program="qemu-aarch64 $program"
    fi
    $program
    EMULATOR=$program cargo test --quiet -p hostmem-emulator --test guests -- "${@:2}"
}

lint_freestanding() { # folder, target
    (cd "$1" && cargo clippy --quiet --release --target "$2" --target-dir "$embed" -- -D warnings)
}

host=$(rustc -vV | sed -n 's/^host: //p')
step "freestanding programs for $host"
lint_freestanding tests/embed "$host"
build_freestanding tests/embed "$host"
"target/embed/$host/release/hostmem-embed"
lint_freestanding examples/emulator/freestanding "$host"
build_freestanding examples/emulator/freestanding "$host"
check_emulator "$host" --skip a_long_program_tells_a_terminal --skip the_address_space_is_drawn \
    --skip translated_code_is_named --skip debugger::

step "freestanding programs for $aarch64"
if aarch64_tools; then
    build_freestanding tests/embed "$aarch64"
    qemu-aarch64 "target/embed/$aarch64/release/hostmem-embed"
    build_freestanding examples/emulator/freestanding "$aarch64"
    check_emulator "$aarch64" guests_run_translated options_do refused::
fi
