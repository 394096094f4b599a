//! Records and their bits.

extern crate std;
use super::*;

#[test]
fn records_survive_their_bits() {
    // SAFETY: nothing is mapped here.
    let opt_in = unsafe { RwxOptIn::accept() };
    let accesses = [
        Access::None,
        Access::Read,
        Access::ReadWrite,
        Access::ReadExec,
        Access::ReadWriteExec(opt_in),
    ];
    let committed = accesses.map(PageState::Committed);
    let states = [PageState::Reserved, PageState::Dual, PageState::Interrupted];
    assert_eq!(
        Record::from_bits(Record::Foreign.to_bits()),
        Record::Foreign
    );
    for state in committed.into_iter().chain(states) {
        for tag in [0, 1, 0xabcd, u16::MAX] {
            let written = Notes::PLACED | Notes::WAS_WRITABLE;
            for notes in [Notes::empty(), Notes::LARGE, written, Notes::all()] {
                if notes.contains(written) && !matches!(state, PageState::Committed(_)) {
                    continue; // Memory that is not there has no access that it ever had.
                }
                for (name, colour) in [(0, 0), (1, 1), (62, 2), (63, 3)] {
                    let (name, colour) = (Name(name), Colour(colour));
                    let mark = Mark {
                        tag,
                        notes,
                        name,
                        colour,
                    };
                    let record = Record::Ours(state, mark);
                    assert_eq!(Record::from_bits(record.to_bits()), record);
                }
            }
        }
    }
}

#[test]
fn names_have_numbers_as_long_as_there_are_some() {
    let names = Names::new();
    let mut text = [b'a', 0, 0, 0];
    let mut numbers = std::vec::Vec::new();
    for n in 0..80 {
        text[1] = b'0' + n / 10;
        text[2] = b'0' + n % 10;
        let name = CStr::from_bytes_until_nul(&text).expect("a zero at its end");
        let number = names.number(name);
        assert_eq!(names.number(name), number);
        assert_eq!(number == Name::OTHER, n >= 62, "{n}");
        assert!(number == Name::OTHER || !numbers.contains(&number));
        numbers.push(number);
    }
    assert_eq!(names.number(c"no $name"), Name::NONE);
}

#[test]
fn a_colour_is_another_than_both_neighbours_have() {
    for left in 0..4 {
        for right in 0..4 {
            let neighbours = [Colour(left), Colour(right)];
            let colour = Colour::other_than(neighbours);
            assert!(colour != Colour::NONE && !neighbours.contains(&colour));
        }
    }
}
