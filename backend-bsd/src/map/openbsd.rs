//! OpenBSD: `KERN_PROC_VMMAP`, in pieces: the first record's start says where to go on.

use crate::errno::{check, error};
use core::{ffi::c_uint, mem::size_of, ptr::null_mut};
use hostmem_core::{
    page::AddressRange,
    provider::{Error, ErrorKind, MapEntry, MapFlags},
};
use rustix::io::Errno;

/// Records read at a time, on the stack.
const RECORDS: usize = 32;

/// `UVM_ET_OBJ` of `uvm/uvm_map.h`: backed by an object.
const OBJECT: i32 = 0x01;
/// `UVM_ET_COPYONWRITE`: writes are the process's own.
const COPY_ON_WRITE: i32 = 0x04;

/// What a record is before it is filled.
const EMPTY: libc::kinfo_vmentry = libc::kinfo_vmentry {
    kve_start: 0,
    kve_end: 0,
    kve_guard: 0,
    kve_fspace: 0,
    kve_fspace_augment: 0,
    kve_offset: 0,
    kve_wired_count: 0,
    kve_etype: 0,
    kve_protection: 0,
    kve_max_protection: 0,
    kve_advice: 0,
    kve_inheritance: 0,
    kve_flags: 0,
};

pub(super) fn walk(visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let name = [libc::CTL_KERN, libc::KERN_PROC_VMMAP, process];
    let parts = c_uint::try_from(name.len()).map_err(|_| ErrorKind::Other)?;
    let mut records = [EMPTY; RECORDS];
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
        let filled = len / size_of::<libc::kinfo_vmentry>();
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

fn entry(record: &libc::kinfo_vmentry) -> Option<MapEntry> {
    let start = usize::try_from(record.kve_start).ok()?;
    let end = usize::try_from(record.kve_end).ok()?;
    let mut flags = MapFlags::empty();
    flags.set(MapFlags::READ, record.kve_protection & libc::PROT_READ != 0);
    flags.set(
        MapFlags::WRITE,
        record.kve_protection & libc::PROT_WRITE != 0,
    );
    flags.set(MapFlags::EXEC, record.kve_protection & libc::PROT_EXEC != 0);
    flags.set(MapFlags::OBJECT, record.kve_etype & OBJECT != 0);
    flags.set(MapFlags::SHARED, record.kve_etype & COPY_ON_WRITE == 0);
    let range = AddressRange::new(start, end.checked_sub(1)?)?;
    Some(MapEntry { range, flags })
}
