//! Runs the programs on ours and on the peers by turns, and enters what they cost.

use crate::{
    mallocs::{self, Malloc},
    process::{Cost, run},
    programs::{OWN, Program, SYSTEM, compile, make},
    rows::{PEERS, names},
};
use hostmem::GlobalHeap;
use hostmem_bench::{clock::CpuTime, program::Setting, row::Table};
use std::{
    alloc::{GlobalAlloc, Layout},
    env, fs,
    hint::black_box,
    io,
    path::Path,
    process::Command,
};

/// Peers that take up to so many times the CPU time of the quickest are those whose memory counts.
const QUICK: f64 = 1.1;

/// Runs every experiment that has a wanted row.
pub fn run_all(setting: &Setting, table: &mut Table) -> io::Result<()> {
    let folder = env::temp_dir().join(format!("hostmem-programs-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = in_folder(setting, table, &folder);
    fs::remove_dir_all(&folder)?;
    mallocs::clean()?;
    result
}

fn in_folder(setting: &Setting, table: &mut Table, folder: &Path) -> io::Result<()> {
    let is_quick = setting.plan.haste > 1;
    let (share, rounds) = if is_quick { (10, 2) } else { (100, 7) };
    for name in OWN.into_iter().chain(SYSTEM) {
        let Some(rows) = names(name) else { continue };
        if !rows.cpu.iter().any(|row| table.wants(&[row])) && !table.wants(&[rows.peak]) {
            continue;
        }
        let program = make(name, folder, share)?;
        if let Err(error) = run(&mut program.command()) {
            println!("note: {name} does not run here: {error}");
            continue;
        }
        compare(&program, rounds, table)?;
    }
    pairs(is_quick, folder, table)
}

/// The least CPU time and the least peak of some rounds.
#[derive(Debug)]
struct Best {
    malloc: Malloc,
    cost: Cost,
    said: String,
}

/// Runs a program on all mallocs by turns.
fn compare(program: &Program, rounds: usize, table: &mut Table) -> io::Result<()> {
    let mut all: Vec<Best> = Vec::new();
    let mut mallocs = mallocs::peers();
    mallocs.push(mallocs::ours());
    for _ in 0..rounds {
        for malloc in mallocs.iter().cloned() {
            let mut command = program.command();
            let (cost, said) = run(malloc.preload(&mut command))?;
            match all.iter_mut().find(|best| best.malloc.name == malloc.name) {
                Some(best) => {
                    best.cost.cpu_ms = best.cost.cpu_ms.min(cost.cpu_ms);
                    best.cost.peak_mb = best.cost.peak_mb.min(cost.peak_mb);
                }
                None => all.push(Best { malloc, cost, said }),
            }
        }
        // Another one goes first each time.
        mallocs.rotate_left(1);
    }
    let Some(ours) = all.iter().find(|best| best.malloc.name == "ours") else {
        return Ok(());
    };
    let peers: Vec<_> = all
        .iter()
        .filter(|best| best.malloc.name != "ours")
        .collect();
    for peer in &peers {
        if peer.said != ours.said {
            let who = peer.malloc.name;
            return Err(io::Error::other(format!(
                "{} prints something else on {who}",
                program.name
            )));
        }
    }
    let costs = all.iter().map(|best| {
        let Cost { cpu_ms, peak_mb } = best.cost;
        format!("{} {cpu_ms:.0} ms {peak_mb:.1} MB", best.malloc.name)
    });
    let costs: Vec<_> = costs.collect();
    println!("note: {}: {}", program.name, costs.join(", "));
    let Some(rows) = names(program.name) else {
        return Ok(());
    };
    for (name, row) in PEERS.into_iter().zip(rows.cpu) {
        let peer = peers.iter().find(|peer| peer.malloc.name == name);
        table.enter(row, ours.cost.cpu_ms, peer.map(|peer| peer.cost.cpu_ms));
    }
    let cpu = |best: &&&Best| best.cost.cpu_ms;
    let least = peers.iter().map(|peer| cpu(&peer)).fold(f64::MAX, f64::min);
    let quick = peers.iter().filter(|peer| cpu(peer) <= least * QUICK);
    let leanest = quick.map(|peer| peer.cost.peak_mb).fold(f64::MAX, f64::min);
    table.enter(rows.peak, ours.cost.peak_mb, Some(leanest));
    Ok(())
}

/// Measures calls that take a few instructions.
fn pairs(is_quick: bool, folder: &Path, table: &mut Table) -> io::Result<()> {
    let wanted = [
        "pair-preloaded-vs-linked",
        "pair-beyond-global-heap",
        "known-allocation",
        "block-of",
    ];
    if !table.wants(&wanted) {
        return Ok(());
    }
    let archive = mallocs::archive().display().to_string();
    let program = compile("pair", folder, "pair", &[])?;
    let linked = compile("pair", folder, "pair-linked", &["-static", &archive])?;
    let rounds = if is_quick { 2 } else { 7 };
    let [
        mut pair,
        mut pair_linked,
        mut pair_rust,
        mut known,
        mut block_of,
    ] = [f64::MAX; 5];
    for _ in 0..rounds {
        pair = pair.min(ns(
            mallocs::ours().preload(&mut Command::new(&program)),
            "pairs",
        )?);
        pair_linked = pair_linked.min(ns(&mut Command::new(&linked), "pairs")?);
        pair_rust = pair_rust.min(rust_pairs());
        known = known.min(ns(
            mallocs::ours().preload(&mut Command::new(&program)),
            "known",
        )?);
        block_of = block_of.min(ns(
            mallocs::ours().preload(&mut Command::new(&program)),
            "block-of",
        )?);
    }
    println!(
        "note: a pair: preloaded {pair:.2} ns, linked {pair_linked:.2} ns, GlobalHeap {pair_rust:.2} ns"
    );
    table.enter(wanted[0], pair, Some(pair_linked));
    table.enter(wanted[1], pair - pair_rust, Some(pair_rust));
    table.enter(wanted[2], known, None);
    table.enter(wanted[3], block_of, None);
    Ok(())
}

/// Runs `pair.c`; returns the nanoseconds that it prints.
fn ns(command: &mut Command, what: &str) -> io::Result<f64> {
    command.stderr(std::process::Stdio::null());
    let (_, said) = run(command.arg(what))?;
    said.trim().parse().map_err(io::Error::other)
}

/// Does what `pair.c` does on the heap of a program in Rust; returns nanoseconds of a pair.
fn rust_pairs() -> f64 {
    const HEAP: GlobalHeap = GlobalHeap::new();
    const CALLS: u32 = 1 << 20;
    let layout = Layout::from_size_align(64, 16).unwrap_or(Layout::new::<[u128; 4]>());
    let mut least = f64::MAX;
    for _ in 0..60 {
        let before = CpuTime::now();
        for _ in 0..CALLS {
            // SAFETY: the layout is not of size zero.
            let block = unsafe { HEAP.alloc(layout) };
            let block = black_box(block);
            // SAFETY: allocated above with this layout, and not used any more.
            unsafe { HEAP.dealloc(block, layout) };
        }
        let took = before.elapsed();
        least = least.min(took.as_nanos() as f64 / f64::from(CALLS));
    }
    least
}
