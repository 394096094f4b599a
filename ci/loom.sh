#!/usr/bin/env bash
# Models of all that takes no lock, in every order of steps and with every value that a CPU may
# show, within a bound of preemptions. With the argument `controls` also the proof that the models
# can fail: each order that one of them is about is weakened in a copy of the tree, and must be
# missed. Without it, that there is what would be weakened.
source "$(dirname "$0")/lib.sh"

export CARGO_TARGET_DIR=$PWD/target/loom
models() { # which
    RUSTFLAGS="--cfg loom" cargo test --quiet --release -p hostmem-core --lib -- "$1"
}

step "models"
models model_

controls=${1:-}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
weaken() { # file, what is there, what is there instead
    local file=core/src/$1.rs models=${1//\//::}::models
    case $1 in
        heap/slot) models=heap::slot ;;
        heap/*) models=heap::models ;;
        intervals) models=intervals::models ;;
        range_map/*) models=range_map::models ;;
        sync/*) models=sync::tests ;;
    esac
    if sed "s/$2/$3/" "$file" | cmp -s "$file"; then
        printf '%s: "%s" is not there to be weakened\n' "$file" "$2" >&2
        exit 1
    fi
    [ "$controls" = controls ] || return 0
    step "$file: '$2' becomes '$3'"
    git archive HEAD | tar -x -C "$copy"
    sed -i "s/$2/$3/" "$copy/$file"
    touch "$copy/$file"
    if (cd "$copy" && models "$models" >log 2>&1); then
        printf 'no model fails\n' >&2
        exit 1
    fi
    grep -oE '(heap|intervals|jit|range_map|sync)[a-z_:]*model_[a-z_]*' "$copy/log" | sort -u
}
relax() { # file, what is there with an order in the end that becomes a weaker one
    weaken "$1" "$2Ordering::[A-Za-z]*)" "$2Ordering::Relaxed)"
}
weaken jit/retire/executor 'fence(Ordering::SeqCst);' ''
weaken jit/retire/executor 'seen.fold(now, u64::min)' 'seen.fold(u64::MAX, u64::min)'
relax jit/retire/executor 's.seen.load('
relax jit/retire/executor 'self.epoch.0.store(stamp, '
relax jit/retire/executor 'self.slot.seen.store(now, '
relax jit/retire/executor 'self.slot.seen.store(OFFLINE, '
relax jit/index 'self.version.store(version + 1, '
weaken jit/index 'fence(Ordering::Release);' ''
weaken jit/index 'fence(Ordering::Acquire);' ''
relax jit/bits 'slot.store(new, '
relax jit/bits 'self.words\[2 \* word\].load('
relax range_map/tree/write 'self.root.store(root, '
relax range_map/tree/write 'self.version.store(version + 1, '
weaken range_map/tree/write 'fence(Ordering::Release);' ''
weaken range_map/tree/read 'fence(Ordering::Acquire);' ''
relax range_map/node/inner 'slot.store(word, '
relax range_map/node/inner 'self.words\[Self::children_at(wide) + n \/ 2\].load('
weaken range_map/in_place/behead 'self.move_version();' ''
weaken range_map/in_place/fill 'self.move_version();' ''
weaken range_map/node/leaf/in_place 'step();' ''
relax intervals 'self.root.store(new, '
relax intervals 'slot.store(new.as_ptr(), '
weaken intervals 'version.wrapping_add(1), Ordering::Release' 'version.wrapping_add(1), Ordering::Relaxed'
weaken intervals 'fence(Ordering::Release);' ''
weaken intervals 'fence(Ordering::Acquire);' ''
weaken heap/map/cover 'leaf, Release, Relaxed' 'leaf, Relaxed, Relaxed'
weaken heap/map/root 'NonNull::new(slot.load(Acquire))?' 'NonNull::new(slot.load(Relaxed))?'
weaken heap/map 'self.entry(addr)?.load(Acquire)' 'self.entry(addr)?.load(Relaxed)'
weaken heap/slab/blocks 'self.version.store(version.wrapping_add(1), Relaxed);' ''
weaken heap/slab/blocks 'fence(Release);' ''
weaken heap/slab/find 'fence(Acquire);' ''
weaken heap/slab/find 'self.version.load(Acquire)' 'self.version.load(Relaxed)'
weaken heap/slab/blocks 'wrapping_add(2), Release)' 'wrapping_add(2), Relaxed)'
weaken heap/slab/find 'load(Acquire) == LIVE' 'load(Relaxed) == LIVE'
weaken heap/shared 'store(LIVE, Release)' 'store(LIVE, Relaxed)'
weaken heap/local/caches 'first, new, Release, Relaxed' 'first, new, Relaxed, Relaxed'
weaken heap/local/caches 'self.first_cache.load(Acquire)' 'self.first_cache.load(Relaxed)'
weaken heap/slot 'compare_exchange(NO_THREAD, thread' 'compare_exchange(key.load(Relaxed), thread'
weaken heap/cache/magazine 'self.top.store(top, Release);' ''
weaken heap/cache/magazine ' && len <= MAGAZINE_MOST' ''
weaken sync/futex 'self.taken.store(OPEN, Release)' 'self.taken.store(OPEN, Relaxed)'
weaken sync/futex 'compare_exchange(OPEN, TAKEN, Acquire' 'compare_exchange(OPEN, TAKEN, Relaxed'
weaken sync/futex 'self.asks.swap(SOMEBODY, Relaxed);' ''
weaken sync/futex 'self.asks.swap(NOBODY, Release) ==' 'self.asks.swap(NOBODY, Release) >'
weaken sync/futex '            fence(SeqCst);' ''
weaken sync/futex 'LOOK_AGAIN);' 'LOOK_AGAIN); if self.try_acquire() { return; }'
