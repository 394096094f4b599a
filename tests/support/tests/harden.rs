//! The restrictions hold in the restricted process, and only there.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, id};

use common::{Map, PAGE, RW, RWX, RX, errno, memfd};
use hostmem_test_support::Unavailable;
use hostmem_test_support::harden::{
    get_mdwe, mdwe_from_start, memfd_noexec, noexec_mounts, pid_namespace, set_mdwe,
};
use hostmem_test_support::isolate::{isolated, isolated_by, or_skip, run};

/// `MFD_EXEC` of linux/memfd.h.
const MFD_EXEC: u32 = 0x10;
const DIRS: [&str; 4] = ["/dev/shm", "/tmp", "/var/tmp", "/no/such/directory"];

/// Runs a command under a restriction.
fn under(
    restrict: impl FnOnce(&mut Command) -> Result<(), Unavailable>,
) -> impl FnOnce(Command) -> Result<Output, Unavailable> {
    |mut command| restrict(&mut command).map(|()| run(&mut command))
}

/// Checks that the process is under MDWE and that it holds.
fn mdwe_holds() {
    assert_eq!(get_mdwe(), Ok(true));
    assert_eq!(errno(Map::anonymous(PAGE, RWX)), Some(libc::EACCES));
    let page = Map::anonymous(PAGE, RW).expect("writable alone is permitted");
    assert_eq!(errno(page.protect(RX)), Some(libc::EACCES));
}

#[test]
fn mdwe_refuses_to_gain_execution() {
    isolated("mdwe_refuses_to_gain_execution", || {
        if or_skip(set_mdwe()).is_some() {
            mdwe_holds();
        }
    });
}

#[test]
fn mdwe_from_start_holds_from_the_start() {
    let outside = get_mdwe();
    isolated_by(
        "mdwe_from_start_holds_from_the_start",
        under(mdwe_from_start),
        mdwe_holds,
    );
    assert_eq!(outside, get_mdwe());
}

#[test]
fn a_pid_namespace_shows_its_own_proc() {
    let links = || ["pid", "mnt"].map(|ns| fs::read_link(format!("/proc/self/ns/{ns}")).ok());
    let before = links();
    isolated_by(
        "a_pid_namespace_shows_its_own_proc",
        under(pid_namespace),
        || {
            assert_eq!(id(), 2);
            let own = fs::read_link("/proc/self").expect("/proc is mounted");
            assert_eq!(own, Path::new("2"));
        },
    );
    assert_eq!(links(), before, "the parent stays where it is");
}

#[test]
fn a_pid_namespace_relays_the_status() {
    let status = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        or_skip(pid_namespace(&mut command)).map(|()| run(&mut command))
    };
    let Some(output) = status("echo $$; exit 42") else {
        return;
    };
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(42), b"2\n".as_slice())
    );
    let killed = status("kill -9 $$").expect("it worked before");
    assert_eq!(killed.status.signal(), Some(9));
    // An orphan neither outlives the namespace nor holds the pipe.
    let orphan = status("sleep 1000 & exit 3").expect("it worked before");
    assert_eq!(orphan.status.code(), Some(3));
}

#[test]
fn a_pid_namespace_reports_a_missing_program() {
    let mut command = Command::new("/no/such/program");
    if or_skip(pid_namespace(&mut command)).is_some() {
        assert_eq!(errno(command.spawn()), Some(libc::ENOENT));
    }
}

#[test]
fn killing_the_relay_kills_the_namespace() {
    let mut command = Command::new("sleep");
    command.arg("1000").stdout(std::process::Stdio::piped());
    if or_skip(pid_namespace(&mut command)).is_none() {
        return;
    }
    let mut child = command.spawn().expect("sleep exists");
    child.kill().expect("the child lives");
    // Ends only when the last process that holds the pipe is gone.
    let output = child
        .wait_with_output()
        .expect("the child can be waited for");
    assert_eq!(output.status.signal(), Some(9));
}

#[test]
fn memfd_noexec_refuses_executable_memfds_inside_only() {
    isolated_by(
        "memfd_noexec_refuses_executable_memfds_inside_only",
        under(memfd_noexec),
        || {
            assert_eq!(errno(memfd(MFD_EXEC)), Some(libc::EACCES));
            assert!(memfd(0).is_ok(), "without flags it is sealed, not refused");
        },
    );
    let setting = fs::read_to_string("/proc/sys/vm/memfd_noexec");
    if setting.is_ok_and(|s| s.trim() != "2") {
        assert!(memfd(MFD_EXEC).is_ok(), "outside nothing has changed");
    }
}

/// Makes a file of a page in `dir`.
fn file_in(dir: &str) -> File {
    let path = format!("{dir}/hostmem-test-{}", id());
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let file = file.expect("the directory is writable");
    file.set_len(4096).expect("a page fits");
    fs::remove_file(path).expect("the file was made above");
    file
}

/// Checks that `DIRS` are mounted noexec.
fn mounts_hold() {
    for dir in DIRS.iter().filter(|dir| Path::new(dir).exists()) {
        let file = file_in(dir);
        assert!(Map::of_file(&file, PAGE, RW).is_ok(), "{dir} is writable");
        assert_eq!(
            errno(Map::of_file(&file, PAGE, RX)),
            Some(libc::EPERM),
            "{dir}"
        );
        assert_eq!(
            errno(Map::of_file(&file, PAGE, RW).expect("as above").protect(RX)),
            Some(libc::EACCES)
        );
    }
}

#[test]
fn noexec_mounts_refuse_executable_mappings_inside_only() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").ok();
    let before = mounts();
    let restrict = |command: &mut Command| noexec_mounts(command, &DIRS);
    isolated_by(
        "noexec_mounts_refuse_executable_mappings_inside_only",
        under(restrict),
        mounts_hold,
    );
    assert_eq!(mounts(), before, "the parent's mounts stay as they are");
}

#[test]
fn a_program_below_a_noexec_mount_still_runs() {
    let program = std::env::current_exe().expect("the path of the test binary is known");
    let root = program
        .ancestors()
        .nth(2)
        .and_then(Path::to_str)
        .expect("target is no root");
    let mut command = Command::new(&program);
    command.arg("--list");
    if or_skip(noexec_mounts(&mut command, &[root])).is_some() {
        let output = run(&mut command);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn restrictions_combine() {
    let restrict = |command: &mut Command| {
        noexec_mounts(command, &DIRS)?;
        memfd_noexec(command)?;
        mdwe_from_start(command)
    };
    isolated_by("restrictions_combine", under(restrict), || {
        mdwe_holds();
        mounts_hold();
        assert_eq!(errno(memfd(MFD_EXEC)), Some(libc::EACCES));
    });
}

#[test]
fn without_privilege_each_says_so() {
    isolated("without_privilege_each_says_so", || {
        // SAFETY: this takes no pointer; the process is this test's own.
        let dropped = unsafe { libc::setuid(65534) } == 0;
        assert!(dropped || std::env::var("USER").is_ok_and(|u| u != "root"));
        let refused = |f: &dyn Fn(&mut Command) -> Result<(), Unavailable>| {
            f(&mut Command::new("true"))
                .expect_err("the user has no privilege")
                .to_string()
        };
        let text = refused(&pid_namespace);
        assert!(text.contains("Operation not permitted"), "{text}");
        assert!(refused(&memfd_noexec).contains("memfd_noexec"));
        assert!(refused(&|command| noexec_mounts(command, &DIRS)).contains("noexec"));
        let pages = hostmem_test_support::hugetlb::with_huge_pages(1, |_| ());
        assert!(pages.is_err(), "{pages:?}");
    });
}
