#!/usr/bin/env bash
# Miri: the core's structures on memory whose every reservation is an allocation of its own. About
# two minutes; with `long`, more orders of threads' steps, and everything under Tree Borrows too.
source "$(dirname "$0")/lib.sh"

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    skip "Miri is not there"
    exit 0
fi
watched() { # flags, tests
    step "Miri $1"
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance $1" cargo +nightly miri test --quiet \
        --manifest-path tests/miri/Cargo.toml --target-dir target/miri --test all -- --exact "${@:2}"
}

# A heap finds blocks by address, and bitvec keeps to Tree Borrows alone.
by_pointer=(
    arena::an_arena heap::a_heap heap::a_heap_whose_blocks_other_threads_free
    range_map::a_range_map range_map::a_range_map_that_changes_while_it_is_read
)
jit=(
    jit::a_jit_allocator jit::a_jit_allocator_that_is_asked_without_a_lock
    jit::code_is_retired_while_threads_read_it
)
watched "" "${by_pointer[@]}"
watched "-Zmiri-tree-borrows -Zmiri-tree-borrows-no-precise-interior-mut" "${jit[@]}"
# Races, in orders that are tried one after the other: no model of borrows, which takes most of the
# time.
seeds=4
if [ "${1:-}" = long ]; then
    seeds=64
    watched "" heap::a_heap_that_checks_everything
    watched "-Zmiri-tree-borrows -Zmiri-tree-borrows-no-precise-interior-mut" \
        "${by_pointer[@]}" heap::a_heap_that_is_asked_without_a_lock
fi
watched "-Zmiri-disable-stacked-borrows -Zmiri-many-seeds=0..$seeds -Zmiri-preemption-rate=0.1" \
    jit::code_is_retired_while_threads_read_it
