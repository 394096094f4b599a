//! What the program does, step by step.

use crate::{collections, cpu, out::say, region, scenarios, thread::Thread};
use core::{
    ffi::c_void,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, RetireConfig, RetireQueue, Span},
    page::AddressRange,
    provider::{Commit, MapFlags, PageProvider, ProcessMap, Request},
};

pub(crate) const OS: OsProvider = OsProvider::new();

pub(crate) type Jit = JitAllocator<OsProvider, OsProvider, OsLock>;

/// A step that can fail; its number is the exit code.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Probe = 10,
    Image = 11,
    Pages = 12,
    MakeAllocator = 13,
    Generate = 14,
    Run = 15,
    Query = 16,
    Thread = 17,
    Release = 18,
    LeftOver = 19,
    Churn = 20,
    Refusal = 21,
    Near = 22,
    Reset = 23,
    Retire = 24,
    Claim = 25,
    Region = 26,
    LowHeap = 27,
    PrimaryHeap = 28,
    HeapThread = 29,
    HeapBlock = 30,
    HeapLeft = 31,
    Collections = 32,
}

/// Runs all steps.
pub(crate) fn run() -> Result<(), Step> {
    probe()?;
    image_above_4_gib()?;
    pages().ok_or(Step::Pages)?;
    let jit = Jit::on(OS, OS, JitConfig::new()).map_err(|_| Step::MakeAllocator)?;
    let first = generate(&jit, 4242)?;
    let second = generate(&jit, 1717)?;
    for (span, value) in [(&first, 4242), (&second, 1717)] {
        check(call(span) == value, Step::Run)?;
        let inside = span.rx().addr().get() + span.len_bytes() - 1;
        let found = jit.query(inside).is_some_and(|info| info.rx == span.rx());
        check(found, Step::Query)?;
        say!(
            "code at {:p}, written at {:p}: {value}",
            span.rx(),
            span.rw()
        );
    }
    on_a_thread(&first)?;
    retire(&jit, second).ok_or(Step::Retire)?;
    jit.release(first).map_err(|_| Step::Release)?;
    let statistics = jit.statistics();
    check(
        statistics.spans == 0 && statistics.used == 0,
        Step::LeftOver,
    )?;
    say!("{} bytes of metadata", statistics.metadata);
    scenarios::run()?;
    say!("the allocator's scenarios hold");
    region::run()?;
    say!("memory, code and blocks lie in what was claimed");
    collections::run()?;
    say!("collections lie in a region");
    Ok(())
}

pub(crate) fn check(good: bool, step: Step) -> Result<(), Step> {
    if good { Ok(()) } else { Err(step) }
}

fn probe() -> Result<(), Step> {
    let probe = OsProvider::probe();
    say!("pages of {} bytes", probe.page_size.bytes());
    say!("addresses of {} bits", probe.address_bits.unwrap_or(0));
    for (step, works) in probe.dual() {
        match works {
            Ok(()) => say!("dual mapping by {step}: works"),
            Err(error) => say!("dual mapping by {step}: {error}"),
        }
    }
    check(probe.best_dual().is_some(), Step::Probe)
}

/// Looks in the process map for where this very code lies, and for anything of ours below 4 GiB.
fn image_above_4_gib() -> Result<(), Step> {
    let here = run as fn() -> Result<(), Step> as usize;
    let (mut found, mut low) = (false, false);
    let walked = OS.walk(&mut |entry| {
        found |= entry.range.contains(here) && entry.flags.contains(MapFlags::EXEC);
        low |= AddressRange::LOW_4G.contains(entry.range.start());
        true
    });
    say!("this program runs at {here:#x}");
    check(
        walked.is_ok() && found && !low && here >> 32 != 0,
        Step::Image,
    )
}

/// Takes memory through all its states.
fn pages() -> Option<()> {
    let range = OS
        .reserve(&Request::bytes(1 << 20).guards(4096, 4096))
        .ok()?;
    let page = OS.page_size();
    let body = range.part(page.bytes(), 1 << 20, page)?;
    for _ in 0..2 {
        // SAFETY: reserved by this function, and not committed.
        unsafe { OS.commit(body, Commit::READ_WRITE) }.ok()?;
        // SAFETY: committed just now.
        if unsafe { body.start().read() } != 0 {
            return None;
        }
        // SAFETY: committed just now, and writable.
        unsafe { body.start().write_bytes(0xa5, body.len_bytes()) };
        // SAFETY: ours, and not used meanwhile.
        unsafe { OS.decommit(body) }.ok()?;
    }
    // SAFETY: ours, and not used any more.
    unsafe { OS.release(range) }.ok()
}

pub(crate) fn generate(jit: &Jit, value: u32) -> Result<Span, Step> {
    let code = cpu::returning(value);
    let mut span = jit.alloc(code.len()).map_err(|_| Step::Generate)?;
    jit.write(&mut span, 0, &code).map_err(|_| Step::Generate)?;
    Ok(span)
}

pub(crate) fn call(span: &Span) -> u32 {
    // SAFETY: generate put a whole function of this type there.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(span.rx().as_ptr()) };
    function()
}

/// Releases code once this thread says that it does not run it.
fn retire(jit: &Jit, span: Span) -> Option<()> {
    let queue = RetireQueue::<_, _, OsLock>::on(jit, OS, RetireConfig::new()).ok()?;
    let me = queue.register().ok()?;
    queue.retire(span).ok()?;
    let early = queue.reclaim().spans;
    me.quiescent();
    let released = queue.reclaim().spans;
    say!("retired code: {early} spans released before this thread was done, {released} after");
    (early == 0 && released == 1).then_some(())
}

/// What the second thread gets, and where it leaves its answer.
struct Work<'a> {
    span: &'a Span,
    answer: AtomicU32,
}

extern "C" fn second_thread(work: *mut c_void) {
    // SAFETY: on_a_thread passes a Work and waits until the thread is gone.
    let work = unsafe { &*work.cast::<Work<'_>>() };
    work.answer.store(call(work.span), Ordering::Relaxed);
}

/// Runs generated code on a second thread.
fn on_a_thread(span: &Span) -> Result<(), Step> {
    let work = Work {
        span,
        answer: AtomicU32::new(0),
    };
    let argument = NonNull::from(&work).as_ptr().cast();
    // SAFETY: work lives until the thread is gone, and may be used by any.
    let thread = unsafe { Thread::start(OS, second_thread, argument) };
    let thread = thread.ok_or(Step::Thread)?;
    let number = thread.number();
    thread.join().ok_or(Step::Thread)?;
    say!("thread {number} ran it too");
    check(work.answer.load(Ordering::Relaxed) == 4242, Step::Thread)
}
