//! The C interface under programs in C and C++, as `capi/install.sh` installs it.
//!
//! They are compiled here, by each compiler that there is; where there is none the tests are
//! skipped aloud.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use hostmem_test_support::isolate::skip;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// The programs of `programs/`, each of which prints a line when all held.
const PROGRAMS: [&str; 15] = [
    "status", "null", "pages", "provider", "jit", "code", "retire", "heap", "turns", "parts",
    "handlers", "region", "layers", "mmap", "map",
];

const WARNINGS: [&str; 6] = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wshadow",
    "-Werror",
];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok()
}

/// Returns a folder of the installed library, or `None` where there is no compiler.
fn installed(name: &str) -> Option<PathBuf> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let root = scratch("installed");
    let is_installed = *INSTALLED.get_or_init(|| {
        if !is_there("cc") {
            skip("there is no compiler for C");
            return false;
        }
        let mut install = Command::new("bash");
        install.arg(package().with_file_name("install.sh"));
        install.arg("/usr").env("DESTDIR", &root);
        install.env("LIBRARIES", "hostmem");
        install.env("CARGO", env!("CARGO"));
        // A folder of this test's own folder is the one that cargo is told of, or has by default.
        install.env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(""),
        );
        let output = install.output().expect("bash runs");
        assert!(output.status.success(), "{output:?}");
        true
    });
    is_installed.then(|| root.join("usr").join(name))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that a program succeeded, and that all held.
fn assert_holds(output: &Output) {
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.lines().last() == Some("all hold"),
        "{output:?}"
    );
}

/// Compiles a program and links the archive into it.
fn compile(compiler: &str, source: &Path, to: &str, more: &[&str]) -> Option<Command> {
    let (include, archive) = (installed("include")?, installed("lib/libhostmem.a")?);
    let program = scratch(to);
    let mut command = Command::new(compiler);
    command.args(WARNINGS).args(more).arg("-I").arg(include);
    command.arg(concat!(
        "-DPACKAGE_VERSION=\"",
        env!("CARGO_PKG_VERSION"),
        "\""
    ));
    command.arg("-o").arg(&program).arg(source).arg(archive);
    let output = command.arg("-pthread").output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    Some(Command::new(program))
}

/// Compiles and runs a program of `programs/` by a compiler, with more arguments.
fn run(name: &str, compiler: &str, how: &str, more: &[&str]) {
    if !is_there(compiler) {
        return skip(format!("there is no {compiler}"));
    }
    let is_cpp = compiler.ends_with("++");
    let source = package().join("tests/programs").join(name);
    let source = source.with_extension(if is_cpp { "cpp" } else { "c" });
    let standard = if is_cpp { "-std=c++17" } else { "-std=c11" };
    let mut arguments = vec![standard, "-O1"];
    arguments.extend(more);
    let to = format!("{name}-{compiler}-{how}");
    if let Some(mut program) = compile(compiler, &source, &to, &arguments) {
        assert_holds(&program.output().expect("it starts"));
    }
}

#[test]
fn all_calls_do_what_the_header_says() {
    for name in PROGRAMS {
        run(name, "gcc", "plain", &[]);
        run(name, "clang", "plain", &[]);
    }
}

#[test]
fn owners_of_cpp_own() {
    for compiler in ["g++", "clang++"] {
        run("owners", compiler, "plain", &[]);
        run(
            "owners",
            compiler,
            "bare",
            &["-fno-exceptions", "-fno-rtti"],
        );
    }
}

#[test]
fn static_programs_have_it_linked_in() {
    for name in ["status", "heap"] {
        run(name, "gcc", "static", &["-static"]);
    }
}

/// What the library does to a program, and the program itself, is nothing that the sanitizers find.
/// Compilers come with those, but Debian's clang.
#[test]
fn programs_run_under_sanitizers() {
    const UNDEFINED: [&str; 2] = ["-fsanitize=undefined", "-fno-sanitize-recover=all"];
    const ALL: [&str; 3] = [
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ];
    for name in PROGRAMS {
        // A claim of all addresses is at odds with the other's shadow memory, and its mmap is not
        // the kernel's, which the calls in a region are compared with.
        let (how, flags) = match name {
            "region" | "mmap" => ("undefined", &UNDEFINED[..]),
            _ => ("sanitized", &ALL[..]),
        };
        run(name, "gcc", how, flags);
    }
    run("owners", "g++", "sanitized", &ALL);
}

/// Runs a tool of the compiler's on a file of the library; returns the names that it prints.
fn names(file: &str, options: &[&str]) -> Option<Vec<String>> {
    let archive = installed("lib")?.join(file);
    let mut nm = Command::new("nm");
    let output = nm.arg("-P").args(options).arg(archive).output();
    let lines = text(&output.expect("nm comes with the compiler").stdout);
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

#[test]
fn the_libraries_have_and_need_the_names_that_are_listed() {
    let archive = "libhostmem.a";
    let Some(has) = names(archive, &["--extern-only", "--defined-only"]) else {
        return;
    };
    assert_eq!(has, listed("symbols.txt"));
    assert!(has.iter().all(|name| name.starts_with("hm_")));
    let needs = names(archive, &["--undefined-only"]).expect("as above");
    assert_eq!(
        needs,
        listed(&format!("undefined.{}.txt", env::consts::ARCH))
    );
    let shared = "libhostmem.so.0";
    let exports = names(shared, &["-D", "--defined-only"]).expect("as above");
    assert_eq!(exports, listed("symbols.txt"));
    let shared = installed("lib").expect("as above").join(shared);
    let output = Command::new("readelf").arg("-d").arg(&shared).output();
    let output = text(&output.expect("it comes with the compiler").stdout);
    assert!(output.contains("[libhostmem.so.0]"), "{output}");
    assert!(output.contains("NODELETE"), "{output}");
    for line in output.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(line.contains("[libc.") || line.contains("[ld-"), "{line}");
    }
}

#[test]
fn the_header_declares_all_calls_and_the_programs_make_them() {
    let header = package().with_file_name("include").join("hostmem.h");
    let header = fs::read_to_string(header).expect("it is there");
    let programs = package().join("tests/programs");
    let programs = PROGRAMS.map(|name| programs.join(name).with_extension("c"));
    let programs = programs.map(|path| fs::read_to_string(path).expect("it is there"));
    for name in listed("symbols.txt") {
        let call = format!("{name}(");
        assert!(header.contains(&call), "{name}");
        assert!(programs.iter().any(|text| text.contains(&call)), "{name}");
    }
}

#[test]
fn the_header_is_c_and_cpp() {
    let Some(include) = installed("include") else {
        return;
    };
    for (compiler, standard) in [
        ("gcc", "c99"),
        ("gcc", "c11"),
        ("clang", "c11"),
        ("gcc", "c17"),
        ("gcc", "c2x"),
        ("clang", "c2x"),
        ("g++", "c++11"),
        ("g++", "c++17"),
        ("clang++", "c++17"),
        ("g++", "c++20"),
        ("clang++", "c++2b"),
    ] {
        let language = if standard.starts_with("c++") {
            "c++"
        } else {
            "c"
        };
        let mut command = Command::new(compiler);
        command.args(WARNINGS).arg(format!("-std={standard}"));
        command.args(["-fsyntax-only", "-x", language]);
        match command.arg(include.join("hostmem.h")).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => skip(format!("{compiler}: {error}")),
        }
    }
}
