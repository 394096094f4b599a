//! Stacks beside a claim, and inside it.

use super::{GIB, MIB, OS, Slots, above, claim_above, free_bytes, map_anywhere, stack};
use crate::common::{limits::set_limit, run_on_stack, skip_emulated};
use core::ffi::c_void;
use hostmem::{
    page::AddressRange,
    provider::{PageProvider, Within},
    region::{GuardedStack, claim},
};
use hostmem_test_support::{
    fault::{Signal, faults},
    isolate,
};

#[test]
fn the_stack_still_grows() {
    isolate::isolated!("the_stack_still_grows", || {
        if skip_emulated("maps its guest's stack at its full length") {
            return;
        }
        set_limit(libc::RLIMIT_STACK, 16 * MIB);
        let mut slots = [None; 1024];
        let claim = claim_above(&mut slots);
        assert!(claim.report().stack_room >= 128 * MIB);
        let (start, end) = stack();
        let lowest = end - 9 * MIB;
        assert!(lowest < start, "it has not grown so far yet");
        // Page by page, as calls would; whichever thread this is.
        let mut at = start;
        while at > lowest {
            at -= 4096;
            let byte: *mut u8 = core::ptr::with_exposed_provenance_mut(at);
            // SAFETY: below the stack, where nothing is mapped: the kernel makes it grow, or this
            // process ends.
            unsafe { byte.write_volatile(0x5a) };
            // SAFETY: written just now.
            assert_eq!(unsafe { byte.read_volatile() }, 0x5a);
        }
        assert!(stack().0 <= lowest);
    });
}

/// What a thread on a guarded stack finds out: where it is, and whether it can use it.
extern "C" fn on_guarded_stack(_: *mut c_void) -> *mut c_void {
    let page = core::hint::black_box([7u8; 1 << 18]);
    let sum: usize = page
        .iter()
        .step_by(4096)
        .map(|&byte| usize::from(byte))
        .sum();
    assert_eq!(sum, 7 * 64);
    core::ptr::without_provenance_mut((&raw const page).addr())
}

#[test]
fn r12_threads_run_on_guarded_stacks_above() {
    isolate::isolated!("r12_threads_run_on_guarded_stacks_above", || {
        let mut slots = [None; 1024];
        let high = AddressRange::new(8 * GIB, usize::MAX).expect("not empty");
        let len = 2 * MIB;
        let stack = GuardedStack::new(Within::new(OS, high), len, 1).expect("there is room");
        let _claim = claim_above(&mut slots);
        let (base, page) = (stack.base(), OS.page_size().bytes());
        assert_eq!((stack.len_bytes(), base.addr().get() % page), (len, 0));
        let whole = stack.range_with_guards();
        assert_eq!(whole.len_bytes(), len + 2 * page);

        // SAFETY: the stack is mapped, writable, and no other code's; the function takes nothing.
        let at = unsafe { run_on_stack(base.as_ptr(), len, on_guarded_stack) };
        assert!(
            at.addr() > 8 * GIB && stack.range().contains(at.addr()),
            "{at:?}"
        );

        for guard in [
            base.as_ptr().wrapping_sub(1),
            base.as_ptr().wrapping_add(len),
        ] {
            // SAFETY: the guard faults, which is what is tested; that process ends with it.
            let fault = faults(|| unsafe { guard.write_volatile(1) }).expect("a guard");
            assert_eq!((fault.signal, fault.address), (Signal::Segv, guard.addr()));
        }
        // SAFETY: the thread has ended.
        unsafe { stack.release() }.expect("it can go");
        assert_eq!(free_bytes(whole.addresses()), whole.len_bytes());
    });
}

#[test]
fn room_is_left_below_a_stack_that_somebody_else_makes_grow() {
    /// Claims on the stack that it runs on, and returns the end of the highest range below it.
    extern "C" fn claim_here(_: *mut c_void) -> *mut c_void {
        let here = 0_u8;
        let here = (&raw const here).addr();
        let mut slots: Box<Slots> = Box::new([None; 1024]);
        let mut claim = claim(OS, &above(), &mut slots[..]).expect("a valid request");
        assert!(claim.report().is_complete(), "{:?}", claim.report());
        assert!(claim.renew().is_complete());
        let below = claim.ranges().filter(|claimed| claimed.range.addr() < here);
        let end = below.map(|claimed| claimed.range.end()).max();
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
        core::ptr::without_provenance_mut(end.unwrap_or(0))
    }
    let test = "room_is_left_below_a_stack_that_somebody_else_makes_grow";
    isolate::isolated!(test, || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        // A hole below the stack, as where valgrind makes it grow.
        let (len, whole) = (4 * MIB, 2 * GIB);
        let at = map_anywhere(whole).expect("addresses");
        let start: *mut u8 = core::ptr::with_exposed_provenance_mut(at);
        // SAFETY: mapped just now, and not used.
        assert_eq!(unsafe { libc::munmap(start.cast(), whole - len) }, 0);
        let stack = start.wrapping_add(whole - len);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the rest of what was mapped just now, and not used.
        assert_eq!(unsafe { libc::mprotect(stack.cast(), len, access) }, 0);
        // SAFETY: the stack is mapped, writable, and no other code's; the function takes nothing.
        let end = unsafe { run_on_stack(stack, len, claim_here) };
        let room = stack.addr() - end.addr();
        assert!(room >= 128 * MIB - len, "{room:#x} bytes of room");
    });
}
