//! Starts a process for each case.

use super::child;
use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Tells a process that it is to claim, and the argument for that.
const CHILD: &str = "HOSTMEM_CLAIM_CHILD";

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Why a case cannot run here.
struct Skipped(String);

type Case = fn(&Path) -> Result<Command, Skipped>;

const CASES: [(&str, Case); 13] = [
    ("plain", |this| Ok(child(this, 0))),
    ("setarch_r", |this| setarch(this, "-R")),
    ("setarch_l", |this| setarch(this, "-L")),
    ("setarch_3", |this| setarch(this, "-3")),
    ("setarch_r_l", |this| setarch(this, "-RL")),
    ("unlimited_stack", |this| {
        Ok(limited(this, 0, libc::RLIMIT_STACK, libc::RLIM_INFINITY))
    }),
    ("limit_200_mib", |this| Ok(addresses(this, 200 * MIB))),
    ("limit_1_gib", |this| Ok(addresses(this, GIB))),
    ("limit_8_gib", |this| Ok(addresses(this, 8 * GIB))),
    ("valgrind", |this| {
        let arguments = ["--tool=none", "--quiet", "--error-exitcode=3"];
        under("valgrind", &arguments, this)
    }),
    ("qemu_user", |this| {
        let mut command = under(&format!("qemu-{}", env::consts::ARCH), &[], this)?;
        command.env(CHILD, child::EMULATED);
        Ok(command)
    }),
    ("non_pie", |this| {
        linked(this, "non_pie", &["-C", "relocation-model=static"])
    }),
    ("static_pie", |this| {
        linked(this, "static_pie", &["-C", "target-feature=+crt-static"])
    }),
];

fn child(this: &Path, limit: usize) -> Command {
    let mut command = Command::new(this);
    command.env(CHILD, limit.to_string());
    command
}

/// Finds a program of the system.
fn program(name: &str) -> Result<PathBuf, Skipped> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let mut found = env::split_paths(&paths).map(|path| path.join(name));
    let found = found.find(|path| path.is_file());
    found.ok_or_else(|| Skipped(format!("{name} is not installed")))
}

fn under(tool: &str, arguments: &[&str], this: &Path) -> Result<Command, Skipped> {
    let mut command = Command::new(program(tool)?);
    command.args(arguments).arg(this).env(CHILD, "0");
    Ok(command)
}

fn setarch(this: &Path, how: &str) -> Result<Command, Skipped> {
    let mut try_it = Command::new(program("setarch")?);
    try_it.args([env::consts::ARCH, how, "true"]);
    match try_it.stderr(Stdio::null()).status() {
        Ok(status) if status.success() => under("setarch", &[env::consts::ARCH, how], this),
        _ => Err(Skipped(format!("setarch {how} is refused"))),
    }
}

fn limited(
    this: &Path,
    told: usize,
    resource: libc::__rlimit_resource_t,
    limit: libc::rlim_t,
) -> Command {
    let mut command = child(this, told);
    let set = move || {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: reads one structure.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, which may be made in a forked child.
    unsafe { command.pre_exec(set) };
    command
}

fn addresses(this: &Path, limit: usize) -> Command {
    limited(this, limit, libc::RLIMIT_AS, limit as libc::rlim_t)
}

/// Links the child anew, with the library that this test was linked with.
fn linked(this: &Path, name: &str, options: &[&str]) -> Result<Command, Skipped> {
    let none = |what: &str| Skipped(format!("it cannot be linked so: {what}"));
    let deps = this.parent().ok_or_else(|| none("no directory"))?;
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/claim_hosts/child.rs");
    let target = deps.join(format!("claim_hosts_{name}"));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or("");
        name.starts_with("libhostmem-") && path.extension() == Some("rlib".as_ref())
    };
    let files = fs::read_dir(deps).map_err(|error| none(&error.to_string()))?;
    let mut libraries: Vec<_> = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(is_library)
        .collect();
    // The newest first; others are of other features, or of long ago.
    let changed = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
    libraries.sort_by_key(changed);
    let mut why = "no library".to_owned();
    for library in libraries.iter().rev() {
        let mut compile = Command::new(&compiler);
        compile
            .args(["--edition=2024", "--cap-lints=allow", "--crate-type=bin"])
            .args(options)
            .arg("-L")
            .arg(format!("dependency={}", deps.display()))
            .arg("--extern")
            .arg(format!("hostmem={}", library.display()))
            .arg("-o")
            .arg(&target)
            .arg(&source);
        match compile.output() {
            Ok(output) if output.status.success() => return Ok(Command::new(target)),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(none(why.lines().next().unwrap_or_default()))
}

/// Runs what is asked for, as the usual harness would be asked.
pub fn main() -> ExitCode {
    if let Ok(argument) = env::var(CHILD) {
        child::run(&argument);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let this = env::current_exe().expect("a program has a path");
    let mut failed = 0;
    for (name, case) in CASES {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        if env::var_os("HOSTMEM_EMULATED").is_some() {
            eprintln!("SKIPPED: {name}: the emulator has mappings that the guest does not see");
            continue;
        }
        match case(&this) {
            Ok(mut command) => {
                let output = command.output().expect("the process starts");
                let text = String::from_utf8_lossy(&output.stdout);
                if output.status.success() && text.lines().any(|line| line == child::DONE) {
                    println!("test {name} ... ok");
                    continue;
                }
                failed += 1;
                let errors = String::from_utf8_lossy(&output.stderr);
                println!(
                    "test {name} ... FAILED: {}\n{text}\n{errors}",
                    output.status
                );
            }
            Err(Skipped(reason)) => eprintln!("SKIPPED: {name}: {reason}"),
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{failed} failed");
        ExitCode::FAILURE
    }
}
