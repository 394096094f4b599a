//! A copy has what readers find, wherever the writer stopped.

extern crate std;
use super::super::{pool::Writer, tree::Tree};
use super::{Apart, Slab};

/// The nodes above say first that the first range of a leaf goes.
#[test]
fn the_first_range_of_a_leaf_is_not_copied_when_it_has_gone() {
    let slab = Slab::<12>::new(100);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<Apart, 12> = unsafe { Tree::new(&slab, 0, 1000) };
    // SAFETY: as above.
    let copy: Tree<Apart, 12> = unsafe { Tree::new(&slab, 0, 1000) };
    let mut writer = Writer::new();
    for n in 1..12 {
        let pages = (10 * n, 10 * n + 3);
        let inserted = tree.insert_new(&mut writer, &slab, pages, Apart(3));
        assert_eq!(inserted, Ok(()));
    }
    let (root, height) = tree.root().expect("there are ranges");
    assert_eq!(height, 1, "a node above leaves");
    let above = tree.node(root);
    let gone = above.low(1);
    assert!(tree.query(gone).is_some_and(|entry| entry.start == gone));
    above.begin(1, gone + 10);
    assert_eq!(tree.query(gone), None);
    let mut writer = Writer::new();
    let copied = tree.copy_to(&copy, &mut writer, &slab, |_, _| {});
    assert!(copied.is_ok());
    for page in 0..1000 {
        assert_eq!(copy.query(page), tree.query(page), "{page}");
    }
    assert_eq!(writer.ranges, 10);
}
