//! The mappings of this process.

use hostmem::{
    RegionAllocator,
    page::{Access, AddressRange},
    provider::{Error, MapFlags, ProcessMap},
    region::PageState,
};

/// The kind of a piece of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A mapping that the region does not know.
    Other,
    /// Free, and the region's.
    Free,
    /// Given out by the region, inaccessible.
    Reserved,
    /// Given out by the region, with memory.
    Memory,
    /// A view of code.
    Code,
}

/// A piece of the address space.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where it lies.
    pub range: AddressRange,
    /// Its kind.
    pub kind: Kind,
    /// Its description, for people.
    pub label: String,
}

/// Reads what the region and the process have.
///
/// # Errors
///
/// Where the host shows no map.
pub fn read(region: &RegionAllocator) -> Result<Vec<Piece>, Error> {
    // Room for all: what is read must not change because it is read.
    let (mut pieces, mut others) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    let piece = |range, kind, label| Piece { range, kind, label };
    // The region's own map: what is free in it is not there.
    region.walk(&mut |entry| {
        others.push(entry);
        true
    })?;
    for found in region.ranges(AddressRange::ALL) {
        let (kind, what) = match found.state {
            PageState::Committed(access) => (Kind::Memory, access_name(access)),
            PageState::Dual => (Kind::Code, "a view of code"),
            _ => (Kind::Reserved, "reserved"),
        };
        let tag = found.tag;
        pieces.push(piece(found.addresses, kind, format!("{what}, owner {tag}")));
    }
    let known = pieces.len();
    for entry in others {
        let inside = |known: &Piece| known.range.intersect(entry.range).is_some();
        if !pieces[..known].iter().any(inside) {
            let flags = flag_names(entry.flags);
            pieces.push(piece(entry.range, Kind::Other, format!("others', {flags}")));
        }
    }
    if region.is_active() {
        for gap in region.gaps(AddressRange::ALL) {
            pieces.push(piece(gap, Kind::Free, "free for the host".to_owned()));
        }
    }
    pieces.sort_by_key(|piece| piece.range.start());
    Ok(pieces)
}

fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "memory r",
        Access::ReadWrite => "memory rw",
        Access::ReadExec => "memory rx",
        _ => "memory",
    }
}

fn flag_names(flags: MapFlags) -> String {
    let letters = [
        (MapFlags::READ, 'r'),
        (MapFlags::WRITE, 'w'),
        (MapFlags::EXEC, 'x'),
    ];
    let has = |(flag, letter)| if flags.contains(flag) { letter } else { '-' };
    letters.into_iter().map(has).collect()
}

/// Names a length the way people do.
pub fn size(range: AddressRange) -> String {
    let bytes = (range.last() - range.start()).saturating_add(1);
    let unit = |shift: u32, name| {
        let tenths = ((bytes >> (shift - 10)) * 10) >> 10;
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    };
    match bytes.ilog2() {
        40.. => unit(40, "TiB"),
        30.. => unit(30, "GiB"),
        20.. => unit(20, "MiB"),
        _ => format!("{} KiB", bytes >> 10),
    }
}

/// Prints a table.
pub fn print(pieces: &[Piece]) {
    println!("{:>18} {:>18} {:>11}  what", "from", "to", "size");
    for piece in pieces {
        let (start, last) = (piece.range.start(), piece.range.last());
        println!(
            "{start:#18x} {last:#18x} {:>11}  {}",
            size(piece.range),
            piece.label
        );
    }
}
