//! Hooks that keep locks, tables and shared pages usable across a fork.
//!
//! | what forks | trait | in the parent | in the child |
//! |---|---|---|---|
//! | providers with state, regions, range maps, heaps | [`ForkChild`] | nothing | repairs |
//! | code, retire queues | [`ForkHooks`] | locks, copies | takes the copy, unlocks |
//!
//! The hooks are for children that have memory of their own: those of `fork`, and of `clone`
//! without
//! `CLONE_VM`. A child of `vfork`, or of `clone` with `CLONE_VM`, runs in its parent's memory while
//! the parent's threads go on: it calls no hook and no object that has one, until it calls `exec`.

use crate::{
    page::PageRange,
    provider::{Commit, Error, PageProvider, Request},
};
use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering, compiler_fence},
};

/// The fork hook of a type that only needs repair in the child.
///
/// The parent takes no lock for a fork and waits for no thread, so a child may find a lock held and
/// a change half done by a thread that it does not have. It builds what the lock guards anew, from
/// what is whole after every step of a change, and leaves the lock that was held behind.
///
/// Where the lock was held by the forking thread itself, interrupted by a signal handler that
/// forked, the interrupted call resumes in the child when the handler returns, and completes there.
///
/// # Safety
///
/// In a child of one thread, after `fork_child` returned `Ok`, every call completes, whatever other
/// threads of the parent were doing, and what had been done before the fork is there.
pub unsafe trait ForkChild {
    /// Repairs the child's copy. Where no lock was held there is nothing to repair.
    ///
    /// # Errors
    ///
    /// What the child could not get. It may be called again; until it succeeds, calls that take a
    /// lock may wait without end, and those that take none work.
    ///
    /// # Safety
    ///
    /// The caller is the only thread of a process that was forked, with memory of its own, and has
    /// called nothing of the object but what takes no lock. `fork_child` was called on all
    /// providers that this object makes its calls on.
    unsafe fn fork_child(&self) -> Result<(), Error>;
}

/// The fork hooks of a type that must be locked or copied before a fork.
///
/// Raw `clone` runs no atfork handlers, so these are explicit. A type hooks only itself, never its
/// provider, which others may share.
///
/// # Safety
///
/// Between a successful `fork_prepare` and the call after the fork, no other thread of the process
/// can change the object.
pub unsafe trait ForkHooks {
    /// Locks the object and gets it ready to be copied.
    ///
    /// # Errors
    ///
    /// What the preparation needed and did not get. The object is unlocked and as before; the
    /// caller should not fork, or fork a child that never uses the object.
    fn fork_prepare(&self) -> Result<(), Error>;

    /// Unlocks the object in the parent, also where no fork came about.
    ///
    /// # Safety
    ///
    /// This thread called `fork_prepare`, which returned `Ok`, and has not yet called this.
    unsafe fn fork_parent(&self);

    /// Makes the child's copy its own and unlocks it.
    ///
    /// # Errors
    ///
    /// What the child could not get. The object is unlocked and usable; its documentation says
    /// what of it was lost.
    ///
    /// # Safety
    ///
    /// The caller is the only thread of a process forked after this thread's `fork_prepare`
    /// returned `Ok`, and has not yet called this.
    unsafe fn fork_child(&self) -> Result<(), Error>;
}

/// Forks with the hooks of objects around it. Both lists begin with the outermost object: what
/// stands on a provider comes before that provider, and what locks first comes first. Returns what
/// `fork` returned: whether this is the child.
///
/// In the child `children` are repaired before `objects` are unlocked, each list from its end. A
/// process that is forked by somebody else, a raw `clone` for instance, calls
/// [`ForkChild::fork_child`] in that order by itself.
///
/// # Errors
///
/// The first error of a hook. If a `fork_prepare` failed there was no fork; if a `fork_child`
/// failed this is the child, all hooks ran, and the second value says so.
///
/// # Safety
///
/// `fork` clones the process at most once and returns `true` exactly in the child, which has memory
/// of its own and whose only thread is the caller's copy.
pub unsafe fn around_fork(
    objects: &[&dyn ForkHooks],
    children: &[&dyn ForkChild],
    fork: impl FnOnce() -> bool,
) -> Result<bool, ForkError> {
    for (n, object) in objects.iter().enumerate() {
        if let Err(error) = object.fork_prepare() {
            for prepared in objects.iter().take(n).rev() {
                // SAFETY: its fork_prepare returned Ok above, on this thread, and this is the
                // only call that answers it.
                unsafe { prepared.fork_parent() };
            }
            return Err(ForkError {
                error,
                in_child: false,
            });
        }
    }
    let in_child = fork();
    let mut first = None;
    if in_child {
        for object in children.iter().rev() {
            // SAFETY: this is the only thread of a child with memory of its own, by what `# Safety`
            // says of `fork`; providers come first, by the order of the list.
            let result = unsafe { object.fork_child() };
            first = first.or(result.err());
        }
    }
    for object in objects.iter().rev() {
        if in_child {
            // SAFETY: this is the child's only thread, by what `# Safety` says of `fork`; its
            // fork_prepare returned Ok above.
            let result = unsafe { object.fork_child() };
            first = first.or(result.err());
        } else {
            // SAFETY: prepared above on this thread; answered once, here.
            unsafe { object.fork_parent() };
        }
    }
    match first {
        Some(error) => Err(ForkError { error, in_child }),
        None => Ok(in_child),
    }
}

/// A lock and what it guards, in the place of which a forked child puts others.
///
/// ```text
///   first ◄── older ── later ◄── older ── later ◄── current
///   held by a dead thread, or by a frame that resumes and finishes here
/// ```
///
/// Values that were replaced stay until the end: an interrupted frame may still be in them.
pub(crate) struct Renewable<T> {
    first: T,
    /// A [`Later`], or null. Without its type, which would keep a provider with references from
    /// being used where they live shorter: what is put here is made of what is here, so they never
    /// do.
    later: AtomicPtr<()>,
    owns: PhantomData<T>,
}

/// A value in pages of its own.
struct Later<T> {
    value: ManuallyDrop<T>,
    older: *mut Self,
    pages: PageRange,
}

impl<T> Renewable<T> {
    pub(crate) const fn new(first: T) -> Self {
        Self {
            first,
            later: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }

    #[inline]
    fn later(&self) -> *mut Later<T> {
        self.later.load(Ordering::Acquire).cast()
    }

    /// Returns the value that is current.
    #[inline]
    pub(crate) fn current(&self) -> &T {
        // SAFETY: what `renew` published is initialised, and stays until `dispose`, which has self
        // exclusively.
        let later = unsafe { self.later().as_ref() };
        later.map_or(&self.first, |later| &*later.value)
    }

    /// Returns the value that is current, by exclusive access.
    pub(crate) fn current_mut(&mut self) -> &mut T {
        // SAFETY: what renew published is initialised, and stays until dispose; self is borrowed
        // exclusively.
        let later = unsafe { self.later().as_mut() };
        later.map_or(&mut self.first, |later| &mut *later.value)
    }

    /// Says whether a value is the one that no fork has replaced yet.
    pub(crate) fn is_first(&self, value: &T) -> bool {
        ptr::eq(&raw const self.first, value)
    }

    /// Yields all values, the current one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        let mut at = self.later();
        let later = core::iter::from_fn(move || {
            // SAFETY: what renew published is initialised, and stays until dispose, which has self
            // exclusively; the older ones are linked by renew, and stay as long.
            let later = unsafe { at.as_ref() }?;
            at = later.older;
            Some(&*later.value)
        });
        later.chain([&self.first])
    }

    /// Yields the pages of all values but the first.
    pub(crate) fn pages(&self) -> impl Iterator<Item = PageRange> {
        let mut at = self.later();
        core::iter::from_fn(move || {
            // SAFETY: what renew published is initialised, and stays until dispose, which has self
            // exclusively; the older ones are linked by renew, and stay as long.
            let later = unsafe { at.as_ref() }?;
            at = later.older;
            Some(later.pages)
        })
    }

    /// Says whether a value is current still, after all stores before: no fork replaced it while
    /// this thread was in it.
    #[inline]
    pub(crate) fn is_current(&self, value: &T) -> bool {
        // What replaces it runs on this thread, in a handler.
        compiler_fence(Ordering::SeqCst);
        ptr::eq(self.current(), value)
    }

    /// Returns what took the place of a value that is not current.
    pub(crate) fn successor(&self, value: &T) -> &T {
        let mut found = self.current();
        let mut at = self.later();
        // SAFETY: what renew published is initialised, and stays until dispose, which has self
        // exclusively; the older ones are linked by renew, and stay as long.
        while let Some(later) = unsafe { at.as_ref() } {
            if ptr::eq(&raw const *later.value, value) {
                return found;
            }
            found = &later.value;
            at = later.older;
        }
        found
    }

    /// Puts a value in pages of `provider` in the place of the current one; it is made when there
    /// are pages for it.
    ///
    /// # Errors
    ///
    /// What the provider says; nothing changes then.
    ///
    /// # Safety
    ///
    /// No other thread does this meanwhile; the value is made of what the current one is made of;
    /// [`Renewable::dispose`] gets the same provider.
    pub(crate) unsafe fn renew<P: PageProvider>(
        &self,
        provider: &P,
        value: impl FnOnce() -> T,
    ) -> Result<(), Error> {
        const { assert!(align_of::<Later<T>>() <= 256, "a page is aligned for it") };
        let pages = provider.reserve(&Request::bytes(size_of::<Later<T>>()))?;
        // SAFETY: reserved just now, and no other code has its address yet.
        if let Err(error) = unsafe { provider.commit(pages, Commit::READ_WRITE) } {
            // SAFETY: reserved just now, and no other code has its address. A failure wastes a page
            // of addresses.
            let _ = unsafe { provider.release(pages) };
            return Err(error);
        }
        let later = Later {
            value: ManuallyDrop::new(value()),
            older: self.later(),
            pages,
        };
        let place: NonNull<Later<T>> = pages.start().cast();
        // SAFETY: committed just now, long enough for the value, and aligned, since it is a page.
        unsafe { place.write(later) };
        self.later.store(place.as_ptr().cast(), Ordering::Release);
        Ok(())
    }

    /// Drops all values but the first one, and releases their pages.
    pub(crate) fn dispose<P: PageProvider>(&mut self, provider: &P) {
        let mut at = self.later();
        while let Some(place) = NonNull::new(at) {
            // SAFETY: published by `renew`, and read here alone, since self is exclusive.
            let mut later = unsafe { place.read() };
            at = later.older;
            // SAFETY: initialised, and dropped once, here.
            unsafe { ManuallyDrop::drop(&mut later.value) };
            // SAFETY: reserved by `renew`; what lay in it was moved out. A failure wastes a page.
            let _ = unsafe { provider.release(later.pages) };
        }
        *self.later.get_mut() = ptr::null_mut();
    }
}

// SAFETY: the pointer owns values of T, which move with it.
unsafe impl<T: Send> Send for Renewable<T> {}
// SAFETY: the values are shared as T is; they are replaced where there is one thread.
unsafe impl<T: Send + Sync> Sync for Renewable<T> {}

/// Why [`around_fork`] failed, and in which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkError {
    /// The first hook's error.
    pub error: Error,
    /// Whether this is the child.
    pub in_child: bool,
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_child {
            "fork_child failed"
        } else {
            "not forked"
        };
        write!(f, "{what}: {}", self.error)
    }
}

impl core::error::Error for ForkError {}
