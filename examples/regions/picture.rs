//! A picture of two maps, one beside the other.

use crate::map::{Kind, Piece, size};
use std::fmt::Write;

/// Pixels of a row, and of a column.
const ROW: usize = 18;
const COLUMN: usize = 560;

/// Where bars begin, behind the addresses, and how many pixels a doubling of the length takes.
const BAR: usize = 130;
const DOUBLING: usize = 4;

/// Draws two maps as SVG: a row a piece, with a bar as long as the logarithm of its length.
pub fn draw(before: &[Piece], after: &[Piece]) -> String {
    let rows = before.len().max(after.len()) + 2;
    let (width, height) = (2 * COLUMN, rows * ROW + ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (left, title, pieces) in [(10, "before", before), (10 + COLUMN, "after", after)] {
        column(&mut svg, left, title, pieces).expect("strings take what is written");
    }
    svg.push_str("</svg>\n");
    svg
}

fn column(svg: &mut String, left: usize, title: &str, pieces: &[Piece]) -> std::fmt::Result {
    writeln!(
        svg,
        "<text x=\"{left}\" y=\"{ROW}\" font-weight=\"bold\">{title}</text>"
    )?;
    for (n, piece) in pieces.iter().enumerate() {
        let top = (n + 1) * ROW + 6;
        let base = top + ROW - 5;
        let bytes = (piece.range.last() - piece.range.start()).max(1);
        let long = DOUBLING * bytes.ilog2() as usize;
        let start = piece.range.start();
        writeln!(svg, "<text x=\"{left}\" y=\"{base}\">{start:#x}</text>")?;
        let bar = left + BAR;
        let (color, high) = (color(piece.kind), ROW - 3);
        writeln!(
            svg,
            "<rect x=\"{bar}\" y=\"{top}\" width=\"{long}\" height=\"{high}\" fill=\"{color}\"/>"
        )?;
        let (text, length) = (bar + long + 6, size(piece.range));
        // The labels are this program's own, and have nothing that XML would take for its own.
        let label = &piece.label;
        writeln!(
            svg,
            "<text x=\"{text}\" y=\"{base}\">{length}, {label}</text>"
        )?;
    }
    Ok(())
}

fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Other => "#9aa0a6",
        Kind::Free => "#d7e8d4",
        Kind::Reserved => "#c9c3e6",
        Kind::Memory => "#5b9bd5",
        Kind::Code => "#e8a33d",
    }
}
