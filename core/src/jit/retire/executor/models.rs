//! Code is never released while an executor can run it. Code is a cell here, which loom does not
//! let be read and written without an order between the two.

extern crate std;
use super::*;
use loom::{cell::UnsafeCell, sync::atomic::AtomicBool, thread};
use std::{boxed::Box, vec::Vec};

struct World {
    executors: Executors,
    code: UnsafeCell<u32>,
    /// Whether the code can still be come to.
    linked: AtomicBool,
    /// The stamp of the code, once it waits to be released: the ring of a queue.
    waiting: AtomicU64,
}

// SAFETY: the cell is what the model is about: loom sees to it that it is not misused.
unsafe impl Sync for World {}

impl World {
    fn new(executors: usize) -> &'static Self {
        // Made now, what all fences share orders nothing later.
        fence(Ordering::SeqCst);
        let slots: Vec<_> = (0..executors).map(|_| Slot::new()).collect();
        Box::leak(Box::new(Self {
            // SAFETY: made just now, for this alone, and never freed.
            executors: unsafe {
                Executors::new(NonNull::from(Box::leak(slots.into_boxed_slice())))
            },
            code: UnsafeCell::new(1),
            linked: AtomicBool::new(true),
            waiting: AtomicU64::new(0),
        }))
    }

    /// Runs the code, if it is to be found.
    fn run(&self) {
        if self.linked.load(Ordering::Relaxed) {
            // SAFETY: that it is not released meanwhile is what the model checks.
            let value = self.code.with(|code| unsafe { *code });
            assert_eq!(value, 1, "the code was released");
        }
    }

    /// Retires the code, and releases it if all executors have passed; says whether it did.
    fn retire(&self) -> bool {
        self.unlink();
        let passed = self.executors.passed();
        self.release(passed)
    }

    /// Makes the code unreachable, and has its release wait.
    fn unlink(&self) {
        self.linked.store(false, Ordering::Relaxed);
        let stamp = self.executors.advance();
        self.waiting.store(stamp, Ordering::Release);
    }

    /// Releases the code if it waits and its stamp has passed; says whether it did.
    fn release(&self, passed: u64) -> bool {
        let stamp = self.waiting.load(Ordering::Acquire);
        let passed = stamp != 0 && stamp <= passed;
        if passed {
            // SAFETY: that no executor reads code whose stamp has passed is what the model checks.
            self.code.with_mut(|code| unsafe { *code = 0 });
        }
        passed
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// Runs `body` as an executor while the code is retired.
fn beside(body: impl Fn(&World, &Executor<'_>) + Copy + Sync + Send + 'static) {
    model(move || {
        let world = World::new(1);
        let executor = thread::spawn(move || {
            let executor = world.executors.register().expect("a slot");
            body(world, &executor);
        });
        world.retire();
        executor.join().expect("the executor ends");
    });
}

#[test]
fn model_an_executor_between_quiescent_points_keeps_code() {
    beside(|world, executor| {
        world.run();
        executor.quiescent();
        world.run();
        executor.quiescent();
    });
}

#[test]
fn model_an_executor_back_online_does_not_find_what_was_released() {
    beside(|world, executor| {
        world.run();
        executor.offline();
        executor.online();
        world.run();
    });
}

#[test]
fn model_a_slot_goes_from_one_executor_to_the_next() {
    beside(|world, _| {
        world.run();
        // The slot is taken: whoever comes next takes it from this one.
        assert!(world.executors.register().is_err());
    });
    model(|| {
        let world = World::new(1);
        let run = move || {
            if let Ok(executor) = world.executors.register() {
                world.run();
                drop(executor);
            }
        };
        let (one, two) = (thread::spawn(run), thread::spawn(run));
        world.retire();
        one.join().expect("the executor ends");
        two.join().expect("the executor ends");
    });
}

#[test]
fn model_two_executors_both_have_to_pass() {
    model(|| {
        let world = World::new(2);
        let run = move || {
            let executor = world.executors.register().expect("a slot");
            world.run();
            executor.quiescent();
        };
        let (one, two) = (thread::spawn(run), thread::spawn(run));
        world.retire();
        one.join().expect("the executor ends");
        two.join().expect("the executor ends");
    });
}

#[test]
fn model_what_passed_before_code_was_retired_says_nothing_of_it() {
    model(|| {
        let world = World::new(1);
        let reclaimer = thread::spawn(move || {
            let passed = world.executors.passed();
            world.release(passed);
        });
        let executor = thread::spawn(move || {
            let executor = world.executors.register().expect("a slot");
            world.run();
            drop(executor);
        });
        world.unlink();
        reclaimer.join().expect("the reclaimer ends");
        executor.join().expect("the executor ends");
    });
}

#[test]
fn model_an_executor_that_passed_does_not_hold_back() {
    model(|| {
        let world = World::new(1);
        let executor = world.executors.register().expect("a slot");
        world.run();
        assert!(!world.retire(), "it has not passed");
        executor.quiescent();
        assert!(world.executors.passed() >= 1, "it has");
    });
}
