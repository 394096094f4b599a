//! Machine code to execute: a function that returns a constant.

use core::{mem, ptr::NonNull};

/// The most bytes that [`returning`] makes.
pub const MAX_CODE: usize = 8;

/// Machine code.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    bytes: [u8; MAX_CODE],
    len: usize,
}

impl Code {
    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Makes a function without arguments that returns `value`; `None` on a CPU whose code is not known
/// here.
#[must_use]
pub fn returning(value: u16) -> Option<Code> {
    encode(value).map(|(bytes, len)| Code { bytes, len })
}

/// `mov eax, value; ret`, padded with `int3` (Intel SDM volume 2, MOV and RET).
#[cfg(target_arch = "x86_64")]
fn encode(value: u16) -> Option<([u8; MAX_CODE], usize)> {
    let [low, high] = value.to_le_bytes();
    Some(([0xb8, low, high, 0, 0, 0xc3, 0xcc, 0xcc], 6))
}

/// `movz w0, #value; ret` (Arm ARM, C6.2: MOVZ and RET).
#[cfg(target_arch = "aarch64")]
fn encode(value: u16) -> Option<([u8; MAX_CODE], usize)> {
    let [a, b, c, d] = (0x5280_0000 | u32::from(value) << 5).to_le_bytes();
    let [e, f, g, h] = 0xd65f_03c0_u32.to_le_bytes();
    Some(([a, b, c, d, e, f, g, h], 8))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn encode(_value: u16) -> Option<([u8; MAX_CODE], usize)> {
    None
}

/// Calls code of [`returning`].
///
/// # Safety
///
/// `code` is executable, holds what `returning` made, and that was published since.
pub unsafe fn call(code: NonNull<u8>) -> u32 {
    // SAFETY: a function pointer is as large as a data pointer on the CPUs that `encode` knows, and
    // the caller promises that a function of this signature is there.
    let function = unsafe { mem::transmute::<*mut u8, extern "C" fn() -> u32>(code.as_ptr()) };
    function()
}
