//! Runs the workloads on ours and on the peers, and enters what they cost.

use crate::{
    fresh::{self, On, Task},
    locks::{Alone, Locked, TwoThreads},
    pieces::{Holes, How, Made, MadeByAsmJit, MallocHoles, Purges},
};
use hostmem::{
    OsLock,
    provider::Error,
    sync::{Lock, Spin},
};
use hostmem_bench::{
    asmjit::AsmJit,
    lane::{Lane, alternate},
    program::Setting,
    row::Table,
};
use std::sync::Mutex;

/// Runs every experiment that has a wanted row.
pub fn run_all(setting: &Setting, table: &mut Table) -> Result<(), Error> {
    calls(table, "jit-first-calls", Task::FirstJit);
    calls(table, "jit-later-calls", Task::LaterJit);
    if table.wants(&["jit-make"]) {
        let mut peer = AsmJit::version().map(|_| MadeByAsmJit);
        let peer = peer.as_mut().map(|lane| lane as &mut dyn Lane);
        compare(setting, table, "jit-make", &mut Made, peer);
    }
    let ten = ["jit-ten-addresses", "jit-ten-resident"];
    let objects = ["heap-100-addresses", "heap-100-resident"];
    memory(table, ten, Task::TenFunctions, AsmJit::version().is_some());
    memory(table, objects, Task::Objects, true);
    if table.wants(&["heap-100-resident-locked"]) {
        let [_, ours] = fresh::memory(Task::ObjectsLocked, On::Ours);
        let [_, peer] = fresh::memory(Task::ObjectsLocked, On::Peer);
        table.enter("heap-100-resident-locked", ours, Some(peer));
    }
    if table.wants(&["arena-beside-holes"]) {
        let mut peer = MallocHoles::new();
        compare(
            setting,
            table,
            "arena-beside-holes",
            &mut Holes::new()?,
            Some(&mut peer),
        );
    }
    locks(setting, table);
    if table.wants(&["purge-64k"]) {
        let mut peer = Purges::new(How::Madvise)?;
        compare(
            setting,
            table,
            "purge-64k",
            &mut Purges::new(How::Ours)?,
            Some(&mut peer),
        );
    }
    Ok(())
}

/// Compares two lanes by their medians.
fn compare<'a>(
    setting: &Setting,
    table: &mut Table,
    row: &str,
    ours: &'a mut dyn Lane,
    peer: Option<&'a mut dyn Lane>,
) {
    let mut lanes = vec![ours];
    lanes.extend(peer);
    let all = alternate(&mut lanes, &setting.plan);
    all.iter().for_each(|summary| summary.note(row));
    table.enter(row, all[0].median, all.get(1).map(|peer| peer.median));
}

fn calls(table: &mut Table, row: &str, task: Task) {
    if table.wants(&[row]) {
        let peer = AsmJit::version().map(|_| fresh::calls(task, On::Peer));
        table.enter(row, fresh::calls(task, On::Ours), peer);
    }
}

fn memory(table: &mut Table, rows: [&str; 2], task: Task, has_peer: bool) {
    if !table.wants(&rows) {
        return;
    }
    let ours: [f64; 2] = fresh::memory(task, On::Ours);
    let peer = has_peer.then(|| fresh::memory::<2>(task, On::Peer));
    for (n, row) in rows.into_iter().enumerate() {
        table.enter(row, ours[n], peer.map(|peer| peer[n]));
    }
}

fn locks(setting: &Setting, table: &mut Table) {
    two_threads::<Mutex<u64>>(setting, table, "lock-two-threads-vs-std");
    #[cfg(feature = "peers")]
    two_threads::<parking_lot::Mutex<u64>>(setting, table, "lock-two-threads-vs-parking-lot");
    if table.wants(&["lock-alone-beyond-spin"]) {
        let row = "lock-alone-beyond-spin";
        let mut ours = Alone::<Lock<u64, OsLock>>::new();
        let mut spin = Alone::<Lock<u64, Spin>>::new();
        let mut std = Alone::<Mutex<u64>>::new();
        let all = alternate(&mut [&mut ours, &mut spin, &mut std], &setting.plan);
        all.iter().for_each(|summary| summary.note(row));
        let beyond = |n: usize| (all[n].median - all[1].median).max(0.0);
        table.enter(row, beyond(0), Some(beyond(2)));
    }
}

fn two_threads<L: Locked>(setting: &Setting, table: &mut Table, row: &str) {
    if table.wants(&[row]) {
        let mut ours = TwoThreads::<Lock<u64, OsLock>>::new();
        let mut peer = TwoThreads::<L>::new();
        compare(setting, table, row, &mut ours, Some(&mut peer));
    }
}
