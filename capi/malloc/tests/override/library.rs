//! The library installed, and programs in C on it: compiled, linked, run.

use hostmem_test_support::isolate::skip;
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

pub(super) const SHARED: &str = "libhostmem_malloc.so.0";
pub(super) const ARCHIVE: &str = "libhostmem_malloc.a";

pub(super) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Returns a file of the installed library, or `None` where there is no compiler.
pub(super) fn installed(name: &str) -> Option<PathBuf> {
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

pub(super) fn library(name: &str) -> Option<PathBuf> {
    installed("lib").map(|lib| lib.join(name))
}

/// Compiles a program, with more arguments behind its source; `None` where there is no compiler.
pub(super) fn compile<A: AsRef<OsStr>>(name: &str, to: &str, arguments: &[A]) -> Option<PathBuf> {
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
pub(super) fn preloaded(name: &str) -> Option<Command> {
    let to = name.trim_end_matches(".c");
    compile(name, to, &["-ldl"]).map(with_library)
}

pub(super) fn with_library(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library(SHARED).expect("it is installed"));
    command
}

/// Compiles a program and links the archive into it, all of the C library's too if it is `-static`.
pub(super) fn linked(name: &str, to: &str, how: &[&str]) -> Option<Command> {
    let archive = library(ARCHIVE)?;
    let mut arguments: Vec<_> = how.iter().map(OsStr::new).collect();
    arguments.push(archive.as_os_str());
    compile(name, to, &arguments).map(Command::new)
}

pub(super) fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that a program succeeded, and that this was its last line.
pub(super) fn assert_said(output: &Output, last: &str) {
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.lines().last() == Some(last),
        "{output:?}"
    );
}
