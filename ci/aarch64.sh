#!/usr/bin/env bash
# All tests and the main job for AArch64 Linux, under qemu-user.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

# Lets the kernel start AArch64 programs by itself, as tests that start themselves again need.
register_qemu() {
    local folder=/proc/sys/fs/binfmt_misc
    [ -e $folder/register ] || mount -t binfmt_misc none $folder || return 1
    grep -qs -l '^magic 7f454c460201010000000000000000000200b700' $folder/* && return 0
    # An ELF header: 64 bits, little-endian, EM_AARCH64. F: opened now, found in every namespace.
    printf '%s' ':hostmem-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$(command -v qemu-aarch64)"':F' \
        >$folder/register
}

step "tools for AArch64"
aarch64_tools || exit 0
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTDOCFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="timeout 1800 qemu-aarch64"
export HOSTMEM_EMULATED=1

step "the main job for $aarch64"
"$aarch64_cargo" run --quiet --target "$aarch64" --example emulator

step "the small example for $aarch64"
"$aarch64_cargo" run --quiet --target "$aarch64" --example expression -- 'x*x - 3*y + 7' x=6 y=5
"$aarch64_cargo" run --quiet --target "$aarch64" --example expression -- --bench 500

step "code that is rewritten and run on $aarch64"
"$aarch64_cargo" test --quiet --target "$aarch64" -p hostmem --test arch

if late; then
    skip "AArch64: the suite and all other tests, since this machine is slow and time is short"
    exit 0
fi

step "the emulator's code generator and its guests for $aarch64"
"$aarch64_cargo" test --quiet --target "$aarch64" -p hostmem-emulator --example emulator
EMULATOR="qemu-aarch64 $PWD/target/$aarch64/debug/examples/emulator" \
    "$aarch64_cargo" test --quiet -p hostmem-emulator --test guests

# What depends on the CPU and on the page size, and what takes a process.
step "the conformance suite for $aarch64"
"$aarch64_cargo" test --quiet --target "$aarch64" -p hostmem-conformance --test os -- \
    "linux jit" "linux arena" "linux process" "sim 64 KiB pages"

step "all other tests for $aarch64"
if register_qemu; then
    # Without the adapters, whose crates take longer to build than all the rest.
    "$aarch64_cargo" test --quiet --target "$aarch64" --features hostmem/sim,hostmem/std \
        -p hostmem-core -p hostmem-linux -p hostmem --lib --tests
else
    skip "AArch64: these tests, some of which start themselves again: binfmt_misc cannot be set up"
fi
