use super::*;

#[test]
fn classes_rise_and_fit() {
    for class in 1..CLASSES {
        assert!(size(class - 1) < size(class));
        assert!(size(class).is_multiple_of(STEP));
        assert!(blocks(class) >= 1 && blocks(class) <= 4096);
    }
    assert_eq!(size(TABLE_LAST), TABLE_MAX);
    assert_eq!(size(CLASSES - 1), CACHED_MAX);
}

#[test]
fn every_layout_gets_the_least_class_that_serves_it() {
    for size in (0..3000).chain((3000..CACHED_MAX + 100).step_by(61)) {
        for align in [1, 16, 32, 64, 256, 4096, GRANULE, 2 * GRANULE] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let serves = |class: &usize| {
                super::size(*class) >= size && super::size(*class).is_multiple_of(align)
            };
            // Slabs are aligned to granules, and no more.
            let least = (0..CLASSES).find(serves).filter(|_| align <= GRANULE);
            assert_eq!(of(layout), least, "{layout:?}");
            if let Some(class) = quick(layout) {
                assert_eq!(Some(class), least, "{layout:?}");
            }
        }
    }
}

#[test]
fn offsets_are_divided_by_sizes() {
    for class in 0..CLASSES {
        let size = if blocks(class) == 1 {
            usize::MAX
        } else {
            size(class)
        };
        for offset in 0..granules(class) * GRANULE {
            let expected = (offset / size, offset % size == 0);
            assert_eq!(
                index(offset, reciprocal(class)),
                expected,
                "{offset} of {size}"
            );
            if is_quick(class) && offset < GRANULE {
                let quick = quick_index(offset, reciprocal(class));
                assert_eq!(quick, expected, "{offset} of {size}");
            }
        }
    }
}

#[test]
fn little_is_left_over_in_a_slab() {
    for class in 0..CLASSES {
        let used = blocks(class) * size(class);
        assert!(
            used * 100 >= granules(class) * GRANULE * 93,
            "class {class}"
        );
    }
}
