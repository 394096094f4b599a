//! What a thread of the guest has in memory: its registers, as generated code sees them, and what
//! other threads reach.
//!
//! ```text
//!   ├── slack ──┤ x0 … x31 │ pc │ reservation │ interrupt │ host's stack │ table of branches ┤
//!               ▲
//!               the stack pointer, in generated code
//! ```
//!
//! Generated code addresses all of it by the stack pointer, so that every other register is free.
//! Handlers of signals have a stack of their own; the slack is for those of others, which do not
//! ask for one.

use crate::interpret::Hart;
use alloc::sync::Arc;
use core::{
    cell::UnsafeCell,
    mem::offset_of,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};
use spin::Once;

/// Bytes below the registers.
const SLACK: usize = 16 << 10;

/// Places of the table of indirect branches; a power of two.
pub(super) const PLACES: usize = 4096;

/// The address in a place that leads nowhere: no instruction's.
const NOWHERE: u32 = 1;

/// Where an indirect branch to a guest address goes.
#[derive(Debug)]
#[repr(C, align(16))]
struct Place {
    pc: AtomicU32,
    code: AtomicU64,
}

/// A thread's state.
#[repr(C, align(64))]
pub(crate) struct Cpu {
    slack: UnsafeCell<[u8; SLACK]>,
    pub(super) registers: UnsafeCell<Hart>,
    /// Not zero where the thread has something else to do than to run guest code.
    pub(crate) interrupt: AtomicU32,
    host_stack: UnsafeCell<u64>,
    table: [Place; PLACES],
}

// SAFETY: the cells are used by the thread alone that runs the guest on them; the rest is atomic.
unsafe impl Sync for Cpu {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Cpu {}

/// Returns how far behind the registers a field lies.
const fn behind(field: usize) -> i32 {
    let distance = field - offset_of!(Cpu, registers);
    assert!(distance < 1 << 20);
    #[expect(clippy::cast_possible_truncation, reason = "just compared")]
    #[expect(clippy::cast_possible_wrap, reason = "just compared")]
    let distance = distance as i32;
    distance
}

pub(super) const PC: i32 = behind(offset_of!(Cpu, registers) + offset_of!(Hart, pc));
pub(super) const RESERVED: i32 = behind(offset_of!(Cpu, registers) + offset_of!(Hart, reserved));
pub(super) const RESERVED_WORD: i32 =
    behind(offset_of!(Cpu, registers) + offset_of!(Hart, reserved_word));
pub(super) const INTERRUPT: i32 = behind(offset_of!(Cpu, interrupt));
pub(super) const HOST_STACK: i32 = behind(offset_of!(Cpu, host_stack));
pub(super) const TABLE: i32 = behind(offset_of!(Cpu, table));
/// Where in a place the code's address is.
pub(super) const PLACE_CODE: i32 = 8;

/// The first thread's, which is told of signals that come from outside.
static MAIN: Once<Arc<Cpu>> = Once::new();

impl Cpu {
    pub(crate) fn new() -> Self {
        Self {
            slack: UnsafeCell::new([0; SLACK]),
            registers: UnsafeCell::new(Hart::new(0)),
            interrupt: AtomicU32::new(0),
            host_stack: UnsafeCell::new(0),
            table: [const {
                Place {
                    pc: AtomicU32::new(NOWHERE),
                    code: AtomicU64::new(0),
                }
            }; PLACES],
        }
    }

    fn place(&self, pc: u32) -> &Place {
        &self.table[(pc >> 1) as usize & (PLACES - 1)]
    }

    /// Lets indirect branches to `pc` go to `code`. To be called by the thread itself.
    pub(super) fn set_place(&self, pc: u32, code: u64) {
        let place = self.place(pc);
        place.code.store(code, Ordering::Relaxed);
        place.pc.store(pc, Ordering::Release);
    }

    /// Lets no indirect branch go to what `pc` had.
    pub(super) fn clear_place(&self, pc: u32) {
        let place = self.place(pc);
        if place.pc.load(Ordering::Relaxed) == pc {
            place.pc.store(NOWHERE, Ordering::Release);
        }
    }
}

/// Says which thread is the first.
pub(crate) fn set_main(cpu: Arc<Cpu>) {
    MAIN.call_once(|| cpu);
}

/// Returns the first thread's, once it is there. For handlers of signals.
pub(crate) fn of_main() -> Option<&'static Cpu> {
    MAIN.get().map(Arc::as_ref)
}
