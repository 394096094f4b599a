//! The probe of the host.

use crate::{
    abi::{Grows, growing},
    host,
    status::{HM_STEP_NONE, answer, hm_error, hm_status, hm_step, step_of},
};
use hostmem::{
    probe::{MAX_LARGE_SIZES, Setting},
    provider::{Error, MAX_DUAL_STEPS},
};

/// Whether a setting of the host is on.
pub type hm_setting = u32;
/// The host does not have it.
pub const HM_SETTING_ABSENT: hm_setting = 0;
/// It is off.
pub const HM_SETTING_OFF: hm_setting = 1;
/// It is on.
pub const HM_SETTING_ON: hm_setting = 2;

/// A strategy for dual mappings, and whether it works.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_probe_step {
    /// The strategy; `HM_STEP_NONE` behind the last.
    pub step: hm_step,
    /// Whether it works: 0 or 1.
    pub works: u32,
    /// The host's error number where it does not, or 0.
    pub system_error: i32,
}

/// What a host allows, found out by trying. Begin with `HM_PROBE_INIT`. What is allowed is 1, and
/// what is not is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_probe {
    /// The size of this struct.
    pub size: u32,
    /// The bits of an address of the process, or 0 where that is not known.
    pub address_bits: u32,
    /// The page size.
    pub page_size: usize,
    /// The sizes of large pages that the host knows; 0 behind the last.
    pub large_pages: [usize; 8],
    /// How many mappings a process may have, or 0 where that is not known.
    pub max_mappings: usize,
    /// Memory can be writable and executable at once. This is never tried.
    pub read_write_exec: u32,
    /// A page can go from writable to executable.
    pub toggle_exec: u32,
    /// Pages can refuse indirect branches that do not land on a landing pad.
    pub landing_pads: u32,
    /// Other cores can be made to see new code.
    pub core_sync: u32,
    /// The process map can be read.
    pub process_map: u32,
    /// Memory that was writable is kept from being executable (Linux: MDWE).
    pub deny_write_execute: hm_setting,
    /// Whatever is readable is executable, too (Linux: `READ_IMPLIES_EXEC`).
    pub read_implies_exec: hm_setting,
    /// The strategy that dual mappings use, or `HM_STEP_NONE`.
    pub best_step: hm_step,
    /// Each strategy, best first.
    pub steps: [hm_probe_step; 8],
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_probe {
    const FIRST: usize = 216;
}

const _: () = assert!(size_of::<hm_probe>() == 216);
const _: () = assert!(MAX_LARGE_SIZES == 8 && MAX_DUAL_STEPS == 8);

const fn setting(from: Setting) -> hm_setting {
    match from {
        Setting::Absent => HM_SETTING_ABSENT,
        Setting::Off => HM_SETTING_OFF,
        Setting::On => HM_SETTING_ON,
    }
}

/// Finds out what the host allows to this process now. Everything is tried, but for memory that is
/// writable and executable at once, and nothing is left behind.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_probe_host(to: *mut hm_probe, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let to = growing!(to);
        let probe = host::probe()?;
        let mut large_pages = [0; 8];
        for (place, large) in large_pages.iter_mut().zip(probe.large_pages()) {
            *place = large.size.bytes();
        }
        let none = hm_probe_step {
            step: HM_STEP_NONE,
            works: 0,
            system_error: 0,
        };
        let mut steps = [none; 8];
        for (place, (step, works)) in steps.iter_mut().zip(probe.dual()) {
            *place = hm_probe_step {
                step: step_of(step),
                works: works.is_ok().into(),
                system_error: works.err().and_then(Error::errno).unwrap_or(0),
            };
        }
        to.write(hm_probe {
            size: 0,
            address_bits: probe.address_bits.unwrap_or(0),
            page_size: probe.page_size.bytes(),
            large_pages,
            max_mappings: probe.max_map_count.unwrap_or(0),
            read_write_exec: probe.rwx.is_ok().into(),
            toggle_exec: probe.toggle_exec.is_ok().into(),
            landing_pads: probe.landing_pads.is_ok().into(),
            core_sync: probe.core_sync.is_ok().into(),
            process_map: probe.process_map.is_ok().into(),
            deny_write_execute: setting(probe.deny_write_execute),
            read_implies_exec: setting(probe.read_implies_exec),
            best_step: probe.best_dual().map_or(HM_STEP_NONE, step_of),
            steps,
        });
    })
}
