//! Where a thread keeps its cache: thread-local storage that is there before the thread runs.
//!
//! A malloc must not ask the C library for its thread-local storage: `__tls_get_addr` may allocate
//! after a `dlopen`. So on x86-64 and AArch64 the storage is of the *initial-exec* model, whose
//! offset the loader stores once ("ELF Handling For Thread-Local Storage", U. Drepper). Stable Rust
//! has no word for it, but assembly has.
//!
//! The end of a thread is seen by a key of the C library. The first 32 keys, of which this is one
//! since it is made at the first allocation, are kept without an allocation.

use crate::heap::HEAP;
use core::{
    ffi::c_void,
    ptr::without_provenance_mut,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};
use hostmem::heap::ThreadSlot;

/// What a thread keeps, by its place.
#[derive(Clone, Copy)]
enum Word {
    /// The heap's.
    Cache,
    /// Forks under way: see `at_fork`.
    Forks,
}

/// The slot of the heap.
#[derive(Debug)]
pub(crate) struct Slot;

// SAFETY: each thread has a word of its own, which is zero before the thread runs and needs nothing
// to be read or written; nothing else writes it.
unsafe impl ThreadSlot for Slot {
    #[inline]
    fn get() -> *mut () {
        storage::get::<{ Word::Cache as usize }>()
    }

    #[inline]
    fn set(value: *mut ()) {
        storage::set::<{ Word::Cache as usize }>(value);
    }

    fn on_exit(_: fn()) -> bool {
        // The key calls `detach`, which does the same.
        key().is_some_and(|key| arm(key, FIRST_ROUND))
    }
}

/// Returns how many forks the calling thread has under way.
pub(crate) fn forks() -> usize {
    storage::get::<{ Word::Forks as usize }>().addr()
}

/// Sets how many forks the calling thread has under way.
pub(crate) fn set_forks(count: usize) {
    storage::set::<{ Word::Forks as usize }>(without_provenance_mut(count));
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
        ".pushsection .tbss.hostmem_malloc_words,\"awT\",@nobits",
        ".p2align 4",
        ".globl hostmem_malloc_words",
        ".hidden hostmem_malloc_words",
        ".type hostmem_malloc_words,@object",
        ".size hostmem_malloc_words,16",
        "hostmem_malloc_words:",
        ".zero 16",
        ".popsection",
    );

    #[inline]
    pub(super) fn get<const WORD: usize>() -> *mut () {
        let value;
        // SAFETY: the offset is that of two words of the calling thread's storage, and WORD is
        // zero or one; it reads one of them, and changes nothing but its outputs.
        unsafe {
            asm!(
                "mov {value}, qword ptr [rip + hostmem_malloc_words@GOTTPOFF]",
                "mov {value}, qword ptr fs:[{value} + 8 * {word}]",
                value = out(reg) value,
                word = const WORD,
                options(nostack, preserves_flags, readonly),
            );
        }
        value
    }

    #[inline]
    pub(super) fn set<const WORD: usize>(value: *mut ()) {
        // SAFETY: as above; it writes one of the words, which nothing else refers to.
        unsafe {
            asm!(
                "mov {offset}, qword ptr [rip + hostmem_malloc_words@GOTTPOFF]",
                "mov qword ptr fs:[{offset} + 8 * {word}], {value}",
                offset = out(reg) _,
                value = in(reg) value,
                word = const WORD,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod storage {
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .tbss.hostmem_malloc_words,\"awT\",%nobits",
        ".p2align 4",
        ".globl hostmem_malloc_words",
        ".hidden hostmem_malloc_words",
        ".type hostmem_malloc_words,%object",
        ".size hostmem_malloc_words,16",
        "hostmem_malloc_words:",
        ".zero 16",
        ".popsection",
    );

    /// Returns the address of the calling thread's words.
    #[inline]
    fn words() -> *mut *mut () {
        let words;
        // SAFETY: it reads the thread pointer and the offset, and changes nothing but its outputs.
        unsafe {
            asm!(
                "adrp {words}, :gottprel:hostmem_malloc_words",
                "ldr {words}, [{words}, :gottprel_lo12:hostmem_malloc_words]",
                "mrs {thread}, tpidr_el0",
                "add {words}, {words}, {thread}",
                words = out(reg) words,
                thread = out(reg) _,
                options(nostack, preserves_flags, readonly),
            );
        }
        words
    }

    #[inline]
    pub(super) fn get<const WORD: usize>() -> *mut () {
        // SAFETY: there are two words, and WORD is zero or one.
        let word = unsafe { words().add(WORD) };
        // SAFETY: the calling thread's alone.
        unsafe { word.read_volatile() }
    }

    #[inline]
    pub(super) fn set<const WORD: usize>(value: *mut ()) {
        // SAFETY: there are two words, and WORD is zero or one.
        let word = unsafe { words().add(WORD) };
        // SAFETY: the calling thread's alone.
        unsafe { word.write_volatile(value) };
    }
}

/// What Rust offers elsewhere, which may ask the C library.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod storage {
    use core::{cell::Cell, ptr::null_mut};

    std::thread_local! {
        static WORDS: [Cell<*mut ()>; 2] = const { [Cell::new(null_mut()), Cell::new(null_mut())] };
    }

    #[inline]
    pub(super) fn get<const WORD: usize>() -> *mut () {
        WORDS.with(|words| words[WORD].get())
    }

    #[inline]
    pub(super) fn set<const WORD: usize>(value: *mut ()) {
        WORDS.with(|words| words[WORD].set(value));
    }
}
