//! Names of mappings, and advice about them, as far as the kernel was built for it.

use crate::raw;
use core::ffi::CStr;
use hostmem_core::{
    page::PageRange,
    provider::{backend::Answer, is_mapping_name},
};
use rustix::{
    io::Errno,
    mm::{Advice, madvise},
};

/// Whether the kernel keeps names of mappings.
pub(crate) static NAMES: Answer = Answer::new();

/// Names a range, where the kernel keeps names.
pub(super) fn name_range(range: PageRange, name: &CStr) {
    if !is_mapping_name(name) || NAMES.known() == Some(false) {
        return;
    }
    match raw::name_mapping(range, name) {
        Ok(()) => NAMES.learn(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::ACCESS) => NAMES.learn(false),
        // Anything else may be different next time.
        Err(_) => {}
    }
}

/// Says whether the kernel was built for advice about large pages.
pub(crate) fn takes_page_advice() -> bool {
    // SAFETY: advice about no pages changes nothing; the kernel looks at the advice first.
    unsafe { madvise(core::ptr::null_mut(), 0, Advice::LinuxNoHugepage) }.is_ok()
}
