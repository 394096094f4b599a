//! The environment: what the user of a program sets for it.
//!
//! It is read once, at the first call, without an allocation. Programs that run with other rights
//! than those of their user (`AT_SECURE`) ignore it.

use crate::line::{keeping_errno, say};
use core::{
    ffi::{CStr, c_char},
    str,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The settings, in one word, so that it is read and written by one instruction.
///
/// ```text
///   63 ··········· 16 │ 15 ······ 8 │  7 ····· 4 │    3 │     2 │   1 │     0
///   milliseconds      │             │  hardening │ pass │ stats │ low │ known
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings(u64);

const KNOWN: u64 = 1;
const LOW: u64 = 1 << 1;
const STATISTICS: u64 = 1 << 2;
const PASS: u64 = 1 << 3;
const HARDENING: u32 = 4;
const PURGE: u32 = 16;

/// The most milliseconds that have room: some thousand years.
const PURGE_MOST: u64 = (1 << (u64::BITS - PURGE)) - 1;

static SETTINGS: AtomicU64 = AtomicU64::new(0);

/// Returns the settings, which the first call reads.
pub(crate) fn get() -> Settings {
    let known = Settings(SETTINGS.load(Relaxed));
    if known.0 != 0 { known } else { read() }
}

/// Forgets that blocks are to be the C library's, which has none.
pub(crate) fn forget_pass() {
    SETTINGS.fetch_and(!PASS, Relaxed);
}

impl Settings {
    const DEFAULT: Self = Self(KNOWN)
        .with(HARDENING, 0xf, 1)
        .with(PURGE, PURGE_MOST, 250);

    const fn with(self, at: u32, most: u64, value: u64) -> Self {
        Self(self.0 & !(most << at) | value << at)
    }

    /// Whether all blocks lie below 4 GiB.
    pub(crate) const fn is_low(self) -> bool {
        self.0 & LOW != 0
    }

    /// Whether statistics are printed when the program ends.
    pub(crate) const fn has_statistics(self) -> bool {
        self.0 & STATISTICS != 0
    }

    /// Whether all blocks are the C library's.
    pub(crate) const fn is_pass(self) -> bool {
        self.0 & PASS != 0
    }

    /// Returns the level of hardening.
    pub(crate) const fn hardening(self) -> u64 {
        self.0 >> HARDENING & 0xf
    }

    /// Returns for how many milliseconds free memory is kept.
    pub(crate) const fn purge_ms(self) -> u64 {
        self.0 >> PURGE
    }

    /// Sets what a variable says, or tells what it may say. Those of other names are ignored, and
    /// so are those that say nothing.
    fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let most = match name {
            b"HOSTMEM_LOW4G" | b"HOSTMEM_STATS" | b"HOSTMEM_PASS" => 1,
            b"HOSTMEM_HARDEN" => 2,
            b"HOSTMEM_PURGE_MS" => PURGE_MOST,
            _ => return Ok(()),
        };
        if value.is_empty() {
            return Ok(());
        }
        let number = number(value).filter(|number| *number <= most);
        let number = number.ok_or(match most {
            1 => "0 or 1",
            2 => "0, 1 or 2",
            _ => "a number of milliseconds",
        })?;
        *self = match name {
            b"HOSTMEM_LOW4G" => self.with(1, 1, number),
            b"HOSTMEM_STATS" => self.with(2, 1, number),
            b"HOSTMEM_PASS" => self.with(3, 1, number),
            b"HOSTMEM_HARDEN" => self.with(HARDENING, 0xf, number),
            _ => self.with(PURGE, PURGE_MOST, number),
        };
        Ok(())
    }

    /// Sets what an entry of an environment says; warns if it says what it may not, and if warnings
    /// are wanted.
    fn enter(&mut self, entry: &[u8], warns: bool) {
        let Some(end) = entry.iter().position(|byte| *byte == b'=') else {
            return;
        };
        let (name, value) = entry.split_at(end);
        let value = value.get(1..).unwrap_or_default();
        if let Err(may) = self.set(name, value)
            && warns
        {
            let value = str::from_utf8(value).unwrap_or("?");
            let name = str::from_utf8(name).unwrap_or_default();
            say!("{name} is to be {may}, and not {value:.40}; it is ignored");
        }
    }
}

/// Reads a number in decimal digits.
fn number(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Reads the environment.
#[cold]
fn read() -> Settings {
    let mut settings = Settings::DEFAULT;
    // SAFETY: it looks at what the kernel told the program.
    let is_secure = keeping_errno(|| unsafe { libc::getauxval(libc::AT_SECURE) }) != 0;
    if !is_secure {
        each_entry(&mut |entry| settings.enter(entry, false));
    }
    match SETTINGS.compare_exchange(0, settings.0, Relaxed, Relaxed) {
        Ok(_) => {
            if !is_secure {
                // Only the thread that was first warns.
                each_entry(&mut |entry| Settings::DEFAULT.clone().enter(entry, true));
            }
            settings
        }
        Err(other) => Settings(other),
    }
}

unsafe extern "C" {
    /// POSIX: the environment; null until the C library has begun.
    static mut environ: *const *const c_char;
}

/// Calls `f` with each entry of the environment.
fn each_entry(f: &mut dyn FnMut(&[u8])) {
    let place = &raw const environ;
    // SAFETY: the C library's variable; a thread that changes it at the time of the first call of
    // malloc may not, by the rules of `setenv`.
    let mut entry = unsafe { place.read() };
    if entry.is_null() {
        return each_entry_of_kernel(f);
    }
    loop {
        // SAFETY: an array that ends with null, before which this does not go on.
        let text = unsafe { entry.read() };
        if text.is_null() {
            return;
        }
        // SAFETY: the array is of strings.
        f(unsafe { CStr::from_ptr(text) }.to_bytes());
        // SAFETY: null comes later.
        entry = unsafe { entry.add(1) };
    }
}

/// Bytes of an entry that are looked at: no name and value that are known have more.
const ENTRY: usize = 80;

/// Calls `f` with each entry of the environment that the kernel gave to the program, as far as it
/// has room. Nothing is called where there is no `/proc`.
fn each_entry_of_kernel(f: &mut dyn FnMut(&[u8])) {
    let mut entry = [0; ENTRY];
    let mut len = 0;
    each_byte_of(c"/proc/self/environ", &mut |byte| {
        if byte == 0 {
            f(entry.get(..len.min(ENTRY)).unwrap_or_default());
            len = 0;
        } else {
            if let Some(place) = entry.get_mut(len) {
                *place = byte;
            }
            len += 1;
        }
    });
}

/// Calls `f` with each byte of a file, if it can be read.
fn each_byte_of(file: &CStr, f: &mut dyn FnMut(u8)) {
    keeping_errno(|| {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // Not by `open` and `read`, in which a thread may be cancelled.
        let (at, name) = (libc::AT_FDCWD, file.as_ptr());
        // SAFETY: a string that ends with null.
        let file = unsafe { libc::syscall(libc::SYS_openat, at, name, flags, 0) };
        if file < 0 {
            return;
        }
        let mut buffer = [0u8; 512];
        loop {
            let (to, most) = (buffer.as_mut_ptr(), buffer.len());
            // SAFETY: there is room for as many bytes.
            let got = unsafe { libc::syscall(libc::SYS_read, file, to, most) };
            let got = usize::try_from(got).unwrap_or(0);
            if got == 0 {
                break;
            }
            buffer.iter().take(got).for_each(|byte| f(*byte));
        }
        // SAFETY: opened above.
        unsafe { libc::syscall(libc::SYS_close, file) };
    });
}
