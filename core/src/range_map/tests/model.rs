//! Random changes and questions, against the plain map.

extern crate std;
use super::super::{Value, change::Pages, gap::Wanted, node::Entry, pool::Writer, tree::Tree};
use super::{Apart, Big, Layout, Random, Slab, oracle::Oracle, scaled};
use std::vec::Vec;

fn model<T: Value, const W: usize>(layout: Layout, operations: usize, seed: u64) {
    let operations = scaled(operations);
    let slab = Slab::<W>::new(40_000);
    let Layout { base, step, slots } = layout;
    let (low, high) = (base, base + slots * step);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<T, W> = unsafe { Tree::new(&slab, low, high) };
    let mut writer = Writer::new();
    let mut oracle = Oracle {
        joins: T::from_bits(0).joins(),
        ..Oracle::default()
    };
    let mut random = Random(seed);
    let (mut deepest, mut most) = (0, 0);
    for n in 0..operations {
        // Slow tides between full and empty, long ranges now and then.
        let fills = (n / (operations / 8).max(1)).is_multiple_of(2);
        let pages = any_pages(layout, fills, &mut random);
        let bits = u32::try_from(random.below(3)).expect("small");
        let value = T::from_bits(bits);
        let kind = random.below(10);
        let removes = if fills { 2 } else { 6 };
        if kind < removes {
            let had = tree.remove(&mut writer, &slab, pages);
            assert_eq!(had, Ok(oracle.remove(pages)));
        } else if kind < 7 {
            let taken = !oracle.overlapping(pages).is_empty();
            let result = tree.insert_new(&mut writer, &slab, pages, value);
            assert_eq!(result.is_err(), taken);
            if !taken {
                oracle.insert(pages, bits);
            }
        } else if kind < 9 {
            let had = tree.insert(&mut writer, &slab, pages, value);
            assert_eq!(had, Ok(oracle.insert(pages, bits)));
        } else if random.below(2) == 0 {
            let salt = random.below(1000);
            rewrite_both(
                &tree,
                (&mut writer, &slab),
                &mut oracle,
                pages,
                |start, old| {
                    // Removes, fills and changes; each piece by where it lies.
                    match (start / step + salt) % 7 {
                        0 => None,
                        1 => Some(1),
                        2 => old.map(|bits| (bits + 1) % 3),
                        3 => old.or(Some(2)),
                        _ => old,
                    }
                },
            );
        } else {
            let change = |bits: u32| if bits == 2 { 0 } else { bits + 1 };
            let had = tree.update(&mut writer, &slab, pages, |value: T| {
                T::from_bits(change(value.to_bits()))
            });
            assert_eq!(had, Ok(oracle.update(pages, change)));
        }
        compare_near(&tree, &oracle, pages, &mut random);
        compare_gaps(&tree, &oracle, layout, &mut random);
        deepest = deepest.max(tree.root().map_or(0, |(_, height)| height));
        most = most.max(oracle.map.len());
        if n.is_multiple_of(64) || n + 1 == operations {
            tree.check(&writer);
            compare_all(&tree, &oracle);
        }
    }
    std::eprintln!("{W} words: at most {most} ranges in {} levels", deepest + 1);
    let had = tree.remove(&mut writer, &slab, (low, high));
    assert_eq!(had, Ok(oracle.remove((low, high))));
    tree.check(&writer);
    assert_eq!(writer.used(), 0);
}

/// Chooses pages to change: a few slots in most cases, and all to the end now and then.
fn any_pages(layout: Layout, fills: bool, random: &mut Random) -> Pages {
    let Layout { base, step, slots } = layout;
    let slot = random.below(slots);
    let longest = match random.below(64) {
        0 => slots - slot,
        1..8 => 40.min(slots - slot),
        _ => 3.min(slots - slot),
    };
    let count = 1 + random.below(longest);
    let mut pages = (base + slot * step, base + (slot + count) * step);
    if step > 4 && random.below(3) == 0 {
        // Not in step.
        pages = (
            pages.0 + random.below(step / 2),
            pages.1 - random.below(step / 2),
        );
    }
    if longest > 40 && fills {
        pages.1 = pages.1.min(pages.0 + 40 * step);
    }
    pages
}

/// Changes each range and each gap in pages as `change` says, in the tree and in the plain map.
fn rewrite_both<T: Value, const W: usize>(
    tree: &Tree<T, W>,
    (writer, slab): (&mut Writer<W>, &Slab<W>),
    oracle: &mut Oracle,
    pages: Pages,
    change: impl Fn(u64, Option<u32>) -> Option<u32>,
) {
    let mut asked = Vec::new();
    let had = tree.rewrite(writer, slab, pages, true, |piece, old: Option<T>| {
        let old = old.map(T::to_bits);
        asked.push((piece, old));
        change(piece.0, old).map(T::from_bits)
    });
    let pieces = oracle.pieces(pages);
    assert_eq!(asked, pieces);
    let covered = pieces.iter().filter(|(_, old)| old.is_some());
    let covered: u64 = covered.map(|((start, end), _)| end - start).sum();
    assert_eq!(had, Ok(covered));
    for (piece, old) in pieces {
        match change(piece.0, old) {
            new if new == old => {}
            Some(bits) => drop(oracle.insert(piece, bits)),
            None => drop(oracle.remove(piece)),
        }
    }
}

fn compare_all<T: Value, const W: usize>(tree: &Tree<T, W>, oracle: &Oracle) {
    let plain = oracle.map.iter();
    let entry = |(&s, &(e, v)): (&u64, &(u64, u32))| Entry::new(s, e, T::from_bits(v).to_bits64());
    let plain: Vec<_> = plain.map(entry).collect();
    assert_eq!(tree.all(), plain);
}

fn compare_near<T: Value, const W: usize>(
    tree: &Tree<T, W>,
    oracle: &Oracle,
    (start, end): Pages,
    random: &mut Random,
) {
    let anywhere = tree.low + random.below(tree.high - tree.low);
    for page in [
        start.saturating_sub(1).max(tree.low),
        start,
        end - 1,
        end,
        anywhere,
    ] {
        if page >= tree.high {
            continue;
        }
        let below = oracle.map.range(..=page).next_back();
        let holds = below.filter(|(_, (e, _))| *e > page);
        let entry =
            |(&s, &(e, v)): (&u64, &(u64, u32))| Entry::new(s, e, T::from_bits(v).to_bits64());
        assert_eq!(tree.query(page), holds.map(entry));
        let next = holds.or_else(|| oracle.map.range(page..).next());
        assert_eq!(tree.next_from(page), next.map(entry));
        let prev = oracle.map.range(..=page).next_back();
        assert_eq!(tree.prev_from(page), prev.map(entry));
        let mut buffer = [core::mem::MaybeUninit::uninit(); 5];
        let count = tree.read_from((page, tree.high - 1), &mut buffer);
        let following = next
            .iter()
            .flat_map(|(start, _)| oracle.map.range(*start..));
        // SAFETY: read_from has written the first `count` of them.
        let read = unsafe { buffer[..count].assume_init_ref() };
        assert!(count > 0 || next.is_none());
        assert!(following.map(entry).take(count).eq(read.iter().copied()));
    }
}

fn compare_gaps<T: Value, const W: usize>(
    tree: &Tree<T, W>,
    oracle: &Oracle,
    layout: Layout,
    random: &mut Random,
) {
    let Layout { base, step, slots } = layout;
    let mut wanted = Wanted {
        len: (1 + random.below(6)) * step,
        align: 1 << random.below(5),
        shift: random.below(9),
        low: tree.low,
        high: tree.high,
    };
    if random.below(2) == 0 {
        let slot = random.below(slots);
        wanted.low = base + slot * step + random.below(step);
        wanted.high = (wanted.low + 1 + random.below(60 * step)).min(tree.high);
    }
    let fits = oracle.fits(&wanted);
    assert_eq!(tree.find_lowest(&wanted), fits.first().map(|fit| fit.0));
    assert_eq!(tree.find_highest(&wanted), fits.last().map(|fit| fit.1));
    let page = base + random.below(slots * step);
    assert_eq!(
        tree.find_nearest(&wanted, page),
        oracle.nearest(&wanted, page),
        "{wanted:?} near {page}"
    );
    let gaps = oracle.gaps((wanted.low, wanted.high));
    let largest = gaps
        .iter()
        .copied()
        .reduce(|a, b| if b.1 - b.0 > a.1 - a.0 { b } else { a });
    assert_eq!(tree.largest_gap(wanted.low, wanted.high), largest);
    assert_eq!(
        tree.next_gap(wanted.low, wanted.high),
        gaps.first().copied()
    );
}

const CLOSE: Layout = Layout {
    base: 7,
    step: 1,
    slots: 3000,
};

#[test]
fn narrow_nodes_agree_with_a_plain_map() {
    model::<u32, 12>(CLOSE, 20_000, 0x1234_5678_9abc_def1);
    model::<Apart, 12>(CLOSE, 20_000, 0x9abc_def1_2345_6781);
    model::<u32, 16>(CLOSE, 20_000, 0x1111_5678_9abc_def1);
    model::<Apart, 16>(CLOSE, 20_000, 0x2222_5678_9abc_def1);
    model::<Big, 16>(CLOSE, 20_000, 0x3333_5678_9abc_def1);
}

#[test]
fn nodes_of_the_real_size_agree_with_a_plain_map() {
    let many = Layout {
        slots: 30_000,
        ..CLOSE
    };
    model::<u32, 96>(many, 50_000, 0x1357_9bdf_0246_8ace);
    model::<Apart, 96>(many, 50_000, 0xace0_2468_1357_9bdf);
    model::<Big, 96>(many, 20_000, 0xace0_2468_1357_9be1);
}

#[test]
fn ranges_far_apart_and_long_agree_with_a_plain_map() {
    for step in [1 << 27, 1 << 30, 1 << 33] {
        let far = Layout {
            base: (1 << 33) + 5,
            step,
            slots: 3000,
        };
        model::<u32, 16>(far, 10_000, 0x1234_5678_9abc_def1 ^ step);
        model::<Apart, 96>(far, 10_000, 0x9abc_def1_2345_6781 ^ step);
    }
}
