//! Models: a reader without the lock, and a tree that the lock's holder changes.

extern crate std;
use super::{
    node::Node,
    pool::{Source, Writer},
    tree::Tree,
};
use crate::{
    atomic::{AtomicUsize, Ordering, fence},
    provider::{Error, ErrorKind},
};
use core::ptr::NonNull;
use loom::thread;
use std::{boxed::Box, vec::Vec};

/// Words of a node: the fewest.
const W: usize = 12;

/// A few nodes that outlive the model, all made by one call.
struct Few {
    nodes: NonNull<Node<W>>,
    count: usize,
    given: AtomicUsize,
}

impl Few {
    fn new(count: usize) -> Self {
        let nodes: Vec<_> = (0..count).map(|_| Node::<W>::new()).collect();
        Self {
            nodes: NonNull::from(Box::leak(nodes.into_boxed_slice())).cast(),
            count,
            given: AtomicUsize::new(0),
        }
    }
}

// SAFETY: the nodes are initialised, are never freed, and are given out once.
unsafe impl Source<W> for Few {
    fn nodes(&self, least: usize, _: usize) -> Result<(NonNull<Node<W>>, usize), Error> {
        let given = self.given.load(Ordering::Relaxed);
        if given + least > self.count {
            return Err(ErrorKind::Exhausted.into());
        }
        self.given.store(given + least, Ordering::Relaxed);
        // SAFETY: given < count nodes lie there.
        Ok((unsafe { self.nodes.add(given) }, least))
    }
}

struct Model {
    tree: &'static Tree<u32, W>,
    writer: Writer<W>,
    source: Few,
}

impl Model {
    /// Makes a tree, and nodes for it.
    fn new(nodes: usize) -> Self {
        // Made now, what all fences share orders nothing later.
        fence(Ordering::SeqCst);
        let source = Few::new(nodes);
        // SAFETY: the source is what all changes are given; its nodes are never freed.
        let tree = unsafe { Tree::new(&source, 0, 1000) };
        Self {
            tree: Box::leak(Box::new(tree)),
            writer: Writer::new(),
            source,
        }
    }

    /// Makes a leaf of three ranges, three pages each, of one value.
    fn of_three() -> Self {
        let mut model = Self::new(16);
        for start in [10, 20, 40] {
            model.insert((start, start + 3), 3);
        }
        model
    }

    fn insert(&mut self, pages: (u64, u64), value: u32) {
        self.tree
            .insert(&mut self.writer, &self.source, pages, value)
            .expect("there are nodes");
    }

    fn remove(&mut self, pages: (u64, u64)) {
        self.tree
            .remove(&mut self.writer, &self.source, pages)
            .expect("there are nodes");
    }

    /// Lets all replaced nodes be used again at once, the oldest last.
    fn recycle(&mut self) {
        self.tree.recycle(&mut self.writer);
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // One switch in the middle of the reader is what it takes to use a node again under it.
    builder.preemption_bound = Some(1);
    builder.max_branches = 20_000;
    builder.check(check);
}

/// Leaves are copied, published, and used again under the reader.
#[test]
fn model_a_range_is_found_whole_while_others_come_and_go() {
    model(|| {
        let mut model = Model::new(16);
        model.insert((10, 13), 3);
        let tree = model.tree;
        let reader = thread::spawn(move || tree.query(11));
        model.insert((20, 21), 1);
        model.recycle();
        // Written to the leaf that the reader may be in.
        model.insert((5, 6), 2);
        let found = reader.join().expect("the reader ends").expect("found");
        assert_eq!((found.start, found.len, found.bits), (10, 3, 3));
    });
}

/// A range in the place of another is one or the other.
#[test]
fn model_a_range_that_is_replaced_is_never_half_of_each() {
    model(|| {
        let mut model = Model::new(16);
        model.insert((10, 13), 3);
        let tree = model.tree;
        let reader = thread::spawn(move || tree.query(11));
        model.insert((8, 12), 4);
        model.recycle();
        model.insert((8, 20), 12);
        let found = reader.join().expect("the reader ends").expect("found");
        let found = (found.start, found.len, found.bits);
        assert!(
            [(10, 3, 3), (8, 4, 4), (8, 12, 12)].contains(&found),
            "{found:?}"
        );
    });
}

/// The root becomes another one, and nodes of one level nodes of another.
#[test]
fn model_a_range_is_found_while_nodes_change_their_level() {
    model(|| {
        let mut model = Model::new(48);
        for n in 0..7 {
            model.insert((10 * n + 10, 10 * n + 13), 3);
        }
        let tree = model.tree;
        let reader = thread::spawn(move || tree.query(11));
        model.remove((20, 900));
        model.insert((30, 33), 3);
        let found = reader.join().expect("the reader ends").expect("found");
        assert_eq!((found.start, found.len, found.bits), (10, 3, 3));
    });
}

/// A leaf takes the place of another one in the same inner node.
#[test]
fn model_a_range_is_found_while_its_leaf_is_replaced() {
    model(|| {
        let mut model = Model::new(48);
        for n in 0..7 {
            model.insert((10 * n + 10, 10 * n + 13), 3);
        }
        let tree = model.tree;
        let reader = thread::spawn(move || tree.query(71));
        model.insert((80, 83), 4);
        model.recycle();
        model.insert((90, 93), 5);
        let found = reader.join().expect("the reader ends").expect("found");
        assert_eq!((found.start, found.len, found.bits), (70, 3, 3));
    });
}

/// A range goes, and another one takes its place in the same leaf by two stores.
#[test]
fn model_a_range_that_takes_a_dead_ones_place_is_never_half_of_each() {
    for page in [22, 31] {
        model(move || {
            let mut model = Model::of_three();
            let tree = model.tree;
            let reader = thread::spawn(move || tree.query(page));
            model.remove((20, 23));
            model.insert((30, 35), 4);
            let found = reader.join().expect("the reader ends");
            let found = found.map(|e| (e.start, e.len, e.bits));
            let there = if page == 22 { (20, 3, 3) } else { (30, 5, 4) };
            assert!([None, Some(there)].contains(&found), "{found:?}");
        });
    }
}

/// A range becomes shorter, longer and another one where it lies, while one asks what comes first.
#[test]
fn model_the_next_range_is_one_that_was_there() {
    model(|| {
        let mut model = Model::of_three();
        let tree = model.tree;
        let reader = thread::spawn(move || tree.next_from(15));
        model.remove((20, 23));
        model.insert((16, 18), 4);
        let found = reader.join().expect("the reader ends").expect("found");
        let found = (found.start, found.len, found.bits);
        let there = [(20, 3, 3), (40, 3, 3), (16, 2, 4)];
        assert!(there.contains(&found), "{found:?}");
    });
}

/// One range grows and then another one goes: what lies behind both is never first.
#[test]
fn model_changes_of_two_ranges_are_seen_in_their_order() {
    model(|| {
        let mut model = Model::of_three();
        let tree = model.tree;
        let reader = thread::spawn(move || tree.next_from(15));
        model.insert((13, 18), 3);
        model.remove((20, 23));
        let found = reader.join().expect("the reader ends").expect("found");
        let found = (found.start, found.len, found.bits);
        assert!([(20, 3, 3), (10, 8, 3)].contains(&found), "{found:?}");
    });
}

/// The first range of a leaf goes, and the node above says first where the leaf begins then.
#[test]
fn model_what_lies_around_the_first_range_of_a_leaf_stays_when_that_goes() {
    // The last range of the leaf in front, where the first one was, and the one behind.
    for page in [62, 71, 82] {
        model(move || {
            let mut model = Model::new(48);
            for n in 0..11 {
                model.insert((10 * n + 10, 10 * n + 13), 3);
            }
            let tree = model.tree;
            let reader = thread::spawn(move || {
                let found = (tree.query(page), tree.prev_from(page));
                (found, tree.next_from(65))
            });
            model.remove((70, 73));
            let ((found, before), next) = reader.join().expect("the reader ends");
            let starts = (found.map(|e| e.start), before.map(|e| e.start));
            let there: &[_] = match page {
                62 => &[(Some(60), Some(60))],
                71 => &[(Some(70), Some(70)), (Some(70), Some(60)), (None, Some(60))],
                _ => &[(Some(80), Some(80))],
            };
            assert!(there.contains(&starts), "{starts:?}");
            let next = next.map(|e| (e.start, e.len));
            assert!([Some((70, 3)), Some((80, 3))].contains(&next), "{next:?}");
        });
    }
}

/// Those that are read from within or behind one that makes way, and behind one that comes.
#[test]
fn model_ranges_that_make_way_are_read_once_from_any_page() {
    for (goes, comes, from) in [
        (40, 15, 21),
        (40, 15, 23),
        (20, 50, 41),
        (20, 50, 43),
        (40, 15, 17),
        (20, 50, 52),
    ] {
        model(move || {
            let mut model = Model::of_three();
            model.insert((60, 63), 3);
            model.remove((goes, goes + 3));
            let tree = model.tree;
            let reader = thread::spawn(move || {
                let mut buffer = [core::mem::MaybeUninit::uninit(); 6];
                let count = tree.read_from((from, 999), &mut buffer);
                // SAFETY: read_from has written the first `count` of them.
                let read = unsafe { buffer[..count].assume_init_ref() };
                read.iter().map(|e| (e.start, e.end())).collect::<Vec<_>>()
            });
            model.insert((comes, comes + 2), 4);
            let read = reader.join().expect("the reader ends");
            let mut all = Vec::from([(10, 13), (20, 23), (40, 43), (60, 63), (comes, comes + 2)]);
            all.retain(|e| e.0 != goes && e.1 > from);
            all.sort_unstable();
            let before: Vec<_> = all.iter().copied().filter(|e| e.0 != comes).collect();
            assert!(read == all || read == before, "from {from}: {read:?}");
        });
    }
}

/// Ranges make way for one that comes, in the direction of a dead one.
#[test]
fn model_ranges_that_make_way_are_found_once() {
    for (goes, comes, stays) in [(40, 15, 20), (20, 50, 40)] {
        model(move || {
            let mut model = Model::of_three();
            model.insert((60, 63), 3);
            model.remove((goes, goes + 3));
            let tree = model.tree;
            let reader = thread::spawn(move || {
                let mut buffer = [core::mem::MaybeUninit::uninit(); 6];
                let count = tree.read_from((0, 999), &mut buffer);
                // SAFETY: read_from has written the first `count` of them.
                let read = unsafe { buffer[..count].assume_init_ref() };
                let read: Vec<_> = read.iter().map(|e| (e.start, e.len)).collect();
                (tree.query(stays + 2), read)
            });
            model.insert((comes, comes + 2), 4);
            let (found, read) = reader.join().expect("the reader ends");
            assert_eq!(found.map(|e| (e.start, e.len)), Some((stays, 3)));
            let mut all = Vec::from([(10, 3), (comes, 2), (stays, 3), (60, 3)]);
            all.sort_unstable();
            let before: Vec<_> = all.iter().copied().filter(|e| e.0 != comes).collect();
            assert!(read == all || read == before, "{read:?}");
        });
    }
}
