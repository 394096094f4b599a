//! Files whose headers say anything at all are refused, or describe a program.

use super::{ElfError, Image, LOWEST, Segment, USER_END};

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
