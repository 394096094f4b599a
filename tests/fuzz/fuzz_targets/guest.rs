//! The example emulator's reader of ELF files, and its decoder, on any bytes.
#![no_main]

extern crate alloc;

#[expect(dead_code, reason = "the fuzzer uses a part of what the emulator does")]
#[path = "../../../examples/emulator/src/decode.rs"]
mod decode;
#[expect(dead_code, reason = "the fuzzer uses a part of what the emulator does")]
#[path = "../../../examples/emulator/src/elf.rs"]
mod elf;
#[expect(dead_code, reason = "the fuzzer uses a part of what the emulator does")]
#[path = "../../../examples/emulator/src/inst.rs"]
mod inst;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = elf::Image::parse(bytes) {
        assert!(image.segments.iter().all(|segment| {
            segment.addr >= elf::LOWEST
                && segment.end() <= elf::USER_END
                && bytes.get(segment.file.clone()).is_some()
        }));
    }
    assert!(
        elf::symbols(bytes)
            .iter()
            .all(|symbol| !symbol.name.is_empty())
    );
    for bits in bytes.chunks_exact(4) {
        let bits = bits.try_into().map(u32::from_le_bytes).expect("four bytes");
        if let Some(inst) = decode::decode(bits) {
            assert!(inst.rd < 32 && inst.rs1 < 32 && inst.rs2 < 32);
            assert_eq!(inst.len == 4, bits & 3 == 3);
        }
    }
});
