//! Spans with numbers: stale copies of them are refused.

use super::Jit;
use hostmem::{
    jit::{Barrier, JitConfig, JitError, Reset, Span, Words},
    provider::Placement,
};
use std::thread;

/// Takes a span's name, as a program keeps it that copies names.
fn named(jit: &Jit, span: &Span) -> (usize, u32) {
    let number = jit.number(span).expect("it is the allocator's");
    assert_ne!(number, 0);
    (span.rx().addr().get(), number)
}

/// A copy of what names a span is of no use once the span was released, whatever has its memory.
#[test]
fn stale_copies_of_numbered_spans_are_refused() {
    for words in [Words::None, Words::Bits64] {
        let jit: Jit =
            Jit::new(JitConfig::new().numbers(true).words(words)).expect("it can be made");
        let span = jit.alloc(100).expect("there is memory");
        let (rx, first) = named(&jit, &span);
        assert_eq!(
            jit.query_tagged(rx + 5).map(|live| live.number),
            Some(first)
        );
        // SAFETY: the token is not used any more.
        let token = unsafe { jit.span_at(rx, first) }.expect("it is live");
        assert_eq!(token.info(), span.info());
        for number in [0, first + 1, first.wrapping_sub(1)] {
            // SAFETY: there is no such span.
            let refused = unsafe { jit.release_numbered(rx, number) };
            assert_eq!(refused, Err(JitError::NotLive));
        }
        // SAFETY: no span starts there.
        let inside = unsafe { jit.release_numbered(rx + 64, first) };
        assert_eq!(inside, Err(JitError::Interior));
        // SAFETY: no span starts there.
        let foreign = unsafe { jit.release_numbered(0x1000, first) };
        assert_eq!(foreign, Err(JitError::NotOwned));
        // SAFETY: no token is used any more.
        let mut taken = unsafe { jit.take_numbered(rx, first) }.expect("it is live");
        assert_eq!(jit.number(&taken), Ok(0));
        // SAFETY: its number is gone.
        let twice = unsafe { jit.take_numbered(rx, first) }.map(|_| ());
        assert_eq!(twice, Err(JitError::NotLive));
        // SAFETY: zero is no number: it is refused.
        let nameless = unsafe { jit.span_at(rx, 0) }.map(|_| ());
        assert_eq!(nameless, Err(JitError::NotLive));
        // SAFETY: zero is no number: it is refused.
        let unnumbered = unsafe { jit.release_numbered(rx, 0) };
        assert_eq!(unnumbered, Err(JitError::NotLive));
        jit.shrink(&mut taken, 10).expect("it becomes shorter");
        jit.set_number(&taken, first)
            .expect("it has its number again");
        // SAFETY: no token is used any more.
        unsafe { jit.release_numbered(rx, first) }.expect("it is live");
        // SAFETY: it is not live any more.
        let again = unsafe { jit.release_numbered(rx, first) };
        assert_eq!(again, Err(JitError::NotLive));
        // Another span has its memory, and its length.
        let mut others = Vec::new();
        let second = loop {
            let other = jit.alloc(64).expect("there is memory");
            if other.rx().addr().get() == rx {
                break other;
            }
            others.push(other);
        };
        let (_, number) = named(&jit, &second);
        assert_ne!(number, first);
        // SAFETY: the first span is not live any more.
        let stale = unsafe { jit.span_at(rx, first) }.map(|_| ());
        assert_eq!(stale, Err(JitError::NotLive));
        // SAFETY: the first span is not live any more.
        let stale = unsafe { jit.release_numbered(rx, first) };
        assert_eq!(stale, Err(JitError::NotLive));
        // SAFETY: the first span is not live any more.
        let stale = unsafe { jit.take_numbered(rx, first) }.map(|_| ());
        assert_eq!(stale, Err(JitError::NotLive));
        // SAFETY: no other code uses a span.
        unsafe { jit.reset(Reset::Keep) };
        // SAFETY: no span is live.
        let stale = unsafe { jit.span_at(rx, number) }.map(|_| ());
        assert_eq!(stale, Err(JitError::NotLive));
        let third = jit.alloc(64).expect("there is memory");
        assert!(jit.number(&third).expect("it is live") > number);
    }
    let jit: Jit = Jit::new(JitConfig::new()).expect("it can be made");
    let span = jit.alloc(100).expect("there is memory");
    assert_eq!(jit.number(&span), Ok(0));
    // SAFETY: spans have no number.
    let untagged = unsafe { jit.span_at(span.rx().addr().get(), 0) }.map(|_| ());
    assert_eq!(untagged, Err(JitError::Untagged));
}

/// A program that has names alone allocates, writes and patches by them.
#[test]
fn spans_are_allocated_written_and_patched_by_their_numbers() {
    let jit: Jit = Jit::new(JitConfig::new().numbers(true)).expect("it can be made");
    let first = jit.alloc_numbered(100).expect("there is memory");
    let anywhere = jit.alloc_numbered_with(100, Placement::ANYWHERE);
    let second = anywhere.expect("there is memory");
    assert_ne!(first.number, second.number);
    let unplaced = jit.alloc_numbered_at(64, 64).map(|_| ());
    assert_eq!(unplaced, Err(JitError::InvalidPlacement));
    let at = first.info.rx.addr().get();
    let write = |name, offset, bytes: &[u8]| {
        // SAFETY: the span is this test's, if it is live, and nothing else uses it.
        unsafe { jit.write_numbered(name, offset, bytes, Some(Barrier::Never)) }
    };
    let patch = |name, offset, value: u32| {
        // SAFETY: the span is this test's, if it is live, and nothing else uses it.
        unsafe { jit.patch_numbered(name, offset, value, Barrier::Now) }
    };
    assert_eq!(write((at, first.number), 96, &[1; 32]), Ok(()));
    assert_eq!(patch((at, first.number), 100, 0x0505_0505), Ok(()));
    let byte = |offset| {
        // SAFETY: inside the span, which is live.
        let byte = unsafe { first.info.rw.add(offset) };
        // SAFETY: the view is mapped, and nothing writes to it meanwhile.
        unsafe { byte.read() }
    };
    assert_eq!([99, 100, 103, 104].map(byte), [1, 5, 5, 1]);
    assert_eq!(
        write((at, first.number), 97, &[1; 32]),
        Err(JitError::OutOfBounds)
    );
    assert_eq!(patch((at, first.number), 2, 0), Err(JitError::OutOfBounds));
    for (name, error) in [
        ((at, second.number), JitError::NotLive),
        ((at, 0), JitError::NotLive),
        ((at + 64, first.number), JitError::Interior),
        ((0x1000, first.number), JitError::NotOwned),
    ] {
        assert_eq!(write(name, 0, &[1]), Err(error));
        assert_eq!(patch(name, 0, 0), Err(error));
    }
    // SAFETY: nothing uses the span any more.
    unsafe { jit.release_numbered(at, first.number) }.expect("it is live");
    assert_eq!(write((at, first.number), 0, &[1]), Err(JitError::NotLive));
    assert_eq!(patch((at, first.number), 0, 0), Err(JitError::NotLive));
    assert_eq!(jit.statistics().spans, 1);
}

/// Of threads that release one span by copies of its name, one succeeds.
#[test]
fn one_of_several_releases_of_a_numbered_span_succeeds() {
    let jit: Jit = Jit::new(JitConfig::new().numbers(true)).expect("it can be made");
    for _ in 0..1000 {
        let (rx, number) = named(&jit, &jit.alloc(100).expect("there is memory"));
        let released = thread::scope(|scope| {
            let release = || {
                // SAFETY: no token is used any more.
                let result = unsafe { jit.release_numbered(rx, number) };
                // What is allocated meanwhile may lie there.
                (result.is_ok(), jit.alloc(100).expect("there is memory"))
            };
            let take = || {
                // SAFETY: no token is used any more.
                let taken = unsafe { jit.take_numbered(rx, number) };
                let is_taken = taken.is_ok();
                if let Ok(span) = taken {
                    jit.release(span).expect("it is this thread's");
                }
                (is_taken, jit.alloc(100).expect("there is memory"))
            };
            let threads = [
                scope.spawn(release),
                scope.spawn(release),
                scope.spawn(take),
            ];
            threads.map(|thread| thread.join().expect("it does not panic"))
        });
        let count = released.iter().filter(|(ok, _)| *ok).count();
        assert_eq!(count, 1);
        for (_, span) in released {
            jit.release(span).expect("it is live");
        }
    }
    assert_eq!(jit.statistics().spans, 0);
}
