//! Numbers of signals: gdb has its own, since systems differ (`include/gdb/signals.def`).

use gdbstub::common::Signal;

/// gdb's numbers of Linux's signals 1 to 31. It has none for `SIGSTKFLT`: 143 is "unknown".
const NUMBERS: [u8; 31] = [
    1, 2, 3, 4, 5, 6, 10, 8, 9, 30, 11, 31, 13, 14, 15, 143, 20, 19, 17, 18, 21, 22, 16, 24, 25,
    26, 27, 28, 23, 32, 12,
];

/// Returns gdb's number of a signal of the guest's.
pub(super) fn to_gdb(signal: u8) -> Signal {
    Signal(match signal {
        1..=31 => NUMBERS[usize::from(signal - 1)],
        32 => 77,
        33..=63 => signal + 12,
        _ => 78,
    })
}

/// Returns the guest's number of a signal, if it has that.
pub(super) fn from_gdb(signal: Signal) -> Option<u8> {
    (1..=64).find(|number| to_gdb(*number) == signal)
}
