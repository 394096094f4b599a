//! Assembling with [dynasm-rs](https://docs.rs/dynasmrt) into [hostmem](https://docs.rs/hostmem)'s
//! executable memory, on Linux, FreeBSD and NetBSD.
//!
//! dynasm-rs puts code together in an ordinary buffer, and must know where it will run to encode
//! what depends on that: calls of the host, addresses of labels. Its own assemblers guess an
//! address and patch the code when it moves. [`Assembler`] keeps all such places until the code has
//! an address: [`Assembler::finish`] adds it to a [`JitRuntime`], whose fix-up then writes them.
//! [`Assembler::patch`] assembles over code that is there already.
//!
//! Whoever wants one of dynasm-rs's assemblers instead, a `VecAssembler`, gets the address it asks
//! for by [`JitRuntime::emit`].
//!
//! The major version of this crate follows `dynasmrt`, whose types it names; that of `hostmem` does
//! not.
//!
//! # Examples
//!
//! ```
//! # #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
//! # fn main() {}
//! # #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
//! use hostmem::{Func, JitConfig, JitRuntime};
//! use hostmem_dynasm::HostAssembler;
//!
//! let runtime = JitRuntime::new(JitConfig::new())?;
//! let mut ops = HostAssembler::new();
//! dynasm!(ops
//!     ; .arch x64
//!     ; lea rax, [->text]
//!     ; ret
//!     ; ->text:
//!     ; .bytes b"hostmem"
//! );
//! let function = ops.finish(&runtime)?;
//! // SAFETY: it is a whole function of this type, and does no harm.
//! let text: Func<'_, extern "C" fn() -> *const [u8; 7]> = unsafe { runtime.typed(&function)? };
//! // SAFETY: as many bytes are there, as long as the function.
//! assert_eq!(unsafe { &*text.call() }, b"hostmem");
//! # Ok(())
//! # }
//! ```
#![cfg(all(
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use dynasmrt::{
    AssemblyOffset, DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, LabelKind, TargetKind,
    components::{LabelRegistry, PatchLoc, RelocRegistry, StaticLabel},
    relocations::Relocation,
};
use hostmem_core::{
    jit::{AddError, CodeProvider, Function, JitRuntime},
    provider::PageProvider,
    sync::RawMutex,
};
use std::mem;

/// An assembler for the CPU that this is compiled for.
#[cfg(target_arch = "x86_64")]
pub type HostAssembler = Assembler<dynasmrt::x64::X64Relocation>;

/// An assembler for the CPU that this is compiled for.
#[cfg(target_arch = "aarch64")]
pub type HostAssembler = Assembler<dynasmrt::aarch64::Aarch64Relocation>;

/// An assembler for `R`, the relocations of a CPU (`dynasmrt::x64::X64Relocation`,
/// `dynasmrt::aarch64::Aarch64Relocation`), whose code ends in a [`JitRuntime`].
#[derive(Debug)]
pub struct Assembler<R: Relocation> {
    code: Vec<u8>,
    labels: LabelRegistry,
    relocations: RelocRegistry<R>,
    /// Places that refer to an address outside the code.
    values: Vec<(PatchLoc<R>, usize)>,
    /// The first error; returned at the end, since the macro returns nothing.
    error: Option<DynasmError>,
}

impl<R: Relocation> Assembler<R> {
    /// Makes an assembler without code.
    #[must_use]
    pub fn new() -> Self {
        Self {
            code: Vec::new(),
            labels: LabelRegistry::new(),
            relocations: RelocRegistry::new(),
            values: Vec::new(),
            error: None,
        }
    }

    /// Makes a dynamic label, to be defined once (`=>label`) before the end.
    pub fn new_dynamic_label(&mut self) -> DynamicLabel {
        self.labels.new_dynamic_label()
    }

    /// Returns the labels defined so far: their offsets are entries for
    /// [`JitRuntime::typed_at`].
    pub const fn labels(&self) -> &LabelRegistry {
        &self.labels
    }

    /// Adds the code to `runtime`, and begins anew with the same buffers; dynamic labels from
    /// before mean nothing any more.
    ///
    /// The first byte is aligned to the granule of the allocator, so `.align` holds up to that.
    ///
    /// # Errors
    ///
    /// [`AddError::FixUp`] for an undefined or doubly defined label, and for a target too far away;
    /// [`AddError::Jit`] with the errors of [`JitRuntime::add`], for instance without code. What
    /// was assembled is gone then too.
    pub fn finish<P: CodeProvider, M: PageProvider + Copy, W: RawMutex>(
        &mut self,
        runtime: &JitRuntime<P, M, W>,
    ) -> Result<Function, AddError<DynasmError>> {
        let result = match self.error.take() {
            Some(error) => Err(AddError::FixUp(error)),
            None => {
                let code = mem::take(&mut self.code);
                let added =
                    runtime.add_with(&code, |bytes, rx| self.fix_up(bytes, rx.addr().get()));
                self.code = code;
                added
            }
        };
        self.clear();
        result
    }

    /// Writes the code over `function`, from `offset` on, encoded for that address, and begins anew
    /// with the same buffers.
    ///
    /// The borrow keeps the function from being called through a [`Func`](hostmem_core::jit::Func)
    /// meanwhile. For code that other threads may be running there is [`Assembler::encode_at`]. The
    /// patch refers to other parts of the function by their addresses, which
    /// [`Function::rx`] and the labels' offsets tell.
    ///
    /// ```
    /// # #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    /// # fn main() {}
    /// # #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
    /// # use hostmem::{Func, JitConfig, JitRuntime};
    /// # use hostmem_dynasm::HostAssembler;
    /// let runtime = JitRuntime::new(JitConfig::new())?;
    /// let mut ops = HostAssembler::new();
    /// dynasm!(ops ; .arch x64 ; mov eax, 1 ; ret);
    /// let mut function = ops.finish(&runtime)?;
    /// dynasm!(ops ; .arch x64 ; mov eax, 2);
    /// ops.patch(&runtime, &mut function, 0)?;
    /// // SAFETY: it is a whole function of this type, and does no harm.
    /// let two: Func<'_, extern "C" fn() -> i32> = unsafe { runtime.typed(&function)? };
    /// assert_eq!(two.call(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AddError::FixUp`] as [`Assembler::finish`] says; [`AddError::Jit`] with those of
    /// [`JitAllocator::write`](hostmem_core::jit::JitAllocator::write), where the patch does not
    /// fit into the function for instance. What was assembled is gone then too, and the function is
    /// as it was unless the allocator says otherwise.
    pub fn patch<P: CodeProvider, M: PageProvider + Copy, W: RawMutex>(
        &mut self,
        runtime: &JitRuntime<P, M, W>,
        function: &mut Function,
        offset: usize,
    ) -> Result<(), AddError<DynasmError>> {
        let address = function.rx().addr().get().wrapping_add(offset);
        let encoded = self.encode_at(address).map_err(AddError::FixUp)?;
        let jit = runtime.allocator();
        jit.write(function.span_mut(), offset, &encoded)?;
        // The next code is put together in the same buffer.
        self.code = encoded;
        self.code.clear();
        Ok(())
    }

    /// Returns the code, encoded for running at `address`, and begins anew: for memory that is
    /// written by other means, by
    /// [`JitAllocator::write_at`](hostmem_core::jit::JitAllocator::write_at) for instance, where
    /// threads may be running what is there.
    ///
    /// # Errors
    ///
    /// An undefined or doubly defined label, or a target too far away. What was assembled is gone
    /// then too.
    pub fn encode_at(&mut self, address: usize) -> Result<Vec<u8>, DynasmError> {
        let mut code = mem::take(&mut self.code);
        let encoded = match self.error.take() {
            Some(error) => Err(error),
            None => self.fix_up(&mut code, address),
        };
        self.clear();
        encoded.map(|()| code)
    }

    fn clear(&mut self) {
        self.code.clear();
        self.labels.clear();
        self.relocations.take_statics().for_each(drop);
        self.relocations.take_dynamics().for_each(drop);
        self.values.clear();
    }

    /// Writes everything that refers to something into `code`, which will run at `address`.
    fn fix_up(&mut self, code: &mut [u8], address: usize) -> Result<(), DynasmError> {
        let mut write = |place: PatchLoc<R>, to: usize, target: TargetKind| {
            let field = &mut code[place.range(0)];
            place
                .patch(field, address, to)
                .map_err(|_| DynasmError::ImpossibleRelocation(target))
        };
        for (place, label) in self.relocations.take_statics() {
            let to = self.labels.resolve_static(&label)?;
            let name = label.get_name();
            let target = if label.is_global() {
                TargetKind::Global(name)
            } else {
                TargetKind::Local(name)
            };
            write(place, to.0, target)?;
        }
        for (place, label) in self.relocations.take_dynamics() {
            let to = self.labels.resolve_dynamic(label)?;
            write(place, to.0, TargetKind::Dynamic(label))?;
        }
        for (place, value) in self.values.drain(..) {
            write(place, value, TargetKind::Value(value))?;
        }
        Ok(())
    }

    /// Remembers the first error.
    fn note<T>(&mut self, result: Result<T, DynasmError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

impl<R: Relocation> Default for Assembler<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Relocation> Extend<u8> for Assembler<R> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.code.extend(bytes);
    }
}

impl<'a, R: Relocation> Extend<&'a u8> for Assembler<R> {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, bytes: T) {
        self.code.extend(bytes);
    }
}

impl<R: Relocation> DynasmApi for Assembler<R> {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(self.code.len())
    }

    fn push(&mut self, byte: u8) {
        self.code.push(byte);
    }

    fn align(&mut self, alignment: usize, with: u8) {
        self.code
            .resize(self.code.len().next_multiple_of(alignment), with);
    }
}

impl<R: Relocation> DynasmLabelApi for Assembler<R> {
    type Relocation = R;

    fn local_label(&mut self, name: &'static str) {
        self.labels.define_local(name, self.offset());
    }

    fn global_label(&mut self, name: &'static str) {
        let defined = self.labels.define_global(name, self.offset());
        self.note(defined);
    }

    fn dynamic_label(&mut self, id: DynamicLabel) {
        let defined = self.labels.define_dynamic(id, self.offset());
        self.note(defined);
    }

    fn forward_relocation(
        &mut self,
        name: &'static str,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: R,
    ) {
        let place = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        // The next definition of the name, be it the first.
        let last = self.labels.place_local_reference(name);
        let label = last.map_or_else(|| StaticLabel::first(name), StaticLabel::next);
        self.relocations.add_static(label, place);
    }

    fn backward_relocation(
        &mut self,
        name: &'static str,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: R,
    ) {
        let place = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        match self.labels.place_local_reference(name) {
            Some(label) => self.relocations.add_static(label, place),
            None => self.note(Err::<(), _>(DynasmError::UnknownLabel(LabelKind::Local(
                name,
            )))),
        }
    }

    fn global_relocation(
        &mut self,
        name: &'static str,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: R,
    ) {
        let place = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        self.relocations
            .add_static(StaticLabel::global(name), place);
    }

    fn dynamic_relocation(
        &mut self,
        id: DynamicLabel,
        target_offset: isize,
        field_offset: u8,
        ref_offset: u8,
        kind: R,
    ) {
        let place = PatchLoc::new(self.offset(), target_offset, field_offset, ref_offset, kind);
        self.relocations.add_dynamic(id, place);
    }

    fn value_relocation(&mut self, value: usize, field_offset: u8, ref_offset: u8, kind: R) {
        let place = PatchLoc::new(self.offset(), 0, field_offset, ref_offset, kind);
        self.values.push((place, value));
    }
}

/// The example of the README, so that it keeps compiling and running.
#[cfg(all(doctest, target_os = "linux", target_arch = "x86_64"))]
#[doc = include_str!("../README.md")]
struct Readme;
