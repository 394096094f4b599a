//! Claims everything above 4 GiB, as an emulator of 32-bit guests does, maps memory, code and a
//! thread's stack in it, and prints what lies where, before and after.
//!
//! ```text
//! cargo run --release --example regions
//! cargo run --release --example regions -- --svg out.svg
//! ```

#[cfg(target_os = "linux")]
mod map;
#[cfg(target_os = "linux")]
mod picture;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("this example claims address space on Linux");
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let svg = match arguments.as_slice() {
        [] => None,
        [flag, path] if flag == "--svg" => Some(path),
        _ => {
            eprintln!("usage: regions [--svg FILE]");
            return ExitCode::from(2);
        }
    };
    match run(svg.map(std::path::Path::new)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("regions: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(svg: Option<&std::path::Path>) -> Result<(), Box<dyn std::error::Error>> {
    use hostmem::{
        JitConfig, OsProvider, RegionAllocator, RegionConfig,
        generic::JitAllocator,
        provider::{Commit, Request},
        region::{ClaimRequest, GuardedStack, claim, survey},
    };

    let os = OsProvider::new();
    let host = RegionAllocator::new(RegionConfig::new())?;
    let before = map::read(&host)?;

    let request = ClaimRequest::above(4 << 30);
    // Twice as many as there are gaps, since others may map something meanwhile.
    let gaps = survey(os, &request)?.ranges;
    let mut slots = vec![None; 2 * gaps + 64];
    let mut claimed = claim(os, &request, &mut slots)?;
    for range in claimed.usable() {
        // SAFETY: claimed just now, and given back only once the region is gone.
        unsafe { host.adopt(range)? };
    }
    let memory = host.map(&Request::bytes(64 << 20), Commit::READ_WRITE, 1)?;
    let stack = GuardedStack::new(&host, 8 << 20, 64 << 10)?;
    let jit = JitAllocator::on(&host, &host, JitConfig::new())?;
    let span = jit.alloc(4096)?;
    let after = map::read(&host)?;

    println!("before\n");
    map::print(&before);
    println!("\nafter: claimed, with memory, a stack and code in it\n");
    map::print(&after);
    println!("\n{:?}", claimed.report());
    println!("{:?}", host.statistics());
    println!("{} mappings of the host", host.host_mappings());
    if let Some(path) = svg {
        std::fs::write(path, picture::draw(&before, &after))?;
        println!("drawn in {}", path.display());
    }

    jit.release(span)?;
    drop(jit);
    // SAFETY: no thread runs on it.
    unsafe { stack.release() }.map_err(|(_, error)| error)?;
    // SAFETY: no other code uses it.
    unsafe { host.unmap(memory)? };
    drop(host);
    // SAFETY: nothing lies in it any more.
    unsafe { claimed.give_back()? };
    Ok(())
}
