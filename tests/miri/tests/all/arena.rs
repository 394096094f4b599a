//! An arena.

use crate::{byte, layout};
use hostmem_core::{arena::Arena, provider::Capabilities, sync::Spin};
use hostmem_miri::{Host, Random};

#[test]
fn an_arena() {
    let host = Host::new(Capabilities::empty());
    let arena: Arena<_, Spin> = Arena::new(&host, 1 << 20).expect("a page");
    let mut live = Vec::new();
    let mut random = Random(7);
    for n in 0..60 {
        let layout = layout(1 + random.below(900), 1 << random.below(8));
        let object = arena.alloc(layout).expect("memory");
        // SAFETY: a live object of this many bytes.
        unsafe { object.write_bytes(byte(n), layout.size()) };
        live.push((object, layout, n));
        if random.below(3) == 0 {
            let (object, layout, n) = live.swap_remove(random.below(live.len()));
            // SAFETY: the last byte of a live object.
            let last = unsafe { object.add(layout.size() - 1).read() };
            assert_eq!(last, byte(n));
            // SAFETY: live, of this layout, and not used any more.
            unsafe { arena.free(object, layout) };
        }
    }
    for (object, layout, n) in live {
        // SAFETY: a live object.
        assert_eq!(unsafe { object.read() }, byte(n));
        // SAFETY: live, of this layout, and not used any more.
        unsafe { arena.free(object, layout) };
    }
    drop(arena);
    assert_eq!(host.reservations(), 0);
}
