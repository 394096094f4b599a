#!/usr/bin/env bash
# Models of all that takes no lock, in every order of steps and with every value that a CPU may show,
# within a bound of preemptions. With the argument `controls` also the proof that the models can
# fail: each order that one of them is about is weakened in a copy of the tree, and must be missed.
source "$(dirname "$0")/lib.sh"

export CARGO_TARGET_DIR=$PWD/target/loom
models() {
    RUSTFLAGS="--cfg loom" cargo test --quiet --release -p hostmem-core --lib -- model_
}

step "models"
models

[ "${1:-}" = controls ] || exit 0
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
weaken() { # file, what is there once or more, what is there instead
    step "weakened: $1: $2 -> $3"
    git archive HEAD | tar -x -C "$copy"
    sed -i "s/$2/$3/" "$copy/$1"
    if diff -q "$1" "$copy/$1"; then
        printf 'nothing was weakened\n' >&2
        exit 1
    fi
    if (cd "$copy" && models >log 2>&1); then
        printf 'no model fails\n' >&2
        exit 1
    fi
    grep -m 1 'panicked at\|Causality' "$copy/log"
}
executor=core/src/jit/retire/executor.rs
weaken $executor 'fence(Ordering::SeqCst);' ''
weaken $executor 's.seen.load(Ordering::Acquire)' 's.seen.load(Ordering::Relaxed)'
weaken $executor 'self.epoch.0.store(stamp, Ordering::Release)' 'self.epoch.0.store(stamp, Ordering::Relaxed)'
weaken $executor 'self.slot.seen.store(now, Ordering::Release)' 'self.slot.seen.store(now, Ordering::Relaxed)'
weaken $executor 'self.slot.seen.store(OFFLINE, Ordering::Release)' 'self.slot.seen.store(OFFLINE, Ordering::Relaxed)'
weaken $executor 'seen.fold(now, u64::min)' 'seen.fold(u64::MAX, u64::min)'
weaken core/src/jit/index.rs 'self.version.store(version + 1, Ordering::Release)' 'self.version.store(version + 1, Ordering::Relaxed)'
weaken core/src/jit/index.rs 'fence(Ordering::Release);' ''
weaken core/src/jit/index.rs 'fence(Ordering::Acquire);' ''
weaken core/src/jit/bits.rs 'slot.store(new, Ordering::Release);' 'slot.store(new, Ordering::Relaxed);'
weaken core/src/jit/bits.rs 'self.words\[2 \* word\].load(Ordering::Acquire)' 'self.words[2 * word].load(Ordering::Relaxed)'
