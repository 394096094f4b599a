//! The lock that sleeps, with a model of the kernel's two calls that wakes only threads that
//! are asleep.

extern crate std;

use super::{Futex, Lock, RawMutex};
use crate::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use loom::{
    sync::{Condvar, Mutex},
    thread,
};

/// Threads that sleep in a queue: there is one word in each model.
struct Queue {
    mutex: Mutex<()>,
    sleepers: Condvar,
}

loom::lazy_static! {
    static ref QUEUE: Queue = Queue {
        mutex: Mutex::new(()),
        sleepers: Condvar::new(),
    };
}

struct Sleeps;

impl RawMutex for Sleeps {
    type Futex = Self;
}

// SAFETY: the word is compared under the mutex that `wake_one` takes, so that a thread which saw
// `expected` is in the queue before a later wake looks there.
unsafe impl Futex for Sleeps {
    /// Sleeps until it is woken, however long.
    fn wait(word: &AtomicU32, expected: u32, _: Duration) {
        let guard = QUEUE.mutex.lock().expect("not poisoned");
        if word.load(Relaxed) == expected {
            drop(QUEUE.sleepers.wait(guard).expect("not poisoned"));
        }
    }

    fn wake_one(_: &AtomicU32) {
        let _guard = QUEUE.mutex.lock().expect("not poisoned");
        QUEUE.sleepers.notify_one();
    }
}

/// A wake-up that is lost would leave a thread asleep, which loom reports.
#[test]
fn model_two_threads_take_turns_and_none_sleeps_on() {
    take_turns(2, 2);
}

#[test]
fn model_three_threads_take_turns_and_none_sleeps_on() {
    take_turns(3, 1);
}

fn take_turns(threads: usize, times: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        // A relaxed load may read an old value unless the lock orders it.
        let lock = loom::sync::Arc::new(Lock::<_, Sleeps>::new(AtomicUsize::new(0)));
        let turns = move |lock: &Lock<AtomicUsize, Sleeps>| {
            for _ in 0..times {
                let value = lock.lock();
                value.store(value.load(Relaxed) + 1, Relaxed);
            }
        };
        let others: std::vec::Vec<_> = (1..threads)
            .map(|_| {
                let lock = lock.clone();
                thread::spawn(move || turns(&lock))
            })
            .collect();
        turns(&lock);
        for other in others {
            other.join().expect("no panic");
        }
        assert_eq!(lock.lock().load(Relaxed), threads * times);
    });
}

#[test]
fn model_a_try_fails_only_while_the_lock_is_taken() {
    loom::model(|| {
        let lock = loom::sync::Arc::new(Lock::<usize, Sleeps>::new(0));
        let other = {
            let lock = lock.clone();
            thread::spawn(move || lock.try_lock().map(|mut value| *value += 1).is_some())
        };
        let mine = lock.try_lock().map(|mut value| *value += 1).is_some();
        let others = other.join().expect("no panic");
        let value = *lock.try_lock().expect("open again");
        assert_eq!(value, usize::from(mine) + usize::from(others));
        assert!(value >= 1);
    });
}
