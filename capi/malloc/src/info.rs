//! The calls that tell what the heap holds, or that are to tune it.

use crate::{
    heap::{HEAP, quietly},
    line::{Line, say},
};
use core::{
    ffi::c_int,
    fmt::{self, Write},
};
use hostmem::heap::Level;

/// Gives memory back that is free, to the page, and what the calling thread has cached too. Returns
/// 1 if there was some, else 0. Nothing of `_keep` is kept.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_keep: usize) -> c_int {
    HEAP.flush();
    let given = quietly(|heap| {
        let before = heap.statistics().committed;
        heap.collect(Level::Deep);
        before > heap.statistics().committed
    });
    c_int::from(given.unwrap_or(false))
}

/// Does nothing, and returns 1: what it could set is arenas, bins and thresholds that this malloc
/// does not have.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    1
}

/// What `mallinfo` and `mallinfo2` tell.
#[cfg(target_env = "gnu")]
mod numbers {
    use super::*;

    /// Returns what the heap holds: in `arena` bytes that have memory, in `hblks` and `hblkhd` the
    /// blocks with a mapping of their own, in `uordblks` bytes of live blocks, in `fordblks` free
    /// ones, in `keepcost` those that a trim may give back.
    #[unsafe(no_mangle)]
    pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
        // SAFETY: it is made of integers, for which zero is a value.
        let mut info: libc::mallinfo2 = unsafe { core::mem::zeroed() };
        if let Some(held) = quietly(|heap| heap.statistics()) {
            info.arena = held.committed.saturating_sub(held.huge);
            info.hblks = held.huge_blocks;
            info.hblkhd = held.huge;
            info.uordblks = held.used;
            info.fordblks = held.committed.saturating_sub(held.used);
            info.keepcost = held.resident.saturating_sub(held.used);
        }
        info
    }

    /// As [`mallinfo2`]; what has no room in an `int` is the greatest one.
    #[unsafe(no_mangle)]
    pub extern "C" fn mallinfo() -> libc::mallinfo {
        let long = mallinfo2();
        let short = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
        // SAFETY: it is made of integers, for which zero is a value.
        let mut info: libc::mallinfo = unsafe { core::mem::zeroed() };
        info.arena = short(long.arena);
        info.hblks = short(long.hblks);
        info.hblkhd = short(long.hblkhd);
        info.uordblks = short(long.uordblks);
        info.fordblks = short(long.fordblks);
        info.keepcost = short(long.keepcost);
        info
    }
}
#[cfg(target_env = "gnu")]
pub use numbers::{mallinfo, mallinfo2};

/// Prints what the heap holds on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    crate::hostmem::say_statistics();
    let Some(segments) = quietly(|heap| heap.statistics().segments) else {
        return;
    };
    say!("{segments} segments");
    for number in 0.. {
        // One after the other, so that no lock is held while a line is printed.
        let Some(Some(class)) = quietly(|heap| heap.class_statistics().nth(number)) else {
            return;
        };
        if class.slabs != 0 {
            say!(
                "blocks of {}: used={} cached={} of {} in {} slabs",
                class.size,
                class.used,
                class.cached,
                class.blocks,
                class.slabs
            );
        }
    }
}

/// Writes what the heap holds to a stream, as an element of XML of glibc's form. Returns 0, or
/// `EINVAL` where `options` is not zero.
///
/// # Safety
///
/// The stream is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let mut put = |text: fmt::Arguments<'_>| {
        let mut line = Line::empty();
        // Text that does not fit is left out.
        let _ = line.write_fmt(text);
        let text = line.text();
        // SAFETY: `text` has as many bytes, and the stream is open, by this function's condition.
        unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream) };
    };
    let Some(held) = quietly(|heap| heap.statistics()) else {
        put(format_args!("<malloc version=\"1\">\n</malloc>\n"));
        return 0;
    };
    put(format_args!(
        "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n"
    ));
    let mut count = 0;
    for number in 0.. {
        // One after the other, as the stream may allocate.
        let Some(Some(class)) = quietly(|heap| heap.class_statistics().nth(number)) else {
            break;
        };
        let free = class.blocks.saturating_sub(class.used);
        count += free;
        if free != 0 {
            let (size, total) = (class.size, free * class.size);
            put(format_args!(
                "  <size from=\"{size}\" to=\"{size}\" total=\"{total}\" count=\"{free}\"/>\n"
            ));
        }
    }
    put(format_args!("</sizes>\n"));
    let free = held.committed.saturating_sub(held.used);
    let totals = |put: &mut dyn FnMut(fmt::Arguments<'_>), mapped: bool| {
        put(format_args!(
            "<total type=\"fast\" count=\"0\" size=\"0\"/>\n\
             <total type=\"rest\" count=\"{count}\" size=\"{free}\"/>\n"
        ));
        if mapped {
            put(format_args!(
                "<total type=\"mmap\" count=\"{}\" size=\"{}\"/>\n",
                held.huge_blocks, held.huge
            ));
        }
        for (element, kind, size) in [
            ("system", "current", held.committed),
            ("system", "max", held.committed),
            ("aspace", "total", held.reserved),
            ("aspace", "mprotect", held.committed),
        ] {
            put(format_args!(
                "<{element} type=\"{kind}\" size=\"{size}\"/>\n"
            ));
        }
    };
    totals(&mut put, false);
    put(format_args!("</heap>\n"));
    totals(&mut put, true);
    put(format_args!("</malloc>\n"));
    0
}
