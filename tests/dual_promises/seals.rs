//! The executable view never becomes writable, whatever the kernel lacks.

use super::{
    LARGE, LEN, OS, allocator, at, expect_never_writable, expect_sealed, lose_proc, map, purge,
    refill, refuse, use_all,
};
use crate::common::{CODE_LEN, call, code_returning, skip_emulated, unmap_dual};
use hostmem::{
    jit::{JitConfig, Mapping},
    provider::{DualMapProvider, DualRequest, DualStep, ErrorKind, PageWish},
};
use hostmem_test_support::{
    hugetlb::with_huge_pages,
    isolate::{isolated, isolated_by, or_skip, run, test_path},
    seccomp,
};
use std::fs;

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

#[test]
fn the_executable_view_never_becomes_writable() {
    if skip_emulated("takes no memory from files") {
        return;
    }
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
    isolated_by(&test_path!("large_pages_are_sealed_too"), start, || {
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
