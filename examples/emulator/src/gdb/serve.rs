//! The connection to the debugger, and the thread that serves it.

use super::{
    DEBUGGER, Debugger, Place,
    target::{Guest, reason},
};
use crate::{
    machine::{Machine, Thread},
    signals::SIGKILL,
};
use gdbstub::{
    common::{Signal, Tid},
    stub::{
        DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason,
        state_machine::GdbStubStateMachine,
    },
};
use linux_raw_sys::general::F_DUPFD_CLOEXEC;
use std::{
    convert::Infallible,
    io::{self, BufReader, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::mpsc::{self, Receiver},
};
use syscalls::{Sysno, syscall};

/// What the serving thread waits for.
pub(super) enum Event {
    /// The debugger has sent something.
    Byte(u8),
    /// The debugger has closed the connection.
    Closed,
    /// The program has stopped.
    Report,
}

/// Waits for a debugger at a port of this host; the first thread is to wait for what it says.
///
/// # Errors
///
/// What the operating system says.
pub(crate) fn begin(machine: &'static Machine, thread: &Thread, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    eprintln!(
        "emulator: waiting for a debugger at {}",
        listener.local_addr()?
    );
    let stream = TcpStream::from(above_the_guests(&listener.accept()?.0)?);
    let input = TcpStream::from(above_the_guests(&stream)?);
    let (tell, events) = mpsc::channel();
    let debugger = DEBUGGER.get_or_init(|| Debugger::new(machine, tell.clone()));
    debugger.lock().known(thread).place = Place::Waiting;
    std::thread::Builder::new().spawn(move || {
        for byte in BufReader::new(input).bytes() {
            let Ok(byte) = byte else { break };
            if tell.send(Event::Byte(byte)).is_err() {
                return;
            }
        }
        let _ = tell.send(Event::Closed);
    })?;
    std::thread::Builder::new().spawn(move || {
        match serve(debugger, stream, &events) {
            Ok(DisconnectReason::Kill) => std::process::exit(128 + i32::from(SIGKILL)),
            Ok(_) => {}
            Err(error) => eprintln!("emulator: the debugger: {error}"),
        }
        debugger.leave();
    })?;
    Ok(())
}

/// Makes another descriptor of a socket, above those that the guest gets.
fn above_the_guests(socket: &impl AsRawFd) -> io::Result<OwnedFd> {
    const LOWEST: u32 = 500;
    // SAFETY: the call makes another descriptor of a valid one.
    let fd = unsafe { syscall!(Sysno::fcntl, socket.as_raw_fd(), F_DUPFD_CLOEXEC, LOWEST) }
        .map_err(|error| io::Error::from_raw_os_error(error.into_raw()))?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: made just now, for this alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Serves the debugger until one of them goes.
fn serve(
    debugger: &'static Debugger,
    stream: TcpStream,
    events: &Receiver<Event>,
) -> Result<DisconnectReason, GdbStubError<Infallible, io::Error>> {
    let mut guest = Guest::new(debugger);
    let mut stub = GdbStub::new(stream).run_state_machine(&mut guest)?;
    loop {
        stub = match stub {
            GdbStubStateMachine::Idle(idle) => match events.recv() {
                Ok(Event::Byte(byte)) => idle.incoming_data(&mut guest, byte)?,
                // It is told when the debugger lets the program go on.
                Ok(Event::Report) => idle.into(),
                Ok(Event::Closed) | Err(_) => return Ok(DisconnectReason::Disconnect),
            },
            GdbStubStateMachine::Running(running) => match events.recv() {
                Ok(Event::Byte(byte)) => running.incoming_data(&mut guest, byte)?,
                Ok(Event::Report) => match debugger.next_report() {
                    Some(report) => running.report_stop(&mut guest, reason(report))?,
                    None => running.into(),
                },
                Ok(Event::Closed) | Err(_) => return Ok(DisconnectReason::Disconnect),
            },
            GdbStubStateMachine::CtrlCInterrupt(interrupted) => {
                let reason = debugger.interrupt();
                interrupted.interrupt_handled(&mut guest, reason)?
            }
            GdbStubStateMachine::Disconnected(gone) => return Ok(gone.get_reason()),
        };
    }
}

impl Debugger {
    /// Waits until no thread runs guest code; returns why the program stopped.
    fn next_report(&self) -> Option<super::Report> {
        let mut state = self.lock();
        // While it was being told that the program goes on, or twice for one.
        while !state.reports.is_empty()
            && state
                .threads
                .values()
                .any(|known| known.place == Place::Running)
        {
            state = self.wait(state);
        }
        state.reports.pop_front()
    }

    /// Stops the program, if it runs.
    fn interrupt(&self) -> Option<MultiThreadStopReason<u32>> {
        let mut state = self.lock();
        if state.stopped {
            return None;
        }
        self.halt(&mut state, None);
        while state
            .threads
            .values()
            .any(|known| known.place == Place::Running)
        {
            state = self.wait(state);
        }
        let first = state.threads.keys().next().copied();
        let tid = first.and_then(|number| Tid::new(number as usize));
        Some(MultiThreadStopReason::SignalWithThread {
            tid: tid.unwrap_or(Tid::MIN),
            signal: Signal::SIGINT,
        })
    }
}
