//! What a process does that claims all above 4 GiB on its main thread, and then goes on.
//!
//! It is a program of its own where it has to be linked in another way.

use hostmem::{
    OsProvider,
    page::AddressRange,
    provider::{PageProvider, ProcessMap, Request},
    region::{ClaimRequest, Claimed, Others, Purpose, claim},
};
use std::{hint::black_box, thread};

const OS: OsProvider = OsProvider::new();
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The last line, by which it is known that all went well.
pub const DONE: &str = "claimed, and everything went on";

/// Uses that many pages of the stack, as calls do.
#[inline(never)]
fn descend(pages: usize) -> usize {
    let page = black_box([1_u8; 4096]);
    match pages {
        0 => usize::from(page[0]),
        _ => descend(pages - 1) + usize::from(page[4095]),
    }
}

/// How much address space this process has, in bytes.
fn used() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmSize:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let kib = number.and_then(|number| number.parse::<usize>().ok());
    kib.expect("a number") << 10
}

/// Reserves as much as is to be had, a mebibyte at a time, and gives it back; returns how much that
/// was, up to some most.
fn to_be_had(most: usize) -> usize {
    let mut had = Vec::with_capacity(most / MIB);
    while had.len() < most / MIB
        && let Ok(piece) = OS.reserve(&Request::bytes(MIB))
    {
        had.push(piece);
    }
    let pieces = had.len();
    for piece in had {
        // SAFETY: reserved above, and not used.
        unsafe { OS.release(piece) }.expect("it goes");
    }
    pieces * MIB
}

/// The argument of a process under an emulator, which has mappings that the map does not show.
pub const EMULATED: &str = "emulated";

/// Claims; the argument is the limit of addresses in bytes, 0 for none, or [`EMULATED`].
pub fn run(argument: &str) {
    let limit: usize = argument.parse().unwrap_or(0);
    let left = limit.saturating_sub(used());
    let mut slots: [Option<Claimed>; 1024] = [None; 1024];
    let request = ClaimRequest::above(4 * GIB);
    let mut claim = claim(OS, &request, &mut slots).expect("a valid request");
    let report = *claim.report();
    println!("{report:?}");
    println!("usable: {:?}", claim.tally(Purpose::Usable));
    let end = OS.address_space().user.map(AddressRange::last);
    if limit == 0 && end.is_some() {
        let is_told = report.missed.bytes != 0 && !report.is_complete();
        let is_emulated = argument == EMULATED;
        assert!(report.is_complete() || is_emulated && is_told, "{report:?}");
        assert!(claim.tally(Purpose::Usable).bytes > GIB);
        let guard = claim
            .ranges()
            .find(|claimed| claimed.purpose == Purpose::Guard);
        let guard = guard.map(|claimed| (claimed.range.addr(), claimed.range.len_bytes()));
        let lowest = claim.usable().next().map(|range| range.addr());
        let is_guarded = guard == Some((4 * GIB, 64 << 10));
        assert!(
            is_guarded || lowest > Some(4 * GIB),
            "{guard:x?} {lowest:x?}"
        );
    }
    if limit != 0 {
        let others = to_be_had(left);
        println!("{others} of {left} bytes are left to others");
        assert!(others >= left / 4, "{others} of {left}");
    }
    // Others' mappings, wherever they go.
    let others = OS
        .reserve(&Request::bytes(16 * MIB))
        .expect("there is room for others");
    match report.others {
        Others::Room(room) => assert!(room.contains_range(others.addresses()), "{others:?}"),
        Others::Outside => {
            let range = report.range.expect("something is claimed");
            let is_free = !range.contains(others.addr()) || !report.is_complete();
            assert!(is_free, "{others:?}");
            let claimed = claim.ranges().map(|claimed| claimed.range.addresses());
            let mut common = claimed.filter_map(|range| range.intersect(others.addresses()));
            assert_eq!(common.next(), None, "{others:?}");
        }
        other => panic!("{other:?}"),
    }
    // SAFETY: reserved just now.
    unsafe { OS.release(others) }.expect("it goes");
    // The stack, deeper than it is.
    assert_eq!(descend(900), 901);
    // The heap: blocks of the break, and large ones.
    let blocks: Vec<_> = (1..2000).map(|n| vec![1_u8; 100 + n % 3000]).collect();
    let sum: usize = blocks.iter().map(|block| usize::from(block[99])).sum();
    assert_eq!(sum, 1999);
    let large = black_box(vec![2_u8; 8 * MIB]);
    assert_eq!(large[large.len() - 1], 2);
    // A thread.
    let thread = thread::Builder::new().stack_size(MIB);
    let thread = thread.spawn(|| descend(20)).expect("a thread starts");
    assert_eq!(thread.join().expect("it ends"), 21);
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("all can go");
    println!("{DONE}");
}

#[allow(dead_code, reason = "it is a module, too")]
#[expect(clippy::allow_attributes, reason = "as a program it is not dead")]
fn main() {
    run("0");
}
