//! Where objects of C live: pages that are never given back, so that a handle can always be looked
//! at.
//!
//! ```text
//!   list ──► object ──► object ──► …   one list a kind, to which objects are only added
//!            state: closed, opening or open
//! ```
//!
//! A closed object's pages serve the next object of its kind. So a handle that was closed is
//! refused, as long as no other object has its place; and a forked child finds all objects, in
//! whatever a thread of its parent was doing.

use crate::{
    host::Host,
    status::{Fault, HM_BUSY, invalid},
};
use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicPtr, AtomicU32, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};
use hostmem::provider::{Commit, PageProvider, Request};

/// Says in the memory of a program that there is a handle, which was not copied from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Here(usize);

impl Here {
    /// Bits that memory of programs seldom has.
    const KEY: usize = 0x5a17_c0de_9e37_79b9;

    pub(crate) fn at<T>(place: *const T) -> Self {
        Self(place.addr() ^ Self::KEY)
    }

    /// Says whether there is one in a program's memory, which begins with this.
    ///
    /// # Safety
    ///
    /// It is null, or a word can be read there.
    #[inline]
    pub(crate) unsafe fn is_at<T>(place: *const T) -> bool {
        let first = place.cast::<Self>();
        if first.is_null() || !first.is_aligned() {
            return false;
        }
        // SAFETY: not null and aligned, as just checked; a word can be read there, by this
        // function's condition, and any word is a value.
        unsafe { first.read() == Self::at(place) }
    }
}

/// A kind of object.
pub(crate) trait Kind: Sized + Sync + 'static {
    /// The number that tells its objects from other memory.
    const MAGIC: u32;
    /// All of them.
    fn list() -> &'static List<Self>;
}

const CLOSED: u32 = 0;
const OPENING: u32 = 1;
const OPEN: u32 = 2;

/// An object in pages of its own.
#[repr(C)]
pub(crate) struct Object<T> {
    magic: u32,
    state: AtomicU32,
    /// Others that use it: it is not to be closed before them.
    users: AtomicUsize,
    next: *const Self,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written before the state says that it is open, and shared as T is.
unsafe impl<T: Sync> Sync for Object<T> {}

impl<T> Object<T> {
    /// Returns the value.
    ///
    /// # Safety
    ///
    /// It is open, and stays so as long as the value is used.
    unsafe fn value(&self) -> &T {
        let place = self.value.get();
        // SAFETY: the object is there for good, and nothing writes to the value until it is closed.
        let place = unsafe { &*place };
        // SAFETY: open objects have a value.
        unsafe { place.assume_init_ref() }
    }

    /// Notes one more user.
    pub(crate) fn enter(&self) {
        self.users.fetch_add(1, Relaxed);
    }

    /// Notes that all users but `left` are gone: those that a forked child does not have.
    pub(crate) fn forget_users(&self, left: usize) {
        self.users.store(left, Relaxed);
    }

    /// Notes that a user has ended.
    pub(crate) fn leave(&self) {
        self.users.fetch_sub(1, Release);
    }
}

/// All objects of a kind.
pub(crate) struct List<T>(AtomicPtr<Object<T>>);

impl<T: Kind> List<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    fn objects(&self) -> impl Iterator<Item = &'static Object<T>> {
        let mut at = self.0.load(Acquire).cast_const();
        core::iter::from_fn(move || {
            // SAFETY: null, or an object that was added, which is never given back.
            let object = unsafe { at.as_ref() }?;
            at = object.next;
            Some(object)
        })
    }

    /// Calls `f` with the open ones, until it returns a value. They are not to be closed meanwhile.
    pub(crate) fn find<B>(
        &self,
        mut f: impl FnMut(&'static Object<T>, &'static T) -> Option<B>,
    ) -> Option<B> {
        let mut open = self.objects().filter(|o| o.state.load(Acquire) == OPEN);
        // SAFETY: open, as the filter has seen, so that there is a value; the program does not
        // close it meanwhile, since calls do not race with the one that closes their object.
        open.find_map(|object| f(object, unsafe { object.value() }))
    }
}

/// Opens an object of the value that `make` makes; returns its handle.
pub(crate) fn open<T: Kind>(
    make: impl FnOnce() -> Result<T, Fault>,
) -> Result<NonNull<Object<T>>, Fault> {
    let claim = |object: &&Object<T>| {
        let claimed = object
            .state
            .compare_exchange(CLOSED, OPENING, AcqRel, Relaxed);
        claimed.is_ok()
    };
    let object = match T::list().objects().find(claim) {
        Some(object) => object,
        None => add()?,
    };
    match make() {
        Ok(value) => {
            let place = object.value.get();
            // SAFETY: whoever has made it OPENING has it alone.
            unsafe { place.write(MaybeUninit::new(value)) };
            object.users.store(0, Relaxed);
            object.state.store(OPEN, Release);
            Ok(NonNull::from(object))
        }
        Err(fault) => {
            object.state.store(CLOSED, Release);
            Err(fault)
        }
    }
}

/// Adds an object to the list, which the caller opens.
fn add<T: Kind>() -> Result<&'static Object<T>, Fault> {
    let host = Host::new();
    let request = Request::bytes(size_of::<Object<T>>()).name(c"hostmem: objects");
    let pages = host.reserve_committed(&request, Commit::READ_WRITE)?;
    let place: NonNull<Object<T>> = pages.start().cast();
    let list = &T::list().0;
    let mut first = list.load(Acquire);
    loop {
        let object = Object {
            magic: T::MAGIC,
            state: AtomicU32::new(OPENING),
            users: AtomicUsize::new(0),
            next: first.cast_const(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        };
        // SAFETY: committed just now for as many bytes, aligned as pages are, and no other code's.
        unsafe { place.write(object) };
        match list.compare_exchange(first, place.as_ptr(), AcqRel, Acquire) {
            // SAFETY: written above, and never given back.
            Ok(_) => return Ok(unsafe { place.as_ref() }),
            Err(other) => first = other,
        }
    }
}

/// Finds the object of a handle from C.
///
/// # Safety
///
/// The handle is null, or memory can be read there: it came from this library. The object is not
/// closed before the call from C returns.
#[inline]
pub(crate) unsafe fn get<T: Kind, H>(
    handle: *const H,
) -> Result<(&'static Object<T>, &'static T), Fault> {
    let object = handle.cast::<Object<T>>();
    if object.is_null() || !object.is_aligned() {
        return Err(invalid(c"a null handle"));
    }
    // SAFETY: not null and aligned, as just checked; an object of this library is there, which is
    // never given back, or else memory that can be read, by this function's condition.
    let object = unsafe { &*object };
    if object.magic != T::MAGIC || object.state.load(Acquire) != OPEN {
        return Err(invalid(c"a handle that is closed, or of another kind"));
    }
    // SAFETY: the state says that it is open, so that there is a value, and it is not closed before
    // the call from C returns, by this function's condition.
    Ok((object, unsafe { object.value() }))
}

/// Closes the object of a handle; `end` takes its value. Refused as long as others use it, unless
/// that is forced.
///
/// # Safety
///
/// The handle is null, or memory can be read there: it came from this library. No other call uses
/// the object now or later.
pub(crate) unsafe fn close<T: Kind, H>(
    handle: *const H,
    force: bool,
    end: impl FnOnce(T),
) -> Result<(), Fault> {
    // SAFETY: the handle is null or one of this library, and only this call closes it, by this
    // function's conditions.
    let (object, _) = unsafe { get::<T, H>(handle)? };
    if !force && object.users.load(Acquire) != 0 {
        return Err(Fault::Plain(HM_BUSY, c"others still use this object"));
    }
    let closed = object
        .state
        .compare_exchange(OPEN, OPENING, AcqRel, Relaxed);
    if closed.is_err() {
        return Err(invalid(c"a handle that is closed"));
    }
    let place = object.value.get();
    // SAFETY: it was open, and this call has made it OPENING, so that it alone has the value.
    let place = unsafe { &*place };
    // SAFETY: it was open, so that a value is there; the state is OPENING, in which nothing else
    // reads it, until another value is written.
    let value = unsafe { place.assume_init_read() };
    end(value);
    object.state.store(CLOSED, Release);
    Ok(())
}

/// Finds the value of a handle from C.
macro_rules! opened {
    ($kind:ty, $handle:expr) => {{
        // SAFETY: the caller in C promises that it is null, or a handle of this library which is
        // not closed during the call.
        unsafe { $crate::object::get::<$kind, _>($handle) }?
    }};
}
pub(crate) use opened;
