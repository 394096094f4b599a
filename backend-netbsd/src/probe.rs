//! What this host allows, found by asking it.

use crate::{pages::NetBsd, sync::OsLock};
use core::ffi::c_int;
use hostmem_bsd::shared::sysctl::{process, sysctl_int};
use hostmem_core::{
    probe::{Probe, ProbeSystem, Setting},
    provider::Capabilities,
    sync::Once,
};

/// `PROC_PID_PAXFLAGS` of `sys/sysctl.h`.
const PROC_PID_PAXFLAGS: c_int = 6;
/// `CTL_PROC_PAXFLAGS_MPROTECT`.
const PAXFLAGS_MPROTECT: c_int = 2;

/// What every NetBSD has. Code can be toggled under PaX too, where the commit's ceiling says so.
const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::RWX)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

impl ProbeSystem for NetBsd {
    type Lock = OsLock;

    fn cached() -> &'static Once<Probe, OsLock> {
        static CACHED: Once<Probe, OsLock> = Once::new();
        &CACHED
    }

    fn deny_write_execute(&self) -> Setting {
        pax_mprotect()
    }
}

/// Returns what can be done as far as the kernel tells when asked. Nothing is tried: the probe does
/// that, for who wants to know.
pub(crate) fn current_capabilities() -> Capabilities {
    match pax_mprotect() {
        Setting::On => CAPABILITIES.difference(Capabilities::RWX),
        _ => CAPABILITIES,
    }
}

/// Says whether PaX MPROTECT is on for this process.
fn pax_mprotect() -> Setting {
    match sysctl_int(&[libc::CTL_PROC, process(), PROC_PID_PAXFLAGS]) {
        None => Setting::Absent,
        Some(flags) if flags & PAXFLAGS_MPROTECT != 0 => Setting::On,
        Some(_) => Setting::Off,
    }
}

/// Says whether the kernel's revision (`kern.osrevision`) is that at least.
pub(crate) fn is_revision(least: c_int) -> bool {
    let revision = sysctl_int(&[libc::CTL_KERN, libc::KERN_OSREV]);
    revision.is_some_and(|revision| revision >= least)
}
