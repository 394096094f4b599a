//! This system's provider and lock filled in, so that programs name no type parameter.

use crate::{OsLock, OsProvider, generic, heap, jit, provider::Within, range_map};

/// A heap on the system's memory: [`heap::Heap`] for this target.
///
/// ```
/// use hostmem::{Heap, HeapConfig};
/// use std::alloc::Layout;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = Heap::new(HeapConfig::new())?;
/// let local = heap.local()?; // This thread's handle.
/// let block = local.alloc(Layout::new::<[u64; 100]>())?;
/// assert!(heap.owns(block.addr().get()));
/// // SAFETY: the block is live, and not used any more.
/// unsafe { local.free(block) }?;
/// # Ok(())
/// # }
/// ```
pub type Heap = generic::Heap<OsProvider>;

/// One thread's handle of a [`Heap`]: [`heap::LocalHeap`] for this target.
pub type LocalHeap<'heap> = heap::LocalHeap<'heap, OsProvider, OsProvider, OsLock>;

/// A heap whose blocks lie below 4 GiB, made by [`low_heap`](crate::low_heap).
pub type LowHeap = generic::Heap<Within<OsProvider>, OsProvider>;

/// A heap in a region, with its metadata there too:
/// `RegionHeap::on(&region, &region, HeapConfig::new())`, or
/// [`StaticRegion::heap`](crate::StaticRegion::heap).
///
/// ```
/// use hostmem::{HeapConfig, RegionAllocator, RegionConfig, RegionHeap};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let region = RegionAllocator::new(RegionConfig::new())?;
/// let heap = RegionHeap::on(&region, &region, HeapConfig::new())?;
/// let block = heap.alloc_bytes(100)?;
/// assert!(region.query(block.addr().get()).is_none(), "it has adopted no addresses yet");
/// # Ok(())
/// # }
/// ```
pub type RegionHeap<'region> = generic::Heap<&'region RegionAllocator>;

/// Executable memory of the system: [`jit::JitAllocator`] for this target.
pub type JitAllocator = generic::JitAllocator<OsProvider>;

/// Functions in executable memory of the system: [`jit::JitRuntime`] for this target.
pub type JitRuntime = generic::JitRuntime<OsProvider>;

/// One long range of executable memory that its owner fills: [`jit::CodeRange`] for this target.
///
/// ```
/// use hostmem::{CodeRange, CodeRangeConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut code = CodeRange::new(CodeRangeConfig::new(64 << 20).guard(4096))?;
/// code.write(0, &[0x90; 16])?; // Has memory from now on, and can be executed.
/// assert_eq!(code.offset_of(code.rx().addr().get() + 8), Some(8));
/// # Ok(())
/// # }
/// ```
pub type CodeRange = jit::CodeRange<OsProvider>;

/// A queue of code that waits until no thread runs it: [`jit::RetireQueue`] for a
/// [`JitAllocator`].
pub type RetireQueue<'jit> = jit::RetireQueue<&'jit JitAllocator, OsProvider, OsLock>;

/// A place for a function that is replaced while other threads call it: [`jit::FuncCell`] for a
/// [`RetireQueue`].
///
/// ```
/// use hostmem::{FuncCell, JitConfig, JitRuntime, RetireConfig, RetireQueue};
///
/// # #[cfg(target_arch = "x86_64")]
/// # fn code(returns: u8) -> [u8; 6] { [0xb8, returns, 0, 0, 0, 0xc3] }
/// # #[cfg(target_arch = "aarch64")]
/// # fn code(returns: u8) -> [u8; 8] {
/// #     [returns << 5, returns >> 3, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = JitRuntime::new(JitConfig::new())?;
/// let queue = RetireQueue::new(runtime.allocator(), RetireConfig::new())?;
/// let first = runtime.add(&code(1))?;
/// // SAFETY: it is a whole function of this type, and does no harm.
/// let cell: FuncCell<'_, extern "C" fn() -> u32> = unsafe { FuncCell::new(&queue, first)? };
///
/// // A thread that calls it has an executor.
/// let mut me = queue.register()?;
/// assert_eq!(cell.get(&mut me)?.call(), 1);
/// // Any thread replaces it.
/// // SAFETY: it is another one of this type, and does no harm.
/// unsafe { cell.replace(runtime.add(&code(2))?)? };
/// assert_eq!(cell.get(&mut me)?.call(), 2);
/// // The first one goes once all executors had a quiescent point.
/// assert_eq!(queue.reclaim().spans, 0);
/// me.quiescent();
/// assert_eq!(queue.reclaim().spans, 1);
/// # Ok(())
/// # }
/// ```
pub type FuncCell<'queue, F> = jit::FuncCell<'queue, F, &'queue JitAllocator, OsProvider, OsLock>;

/// An allocator of addresses of the system:
/// [`region::RegionAllocator`](crate::region::RegionAllocator) for this target.
///
/// ```
/// use hostmem::{RegionAllocator, RegionConfig, provider::{Commit, Request}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let region = RegionAllocator::new(RegionConfig::new())?;
/// let mapped = region.map(&Request::bytes(1 << 20), Commit::READ_WRITE, 0)?;
/// // SAFETY: mapped just now, and not used any more.
/// unsafe { region.unmap(mapped)? };
/// # Ok(())
/// # }
/// ```
pub type RegionAllocator = generic::RegionAllocator<OsProvider>;

/// An ordered map of disjoint address ranges, with nodes in memory of the system:
/// [`range_map::RangeMap`] for this target.
///
/// ```
/// use hostmem::{RangeMap, page::{AddressRange, PageSize}, range_map::GapRequest};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let map = RangeMap::new(AddressRange::LOW_4G, PageSize::KIB_4, 16 << 20)?;
/// let gap = map.find_gap(&GapRequest::bytes(8 << 12))?;
/// map.insert_new(gap, 3_u8)?;
/// assert_eq!(map.query(gap.start() + 100), Some((gap, 3)));
/// # Ok(())
/// # }
/// ```
pub type RangeMap<T> = range_map::RangeMap<T, OsProvider, OsLock>;
