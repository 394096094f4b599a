//! Blocks that go: the oldest ones beyond the budget, and those of guest code that changed.

use super::{
    Code,
    cache::{Cache, index, number},
};
use crate::{machine::lock, space::PAGE};
use alloc::vec::Vec;
use core::{mem, sync::atomic::Ordering};
use hostmem::page::AddressRange;

impl Code {
    /// Lets the oldest blocks go until the code has no more than `bytes`.
    pub(super) fn evict(&self, cache: &mut Cache, bytes: usize) {
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
}

/// Yields the numbers of the pages from one address to another.
pub(super) fn pages(first: u32, last: u32) -> impl Iterator<Item = u32> {
    first / PAGE..=last.max(first) / PAGE
}
