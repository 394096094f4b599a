//! What dual mappings promise, on hosts that make it hard: the executable view never becomes
//! writable, memory is there before it is used, and what cannot be had is an error.
#![cfg(all(target_os = "linux", feature = "linux"))]

#[path = "../common/mod.rs"]
mod common;

use common::{CODE_LEN, at_length, call, code_returning, skip_emulated, unmap_dual, write_code};
use core::{ffi::CStr, ptr};
use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, JitError, LargePages, Mapping, Span},
    page::{PageRange, RwxOptIn},
    probe::Setting,
    provider::{
        Capabilities, DualError, DualMapProvider, DualMapping, DualRequest, DualStep, ErrorKind,
        Fork, PageProvider, PageWish, Request, Target,
    },
};
use hostmem_test_support::{
    Unavailable,
    hugetlb::with_huge_pages,
    isolate::{isolated, isolated_by, leave_out, or_skip, run},
    maps, mounts,
    overcommit::{Starved, strictly},
    seccomp,
};
use std::{fs, io};

const OS: OsProvider = OsProvider::new();
const NOWHERE: &[&CStr] = &[];
/// A provider that has memory files and `/dev/shm`, and no other directories.
const NO_DIRECTORIES: OsProvider = OsProvider::with_directories(NOWHERE);

const LEN: usize = 1 << 20;
const LARGE: usize = 2 << 20;

type Jit = JitAllocator<OsProvider, OsProvider, OsLock>;

fn allocator(os: OsProvider, config: JitConfig) -> Jit {
    JitAllocator::on(os, os, config).expect("the configuration is valid")
}

fn map(os: &OsProvider, len: usize) -> Result<DualMapping, DualError> {
    // SAFETY: neither target is a range of ours.
    unsafe { os.map_dual(&DualRequest::bytes(len)) }
}

fn purge(mapping: &DualMapping, offset: usize, len: usize) -> Result<(), ErrorKind> {
    // SAFETY: no other code uses those pages until they are refilled.
    unsafe { OS.purge_dual(mapping, offset, len) }.map_err(|error| error.kind())
}

fn refill(mapping: &DualMapping, offset: usize, len: usize) -> Result<(), ErrorKind> {
    // SAFETY: the mapping is ours.
    unsafe { OS.refill_dual(mapping, offset, len) }.map_err(|error| error.kind())
}

/// Returns where a byte of a view is.
fn at(view: PageRange, offset: usize) -> *mut u8 {
    view.start().as_ptr().wrapping_add(offset)
}

/// Writes every page of a mapping, and reads it through the other view.
fn use_all(mapping: &DualMapping) {
    for offset in (0..mapping.len_bytes()).step_by(4096) {
        // SAFETY: inside the view, which is writable and ours alone.
        unsafe { at(mapping.rw(), offset).write(7) };
        // SAFETY: inside the view, which is readable.
        assert_eq!(unsafe { at(mapping.rx(), offset).read() }, 7);
    }
}

/// Asserts that the kernel refuses to make the executable view writable.
fn expect_never_writable(mapping: &DualMapping) {
    let rx = mapping.rx();
    for access in [
        libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
    ] {
        let start = rx.start().as_ptr().cast();
        // SAFETY: a view of ours; that it cannot be changed is what is asked.
        let result = unsafe { libc::mprotect(start, rx.len_bytes(), access) };
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!((result, error), (-1, Some(libc::EACCES)), "{access:#x}");
    }
    // SAFETY: at least a page, and ours alone.
    unsafe { write_code(mapping, 128, 4711) };
    // SAFETY: published just now.
    let value = unsafe { call(rx.start().as_ptr().wrapping_add(128)) };
    assert_eq!(value, 4711, "code runs");
}

/// Makes a namespace for this thread in which there is no `/proc`.
fn lose_proc() -> Option<()> {
    or_skip(mounts::enter_namespace())?;
    or_skip(mounts::detach("/proc"))?;
    assert!(!fs::exists("/proc/self").expect("it can be asked"));
    Some(())
}

fn refuse(calls: &[libc::c_long], errno: i32) -> Option<()> {
    or_skip(seccomp::refuse(calls, errno))
}

fn refuse_opening(errno: i32) -> Option<()> {
    let calls = [
        libc::SYS_openat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
    ];
    refuse(&calls, errno)
}

/// Refuses the adding of seals, as kernels do that do not know them.
fn refuse_seals() -> Option<()> {
    let seals = u64::try_from(libc::F_ADD_SEALS).expect("a small number");
    or_skip(seccomp::refuse_when(
        libc::SYS_fcntl,
        1,
        u64::MAX,
        seals,
        libc::EINVAL,
    ))
}

fn fill(jit: &Jit, len: usize) -> Span {
    let mut span = jit.alloc(len).expect("there is memory");
    jit.write(&mut span, 0, &vec![0x90; len]).expect("ours");
    span
}

/// Asserts that a mapping is sealed: never writable, and not to be purged.
fn expect_sealed(mapping: &DualMapping) {
    expect_never_writable(mapping);
    assert!(!mapping.purges(), "{mapping:?}");
    let page = mapping.page_size().bytes();
    assert_eq!(purge(mapping, 0, page), Err(ErrorKind::Unsupported));
    assert_eq!(purge(mapping, 1, page), Err(ErrorKind::InvalidArgument));
    assert_eq!(refill(mapping, 0, page), Ok(()), "it has its memory");
    use_all(mapping);
}

#[test]
fn the_executable_view_never_becomes_writable() {
    let mapping = map(&OS, LEN).expect("a strategy works");
    expect_never_writable(&mapping);
    assert!(mapping.purges());
    use_all(&mapping);
    assert_eq!(purge(&mapping, 0, LEN / 2), Ok(()));
    assert_eq!(refill(&mapping, 0, LEN / 4), Ok(()));
    // SAFETY: it has memory again.
    assert_eq!(unsafe { mapping.rx().start().read() }, 0);
    // SAFETY: it was not purged.
    let kept = unsafe { at(mapping.rx(), LEN / 2).read() };
    assert_eq!(kept, 7);
    unmap_dual(&OS, mapping);
}

/// Maps a memory file, and checks that it is sealed.
fn expect_sealed_file() {
    let mapping = map(&OS, LEN).expect("a strategy works");
    assert_eq!(mapping.step(), DualStep::Memfd);
    expect_sealed(&mapping);
    unmap_dual(&OS, mapping);
}

#[test]
fn both_views_go_and_nothing_beside_them() {
    isolated!("both_views_go_and_nothing_beside_them", || {
        for (rw, rx) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
            let whole = OS.reserve(&Request::bytes(3 * LEN)).expect("addresses");
            let part = |n: usize| {
                let part = whole.part(n * LEN, LEN, OS.page_size());
                part.expect("whole pages of the reservation")
            };
            let request = DualRequest {
                rw: Target::Into(part(rw)),
                rx: Target::Into(part(rx)),
                ..DualRequest::bytes(LEN)
            };
            // SAFETY: both are parts of what was reserved just now, and nobody uses them.
            let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
            use_all(&mapping);
            unmap_dual(&OS, mapping);
            let mapped = |n: usize| {
                let at = maps::find(part(n).addr()).expect("there is /proc");
                at.is_some()
            };
            let beside = 3 - rw - rx;
            assert!(!mapped(rw) && !mapped(rx), "views at {rw} and {rx}");
            assert!(mapped(beside), "what is beside views at {rw} and {rx}");
            // SAFETY: reserved above, and nobody uses it.
            unsafe { OS.release(part(beside)) }.expect("a whole mapping");
        }
    });
}

#[test]
fn without_proc_memory_files_are_sealed() {
    isolated!("without_proc_memory_files_are_sealed", || {
        if lose_proc().is_none() {
            return;
        }
        expect_sealed_file();
    });
}

#[test]
fn where_nothing_can_be_opened_memory_files_are_sealed() {
    isolated!(
        "where_nothing_can_be_opened_memory_files_are_sealed",
        || {
            if refuse_opening(libc::EACCES).is_none() {
                return;
            }
            expect_sealed_file();
        },
    );
}

#[test]
fn an_allocator_gives_empty_blocks_back_that_cannot_be_purged() {
    let test = "an_allocator_gives_empty_blocks_back_that_cannot_be_purged";
    isolated!(test, || {
        if lose_proc().is_none() {
            return;
        }
        let jit = allocator(OS, JitConfig::new());
        let (live, gone) = (fill(&jit, 1000), fill(&jit, 50_000));
        jit.release(gone).expect("once");
        assert_eq!(jit.decommit_unused(), 0, "nothing of a block in use");
        let before = jit.statistics();
        assert_eq!((before.blocks, before.spans), (1, 1));
        jit.release(live).expect("once");
        assert_eq!(jit.statistics().blocks, 1, "an empty one is kept");
        assert_eq!(jit.decommit_unused(), before.reserved, "all of it");
        assert_eq!(jit.statistics().blocks, 0);
        assert_eq!(jit.decommit_unused(), 0, "there is no more");
        jit.release(fill(&jit, 1000)).expect("it serves again");
    });
}

#[test]
fn one_free_descriptor_is_enough() {
    isolated!("one_free_descriptor_is_enough", || {
        if skip_emulated("takes descriptors for itself") {
            return;
        }
        let limit = libc::rlimit {
            rlim_cur: 64,
            rlim_max: 64,
        };
        // SAFETY: the limit is live, and read only.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        assert_eq!(set, 0, "less can always be asked for");
        let mut open = Vec::with_capacity(64);
        while let Ok(file) = fs::File::open("/dev/null") {
            open.push(file);
        }
        let error = map(&OS, LEN).expect_err("no descriptor is left");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::Exhausted, Some(libc::EMFILE))
        );
        drop(open.pop());
        let sealed = map(&OS, LEN).expect("one is left");
        assert_eq!(sealed.step(), DualStep::Memfd);
        expect_sealed(&sealed);
        drop(open.pop());
        let mapping = map(&OS, LEN).expect("two are left");
        expect_never_writable(&mapping);
        assert!(mapping.purges(), "two are enough for everything");
        unmap_dual(&OS, sealed);
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn without_seals_a_file_with_a_name_serves() {
    isolated!("without_seals_a_file_with_a_name_serves", || {
        if lose_proc().and_then(|()| refuse_seals()).is_none() {
            return;
        }
        let before = fs::read_dir("/dev/shm").expect("it is mounted").count();
        let mapping = map(&OS, LEN).expect("a strategy works");
        assert_eq!(mapping.step(), DualStep::DevShm);
        expect_never_writable(&mapping);
        use_all(&mapping);
        assert!(mapping.purges());
        assert_eq!(purge(&mapping, 0, LEN), Ok(()));
        assert_eq!(refill(&mapping, 0, LEN), Ok(()));
        use_all(&mapping);
        let after = fs::read_dir("/dev/shm").expect("it is mounted").count();
        assert!(after <= before, "the name is gone");
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn what_cannot_be_kept_from_writing_is_not_mapped() {
    isolated!("what_cannot_be_kept_from_writing_is_not_mapped", || {
        if refuse_seals()
            .and_then(|()| refuse_opening(libc::ENOENT))
            .is_none()
        {
            return;
        }
        for len in [4096, LEN] {
            let error = map(&OS, len).expect_err("nothing would keep the promise");
            let steps: Vec<_> = error.steps().map(|(step, e)| (step, e.errno())).collect();
            assert_eq!(steps.len(), 4, "every step was tried: {steps:?}");
            assert_eq!(steps[0], (DualStep::Memfd, Some(libc::ENOENT)));
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
        let auto = allocator(OS, JitConfig::new().mapping(Mapping::Auto));
        let mut span = auto.alloc(CODE_LEN).expect("it is toggled");
        auto.write(&mut span, 0, &code_returning(5)).expect("ours");
        // SAFETY: published just now.
        assert_eq!(unsafe { call(span.rx().as_ptr()) }, 5);
        assert_eq!(auto.mapping().0, Mapping::Toggle);
    });
}

#[test]
fn large_pages_are_sealed_too() {
    let request = DualRequest {
        pages: PageWish::Large {
            bytes: LARGE,
            or_base: false,
        },
        ..DualRequest::bytes(LARGE)
    };
    // The number is set, and restored, by the process that starts this one.
    let start = |mut command| with_huge_pages(1, |_| run(&mut command));
    isolated_by("large_pages_are_sealed_too", start, || {
        if lose_proc().is_none() {
            return;
        }
        // SAFETY: neither target is a range of ours.
        let mapping = unsafe { OS.map_dual(&request) }.expect("there is a page");
        assert_eq!(mapping.step(), DualStep::MemfdLarge);
        expect_sealed(&mapping);
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn a_file_system_without_execution_is_not_filled() {
    isolated!("a_file_system_without_execution_is_not_filled", || {
        let shut = || {
            or_skip(mounts::enter_namespace())?;
            or_skip(mounts::cover("/dev/shm", "tmpfs", "noexec,size=4m"))?;
            // Allocating would be the first to fail.
            refuse(&[libc::SYS_fallocate, libc::SYS_pwrite64], libc::EIO)?;
            refuse(&[libc::SYS_memfd_create], libc::ENOSYS)
        };
        if shut().is_none() {
            return;
        }
        let error = map(&NO_DIRECTORIES, 64 << 20).expect_err("nothing is left");
        let steps: Vec<_> = error.steps().map(|(step, e)| (step, e.errno())).collect();
        let expected = [
            (DualStep::Memfd, Some(libc::ENOSYS)),
            (DualStep::DevShm, Some(libc::EPERM)),
        ];
        assert_eq!(steps, expected);
    });
}

/// Covers `/dev/shm`, and shuts memory files.
fn only_dev_shm(kind: &str, options: &str) -> Option<()> {
    or_skip(mounts::enter_namespace())?;
    or_skip(mounts::cover("/dev/shm", kind, options))?;
    refuse(&[libc::SYS_memfd_create], libc::ENOSYS)
}

#[test]
fn a_full_file_system_is_an_error_and_no_signal() {
    isolated!("a_full_file_system_is_an_error_and_no_signal", || {
        if only_dev_shm("tmpfs", "size=1m").is_none() {
            return;
        }
        let block = 512 << 10;
        let config = JitConfig::new().block_size(block, block).limit(block);
        let jit = allocator(NO_DIRECTORIES, config);
        let (kept, gone) = (fill(&jit, 1000), fill(&jit, 400_000));
        jit.release(gone).expect("once");
        assert!(jit.decommit_unused() >= 390_000);
        let filler = "/dev/shm/filler";
        assert!(fs::write(filler, vec![1; 2 << 20]).is_err(), "it is full");
        let before = jit.statistics();
        for _ in 0..3 {
            let error = jit.alloc(400_000).expect_err("others took the memory");
            let JitError::Map(error) = error else {
                panic!("another error: {error}");
            };
            assert_eq!(error.kind(), ErrorKind::Exhausted);
        }
        assert_eq!(jit.statistics(), before, "nothing changed");
        fs::remove_file(filler).expect("it is there");
        let gone = fill(&jit, 400_000);
        // SAFETY: the span is live, and nobody writes to it.
        let code = unsafe { std::slice::from_raw_parts(kept.rx().as_ptr(), 1000) };
        assert!(code.iter().all(|&byte| byte == 0x90), "live code stays");
        // By the seam itself: reads of what has no memory would be signals as well.
        jit.release(gone).expect("once");
        jit.release(kept).expect("once");
        drop(jit);
        let mapping = map(&NO_DIRECTORIES, block).expect("it is empty again");
        assert!(mapping.purges());
        assert_eq!(purge(&mapping, 0, block), Ok(()));
        assert!(fs::write(filler, vec![1; 2 << 20]).is_err(), "it is full");
        assert_eq!(refill(&mapping, 0, block), Err(ErrorKind::Exhausted));
        let full = map(&NO_DIRECTORIES, block).expect_err("it is full");
        assert_eq!(
            full.steps().last().map(|(_, e)| e.kind()),
            Some(ErrorKind::Exhausted)
        );
        fs::remove_file(filler).expect("it is there");
        assert_eq!(refill(&mapping, 0, block), Ok(()));
        use_all(&mapping);
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn a_file_system_that_cannot_allocate_is_written_to() {
    isolated!("a_file_system_that_cannot_allocate_is_written_to", || {
        if only_dev_shm("ramfs", "").is_none() {
            return;
        }
        let mapping = map(&NO_DIRECTORIES, LEN).expect("a strategy works");
        assert_eq!(mapping.step(), DualStep::DevShm);
        let rx = mapping.rx().addr();
        // Reading maps what is there, and allocates nothing.
        for offset in (0..LEN).step_by(4096) {
            // SAFETY: inside the view, which is readable.
            assert_eq!(unsafe { at(mapping.rx(), offset).read() }, 0);
        }
        let resident = maps::smaps_field(rx, "Rss").expect("/proc is mounted");
        assert_eq!(resident, Some(LEN / 1024), "all of it is there");
        expect_never_writable(&mapping);
        use_all(&mapping);
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn signals_do_not_keep_a_file_from_its_memory() {
    isolated!("signals_do_not_keep_a_file_from_its_memory", || {
        if only_dev_shm("tmpfs", "size=256m").is_none() {
            return;
        }
        extern "C" fn nothing(_: i32) {}
        let handler: extern "C" fn(i32) = nothing;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGALRM, handler as usize) };
        let every = libc::timeval {
            tv_sec: 0,
            tv_usec: 1000,
        };
        let timer = libc::itimerval {
            it_interval: every,
            it_value: every,
        };
        // SAFETY: the timer is live, and read only.
        let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
        assert_eq!(set, 0, "there are timers");
        for _ in 0..10 {
            let mapping = map(&NO_DIRECTORIES, 64 << 20).expect("it is allocated all the same");
            unmap_dual(&OS, mapping);
        }
    });
}

#[test]
fn kernels_that_cannot_refill_do_not_purge_what_can_run_out() {
    let test = "kernels_that_cannot_refill_do_not_purge_what_can_run_out";
    isolated!(test, || {
        let populate = u64::try_from(libc::MADV_POPULATE_WRITE).expect("a small number");
        let refused =
            seccomp::refuse_when(libc::SYS_madvise, 2, 0xffff_ffff, populate, libc::EINVAL);
        if or_skip(refused).is_none() {
            return;
        }
        let mapping = map(&OS, LEN).expect("a strategy works");
        if mapping.step() == DualStep::Memfd && overcommits() {
            assert!(mapping.purges(), "its pages come as they are used");
            use_all(&mapping);
            assert_eq!(purge(&mapping, 0, LEN), Ok(()));
            assert_eq!(refill(&mapping, 0, LEN), Ok(()));
            use_all(&mapping);
        }
        unmap_dual(&OS, mapping);
        if only_dev_shm("tmpfs", "size=8m").is_none() {
            return;
        }
        let mapping = map(&NO_DIRECTORIES, LEN).expect("a strategy works");
        expect_sealed(&mapping);
        unmap_dual(&OS, mapping);
    });
}

/// Says whether memory is not accounted strictly on this host.
fn overcommits() -> bool {
    fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() != "2")
}

#[test]
fn strict_accounting_is_an_error_and_no_signal() {
    if skip_emulated("has its own memory") {
        return;
    }
    // Under these settings any other program of the host may be refused memory.
    if !at_length() {
        return leave_out(
            "it changes how the whole host accounts memory: run it with HOSTMEM_LONG=1",
        );
    }
    // The settings are made, and restored, by the process that starts this one.
    let start = |mut command| strictly(|| run(&mut command));
    isolated_by("strict_accounting_is_an_error_and_no_signal", start, || {
        let block = 512 << 10;
        let config = JitConfig::new().block_size(block, block).limit(block);
        let jit = allocator(OS, config);
        // Metadata and stacks are there once they were used.
        let (kept, gone) = (fill(&jit, 1000), fill(&jit, 200_000));
        let mut fresh = jit.alloc(200_000).expect("there is memory");
        let mapping = map(&OS, LEN).expect("there is memory");
        let bytes = vec![0x90; 200_000];
        jit.release(gone).expect("once");
        assert!(jit.decommit_unused() >= 190_000);
        let before = jit.statistics();

        let starved = Starved::begin();
        let written = jit.write(&mut fresh, 0, &bytes);
        use_all(&mapping);
        let purged = purge(&mapping, 0, LEN / 2);
        let refilled = refill(&mapping, 0, LEN / 2);
        let refused = jit.alloc(200_000);
        let after = jit.statistics();
        // Files on a disk are not charged.
        let mapped = map(&NO_DIRECTORIES, LEN);
        drop(starved);

        assert_eq!(written, Ok(()), "what was mapped has its memory");
        assert_eq!(purged, Ok(()));
        assert_eq!(refilled, Err(ErrorKind::Exhausted));
        let Err(JitError::Map(error)) = refused else {
            panic!("nothing could be charged: {refused:?}");
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(before, after, "nothing changed");
        let error = mapped.expect_err("nothing could be charged");
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(refill(&mapping, 0, LEN / 2), Ok(()));
        use_all(&mapping);
        let again = fill(&jit, 200_000);
        for span in [kept, fresh, again] {
            jit.release(span).expect("once");
        }
        unmap_dual(&OS, mapping);
    });
}

#[test]
fn a_drained_pool_of_large_pages_is_an_error_and_no_signal() {
    let test = "a_drained_pool_of_large_pages_is_an_error_and_no_signal";
    let start = |mut command| {
        let two = with_huge_pages(2, |given| (given == 2).then(|| run(&mut command)))?;
        two.ok_or_else(|| Unavailable::new("having two large pages", "there is one"))
    };
    isolated_by(test, start, || {
        let block = 2 * LARGE;
        let config = JitConfig::new().block_size(block, block).limit(block);
        let config = config.large_pages(LargePages::Align { bytes: LARGE });
        let jit = allocator(OS, config);
        let (kept, gone) = (fill(&jit, 1000), fill(&jit, 3 << 20));
        let page = jit.blocks().next().expect("there is one").page_size;
        assert_eq!(page.bytes(), LARGE, "it is made of large pages");
        jit.release(gone).expect("once");
        assert_eq!(jit.decommit_unused(), LARGE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let taken = unsafe { libc::mmap(ptr::null_mut(), LARGE, access, flags, -1, 0) };
        assert_ne!(taken, libc::MAP_FAILED, "the page went back");
        let before = jit.statistics();
        let error = jit.alloc(3 << 20).expect_err("another has the page");
        let JitError::Map(error) = error else {
            panic!("another error: {error}");
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(jit.statistics(), before, "nothing changed");
        let small = fill(&jit, 1000);
        // SAFETY: mapped above, and not used any more.
        assert_eq!(unsafe { libc::munmap(taken, LARGE) }, 0);
        let again = fill(&jit, 3 << 20);
        for span in [kept, small, again] {
            jit.release(span).expect("once");
        }
    });
}

#[test]
fn readable_memory_that_is_executable_is_told_and_can_be_refused() {
    let test = "readable_memory_that_is_executable_is_told_and_can_be_refused";
    isolated!(test, || {
        let explicit = Capabilities::EXEC_ONLY_WHERE_ASKED;
        let strict = JitConfig::new().strict(true);
        assert!(OS.capabilities().contains(explicit));
        assert_eq!(OS.probe_now().read_implies_exec, Setting::Off);
        allocator(OS, strict);
        // SAFETY: nothing but the accesses of later mappings changes.
        let before = unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) };
        assert!(before >= 0, "it can be set");
        assert!(!OS.capabilities().contains(explicit));
        assert_eq!(OS.probe_now().read_implies_exec, Setting::On);
        let refused = Jit::on(OS, OS, strict);
        assert!(matches!(refused, Err(JitError::Config)));
        let jit = allocator(OS, JitConfig::new());
        let span = fill(&jit, 100);
        let found = maps::find(span.rw().addr().get()).expect("/proc is mounted");
        let perms = found.expect("it is mapped").perms;
        let both = (perms.write, perms.execute);
        assert_eq!(both, (true, true), "which is what is told");
        jit.release(span).expect("once");
        // SAFETY: as above.
        unsafe { libc::personality(before.cast_unsigned().into()) };
        allocator(OS, strict);
        // A question that is refused is no promise.
        if refuse(&[libc::SYS_personality], libc::EPERM).is_none() {
            return;
        }
        assert!(!OS.capabilities().contains(explicit));
        assert_eq!(OS.probe_now().read_implies_exec, Setting::Absent);
    });
}

#[test]
fn a_strict_allocator_is_never_writable_and_executable() {
    // SAFETY: nothing is written there.
    let both = Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() });
    let refused = Jit::on(OS, OS, JitConfig::new().strict(true).mapping(both));
    assert!(matches!(refused, Err(JitError::Config)));
}

/// Starts a child that is traced by this thread, and stops at once.
fn traced_child() -> libc::pid_t {
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a process can be forked");
    if child == 0 {
        // SAFETY: asks to be traced by its parent.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        // SAFETY: stops, for the tracer to look.
        unsafe { libc::raise(libc::SIGSTOP) };
        // SAFETY: _exit has no precondition.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: status is a live int.
    let stopped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(stopped == child && libc::WIFSTOPPED(status), "{status:#x}");
    child
}

/// Writes a word as a debugger writes a breakpoint.
fn poke(child: libc::pid_t, at: *const u8, word: libc::c_long) -> Result<(), Option<i32>> {
    // SAFETY: writes to the memory of the child only.
    let result = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, child, at, word) };
    if result == -1 {
        return Err(io::Error::last_os_error().raw_os_error());
    }
    // SAFETY: reads the memory of the child only.
    let found = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child, at, 0) };
    assert_eq!(found, word, "it was written");
    Ok(())
}

#[test]
fn debuggers_write_into_code_that_is_mapped_once() {
    isolated!("debuggers_write_into_code_that_is_mapped_once", || {
        if skip_emulated("cannot trace") {
            return;
        }
        let dual = allocator(OS, JitConfig::new().fork(Fork::Share));
        let toggled = allocator(OS, JitConfig::new().mapping(Mapping::Toggle));
        let (twice, once) = (fill(&dual, 100), fill(&toggled, 100));
        let child = traced_child();
        let word = 0x0102_0304;
        let into_dual = poke(child, twice.rx().as_ptr(), word);
        let into_rw = poke(child, twice.rw().as_ptr(), word);
        let into_toggled = poke(child, once.rx().as_ptr(), word);
        // SAFETY: ends the child of this test.
        unsafe { libc::kill(child, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: status is a live int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(
            into_dual,
            Err(Some(libc::EIO)),
            "a view that is never writable"
        );
        assert_eq!(into_rw, Ok(()), "the other view is");
        assert_eq!(into_toggled, Ok(()), "private memory is copied for it");
        // SAFETY: the span is live, and no other code writes to it.
        let seen = unsafe { twice.rx().as_ptr().cast::<u32>().read() };
        assert_eq!(seen, 0x0102_0304, "views are shared, with this process too");
        for (jit, span) in [(&dual, twice), (&toggled, once)] {
            jit.release(span).expect("once");
        }
    });
}
