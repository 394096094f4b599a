//! A picture of the address space when the program ends (`--map`): what the guest has mapped, and
//! what of the host lies above.

use crate::{
    host::{GUEST_SPACE, Region},
    space::{Content, Space},
};
use hostmem::{
    page::{Access, AddressRange},
    region::PageState,
};
use std::fmt::Write;

/// Pixels of a row, and of a column.
const ROW: usize = 18;
const COLUMN: usize = 520;

/// Where bars begin, behind the addresses, and how many pixels a doubling of the length takes.
const BAR: usize = 130;
const DOUBLING: usize = 4;

const FREE: &str = "#d7e8d4";
const HOST: &str = "#9aa0a6";
const RESERVED: &str = "#c9c3e6";
const MEMORY: &str = "#5b9bd5";
const CODE: &str = "#e8a33d";

/// A piece of the address space: its color, and what it is.
struct Piece {
    range: AddressRange,
    color: &'static str,
    label: String,
}

/// Draws both halves as SVG: a row a piece, with a bar as long as the logarithm of its length.
pub(crate) fn draw(space: &Space, region: &Region) -> String {
    let (guest, host) = (of_guest(space), of_host(region));
    let rows = guest.len().max(host.len()) + 2;
    let (width, height) = (2 * COLUMN, rows * ROW + ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (left, title, pieces) in [
        (10, "the guest, below 4 GiB", guest),
        (10 + COLUMN, "the host, above", host),
    ] {
        if column(&mut svg, left, title, &pieces).is_err() {
            unreachable!("strings take what is written");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The guest's mappings, and what is free between them.
fn of_guest(space: &Space) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut next = 0;
    let mut free_until = |pieces: &mut Vec<Piece>, start: usize, behind: usize| {
        if let Some(range) = start
            .checked_sub(1)
            .and_then(|last| AddressRange::new(next, last))
        {
            pieces.push(Piece {
                range,
                color: FREE,
                label: "free".to_owned(),
            });
        }
        next = behind;
    };
    for (range, mapping) in space.mappings() {
        free_until(&mut pieces, range.start(), range.last() + 1);
        let color = match mapping.content {
            Content::Host => HOST,
            _ if mapping.protection.execute => CODE,
            _ => MEMORY,
        };
        pieces.push(Piece {
            range,
            color,
            label: format!("{:?} {}", mapping.content, mapping.protection),
        });
    }
    free_until(&mut pieces, crate::elf::USER_END as usize, GUEST_SPACE);
    pieces
}

/// What the region has given out, and what is free in it.
fn of_host(region: &Region) -> Vec<Piece> {
    let above = AddressRange::new(GUEST_SPACE, usize::MAX).unwrap_or(AddressRange::ALL);
    let given = region.ranges(above).map(|found| {
        let (color, label) = match found.state {
            PageState::Committed(Access::ReadWrite) => (MEMORY, "memory rw"),
            PageState::Committed(_) => (MEMORY, "memory"),
            PageState::Dual => (CODE, "a view of code"),
            _ => (RESERVED, "reserved"),
        };
        (found.addresses, color, label)
    });
    let gaps = region.gaps(above).map(|range| (range, FREE, "free"));
    let mut pieces: Vec<_> = given
        .chain(gaps)
        .map(|(range, color, label)| Piece {
            range,
            color,
            label: label.to_owned(),
        })
        .collect();
    pieces.sort_by_key(|piece| piece.range.start());
    pieces
}

fn column(svg: &mut String, left: usize, title: &str, pieces: &[Piece]) -> std::fmt::Result {
    writeln!(
        svg,
        "<text x=\"{left}\" y=\"{ROW}\" font-weight=\"bold\">{title}</text>"
    )?;
    for (n, piece) in pieces.iter().enumerate() {
        let top = (n + 1) * ROW + 6;
        let base = top + ROW - 5;
        let bytes = (piece.range.last() - piece.range.start()).saturating_add(1);
        let long = DOUBLING * bytes.ilog2() as usize;
        let (start, color, label) = (piece.range.start(), piece.color, &piece.label);
        let (bar, text) = (left + BAR, left + BAR + long + 6);
        let (high, kib) = (ROW - 3, bytes >> 10);
        writeln!(svg, "<text x=\"{left}\" y=\"{base}\">{start:#x}</text>")?;
        writeln!(
            svg,
            "<rect x=\"{bar}\" y=\"{top}\" width=\"{long}\" height=\"{high}\" fill=\"{color}\"/>"
        )?;
        writeln!(
            svg,
            "<text x=\"{text}\" y=\"{base}\">{kib} KiB, {label}</text>"
        )?;
    }
    Ok(())
}
