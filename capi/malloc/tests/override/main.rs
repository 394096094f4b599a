//! The malloc under programs in C: preloaded, and linked into them, as `capi/install.sh` installs
//! it.
//!
//! They are compiled here, by `cc`; where there is none the tests are skipped aloud.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

mod library;
mod links;
mod settings;

use library::{
    SHARED, assert_said, installed, library, linked, preloaded, run, scratch, text, with_library,
};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
};

#[test]
fn calls_do_what_the_manual_says() {
    let Some(mut program) = preloaded("rules.c") else {
        return;
    };
    assert_said(&run(&mut program), "all hold");
    // The rules are those of the C library, too.
    let program = program.get_program().to_owned();
    assert_said(&run(Command::new(program).arg("libc")), "all hold");
}

#[test]
fn rules_hold_at_each_level_and_below_4_gib() {
    for (name, value) in [
        ("HOSTMEM_HARDEN", "0"),
        ("HOSTMEM_HARDEN", "2"),
        ("HOSTMEM_LOW4G", "1"),
        ("HOSTMEM_PURGE_MS", "0"),
    ] {
        let Some(mut program) = linked("rules.c", &format!("rules-{name}-{value}"), &[]) else {
            return;
        };
        let output = run(program.env(name, value));
        assert!(output.status.success(), "{name}={value}: {output:?}");
    }
}

#[test]
fn a_program_has_it_linked_in() {
    let Some(mut program) = linked("rules.c", "rules-linked", &[]) else {
        return;
    };
    assert_said(&run(&mut program), "all hold");
    let Some(mut program) = linked("misuse.c", "misuse-linked", &[]) else {
        return;
    };
    assert_ends(&run(program.arg("twice")));
}

#[test]
fn a_program_uses_all_names() {
    let Some(mut program) = preloaded("list.c") else {
        return;
    };
    assert_said(&run(&mut program), "all are there");
    let Some(mut program) = linked("list.c", "list-linked", &[]) else {
        return;
    };
    assert_said(&run(&mut program), "all are there");
    let Some(mut program) = linked("list.c", "list-static", &["-static"]) else {
        return;
    };
    assert_said(&run(&mut program), "all are there");
}

#[test]
fn threads_come_and_go_and_fork() {
    if let Some(mut program) = preloaded("threads.c") {
        assert_said(&run(&mut program), "all ended");
    }
}

#[test]
fn calls_that_handlers_leave_for_good_do_no_harm() {
    for (name, value) in [
        ("HOSTMEM_PURGE_MS", "1"),
        ("HOSTMEM_LOW4G", "1"),
        ("HOSTMEM_HARDEN", "2"),
    ] {
        let Some(mut program) = preloaded("left.c") else {
            return;
        };
        assert_said(&run(program.env(name, value)), "ok");
    }
}

#[test]
fn children_of_all_kinds_allocate() {
    if let Some(mut program) = preloaded("children.c") {
        assert_said(&run(&mut program), "all children ended well");
    }
    if let Some(mut program) = linked("children.c", "children-static", &["-static"]) {
        assert_said(&run(&mut program), "all children ended well");
    }
}

#[test]
fn blocks_are_had_before_main_and_after_it() {
    let expected = "a thread's end\nmain\natexit\nthe end\n";
    let check = |command: &mut Command| {
        let output = run(command);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout), expected, "{output:?}");
    };
    if let Some(mut program) = preloaded("early.c") {
        check(&mut program);
        // What the first block was to be is asked of the kernel, when nothing else tells it yet.
        check(program.arg("no-environment").env("HOSTMEM_LOW4G", "1"));
    }
    if let Some(mut program) = linked("early.c", "early-static", &["-static", "-DSTATIC"]) {
        check(&mut program);
        check(program.env("HOSTMEM_LOW4G", "1"));
    }
}

/// Asserts that a program was ended by the library, which said why in one line.
fn assert_ends(output: &Output) {
    let said = text(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(
        said.starts_with("hostmem: ") && said.lines().count() == 1,
        "{said}"
    );
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn what_is_not_allocated_is_not_freed() {
    let Some(mut program) = preloaded("misuse.c") else {
        return;
    };
    assert_said(&run(&mut program), "went on");
    let program = program.get_program().to_owned();
    for way in ["twice", "inside", "other", "resized"] {
        let output = run(with_library(&program).arg(way));
        assert_ends(&output);
        assert!(text(&output.stderr).contains(if way == "resized" {
            "realloc(0x"
        } else {
            "free(0x"
        }));
    }
    // Level 0 leaves such blocks alone.
    for way in ["twice", "inside", "other"] {
        let output = run(with_library(&program).arg(way).env("HOSTMEM_HARDEN", "0"));
        assert_said(&output, "went on");
    }
}

#[test]
fn a_corrupt_program_says_nothing_where_standard_error_is_closed() {
    let Some(mut program) = preloaded("misuse.c") else {
        return;
    };
    let output = run(program.arg("nowhere"));
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    let file = scratch("not-for-messages");
    let program = program.get_program().to_owned();
    // Nor into a file that has its number.
    let script = r#"LD_PRELOAD=$1 exec "$2" other "$3" 2>&-"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]);
    shell.arg(library(SHARED).expect("it is installed"));
    let output = run(shell.arg(&program).arg(&file));
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert_eq!(fs::read(&file).expect("the program made it"), b"");
}

#[test]
fn a_shell_and_its_children_run_on_it() {
    if installed("lib").is_none() {
        return;
    }
    let script = "for n in 1 2 3; do (echo $n; grep -o libhostmem_malloc.so /proc/self/maps \
                  | uniq) | cat; done";
    let output = run(with_library("/bin/sh").args(["-c", script]));
    let expected = (1..=3).map(|n| format!("{n}\nlibhostmem_malloc.so\n"));
    assert_eq!(
        text(&output.stdout),
        expected.collect::<String>(),
        "{output:?}"
    );
}
