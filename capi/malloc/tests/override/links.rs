//! Names that the libraries have and need, and how programs link them.

use super::library::{
    ARCHIVE, SHARED, assert_said, compile, installed, library, package, run, scratch, text,
};
use hostmem_test_support::isolate::skip;
use std::{env, ffi::OsStr, fs, process::Command};

#[test]
fn archives_of_two_rust_compilers_make_one_program() {
    let Some(archive) = library(ARCHIVE) else {
        return;
    };
    let other = scratch("libother.a");
    let source = package().join("tests/programs/other.rs");
    let build = |toolchain: Option<&str>| {
        let mut rustc = Command::new("rustc");
        rustc.args(toolchain).args(["--edition", "2024", "-O"]);
        rustc.args(["--crate-type", "staticlib", "-o"]).arg(&other);
        // Which compiler this is, cargo has told rustc's proxy.
        rustc.env_remove("RUSTUP_TOOLCHAIN");
        rustc
            .arg(&source)
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !build(Some("+nightly")) {
        skip("there is no nightly compiler: the archives are of one compiler");
        assert!(build(None), "a compiler runs, as it made this test");
    }
    let libraries = ["-lpthread", "-ldl", "-lm", "-lgcc_s", "-lrt", "-lutil"].map(OsStr::new);
    let mut arguments = vec![other.as_os_str(), archive.as_os_str()];
    arguments.extend(libraries);
    let Some(program) = compile("two.c", "two", &arguments) else {
        return;
    };
    assert_said(&run(&mut Command::new(program)), "sum=499500 known=1");
}

/// Runs a tool of the compiler's on the archive; returns the names that it prints.
fn names(option: &str) -> Option<Vec<String>> {
    let archive = library(ARCHIVE)?;
    let mut nm = Command::new("nm");
    let output = nm.args(["-P", option]).arg(archive).output();
    let output = output.expect("nm comes with the compiler");
    let lines = text(&output.stdout);
    let words = lines.lines().filter_map(|line| line.split_once(' '));
    let mut names: Vec<_> = words.map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    Some(names)
}

fn listed(file: &str) -> Vec<String> {
    let text = fs::read_to_string(package().join(file)).expect("the list is there");
    let mut names: Vec<_> = text.lines().map(String::from).collect();
    names.sort_unstable();
    names
}

/// Returns what the library has: its own calls, and those of `hostmem_c`.
fn listed_calls() -> Vec<String> {
    let mut names = listed("symbols.txt");
    names.extend(listed("../c/symbols.txt"));
    names.sort_unstable();
    names
}

#[test]
fn the_archive_has_and_needs_the_names_that_are_listed() {
    let Some(has) = names("--extern-only") else {
        return;
    };
    let needs = names("--undefined-only").expect("as above");
    let has: Vec<_> = has
        .into_iter()
        .filter(|name| !needs.contains(name))
        .collect();
    assert_eq!(has, listed_calls());
    let known = listed(&format!("undefined.{}.txt", env::consts::ARCH));
    assert_eq!(needs, known);
    for name in ["malloc", "__tls_get_addr"] {
        assert!(!needs.iter().any(|other| other == name), "{name}");
    }
    assert!(!needs.iter().any(|name| name.starts_with("_Unwind")));
}

#[test]
fn the_shared_library_has_a_name_and_exports_the_same() {
    let Some(shared) = library(SHARED) else {
        return;
    };
    let mut nm = Command::new("nm");
    let output = run(nm.args(["-D", "-P", "--defined-only"]).arg(&shared));
    let lines = text(&output.stdout);
    let words = lines.lines().filter_map(|line| line.split_once(' '));
    let mut has: Vec<_> = words.map(|(name, _)| name.to_owned()).collect();
    has.sort_unstable();
    assert_eq!(has, listed_calls());
    let mut readelf = Command::new("readelf");
    let output = text(&run(readelf.arg("-d").arg(&shared)).stdout);
    assert!(output.contains("[libhostmem_malloc.so.0]"), "{output}");
    assert!(output.contains("NODELETE"), "{output}");
    // The C library, and the loader of systems that name it.
    for line in output.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(line.contains("[libc.") || line.contains("[ld-"), "{line}");
    }
}

#[test]
fn pkg_config_tells_how_to_link_it() {
    let Some(lib) = installed("lib") else { return };
    let mut tool = Command::new("pkg-config");
    tool.args(["--cflags", "--libs", "hostmem_malloc"]);
    tool.env("PKG_CONFIG_PATH", lib.join("pkgconfig"));
    tool.env("PKG_CONFIG_SYSROOT_DIR", scratch("installed"));
    let Ok(output) = tool.output() else {
        return skip("there is no pkg-config");
    };
    assert!(output.status.success(), "{output:?}");
    let flags = text(&output.stdout);
    let flags: Vec<_> = flags.split_whitespace().collect();
    let Some(program) = compile("list.c", "list-shared", &flags) else {
        return;
    };
    let mut command = Command::new(program);
    assert_said(&run(command.env("LD_LIBRARY_PATH", lib)), "all are there");
}

#[test]
fn the_header_is_c_and_cpp() {
    let Some(include) = installed("include") else {
        return;
    };
    for (compiler, standard) in [("cc", "-std=c99"), ("c++", "-std=c++11")] {
        let mut cc = Command::new(compiler);
        cc.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]);
        cc.args([standard, "-x", if compiler == "cc" { "c" } else { "c++" }]);
        match cc.arg(include.join("hostmem_malloc.h")).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => skip(format!("{compiler}: {error}")),
        }
    }
}
