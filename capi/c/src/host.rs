//! The host: what memory comes from where a program names no provider. Linux has a backend; on
//! other systems the host is a provider of the program's own.
//!
//! | file | what it has |
//! |---|---|
//! | `linux`, `signals` | the backend of Linux; its signals that are blocked |
//! | `foreign` | the provider that a program sets |

cfg_select! {
    target_os = "linux" => {
        mod linux;
        mod signals;
        pub(crate) use linux::{Host, HostLock, adopt_claim, now_ms, probe, set};
        #[cfg(panic = "abort")]
        pub(crate) use linux::print;
        pub(crate) use signals::{for_maps, for_regions};
    }
    _ => {
        mod foreign;
        pub(crate) use foreign::{
            Host, HostLock, adopt_claim, for_maps, for_regions, now_ms, probe, set,
        };
        #[cfg(panic = "abort")]
        pub(crate) use foreign::print;
    }
}

use crate::{
    provider::{Foreign, hm_provider},
    status::{answer, hm_error, hm_status},
};

/// Sets the provider that is the host, on a system for which this library has none: there, what is
/// made without a provider is made on it, and without one that is set there is nothing but
/// `HM_UNSUPPORTED`. Handles live on its pages too, so make this the first call. The table stays
/// until the program ends. A second call is refused with `HM_EXISTS`; on Linux, which has a host,
/// every one is with `HM_UNSUPPORTED`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_set_host(
    provider: *const hm_provider,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        // SAFETY: the caller in C promises that it is null, or a table that does what it says and
        // stays until the program ends.
        let provider = unsafe { Foreign::new(provider)? };
        set(provider)?;
    })
}
