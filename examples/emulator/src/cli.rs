//! The command line, and the summary.

use crate::{
    code::{BUDGET, Code, cpu},
    elf::Image,
    faults, gdb,
    host::{self, Host},
    load,
    machine::{End, Machine, Thread},
    signals,
    space::Space,
    sys::{self, Fd, description, say},
    syscalls::{files::Files, threads},
    system,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str, sync::atomic::Ordering};
use syscalls::Errno;

const USAGE: &str = "\
usage: emulator [OPTIONS] [PROGRAM [ARGUMENTS…]]

Runs a static RV32IMAC program for Linux; without one, a built-in demonstration.

  --interpret   look at each instruction, rather than translate it
  --stats       print what was done, at the end
  --strace      print every system call
  --map FILE    draw the address space at the end, as SVG
  --perf        name translated code for perf, in /tmp/perf-PID.map
  --budget N    bytes of translated code at most (default: 64 MiB)
  --host-page N take the host's pages to have N bytes
  --gdb PORT    wait for gdb at this port of the host, and interpret (0: any port)
  --root DIR    the folder that the program sees as its root (default: the current one)
  --env K=V     an entry of the program's environment
";

/// The exit status of a program that cannot be run, as shells have it.
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;
const USAGE_ERROR: i32 = 2;

/// The program that runs where none is named.
static DEMONSTRATION: &[u8] = include_bytes!("../guests/sieve.elf");

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) interpret: bool,
    pub(crate) stats: bool,
    pub(crate) strace: bool,
    pub(crate) map: Option<Vec<u8>>,
    perf: bool,
    gdb: Option<u16>,
    budget: usize,
    root: Vec<u8>,
    /// What the host's pages are taken to have, in bytes, in place of what they have.
    host_page: Option<usize>,
    environment: Vec<Vec<u8>>,
    /// The program and its arguments.
    program: Vec<Vec<u8>>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = Vec<u8>>) -> Option<Self> {
        let mut options = Self {
            interpret: false,
            stats: false,
            strace: false,
            map: None,
            perf: false,
            gdb: None,
            budget: BUDGET,
            root: b".".to_vec(),
            host_page: None,
            environment: Vec::new(),
            program: Vec::new(),
        };
        while let Some(arg) = args.next() {
            match arg.as_slice() {
                b"--interpret" => options.interpret = true,
                b"--stats" => options.stats = true,
                b"--strace" => options.strace = true,
                b"--map" => options.map = Some(args.next()?),
                b"--perf" => options.perf = true,
                b"--budget" => options.budget = number(&args.next()?)?,
                b"--root" => options.root = args.next()?,
                b"--gdb" => {
                    options.gdb = Some(u16::try_from(number(&args.next()?)?).ok()?);
                    options.interpret = true;
                }
                b"--host-page" => options.host_page = Some(number(&args.next()?)?),
                b"--env" => options.environment.push(args.next()?),
                [b'-', ..] => return None,
                _ => {
                    options.program.push(arg);
                    options.program.extend(args);
                    break;
                }
            }
        }
        Some(options)
    }
}

/// Runs what the arguments say, of which the first is behind the program's own name; returns the
/// exit status.
pub(crate) fn main(args: impl Iterator<Item = Vec<u8>>) -> i32 {
    let Some(options) = Options::parse(args) else {
        say!("{USAGE}");
        return USAGE_ERROR;
    };
    let name = match options.program.first() {
        None => "sieve".to_string(),
        Some(path) => shown(path),
    };
    let fails = |status, error: &dyn fmt::Display| {
        say!("emulator: {name}: {error}\n");
        status
    };
    let read = match options.program.first() {
        None => Ok(DEMONSTRATION.to_vec()),
        Some(path) => Fd::open(path, 0).and_then(|file| file.read()),
    };
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => {
            let missing = error == Errno::ENOENT;
            let status = if missing { NOT_FOUND } else { CANNOT_RUN };
            return fails(status, &description(error));
        }
    };
    let started = Image::parse(&bytes)
        .map_err(|error| error.to_string())
        .and_then(|image| start(options, &image, &name));
    let (machine, mut thread) = match started {
        Ok(started) => started,
        Err(error) => return fails(CANNOT_RUN, &error),
    };
    system::begin_guest(machine);
    let end = thread.run();
    if let End::Thread(_) = end {
        threads::end(thread);
        threads::wait_for_others(machine);
    } else {
        drop(thread);
    }
    finish(machine, end)
}

/// Reads a number.
fn number(text: &[u8]) -> Option<usize> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Shows a path.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn start(
    options: Options,
    image: &Image<'_>,
    name: &str,
) -> Result<(&'static Machine, Thread), String> {
    let host = Host::claim().map_err(but("addresses cannot be claimed"))?;
    let space = Space::new(
        host.region,
        &host.guest,
        host::low_heap_window(),
        options.host_page,
    )
    .map_err(but("no address space for the guest"))?;
    faults::install();
    signals::prepare_wake();
    let mut args = options.program.clone();
    if args.is_empty() {
        args.push(name.as_bytes().to_vec());
    }
    let (hart, trampoline) = load::load(&space, image, &args, &options.environment)
        .map_err(but("the program cannot be loaded"))?;
    let files = Files::new(&options.root).map_err(|error| {
        let (root, error) = (shown(&options.root), description(error));
        format!("the guest's root {root}: {error}")
    })?;
    let code = if options.interpret {
        None
    } else {
        let names = options.perf.then(|| system::names(image.bytes));
        let names = names.transpose().map_err(but("no file for perf"))?;
        let code = Code::new(host.region, options.budget, names);
        Some(code.map_err(but("no memory for code (--interpret needs none)"))?)
    };
    let machine = Machine::install(options, host, space, files, code, trampoline);
    let thread = Thread::new(machine, hart).map_err(but("no first thread"))?;
    cpu::set_main(thread.cpu.clone());
    if let Some(port) = machine.options.gdb {
        gdb::begin(machine, &thread, port).map_err(but("no debugger"))?;
    }
    Ok((machine, thread))
}

/// Says of an error what could not be had for it.
fn but<E: fmt::Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Ends the program with the status that a shell would show.
pub(crate) fn finish(machine: &Machine, end: End) -> ! {
    if let Some(debugger) = gdb::debugger() {
        debugger.ended(end);
    }
    system::end_guest(machine);
    if machine.options.stats {
        print_statistics(machine);
    } else if machine.options.program.is_empty() {
        print_summary(machine);
    }
    let status = match end {
        End::Thread(status) | End::Program(status) => status & 0xff,
        End::Killed(signal) => 128 + i32::from(signal),
    };
    sys::exit(status)
}

/// Says after the demonstration what it was.
fn print_summary(machine: &Machine) {
    if let Some(code) = &machine.code {
        let code = code.counts();
        say!(
            "{} instructions of a RISC-V program became {} bytes of host code, in {} blocks \
             with {} links\n",
            code.instructions,
            code.live_bytes,
            code.blocks,
            code.links
        );
    }
    let used = machine.host.region.statistics().used;
    say!(
        "the program had the low 4 GiB to itself; {} KiB of the host lay above them\n",
        used >> 10
    );
}

fn print_statistics(machine: &Machine) {
    let counts = &machine.counts;
    if let Some(code) = &machine.code {
        let code = code.counts();
        say!(
            "translated    {} instructions in {} blocks, {} links, {} misses of indirect jumps\n",
            code.instructions,
            code.blocks,
            code.links,
            code.misses
        );
        say!(
            "code          {} blocks of {} bytes; {} evicted, {} invalidated\n",
            code.live_blocks,
            code.live_bytes,
            code.evicted,
            code.invalidated
        );
    }
    let count = |number: &core::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    say!(
        "interpreted   {} instructions\n",
        count(&counts.interpreted)
    );
    say!("system calls  {}\n", count(&counts.calls));
    say!("thunks        {}\n", count(&counts.thunks));
    say!("signals       {} handled\n", count(&counts.signals));
    let low = machine.host.low_heap.statistics();
    say!(
        "low heap      {} bytes used, {} reserved\n",
        low.used,
        low.reserved
    );
    if let Ok(heap) = host::heap() {
        let heap = heap.statistics();
        say!(
            "heap          {} bytes used, {} reserved\n",
            heap.used,
            heap.reserved
        );
    }
    let region = machine.host.region.statistics();
    say!(
        "region        {} bytes used of {}\n",
        region.used,
        region.adopted
    );
    let mappings = machine.space.mappings();
    for (range, mapping) in mappings {
        let (start, last) = (range.start(), range.last());
        say!(
            "  {start:08x}..={last:08x} {} {:?}\n",
            mapping.protection,
            mapping.content
        );
    }
}
