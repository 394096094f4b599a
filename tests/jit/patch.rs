//! Code that is patched while another thread runs it, by whole words and by halves.

use crate::{
    code::{Jit, allocator},
    common::{at_length, emulated, threads::Patience},
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hostmem::jit::{Barrier, JitConfig, JitError, Mapping, Span};
use hostmem_test_support::isolate::{isolated, test_path};
use std::thread;

/// Where the patched instruction is, and its size.
const OFFSET: usize = 8;

/// Functions whose patched instruction sets the result, which differs in both halves.
const RESULTS: [u32; 2] = [0x1111_1111, 0x2222_2222];

/// On x86-64, `mov eax, imm32` whose operand is the aligned word at [`OFFSET`]; on AArch64 a branch
/// there to one of two functions behind.
fn function() -> [u8; 64] {
    let mut code = [0xcc; 64];
    if cfg!(target_arch = "x86_64") {
        code[..7].fill(0x90);
        code[7] = 0xb8;
        code[OFFSET..OFFSET + 4].copy_from_slice(&RESULTS[0].to_le_bytes());
        code[OFFSET + 4] = 0xc3;
    } else {
        let mut put = |at: usize, instruction: u32| {
            code[at..at + 4].copy_from_slice(&instruction.to_le_bytes());
        };
        put(0, 0xd503_201f); // nop
        put(4, 0xd503_201f);
        put(OFFSET, word(0));
        for (n, result) in RESULTS.into_iter().enumerate() {
            let at = 16 + 16 * n;
            put(at, 0x5280_0000 | (result & 0xffff) << 5); // movz w0, low
            put(at + 4, 0x72a0_0000 | (result >> 16) << 5); // movk w0, high, lsl 16
            put(at + 8, 0xd65f_03c0); // ret
        }
    }
    code
}

/// The word at [`OFFSET`] that makes the function return the nth result.
fn word(n: usize) -> u32 {
    if cfg!(target_arch = "x86_64") {
        RESULTS[n]
    } else {
        let distance = u32::try_from(16 + 16 * n - OFFSET).expect("short") / 4;
        0x1400_0000 | distance // b
    }
}

fn place(jit: &Jit) -> Span {
    let code = function();
    let mut span = jit.alloc(code.len()).expect("memory");
    jit.write(&mut span, 0, &code).expect("ours");
    span
}

fn run(span: &Span) -> u32 {
    // SAFETY: the callers wrote such a function to the start of the span.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(span.rx().as_ptr()) };
    function()
}

/// Patches `patches` times while another thread runs the function; returns how many of its runs
/// returned neither result, once it has seen both. Runs on until then, and for `patience`.
fn race(patches: u64, patch: impl Fn(usize, &Span, &Jit)) -> (u64, u64) {
    let jit = allocator(JitConfig::new());
    let span = place(&jit);
    let done = AtomicBool::new(false);
    let (seen, runs, wrong) = (
        [AtomicU64::new(0), AtomicU64::new(0)],
        AtomicU64::new(0),
        AtomicU64::new(0),
    );
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let result = run(&span);
                match RESULTS.iter().position(|r| *r == result) {
                    Some(n) => seen[n].fetch_add(1, Ordering::Relaxed),
                    None => wrong.fetch_add(1, Ordering::Relaxed),
                };
                runs.fetch_add(1, Ordering::Relaxed);
            }
        });
        let patience = Patience::new();
        let both = || seen.iter().all(|n| n.load(Ordering::Relaxed) != 0);
        let mut n = 0_u64;
        while n < patches || !both() {
            patch(usize::from(n.is_multiple_of(2)), &span, &jit);
            n += 1;
            if n >= patches {
                patience.check("both results");
                thread::yield_now();
            }
        }
        // The last one is seen by whoever runs the code from now on, as there is a barrier.
        jit.patch_u32(&span, OFFSET, word(1), Barrier::Now)
            .expect("ours");
        let before = seen[0].load(Ordering::Relaxed);
        let start = runs.load(Ordering::Relaxed);
        while runs.load(Ordering::Relaxed) < start + 1000 {
            patience.check("more runs");
            thread::yield_now();
        }
        // One run may have begun before.
        assert!(
            seen[0].load(Ordering::Relaxed) <= before + 1,
            "an old instruction ran"
        );
        done.store(true, Ordering::Relaxed);
    });
    (runs.into_inner(), wrong.into_inner())
}

/// How often code is patched: 10^7 times at full length.
fn patches() -> u64 {
    match (at_length(), emulated()) {
        (true, _) => 10_000_000,
        (false, false) => 1_000_000,
        (false, true) => 20_000,
    }
}

#[test]
fn code_is_patched_while_another_thread_runs_it() {
    isolated!("code_is_patched_while_another_thread_runs_it", || {
        for (part, barrier) in [
            (1, Barrier::Never),
            (10, Barrier::Deferred),
            (100, Barrier::Now),
        ] {
            let (runs, wrong) = race(patches() / part, |n, span, jit| {
                let patched = jit.patch_u32(span, OFFSET, word(n), barrier);
                patched.expect("ours");
            });
            assert_eq!(wrong, 0, "of {runs} runs, {barrier:?}");
        }
        // By address, in batches.
        let (runs, wrong) = race(patches() / 100, |n, span, jit| {
            let mut batch = jit.batch();
            // SAFETY: the span is live throughout, and written by patches only.
            let patched = unsafe { batch.patch_at(span.rx().addr().get() + OFFSET, word(n)) };
            patched.expect("ours");
            batch.finish().expect("cores can be synchronized");
        });
        assert_eq!(wrong, 0, "of {runs} runs, by batches");
    });
}

/// The same by two stores of half a word each: the one thing that is done otherwise, so that a test
/// that sees nothing here would see nothing at all.
#[test]
fn code_that_is_patched_by_halves_is_seen_half_patched() {
    isolated!(
        "code_that_is_patched_by_halves_is_seen_half_patched",
        || {
            if cfg!(not(target_arch = "x86_64")) || emulated() {
                // Half a branch is no instruction to be run, and an emulator translates whole
                // blocks.
                return hostmem_test_support::isolate::skip("half an operand needs x86-64");
            }
            let patience = Patience::new();
            loop {
                let (_, wrong) = race(100_000, |n, span, _| {
                    let halves = word(n).to_le_bytes();
                    for half in [0, 2] {
                        // SAFETY: inside the span, which no other thread writes.
                        let at = unsafe { span.rw().add(OFFSET + half) };
                        let value = u16::from_le_bytes([halves[half], halves[half + 1]]);
                        // SAFETY: inside the span, which no other thread writes; aligned for this
                        // access.
                        unsafe { at.cast::<u16>().write_volatile(value) };
                    }
                });
                if wrong != 0 {
                    return;
                }
                patience.check("half a word");
            }
        },
    );
}

#[test]
fn patches_are_bounded_aligned_and_owned() {
    for mapping in [Mapping::Dual, Mapping::Toggle] {
        let (jit, other) = (
            allocator(JitConfig::new().mapping(mapping)),
            allocator(JitConfig::new().mapping(mapping)),
        );
        let span = place(&jit);
        let rx = span.rx().addr().get();
        for offset in [1, 2, 3, 61, 64, 68, usize::MAX, usize::MAX - 3] {
            let patched = jit.patch_u32(&span, offset, 1, Barrier::Now);
            assert_eq!(patched, Err(JitError::OutOfBounds), "{offset}");
        }
        for offset in [4, 60, 64, usize::MAX - 7] {
            let patched = jit.patch_u64(&span, offset, 1, Barrier::Never);
            assert_eq!(patched, Err(JitError::OutOfBounds), "{offset}");
        }
        let patched = other.patch_u32(&span, 0, 1, Barrier::Now);
        assert_eq!(patched, Err(JitError::NotOwned));
        for (jit, at, error) in [
            (&jit, rx + 2, JitError::OutOfBounds),
            (&jit, rx - 64, JitError::NotLive),
            (&other, rx, JitError::NotOwned),
        ] {
            // SAFETY: the span is live, and written by patches only.
            let patched = unsafe { jit.patch_at(at, 1_u32, Barrier::Now) };
            assert_eq!(patched, Err(error), "{at:#x}");
        }
        assert_eq!(run(&span), RESULTS[0], "nothing changed");
        jit.patch_u32(&span, OFFSET, word(1), Barrier::Now)
            .expect("ours");
        assert_eq!(run(&span), RESULTS[1]);
        // Both words of eight bytes.
        let code = function();
        let mut eight = [0; 8];
        eight.copy_from_slice(&code[OFFSET..OFFSET + 8]);
        // SAFETY: the span is live, and written by patches only.
        unsafe { jit.patch_at(rx + OFFSET, u64::from_ne_bytes(eight), Barrier::Deferred) }
            .expect("ours");
        jit.publish().expect("cores can be synchronized");
        assert_eq!(run(&span), RESULTS[0]);
        // In batches: by the token, by address, and whole bytes by address.
        let mut batch = jit.batch();
        batch.patch(&span, OFFSET, word(1)).expect("ours");
        // SAFETY: the span is live until the batch ends.
        unsafe { batch.write_at(rx, 48, &[7; 16]) }.expect("ours");
        // SAFETY: the span is live until the batch ends.
        let outside = unsafe { batch.write_at(rx, 60, &[7; 16]) };
        assert_eq!(outside, Err(JitError::OutOfBounds));
        batch.finish().expect("cores can be synchronized");
        assert_eq!(run(&span), RESULTS[1]);
        jit.release(span).expect("once");
    }
}

/// Says to this program that it runs under valgrind.
const UNDER_VALGRIND: &str = "HOSTMEM_UNDER_VALGRIND";

#[test]
fn valgrind_runs_what_was_written_last() {
    let test = test_path!("valgrind_runs_what_was_written_last");
    if std::env::var_os(UNDER_VALGRIND).is_some() {
        return rewrite();
    }
    if emulated() {
        return hostmem_test_support::isolate::skip("valgrind under an emulator");
    }
    let program = std::env::current_exe().expect("it is running");
    let output = std::process::Command::new("valgrind")
        .args(["--tool=none", "--quiet"])
        .arg(program)
        .args(["--exact", &test, "--nocapture"])
        .env(UNDER_VALGRIND, "1")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return hostmem_test_support::isolate::skip(format!("valgrind: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("all rewrites ran"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes code where code was, in all the ways there are, and runs it each time.
fn rewrite() {
    let jit = allocator(JitConfig::new());
    let mut span = place(&jit);
    let write = |span: &mut Span, way: usize, n: usize| {
        let mut code = function();
        code[OFFSET..OFFSET + 4].copy_from_slice(&word(n).to_le_bytes());
        match way {
            0 => jit.write(span, 0, &code),
            1 => jit.write_deferred(span, 0, &code),
            2 => jit.write_with(span, |writer| writer.bytes_mut().copy_from_slice(&code)),
            3 => jit.patch_u32(span, OFFSET, word(n), Barrier::Never),
            4 => {
                let mut batch = jit.batch();
                batch.write(span, 0, &code).expect("ours");
                batch.finish()
            }
            _ => {
                let mut batch = jit.batch();
                batch.patch(span, OFFSET, word(n)).expect("ours");
                batch.finish()
            }
        }
        .expect("ours");
    };
    for way in 0..6 {
        for n in 0..20 {
            write(&mut span, way, n % 2);
            assert_eq!(run(&span), RESULTS[n % 2], "way {way}, rewrite {n}");
        }
    }
    // In memory that comes back.
    for n in 0..20 {
        jit.release(span).expect("once");
        span = jit.alloc(64).expect("memory");
        write(&mut span, 0, n % 2);
        assert_eq!(run(&span), RESULTS[n % 2], "recycled {n} times");
    }
    println!("all rewrites ran");
}
