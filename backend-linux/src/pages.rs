//! Pages: reserve, commit, protect, decommit, release.
//!
//! Reserved is `PROT_NONE`, private, anonymous, `MAP_NORESERVE`: the flags of an ordinary fresh
//! mapping, so that the kernel merges neighbours into one. Decommitting maps over, which drops the
//! contents and leaves exactly such a mapping in one call.

use crate::{LinuxProvider, errno::error, map, random, raw};
use core::{
    ffi::{CStr, c_void},
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering},
};
use hostmem_core::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Dump, Error, ErrorKind, MapFlags as Entry, PageProvider, PageWish,
        Place, Plan, Purged, Request, Resource, consists_of, is_mapping_name, last_address,
        reserve_and_commit, search,
    },
};
use rustix::{
    io::Errno,
    mm::{
        Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect,
        mremap_fixed, munmap,
    },
};

/// The kind of mapping that every reservation is.
const PLAIN: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// Tells how long transparent large pages are (admin-guide/mm/transhuge.rst; since Linux 4.20).
const LARGE_PAGE: &CStr = c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

/// Returns the address of a range for a system call.
pub(crate) fn pointer(range: PageRange) -> *mut c_void {
    range.start().as_ptr().cast()
}

pub(crate) fn protection(access: Access) -> ProtFlags {
    let mut flags = ProtFlags::empty();
    flags.set(ProtFlags::READ, access.readable());
    flags.set(ProtFlags::WRITE, access.writable());
    flags.set(ProtFlags::EXEC, access.executable());
    flags
}

/// `PROT_BTI` of `asm/mman.h`.
#[cfg(target_arch = "aarch64")]
const PROT_BTI: ProtFlags = ProtFlags::from_bits_retain(0x10);

/// Returns the protection that makes pages refuse indirect branches but to landing pads.
#[cfg(target_arch = "aarch64")]
pub(crate) fn landing_pads() -> Result<ProtFlags, Error> {
    let page = LinuxProvider::new().reserve(&Request::bytes(1))?;
    let flags = MprotectFlags::from_bits_retain((ProtFlags::READ | PROT_BTI).bits());
    // mmap ignores what it does not know; mprotect refuses it.
    // SAFETY: reserved just now, and no other code has its address yet.
    let known = unsafe { mprotect(pointer(page), page.len_bytes(), flags) };
    // SAFETY: as above. A failure wastes a page of addresses.
    let _ = unsafe { unmap(page) };
    known
        .map(|()| PROT_BTI)
        .map_err(|_| ErrorKind::Unsupported.into())
}

/// Says that this CPU has no such pages, or that its kernel keeps them from programs.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn landing_pads() -> Result<ProtFlags, Error> {
    Err(ErrorKind::Unsupported.into())
}

/// Returns the host's page size.
///
/// Asked of the kernel by whether it takes an address as page-aligned: a freestanding program may
/// have no auxiliary vector to read it from.
pub(crate) fn page_size() -> PageSize {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    if cfg!(target_arch = "x86_64") {
        return PageSize::KIB_4;
    }
    if let Some(known) = PageSize::new(CACHED.load(Ordering::Relaxed)) {
        return known;
    }
    match detect_page_size() {
        Some(size) => {
            CACHED.store(size.bytes(), Ordering::Relaxed);
            size
        }
        // Not even two pages to look at. Multiples of the largest size are aligned for all.
        None => PageSize::KIB_64,
    }
}

fn detect_page_size() -> Option<PageSize> {
    let len = 2 * PageSize::KIB_64.bytes();
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let base = unsafe { mmap_anonymous(core::ptr::null_mut(), len, ProtFlags::empty(), PLAIN) };
    let base = base.ok()?;
    let found = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64]
        .into_iter()
        .find(|size| {
            let inside = base.wrapping_byte_add(size.bytes());
            // SAFETY: normal advice changes nothing; EINVAL says that the address is misaligned.
            unsafe { madvise(inside, size.bytes(), Advice::Normal) }.is_ok()
        });
    // SAFETY: mapped above, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { munmap(base, len) };
    found
}

/// Returns the last address that a user mapping can have, found out at the first call; `None` where
/// that is not possible now, for instance since nothing can be mapped at all.
fn last_user_address() -> Option<usize> {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    match CACHED.load(Ordering::Relaxed) {
        0 => {}
        last => return Some(last),
    }
    // Every place is refused to a process at its limit of addresses or mappings.
    if !can_map_page() {
        return None;
    }
    let last = last_address(address_of_stack(), page_size(), &mut exists)?;
    // Meanwhile others may have met a limit: all depends on the lowest place that was refused.
    if let Some(behind) = last.checked_add(1)
        && !(can_map_page() && exists(behind) == Some(false))
    {
        return None;
    }
    CACHED.store(last, Ordering::Relaxed);
    Some(last)
}

/// Returns an address that exists, which most threads have near the end.
fn address_of_stack() -> usize {
    let here = 0u8;
    (&raw const here).addr()
}

/// Says whether a mapping can lie at a page; `None` where the answer says nothing about the place.
fn exists(at: usize) -> Option<bool> {
    let hint = core::ptr::without_provenance_mut(at);
    let (len, flags) = (page_size().bytes(), PLAIN | MapFlags::FIXED_NOREPLACE);
    // SAFETY: FIXED_NOREPLACE maps a hole or fails, or takes the address for a hint.
    match unsafe { mmap_anonymous(hint, len, ProtFlags::empty(), flags) } {
        Ok(got) => {
            // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a
            // whole mapping.
            let _ = unsafe { munmap(got, len) };
            // Kernels before 4.17 map elsewhere, whether the page is taken or none.
            (got.addr() == at).then_some(true)
        }
        Err(Errno::EXIST) => Some(true),
        Err(Errno::NOMEM | Errno::INVAL) => Some(false),
        Err(_) => None,
    }
}

/// Says whether a page can be mapped somewhere.
fn can_map_page() -> bool {
    let (null, len) = (core::ptr::null_mut(), page_size().bytes());
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let Ok(got) = (unsafe { mmap_anonymous(null, len, ProtFlags::empty(), PLAIN) }) else {
        return false;
    };
    // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { munmap(got, len) };
    true
}

/// Returns the bits of a user-space address; `None` where nothing could be found out.
pub(crate) fn address_bits() -> Option<u32> {
    last_user_address().map(|last| usize::BITS - last.leading_zeros())
}

/// Returns the addresses that a user mapping can have; `None` where nothing could be found out.
pub(crate) fn mappable() -> Option<AddressRange> {
    last_user_address().and_then(|last| AddressRange::new(0, last))
}

/// Returns what a user mapping can have of a window; `None` for nothing. The end of the address
/// space is not looked for where the window lies below it for sure.
fn within_user_addresses(window: AddressRange) -> Option<AddressRange> {
    if window.last() <= address_of_stack() {
        return Some(window);
    }
    match mappable() {
        Some(user) => window.intersect(user),
        None => Some(window),
    }
}

fn range_at(start: *mut c_void, len: usize) -> Result<PageRange, Error> {
    let start = NonNull::new(start.cast());
    let range = start.and_then(|start| PageRange::new(start, len, page_size()));
    // The kernel maps whole pages, and never at zero unless asked.
    range.ok_or(ErrorKind::Other.into())
}

/// Reserves exactly `addr..addr + len`, replacing nothing.
pub(crate) fn map_at(addr: usize, len: usize) -> Result<PageRange, Error> {
    let hint = core::ptr::without_provenance_mut(addr);
    let flags = PLAIN | MapFlags::FIXED_NOREPLACE;
    // SAFETY: FIXED_NOREPLACE maps a hole or fails.
    let got = unsafe { mmap_anonymous(hint, len, ProtFlags::empty(), flags) }.map_err(error)?;
    let range = range_at(got, len)?;
    if range.addr() != addr {
        // Kernels before 4.17 do not know the flag and take the address for a hint.
        // SAFETY: mapped just now, and no other code has its address yet.
        unsafe { unmap(range)? };
        return Err(Error::os(ErrorKind::Taken, Errno::EXIST.raw_os_error()));
    }
    Ok(range)
}

/// Unmaps.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
pub(crate) unsafe fn unmap(range: PageRange) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { munmap(pointer(range), range.len_bytes()) }.map_err(error)
}

/// Passes on whether large pages would be welcome. Kernels may lack them, which is no failure.
///
/// # Safety
///
/// The range is the caller's.
pub(crate) unsafe fn advise_wish(range: PageRange, wish: PageWish) {
    let advice = match wish {
        PageWish::Transparent => Advice::LinuxHugepage,
        PageWish::Never => Advice::LinuxNoHugepage,
        PageWish::Base | PageWish::Large { .. } => return,
    };
    // SAFETY: this advice changes nothing that the process can see.
    let _ = unsafe { madvise(pointer(range), range.len_bytes(), advice) };
}

/// What a range was before a replacing call failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// Private anonymous memory: reserved or committed.
    Plain,
    /// A view of a dual mapping.
    View,
}

/// A call that replaces a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// A map of private anonymous memory of the host's pages.
    Map,
    /// A map of a file.
    MapFile,
    /// A map of a file of large pages, which takes them from a pool.
    MapLarge,
    /// A move of a mapping onto the range.
    Move,
}

/// Replaces the range by a fresh private mapping.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
pub(crate) unsafe fn map_over(range: PageRange, was: Was, access: Access) -> Result<(), Error> {
    let (start, len) = (pointer(range), range.len_bytes());
    // SAFETY: FIXED replaces what is there, which is the caller's to give up.
    match unsafe { mmap_anonymous(start, len, protection(access), PLAIN | MapFlags::FIXED) } {
        Ok(_) => Ok(()),
        Err(errno) => match keep_after(Call::Map, range, was, errno) {
            // That is what was wanted.
            Kept::Reserved if access == Access::None => Ok(()),
            kept => Err(kept.report(errno)),
        },
    }
}

/// What became of a range after a replacing call failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It is as it was.
    Unchanged,
    /// There was a hole, which is reserved.
    Reserved,
    /// There was a hole, for all that is known, and somebody else has it.
    Lost,
}

impl Kept {
    /// Returns what to report.
    fn report(self, errno: Errno) -> Error {
        match self {
            Self::Unchanged | Self::Reserved => error(errno),
            Self::Lost => Error::os(ErrorKind::RangeLost, errno.raw_os_error()),
        }
    }
}

/// Makes sure, after a map of a file with pages of `page` over a reservation failed, that it is
/// still the caller's. Returns what to report.
pub(crate) fn keep(range: PageRange, page: PageSize, errno: Errno) -> Error {
    let call = if page > page_size() {
        Call::MapLarge
    } else {
        Call::MapFile
    };
    keep_after(call, range, Was::Plain, errno).report(errno)
}

/// Makes sure that a range is still the caller's, after a call that replaces it failed.
///
/// Such a call may have unmapped the range before it failed, and another thread may have mapped
/// something there since. Nothing tells another's private anonymous mapping from ours, neither in
/// the process map nor by what can be done with it. So a range that is not a hole is kept only
/// where the call cannot have unmapped it; in doubt it is lost: what is given up by mistake is a
/// leak, what is kept by mistake is somebody else's.
fn keep_after(call: Call, range: PageRange, was: Was, errno: Errno) -> Kept {
    if fails_before_unmapping(call, errno) {
        return Kept::Unchanged;
    }
    match map_at(range.addr(), range.len_bytes()) {
        Ok(_) => Kept::Reserved,
        Err(_) if errno == Errno::NOMEM && is_at_limit_and(range, was) => Kept::Unchanged,
        Err(_) => Kept::Lost,
    }
}

/// Says whether a call that fails with `errno` fails before it unmaps anything, or undoes that.
fn fails_before_unmapping(call: Call, errno: Errno) -> bool {
    match (call, errno) {
        // Policy, of the kernel's own and of filters, and calls that there are not.
        (_, Errno::PERM | Errno::ACCESS | Errno::NOSYS) => true,
        // Since 6.12 a map unmaps nothing until all that can fail is done, but for the file's own
        // part in it, which wants no memory. Until then memory for the kernel's own structures, and
        // what overcommitting leaves, came later.
        (Call::Map | Call::MapFile, Errno::NOMEM) => is_kernel(6, 12),
        // Arguments, and the limit of locked memory.
        (Call::Map, _) => true,
        (
            Call::MapFile | Call::MapLarge,
            Errno::AGAIN | Errno::BADF | Errno::NODEV | Errno::OVERFLOW,
        ) => true,
        // The file is asked last, and may say anything else.
        (Call::MapFile | Call::MapLarge, _) => false,
        // Arguments: what is moved is looked at when the target is unmapped.
        (Call::Move, Errno::INVAL) => true,
        (Call::Move, _) => false,
    }
}

/// Says whether the kernel is of that version at least, as far as it says.
fn is_kernel(major: u32, minor: u32) -> bool {
    static CACHED: AtomicU32 = AtomicU32::new(0);
    let mut version = CACHED.load(Ordering::Relaxed);
    if version == 0 {
        // One that does not say is taken for an old one.
        version = raw::kernel_version().unwrap_or(1);
        CACHED.store(version, Ordering::Relaxed);
    }
    version >= (major << 16 | minor)
}

/// Says whether the process is at its limit of mappings and the range, without a hole, is what it
/// was as far as can be seen.
///
/// The limit is looked at before anything is unmapped, so that it tells why a call failed. That the
/// call failed for want of kernel memory instead, that another thread filled the very hole with a
/// mapping of the same kind, and that the limit was met only then, is not ruled out, but takes all
/// three at once.
fn is_at_limit_and(range: PageRange, was: Was) -> bool {
    /// As many as a move wants to be free; a map splits two.
    const ROOM: usize = 6;
    let expected = match was {
        Was::Plain => Entry::empty(),
        Was::View => Entry::SHARED | Entry::OBJECT,
    };
    let os = LinuxProvider::new();
    os.left(Resource::Mappings).is_some_and(|left| left <= ROOM)
        && consists_of(&os, range, expected).unwrap_or(false)
}

/// Names a range, where the kernel keeps names.
fn name_range(range: PageRange, name: &CStr) {
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

/// Whether the kernel keeps names of mappings.
static NAMES: Asked = Asked::not_yet();

/// An answer of the kernel that stays the same.
struct Asked(AtomicU8);

impl Asked {
    const NOT_YET: u8 = 0;
    const YES: u8 = 1;
    const NO: u8 = 2;

    const fn not_yet() -> Self {
        Self(AtomicU8::new(Self::NOT_YET))
    }

    fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::NOT_YET => None,
            answer => Some(answer == Self::YES),
        }
    }

    fn learn(&self, answer: bool) {
        let answer = if answer { Self::YES } else { Self::NO };
        self.0.store(answer, Ordering::Relaxed);
    }

    fn or_ask(&self, ask: impl FnOnce() -> bool) -> bool {
        self.known().unwrap_or_else(|| {
            let answer = ask();
            self.learn(answer);
            answer
        })
    }
}

/// Says whether the kernel keeps names of mappings.
pub(crate) fn keeps_names() -> bool {
    NAMES.or_ask(raw::keeps_names)
}

/// Says whether the kernel was built for advice about large pages.
pub(crate) fn takes_page_advice() -> bool {
    static ANSWER: Asked = Asked::not_yet();
    ANSWER.or_ask(|| {
        // SAFETY: advice about no pages changes nothing; the kernel looks at the advice first.
        unsafe { madvise(core::ptr::null_mut(), 0, Advice::LinuxNoHugepage) }.is_ok()
    })
}

/// Reserves where the kernel likes.
fn map_anywhere(plan: &Plan) -> Result<PageRange, Error> {
    map_anywhere_with(plan, Access::None)
}

/// Maps where the kernel likes.
fn map_anywhere_with(plan: &Plan, access: Access) -> Result<PageRange, Error> {
    let page = page_size();
    // Room to choose an aligned start in; the rest goes back.
    let len = plan.len_with_slack(page)?;
    let access = protection(access);
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let got = unsafe { mmap_anonymous(core::ptr::null_mut(), len, access, PLAIN) };
    let whole = range_at(got.map_err(error)?, len)?;
    let (kept, rest) = plan.carve(whole, page).ok_or(ErrorKind::Other)?;
    for part in rest.into_iter().flatten() {
        // SAFETY: part of what was mapped just now, and no other code has its address yet. Should
        // the kernel refuse to split the mapping, addresses are wasted and nothing else.
        let _ = unsafe { unmap(part) };
    }
    Ok(kept)
}

impl LinuxProvider {
    fn map_placed(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(page_size())?;
        if plan.unconstrained() {
            match plan.halving(map_anywhere) {
                // The slack may have been too much where the same without it is not.
                Err(e)
                    if e.kind() == ErrorKind::Exhausted && plan.align() > page_size().bytes() => {}
                result => return result,
            }
        }
        let mut placement = request.placement;
        if !matches!(plan.place(), Place::Exact(_)) {
            let within = within_user_addresses(placement.within);
            placement.within = within.ok_or(ErrorKind::Exhausted)?;
        }
        let plan = request.placement(placement).plan(page_size())?;
        search(&plan, self, &mut map_at)
    }
}

/// Commits large pages: maps them elsewhere first, because a failed replacing map of large pages
/// leaves a hole, and then moves them.
///
/// # Safety
///
/// The range is reserved by the caller, and no other code uses it.
unsafe fn commit_large(range: PageRange, access: Access, bytes: usize) -> Result<PageSize, Error> {
    let invalid = Error::of(ErrorKind::InvalidArgument);
    let size = PageSize::new(bytes)
        .filter(|&size| size > page_size())
        .ok_or(invalid)?;
    if !size.is_aligned(range.addr()) || !size.is_aligned(range.len_bytes()) {
        return Err(invalid);
    }
    let log2 = MapFlags::hugetlb_with_size_log2(bytes.trailing_zeros()).ok_or(invalid)?;
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | log2;
    let len = range.len_bytes();
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let from = unsafe { mmap_anonymous(core::ptr::null_mut(), len, protection(access), flags) };
    let from = from.map_err(error)?;
    let to = pointer(range);
    // SAFETY: moves the mapping made just now onto the range, which is the caller's to give up.
    match unsafe { mremap_fixed(from, len, len, MremapFlags::MAYMOVE, to) } {
        Ok(_) => Ok(size),
        Err(errno) => {
            // SAFETY: mapped above, and no other code has its address yet.
            let _ = unsafe { munmap(from, len) };
            Err(keep_after(Call::Move, range, Was::Plain, errno).report(errno))
        }
    }
}

// SAFETY: the promises are those of the system calls, as the functions above use them.
unsafe impl PageProvider for LinuxProvider {
    fn page_size(&self) -> PageSize {
        page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.current_capabilities()
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        self.capabilities_of(wanted)
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let range = self.map_placed(request)?;
        // SAFETY: reserved just now.
        unsafe { self.describe(range, request.name, request.dump) };
        Ok(range)
    }

    fn reserve_committed(&self, request: &Request<'_>, how: Commit) -> Result<PageRange, Error> {
        let plan = request.plan(page_size())?;
        let in_one_step = plan.unconstrained()
            && plan.body() == plan.total()
            && how.pages == PageWish::Base
            && how.ceiling.allows(how.access);
        if !in_one_step {
            return reserve_and_commit(self, request, how);
        }
        let range = plan.halving(|plan| map_anywhere_with(plan, how.access))?;
        // SAFETY: mapped just now.
        unsafe { self.describe(range, request.name, request.dump) };
        Ok(range)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if let PageWish::Large { bytes, or_base } = how.pages {
            // SAFETY: the caller's promise: the range is reserved.
            match unsafe { commit_large(range, how.access, bytes) } {
                Err(e) if or_base && e.kind() != ErrorKind::RangeLost => {}
                result => return result,
            }
        }
        if how.access.executable() {
            // Not by protection, which hardened kernels refuse: a page may not gain execution.
            // SAFETY: the caller's promise: the range is reserved.
            unsafe { map_over(range, Was::Plain, how.access)? };
        } else {
            // SAFETY: the caller's promise: the range is reserved, so nothing is taken away.
            let result = unsafe { self.protect(range, how.access) };
            if let Err(e) = result {
                // Part of it may have been done.
                // SAFETY: as above: nothing was committed before.
                let _ = unsafe { self.protect(range, Access::None) };
                return Err(e);
            }
        }
        // SAFETY: the caller's promise: the range is theirs.
        unsafe { advise_wish(range, how.pages) };
        Ok(page_size())
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let flags = MprotectFlags::from_bits_retain(protection(access).bits());
        // SAFETY: the caller's promise: the range is theirs, and no other code uses it in a way
        // that the new access forbids.
        unsafe { mprotect(pointer(range), range.len_bytes(), flags) }.map_err(error)
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { map_over(range, Was::Plain, Access::None) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        let (start, len) = (pointer(range), range.len_bytes());
        // SAFETY: the caller's promise: the pages are theirs, private and anonymous, and the
        // contents are not needed. They read zero afterwards (madvise(2), MADV_DONTNEED).
        let advised = match unsafe { madvise(start, len, Advice::LinuxDontNeed) } {
            // Locked pages are to be asked for by name, since Linux 5.18.
            // SAFETY: as above.
            Err(Errno::INVAL) => unsafe { madvise(start, len, Advice::LinuxDontneedLocked) },
            result => result,
        };
        match advised {
            Ok(()) => Ok(Purged::Zero),
            // Mappings before the first one that is refused have lost their memory: none have where
            // the first page is refused too.
            // SAFETY: as above, of the first page.
            Err(Errno::INVAL) => match unsafe { madvise(start, 1, Advice::LinuxDontNeed) } {
                Err(Errno::INVAL) => Ok(Purged::Kept),
                _ => Ok(Purged::ZeroOrOld),
            },
            Err(errno) => Err(error(errno)),
        }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        let len = from.len_bytes();
        if len != to.len_bytes() || from.overlaps(to) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        // Kernels since 6.17 move several mappings, one by one, and may fail in between.
        match map::is_one_mapping(from) {
            Some(true) => {}
            None if !is_kernel(6, 17) => {}
            _ => return Err(ErrorKind::Unsupported.into()),
        }
        let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        // SAFETY: the caller's promise: both ranges are theirs, and nothing is mapped at `to` but a
        // reservation. What is left at `from` is empty.
        match unsafe { mremap_fixed(pointer(from), len, len, flags, pointer(to)) } {
            Ok(_) => {}
            // Several mappings, a kernel before 5.7, or pages that it does not move: to be copied.
            // `to` may have been unmapped first.
            Err(errno @ (Errno::FAULT | Errno::INVAL)) => {
                let kept = keep_after(Call::Move, to, Was::Plain, errno);
                return Err(match kept {
                    Kept::Lost => kept.report(errno),
                    _ => Error::os(ErrorKind::Unsupported, errno.raw_os_error()),
                });
            }
            Err(errno) => {
                return Err(keep_after(Call::Move, to, Was::Plain, errno).report(errno));
            }
        }
        // SAFETY: the range is the caller's, and its contents have gone.
        if unsafe { map_over(from, Was::Plain, Access::None) }.is_err() {
            // A whole mapping can be made inaccessible, also at the limit of mappings; if not, it
            // stays accessible and empty, as a commit would leave it.
            // SAFETY: as above.
            let _ = unsafe { self.protect(from, Access::None) };
        }
        Ok(())
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // Neither is worth failing for: kernels may be built without names, and a core file is
        // larger than it need be.
        if let Some(text) = name {
            name_range(range, text);
        }
        if dump == Dump::Excluded {
            // SAFETY: this advice changes nothing that the process can see.
            let _ = unsafe { madvise(pointer(range), range.len_bytes(), Advice::LinuxDontDump) };
        }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's promise: the range is theirs.
        unsafe { advise_wish(range, PageWish::Never) };
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's promise: the range is theirs.
        unsafe { advise_wish(range, PageWish::Transparent) };
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { unmap(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        self.resource_left(of)
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        random::key()
    }

    fn large_page(&self) -> PageSize {
        let size = crate::probe::read_number(None, LARGE_PAGE).and_then(PageSize::new);
        size.unwrap_or_else(|| page_size().of_table())
    }
}
