//! Code ranges on a simulated host, where calls fail.

use super::{mappings, page};
use crate::code::OS;
use hostmem::{
    CodeRangeConfig, OsProvider,
    jit::{self, JitError, Mapping},
    provider::{Error, ErrorKind, PageProvider, Place, Placement, Request},
    sim::{Calls, Faulty, Policy, Sim},
};

/// Whatever call fails: nothing leaks, and no call is made that a host would not take.
#[test]
fn any_call_may_fail() {
    for (mapping, guard) in mappings().into_iter().flat_map(|m| [(m, 0), (m, page())]) {
        let mut n = 0;
        loop {
            let policy = Policy::new(OS.page_size()).space(64 << 20);
            let sim = Sim::new(OS, policy).expect("addresses");
            let faulty = Faulty::new(&sim);
            faulty.fail_nth(n);
            let config = CodeRangeConfig::new(16 * page())
                .mapping(mapping)
                .guard(guard);
            let result = use_range(&faulty, config);
            let failures = faulty.failures();
            assert_eq!(sim.take_misuse(), None, "{mapping:?}, {guard}, call {n}");
            if failures == 0 {
                assert_eq!(result, Ok(()), "{mapping:?}, {guard}");
                assert_eq!(sim.pages_in_use(), 0, "{mapping:?}, {guard}");
                assert!(n > 3, "there are calls that can fail");
                break;
            }
            // A release that failed wastes addresses; nothing else does.
            let most = 16 + 2 * guard / page();
            assert!(
                sim.pages_in_use() <= 2 * most,
                "{mapping:?}, {guard}, call {n}"
            );
            n += 1;
        }
    }
}

/// A host that refuses dual mappings is asked for a single one; not one that lacks memory now,
/// nor for a place that is in use.
#[test]
fn only_what_is_refused_is_mapped_another_way() {
    use ErrorKind::{Denied, Exhausted, Other, Unsupported};
    for (kind, guard) in [Denied, Unsupported, Other, Exhausted]
        .into_iter()
        .flat_map(|kind| [(kind, 0), (kind, page())])
    {
        let policy = Policy::new(OS.page_size()).space(64 << 20);
        let sim = Sim::new(OS, policy).expect("addresses");
        let error = Error::os(kind, 99);
        let faulty = Faulty::new(&sim).with_error(error);
        faulty.only(Calls::MAP_DUAL);
        for mapping in mappings() {
            let config = CodeRangeConfig::new(16 * page())
                .mapping(mapping)
                .guard(guard);
            faulty.fail_randomly(0, 1);
            let made = jit::CodeRange::on(&faulty, config);
            let falls_back = mapping == Mapping::Auto && kind != Exhausted;
            let asks = matches!(mapping, Mapping::Dual | Mapping::Auto);
            if asks && !falls_back {
                let expected = JitError::Map(error.into());
                assert_eq!(made.err(), Some(expected), "{mapping:?}, {guard}");
                assert_eq!(sim.pages_in_use(), 0, "{mapping:?}, {guard}");
                // Later there is memory.
                faulty.fail_none();
                let code = jit::CodeRange::on(&faulty, config).expect("a mapping");
                assert_eq!(code.mapping(), Mapping::Dual, "{mapping:?}, {guard}");
            } else {
                let single = if falls_back { Mapping::Toggle } else { mapping };
                let mut code = made.expect("a mapping");
                assert_eq!(code.mapping(), single, "{kind:?}, {guard}");
                assert_eq!(code.write(3, &[1; 100]), Ok(()), "{kind:?}, {guard}");
            }
            assert_eq!(sim.take_misuse(), None, "{mapping:?}, {kind:?}, {guard}");
        }
        let taken = sim.reserve(&Request::bytes(page())).expect("a page");
        let place = Place::Exact(taken.addr());
        let config = CodeRangeConfig::new(page())
            .mapping(Mapping::Auto)
            .placement(Placement {
                place,
                ..Placement::ANYWHERE
            });
        faulty.fail_none();
        let made = jit::CodeRange::on(&faulty, config).map(drop);
        let unplaced = matches!(made, Err(JitError::Map(e)) if e.unplaced().is_some());
        assert!(unplaced, "{made:?}");
        // SAFETY: reserved above, and unused.
        unsafe { sim.release(taken) }.expect("a whole reservation");
    }
}

fn use_range(host: &Faulty<&Sim<OsProvider>>, config: CodeRangeConfig) -> Result<(), String> {
    let said = |error: JitError| error.to_string();
    let mut code = jit::CodeRange::on(host, config).map_err(said)?;
    code.write(3 * page(), &[1; 100]).map_err(said)?;
    let host_said = |error: Error| error.to_string();
    // SAFETY: no other thread uses the range.
    unsafe { code.purge(8 * page()..16 * page()) }.map_err(host_said)?;
    code.write(9 * page(), &[2; 100]).map_err(said)?;
    // SAFETY: no other thread uses the range.
    unsafe { code.shrink(2 * page()..10 * page()) }.map_err(host_said)?;
    let written = code.rx().as_ptr().wrapping_add(page());
    // SAFETY: the page is readable.
    assert_eq!(unsafe { written.read() }, 1);
    code.recycle().map_err(said)?;
    code.write(0, &[3; 100]).map_err(said)
}
