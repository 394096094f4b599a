//! Address space above 4 GiB that is this program's alone, with memory, code and heaps inside it.

use crate::{
    cpu, heap,
    out::say,
    steps::{OS, Step, call, check},
};
use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig},
    page::Access,
    provider::{Commit, Request},
    region::{ClaimRequest, PageState, RegionAllocator, RegionConfig, claim},
};

/// Where a 32-bit guest ends.
pub(crate) const GUEST_END: usize = 4 << 30;

/// The region.
pub(crate) type Host = RegionAllocator<OsProvider, OsProvider, OsLock>;

pub(crate) fn run() -> Result<(), Step> {
    let host = Host::on(OS, OS, RegionConfig::new()).map_err(|_| Step::Claim)?;
    let mut slots = [None; 64];
    let request = ClaimRequest::above(GUEST_END);
    let mut claim = claim(OS, &request, &mut slots).map_err(|_| Step::Claim)?;
    for range in claim.usable() {
        // SAFETY: claimed just now, and not given back before the region is gone.
        unsafe { host.adopt(range) }.map_err(|_| Step::Claim)?;
    }
    let adopted = host.statistics().adopted;
    say!("claimed {} GiB above 4 GiB", adopted >> 30);
    check(adopted >> 30 != 0, Step::Claim)?;
    memory(&host).ok_or(Step::Region)?;
    code(&host).ok_or(Step::Region)?;
    heap::run(&host)?;
    check(host.statistics().used == 0, Step::Region)?;
    drop(host);
    // SAFETY: nothing lies in it any more.
    unsafe { claim.give_back() }.map_err(|_| Step::Claim)
}

/// Maps memory in the region, and takes it through its states.
fn memory(host: &Host) -> Option<()> {
    let range = host
        .map(&Request::bytes(1 << 20), Commit::READ_WRITE, 1)
        .ok()?;
    // SAFETY: mapped just now.
    unsafe { range.start().write_bytes(0xa5, range.len_bytes()) };
    let found = host.query(range.end() - 1)?;
    let state = PageState::Committed(Access::ReadWrite);
    let known = found.state == state && found.addresses == range.addresses();
    // SAFETY: no other code uses it any more.
    unsafe { host.unmap(range) }.ok()?;
    (known && range.addr() >= GUEST_END && host.query(range.addr()).is_none()).then_some(())
}

/// Runs code in the region.
fn code(host: &Host) -> Option<()> {
    let jit = JitAllocator::<_, _, OsLock>::on(host, host, JitConfig::new()).ok()?;
    for value in 0..100 {
        let mut span = jit.alloc(64).ok()?;
        let above = |at: usize| at >= GUEST_END;
        if !above(span.rx().addr().get()) || !above(span.rw().addr().get()) {
            return None;
        }
        jit.write(&mut span, 0, &cpu::returning(value)).ok()?;
        if call(&span) != value {
            return None;
        }
        jit.release(span).ok()?;
    }
    Some(())
}
