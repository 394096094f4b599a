//! Mappings are counted as the host has them.

use super::{OS, RW, agree, lent, map_file, map_shared, page, program, smaps_of};
use crate::common::skip_emulated;
use hostmem::{
    page::{Access, PageRange},
    provider::{
        Commit, DualMapProvider, DualRequest, Dump, Leave, PageProvider, PageWish, Place, Request,
    },
};
use hostmem_test_support::isolate::{isolated, leave_out};

#[test]
fn what_a_caller_places_counts_by_itself() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated!("what_a_caller_places_counts_by_itself", || {
        let (region, space) = lent(8192);
        let file = program();
        let one = Request::bytes(page());
        let mut files = Vec::with_capacity(2000);
        for _ in 0..2000 {
            files.push(map_file(&region, &file, &one));
        }
        assert_eq!(agree(&region, space, "files"), 2001);
        let pressure = region.mapping_pressure().expect("far more than 1000");
        assert_eq!((pressure.mappings, pressure.limit), (2001, 1000));
        // Each is a range of its own.
        for file in &files {
            let found = region.query(file.addr()).expect("mapped");
            assert_eq!(found.addresses, file.addresses());
        }
        for pair in files.chunks(2) {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(pair[0]) }.expect("a file can go");
        }
        agree(&region, space, "every second one gone");
        // Between what is there still.
        for _ in 0..500 {
            map_file(&region, &file, &one);
            map_shared(&region, &one);
        }
        agree(&region, space, "others in their places");
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all can go");
        assert_eq!(agree(&region, space, "nothing"), 1);
        assert_eq!(region.mapping_pressure(), None);
    });
}

#[test]
fn parts_of_what_a_caller_placed_join_again() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated!("parts_of_what_a_caller_placed_join_again", || {
        let (region, space) = lent(256);
        let file = program();
        let eight = Request::bytes(8 * page());
        let (first, second) = (
            map_file(&region, &file, &eight),
            map_file(&region, &file, &eight),
        );
        map_shared(&region, &eight);
        agree(&region, space, "three");
        let part = |range: PageRange, from: usize, pages: usize| {
            range
                .part(from * page(), pages * page(), OS.page_size())
                .expect("a part")
        };
        for (range, access) in [(first, Access::None), (second, Access::ReadExec)] {
            let middle = part(range, 2, 3);
            // SAFETY: mapped, and not used meanwhile.
            unsafe { region.protect(middle, access) }.expect("an access");
            agree(&region, space, "parts");
            // SAFETY: mapped, and not used meanwhile.
            unsafe { region.protect(middle, Access::Read) }.expect("an access");
            agree(&region, space, "whole again");
        }
        // A hole, and something else in it.
        let middle = part(first, 2, 3);
        // SAFETY: no other code uses it.
        unsafe { region.unmap(middle) }.expect("a part can go");
        agree(&region, space, "a hole");
        let place = Place::Exact(middle.addr());
        map_file(&region, &file, &Request::bytes(3 * page()).place(place));
        agree(&region, space, "another in it");
        let both = [first, second];
        for (n, range) in both.into_iter().enumerate() {
            // SAFETY: no other code uses it.
            unsafe { region.map_over(part(range, n, 4), RW, 1) }.expect("memory");
            agree(&region, space, "memory over it");
        }
    });
}

#[test]
fn what_was_writable_for_a_time_stays_apart() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated!("what_was_writable_for_a_time_stays_apart", || {
        let (region, space) = lent(256);
        let mapped = map_file(&region, &program(), &Request::bytes(8 * page()));
        let part = |from: usize, pages: usize| {
            let part = mapped.part(from * page(), pages * page(), OS.page_size());
            part.expect("a part")
        };
        // As a loader relocates a program.
        for (pages, access) in [
            (part(2, 3), Access::ReadWrite),
            (part(2, 3), Access::Read),
            (part(3, 1), Access::ReadExec),
            (part(3, 1), Access::Read),
            (mapped, Access::ReadWrite),
            (part(0, 4), Access::Read),
            (mapped, Access::Read),
        ] {
            // SAFETY: mapped, and not used meanwhile.
            unsafe { region.protect(pages, access) }.expect("an access");
            agree(&region, space, "an access");
        }
    });
}

#[test]
fn guards_around_what_a_caller_placed_are_like_all_others() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    let test = "guards_around_what_a_caller_placed_are_like_all_others";
    isolated!(test, || {
        let (region, space) = lent(256);
        let guarded = Request::bytes(4 * page()).guards(page(), 2 * page());
        map_file(&region, &program(), &guarded);
        map_shared(&region, &guarded);
        assert_eq!(agree(&region, space, "free pages and guards are one"), 5);
        let named = guarded.name(c"one").exclude_from_dump();
        map_shared(&region, &named);
        agree(&region, space, "those with a name");
    });
}

#[test]
fn names_wishes_views_and_guards_are_counted_as_the_host_has_them() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    let test = "names_wishes_views_and_guards_are_counted_as_the_host_has_them";
    isolated!(test, || {
        let (region, space) = lent(4096);
        let four = Request::bytes(4 * page());
        let map = |request: &Request<'_>, how, tag| region.map(request, how, tag).expect("memory");
        map(&four, RW, 1);
        map(&four, RW, 2);
        agree(&region, space, "alike but for their owners");
        map(&four.exclude_from_dump(), RW, 1);
        map(&four.exclude_from_dump(), RW, 2);
        agree(&region, space, "in no core file");
        for pages in [PageWish::Never, PageWish::Transparent, PageWish::Base] {
            map(&four, Commit { pages, ..RW }, 1);
            map(&four, Commit { pages, ..RW }, 2);
        }
        agree(&region, space, "wishes");
        map(&four.guards(page(), page()).exclude_from_dump(), RW, 3);
        agree(&region, space, "guards");
        let named = map(&four.name(c"one"), RW, 1);
        if !smaps_of(named.addr()).text.contains("[anon:one]") {
            leave_out("the kernel keeps no names: all the same it counts");
        }
        agree(&region, space, "a name");
        map(&four.name(c"one"), RW, 2);
        map(&four.name(c"two"), RW, 2);
        map(&four.name(c"no $name"), RW, 2);
        map(&four.name(c"one").guards(page(), 0), RW, 2);
        agree(&region, space, "names");
        // SAFETY: the region's.
        unsafe { region.describe(named, Some(c"three"), Dump::Excluded) };
        agree(&region, space, "another name");
        if smaps_of(named.addr()).text.contains("[anon:three]") {
            // More than there are numbers for.
            for n in 0..100 {
                let name = std::ffi::CString::new(format!("name {n}")).expect("no zero");
                map(&four.name(&name), RW, 2);
            }
            agree(&region, space, "many names");
        }
        let mut views = Vec::with_capacity(4);
        for _ in 0..4 {
            let view = DualRequest::bytes(4 * page());
            // SAFETY: both views are wherever the region places them.
            let mapping = unsafe { region.map_dual(&view) };
            views.push(mapping.expect("a dual mapping"));
        }
        agree(&region, space, "views");
        for (view, leave) in views
            .drain(..)
            .zip([Leave::Hole, Leave::Reserved].repeat(2))
        {
            // SAFETY: no other code uses it.
            unsafe { region.unmap_dual(view, leave) }.expect("it goes");
            agree(&region, space, "a view less");
        }
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all can go");
        assert_eq!(agree(&region, space, "nothing"), 1);
    });
}
