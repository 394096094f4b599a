//! Puts a program into the guest's memory, with what it is told on its stack.

use crate::{
    access::Identity,
    elf::{Image, Protection},
    interpret::Hart,
    signals::TRAMPOLINE,
    space::{Content, Mapping, PAGE, Place, Space},
    sys,
};
use alloc::{vec, vec::Vec};
use hostmem::provider::{Error, ErrorKind};

/// Bytes of the first thread's stack.
pub(crate) const STACK: u32 = 8 << 20;

/// Loads a program; returns the registers that it starts with, and where handlers return to.
///
/// # Errors
///
/// Without memory, or where arguments take more than half of the stack.
pub(crate) fn load(
    space: &Space,
    image: &Image<'_>,
    args: &[Vec<u8>],
    environment: &[Vec<u8>],
) -> Result<(Hart, u32), Error> {
    crate::syscalls::load(space, image)?;
    let behind = image.end().checked_next_multiple_of(PAGE);
    space.set_break(behind.ok_or(ErrorKind::Exhausted)?);
    let anywhere = |len| Place::Anywhere { hint: 0, len };
    let code = Mapping {
        content: Content::Trampoline,
        protection: Protection::READ_WRITE,
    };
    let page = space.map(anywhere(PAGE), code, None)?;
    let trampoline = u32::try_from(page.start()).map_err(|_| ErrorKind::OutsideRange)?;
    for (addr, word) in (trampoline..).step_by(4).zip(TRAMPOLINE) {
        let written = Identity.write(addr, &word.to_le_bytes());
        written.map_err(|_| ErrorKind::Exhausted)?;
    }
    space.protect(page, Protection::READ_EXECUTE)?;
    let stack = Mapping {
        content: Content::Stack,
        protection: Protection::READ_WRITE,
    };
    let stack = space.map(anywhere(STACK), stack, None)?;
    let top = u32::try_from(stack.last() + 1).map_err(|_| ErrorKind::OutsideRange)?;
    // The lowest bit of an address to go to is none.
    let mut hart = Hart::new(image.entry & !1);
    hart.x[2] = fill_stack(image, top, args, environment)?;
    Ok((hart, trampoline))
}

/// Writes arguments, environment and the auxiliary vector; returns the stack pointer.
///
/// ```text
///   sp → argc │ argv … 0 │ envp … 0 │ (tag, value) … 0, 0 │ … strings, random bytes │ top
/// ```
fn fill_stack(
    image: &Image<'_>,
    top: u32,
    args: &[Vec<u8>],
    environment: &[Vec<u8>],
) -> Result<u32, Error> {
    let lowest = top - STACK / 2;
    let mut at = top;
    let mut push = |bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).map_err(|_| ErrorKind::Exhausted)?;
        let next = at.checked_sub(len).filter(|next| *next >= lowest);
        at = next.ok_or(ErrorKind::Exhausted)?;
        let written = Identity.write(at, bytes);
        written.map_err(|_| ErrorKind::Exhausted)?;
        Ok::<_, Error>(at)
    };
    let mut strings = |list: &[Vec<u8>]| {
        let mut places = Vec::new();
        for string in list {
            places.push(push(&[string.as_slice(), b"\0"].concat())?);
        }
        Ok::<_, Error>(places)
    };
    let args = strings(args)?;
    let environment = strings(environment)?;
    let mut random = [0; 16];
    sys::random(&mut random);
    let random = push(&random)?;
    let (headers, count) = image.headers;
    // Tags of the auxiliary vector (`include/uapi/linux/auxvec.h`): program headers, page size,
    // entry, identities, extensions I, M, A and C, clock ticks, whether it is privileged, random
    // bytes, name.
    let id = 1000;
    let auxiliary = [
        (3, headers),
        (4, 32),
        (5, count.into()),
        (6, PAGE),
        (9, image.entry),
        (11, id),
        (12, id),
        (13, id),
        (14, id),
        (16, 1 << 8 | 1 << 12 | 1 | 1 << 2),
        (17, 100),
        (23, 0),
        (25, random),
        (31, args.first().copied().unwrap_or(0)),
        (0, 0),
    ];
    let mut words = vec![u32::try_from(args.len()).map_err(|_| ErrorKind::Exhausted)?];
    words.extend(args);
    words.push(0);
    words.extend(environment);
    words.push(0);
    for (tag, value) in auxiliary {
        words.extend([tag, value]);
    }
    // The stack pointer is a multiple of sixteen.
    let len = words.len() * 4;
    let end = (at & !15) as usize;
    let start = end.checked_sub(len.next_multiple_of(16));
    let start = start.and_then(|start| u32::try_from(start).ok());
    let start = start.filter(|start| *start >= lowest);
    let start = start.ok_or(ErrorKind::Exhausted)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let written = Identity.write(start, &bytes);
    written.map_err(|_| ErrorKind::Exhausted)?;
    Ok(start)
}
