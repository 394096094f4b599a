//! OpenBSD. Memory is writable and executable only in programs linked for it, on file systems
//! mounted for it.

pub(crate) use super::lacking::{core_sync, deny_write_execute, large_pages, sync_cores};

use crate::shared::{
    errno::{check, error, owned},
    limits::{ask_file_size, process_record},
    object::MemoryObject,
    pages::page_size,
    sysctl::{self, int, process},
    time::timespec,
};
use core::{
    ffi::{CStr, c_char, c_int, c_uint},
    mem::offset_of,
    ptr::{null, null_mut},
    sync::atomic::AtomicU32,
    time::Duration,
};
use hostmem_core::{
    page::PageSize,
    provider::{
        Capabilities, DualRequest, DualStep, Error, ErrorKind, MapEntry, MapFlags as Entry,
        Resource, order,
    },
};
use libc::{kinfo_proc as Record, kinfo_vmentry};
use rustix::{
    fs::Mode,
    io::{Errno, FdFlags, fcntl_setfd},
    mm::{MapFlags, ProtFlags},
    shm,
};

/// A reservation: private and inaccessible.
pub(crate) const RESERVED: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Exactly there, or not at all: `__MAP_NOREPLACE` of `sys/mman.h` beside `MAP_FIXED`.
pub(crate) const EXACT: c_int = libc::MAP_FIXED | 0x0800;

/// There are no alignments to ask for.
pub(crate) fn aligned(_align: usize) -> Option<c_int> {
    None
}

/// There are no limits to what `mprotect(2)` may do, other than that it may not do both.
pub(crate) fn most(_protections: ProtFlags) -> ProtFlags {
    ProtFlags::empty()
}

// There is nothing to ask for.
pub(crate) const SUPERPAGE_ALIGNED: MapFlags = MapFlags::empty();
pub(crate) const FILE: MapFlags = MapFlags::empty();

/// Of which all accessible private memory is a part. There is no limit of addresses.
pub(crate) const LIMITED: Resource = Resource::Memory;
pub(crate) const LIMIT: c_int = libc::RLIMIT_DATA;

/// Returns the bytes that count as data.
pub(crate) fn used() -> Option<usize> {
    let record = process_record::<{ size_of::<Record>() }>(libc::KERN_PROC, true)?;
    let pages = int(&record, offset_of!(Record, p_vm_dsize))?;
    usize::try_from(pages)
        .ok()?
        .checked_mul(page_size().bytes())
}

/// What every OpenBSD has. Mapping over is one step under the map's lock.
pub(crate) const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::ATOMIC_INTO)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

pub(crate) const ORDERS: [&[DualStep]; 3] = [order::OPENBSD, order::OPENBSD, &[]];

/// Records read at a time, on the stack.
const RECORDS: usize = 32;

/// `UVM_ET_OBJ` of `uvm/uvm_map.h`: backed by an object.
const OBJECT: i32 = 0x01;
/// `UVM_ET_COPYONWRITE`: writes are the process's own.
const COPY_ON_WRITE: i32 = 0x04;

/// Reads the map in pieces (`KERN_PROC_VMMAP`): the first record's start says where to go on.
pub(crate) fn walk(visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
    let name = [libc::CTL_KERN, libc::KERN_PROC_VMMAP, process()];
    let parts = c_uint::try_from(name.len()).map_err(|_| ErrorKind::Other)?;
    // SAFETY: records of numbers, which zeros are.
    let mut records: [kinfo_vmentry; RECORDS] = unsafe { core::mem::zeroed() };
    let mut next = 0;
    loop {
        records[0].kve_start = next;
        let mut len = size_of_val(&records);
        let (buffer, size) = (records.as_mut_ptr().cast(), &raw mut len);
        // SAFETY: the name has that many parts, and the buffer as many bytes as its size says.
        let done = unsafe { libc::sysctl(name.as_ptr(), parts, buffer, size, null_mut(), 0) };
        // ENOMEM says that there are more.
        match check(done) {
            Ok(_) | Err(Errno::NOMEM) => {}
            Err(errno) => return Err(error(errno)),
        }
        let filled = len / size_of::<kinfo_vmentry>();
        let before = next;
        for record in records.iter().take(filled) {
            next = record.kve_end;
            if let Some(entry) = entry(record)
                && !visit(entry)
            {
                return Ok(());
            }
        }
        if filled < RECORDS || next <= before {
            return Ok(());
        }
    }
}

fn entry(record: &kinfo_vmentry) -> Option<MapEntry> {
    let mut flags = Entry::empty();
    flags.set(Entry::OBJECT, record.kve_etype & OBJECT != 0);
    flags.set(Entry::SHARED, record.kve_etype & COPY_ON_WRITE == 0);
    let ends = (record.kve_start, record.kve_end);
    sysctl::entry(ends, record.kve_protection, flags)
}

unsafe extern "C" {
    /// Makes a new object under a name made of the template, which it replaces.
    fn shm_mkstemp(template: *mut c_char) -> c_int;
}

/// Makes the object of one strategy, empty as yet: its name is unlinked at once.
pub(crate) fn open(
    step: DualStep,
    request: &DualRequest<'_>,
    base: PageSize,
) -> Result<MemoryObject, Error> {
    if step != DualStep::AnonShm {
        return Err(ErrorKind::Unsupported.into());
    }
    // Such an object is a file.
    ask_file_size(request.len as u64, base)?;
    let mut name = *b"/tmp/hostmem-XXXXXXXXXX\0";
    // SAFETY: a C string that may be written to.
    let fd = unsafe { shm_mkstemp(name.as_mut_ptr().cast()) };
    // SAFETY: made just now, and no other code knows of it.
    let file = unsafe { owned(fd)? };
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| ErrorKind::Other)?;
    let read_only = shm::open(name, shm::OFlags::RDONLY, Mode::empty());
    shm::unlink(name).map_err(error)?;
    fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(error)?;
    Ok(MemoryObject::new(file, read_only.ok(), base))
}

/// `FUTEX_PRIVATE_FLAG` of `sys/futex.h`.
const PRIVATE: c_int = 128;
/// `FUTEX_WAIT`.
const WAIT: c_int = 1 | PRIVATE;
/// `FUTEX_WAKE`.
const WAKE: c_int = 2 | PRIVATE;

/// Sleeps (`futex(2)`) while the word is `expected`, until it is woken or `at_most` is over; may
/// return early.
pub(crate) fn wait(word: &AtomicU32, expected: u32, at_most: Duration) {
    let (word, expected) = (word.as_ptr(), expected.cast_signed());
    let time = timespec(at_most);
    // SAFETY: futex(2) reads the word, which is borrowed for the call, and the time, which is live,
    // and changes no memory. No second word. That it failed, was interrupted or took too long, is
    // an early return.
    unsafe { libc::futex(word, WAIT, expected, &raw const time, null_mut()) };
}

/// Wakes one of those that sleep on the word.
pub(crate) fn wake_one(word: &AtomicU32) {
    // SAFETY: futex(2) takes the address and changes no memory.
    unsafe { libc::futex(word.as_ptr(), WAKE, 1, null(), null_mut()) };
}
