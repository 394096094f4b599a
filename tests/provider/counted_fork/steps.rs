//! Children that are forked between any two instructions of a call, by the trap flag of the CPU.

use super::{Bed, KEPT, OS, PAGES, PART, RW, counted, page, simulated};
use crate::common::{
    at_length,
    steps::{Then, at_every_step},
};
use core::cell::Cell;
use hostmem::{
    fork::ForkChild,
    page::{Access, PageRange},
    provider::{Capabilities, Error, PageProvider, Request},
};
use hostmem_test_support::isolate::isolated;

/// A call, and how many pages are committed and reserved after it.
struct Case<'a> {
    what: &'a str,
    prepare: &'a dyn Fn(),
    call: &'a dyn Fn() -> Result<(), Error>,
    committed: usize,
    reserved: usize,
}

fn check<P: PageProvider>(bed: &Bed<'_, P>, objects: &[&dyn ForkChild], case: &Case<'_>) {
    let forks = if at_length() { 3000 } else { 16 };
    for then in [Then::Ends, Then::Resumes] {
        eprintln!("{}, {then:?}", case.what);
        let child = || {
            for object in objects.iter().rev() {
                // SAFETY: the only thread of a child; providers come last in the list.
                if unsafe { object.fork_child() }.is_err() {
                    return 1;
                }
            }
            bed.child(PAGES..=PAGES + PART)
        };
        let after = |result: Result<(), Error>| {
            let committed = bed.committed() == case.committed && bed.is_consistent(0);
            let reserved = bed.reserved().is_none_or(|now| now == case.reserved);
            match bed.work() {
                0 => {
                    i32::from(result.is_err()) << 6
                        | i32::from(!committed) << 5
                        | i32::from(!reserved) << 4
                }
                code => code,
            }
        };
        at_every_step(forks, then, case.prepare, case.call, &child, &after);
    }
}

/// Makes each call of a provider with forks between its instructions.
fn check_all<P: PageProvider>(bed: &Bed<'_, P>, objects: &[&dyn ForkChild]) {
    let provider = &bed.provider;
    let (part, other) = (bed.part(KEPT, PART), bed.part(KEPT + 2 * PART, PART));
    let held = Cell::new(None::<PageRange>);
    // Commits in the part alone, and nothing is reserved beside the space.
    let nothing = || {
        for range in [part, other] {
            // SAFETY: reserved, and not used.
            unsafe { provider.decommit(range) }.expect("reserved or committed");
        }
        if let Some(range) = held.take() {
            // SAFETY: reserved by the test, and not used.
            unsafe { provider.release(range) }.expect("reserved");
        }
    };
    // SAFETY: reserved, and not used.
    let commit = || unsafe { provider.commit(part, RW) }.map(drop);
    let memory = || {
        nothing();
        commit().expect("memory");
    };
    let reserve = || {
        held.set(Some(provider.reserve(&Request::bytes(PART * page()))?));
        Ok(())
    };
    let addresses = || {
        nothing();
        reserve().expect("addresses");
    };
    let release = || {
        let range = held
            .take()
            .ok_or(hostmem::provider::ErrorKind::InvalidArgument)?;
        // SAFETY: reserved by the test, and not used.
        unsafe { provider.release(range) }
    };
    // SAFETY: committed, and not used.
    let decommit = || unsafe { provider.decommit(part) };
    let protect = || {
        // SAFETY: committed.
        unsafe { provider.protect(part, Access::Read) }?;
        // SAFETY: committed.
        unsafe { provider.protect(part, Access::ReadWrite) }
    };
    // SAFETY: committed, and the contents are not needed.
    let purge = || unsafe { provider.purge(part) }.map(drop);
    // SAFETY: one is committed and the other reserved.
    let move_pages = || unsafe { provider.move_pages(part, other) };
    let case = |what, prepare, call, committed, reserved| {
        let case = Case {
            what,
            prepare,
            call,
            committed: KEPT + committed,
            reserved: PAGES + reserved,
        };
        check(bed, objects, &case);
    };
    case("commit", &nothing, &commit, PART, 0);
    case("decommit", &memory, &decommit, 0, 0);
    case("protect", &memory, &protect, PART, 0);
    case("purge", &memory, &purge, PART, 0);
    if provider.capabilities().contains(Capabilities::MOVE_PAGES) {
        case("move_pages", &memory, &move_pages, PART, 0);
    }
    case("reserve", &nothing, &reserve, 0, PART);
    case("release", &addresses, &release, 0, 0);
}

#[test]
fn children_forked_within_calls_of_a_counter_count_on() {
    let name = "children_forked_within_calls_of_a_counter_count_on";
    isolated!(name, || {
        let counted = &counted(OS);
        let (counters, state) = (|| Some(counted.counters()), |_| None);
        check_all(&Bed::new(counted, &counters, &state), &[counted]);
    });
}

#[test]
fn children_forked_within_calls_of_a_simulated_host_have_one_of_their_own() {
    let name = "children_forked_within_calls_of_a_simulated_host_have_one_of_their_own";
    isolated!(name, || {
        let sim = &simulated();
        let state = |addr| Some(sim.page_state(addr));
        check_all(&Bed::new(sim, &|| None, &state), &[sim]);
        assert_eq!(sim.take_misuse(), None);
    });
}

#[test]
fn children_forked_within_calls_of_both_have_both() {
    isolated!("children_forked_within_calls_of_both_have_both", || {
        let sim = &simulated();
        let counted = &counted(sim);
        let state = |addr| Some(sim.page_state(addr));
        let counters = || Some(counted.counters());
        check_all(&Bed::new(counted, &counters, &state), &[counted, sim]);
        assert_eq!(sim.take_misuse(), None);
    },);
}
