//! One scan: what is free now is taken, as far as the host gives it.

use super::{
    left::Left,
    list::{Claimed, List, Purpose, Tally},
};
use crate::{
    page::{AddressRange, PageSize},
    provider::{Error, ErrorKind, PageProvider, Place, ProcessMap, Request, walk_gaps},
};

/// How many places a scan tries: each is a system call. Where the map is true, one for each gap
/// would do; where a gap turns out to be used in part, halving takes as many as its length has
/// bits; where there is no map, two for each page that somebody has, so that 128 MiB of such pages
/// of 4 KiB are seen through within a tenth of a second.
pub(super) const TRIES: usize = 1 << 16;

/// Gaps noted before they are taken, on the stack: no lock of the map's provider is held meanwhile.
const BATCH: usize = 64;

/// A free piece in whole pages.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    len: usize,
}

struct Batch {
    pieces: [Piece; BATCH],
    len: usize,
    /// Where to go on once the batch is taken: the first piece that it had no place for.
    next: Option<usize>,
}

impl Batch {
    const fn new() -> Self {
        Self {
            pieces: [Piece { start: 0, len: 0 }; BATCH],
            len: 0,
            next: None,
        }
    }

    fn push(&mut self, piece: Piece) {
        match self.pieces.get_mut(self.len) {
            Some(slot) => {
                *slot = piece;
                self.len += 1;
            }
            None => self.next = self.next.or(Some(piece.start)),
        }
    }
}

/// A scan: gaps are found, and taken.
pub(super) struct Scan<'a, 's, P> {
    pub(super) provider: P,
    pub(super) list: &'a mut List<'s>,
    pub(super) left_free: Left,
    pub(super) page: PageSize,
    /// The length of the shortest piece to take.
    pub(super) least: usize,
    /// What was taken.
    pub(super) got: usize,
    /// Free ranges, as far as is known, that could not be taken.
    pub(super) missed: Tally,
    /// Why, the first time.
    pub(super) error: Option<Error>,
    /// There was no slot for a range.
    pub(super) full: bool,
    tries: usize,
    /// The shortest length that the host refused wherever it lay: no longer one is tried.
    too_long: usize,
}

impl<'a, 's, P: PageProvider + ProcessMap + Copy> Scan<'a, 's, P> {
    pub(super) fn new(
        provider: P,
        list: &'a mut List<'s>,
        left_free: Left,
        page: PageSize,
        least: usize,
    ) -> Self {
        Self {
            provider,
            list,
            left_free,
            page,
            least,
            got: 0,
            missed: Tally::default(),
            error: None,
            full: false,
            tries: TRIES,
            too_long: usize::MAX,
        }
    }

    /// Takes what the process map shows free in `area`.
    pub(super) fn take_seen(&mut self, area: AddressRange, purpose: Purpose) -> Result<(), Error> {
        let provider = self.provider;
        self.take_all(area, purpose, |_, within, visit| {
            walk_gaps(&provider, within, visit)
        })
    }

    /// Takes what is free in `area` without knowing: by trying all that is not claimed.
    pub(super) fn take_unseen(&mut self, area: AddressRange, purpose: Purpose) {
        let taken = self.take_all(area, purpose, |list, within, visit| {
            walk_gaps(list, within, visit)
        });
        debug_assert!(taken.is_ok(), "a list can be walked");
    }

    fn take_all(
        &mut self,
        area: AddressRange,
        purpose: Purpose,
        walk: impl Fn(
            &List<'s>,
            AddressRange,
            &mut dyn FnMut(AddressRange) -> bool,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rest = Some(area);
        while let Some(within) = rest {
            let mut batch = Batch::new();
            let (page, least) = (self.page, self.least);
            let walked = walk(self.list, within, &mut |gap| {
                self.left_free.cut(gap, &mut |part| {
                    if let Some(piece) = whole_pages(part, page).filter(|p| p.len >= least) {
                        batch.push(piece);
                    }
                });
                batch.next.is_none()
            });
            for &piece in &batch.pieces[..batch.len] {
                let before = self.got;
                self.take(piece, purpose);
                let missed = piece.len - (self.got - before);
                if missed != 0 {
                    self.missed.add(missed);
                }
            }
            walked?;
            let next = batch.next;
            rest = next.and_then(|start| AddressRange::new(start, area.last()));
        }
        Ok(())
    }

    /// Takes a piece, or of its halves what can be had.
    ///
    /// Where something turns out to lie in it, that ends at the pages around; where the host
    /// refuses the length, at the length that it gives.
    fn take(&mut self, piece: Piece, purpose: Purpose) {
        if self.too_long <= self.least || self.tries == 0 {
            return;
        }
        if piece.len < self.too_long {
            if !self.list.has_room(piece.start, piece.len, purpose) {
                self.full = true;
                self.error = self.error.or(Some(ErrorKind::Exhausted.into()));
                return;
            }
            self.tries -= 1;
            let request = Request::bytes(piece.len).place(Place::Exact(piece.start));
            match self.provider.reserve(&request) {
                Ok(range) => {
                    debug_assert_eq!(range.addr(), piece.start, "an exact place is exact");
                    self.list.insert(Claimed { range, purpose });
                    self.got += range.len_bytes();
                    return;
                }
                Err(error) => {
                    self.error = self.error.or(Some(error));
                    if error.kind() == ErrorKind::Exhausted {
                        self.too_long = piece.len;
                    }
                }
            }
        }
        let half = self.page.round_down(piece.len / 2);
        if half < self.least {
            return;
        }
        let Piece { start, len } = piece;
        self.take(Piece { start, len: half }, purpose);
        let (start, len) = (start + half, len - half);
        self.take(Piece { start, len }, purpose);
    }
}

/// Returns the whole pages of a range; none that could not be named by an end.
fn whole_pages(range: AddressRange, page: PageSize) -> Option<Piece> {
    let start = page.round_up(range.start())?;
    let end = page.round_down(range.last().saturating_add(1));
    let len = end.checked_sub(start).filter(|&len| len != 0)?;
    Some(Piece { start, len })
}
