#!/usr/bin/env bash
# ThreadSanitizer, on real memory: what threads do to code, functions, range maps and heaps. Three
# minutes on two cores, most of which it is built; with `long`, more steps of each thread, and all
# threads of the conformance suite. One test at a time: it does not see that raw system calls unmap,
# and takes memory of one test and the next one's at the same address for a race.
source "$(dirname "$0")/lib.sh"

host=$(rustc -vV | sed -n 's/^host: //p')
if [ "$host" != x86_64-unknown-linux-gnu ]; then
    skip "ThreadSanitizer: not for $host"
    exit 0
fi
if ! cargo +nightly fetch --quiet -Zbuild-std --target "$host" 2>/dev/null; then
    skip "ThreadSanitizer: there is no nightly compiler with its library's source"
    exit 0
fi

export RUSTFLAGS=-Zsanitizer=thread
# Tests fork with threads around.
export TSAN_OPTIONS=die_after_fork=0
# It tells races by the order that steps have, not by luck, so that few steps show most of them; and
# what one thread does alone has none.
functions=(retire:: runtime::threads_ func_cell::threads_)
maps=(changes::readers_ changes::writers_ signals::)
if [ "${1:-}" = long ]; then
    functions=(retire:: runtime:: func_cell::)
    maps=()
else
    export HOSTMEM_WATCHED=1
fi
watched() {
    cargo +nightly test --quiet -Zbuild-std --target "$host" --target-dir target/tsan "$@"
}

# Without `std` the tests' own memory is not a heap's, whose order of steps it would not see.
hostmem=(-p hostmem --no-default-features --features linux,sim)
step "code, functions and range maps under ThreadSanitizer"
watched "${hostmem[@]}" --test jit -- --test-threads=1 "${functions[@]}"
watched "${hostmem[@]}" --test range_map -- --test-threads=1 "${maps[@]}"
step "heaps under ThreadSanitizer"
# Not what clones with shared memory, which it takes for a fork, nor what fills 4 GiB.
watched "${hostmem[@]}" --test heap -- --test-threads=1 \
    general::threads:: general::signal_handlers:: short_threads
step "the core under ThreadSanitizer"
watched -p hostmem-core --lib -- readers_without_a_lock threads_find
if [ "${1:-}" = long ]; then
    step "the conformance suite's threads under ThreadSanitizer"
    watched -p hostmem-conformance --test os -- "linux process::threads"
fi
