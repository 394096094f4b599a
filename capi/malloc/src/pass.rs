//! The C library's own calls, to which all are passed on where `HOSTMEM_PASS=1` asks for it: what
//! AddressSanitizer or valgrind put in their place sees each block then.
//!
//! The heap is closed before its first call, so that no quick call looks whether it is: each of
//! them fails, and its slow way comes here.

use crate::{
    heap::HEAP,
    line::{keeping_errno, say},
    settings,
};
use core::{
    arch::asm,
    ffi::{CStr, c_char, c_void},
    mem::transmute,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
};
use hostmem::heap::HeapError;

/// The C library's calls, once all were found.
#[derive(Debug)]
pub(crate) struct Libc(());

static LIBC: Libc = Libc(());

const NAMES: [&CStr; 6] = [
    c"malloc",
    c"calloc",
    c"realloc",
    c"free",
    c"memalign",
    c"malloc_usable_size",
];

/// Where the calls are, in the order of their names. The last one is stored last.
static CALLS: [AtomicPtr<c_void>; NAMES.len()] =
    [const { AtomicPtr::new(null_mut()) }; NAMES.len()];

/// Closes the heap if all calls are to be the C library's, and they can be found.
pub(crate) fn begin() {
    if !settings::get().is_pass() {
        return;
    }
    if !find() {
        settings::forget_pass();
        say!("HOSTMEM_PASS: there is no other malloc in this program; it is ignored");
        return;
    }
    // SAFETY: no call of the heap was made before this one, and `open` makes none that is.
    let _ = unsafe { HEAP.close() };
}

/// Returns the C library's calls if all are passed on.
pub(crate) fn active() -> Option<&'static Libc> {
    if !settings::get().is_pass() {
        return None;
    }
    let is_found = CALLS
        .iter()
        .all(|call| !call.load(Ordering::Acquire).is_null());
    (is_found || find()).then_some(&LIBC)
}

/// Returns the C library's calls if an error says that this library's heap is closed, and they are
/// what is to be called in its place.
#[cold]
pub(crate) fn instead(error: HeapError) -> Option<&'static Libc> {
    if error == HeapError::Closed {
        active()
    } else {
        None
    }
}

/// Finds the calls; says whether all are there.
fn find() -> bool {
    type DlSym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    let dlsym = dlsym();
    if dlsym.is_null() {
        return false;
    }
    // SAFETY: the function of that name, which is of this type.
    let dlsym = unsafe { transmute::<*const c_void, DlSym>(dlsym) };
    keeping_errno(|| {
        NAMES.iter().zip(&CALLS).all(|(name, call)| {
            // SAFETY: the object from which this is called is one that the loader knows.
            let found = unsafe { dlsym(libc::RTLD_NEXT, name.as_ptr()) };
            call.store(found, Ordering::Release);
            !found.is_null()
        })
    })
}

/// Returns `dlsym`, or null in programs without it, as static ones are.
fn dlsym() -> *const c_void {
    let found;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it reads an address that the linker or the loader stored.
    unsafe {
        asm!(
            ".weak dlsym",
            "mov {found}, qword ptr [rip + dlsym@GOTPCREL]",
            found = out(reg) found,
            options(nostack, preserves_flags, readonly),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: it reads an address that the linker or the loader stored.
    unsafe {
        asm!(
            ".weak dlsym",
            "adrp {found}, :got:dlsym",
            "ldr {found}, [{found}, :got_lo12:dlsym]",
            found = out(reg) found,
            options(nostack, preserves_flags, readonly),
        );
    }
    found
}

type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
type AllocateTwo = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Resize = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Release = unsafe extern "C" fn(*mut c_void);
type Measure = unsafe extern "C" fn(*mut c_void) -> usize;

impl Libc {
    fn call(place: usize) -> *mut c_void {
        CALLS
            .get(place)
            .map_or(null_mut(), |call| call.load(Ordering::Acquire))
    }

    pub(crate) fn malloc(&self, size: usize) -> *mut c_void {
        // SAFETY: the function of that name, which is of this type.
        let call = unsafe { transmute::<*mut c_void, Allocate>(Self::call(0)) };
        // SAFETY: it may be called with any size.
        unsafe { call(size) }
    }

    pub(crate) fn calloc(&self, count: usize, size: usize) -> *mut c_void {
        // SAFETY: the function of that name, which is of this type.
        let call = unsafe { transmute::<*mut c_void, AllocateTwo>(Self::call(1)) };
        // SAFETY: it may be called with any sizes.
        unsafe { call(count, size) }
    }

    /// # Safety
    ///
    /// The block is the C library's, and is given up.
    pub(crate) unsafe fn realloc(&self, block: *mut c_void, size: usize) -> *mut c_void {
        // SAFETY: the function of that name, which is of this type.
        let call = unsafe { transmute::<*mut c_void, Resize>(Self::call(2)) };
        // SAFETY: the block is the C library's, and is given up, by this function's condition.
        unsafe { call(block, size) }
    }

    /// # Safety
    ///
    /// The block is the C library's, and is given up.
    pub(crate) unsafe fn free(&self, block: *mut c_void) {
        // SAFETY: the function of that name, which is of this type.
        let call = unsafe { transmute::<*mut c_void, Release>(Self::call(3)) };
        // SAFETY: the block is the C library's, and is given up, by this function's condition.
        unsafe { call(block) };
    }

    pub(crate) fn memalign(&self, align: usize, size: usize) -> *mut c_void {
        // SAFETY: the function of that name, which is of this type.
        let call = unsafe { transmute::<*mut c_void, AllocateTwo>(Self::call(4)) };
        // SAFETY: it may be called with any power of two and any size.
        unsafe { call(align, size) }
    }

    /// # Safety
    ///
    /// The block is the C library's.
    pub(crate) unsafe fn usable_size(&self, block: *mut c_void) -> usize {
        // SAFETY: the function of that name, which is of this type.
        let call = unsafe { transmute::<*mut c_void, Measure>(Self::call(5)) };
        // SAFETY: the block is a live one of the C library's, by this function's condition.
        unsafe { call(block) }
    }
}
