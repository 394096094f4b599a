use super::{
    super::{Heap, HeapConfig, cache::Cache, fork::tests::Memory},
    *,
};

/// Blocks of a heap lie where others have left room: a thread finds entries by a subtraction
/// there too.
#[test]
fn a_thread_takes_the_window_that_its_blocks_lie_in() {
    let heap = Heap::<Memory>::on(Memory, Memory, HeapConfig::new()).expect("metadata");
    let [near, far] = [1 << 40, 3 << 40];
    for (addr, len) in [(near, GRANULE), (far, 3 * GRANULE)] {
        let mut space = heap.lock_space();
        let made = heap
            .map
            .cover(&Memory, &mut space.leaves, heap.arena(), addr, len);
        made.expect("memory");
        heap.map.set(addr, len, Some(heap.nothing));
    }
    let cache = Cache::new(heap.map.root().raw());
    let follow = || {
        let addr = cache.place_for_window()?;
        cache.set_window(heap.map.window_around(addr)?);
        Some(addr)
    };
    assert_eq!(follow(), Some(0), "it has none");
    let wanted = |addr: usize| Some(heap.map.entry(addr)?.load(Relaxed));
    assert_eq!(cache.value_in_window(near), wanted(near));
    assert!(wanted(far).is_some_and(|value| value != 0));
    for end in [far, far + 2 * GRANULE] {
        assert_eq!(cache.value_in_window(end), None);
        // A few addresses elsewhere change nothing, many do.
        cache.miss(end);
        assert_eq!(follow(), None);
        (0..100).for_each(|_| cache.miss(end));
        assert_eq!(follow(), Some(end));
        assert_eq!(cache.value_in_window(end), wanted(end));
        assert_eq!(cache.value_in_window(near), None);
        (0..100).for_each(|_| cache.miss(near));
        assert_eq!(follow(), Some(near));
        assert_eq!(cache.value_in_window(near), wanted(near));
    }
    // Where nothing lies there is none to take.
    (0..100).for_each(|_| cache.miss(5 << 40));
    assert_eq!(follow(), Some(5 << 40));
    assert_eq!(cache.value_in_window(near), wanted(near));
    // One that is in a hurry finds its own again.
    cache.hurry();
    assert_eq!(follow(), Some(heap.map.window().map_or(0, |w| w.start)));
    assert_eq!(cache.value_in_window(near), wanted(near));
}
