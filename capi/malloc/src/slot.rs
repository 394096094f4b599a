//! Where a thread keeps its cache: thread-local storage that is there before the thread runs.
//!
//! A malloc must not ask the C library for its thread-local storage: `__tls_get_addr` may allocate
//! after a `dlopen`. So on x86-64 and AArch64 the storage is of the *initial-exec* model, whose
//! offset the loader stores once ("ELF Handling For Thread-Local Storage", U. Drepper). Stable Rust
//! has no word for it, but assembly has.
//!
//! The end of a thread is seen by a key of the C library. The first 32 keys, of which this is one
//! since it is made at the first allocation, are kept without an allocation.

use crate::{heap::HEAP, signals};
use core::{
    ffi::c_void,
    ptr::without_provenance_mut,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};
use hostmem::heap::ThreadSlot;

/// The slot of the heap.
#[derive(Debug)]
pub(crate) struct Slot;

// SAFETY: each thread has a word of its own, which is zero before the thread runs and needs nothing
// to be read or written; nothing else writes it.
unsafe impl ThreadSlot for Slot {
    #[inline]
    fn get() -> *mut () {
        storage::get()
    }

    #[inline]
    fn set(value: *mut ()) {
        storage::set(value);
    }

    fn is_on_signal_stack() -> bool {
        signals::is_on_signal_stack()
    }

    fn without_signals<T>(f: impl FnOnce() -> T) -> T {
        signals::without_signals(f)
    }

    fn on_exit(_: fn()) -> bool {
        // The key calls `detach`, which does the same.
        key().is_some_and(|key| arm(key, FIRST_ROUND))
    }
}

/// The values of the key: its destructor is called once for each. Other keys' destructors, which
/// come after it in the first round, still find the thread's cache.
const FIRST_ROUND: usize = 1;
const SECOND_ROUND: usize = 2;

/// The key and one; zero where there is none yet.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Returns the key, which the first call makes.
fn key() -> Option<libc::pthread_key_t> {
    let known = KEY.load(Acquire);
    if known != 0 {
        return libc::pthread_key_t::try_from(known - 1).ok();
    }
    let mut key = 0;
    // SAFETY: there is room for a key, and the function stays as long as the program.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(ended)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, u64::from(key) + 1, Release, Acquire) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: made above, and no thread has a value for it.
            unsafe { libc::pthread_key_delete(key) };
            libc::pthread_key_t::try_from(other - 1).ok()
        }
    }
}

fn arm(key: libc::pthread_key_t, round: usize) -> bool {
    // SAFETY: `key` made it, and it is never deleted.
    unsafe { libc::pthread_setspecific(key, without_provenance_mut(round)) == 0 }
}

/// Is called when a thread ends.
extern "C" fn ended(round: *mut c_void) {
    let again = round.addr() == FIRST_ROUND && key().is_some_and(|key| arm(key, SECOND_ROUND));
    if !again {
        HEAP.detach();
    }
}

#[cfg(target_arch = "x86_64")]
mod storage {
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tbss.hostmem_malloc_word,\"awT\",@nobits",
        ".p2align 3",
        ".globl hostmem_malloc_word",
        ".hidden hostmem_malloc_word",
        ".type hostmem_malloc_word,@object",
        ".size hostmem_malloc_word,8",
        "hostmem_malloc_word:",
        ".zero 8",
        ".popsection",
    );

    #[inline]
    pub(super) fn get() -> *mut () {
        let value;
        // SAFETY: the offset is that of a word of the calling thread's storage; it reads that, and
        // changes nothing but its outputs.
        unsafe {
            asm!(
                "mov {value}, qword ptr [rip + hostmem_malloc_word@GOTTPOFF]",
                "mov {value}, qword ptr fs:[{value}]",
                value = out(reg) value,
                options(nostack, preserves_flags, readonly),
            );
        }
        value
    }

    #[inline]
    pub(super) fn set(value: *mut ()) {
        // SAFETY: the offset is that of a word of the calling thread's storage; it writes that
        // word, which nothing else refers to, and changes nothing but its outputs.
        unsafe {
            asm!(
                "mov {offset}, qword ptr [rip + hostmem_malloc_word@GOTTPOFF]",
                "mov qword ptr fs:[{offset}], {value}",
                offset = out(reg) _,
                value = in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod storage {
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tbss.hostmem_malloc_word,\"awT\",%nobits",
        ".p2align 3",
        ".globl hostmem_malloc_word",
        ".hidden hostmem_malloc_word",
        ".type hostmem_malloc_word,%object",
        ".size hostmem_malloc_word,8",
        "hostmem_malloc_word:",
        ".zero 8",
        ".popsection",
    );

    /// Returns the address of the calling thread's word.
    #[inline]
    fn word() -> *mut *mut () {
        let word;
        // SAFETY: it reads the thread pointer and the offset, and changes nothing but its outputs.
        unsafe {
            asm!(
                "adrp {word}, :gottprel:hostmem_malloc_word",
                "ldr {word}, [{word}, :gottprel_lo12:hostmem_malloc_word]",
                "mrs {thread}, tpidr_el0",
                "add {word}, {word}, {thread}",
                word = out(reg) word,
                thread = out(reg) _,
                options(nostack, preserves_flags, readonly),
            );
        }
        word
    }

    #[inline]
    pub(super) fn get() -> *mut () {
        // SAFETY: the calling thread's alone.
        unsafe { word().read_volatile() }
    }

    #[inline]
    pub(super) fn set(value: *mut ()) {
        // SAFETY: the calling thread's alone.
        unsafe { word().write_volatile(value) };
    }
}

#[cfg(all(
    panic = "abort",
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
compile_error!("without the standard library this is for x86-64 and AArch64 only");

/// What Rust offers elsewhere, which may ask the C library.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod storage {
    use core::{cell::Cell, ptr::null_mut};

    std::thread_local! {
        static WORD: Cell<*mut ()> = const { Cell::new(null_mut()) };
    }

    #[inline]
    pub(super) fn get() -> *mut () {
        WORD.with(Cell::get)
    }

    #[inline]
    pub(super) fn set(value: *mut ()) {
        WORD.with(|word| word.set(value));
    }
}
