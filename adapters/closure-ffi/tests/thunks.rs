//! closure-ffi makes function pointers of closures in hostmem memory.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use closure_ffi::{BareFn, jit_alloc::JitAlloc};
use hostmem::{JitConfig, jit::Mapping, page::AddressRange, provider::Placement};
use hostmem_closure_ffi::ClosureMemory;

#[test]
fn closures_are_called_by_pointer_and_their_memory_comes_back() {
    // Calls that ask about mappings do not count.
    for config in [JitConfig::new(), JitConfig::new().mapping(Mapping::Toggle)] {
        let memory = ClosureMemory::new(config).expect("there are dual mappings");
        let thunks: Vec<_> = (0..1000)
            .map(|n| BareFn::new_c_in(move |m: usize| n * 1000 + m, &memory))
            .collect();
        for (n, thunk) in thunks.iter().enumerate() {
            let entry = thunk.bare();
            // SAFETY: the thunk is there, and takes any number.
            assert_eq!(unsafe { entry(7) }, n * 1000 + 7);
            assert!(
                memory
                    .allocator()
                    .query((entry as *const ()).addr())
                    .is_some()
            );
        }
        assert_eq!(memory.allocator().statistics().spans, 1000);
        drop(thunks);
        assert_eq!(memory.allocator().statistics().spans, 0);
    }
}

#[test]
fn thunks_lie_where_the_configuration_says() {
    let placement = Placement::within(AddressRange::LOW_4G);
    let memory = ClosureMemory::new(JitConfig::new().rx(placement)).expect("it is valid");
    // One that captures something: others need no thunk.
    let one = std::hint::black_box(1);
    let thunk = BareFn::new_c_in(move |n: usize| n + one, &memory);
    let entry = thunk.bare();
    // SAFETY: the thunk is there, and takes any number.
    assert_eq!(unsafe { entry(41) }, 42);
    let addr = (entry as *const ()).addr();
    assert!(
        addr < 4 << 30,
        "{addr:#x} {:?}",
        memory.allocator().query(addr)
    );
}

#[test]
fn what_cannot_be_is_an_error() {
    let memory = ClosureMemory::new(JitConfig::new().limit(1 << 20)).expect("it is valid");
    assert!(memory.alloc(0).is_err());
    assert!(memory.alloc(usize::MAX).is_err());
    assert!(memory.alloc(2 << 20).is_err(), "more than the limit");
    let inside = AddressRange::LOW_4G.start();
    // SAFETY: nothing lies there, so no one owns it.
    assert!(unsafe { memory.release(core::ptr::without_provenance(inside)) }.is_err());
}
