//! Where the addresses of a region come from, and where they go.

use super::{RegionObject, hm_region, region, types::*};
use crate::{
    abi::{growing, place, read},
    host,
    object::opened,
    status::{Fault, HM_UNSUPPORTED, answer, hm_error, hm_status, invalid},
    types::{hm_range, pages_of, window},
};
use hostmem::{
    page::AddressRange,
    provider::{Error, PageProvider},
    region::{BreakBlock, ClaimRequest},
};

/// Claims all that is free in a range of addresses, so that what others map lands elsewhere, and
/// places everything new in it from then on. Stores what became of it through `report`, unless that
/// is null. That something could not be had is no error, unless all was required. For a region on
/// the host itself; others adopt what their source has reserved.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_claim(
    region: *mut hm_region,
    claim: *const hm_claim,
    report: *mut hm_claim_report,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = if report.is_null() {
            None
        } else {
            Some(growing!(report))
        };
        let region = region!(region);
        if !region.may_claim() {
            let message = c"a claim is for a region on the host itself";
            return Err(Fault::Plain(HM_UNSUPPORTED, message));
        }
        let from: hm_claim = read!(claim);
        if claim.is_null() || from.first == 0 {
            return Err(invalid(c"a claim without a first address"));
        }
        let part = |first: usize, last: usize| match last {
            0 => Ok(None),
            last => window(first, last).map(Some),
        };
        let mut request = ClaimRequest::range(window(from.first, from.last)?);
        request.hole = part(from.hole_first, from.hole_last)?;
        request.leave = part(from.leave_first, from.leave_last)?;
        request.guard = match from.guard {
            0 => 64 << 10,
            HM_NO_GUARD => 0,
            bytes => bytes,
        };
        request.stack_room = (from.stack_room != 0).then_some(from.stack_room);
        request.spare = (from.spare != 0).then_some(from.spare);
        request.least = from.least.max(request.least);
        request.complete = from.require_complete != 0;
        request.block_break = from.block_break != 0;
        // SAFETY: on the host itself, as was looked at above.
        let got = unsafe { host::adopt_claim(region, &request)? };
        if let Some(to) = to {
            to.write(hm_claim_report {
                size: 0,
                complete: got.is_complete().into(),
                first: got.range.map_or(0, AddressRange::start),
                last: got.range.map_or(0, AddressRange::last),
                missed_ranges: got.missed.ranges as u64,
                missed_bytes: got.missed.bytes as u64,
                system_error: got.error.and_then(Error::errno).unwrap_or(0),
                saw_map: got.map.is_ok().into(),
                heap_bytes: got.heap_bytes as u64,
                break_blocked: matches!(got.block_break, BreakBlock::Blocked | BreakBlock::Already)
                    .into(),
                address_bits: got.address_bits.unwrap_or(0),
            });
        }
    })
}

/// Takes over addresses that the program has reserved by `hm_pages_reserve` from the region's
/// source; from now on they are the region's alone. Those of the host may be mapped by others, too,
/// without access and private.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_adopt(
    region: *mut hm_region,
    range: hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let region = region!(region);
        // SAFETY: the caller in C promises that it has reserved the range.
        unsafe { region.adopt(pages_of(range, region.page_size())?)? };
    })
}

/// Gives free addresses back to the host, in pieces of `least` bytes or more; stores through
/// `bytes`, unless that is null, how many went.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_release_unused(
    region: *mut hm_region,
    least: usize,
    bytes: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let released = region!(region).release_unused(least)?;
        if !bytes.is_null() {
            place!(bytes).write(released);
        }
    })
}
