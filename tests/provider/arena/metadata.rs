//! What metadata takes, to the page.

use core::{
    alloc::Layout,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    arena::Arena,
    counted::{Counted, Limits},
    jit::{JitAllocator, JitConfig},
    page::{Access, PageRange, PageSize},
    provider::{Capabilities, Commit, Error, PageProvider, Purged, Request},
    sim::{Calls, Faulty},
};
use hostmem_test_support::isolate::skip;
use std::sync::Mutex;

/// A provider that remembers what was reserved and is reserved still.
struct Recording {
    ranges: Mutex<Vec<PageRange>>,
    reserved: AtomicUsize,
}

impl Recording {
    const fn new() -> Self {
        Self {
            ranges: Mutex::new(Vec::new()),
            reserved: AtomicUsize::new(0),
        }
    }

    fn bytes(&self) -> usize {
        let ranges = self.ranges.lock().expect("no test panics under it");
        ranges.iter().map(|range| range.len_bytes()).sum()
    }

    /// Counts the pages that have memory.
    fn resident_pages(&self) -> usize {
        let page = OsProvider::new().page_size().bytes();
        let ranges = self.ranges.lock().expect("no test panics under it");
        let resident = |range: &PageRange| {
            let mut pages = vec![0_u8; range.len_bytes() / page];
            // SAFETY: the vector has a byte for each page.
            let done = unsafe {
                libc::mincore(
                    range.start().as_ptr().cast(),
                    range.len_bytes(),
                    pages.as_mut_ptr(),
                )
            };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            pages.iter().filter(|&&page| page & 1 == 1).count()
        };
        ranges.iter().map(resident).sum()
    }
}

// SAFETY: every call goes on to the system's provider.
unsafe impl PageProvider for Recording {
    fn page_size(&self) -> PageSize {
        OsProvider::new().page_size()
    }

    fn capabilities(&self) -> Capabilities {
        OsProvider::new().capabilities()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let range = OsProvider::new().reserve(request)?;
        self.reserved.fetch_add(1, Relaxed);
        self.ranges.lock().expect("no test panics").push(range);
        Ok(range)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the caller vouches for reserved pages that are its own.
        unsafe { OsProvider::new().commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller vouches for committed pages that no other code uses meanwhile.
        unsafe { OsProvider::new().protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller vouches for reserved pages that are its own.
        unsafe { OsProvider::new().decommit(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller vouches for committed pages whose contents it gives up.
        unsafe { OsProvider::new().purge(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller vouches for a whole reservation that no other code uses.
        unsafe { OsProvider::new().release(range) }?;
        let mut ranges = self.ranges.lock().expect("no test panics");
        ranges.retain(|other| *other != range);
        Ok(())
    }
}

#[test]
fn a_small_program_has_a_small_arena() {
    let host = Recording::new();
    let arena: Arena<_> = Arena::new(&host, 1 << 30).expect("a valid bound");
    assert_eq!((host.bytes(), arena.reserved_bytes()), (0, 0));
    arena.alloc(Layout::new::<u64>()).expect("there is memory");
    assert_eq!(host.bytes(), 64 << 10);
    assert_eq!(host.reserved.load(Relaxed), 1);
    assert_eq!(arena.reserved_bytes(), 64 << 10);
    if !crate::common::skip_emulated("does not tell what is resident") {
        assert_eq!(host.resident_pages(), 1);
    }
    drop(arena);
    assert_eq!(host.bytes(), 0);
}

#[test]
fn no_page_is_written_before_something_lies_in_it() {
    let large = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if large.is_ok_and(|modes| modes.contains("[always]")) {
        return skip("this host gives large pages unasked");
    }
    if crate::common::skip_emulated("does not tell what is resident") {
        return;
    }
    let host = Recording::new();
    let arena: Arena<_> = Arena::new(&host, 1 << 30).expect("a valid bound");
    // All kinds: pools, the list, and a piece of its own. Not so much that large pages are asked
    // for.
    let sizes = [20_000, 30_000, 100_000, 700_000];
    for size in sizes.into_iter().cycle().take(16).chain([3 << 20]) {
        let layout = Layout::from_size_align(size, 64).expect("valid");
        arena.alloc_zeroed(layout).expect("there is memory");
    }
    let pieces = host.reserved.load(Relaxed);
    let resident = host.resident_pages();
    // A header each, and what aligning leaves in between, which is put to use.
    assert!(resident <= pieces + 8, "{resident} pages, {pieces} pieces");
}

#[test]
fn ten_functions_take_two_pages_of_metadata() {
    let host = Recording::new();
    let code = Counted::<_, OsLock>::new(OsProvider::new(), "code", Limits::NONE);
    let code = code.expect("book-keeping");
    let jit: JitAllocator<_, _, OsLock> =
        JitAllocator::on(&code, &host, JitConfig::new()).expect("a valid configuration");
    let spans: Vec<_> = (0..10)
        .map(|n| {
            let mut span = jit.alloc(100 + 50 * n).expect("there is memory");
            jit.write(&mut span, 0, &crate::common::code_returning(7))
                .expect("written");
            span
        })
        .collect();
    let code_bytes = 2 * code.counters().dual.now + code.counters().reserved.now;
    assert!(
        host.bytes() + code_bytes <= 512 << 10,
        "{} bytes of metadata, {code_bytes} of code",
        host.bytes()
    );
    if !crate::common::skip_emulated("does not tell what is resident") {
        let pages = host.resident_pages();
        assert!(pages <= 2, "{pages} pages of metadata");
    }
    drop(spans);
}

#[test]
fn a_small_span_in_a_large_block_takes_little_metadata() {
    let host = Recording::new();
    let config = JitConfig::new().block_size(256 << 20, 256 << 20);
    let jit: JitAllocator<_, _, OsLock> =
        JitAllocator::on(OsProvider::new(), &host, config).expect("a valid configuration");
    let Ok(_span) = jit.alloc(64) else {
        return skip("no room for 256 MiB of code");
    };
    if !crate::common::skip_emulated("does not tell what is resident") {
        let pages = host.resident_pages();
        assert!(pages <= 12, "{pages} pages of metadata");
    }
}

#[test]
fn metadata_of_a_long_span_goes_with_it() {
    let host = Recording::new();
    let faulty = Faulty::new(OsProvider::new());
    let jit: JitAllocator<_, _, OsLock> =
        JitAllocator::on(&faulty, &host, JitConfig::new()).expect("a valid configuration");
    let small = jit.alloc(64).expect("there is room");
    let before = (host.bytes(), jit.statistics().metadata);
    // One that cannot be mapped.
    faulty.only(Calls::MAP_DUAL);
    for _ in 0..3 {
        faulty.fail_randomly(1, 1);
        jit.alloc(1 << 34).expect_err("nothing can be mapped");
        assert_eq!((host.bytes(), jit.statistics().metadata), before);
    }
    faulty.fail_none();
    // One that can.
    for _ in 0..3 {
        let Ok(long) = jit.alloc(512 << 20) else {
            return skip("no room for 512 MiB of code");
        };
        jit.release(long).expect("it is live");
        if !crate::common::skip_emulated("does not tell what is resident") {
            let pages = host.resident_pages();
            assert!(pages <= 16, "{pages} pages of metadata");
        }
    }
    jit.release(small).expect("it is live");
}
