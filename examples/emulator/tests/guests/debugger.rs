//! `--gdb`: by gdb itself where it is installed, and by its protocol.

use super::{emulator, guests};
use hostmem_test_support::isolate;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

/// A guest that waits for a debugger, and where.
struct Guest {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
    address: String,
}

impl Guest {
    fn start(name: &str) -> Self {
        let path = guests().join(name).with_extension("elf");
        let mut command = emulator();
        command.args(["--gdb", "0"]).arg(path);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("a line");
        let address = line.trim().rsplit(' ').next().expect("an address");
        Self {
            child,
            errors,
            address: address.to_owned(),
        }
    }

    /// Returns what the guest printed, what the emulator said, and the status.
    fn finish(mut self) -> (String, String, Option<i32>) {
        let (mut output, mut errors) = (String::new(), String::new());
        let mut stdout = self.child.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut output).expect("text");
        self.errors.read_to_string(&mut errors).expect("text");
        let status = self.child.wait().expect("it ends");
        (output, errors, status.code())
    }
}

/// Runs gdb with commands on a guest; returns what it says, or `None` without a gdb.
fn gdb(guest: &Guest, commands: &[&str]) -> Option<String> {
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-ex", "set pagination off"]);
    gdb.args(["-ex", "set tcp connect-timeout 60"]);
    gdb.args(["-ex", &format!("target remote {}", guest.address)]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.arg(guests().join("debug.elf")).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
}

/// Runs gdb, and checks that it says these one after the other; then what the guest did.
fn check(commands: &[&str], expected: &[&str], status: i32, output: &str) {
    let mut guest = Guest::start("debug");
    let Some(said) = gdb(&guest, commands) else {
        guest.child.kill().expect("it ends");
        guest.finish();
        return isolate::skip("gdb-multiarch is not installed");
    };
    let mut rest = said.as_str();
    for part in expected {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{part:?} is not in {rest:?}, of {said}"));
        rest = &rest[at + part.len()..];
    }
    let (printed, errors, ended) = guest.finish();
    assert_eq!(
        (ended, printed.as_str()),
        (Some(status), output),
        "{errors}"
    );
}

#[test]
fn a_program_is_followed_to_its_end() {
    check(
        &[
            "break inner",
            "continue",
            "backtrace",
            "print number",
            "continue",
            "finish",
            "stepi",
            "next",
            "x/i $pc",
            "x/4xb 16",
            "info registers a0",
            "delete",
            "continue",
        ],
        &[
            "Breakpoint 1, inner (number=2)",
            "#1 ",
            "in middle (number=1)",
            "#2 ",
            "in main ()",
            "$1 = 2",
            "Breakpoint 1, inner (number=4)",
            "Value returned is $2 = 6",
            "main () at debug.c",
            "=> ",
            "exited with code 05",
            "Cannot access memory at address 0x10",
        ],
        5,
        "summed\n",
    );
}

#[test]
fn a_fault_is_shown_and_passed_on() {
    check(
        &[
            "break inner",
            "continue",
            "set var wanted = 1",
            "delete",
            "continue",
            "backtrace",
            "continue",
        ],
        &[
            "Breakpoint 1, inner",
            "received signal SIGSEGV",
            "#0  fault ()",
            "#1 ",
            "in main ()",
            "Program terminated with signal SIGSEGV",
        ],
        128 + 11,
        "summed\n",
    );
}

#[test]
fn a_fault_can_be_mended() {
    check(
        &[
            "set var wanted = 1",
            "continue",
            // Behind the load, which has four bytes, with what it would read.
            "set var $pc = $pc + 4",
            "set var $a0 = 33",
            "signal 0",
        ],
        &["received signal SIGSEGV", "exited with code 041"],
        33,
        "summed\n",
    );
}

#[test]
fn threads_are_seen_and_stepped() {
    check(
        &[
            "break in_thread",
            "continue",
            "info threads",
            "stepi",
            "thread apply all backtrace",
            "print done",
            "delete",
            "continue",
        ],
        &[
            "hit Breakpoint 1, in_thread ()",
            "Id ",
            "in_thread () at debug.c",
            "Thread 2",
            "in_thread () at debug.c",
            "Thread 1",
            "$1 = 0",
            "exited with code 05",
        ],
        5,
        "summed\n",
    );
}

#[test]
fn a_program_that_the_debugger_leaves_goes_on() {
    let left = ["break inner", "continue", "detach"];
    check(&left, &["Breakpoint 1", "detached"], 5, "summed\n");
    let killed = ["break inner", "continue", "kill"];
    check(&killed, &["Breakpoint 1"], 128 + 9, "");
}

/// A connection that speaks the debugger's side of the protocol.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(guest: &Guest) -> Self {
        let stream = TcpStream::connect(&guest.address).expect("it listens");
        Self(BufReader::new(stream))
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("a byte");
        byte[0]
    }

    fn send(&mut self, packet: &str) {
        let sum = packet
            .bytes()
            .fold(0_u8, |sum, byte| sum.wrapping_add(byte));
        let whole = format!("${packet}#{sum:02x}");
        let stream = self.0.get_mut();
        stream.write_all(whole.as_bytes()).expect("it is sent");
    }

    /// Returns the next packet's text.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    // The last character again, as often as the next one says.
                    let last = text.chars().last().expect("a character");
                    let count = usize::from(self.byte() - 29);
                    text.extend(std::iter::repeat_n(last, count));
                }
                byte => text.push(byte.into()),
            }
        }
        self.byte();
        self.byte();
        self.0.get_mut().write_all(b"+").expect("it is sent");
        text
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }
}

/// Where a variable of `debug.elf` is: its symbol's address.
fn address_of(name: &str) -> u32 {
    let file = std::fs::read(guests().join("debug.elf")).expect("a guest");
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four"));
    let half = |at: usize| usize::from(u16::from_le_bytes([file[at], file[at + 1]]));
    let section = |index: usize| word(32) as usize + index * 40;
    let table = (0..half(48)).map(section).find(|at| word(at + 4) == 2);
    let table = table.expect("symbols");
    let names = word(section(word(table + 24) as usize) + 16) as usize;
    let (start, len) = (word(table + 16) as usize, word(table + 20) as usize);
    let found = (start..start + len).step_by(16).find(|at| {
        let text = &file[names + word(*at) as usize..];
        text.starts_with(format!("{name}\0").as_bytes())
    });
    word(found.expect("the symbol") + 4)
}

#[test]
fn a_program_is_interrupted_at_any_time() {
    let guest = Guest::start("debug");
    let mut client = Client::new(&guest);
    let wanted = address_of("wanted");
    // It would run for many minutes.
    assert_eq!(client.ask(&format!("M{wanted:x},4:ffffff7f")), "OK");
    client.send("c");
    client.0.get_mut().write_all(&[3]).expect("it is sent");
    let stop = client.receive();
    assert!(stop.starts_with("T02"), "{stop}");
    assert_eq!(client.ask("g").len(), 33 * 8);
    // What is not there is an error, and no more.
    assert!(client.ask("m10,4").starts_with('E'));
    assert!(client.ask("mfffffffe,8").starts_with('E'));
    assert_eq!(client.ask(&format!("M{wanted:x},4:01000000")), "OK");
    assert_eq!(client.ask(&format!("m{wanted:x},4")), "01000000");
    // Now its loop is over, and the sum is another one.
    let stop = client.ask("c");
    assert!(stop.starts_with("T0b"), "{stop}");
    let thread = stop.split([':', ';']).nth(1).expect("a thread");
    assert_eq!(client.ask(&format!("vCont;C0b:{thread};c")), "X0b");
    drop(client);
    let (printed, errors, status) = guest.finish();
    assert_eq!((printed.as_str(), status), ("summed\n", Some(128 + 11)));
    assert!(errors.contains("access to 0x10"), "{errors}");
}

#[test]
fn other_threads_stop_too() {
    let guest = Guest::start("threads");
    let mut client = Client::new(&guest);
    client.send("c");
    client.0.get_mut().write_all(&[3]).expect("it is sent");
    // It may have come to its end.
    let stop = client.receive();
    if stop.starts_with("T02") {
        assert!(client.ask("qfThreadInfo").starts_with('m'));
    } else {
        assert!(stop.starts_with('W'), "{stop}");
    }
    drop(client);
    let (printed, _, status) = guest.finish();
    assert!(printed.contains("4 threads took"), "{printed}");
    assert_eq!(status, Some(0));
}
