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
//!
//! `translate` and the CPU's file make the code, `cache` knows all blocks, `remove` lets them go, and
//! `run` has the threads' part.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod cache;
pub(crate) mod cpu;
mod remove;
mod run;
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
pub(crate) use run::Runner;

use crate::{
    arch::Context,
    host::Region,
    interpret::{Hart, Trap},
    machine::{Mutex, lock, machine},
    space::{Reader, Space},
    sys::{self, say},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use cache::{Block, Cache, Exit, NONE, index, number, take_place};
use core::mem;
use hostmem::{
    OsLock,
    jit::{JitAllocator, JitConfig, JitError, RetireConfig, RetireQueue},
    page::AddressRange,
    provider::{ErrorKind, Placement},
};
use remove::pages;

use translate::{HEADER, HOLDS, INDIRECT, STEP, Translated, put};

type Jit = JitAllocator<&'static Region, &'static Region, OsLock>;
type Queue = RetireQueue<Jit, &'static Region, OsLock>;
type Enter = unsafe extern "C" fn(*mut Hart, *const u8) -> u32;

/// Bytes of code at most, by default. Beyond, the oldest blocks go.
pub(crate) const BUDGET: usize = 64 << 20;

/// Blocks that may wait until no thread runs them.
const WAITING: usize = 1 << 16;

/// Threads that a guest may have.
const THREADS: usize = 1024;

/// What `--stats` prints.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) blocks: u64,
    pub(crate) instructions: u64,
    pub(crate) links: u64,
    /// Indirect jumps that the table of the thread did not have.
    pub(crate) misses: u64,
    pub(crate) evicted: u64,
    pub(crate) invalidated: u64,
    pub(crate) live_blocks: usize,
    pub(crate) live_bytes: usize,
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

/// Notes a block for a profiler: where its code is, how long, and of which guest address.
pub(crate) type Names = Box<dyn Fn(usize, usize, u32) + Send + Sync>;

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
            cache.counts.misses += 1;
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
            names(rx, bytes.len(), key & !HOLDS);
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
    say!("emulator: {what}: {error}\n");
    sys::exit(126)
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
    let field: *mut u32 = core::ptr::with_exposed_provenance_mut(field);
    // SAFETY: in translated code the stack pointer is at the thread's registers.
    unsafe { field.write(source) };
    context.go_on_at(code.leave, STEP);
    true
}
