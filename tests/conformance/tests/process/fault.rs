//! Says whether touching memory faults.
//!
//! It is touched in a child, whose handler notes signal and address and ends it. The kernel's word
//! for a fault differs: most say `SIGSEGV`, and some `SIGBUS` for pages that forbid the access.

use super::child::{self, End, PASSED};
use hostmem_conformance::code;
use std::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering},
};

/// What to do to a place in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Touch {
    Read,
    Write,
    Execute,
}

/// Exit code of a child that faulted.
const FAULTED: i32 = 3;

/// What a child notes for its parent.
#[derive(Default)]
struct Note {
    /// Where it touched, once it did.
    touched: AtomicUsize,
    /// Where the kernel saw the fault.
    fault: AtomicUsize,
    signal: AtomicI32,
}

/// A note in memory that parent and child share.
struct Shared(NonNull<Note>);

impl Shared {
    fn new() -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANON;
        // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
        let got = unsafe { libc::mmap(ptr::null_mut(), size_of::<Note>(), access, flags, -1, 0) };
        assert_ne!(got, libc::MAP_FAILED, "a page can be had");
        let note = NonNull::new(got).expect("never mapped at null").cast();
        // SAFETY: writable, of that size, aligned to a page, and no other code's.
        unsafe { note.write(Note::default()) };
        Self(note)
    }

    fn note(&self) -> &Note {
        // SAFETY: initialised by `new`, mapped until drop, and changed as atomics only.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length, and the borrows of it have ended.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Note>()) };
    }
}

/// Where the handler notes a fault. Set in children only.
static NOTE: AtomicPtr<Note> = AtomicPtr::new(ptr::null_mut());

/// Says whether a child that touches what `make` returns faults there.
///
/// # Panics
///
/// If the child ends in another way, or faults elsewhere.
///
/// # Safety
///
/// What `make` returns faults, or else it may be written over in a child, or, for
/// [`Touch::Execute`], code of [`code::returning`] was published there.
#[track_caller]
pub(crate) unsafe fn faults(touch: Touch, make: impl FnOnce() -> NonNull<u8>) -> bool {
    let shared = Shared::new();
    let note = shared.note();
    let child = child::spawn(|| {
        NOTE.store(ptr::from_ref(note).cast_mut(), Ordering::SeqCst);
        let place = make();
        handle(libc::SIGSEGV);
        handle(libc::SIGBUS);
        note.touched.store(place.addr().get(), Ordering::SeqCst);
        match touch {
            // SAFETY: it faults, or it is readable.
            Touch::Read => _ = unsafe { place.read_volatile() },
            // SAFETY: it faults, or may be written over, by the caller's promise.
            Touch::Write => unsafe { place.write_volatile(0xcc) },
            // SAFETY: it faults, or holds such code, by the caller's promise.
            Touch::Execute => _ = unsafe { code::call(place) },
        }
    });
    match child.wait() {
        End::Code(PASSED) => false,
        End::Code(FAULTED) => {
            let (touched, fault) = (&note.touched, &note.fault);
            assert_eq!(
                fault.load(Ordering::SeqCst),
                touched.load(Ordering::SeqCst),
                "{touch:?}: signal {} for another address than was touched",
                note.signal.load(Ordering::SeqCst)
            );
            true
        }
        end => panic!("{touch:?}: the child neither came back nor faulted: {end:?}"),
    }
}

/// Sets the handler of `signal`, in a child.
fn handle(signal: i32) {
    let handler: extern "C" fn(i32, *const libc::siginfo_t, *const libc::c_void) = note_fault;
    // SAFETY: all of sigaction may be zero: no flags, an empty mask, the default action.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the action is initialised, and its function has the signature that SA_SIGINFO asks
    // for and makes async-signal-safe calls only.
    let set = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(set, 0, "the handler can be set");
}

extern "C" fn note_fault(signal: i32, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel passes a live siginfo.
    let info = unsafe { &*info };
    // SAFETY: for these two signals it has an address.
    let address = unsafe { info.si_addr() };
    // SAFETY: set before the handler was, to a note that is mapped as long as the child lives.
    let note = unsafe { &*NOTE.load(Ordering::SeqCst) };
    note.fault.store(address.addr(), Ordering::SeqCst);
    note.signal.store(signal, Ordering::SeqCst);
    // SAFETY: always allowed.
    unsafe { libc::_exit(FAULTED) }
}
