//! Access rights and their ceilings.

use crate::{
    Outcome,
    code::{self, Code},
    harness::{Region, expect_refused},
};
use core::ptr::NonNull;
use hostmem_core::{
    arch,
    page::{Access, Ceiling, RwxOptIn},
    provider::{Capabilities, Commit, ErrorKind, PageProvider, PageWish},
};

const DENIED: &[ErrorKind] = &[ErrorKind::Denied];

const fn commit(access: Access, ceiling: Ceiling) -> Commit {
    Commit {
        access,
        ceiling,
        pages: PageWish::Base,
    }
}

/// Everything at once, as an access and as a ceiling.
fn rwx() -> (Access, Ceiling) {
    // SAFETY: only bytes of this suite are written to such memory.
    let consent = unsafe { RwxOptIn::accept() };
    (
        Access::ReadWriteExec(consent),
        Ceiling::ReadWriteExec(consent),
    )
}

pub(super) fn protection_preserves_contents<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::committed(p, 6);
    region.fill(0..6, 11);
    for access in [
        Access::Read,
        Access::None,
        Access::ReadWrite,
        Access::None,
        Access::Read,
    ] {
        region
            .protect(1..4, access)
            .expect("access below the ceiling is granted");
        if access.readable() {
            region.expect_pattern(0..6, 11);
        }
    }
    region
        .protect(0..6, Access::ReadWrite)
        .expect("a range of different accesses can be changed");
    region.expect_pattern(0..6, 11);
    region.fill(0..6, 12);
    region.expect_pattern(0..6, 12);
    Outcome::Passed
}

pub(super) fn commit_gives_the_access_asked_for<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 3);
    for (page, access) in [Access::None, Access::Read, Access::ReadWrite]
        .into_iter()
        .enumerate()
    {
        let how = commit(access, Ceiling::ReadWrite);
        region
            .commit(page..page + 1, how)
            .expect("any access below the ceiling can be committed");
        if access.readable() {
            region.expect_zero(page..page + 1);
        }
    }
    region
        .protect(0..3, Access::ReadWrite)
        .expect("each may rise to its ceiling");
    region.expect_zero(0..3);
    region.fill(0..3, 5);
    region.expect_pattern(0..3, 5);
    let mut read_only = Region::pages(p, 1);
    read_only
        .commit(0..1, commit(Access::Read, Ceiling::Read))
        .expect("read-only pages");
    read_only.expect_zero(0..1);
    Outcome::Passed
}

pub(super) fn ceilings_are_kept<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut enforced = false;
    for (ceiling, below, above) in [
        (Ceiling::ReadWrite, Access::ReadWrite, Access::ReadExec),
        (Ceiling::Read, Access::None, Access::ReadWrite),
    ] {
        let mut region = Region::pages(p, 2);
        region
            .commit(0..2, commit(Access::Read, ceiling))
            .expect("a small commit succeeds");
        match region.protect(0..2, above) {
            Ok(()) => continue,
            refused => expect_refused(refused, DENIED, "protect above the ceiling"),
        }
        enforced = true;
        region.expect_zero(0..2);
        region
            .protect(0..2, below)
            .expect("a refused protect changes nothing");
    }
    if enforced {
        Outcome::Passed
    } else {
        Outcome::Skipped("the host knows no ceilings")
    }
}

pub(super) fn access_above_its_ceiling_is_refused<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 2);
    for (access, ceiling) in [
        (Access::ReadWrite, Ceiling::Read),
        (Access::ReadExec, Ceiling::Read),
        (Access::ReadExec, Ceiling::ReadWrite),
        (Access::ReadWrite, Ceiling::ReadExec),
        (rwx().0, Ceiling::WriteXorExec),
    ] {
        let kinds = [ErrorKind::InvalidArgument, ErrorKind::Denied];
        let result = region.commit(0..2, commit(access, ceiling));
        expect_refused(result, &kinds, "a commit with access above its own ceiling");
    }
    region
        .commit(0..2, Commit::READ_WRITE)
        .expect("a refused commit leaves the range reserved");
    region.expect_zero(0..2);
    Outcome::Passed
}

pub(super) fn rwx_is_refused_without_the_capability<P: PageProvider + Copy>(p: P) -> Outcome {
    let (access, ceiling) = rwx();
    let mut region = Region::pages(p, 2);
    if !p.capabilities().contains(Capabilities::RWX) {
        let result = region.commit(0..2, commit(access, ceiling));
        expect_refused(
            result,
            DENIED,
            "writable and executable memory without the capability",
        );
        region
            .commit(0..2, Commit::READ_WRITE)
            .expect("a refused commit leaves the range reserved");
        expect_refused(
            region.protect(0..2, access),
            DENIED,
            "protect to writable and executable",
        );
        region.fill(0..2, 1);
        return Outcome::Passed;
    }
    region
        .commit(0..2, commit(access, ceiling))
        .expect("the capability is a promise");
    region.expect_zero(0..2);
    let Some(function) = runnable(9) else {
        return Outcome::Skipped("no code is known for this CPU");
    };
    assert_eq!(
        write_and_call(&mut region, function),
        9,
        "code in writable memory runs"
    );
    Outcome::Passed
}

pub(super) fn code_runs_after_protection_changed<P: PageProvider + Copy>(p: P) -> Outcome {
    if !p.capabilities().contains(Capabilities::TOGGLE_EXEC) {
        return Outcome::Skipped("protection cannot take a page from writable to executable");
    }
    let mut region = Region::pages(p, 2);
    let how = commit(Access::ReadWrite, Ceiling::WriteXorExec);
    region
        .commit(0..2, how)
        .expect("the capability is a promise");
    for value in [1, 2, 0xfffe] {
        let Some(function) = runnable(value) else {
            return Outcome::Skipped("no code is known for this CPU");
        };
        let at = region.write(0, function.bytes());
        region
            .protect(0..2, Access::ReadExec)
            .expect("the capability is a promise");
        // SAFETY: the code was written there, and the pages are executable.
        let returned = unsafe { publish_and_call(at, function) };
        assert_eq!(returned, u32::from(value), "the code ran");
        region.protect(0..2, Access::ReadWrite).expect("and back");
    }
    Outcome::Passed
}

fn runnable(value: u16) -> Option<Code> {
    code::returning(value).filter(|_| arch::SUPPORTED)
}

/// Writes a function to the first page of a region that is writable and executable, and calls it.
fn write_and_call<P: PageProvider + Copy>(region: &mut Region<P>, function: Code) -> u32 {
    let at = region.write(0, function.bytes());
    // SAFETY: the code was just written there, and the page is executable, as only accesses that
    // are both come here.
    unsafe { publish_and_call(at, function) }
}

/// # Safety
///
/// `function` is at `at`, which is executable.
unsafe fn publish_and_call(at: NonNull<u8>, function: Code) -> u32 {
    // SAFETY: the bytes are mapped and readable, by the caller's promise.
    unsafe { arch::publish_code(at.as_ptr(), function.bytes().len()) };
    // SAFETY: published above; the rest is the caller's promise.
    unsafe { code::call(at) }
}
