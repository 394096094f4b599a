//! Assembling with [dynasm-rs](https://docs.rs/dynasmrt): the feature `dynasm`, on Linux, FreeBSD
//! and NetBSD.
//!
//! dynasm-rs puts code together in an ordinary buffer, and must know where it will run to encode what
//! depends on that: calls of the host, addresses of labels. Its own assemblers guess an address and
//! patch the code when it moves. [`Assembler`] keeps all such places until the code has an address:
//! [`Assembler::finish`] adds it to a [`JitRuntime`], whose fix-up then writes them.
//!
//! Whoever wants one of dynasm-rs's assemblers instead, a `VecAssembler`, gets the address it asks
//! for by [`JitRuntime::emit`].
//!
//! The feature needs the standard library, as dynasmrt does, and the version of `dynasmrt` that this
//! crate names.
//!
//! # Examples
//!
//! ```
//! # #[cfg(not(all(target_os = "linux", target_arch = "x86_64", feature = "linux")))]
//! # fn main() {}
//! # #[cfg(all(target_os = "linux", target_arch = "x86_64", feature = "linux"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm, x64::X64Relocation};
//! use hostmem::{OsProvider, OsLock, dynasm::Assembler, jit::{JitConfig, JitRuntime}};
//!
//! let os = OsProvider::new();
//! let runtime = JitRuntime::<_, _, OsLock>::new(os, os, JitConfig::new())?;
//! let mut ops = Assembler::<X64Relocation>::new();
//! dynasm!(ops
//!     ; .arch x64
//!     ; lea rax, [->text]
//!     ; ret
//!     ; ->text:
//!     ; .bytes b"hostmem"
//! );
//! let function = ops.finish(&runtime)?;
//! // SAFETY: it is a whole function of this type, and does no harm.
//! let text = unsafe { runtime.typed::<extern "C" fn() -> *const [u8; 7]>(&function)? };
//! // SAFETY: as many bytes are there, as long as the function.
//! assert_eq!(unsafe { &*text.call() }, b"hostmem");
//! # Ok(())
//! # }
//! ```

use crate::{
    jit::{AddError, CodeProvider, Function, JitRuntime},
    provider::PageProvider,
    sync::RawMutex,
};
use core::mem;
use dynasmrt::{
    AssemblyOffset, DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, LabelKind, TargetKind,
    components::{LabelRegistry, PatchLoc, RelocRegistry, StaticLabel},
    relocations::Relocation,
};
use std::vec::Vec;

/// An assembler for `R`, the relocations of a CPU (`dynasmrt::x64::X64Relocation`,
/// `dynasmrt::aarch64::Aarch64Relocation`), whose code ends in a [`JitRuntime`].
#[derive(Debug)]
pub struct Assembler<R: Relocation> {
    code: Vec<u8>,
    labels: LabelRegistry,
    relocations: RelocRegistry<R>,
    /// Places that refer to an address outside the code.
    values: Vec<(PatchLoc<R>, usize)>,
    /// What went wrong first; told at the end, since the macro has nobody to tell.
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

    /// Adds the code to `runtime`, and begins anew with the same buffers; dynamic labels from before
    /// mean nothing any more.
    ///
    /// The first byte is aligned to the granule of the allocator, so `.align` holds up to that.
    ///
    /// # Errors
    ///
    /// [`AddError::FixUp`] for an undefined or doubly defined label, and for a target too far away;
    /// [`AddError::Jit`] as of [`JitRuntime::add`], for instance without code. What was assembled is
    /// gone then too.
    pub fn finish<P: CodeProvider, M: PageProvider + Copy, W: RawMutex>(
        &mut self,
        runtime: &JitRuntime<P, M, W>,
    ) -> Result<Function, AddError<DynasmError>> {
        let result = match self.error.take() {
            Some(error) => Err(AddError::FixUp(error)),
            None => {
                let code = mem::take(&mut self.code);
                let added = runtime.add_with(&code, |bytes, rx| self.patch(bytes, rx.addr().get()));
                self.code = code;
                added
            }
        };
        self.clear();
        result
    }

    fn clear(&mut self) {
        self.code.clear();
        self.labels.clear();
        self.relocations.take_statics().for_each(drop);
        self.relocations.take_dynamics().for_each(drop);
        self.values.clear();
    }

    /// Writes everything that refers to something into `code`, which will run at `address`.
    fn patch(&mut self, code: &mut [u8], address: usize) -> Result<(), DynasmError> {
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
