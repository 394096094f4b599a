//! Programs that cannot be run, and guests that fail: what is said of them.

use super::{guests, run, tempdir};
use std::fs;

/// The sieve, with some bytes changed.
fn changed(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = fs::read(guests().join("sieve.elf")).expect("a guest");
    for (at, field) in changes {
        bytes[*at..at + field.len()].copy_from_slice(field);
    }
    bytes
}

/// Says what a program that cannot be run ends with.
fn refusal(name: &str, bytes: &[u8]) -> (Option<i32>, String) {
    let folder = tempdir(name);
    let path = folder.join("guest");
    fs::write(&path, bytes).expect("a file");
    let output = run(&[path.to_str().expect("text")]);
    fs::remove_dir_all(&folder).expect("the file goes");
    assert!(output.stdout.is_empty());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), message)
}

#[test]
fn what_is_no_program_is_refused() {
    let headers = 52;
    let word =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let whole = changed(&[]);
    let count = usize::from(whole[44]);
    let loads: Vec<usize> = (0..count)
        .map(|index| headers + index * 32)
        .filter(|at| word(&whole, *at) == 1)
        .collect();
    let last = loads.len() - 1;
    let first = word(&whole, loads[0] + 8).to_le_bytes();
    let entry = 0x8000_0000_u32.to_le_bytes();
    let place = loads[last] + 8;
    let in_low_heap = [whole[place], whole[place + 1] & 15, 0, 0xfe];
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("empty", Vec::new(), "not an ELF file"),
        ("text", b"#!/bin/sh\n".to_vec(), "not an ELF file"),
        ("cut", whole[..40].to_vec(), "truncated"),
        ("short", whole[..whole.len() / 2].to_vec(), "truncated"),
        ("wide", changed(&[(4, &[2])]), "not a 32-bit program"),
        ("big", changed(&[(5, &[2])]), "not a little-endian program"),
        ("machine", changed(&[(18, &[40, 0])]), "for machine 40"),
        ("object", changed(&[(16, &[1, 0])]), "not a program"),
        ("floats", changed(&[(36, &[5])]), "floating-point"),
        ("entry", changed(&[(24, &entry)]), "lies in no executable"),
        (
            "overlap",
            changed(&[(loads[1] + 8, &first)]),
            "segments of the program overlap",
        ),
        (
            "dynamic",
            changed(&[(loads[0], &[3])]),
            "linked dynamically",
        ),
        (
            "outside",
            changed(&[(loads[0] + 8, &[0, 0, 0, 0])]),
            "lies outside",
        ),
        (
            "host",
            changed(&[(loads[last] + 8, &in_low_heap)]),
            "cannot be loaded",
        ),
        ("nothing", changed(&[(44, &[0, 0])]), "nothing to load"),
        // Headers that lie behind the file, and those of another size.
        (
            "headers",
            changed(&[(28, &[0xe0, 0xff, 0xff, 0xff])]),
            "truncated",
        ),
        ("sizes", changed(&[(42, &[56, 0])]), "lies outside"),
        (
            "wraps",
            changed(&[(loads[last] + 20, &[0xff; 4])]),
            "lies outside",
        ),
        (
            "longer in the file",
            changed(&[(loads[last] + 20, &[1, 0, 0, 0])]),
            "lies outside",
        ),
        (
            "more than the file",
            changed(&[(loads[last] + 16, &[0xff; 4])]),
            "truncated",
        ),
        (
            "not by pages",
            changed(&[(loads[last] + 8, &[whole[loads[last] + 8] ^ 0x40])]),
            "otherwise than in its pages",
        ),
        (
            "nothing to execute",
            changed(&[(loads[1] + 24, &[4])]),
            "lies in no executable",
        ),
    ];
    for (name, bytes, expected) in cases {
        let (status, message) = refusal(name, bytes);
        assert_eq!(status, Some(126), "{name}: {message}");
        assert!(message.contains(expected), "{name}: {message}");
        assert_eq!(message.lines().count(), 1, "{name}: {message}");
    }
}

#[test]
fn the_lowest_bit_of_the_entry_is_none() {
    let entry = changed(&[])[24] | 1;
    let folder = tempdir("odd");
    let path = folder.join("guest");
    fs::write(&path, changed(&[(24, &[entry])])).expect("a file");
    for options in [&[][..], &["--interpret"]] {
        let mut args = options.to_vec();
        args.extend([path.to_str().expect("text"), "1000"]);
        let output = run(&args);
        assert_eq!(output.stdout, b"168 primes up to 1000\n", "{output:?}");
    }
    fs::remove_dir_all(&folder).expect("the file goes");
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    for (path, status, expected) in [
        ("/nowhere/at/all", 127, "No such file"),
        ("/", 126, "Is a directory"),
    ] {
        let output = run(&[path]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_guest_that_fails_says_where() {
    let whole = changed(&[]);
    let word = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().expect("four"));
    let entry = word(24);
    // Where the entry's code is in the file.
    let at = (0..usize::from(whole[44]))
        .map(|index| 52 + index * 32)
        .find_map(|header| {
            let (start, len) = (word(header + 8), word(header + 16));
            let holds = word(header) == 1 && (start..start + len).contains(&entry);
            holds.then(|| (word(header + 4) + (entry - start)) as usize)
        })
        .expect("a segment");
    // lw a0, 16(x0); then wfi, which is privileged; ebreak; amoadd.w on an odd address.
    let cases: [(&[u32], i32, &str); 4] = [
        (&[0x0100_2503], 128 + 11, "access to 0x10"),
        (&[0x1050_0073], 128 + 4, "unsupported instruction 10500073"),
        (&[0x0010_0073], 128 + 5, "breakpoint"),
        (&[0x0030_0593, 0x0005_a52f], 128 + 7, "misaligned"),
    ];
    for options in [&[][..], &["--interpret"]] {
        for (code, status, expected) in cases {
            let mut bytes = whole.clone();
            for (index, bits) in code.iter().enumerate() {
                bytes[at + index * 4..][..4].copy_from_slice(&bits.to_le_bytes());
            }
            let folder = tempdir("fails");
            let path = folder.join("guest");
            fs::write(&path, bytes).expect("a file");
            let mut args = options.to_vec();
            args.push(path.to_str().expect("text"));
            let output = run(&args);
            fs::remove_dir_all(&folder).expect("the file goes");
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{message}");
            assert!(message.contains(expected), "{message}");
            let pc = entry + u32::try_from(code.len() - 1).expect("few") * 4;
            assert!(message.contains(&format!("pc {pc:#x}")), "{message}");
        }
    }
}
