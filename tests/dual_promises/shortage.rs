//! Memory that cannot be had is an error, and no signal.

use super::{
    LARGE, LEN, NO_DIRECTORIES, OS, allocator, at, expect_never_writable, expect_sealed, fill,
    lose_proc, map, purge, refill, refuse, use_all,
};
use crate::common::{at_length, skip_emulated, unmap_dual};
use core::{iter, ptr};
use hostmem::{
    jit::{JitConfig, JitError, LargePages},
    provider::{DualStep, ErrorKind},
};
use hostmem_test_support::{
    Unavailable,
    hugetlb::with_huge_pages,
    isolate::{isolated, isolated_by, leave_out, or_skip, run, test_path},
    maps, mounts,
    overcommit::{Starved, strictly},
    seccomp,
};
use std::fs;

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
        // SAFETY: the span is live, and no other code writes to it.
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
    isolated_by(
        &test_path!("strict_accounting_is_an_error_and_no_signal"),
        start,
        || {
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
        },
    );
}

/// Maps a large page of the pool, or nothing if there is none.
fn take_large_page() -> Option<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), LARGE, access, flags, -1, 0) };
    (page != libc::MAP_FAILED).then_some(page)
}

#[test]
fn a_drained_pool_of_large_pages_is_an_error_and_no_signal() {
    if skip_emulated("takes no memory from files") {
        return;
    }
    let test = "a_drained_pool_of_large_pages_is_an_error_and_no_signal";
    let start = |mut command| {
        let two = with_huge_pages(2, |given| (given == 2).then(|| run(&mut command)))?;
        two.ok_or_else(|| Unavailable::new("having two large pages", "there is one"))
    };
    isolated_by(&test_path!(test), start, || {
        let block = 2 * LARGE;
        let config = JitConfig::new().block_size(block, block).limit(block);
        let config = config.large_pages(LargePages::Align { bytes: LARGE });
        let jit = allocator(OS, config);
        let (kept, gone) = (fill(&jit, 1000), fill(&jit, 3 << 20));
        let page = jit.blocks().next().expect("there is one").page_size;
        assert_eq!(page.bytes(), LARGE, "it is made of large pages");
        jit.release(gone).expect("once");
        let mut taken = Vec::new();
        // Another process may give a page back that it took for a moment.
        let (before, error) = loop {
            assert_eq!(jit.decommit_unused(), LARGE);
            taken.extend(iter::from_fn(take_large_page));
            let before = jit.statistics();
            match jit.alloc(3 << 20) {
                Err(error) => break (before, error),
                Ok(span) => jit.release(span).expect("once"),
            }
        };
        let JitError::Map(error) = error else {
            panic!("another error: {error}");
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(jit.statistics(), before, "nothing changed");
        let small = fill(&jit, 1000);
        for page in taken {
            // SAFETY: mapped above, and not used any more.
            assert_eq!(unsafe { libc::munmap(page, LARGE) }, 0);
        }
        let again = fill(&jit, 3 << 20);
        for span in [kept, small, again] {
            jit.release(span).expect("once");
        }
    });
}
