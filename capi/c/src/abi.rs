//! How values come from C and go back: structs that grow, places to store results, bytes.

use crate::status::{Fault, invalid};
use core::{
    ffi::{c_int, c_void},
    mem::{MaybeUninit, zeroed},
    ptr::{copy_nonoverlapping, slice_from_raw_parts},
};

/// A struct of C whose first field is its size, so that later versions can make it longer.
///
/// # Safety
///
/// The first field is a `u32`, all bytes zero is a value, and there is no padding.
pub(crate) unsafe trait Grows: Copy {
    /// The size that the first version of the struct had.
    const FIRST: usize;
}

/// Reads a struct that may be of an older or a newer version; null stands for all zeros.
///
/// # Safety
///
/// `from` is null, or as many bytes can be read there as its first field says.
pub(crate) unsafe fn read_struct<T: Grows>(from: *const T) -> Result<T, Fault> {
    // SAFETY: all zeros is a value, by the trait's promise.
    let mut value: T = unsafe { zeroed() };
    if from.is_null() {
        return Ok(value);
    }
    // SAFETY: not null; as many bytes can be read there as its first field says, by this function's
    // condition.
    let size = unsafe { size_of_struct(from)? };
    let known = size.min(size_of::<T>());
    let bytes = from.cast::<u8>();
    // SAFETY: `known` is no more than the caller's struct says it has, nor than the value has,
    // which is this call's own; any bytes are a value: numbers, pointers and functions that are
    // checked before they are used.
    unsafe { copy_nonoverlapping(bytes, (&raw mut value).cast::<u8>(), known) };
    // SAFETY: not beyond the end of the caller's struct.
    let rest = unsafe { bytes.add(known) };
    let rest = slice_from_raw_parts(rest, size - known);
    // SAFETY: the rest of what the caller says is there.
    if unsafe { &*rest }.iter().any(|byte| *byte != 0) {
        return Err(Fault::Plain(
            crate::status::hm_status::HM_UNSUPPORTED,
            c"a setting that this version does not know",
        ));
    }
    Ok(value)
}

/// Returns the size that a struct says it has.
///
/// # Safety
///
/// It is not null, and its first field can be read.
unsafe fn size_of_struct<T: Grows>(at: *const T) -> Result<usize, Fault> {
    if !at.is_aligned() {
        return Err(invalid(c"a misaligned pointer"));
    }
    // SAFETY: the size is the first field of every such struct, and can be read, by this function's
    // condition; aligned as just checked.
    let size = unsafe { at.cast::<u32>().read() } as usize;
    if size < T::FIRST || size > 4096 {
        return Err(invalid(
            c"a struct without its size: begin with HM_..._INIT",
        ));
    }
    Ok(size)
}

/// Calls a function of the caller's in C with each item, until it returns anything but 0.
///
/// # Safety
///
/// The function may be called with each of them, and does not unwind.
pub(crate) unsafe fn tell_each<T>(
    items: impl IntoIterator<Item = T>,
    visit: unsafe extern "C" fn(*mut c_void, *const T) -> c_int,
    context: *mut c_void,
) {
    for item in items {
        // SAFETY: it may be called so, and does not unwind, by this function's condition.
        if unsafe { visit(context, &raw const item) } != 0 {
            break;
        }
    }
}

/// A place for a struct that grows.
pub(crate) struct Growing<T> {
    at: *mut T,
    size: usize,
}

impl<T: Grows> Growing<T> {
    /// Checks the place.
    ///
    /// # Safety
    ///
    /// `to` is null, or as many bytes can be read and written there as its first field says, until
    /// the call from C returns.
    pub(crate) unsafe fn new(to: *mut T) -> Result<Self, Fault> {
        if to.is_null() {
            return Err(invalid(c"a null pointer for a result"));
        }
        // SAFETY: not null; as many bytes can be read there as its first field says, by this
        // function's condition.
        let size = unsafe { size_of_struct(to)? };
        Ok(Self { at: to, size })
    }

    /// Stores a value, as much of it as there is room for, and zeros behind what is known. The size
    /// stays as it is.
    pub(crate) fn write(self, value: T) {
        let known = self.size.min(size_of::<T>());
        let from = (&raw const value).cast::<u8>();
        let skipped = size_of::<u32>();
        // SAFETY: inside the value, whose first field it is.
        let from = unsafe { from.add(skipped) };
        // SAFETY: inside the caller's struct, whose first field it is.
        let to = unsafe { self.at.cast::<u8>().add(skipped) };
        // SAFETY: there are as many bytes in both, by `new`, and the value is this call's.
        unsafe { copy_nonoverlapping(from, to, known - skipped) };
        // SAFETY: not beyond the end of the caller's struct.
        let rest = unsafe { self.at.cast::<u8>().add(known) };
        // SAFETY: the rest of the caller's struct, by `new`.
        unsafe { rest.write_bytes(0, self.size - known) };
    }
}

/// Checks a place for a result.
///
/// # Safety
///
/// `to` is null, or a value can be written there until the call from C returns.
pub(crate) unsafe fn check_place<'a, T>(to: *mut T) -> Result<&'a mut MaybeUninit<T>, Fault> {
    if !to.is_aligned() {
        return Err(invalid(c"a misaligned pointer for a result"));
    }
    // SAFETY: aligned, as just checked; null, or a place of the caller's that nothing else uses
    // before the call from C returns. Nothing needs to be there yet.
    let to = unsafe { to.cast::<MaybeUninit<T>>().as_mut() };
    to.ok_or(invalid(c"a null pointer for a result"))
}

/// Checks an array, which may be null if it is empty.
///
/// # Safety
///
/// `from` is null, or that many values are there, and do not change until the call from C returns.
pub(crate) unsafe fn check_array<'a, T>(from: *const T, count: usize) -> Result<&'a [T], Fault> {
    if count == 0 {
        return Ok(&[]);
    }
    let bytes = count.checked_mul(size_of::<T>());
    let fits = bytes.is_some_and(|bytes| bytes <= isize::MAX.unsigned_abs());
    if from.is_null() || !from.is_aligned() || !fits {
        return Err(invalid(c"a null pointer, or a length beyond all memory"));
    }
    // SAFETY: not null, aligned and not too long, as just checked; that many values are there and
    // do not change, by this function's condition.
    Ok(unsafe { &*slice_from_raw_parts(from, count) })
}

/// Checks a place for a result of a call from C.
macro_rules! place {
    ($to:expr) => {{
        // SAFETY: the caller in C promises that it is null, or that a value can be stored there.
        unsafe { $crate::abi::check_place($to) }?
    }};
}

/// Checks a place for a struct of C that grows.
macro_rules! growing {
    ($to:expr) => {{
        // SAFETY: the caller in C promises that it is null, or as long as its first field says.
        unsafe { $crate::abi::Growing::new($to) }?
    }};
}

/// Reads a struct of C that grows.
macro_rules! read {
    ($from:expr) => {{
        // SAFETY: the caller in C promises that it is null, or as long as its first field says.
        unsafe { $crate::abi::read_struct($from) }?
    }};
}

/// Reads an array of C.
macro_rules! array {
    ($from:expr, $count:expr) => {{
        // SAFETY: the caller in C promises that the values are there.
        unsafe { $crate::abi::check_array($from, $count) }?
    }};
}

pub(crate) use {array, growing, place, read};
