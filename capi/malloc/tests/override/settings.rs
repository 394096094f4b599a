//! What the environment sets, and what programs with rights of others ignore.

use super::library::{compile, linked, preloaded, run, text, with_library};
use hostmem_test_support::isolate::skip;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

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
    // A program that runs as the user `nobody`, because its owner and the set-user-ID bit say so.
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

/// valgrind tells a program another auxiliary vector than the kernel does.
#[test]
fn programs_run_under_valgrind() {
    let Some(program) = compile("settings.c", "settings-valgrind", &["-ldl"]) else {
        return;
    };
    for (tool, variable, said) in [
        ("none", ("HOSTMEM_LOW4G", "0"), "hardening=1 known=1"),
        ("none", ("HOSTMEM_LOW4G", "1"), "low=1 hardening=1 known=1"),
        ("none", ("HOSTMEM_HARDEN", "2"), "hardening=2 known=1"),
        ("memcheck", ("HOSTMEM_PASS", "1"), "hardening=0 known=0"),
    ] {
        let mut valgrind = with_library("valgrind");
        valgrind
            .args(["--quiet", "--soname-synonyms=somalloc=nouserintercepts"])
            .arg(format!("--tool={tool}"))
            .arg(&program)
            .envs([variable]);
        match valgrind.output() {
            Ok(output) => assert!(text(&output.stdout).contains(said), "{output:?}"),
            Err(error) => return skip(format!("valgrind: {error}")),
        }
    }
}
