//! P5 and P6: under memory-deny-write-execute, under system-call filters, with noexec mounts and
//! with everything shut; and what a whole run maps, seen call by call.

use crate::common::{
    check_expression, check_that_code_runs, expression, is_of_test, map_dual, run_expression,
    skip_emulated, unmap_dual,
};
use hostmem::{
    OsProvider,
    jit::{JitAllocator, JitConfig, JitError},
    probe::Setting,
    provider::{Capabilities, DualMapProvider, DualRequest, DualStep, PageProvider},
};
use hostmem_test_support::{
    harden, isolate, maps, seccomp,
    trace::{Plan, TraceReport, Tracer, gained_exec, writable_and_executable},
};
use std::process::Command;

const OS: OsProvider = OsProvider::new();

/// The strategy that a mapping made now uses.
fn step_used() -> DualStep {
    let mapping = map_dual(&OS);
    let step = mapping.step();
    unmap_dual(&OS, mapping);
    step
}

/// Runs a command under the tracer; `None` where that cannot be done here.
fn trace(mut command: Command, harden: bool) -> Option<TraceReport> {
    if harden {
        isolate::or_skip(harden::mdwe_from_start(&mut command))?;
    }
    let plan = Plan::new().observe(libc::SYS_memfd_create);
    #[cfg(target_arch = "x86_64")]
    let plan = plan.observe(libc::SYS_open);
    isolate::or_skip(Tracer::run(command, plan.observe(libc::SYS_openat)))
}

fn bench_command() -> Command {
    let mut command = Command::new(expression());
    command.args(["--bench", "500"]);
    command
}

#[test]
fn p5_nothing_is_ever_writable_and_executable_in_a_whole_run() {
    for harden in [false, true] {
        let Some(report) = trace(bench_command(), harden) else {
            return;
        };
        assert!(report.output.status.success(), "{:?}", report.output);
        assert!(
            report.calls_of(libc::SYS_memfd_create).count() > 0,
            "code was mapped"
        );
        let exposed = writable_and_executable(&report.events);
        assert!(exposed.is_empty(), "{exposed:?}");
        let gained = gained_exec(&report.events);
        assert!(gained.is_empty(), "nor one after the other: {gained:?}");
    }
}

#[test]
fn p5_the_tracer_sees_what_it_is_to_see() {
    // The probe does take a page from writable to executable, and says so.
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command.args([
        "--exact",
        &isolate::test_path!("p5_control_probe"),
        "--ignored",
        "--test-threads=1",
    ]);
    let Some(report) = trace(command, false) else {
        return;
    };
    assert!(report.output.status.success(), "{:?}", report.output);
    assert!(
        !gained_exec(&report.events).is_empty(),
        "the toggle was seen"
    );
    let exposed = writable_and_executable(&report.events);
    assert!(
        exposed.is_empty(),
        "but the probe maps nothing writable and executable: {exposed:?}"
    );
}

#[test]
#[ignore = "the control of p5_the_tracer_sees_what_it_is_to_see, which runs it"]
fn p5_control_probe() {
    assert!(OS.probe_now().toggle_exec.is_ok());
}

#[test]
fn p9_descriptors_are_close_on_exec_from_the_start() {
    let Some(report) = trace(bench_command(), false) else {
        return;
    };
    let made: Vec<_> = report.calls_of(libc::SYS_memfd_create).collect();
    assert!(!made.is_empty());
    for call in made {
        assert_ne!(call.args[1] & u64::from(libc::MFD_CLOEXEC), 0, "{call:?}");
    }
    let mut opened = Vec::new();
    opened.extend(report.calls_of(libc::SYS_openat).map(|call| call.args[2]));
    #[cfg(target_arch = "x86_64")]
    opened.extend(report.calls_of(libc::SYS_open).map(|call| call.args[1]));
    assert!(
        !opened.is_empty(),
        "the read-only view opens its file again"
    );
    let cloexec = u64::from(libc::O_CLOEXEC.unsigned_abs());
    assert!(
        opened.iter().all(|flags| flags & cloexec != 0),
        "{opened:x?}"
    );
}

#[test]
fn p5_code_runs_under_memory_deny_write_execute() {
    if skip_emulated("does not know memory-deny-write-execute") {
        return;
    }
    expression();
    isolate::isolated!("p5_code_runs_under_memory_deny_write_execute", || {
        assert_eq!(OS.probe_now().deny_write_execute, Setting::Off);
        if isolate::or_skip(harden::set_mdwe()).is_none() {
            return;
        }
        check_that_code_runs(&OS);
        let probe = OS.probe_now();
        assert_eq!(probe.deny_write_execute, Setting::On);
        assert_eq!(probe.rwx.map_err(|e| e.errno()), Err(Some(libc::EACCES)));
        assert_eq!(
            probe.toggle_exec.map_err(|e| e.errno()),
            Err(Some(libc::EACCES))
        );
        assert_eq!(probe.best_dual(), Some(DualStep::Memfd));
        let refused = Capabilities::RWX | Capabilities::TOGGLE_EXEC;
        assert!(!OS.capabilities().intersects(refused));
        check_expression();
    });
}

/// Shuts `memfd_create` with an error and checks that the next strategy takes over.
fn p6_memfd_refused(test: &str, errno: i32) {
    expression();
    isolate::isolated!(test, || {
        if isolate::or_skip(seccomp::refuse(&[libc::SYS_memfd_create], errno)).is_none() {
            return;
        }
        let fds = maps::count_fds().expect("/proc is mounted");
        assert_eq!(step_used(), DualStep::DevShm);
        check_that_code_runs(&OS);
        check_expression();
        let tried = OS
            .probe_now()
            .dual()
            .find(|(step, _)| *step == DualStep::Memfd);
        let (_, result) = tried.expect("the strategy was tried");
        assert_eq!(result.map_err(|e| e.errno()), Err(Some(errno)));
        assert_eq!(maps::count_fds().expect("/proc is mounted"), fds);
    });
}

#[test]
fn p6_memfd_refused_as_enosys() {
    p6_memfd_refused("p6_memfd_refused_as_enosys", libc::ENOSYS);
}

#[test]
fn p6_memfd_refused_as_eperm() {
    p6_memfd_refused("p6_memfd_refused_as_eperm", libc::EPERM);
}

#[test]
fn p6_memfd_refused_as_eacces() {
    p6_memfd_refused("p6_memfd_refused_as_eacces", libc::EACCES);
}

/// Runs the rest of a test in a process to which `restrict` was done.
fn restricted(
    test: &str,
    restrict: impl FnOnce(&mut Command) -> Result<(), hostmem_test_support::Unavailable>,
    body: impl FnOnce(),
) {
    if skip_emulated("maps guest code without asking the file system whether it may run") {
        return;
    }
    expression();
    let start = |mut command: Command| {
        restrict(&mut command)?;
        Ok(isolate::run(&mut command))
    };
    isolate::isolated_by(&isolate::test_path!(test), start, body);
}

#[test]
fn p6_memfd_shut_by_memfd_noexec() {
    restricted(
        "p6_memfd_shut_by_memfd_noexec",
        harden::memfd_noexec,
        || {
            let probe = OS.probe_now();
            assert_eq!(probe.memfd_noexec, Some(2));
            assert_eq!(step_used(), DualStep::DevShm);
            check_that_code_runs(&OS);
            check_expression();
        },
    );
}

#[test]
fn p6_memfd_noexec_and_dev_shm_noexec() {
    let restrict = |command: &mut Command| {
        harden::memfd_noexec(command)?;
        harden::noexec_mounts(command, &["/dev/shm"])
    };
    restricted("p6_memfd_noexec_and_dev_shm_noexec", restrict, || {
        assert_eq!(step_used(), DualStep::Directory(0));
        check_that_code_runs(&OS);
        check_expression();
    });
}

#[test]
fn p6_everything_but_var_tmp_shut() {
    let restrict = |command: &mut Command| {
        harden::memfd_noexec(command)?;
        harden::noexec_mounts(command, &["/dev/shm", "/tmp"])
    };
    restricted("p6_everything_but_var_tmp_shut", restrict, || {
        assert_eq!(step_used(), DualStep::Directory(1));
        check_that_code_runs(&OS);
        check_expression();
    });
}

#[test]
fn p6_everything_shut_is_reported_step_by_step() {
    let test = "p6_everything_shut_is_reported_step_by_step";
    let restrict =
        |command: &mut Command| harden::noexec_mounts(command, &["/dev/shm", "/tmp", "/var/tmp"]);
    restricted(test, restrict, || {
        let refused = seccomp::refuse(&[libc::SYS_memfd_create], libc::ENOSYS);
        if isolate::or_skip(refused).is_none() {
            return;
        }
        let shape = || {
            let mappings = maps::of_self().expect("/proc is mounted");
            let lasting = mappings.iter().filter(|m| !is_of_test(m.start, &m.path));
            lasting.map(|m| (m.start, m.end)).collect::<Vec<_>>()
        };
        let fds = maps::count_fds().expect("/proc is mounted");
        let try_it = || {
            // SAFETY: neither target is a range of ours.
            unsafe { OS.map_dual(&DualRequest::bytes(1 << 16)) }.expect_err("everything is shut")
        };
        // What the tests themselves allocate may make a mapping longer once, and no more.
        const TRIES: usize = 5;
        let mut unchanged = (0..TRIES).map(|_| {
            let before = shape();
            let error = try_it();
            (shape() == before).then_some(error)
        });
        let error = unchanged.find_map(|error| error);
        let error = error.expect("nothing stays mapped");
        assert_eq!(
            maps::count_fds().expect("/proc is mounted"),
            fds,
            "nothing stays open"
        );
        let expected = [
            (DualStep::Memfd, Some(libc::ENOSYS)),
            (DualStep::DevShm, Some(libc::EPERM)),
            (DualStep::Directory(0), Some(libc::EPERM)),
            (DualStep::Directory(1), Some(libc::EPERM)),
        ];
        let steps: Vec<_> = error.steps().map(|(step, e)| (step, e.errno())).collect();
        assert_eq!(steps, expected);
        for directory in ["/dev/shm", "/tmp", "/var/tmp"] {
            let mut left = std::fs::read_dir(directory).expect("mounted").flatten();
            let ours = left.find(|e| e.file_name().to_string_lossy().starts_with("hostmem"));
            assert!(ours.is_none(), "{ours:?} was left in {directory}");
        }
        let jit = JitAllocator::<_, _>::on(OS, OS, JitConfig::new()).expect("maps nothing yet");
        assert_eq!(jit.alloc(1).expect_err("no block"), JitError::Map(error));
        check_that_the_example_reports_every_step();
    });
}

fn check_that_the_example_reports_every_step() {
    let output = run_expression();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr);
    let parts = [
        "memfd_create: not supported by the host (errno 38)",
        "file in /dev/shm: refused by the host's policy (errno 1)",
        "file in directory 0: refused by the host's policy (errno 1)",
        "file in directory 1: refused by the host's policy (errno 1)",
    ];
    for part in parts {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn without_proc_everything_still_works() {
    isolate::isolated!("without_proc_everything_still_works", || {
        use hostmem::{
            page::AddressRange,
            provider::{Placement, ProcessMap, Request, Target},
        };
        // All opening is refused: no process map, no read-only view.
        let calls = [
            libc::SYS_openat,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open,
        ];
        if isolate::or_skip(seccomp::refuse(&calls, libc::ENOENT)).is_none() {
            return;
        }
        assert!(OS.walk(&mut |_| true).is_err());
        check_that_code_runs(&OS);
        let low = Request::bytes(1 << 20).within(AddressRange::LOW_4G);
        let range = OS.reserve(&low).expect("found by trying");
        assert!(range.end() <= 1 << 32);
        let rx = Target::Find(Placement::near(range.addr(), 128 << 20));
        let request = DualRequest {
            rx,
            ..DualRequest::bytes(1 << 16)
        };
        // SAFETY: neither target is a range of ours.
        let mapping = unsafe { OS.map_dual(&request) }.expect("found by trying");
        assert!(mapping.rx().addr().abs_diff(range.addr()) <= 128 << 20);
        unmap_dual(&OS, mapping);
    });
}
