//! With `--stats` on a terminal: a line that tells every second what a long program has done so far.

use crate::machine::{Machine, Mutex, lock};
use std::{
    io::{self, IsTerminal},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

/// Whether the line is still to be written.
static GOES_ON: Mutex<bool> = Mutex::new(true);

/// What takes the line away.
const CLEAR: &str = "\r\x1b[K";

/// Begins to tell, if anybody looks.
pub(crate) fn begin(machine: &'static Machine) {
    if !machine.options.stats || !io::stderr().is_terminal() {
        return;
    }
    let start = Instant::now();
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let goes_on = lock(&GOES_ON);
            if !*goes_on {
                return;
            }
            let code = machine.code.as_ref().map(|code| code.counts());
            let code = code.unwrap_or_default();
            eprint!(
                "{CLEAR}{} s: {} instructions translated, {} KiB of code, {} system calls",
                start.elapsed().as_secs(),
                code.instructions,
                code.live_bytes >> 10,
                machine.counts.calls.load(Ordering::Relaxed)
            );
        }
    });
}

/// Takes the line away: something else is to be told.
pub(crate) fn end() {
    *lock(&GOES_ON) = false;
    if io::stderr().is_terminal() {
        eprint!("{CLEAR}");
    }
}
