//! Prints what this host allows: as a table, or with `--json` for programs.
//!
//! ```text
//! cargo run --release --example probe
//! cargo run --release --example probe -- --json
//! ```

use hostmem::{
    OsProvider,
    page::PageSize,
    probe::{Probe, Setting},
    provider::Error,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => print_table(OsProvider::probe()),
        [only] if only == "--json" => print_json(OsProvider::probe()),
        _ => {
            eprintln!("usage: probe [--json]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Names a size the way people do.
fn size(size: PageSize) -> String {
    let bytes = size.bytes();
    match bytes.trailing_zeros() {
        30.. => format!("{} GiB", bytes >> 30),
        20.. => format!("{} MiB", bytes >> 20),
        10.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

fn works(result: Result<(), Error>) -> String {
    match result {
        Ok(()) => "works".to_owned(),
        Err(error) => format!("no: {error}"),
    }
}

fn setting(setting: Setting) -> &'static str {
    match setting {
        Setting::Absent => "unknown to this kernel",
        Setting::Off => "off",
        Setting::On => "on",
    }
}

fn print_table(probe: &Probe) {
    let row = |name: &str, value: &str| println!("{name:<46} {value}");
    row("page size", &size(probe.page_size));
    for large in probe.large_pages() {
        let number = |n: Option<usize>| n.map_or("?".to_owned(), |n| n.to_string());
        let pool = format!("{} free of {}", number(large.free), number(large.total));
        row(&format!("large pages of {}", size(large.size)), &pool);
    }
    let bits = probe
        .address_bits
        .map_or("unknown".to_owned(), |bits| bits.to_string());
    row("bits of a user address", &bits);
    row("writable and executable at once", &works(probe.rwx));
    row("writable, then executable", &works(probe.toggle_exec));
    for (step, result) in probe.dual() {
        row(&format!("dual mapping by {step}"), &works(result));
    }
    let best = probe
        .best_dual()
        .map_or("none".to_owned(), |step| step.to_string());
    row("dual mappings will use", &best);
    row("landing pads", &works(probe.landing_pads));
    row("synchronizing other cores", &works(probe.core_sync));
    row(
        "memory-deny-write-execute",
        setting(probe.deny_write_execute),
    );
    row(
        "readable memory is executable",
        match probe.read_implies_exec {
            Setting::Absent => "unknown",
            Setting::Off => "only where asked",
            Setting::On => "always: READ_IMPLIES_EXEC is on, views to write to are executable",
        },
    );
    row(
        "breakpoints of a debugger",
        if probe.toggle_exec.is_ok() {
            "in code mapped once (toggled), not in dual mappings"
        } else {
            "not in dual mappings"
        },
    );
    let noexec = probe
        .memfd_noexec
        .map_or("unknown".to_owned(), |n| n.to_string());
    row("vm.memfd_noexec", &noexec);
    let count = probe
        .max_map_count
        .map_or("unknown".to_owned(), |n| n.to_string());
    row("vm.max_map_count", &count);
    row("reading the process map", &works(probe.process_map));
}

/// Writes JSON by hand: the values are numbers, booleans and texts without quotes.
fn print_json(probe: &Probe) {
    let result = |result: Result<(), Error>| match result {
        Ok(()) => r#"{"works":true}"#.to_owned(),
        Err(error) => {
            let errno = error.errno().map_or("null".to_owned(), |n| n.to_string());
            format!(
                r#"{{"works":false,"error":"{}","errno":{errno}}}"#,
                error.kind()
            )
        }
    };
    let number = |n: Option<usize>| n.map_or("null".to_owned(), |n| n.to_string());
    let large: Vec<String> = probe
        .large_pages()
        .map(|large| {
            let (bytes, free, total) =
                (large.size.bytes(), number(large.free), number(large.total));
            format!(r#"{{"bytes":{bytes},"free":{free},"total":{total}}}"#)
        })
        .collect();
    let dual: Vec<String> = probe
        .dual()
        .map(|(step, works)| format!(r#"{{"step":"{step}","result":{}}}"#, result(works)))
        .collect();
    let deny = match probe.deny_write_execute {
        Setting::Absent => "null",
        Setting::Off => "false",
        Setting::On => "true",
    };
    let implied = match probe.read_implies_exec {
        Setting::Absent => "null",
        Setting::Off => "false",
        Setting::On => "true",
    };
    println!("{{");
    println!(r#"  "page_size": {},"#, probe.page_size.bytes());
    println!(r#"  "large_pages": [{}],"#, large.join(","));
    println!(
        r#"  "address_bits": {},"#,
        number(probe.address_bits.map(|bits| bits as usize))
    );
    println!(r#"  "rwx": {},"#, result(probe.rwx));
    println!(r#"  "toggle_exec": {},"#, result(probe.toggle_exec));
    println!(r#"  "dual": [{}],"#, dual.join(","));
    println!(r#"  "landing_pads": {},"#, result(probe.landing_pads));
    println!(r#"  "core_sync": {},"#, result(probe.core_sync));
    println!(r#"  "deny_write_execute": {deny},"#);
    println!(r#"  "read_implies_exec": {implied},"#);
    println!(
        r#"  "memfd_noexec": {},"#,
        number(probe.memfd_noexec.map(usize::from))
    );
    println!(r#"  "max_map_count": {},"#, number(probe.max_map_count));
    println!(r#"  "process_map": {}"#, result(probe.process_map));
    println!("}}");
}
