//! The malloc under programs in C: preloaded, and linked into them, as `capi/install.sh` installs
//! it.
//!
//! They are compiled here, by `cc`; where there is none the tests are skipped aloud.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

use hostmem_test_support::isolate::skip;
use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

const SHARED: &str = "libhostmem_malloc.so.0";
const ARCHIVE: &str = "libhostmem_malloc.a";

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Returns a file of the installed library, or `None` where there is no compiler.
fn installed(name: &str) -> Option<PathBuf> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let root = scratch("installed");
    let is_there = *INSTALLED.get_or_init(|| {
        if let Err(error) = Command::new("cc").arg("--version").output() {
            skip(format!("cc: {error}"));
            return false;
        }
        let mut install = Command::new("bash");
        install.arg(package().with_file_name("install.sh"));
        install.arg("/usr").env("DESTDIR", &root);
        install.env("LIBRARIES", "hostmem_malloc");
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
    is_there.then(|| root.join("usr").join(name))
}

fn library(name: &str) -> Option<PathBuf> {
    installed("lib").map(|lib| lib.join(name))
}

/// Compiles a program, with more arguments behind its source; `None` where there is no compiler.
fn compile<A: AsRef<OsStr>>(name: &str, to: &str, arguments: &[A]) -> Option<PathBuf> {
    let include = installed("include")?;
    let program = scratch(to);
    let mut cc = Command::new("cc");
    // Without what compilers know of these calls, which they leave out where they see both ends.
    cc.args(["-O1", "-fno-builtin"]);
    cc.arg("-I").arg(include).args(["-pthread", "-o"]);
    cc.arg(&program)
        .arg(package().join("tests/programs").join(name));
    let output = cc.args(arguments).output().expect("cc runs");
    assert!(output.status.success(), "{cc:?}: {output:?}");
    Some(program)
}

/// Compiles a program and preloads the library into it.
fn preloaded(name: &str) -> Option<Command> {
    let to = name.trim_end_matches(".c");
    compile(name, to, &["-ldl"]).map(with_library)
}

fn with_library(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library(SHARED).expect("it is installed"));
    command
}

/// Compiles a program and links the archive into it, all of the C library's too if it is `-static`.
fn linked(name: &str, to: &str, how: &[&str]) -> Option<Command> {
    let archive = library(ARCHIVE)?;
    let mut arguments: Vec<_> = how.iter().map(OsStr::new).collect();
    arguments.push(archive.as_os_str());
    compile(name, to, &arguments).map(Command::new)
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
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

/// Runs `settings.c` with these variables; returns what it said, and on standard error.
fn settings(variables: &[(&str, &str)]) -> Option<(String, String)> {
    let mut program = linked("settings.c", "settings", &[])?;
    let output = run(program.envs(variables.iter().copied()));
    assert!(output.status.success(), "{output:?}");
    Some((text(&output.stdout), text(&output.stderr)))
}

#[test]
fn the_environment_sets_what_it_may() {
    let expected = "secure=0 low=0 hardening=1 known=1 usable=1\n";
    for (variables, said) in [
        (&[][..], expected),
        (
            &[("HOSTMEM_LOW4G", "0"), ("HOSTMEM_STATS", "")][..],
            expected,
        ),
        (
            &[("HOSTMEM_PURGE_MS", "0"), ("HOSTMEM_OTHER", "x")][..],
            expected,
        ),
        (
            &[("HOSTMEM_LOW4G", "1")][..],
            "secure=0 low=1 hardening=1 known=1 usable=1\n",
        ),
        (
            &[("HOSTMEM_LOW4G", "1"), ("HOSTMEM_HARDEN", "2")][..],
            "secure=0 low=1 hardening=2 known=1 usable=1\n",
        ),
        (
            &[("HOSTMEM_HARDEN", "0")][..],
            "secure=0 low=0 hardening=0 known=1 usable=1\n",
        ),
        (
            &[("HOSTMEM_PASS", "1"), ("HOSTMEM_LOW4G", "1")][..],
            "secure=0 low=0 hardening=0 known=0 usable=1\n",
        ),
    ] {
        let Some(both) = settings(variables) else {
            return;
        };
        assert_eq!(both, (said.into(), String::new()), "{variables:?}");
    }
    for (name, value, may) in [
        ("HOSTMEM_LOW4G", "yes", "0 or 1"),
        ("HOSTMEM_STATS", "2", "0 or 1"),
        ("HOSTMEM_PASS", "-1", "0 or 1"),
        ("HOSTMEM_HARDEN", "3", "0, 1 or 2"),
        ("HOSTMEM_PURGE_MS", "1s", "a number of milliseconds"),
        (
            "HOSTMEM_PURGE_MS",
            "99999999999999999999",
            "a number of milliseconds",
        ),
    ] {
        let Some((said, warned)) = settings(&[(name, value)]) else {
            return;
        };
        assert_eq!(said, expected, "{name}={value}");
        let warning = format!("hostmem: {name} is to be {may}, and not {value}; it is ignored\n");
        assert_eq!(warned, warning);
    }
}

#[test]
fn statistics_are_printed_at_the_end() {
    let Some((_, said)) = settings(&[("HOSTMEM_STATS", "1")]) else {
        return;
    };
    assert!(
        said.starts_with("hostmem: process ")
            && said.contains(" used=")
            && said.lines().count() == 1,
        "{said}"
    );
    let Some(mut program) = preloaded("settings.c") else {
        return;
    };
    let output = run(program.env("HOSTMEM_STATS", "1"));
    assert!(text(&output.stderr).contains(" requested="), "{output:?}");
}

#[test]
fn programs_with_rights_of_others_ignore_the_environment() {
    const ALL: u32 = 0o4755;
    let Some(mut program) = linked("settings.c", "settings-secure", &[]) else {
        return;
    };
    let path = PathBuf::from(program.get_program());
    // A program that runs as `nobody` whoever starts it.
    let owned = std::os::unix::fs::chown(&path, Some(65534), None);
    let allowed = fs::set_permissions(&path, fs::Permissions::from_mode(ALL));
    let (Ok(()), Ok(())) = (owned, allowed) else {
        return skip("only the superuser can give a program to another user");
    };
    program.envs([
        ("HOSTMEM_LOW4G", "1"),
        ("HOSTMEM_STATS", "1"),
        ("HOSTMEM_HARDEN", "x"),
    ]);
    let Ok(output) = program.output() else {
        return skip("another user may not run programs from here");
    };
    let said = text(&output.stdout);
    if !said.starts_with("secure=1") {
        return skip("programs here have no rights of others");
    }
    assert_eq!(said, "secure=1 low=0 hardening=1 known=1 usable=1\n");
    assert_eq!(text(&output.stderr), "");
}

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
