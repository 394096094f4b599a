//! The command line, and the summary.

use crate::{
    code::{BUDGET, Code, cpu},
    elf::Image,
    faults, gdb,
    host::{self, Host},
    load,
    machine::{End, Machine, Thread},
    perf::Names,
    picture, progress, signals,
    space::Space,
    syscalls::{files::Files, threads},
};
use std::{
    ffi::OsString,
    fmt, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
};

const USAGE: &str = "\
usage: emulator [OPTIONS] [PROGRAM [ARGUMENTS…]]

Runs a static RV32IMAC program for Linux; without one, a built-in demonstration.

  --interpret   look at each instruction, rather than translate it
  --stats       print what was done, at the end
  --strace      print every system call
  --map FILE    draw the address space at the end, as SVG
  --perf        name translated code for perf, in /tmp/perf-PID.map
  --budget N    bytes of translated code at most (default: 64 MiB)
  --gdb PORT    wait for gdb at this port of the host, and interpret (0: any port)
  --root DIR    the folder that the program sees as its root (default: the current one)
  --env K=V     an entry of the program's environment
";

/// The exit status of a program that cannot be run, as shells have it.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
const USAGE_ERROR: u8 = 2;

/// The program that runs where none is named.
static DEMONSTRATION: &[u8] = include_bytes!("../guests/sieve.elf");

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) interpret: bool,
    pub(crate) stats: bool,
    pub(crate) strace: bool,
    map: Option<PathBuf>,
    perf: bool,
    gdb: Option<u16>,
    budget: usize,
    root: PathBuf,
    environment: Vec<Vec<u8>>,
    /// The program and its arguments.
    program: Vec<OsString>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut options = Self {
            interpret: false,
            stats: false,
            strace: false,
            map: None,
            perf: false,
            gdb: None,
            budget: BUDGET,
            root: PathBuf::from("."),
            environment: Vec::new(),
            program: Vec::new(),
        };
        while let Some(arg) = args.next() {
            match arg.as_bytes() {
                b"--interpret" => options.interpret = true,
                b"--stats" => options.stats = true,
                b"--strace" => options.strace = true,
                b"--map" => options.map = Some(args.next()?.into()),
                b"--perf" => options.perf = true,
                b"--gdb" => {
                    options.gdb = Some(args.next()?.to_str()?.parse().ok()?);
                    options.interpret = true;
                }
                b"--budget" => options.budget = args.next()?.to_str()?.parse().ok()?,
                b"--root" => options.root = args.next()?.into(),
                b"--env" => options.environment.push(args.next()?.into_vec()),
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

pub(crate) fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args_os().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(USAGE_ERROR);
    };
    let (bytes, name) = match options.program.first() {
        None => (DEMONSTRATION.to_vec(), "sieve".into()),
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => (bytes, path.display().to_string()),
            Err(error) => {
                eprintln!("emulator: {}: {error}", path.display());
                return ExitCode::from(if error.kind() == io::ErrorKind::NotFound {
                    NOT_FOUND
                } else {
                    CANNOT_RUN
                });
            }
        },
    };
    let image = match Image::parse(&bytes) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("emulator: {name}: {error}");
            return ExitCode::from(CANNOT_RUN);
        }
    };
    match start(options, &image, &name) {
        Ok((machine, mut thread)) => {
            progress::begin(machine);
            let end = thread.run();
            if let End::Thread(_) = end {
                threads::end(thread);
                threads::wait_for_others(machine);
            } else {
                drop(thread);
            }
            finish(machine, end)
        }
        Err(error) => {
            eprintln!("emulator: {name}: {error}");
            ExitCode::from(CANNOT_RUN)
        }
    }
}

fn start(
    options: Options,
    image: &Image<'_>,
    name: &str,
) -> Result<(&'static Machine, Thread), String> {
    let host = Host::claim().map_err(but("addresses cannot be claimed"))?;
    let space = Space::new(host.region, &host.guest, host::low_heap_window())
        .map_err(but("no address space for the guest"))?;
    faults::install();
    signals::prepare_wake();
    let mut args: Vec<Vec<u8>> = options
        .program
        .iter()
        .cloned()
        .map(OsString::into_vec)
        .collect();
    if args.is_empty() {
        args.push(name.as_bytes().to_vec());
    }
    let (hart, trampoline) = load::load(&space, image, &args, &options.environment)
        .map_err(but("the program cannot be loaded"))?;
    let root = options.root.display();
    let files = Files::new(&options.root).map_err(but(&format!("the guest's root {root}")))?;
    let code = if options.interpret {
        None
    } else {
        let names = if options.perf {
            let names = Names::new(image.bytes);
            Some(names.map_err(but("no file for perf"))?)
        } else {
            None
        };
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
    if machine.options.stats {
        progress::end();
        print_statistics(machine);
    } else if machine.options.program.is_empty() {
        print_summary(machine);
    }
    if let Some(path) = &machine.options.map {
        let picture = picture::draw(&machine.space, machine.host.region);
        if let Err(error) = std::fs::write(path, picture) {
            eprintln!("emulator: {}: {error}", path.display());
        }
    }
    let status = match end {
        End::Thread(status) | End::Program(status) => status & 0xff,
        End::Killed(signal) => 128 + i32::from(signal),
    };
    std::process::exit(status)
}

/// Says after the demonstration what it was.
fn print_summary(machine: &Machine) {
    if let Some(code) = &machine.code {
        let code = code.counts();
        eprintln!(
            "{} instructions of a RISC-V program became {} bytes of host code, in {} blocks \
             with {} links",
            code.instructions, code.live_bytes, code.blocks, code.links
        );
    }
    let used = machine.host.region.statistics().used;
    eprintln!(
        "the program had the low 4 GiB to itself; {} KiB of the host lay above them",
        used >> 10
    );
}

fn print_statistics(machine: &Machine) {
    let counts = &machine.counts;
    if let Some(code) = &machine.code {
        let code = code.counts();
        eprintln!(
            "translated    {} instructions in {} blocks, {} links, {} misses of indirect jumps",
            code.instructions, code.blocks, code.links, code.misses
        );
        eprintln!(
            "code          {} blocks of {} bytes; {} evicted, {} invalidated",
            code.live_blocks, code.live_bytes, code.evicted, code.invalidated
        );
    }
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    eprintln!("interpreted   {} instructions", count(&counts.interpreted));
    eprintln!("system calls  {}", count(&counts.calls));
    eprintln!("thunks        {}", count(&counts.thunks));
    eprintln!("signals       {} handled", count(&counts.signals));
    let low = machine.host.low_heap.statistics();
    eprintln!(
        "low heap      {} bytes used, {} reserved",
        low.used, low.reserved
    );
    if let Ok(heap) = host::heap() {
        let heap = heap.statistics();
        eprintln!(
            "heap          {} bytes used, {} reserved",
            heap.used, heap.reserved
        );
    }
    let region = machine.host.region.statistics();
    eprintln!(
        "region        {} bytes used of {}",
        region.used, region.adopted
    );
    let mappings = machine.space.mappings();
    for (range, mapping) in mappings {
        let (start, last) = (range.start(), range.last());
        eprintln!(
            "  {start:08x}..={last:08x} {} {:?}",
            mapping.protection, mapping.content
        );
    }
}
