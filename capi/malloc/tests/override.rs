//! The override under programs in C: preloaded, and linked into them.
//!
//! They are compiled here, by `cc`; where there is none the tests are skipped aloud.
#![cfg(target_os = "linux")]

use hostmem_test_support::isolate::skip;
use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Returns a library of this package. Tests do not link it, so that they build it.
fn library(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let profile = BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.ancestors().nth(2).expect("tests lie in PROFILE/deps");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(profile.with_file_name(""));
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "the library is built");
        profile.to_path_buf()
    });
    profile.join(name)
}

/// Compiles a program, with more arguments behind its source; `None` where there is no compiler.
fn compile(name: &str, to: &str, arguments: &[&Path]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(to);
    let mut cc = Command::new("cc");
    cc.args([
        "-O1",
        "-Wall",
        "-Wno-use-after-free",
        "-Wno-unknown-warning-option",
    ]);
    cc.args(["-pthread", "-o"]).arg(&program);
    cc.arg(source.join(name)).args(arguments);
    match cc.output() {
        Ok(output) => {
            assert!(output.status.success(), "{cc:?}: {output:?}");
            Some(program)
        }
        Err(error) => {
            skip(format!("cc: {error}"));
            None
        }
    }
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

fn preloaded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library("libhostmem_malloc.so"));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that a program succeeded, and that this was its last line.
fn assert_said(output: &Output, last: &str) {
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.lines().last() == Some(last),
        "{output:?}"
    );
}

#[test]
fn calls_do_what_the_manual_says() {
    let Some(program) = compile("rules.c", "rules", &[]) else {
        return;
    };
    // The rules are those of the C library, too.
    assert_said(&run(Command::new(&program).arg("libc")), "all hold");
    assert_said(&run(&mut preloaded(&program)), "all hold");
}

#[test]
fn a_program_has_it_linked_in() {
    let archive = library("libhostmem_malloc.a");
    let Some(program) = compile("rules.c", "rules-linked", &[&archive]) else {
        return;
    };
    assert_said(&run(&mut Command::new(&program)), "all hold");
    let Some(program) = compile("misuse.c", "misuse-linked", &[&archive]) else {
        return;
    };
    assert_ends(&run(Command::new(program).arg("twice")));
}

#[test]
fn threads_come_and_go_and_fork() {
    if let Some(program) = compile("threads.c", "threads", &[Path::new("-ldl")]) {
        assert_said(&run(&mut preloaded(program)), "all ended");
    }
}

/// Asserts that a program was ended by the override, which said why.
fn assert_ends(output: &Output) {
    let said = text(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(said.starts_with("hostmem: "), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn what_is_not_allocated_is_not_freed() {
    let Some(program) = compile("misuse.c", "misuse", &[]) else {
        return;
    };
    assert_said(&run(&mut preloaded(&program)), "went on");
    for way in ["twice", "inside", "other", "resized"] {
        assert_ends(&run(preloaded(&program).arg(way)));
    }
}

#[test]
fn a_shell_and_its_children_run_on_it() {
    let script = "for n in 1 2 3; do (echo $n; grep -o libhostmem_malloc.so /proc/self/maps \
                  | uniq) | cat; done";
    let output = run(preloaded("/bin/sh").args(["-c", script]));
    let expected = (1..=3).map(|n| format!("{n}\nlibhostmem_malloc.so\n"));
    assert_eq!(
        text(&output.stdout),
        expected.collect::<String>(),
        "{output:?}"
    );
}
