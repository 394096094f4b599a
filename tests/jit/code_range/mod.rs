//! Code ranges: every way to map them, from the bottom and from the top, purged, cut, left in the
//! middle of a write; in forked children (`fork`), and where calls fail (`simulated`).

mod fork;
#[cfg(feature = "sim")]
mod simulated;

use crate::{
    code::OS,
    common::{CODE_LEN, call, code_returning, skip_emulated},
};
use hostmem::{
    CodeRange, CodeRangeConfig,
    jit::{Barrier, JitError, Mapping},
    page::{AddressRange, RwxOptIn},
    provider::{ErrorKind, Fork, PageProvider, PageWish, Place, Placement, Purged, Request},
};
use hostmem_test_support::{fault::faults, isolate::isolated};

fn page() -> usize {
    OS.page_size().bytes()
}

fn mappings() -> [Mapping; 4] {
    // SAFETY: the tests alone write there.
    let opt_in = unsafe { RwxOptIn::accept() };
    [
        Mapping::Dual,
        Mapping::Toggle,
        Mapping::Auto,
        Mapping::ReadWriteExec(opt_in),
    ]
}

fn range(config: CodeRangeConfig) -> CodeRange {
    CodeRange::new(config).expect("a mapping of this kind")
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("a small number")
}

fn run(code: &CodeRange, offset: usize) -> u32 {
    let rx = code.rx().as_ptr().wrapping_add(offset);
    // SAFETY: the tests run what they wrote there: such a function.
    unsafe { call(rx) }
}

#[test]
fn code_is_written_from_the_bottom_and_from_the_top() {
    for mapping in mappings() {
        let mut code = range(CodeRangeConfig::new(10 * page() + 1).mapping(mapping));
        let len = code.len_bytes();
        assert_eq!(len, 11 * page(), "rounded up");
        for n in 0..2000 {
            let (low, high) = (n as usize * CODE_LEN, len - (n as usize + 1) * CODE_LEN);
            code.write(low, &code_returning(n)).expect("within");
            code.write(high, &code_returning(30_000 + n))
                .expect("within");
            assert_eq!(
                (run(&code, low), run(&code, high)),
                (n, 30_000 + n),
                "{mapping:?}"
            );
        }
        assert_eq!(run(&code, 0), 0, "{mapping:?}");
        // What lies outside is refused, and the last byte is not.
        let one = code.write(len - 1, &[0xcc]);
        assert_eq!(one, Ok(()));
        for (offset, bytes) in [(len - 1, 2), (len, 1), (usize::MAX, 2)] {
            let refused = code.write(offset, &[0xcc; 2][..bytes]);
            assert_eq!(refused, Err(JitError::OutOfBounds), "{offset}");
        }
        assert_eq!(code.write(len, &[]), Ok(()));
        let backwards = core::ops::Range { start: 2, end: 1 };
        assert_eq!(
            code.publish(backwards, Barrier::Now),
            Err(JitError::OutOfBounds)
        );
    }
}

#[test]
fn an_address_in_either_view_has_an_offset() {
    for mapping in mappings() {
        let code = range(CodeRangeConfig::new(4 * page()).mapping(mapping).guard(1));
        let (rx, rw, len) = (
            code.rx().addr().get(),
            code.rw().addr().get(),
            code.len_bytes(),
        );
        for start in [rx, rw] {
            assert_eq!(code.offset_of(start), Some(0));
            assert_eq!(code.offset_of(start + len - 1), Some(len - 1));
        }
        assert_eq!(
            (code.offset_of(rx - 1), code.offset_of(rx + len)),
            (None, None)
        );
        assert_eq!(rx == rw, code.mapping() != Mapping::Dual);
    }
}

#[test]
fn pages_get_memory_when_they_are_written() {
    isolated!("pages_get_memory_when_they_are_written", || {
        for mapping in [Mapping::Dual, Mapping::Toggle] {
            let before = resident();
            let mut code = range(CodeRangeConfig::new(2 << 30).mapping(mapping));
            code.write(1 << 30, &code_returning(5)).expect("memory");
            assert_eq!(run(&code, 1 << 30), 5);
            let more = resident().saturating_sub(before);
            assert!(more < 4 << 20, "{mapping:?}: {more} bytes more");
        }
    });
}

/// Bytes of the process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.expect("the second number") * page()
}

#[test]
fn guards_are_inaccessible_and_go_with_the_range() {
    isolated!("guards_are_inaccessible_and_go_with_the_range", || {
        for mapping in mappings() {
            let config = CodeRangeConfig::new(2 * page())
                .mapping(mapping)
                .guard(page() + 1);
            let code = range(config);
            let (rx, len) = (code.rx().as_ptr(), code.len_bytes());
            let guard = 2 * page();
            for at in [
                rx.wrapping_sub(1),
                rx.wrapping_sub(guard),
                rx.wrapping_add(len),
            ] {
                // SAFETY: it is to fault, in a process that dies of it.
                let fault = faults(|| unsafe { at.write_volatile(1) });
                assert!(fault.is_some(), "{mapping:?}");
            }
            let whole = AddressRange::from_len(rx.addr() - guard, len + 2 * guard);
            let whole = whole.expect("it does not wrap");
            assert!(is_taken(whole));
            drop(code);
            assert!(!is_taken(whole), "{mapping:?}");
        }
    });
}

/// Says whether some page of a range is in use.
fn is_taken(range: AddressRange) -> bool {
    let len = range.last() - range.start() + 1;
    let request = Request::bytes(len).place(Place::Exact(range.start()));
    match OS.reserve(&request) {
        Ok(reserved) => {
            // SAFETY: reserved just now.
            unsafe { OS.release(reserved) }.expect("a whole reservation");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Taken);
            true
        }
    }
}

#[test]
fn a_writer_that_is_left_does_not_stay_writable() {
    for mapping in mappings() {
        let mut code = range(CodeRangeConfig::new(8 * page()).mapping(mapping));
        code.write(0, &code_returning(1)).expect("memory");
        // As if by longjmp: no end_write answers it.
        // SAFETY: this thread alone uses the range.
        let rw = unsafe { code.begin_write(0..CODE_LEN) }.expect("within");
        // SAFETY: as many bytes can be written there.
        unsafe { rw.cast().write(code_returning(2)) };
        let elsewhere = 5 * page();
        code.write(elsewhere, &code_returning(3)).expect("memory");
        code.publish(0..CODE_LEN, Barrier::Now).expect("a barrier");
        assert_eq!(
            (run(&code, 0), run(&code, elsewhere)),
            (2, 3),
            "{mapping:?}"
        );
        // And by the end of a write, wherever that one was.
        // SAFETY: this thread alone uses the range.
        unsafe { code.begin_write(0..1) }.expect("within");
        // SAFETY: as above.
        unsafe { code.end_write(elsewhere..elsewhere + 1) }.expect("pages of ours");
        assert_eq!(run(&code, 0), 2, "{mapping:?}");
        // Also where a part of what was being written goes.
        code.write(3 * page(), &code_returning(4)).expect("memory");
        // SAFETY: this thread alone uses the range.
        unsafe { code.begin_write(2 * page()..6 * page()) }.expect("within");
        // SAFETY: this thread alone uses the range.
        unsafe { code.shrink(3 * page()..4 * page()) }.expect("both ends go");
        // SAFETY: this thread alone uses the range.
        unsafe { code.end_write(0..1) }.expect("pages of ours");
        assert_eq!(run(&code, 0), 4, "{mapping:?}");
    }
}

#[test]
fn purged_pages_are_written_again() {
    if skip_emulated("takes no memory from files") {
        return;
    }
    for mapping in mappings() {
        let mut code = range(CodeRangeConfig::new(64 * page()).mapping(mapping));
        for n in 0..64 {
            code.write(n * page(), &code_returning(number(n)))
                .expect("memory");
        }
        let refused = [1..page(), 0..page() + 1, 63 * page()..65 * page()];
        for part in refused {
            // SAFETY: nothing runs there; it is refused.
            let purged = unsafe { code.purge(part) };
            assert_eq!(
                purged.map_err(|e| e.kind()),
                Err(ErrorKind::InvalidArgument)
            );
        }
        // SAFETY: no other thread uses the range.
        let purged = unsafe { code.purge(8 * page()..56 * page()) };
        assert_eq!(purged, Ok(Purged::Zero), "{mapping:?}");
        assert_eq!((run(&code, 7 * page()), run(&code, 56 * page())), (7, 56));
        // From both ends, and in the middle.
        for n in [8, 55, 30, 31, 9, 54] {
            code.write(n * page() + 64, &code_returning(1000 + number(n)))
                .expect("memory");
            assert_eq!(run(&code, n * page() + 64), 1000 + number(n), "{mapping:?}");
            let start = code.rx().as_ptr().wrapping_add(n * page());
            assert_eq!(
                // SAFETY: the page can be read, and has memory.
                unsafe { start.read_volatile() },
                0,
                "{mapping:?}: the old code is gone"
            );
        }
    }
}

#[test]
fn both_ends_are_given_back() {
    isolated!("both_ends_are_given_back", || {
        for (mapping, guard) in mappings()
            .into_iter()
            .flat_map(|m| [(m, 0), (m, 3 * page())])
        {
            let config = CodeRangeConfig::new(32 * page())
                .mapping(mapping)
                .guard(guard);
            let mut code = range(config);
            for n in 0..32 {
                code.write(n * page(), &code_returning(number(n)))
                    .expect("memory");
            }
            let refused = [1..page(), 0..0, 0..33 * page(), 0..page() + 8];
            for kept in refused {
                // SAFETY: it is refused.
                let shrunk = unsafe { code.shrink(kept) };
                assert_eq!(
                    shrunk.map_err(|e| e.kind()),
                    Err(ErrorKind::InvalidArgument)
                );
            }
            let (rx, rw) = (code.rx().addr().get(), code.rw().addr().get());
            // SAFETY: no other thread uses the range.
            unsafe { code.shrink(8 * page()..24 * page()) }.expect("parts go");
            assert_eq!(code.len_bytes(), 16 * page());
            assert_eq!(code.rx().addr().get(), rx + 8 * page());
            for n in 0..16 {
                assert_eq!(run(&code, n * page()), number(n) + 8, "{mapping:?}");
            }
            code.write(0, &code_returning(77)).expect("it is whole");
            code.write(16 * page() - CODE_LEN, &code_returning(78))
                .expect("it is whole");
            assert_eq!(
                (run(&code, 0), run(&code, 16 * page() - CODE_LEN)),
                (77, 78)
            );
            let pages = |from: usize, pages: usize| {
                AddressRange::from_len(from, pages * page()).expect("it does not wrap")
            };
            let guards = guard / page();
            if rx != rw {
                assert!(!is_taken(pages(rw, 8)) && !is_taken(pages(rw + 24 * page(), 8)));
            }
            let before = rx - guard;
            assert!(!is_taken(pages(before, 8)), "{mapping:?}, {guard}");
            assert!(
                !is_taken(pages(rx + 24 * page() + guard, 8)),
                "{mapping:?}, {guard}"
            );
            for n in 0..guards {
                assert!(
                    is_taken(pages(rx + (8 - 1 - n) * page(), 1)),
                    "a guard lies there"
                );
                assert!(
                    is_taken(pages(rx + (24 + n) * page(), 1)),
                    "a guard lies there"
                );
            }
            // Once more, to one page.
            // SAFETY: no other thread uses the range.
            unsafe { code.shrink(4 * page()..5 * page()) }.expect("parts go");
            assert_eq!(run(&code, 0), 12);
            drop(code);
            assert!(
                !is_taken(pages(before, 32 + 2 * guards)),
                "{mapping:?}, {guard}"
            );
        }
    });
}

#[test]
fn placements_are_kept_and_settings_checked() {
    let anchor = run as *const () as usize;
    let near = Placement::near(anchor, 1 << 31);
    for mapping in mappings() {
        let config = CodeRangeConfig::new(1 << 20)
            .mapping(mapping)
            .placement(near)
            .guard(page());
        let code = range(config);
        assert!(code.rx().addr().get().abs_diff(anchor) <= 1 << 31);
        let low = CodeRangeConfig::new(page())
            .mapping(mapping)
            .within(AddressRange::LOW_4G);
        assert!(range(low).rx().addr().get() < 1 << 32);
    }
    let wrong = [
        ("len", CodeRangeConfig::new(0)),
        ("len", CodeRangeConfig::new((1 << 31) + 1)),
        ("fork", CodeRangeConfig::new(1).fork(Fork::Detach)),
        ("guard", CodeRangeConfig::new(1).guard(usize::MAX)),
    ];
    for (setting, config) in wrong {
        let error = config.check().expect_err("out of range");
        assert_eq!(error.setting(), setting);
        assert_eq!(CodeRange::new(config).err(), Some(JitError::Config(error)));
    }
    // Pages that the host may not have are a wish.
    let pages = PageWish::Large {
        bytes: 2 << 20,
        or_base: true,
    };
    let mut code = range(CodeRangeConfig::new(1 << 20).pages(pages));
    code.write(0, &code_returning(9)).expect("memory");
    assert_eq!(run(&code, 0), 9);
}
