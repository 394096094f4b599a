//! Files whose headers say anything at all are refused, or describe a program.

use super::{ElfError, Image, LOWEST, Segment, Symbol, USER_END, symbols};

const GUEST: &[u8] = include_bytes!("../../guests/sieve.elf");

/// The headers of the file.
const HEADERS: u32 = 52 + 8 * 32;

/// Checks all that loading relies on.
fn check(bytes: &[u8]) -> Result<(), ElfError> {
    let image = Image::parse(bytes)?;
    assert!(!image.segments.is_empty());
    let mut behind = LOWEST;
    for segment in &image.segments {
        assert!(segment.addr >= behind && segment.len > 0);
        behind = segment.end();
        assert!(behind <= USER_END);
        assert!(segment.file.len() <= segment.len as usize);
        assert!(bytes.get(segment.file.clone()).is_some());
    }
    assert_eq!(image.end(), behind);
    let holds = |s: &Segment| (s.addr..s.end()).contains(&image.entry) && s.protection.execute;
    assert!(image.segments.iter().any(holds));
    Ok(())
}

#[test]
fn a_program_is_read() {
    assert_eq!(check(GUEST), Ok(()));
    let image = Image::parse(GUEST).expect("a program");
    assert_eq!(image.headers.1, 8);
    assert!(image.headers.0 >= image.segments[0].addr);
}

#[test]
fn every_beginning_of_a_file_is_refused() {
    let whole = GUEST.len();
    let loaded = Image::parse(GUEST).map(|image| {
        let ends = image.segments.iter().map(|segment| segment.file.end);
        ends.max().unwrap_or(whole)
    });
    for len in 0..loaded.unwrap_or(whole).min(4096) {
        assert!(check(&GUEST[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn no_header_does_more_than_be_refused() {
    let mut state = 0x1234_5678_u32;
    let mut random = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % bound
    };
    let mut refused = 0;
    let mut bytes = GUEST.to_vec();
    for _ in 0..200_000 {
        bytes.copy_from_slice(GUEST);
        for _ in 0..=random(4) {
            let at = random(HEADERS) as usize;
            bytes[at] = match random(4) {
                0 => 0,
                1 => 0xff,
                _ => random(256).to_le_bytes()[0],
            };
        }
        refused += u32::from(check(&bytes).is_err());
    }
    assert!(refused > 1000, "{refused}");
}

/// A header, the sections of a table of symbols and of its names, and what is in them.
fn with_symbols() -> Vec<u8> {
    let mut bytes = vec![0; 52];
    bytes[32..36].copy_from_slice(&52_u32.to_le_bytes());
    bytes[48] = 2;
    let names = b"\0one\0two\0";
    let (table, text) = (52 + 2 * 40, 52 + 2 * 40 + 3 * 16);
    let section = |kind: u32, at: u32, len: u32, link: u32| {
        let words = [0, kind, 0, 0, at, len, link, 0, 0, 0];
        words.map(u32::to_le_bytes).concat()
    };
    bytes.extend(section(2, table, 3 * 16, 1));
    bytes.extend(section(3, text, 9, 0));
    // A function, an object, and a function whose name lies outside.
    for (name, addr, kind) in [
        (1_u32, 0x1_0000_u32, 2_u8),
        (5, 0x2_0000, 1),
        (99, 0x3_0000, 2),
    ] {
        bytes.extend(name.to_le_bytes());
        bytes.extend(addr.to_le_bytes());
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend([kind, 0, 0, 0]);
    }
    bytes.extend(names);
    bytes
}

#[test]
fn names_of_functions_are_found_as_far_as_they_are_there() {
    let whole = with_symbols();
    let one = Symbol {
        addr: 0x1_0000,
        len: 8,
        name: b"one",
    };
    assert_eq!(symbols(&whole), [one]);
    assert_eq!(symbols(GUEST), []);
    for len in 0..whole.len() {
        assert!(
            symbols(&whole[..len])
                .iter()
                .all(|found| found.addr == one.addr)
        );
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = 0xff;
        assert!(symbols(&bytes).len() <= 2);
    }
}
