//! Translated code: blocks in hostmem's JIT allocator, found by guest address, linked by patching.
//!
//! ```text
//!   a block's span   │ header │ code … jcc → stub or block │ stubs │ table: code → guest address │
//!
//!   run ── enter ──► block A ══ linked ══► block B ── indirect ──► by the thread's table ── …
//!    ▲                  │ not linked yet      │ ecall, fence.i, a fault, an interrupt
//!    └───── leave ──────┴─────────────────────┘
//! ```
//!
//! All changes are made under one lock, and threads run without it. What a thread may be running is
//! not overwritten: a block that goes is unlinked, retired, and released once every thread has been
//! in `run` since (`RetireQueue`). The field of a jump is four bytes at a multiple of four, so that
//! it changes in one step.

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(crate) mod cpu;
#[cfg(test)]
mod tests;
mod translate;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as target;
#[cfg(target_arch = "x86_64")]
use x86_64 as target;

pub(crate) use cpu::Cpu;

use crate::{
    arch::Context,
    host::Region,
    interpret::{Hart, Trap, UNRESERVED, decode_at, step},
    machine::{lock, machine},
    perf::Names,
    space::{GuestMemory, PAGE, Reader, Space},
};
use hostmem::{
    OsLock,
    jit::{Barrier, Executor, JitAllocator, JitConfig, JitError, RetireConfig, RetireQueue, Span},
    page::AddressRange,
    provider::{ErrorKind, Placement},
};
use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, atomic::Ordering},
};
use translate::{HEADER, HOLDS, INDIRECT, INTERRUPTED, STEP, Translated, put};

type Jit = JitAllocator<&'static Region, &'static Region, OsLock>;
type Queue = RetireQueue<Jit, &'static Region, OsLock>;
type Enter = unsafe extern "C" fn(*mut Hart, *const u8) -> u32;

/// Bytes of code at most, by default. Beyond, the oldest blocks go.
pub(crate) const BUDGET: usize = 64 << 20;

/// Blocks that may wait until no thread runs them.
const WAITING: usize = 1 << 16;

/// Threads that a guest may have.
const THREADS: usize = 1024;

/// The number of no exit.
const NONE: u32 = u32::MAX;

/// A block of translated code.
struct Block {
    key: u32,
    /// The last guest address of its instructions.
    last: u32,
    span: Span,
    exits: Vec<u32>,
    /// Exits of blocks that are linked to this one.
    incoming: Vec<u32>,
}

/// A jump of a block to a guest address.
#[derive(Clone, Copy)]
struct Exit {
    target: u32,
    /// Where its field is.
    site: usize,
    /// Where it leads when it is not linked.
    stub: usize,
    linked: u32,
}

/// What `--stats` prints.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) blocks: u64,
    pub(crate) instructions: u64,
    pub(crate) links: u64,
    pub(crate) evicted: u64,
    pub(crate) invalidated: u64,
    pub(crate) live_blocks: usize,
    pub(crate) live_bytes: usize,
}

/// All blocks, and who leads where.
#[derive(Default)]
struct Cache {
    by_key: HashMap<u32, u32>,
    by_page: HashMap<u32, Vec<u32>>,
    blocks: Vec<Option<Block>>,
    free_blocks: Vec<u32>,
    exits: Vec<Option<Exit>>,
    free_exits: Vec<u32>,
    /// Blocks in the order in which they were made, with their addresses; some are gone.
    ages: VecDeque<(u32, u32)>,
    bytes: usize,
    counts: Counts,
    /// Spans that the queue had no room for.
    unretired: Vec<Span>,
}

/// The translated code of a guest.
pub(crate) struct Code {
    queue: Queue,
    cache: Mutex<Cache>,
    cpus: Mutex<Vec<Arc<Cpu>>>,
    enter: Enter,
    leave: usize,
    budget: usize,
    names: Option<Names>,
}

/// What a thread needs to run code.
pub(crate) struct Runner {
    executor: Executor<'static>,
    cpu: Arc<Cpu>,
    code: &'static Code,
}

/// Where in the cache a number leads.
fn index(number: u32) -> usize {
    number as usize
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or_else(|_| unreachable!("there is less memory"))
}

/// Takes a free place, or makes one.
fn take_place<T>(places: &mut Vec<Option<T>>, free: &mut Vec<u32>) -> u32 {
    free.pop().unwrap_or_else(|| {
        places.push(None);
        number(places.len() - 1)
    })
}

impl Code {
    /// Makes an empty cache, with the gates into its code.
    ///
    /// # Errors
    ///
    /// Where the host has no memory that can be both written and executed, by two views.
    pub(crate) fn new(
        region: &'static Region,
        budget: usize,
        names: Option<Names>,
    ) -> Result<Self, JitError> {
        let gap = region.largest_gap(AddressRange::ALL);
        let window = gap.and_then(|gap| {
            let end = gap.start().saturating_add(target::WINDOW - 1);
            AddressRange::new(gap.start(), end.min(gap.last()))
        });
        let window = window.ok_or(JitError::Metadata(ErrorKind::Exhausted.into()))?;
        let config = JitConfig::new()
            .rx(Placement::within(window))
            .granularity(32)
            .strict(true)
            .name(c"guest code");
        let jit = Jit::on(region, region, config)?;
        let gates = target::gates();
        let mut span = jit.alloc(gates.code.len())?;
        jit.write(&mut span, 0, &gates.code)?;
        let start = span.rx();
        // SAFETY: the code is a function of this type, and its span is never released.
        let enter = unsafe { mem::transmute::<*mut u8, Enter>(start.as_ptr()) };
        let config = RetireConfig::new().waiting(WAITING).executors(THREADS);
        Ok(Self {
            queue: Queue::on(jit, region, config)?,
            cache: Mutex::new(Cache::default()),
            cpus: Mutex::new(Vec::new()),
            enter,
            leave: start.addr().get() + gates.leave,
            budget,
            names,
        })
    }

    /// Prepares the calling thread for running code.
    ///
    /// # Errors
    ///
    /// Where there are too many threads.
    pub(crate) fn runner(&'static self, cpu: Arc<Cpu>) -> Result<Runner, JitError> {
        let executor = self.queue.register()?;
        lock(&self.cpus).push(cpu.clone());
        Ok(Runner {
            executor,
            cpu,
            code: self,
        })
    }

    /// Returns what was done, and what is there.
    pub(crate) fn counts(&self) -> Counts {
        let cache = lock(&self.cache);
        Counts {
            live_blocks: cache.by_key.len(),
            live_bytes: cache.bytes,
            ..cache.counts
        }
    }

    /// Returns the code of a block, and makes `exit`, or the thread's table, lead there.
    fn find(&self, runner: &Runner, space: &Space, key: u32, exit: u32) -> Result<usize, Trap> {
        let mut cache = lock(&self.cache);
        let block = match cache.by_key.get(&key) {
            Some(block) => *block,
            None => {
                let translated = translate::translate(&Reader::new(space), key)?;
                self.install(&mut cache, key, translated)
            }
        };
        let code = cache.code_of(block);
        if exit == INDIRECT {
            runner.cpu.set_place(key, code as u64);
        } else if exit < INDIRECT {
            cache.link(self.queue.allocator(), exit, block, key);
        }
        Ok(code)
    }

    /// Places a translated block; returns its number.
    fn install(&self, cache: &mut Cache, key: u32, translated: Translated) -> u32 {
        let Translated {
            mut bytes,
            exits,
            leaves,
            end,
            instructions,
        } = translated;
        if cache.bytes + bytes.len() > self.budget {
            self.evict(cache, self.budget / 4 * 3);
        }
        let jit = self.queue.allocator();
        let mut span = jit.alloc(bytes.len()).unwrap_or_else(|_| {
            // Without memory: all other code goes, as far as no thread runs it.
            self.evict(cache, 0);
            let _ = self.queue.reclaim();
            jit.alloc(bytes.len())
                .unwrap_or_else(|error| fail("no memory for translated code", &error))
        });
        let rx = span.rx().addr().get();
        for site in leaves {
            put(&mut bytes, site, target::field(self.leave, rx + site));
        }
        let block = take_place(&mut cache.blocks, &mut cache.free_blocks);
        let mut numbers = Vec::with_capacity(exits.len());
        for exit in exits {
            let number = take_place(&mut cache.exits, &mut cache.free_exits);
            put(&mut bytes, exit.number_at, number.to_le_bytes());
            cache.exits[index(number)] = Some(Exit {
                target: exit.target,
                site: rx + exit.site,
                stub: rx + exit.stub,
                linked: NONE,
            });
            numbers.push(number);
        }
        if let Err(error) = jit.write(&mut span, 0, &bytes) {
            fail("translated code cannot be written", &error);
        }
        if let Some(names) = &self.names {
            names.note(rx, bytes.len(), key & !HOLDS);
        }
        let last = end.wrapping_sub(1);
        for page in pages(key, last) {
            cache.by_page.entry(page).or_default().push(block);
        }
        cache.by_key.insert(key, block);
        cache.ages.push_back((block, key));
        cache.bytes += span.len_bytes();
        cache.counts.blocks += 1;
        cache.counts.instructions += instructions as u64;
        cache.blocks[index(block)] = Some(Block {
            key,
            last,
            span,
            exits: numbers,
            incoming: Vec::new(),
        });
        block
    }

    /// Lets the oldest blocks go until the code has no more than `bytes`.
    fn evict(&self, cache: &mut Cache, bytes: usize) {
        while cache.bytes > bytes {
            let Some((block, key)) = cache.ages.pop_front() else {
                break;
            };
            if cache.by_key.get(&key) == Some(&block) {
                cache.counts.evicted += 1;
                self.remove(cache, block);
            }
        }
        let _ = self.queue.reclaim();
    }

    /// Makes a block unreachable, and retires its memory.
    fn remove(&self, cache: &mut Cache, block: u32) {
        let Some(gone) = cache.blocks[index(block)].take() else {
            return;
        };
        for exit in &gone.incoming {
            cache.unlink(self.queue.allocator(), *exit);
        }
        for number in &gone.exits {
            if let Some(exit) = cache.exits[index(*number)].take()
                && let Some(Some(next)) = cache.blocks.get_mut(index(exit.linked))
            {
                next.incoming.retain(|other| other != number);
            }
            cache.free_exits.push(*number);
        }
        cache.by_key.remove(&gone.key);
        for page in pages(gone.key, gone.last) {
            if let Some(list) = cache.by_page.get_mut(&page) {
                list.retain(|other| *other != block);
                if list.is_empty() {
                    cache.by_page.remove(&page);
                }
            }
        }
        for cpu in lock(&self.cpus).iter() {
            cpu.clear_place(gone.key);
        }
        cache.free_blocks.push(block);
        cache.bytes -= gone.span.len_bytes();
        let mut waiting = mem::take(&mut cache.unretired);
        waiting.push(gone.span);
        for span in waiting {
            if let Err(refused) = self.queue.retire(span) {
                cache.unretired.push(refused.span);
            }
        }
    }

    /// Lets all blocks go that have an instruction in a range of guest addresses.
    pub(crate) fn invalidate(&self, range: AddressRange) {
        let mut cache = lock(&self.cache);
        let touched: Vec<u32> = if range.last() - range.start() > cache.by_page.len() << 12 {
            let within = |page: &&u32| range.contains((**page * PAGE) as usize);
            cache.by_page.keys().filter(within).copied().collect()
        } else {
            let pages = range.start() / PAGE as usize..=range.last() / PAGE as usize;
            pages.map(number).collect()
        };
        self.remove_pages(&mut cache, &touched);
    }

    /// Lets all blocks go of pages that `which` names by their addresses.
    pub(crate) fn invalidate_where(&self, which: impl Fn(u32) -> bool) {
        let mut cache = lock(&self.cache);
        let touched = cache.by_page.keys().filter(|page| which(**page * PAGE));
        let touched: Vec<u32> = touched.copied().collect();
        self.remove_pages(&mut cache, &touched);
    }

    fn remove_pages(&self, cache: &mut Cache, pages: &[u32]) {
        let mut any = false;
        for page in pages {
            for block in cache.by_page.get(page).cloned().unwrap_or_default() {
                cache.counts.invalidated += 1;
                self.remove(cache, block);
                any = true;
            }
        }
        if any {
            // Threads that are in that code leave it soon, so that its memory can be released.
            for cpu in lock(&self.cpus).iter() {
                cpu.interrupt.store(1, Ordering::Release);
            }
            let _ = self.queue.reclaim();
        }
    }

    /// Says where a place in translated code came from: for the handler of faults, which takes no
    /// lock, and finds all that it needs in the block itself.
    fn source_of(&self, pc: usize) -> Option<u32> {
        let span = self.queue.allocator().query(pc)?;
        let start = span.rx;
        // SAFETY: a live span of at least a header, readable through its executable view.
        let header = unsafe { start.cast::<[u32; HEADER / 4]>().read_unaligned() };
        let [_, table, entries, _] = header;
        let (table, entries) = (index(table), index(entries));
        let fits = entries
            .checked_mul(8)
            .and_then(|len| len.checked_add(table));
        if fits.is_none_or(|end| end > span.len) {
            // The gates, which do not fault.
            return None;
        }
        let offset = number(pc - start.addr().get());
        let entry = |at: usize| {
            // SAFETY: within the span, as just compared.
            let entry = unsafe { start.add(table + at * 8) };
            // SAFETY: two words of the block's table.
            unsafe { entry.cast::<[u32; 2]>().read_unaligned() }
        };
        let (mut low, mut high) = (0, entries);
        while low < high {
            let middle = usize::midpoint(low, high);
            if entry(middle)[0] <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).map(|last| entry(last)[1])
    }
}

/// Ends the program where it cannot go on.
fn fail(what: &str, error: &JitError) -> ! {
    eprintln!("emulator: {what}: {error}");
    std::process::exit(126)
}

/// Yields the numbers of the pages from one address to another.
fn pages(first: u32, last: u32) -> impl Iterator<Item = u32> {
    first / PAGE..=last.max(first) / PAGE
}

impl Cache {
    fn block(&self, number: u32) -> Option<&Block> {
        self.blocks.get(index(number))?.as_ref()
    }

    /// Returns where a block's code begins.
    fn code_of(&self, block: u32) -> usize {
        let block = self.block(block);
        block.map_or(0, |block| block.span.rx().addr().get() + HEADER)
    }

    /// Makes an exit lead to a block. It may be another's than was left, with the same target.
    fn link(&mut self, jit: &Jit, exit: u32, block: u32, key: u32) {
        let code = self.code_of(block);
        let Some(Some(found)) = self.exits.get_mut(index(exit)) else {
            return;
        };
        if found.target != key || found.linked != NONE {
            return;
        }
        found.linked = block;
        patch(jit, found.site, code);
        self.counts.links += 1;
        if let Some(Some(block)) = self.blocks.get_mut(index(block)) {
            block.incoming.push(exit);
        }
    }

    /// Makes an exit lead out of the code.
    fn unlink(&mut self, jit: &Jit, exit: u32) {
        if let Some(Some(found)) = self.exits.get_mut(index(exit)) {
            found.linked = NONE;
            patch(jit, found.site, found.stub);
        }
    }
}

/// Makes the jump with its field at `site` lead to `code`, in one step; threads may be running it.
fn patch(jit: &Jit, site: usize, code: usize) {
    let field = u32::from_le_bytes(target::field(code, site));
    // SAFETY: a field of a block that is live under the lock of the cache, and is written by
    // patches alone since the block was placed.
    if let Err(error) = unsafe { jit.patch_at(site, field, Barrier::Never) } {
        fail("translated code cannot be linked", &error);
    }
}

impl Runner {
    /// Runs guest code until something is to be done for the guest.
    pub(crate) fn run(&self, hart: &mut Hart, space: &Space) -> Trap {
        let registers = self.cpu.registers.get();
        // SAFETY: the thread's own registers, which no code runs on now.
        unsafe { registers.write(hart.clone()) };
        let trap = self.run_on(registers, space);
        // SAFETY: as above.
        *hart = unsafe { (*registers).clone() };
        hart.reserved = UNRESERVED;
        trap
    }

    fn run_on(&self, registers: *mut Hart, space: &Space) -> Trap {
        let mut exit = STEP;
        // SAFETY: the thread's own registers, which no code runs on now.
        let mut key = unsafe { (*registers).pc };
        loop {
            self.executor.quiescent();
            if self.cpu.interrupt.load(Ordering::Acquire) != 0 {
                return Trap::Interrupted;
            }
            let code = match self.code.find(self, space, key, exit) {
                Ok(code) => code,
                Err(trap) => return trap,
            };
            let code = std::ptr::with_exposed_provenance(code);
            // SAFETY: a block's code, which is not released before this thread is quiescent again,
            // on registers that are part of a thread's state.
            exit = unsafe { (self.code.enter)(registers, code) };
            // SAFETY: as above; the code has returned.
            let hart = unsafe { &mut *registers };
            key = hart.pc;
            hart.pc = key & !HOLDS;
            match exit {
                INTERRUPTED => return Trap::Interrupted,
                STEP => {
                    let memory = GuestMemory(space);
                    let done = decode_at(&memory, hart.pc)
                        .and_then(|inst| step(hart, &memory, &inst, hart.pc));
                    match done {
                        Ok(next) => hart.pc = next,
                        Err(trap) => return trap,
                    }
                    // What goes on is a block for those that hold none.
                    hart.reserved = UNRESERVED;
                    key = hart.pc;
                }
                _ => {}
            }
        }
    }

    /// Says that the thread runs no code until [`Runner::online`].
    pub(crate) fn offline(&self) {
        self.executor.offline();
    }

    pub(crate) fn online(&self) {
        self.executor.online();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        lock(&self.code.cpus).retain(|cpu| !Arc::ptr_eq(cpu, &self.cpu));
    }
}

/// Lets a thread that faulted in translated code leave it, at the guest instruction that faulted;
/// says whether it was there.
pub(crate) fn recover(context: &mut Context) -> bool {
    let Some(code) = machine().and_then(|machine| machine.code.as_ref()) else {
        return false;
    };
    let Some(source) = code.source_of(context.pc()) else {
        return false;
    };
    let field = context.stack().wrapping_add_signed(cpu::PC as isize);
    let field: *mut u32 = std::ptr::with_exposed_provenance_mut(field);
    // SAFETY: in translated code the stack pointer is at the thread's registers.
    unsafe { field.write(source) };
    context.go_on_at(code.leave, STEP);
    true
}
