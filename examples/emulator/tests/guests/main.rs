//! Runs the guests, translated and interpreted, and programs that cannot be run (`refused`).
//!
//! With `EMULATOR` in the environment they are run by that command: words, such as an emulator of
//! another CPU and a program for it.

#![cfg(target_os = "linux")]

mod debugger;
mod refused;

use hostmem_test_support::{Unavailable, harden, isolate, seccomp};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::fd::FromRawFd,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    ptr,
    sync::OnceLock,
};

/// What each guest prints. Where it computes, the numbers are those of the same source built for
/// the host; the digest is that of other programs, too.
const GUESTS: &[Guest] = &[
    ("sieve", &[], "78498 primes up to 1000000\n"),
    ("matrix", &[], "checksum 2e400000\n"),
    (
        "quicksort",
        &["20000"],
        "sorted 20000: 263449 2150898985 4294816045\n",
    ),
    (
        "sha256",
        &["1000"],
        "b79a5f9da7504a0ca606f2b54a81d5e28a8c924df8974416f320501652dcd6be\n",
    ),
    ("tree", &[], "checksum ec702200\n"),
    ("hog", &[], "mapped 3.9 GiB or more\ndone\n"),
    ("signals", &[], "all signals came\n"),
    ("threads", &["2000"], "4 threads took 2000 numbers\n"),
    (
        "thunks",
        &[],
        "packed 1048576 bytes into fewer than 20971\n",
    ),
    ("rewrites", &[], "rewritten\n"),
    ("reserve", &[], "reservations hold\n"),
    ("files", &[], "files work\n"),
    ("pages", &[], "pages of 4 KiB\n"),
    ("limits", &[], "written\nlimits hold\n"),
];

/// Returns the words that run the emulator: what is built for that, as the tests were, unless the
/// environment says otherwise. Cargo builds examples for tests only where no test is named.
fn words() -> &'static [OsString] {
    static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();
    WORDS.get_or_init(|| {
        if let Ok(words) = env::var("EMULATOR") {
            return words.split_whitespace().map(OsString::from).collect();
        }
        let tests = env::current_exe().expect("a path");
        let folder = tests.ancestors().nth(2).expect("of the profile");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-p", "hostmem-emulator", "--example", "emulator"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success());
        vec![folder.join("examples/emulator").into()]
    })
}

fn emulator() -> Command {
    let mut command = Command::new(&words()[0]);
    command.args(&words()[1..]);
    command
}

/// Says whether the emulator itself is emulated: then it takes long, and limits are not its own.
fn is_emulated() -> bool {
    words().len() > 1
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests")
}

fn run(args: &[&str]) -> Output {
    emulator().args(args).output().expect("it runs")
}

fn run_guests(options: &[&str]) {
    run_each(GUESTS.iter(), options);
}

type Guest = (&'static str, &'static [&'static str], &'static str);

fn run_each<'a>(guests_to_run: impl Iterator<Item = &'a Guest>, options: &[&str]) {
    for (name, args, expected) in guests_to_run {
        let root = tempdir(name);
        let path = guests().join(name).with_extension("elf");
        let mut all = vec!["--root", root.to_str().expect("text")];
        all.extend(options);
        all.push(path.to_str().expect("text"));
        all.extend(*args);
        let output = run(&all);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), *expected, "{name}");
        assert_eq!(errors, "", "{name}");
        fs::remove_dir(&root).expect("the guest leaves nothing");
    }
}

fn tempdir(name: &str) -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let unique = format!("hostmem-{}-{name}-{number}", std::process::id());
    let path = env::temp_dir().join(unique);
    fs::create_dir(&path).expect("a folder");
    path
}

#[test]
fn guests_run_translated() {
    run_guests(&[]);
}

#[test]
fn guests_run_interpreted() {
    run_guests(&["--interpret"]);
}

#[test]
fn guests_run_where_code_is_evicted_all_the_time() {
    // Less than what a loop needs would take minutes on an emulated host.
    let budget = if is_emulated() { "40000" } else { "20000" };
    run_guests(&["--budget", budget]);
}

/// As on hosts whose pages are larger than the guest's. There a file that is mapped to be written
/// is refused.
#[test]
fn guests_run_on_larger_pages() {
    for options in [
        &["--host-page", "16384"][..],
        &["--host-page", "65536"],
        &["--host-page", "16384", "--interpret"],
    ] {
        // Faults take very long on an emulated host.
        let few = |name| !is_emulated() || matches!(name, "pages" | "thunks");
        let all = GUESTS.iter();
        run_each(
            all.filter(|(name, ..)| *name != "files" && few(name)),
            options,
        );
    }
}

#[test]
fn a_program_runs_without_arguments() {
    let output = run(&[]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("primes"));
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(summary.contains("of host code"), "{summary}");
}

/// Where code cannot be written and run by two mappings, there is none; the interpreter needs none.
#[test]
fn a_host_without_dual_mappings_is_told() {
    let name = "a_host_without_dual_mappings_is_told";
    isolate::isolated(name, || {
        if is_emulated() {
            return isolate::leave_out("an emulator has none of the filters of its host");
        }
        let path = guests().join("sieve.elf");
        let hardened = |options: &[&str]| {
            let mut command = emulator();
            command.args(options).arg(&path).arg("1000");
            harden::noexec_mounts(&mut command, &["/dev/shm", "/tmp", "/var/tmp"])?;
            Ok::<_, Unavailable>(command)
        };
        let Some((mut translated, mut interpreted)) =
            isolate::or_skip(hardened(&[]).and_then(|one| Ok((one, hardened(&["--interpret"])?))))
        else {
            return;
        };
        let refused = seccomp::refuse(&[libc::SYS_memfd_create], libc::ENOSYS);
        if isolate::or_skip(refused).is_none() {
            return;
        }
        let output = translated.output().expect("it runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(126), "{message}");
        assert!(message.contains("memory for code"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        let output = interpreted.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn options_do_what_they_say() {
    let path = guests().join("sieve.elf");
    let path = path.to_str().expect("text");
    let output = run(&["--stats", "--strace", path, "1000"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    for expected in [
        "exit_group",
        "set_tid_address",
        "translated",
        "links",
        "low heap",
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
}

#[test]
fn a_long_program_tells_a_terminal_how_far_it_is() {
    let (mut master, mut slave) = (0, 0);
    let (name, settings, size) = (ptr::null_mut(), ptr::null(), ptr::null());
    // SAFETY: there is room for two descriptors; nothing else is asked for.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, name, settings, size) };
    assert_eq!(opened, 0, "{}", io::Error::last_os_error());
    // SAFETY: made just now, for this alone.
    let mut master = unsafe { File::from_raw_fd(master) };
    // SAFETY: as above.
    let slave = unsafe { File::from_raw_fd(slave) };
    let path = guests().join("sieve.elf");
    let mut child = emulator()
        .arg("--stats")
        .arg(path)
        .args(["1000000", "1000000"])
        .stdout(Stdio::null())
        .stderr(slave)
        .spawn()
        .expect("it runs");
    let mut said = Vec::new();
    let expected = b"instructions translated";
    while !said.windows(expected.len()).any(|part| part == expected) {
        let mut some = [0; 1024];
        let count = master.read(&mut some).expect("the terminal is open");
        said.extend_from_slice(&some[..count]);
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn the_address_space_is_drawn() {
    let folder = tempdir("map");
    let picture = folder.join("out.svg");
    let path = guests().join("sieve.elf");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let output = run(&["--map", &text(&picture), &text(&path), "1000"]);
    assert!(output.status.success(), "{output:?}");
    let svg = fs::read_to_string(&picture).expect("a picture");
    fs::remove_dir_all(&folder).expect("the file goes");
    assert!(
        svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    for expected in [
        "Image r",
        "Stack rw",
        "0x100010000",
        "a view of code",
        "free",
    ] {
        assert!(svg.contains(expected), "{expected}: {svg}");
    }
}

#[test]
fn translated_code_is_named() {
    if is_emulated() {
        return isolate::leave_out("the number of the process would be that of the other emulator");
    }
    let child = emulator()
        .args(["--perf", "--root", "/"])
        .arg(guests().join("sieve.elf"))
        .arg("1000")
        .stdout(Stdio::piped())
        .spawn();
    let child = child.expect("it runs");
    let names = PathBuf::from(format!("/tmp/perf-{}.map", child.id()));
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&names).expect("a file");
    fs::remove_file(&names).expect("it goes");
    assert!(text.lines().count() > 50, "{text}");
    let named = |line: &str| {
        let mut words = line.split(' ');
        let numbers: Vec<_> = words.by_ref().take(2).collect();
        let hex = |word: &&str| usize::from_str_radix(word, 16).is_ok_and(|number| number > 0);
        numbers.iter().all(hex)
            && words
                .next()
                .is_some_and(|name| name.starts_with("guest:0x"))
    };
    assert!(text.lines().all(named), "{text}");
}

#[test]
fn limits_of_addresses_are_met_or_told() {
    if is_emulated() {
        return isolate::leave_out("the limits would be those of the other emulator");
    }
    let path = guests().join("tree.elf");
    let limited = |kib: u64| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$1\"")]);
        let output = shell.arg(&words()[0]).arg(&path).output();
        output.expect("a shell")
    };
    // The guest's 4 GiB, and two for the host.
    let output = limited(6 << 20);
    assert!(output.status.success(), "{output:?}");
    // Less than the guest's.
    let output = limited(3 << 20);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(126), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}
