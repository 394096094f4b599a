//! Isolated tests: they fail when their body does, and say when they are skipped.
#![cfg(target_os = "linux")]

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::process;

use hostmem_test_support::isolate::{
    check, isolated, isolated_by, isolated_command, or_skip, run, skip,
};
use hostmem_test_support::{Unavailable, isolate};

/// Returns the message with which `f` panicked.
fn message(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it was to panic");
    *payload.downcast().expect("the message is a String")
}

#[test]
fn the_body_runs_in_another_process() {
    let parent = process::id();
    isolated_by(
        "the_body_runs_in_another_process",
        |mut command| Ok(run(command.env("PARENT", parent.to_string()))),
        || {
            assert!(isolate::is_isolated("the_body_runs_in_another_process"));
            let parent = std::env::var("PARENT").expect("the parent sets it");
            assert_ne!(parent, process::id().to_string());
        },
    );
}

#[test]
fn a_failing_body_fails_the_parent_with_its_output() {
    let name = "a_failing_body_fails_the_parent_with_its_output";
    if isolate::is_isolated(name) {
        isolated(name, || panic!("the reason"));
    }
    let text = message(|| isolated(name, || ()));
    assert!(text.contains("the reason"), "{text}");
    assert!(text.contains("exit status: 101"), "{text}");
}

#[test]
fn a_killed_body_fails_the_parent() {
    let name = "a_killed_body_fails_the_parent";
    if isolate::is_isolated(name) {
        isolated(name, || process::abort());
    }
    let text = message(|| isolated(name, || ()));
    assert!(text.contains("signal: 6"), "{text}");
}

#[test]
fn an_early_exit_fails_the_parent() {
    let name = "an_early_exit_fails_the_parent";
    if isolate::is_isolated(name) {
        isolated(name, || process::exit(0));
    }
    let text = message(|| isolated(name, || ()));
    assert!(text.contains("did not run to its end"), "{text}");
}

#[test]
fn a_name_of_no_test_fails_the_parent() {
    let text = message(|| isolated("no_such_test", || ()));
    assert!(text.contains("did not run to its end"), "{text}");
}

#[test]
fn a_prefix_of_another_name_runs_nothing() {
    let output = run(&mut isolated_command("the_body_runs"));
    assert!(message(|| check("the_body_runs", &output)).contains("0 passed"));
}

#[test]
#[ignore = "run by its own name only, to show that isolation includes ignored tests"]
fn an_ignored_test() {
    isolated("an_ignored_test", || ());
}

#[test]
fn an_ignored_test_can_be_isolated() {
    check(
        "an_ignored_test",
        &run(&mut isolated_command("an_ignored_test")),
    );
}

#[test]
fn a_skip_names_the_test_and_the_reason() {
    let name = "a_skip_names_the_test_and_the_reason";
    if isolate::is_isolated(name) {
        isolated(name, || {
            skip("no such hardware");
            assert_eq!(
                or_skip(Err::<(), _>(Unavailable::new("wishing", "in vain"))),
                None
            );
        });
        return;
    }
    let skips = std::env::temp_dir().join(format!("hostmem-skips-{}", process::id()));
    let lenient = || {
        let mut command = isolated_command(name);
        command.env(isolate::STRICT, "").env(isolate::SKIPS, &skips);
        command
    };
    let output = run(&mut lenient());
    check(name, &output);
    let noted = std::fs::read_to_string(&skips).expect("it was written");
    std::fs::remove_file(&skips).expect("it is there");
    assert_eq!(
        noted,
        format!("SKIPPED: {name}: no such hardware\nSKIPPED: {name}: wishing: in vain\n")
    );
    // Where skips are failures the first one ends the test.
    let strict = run(lenient().env(isolate::STRICT, "1"));
    std::fs::remove_file(&skips).expect("it was written again");
    assert!(!strict.status.success());
    let stderr = String::from_utf8_lossy(&strict.stderr);
    assert!(!stderr.contains("in vain"), "{stderr}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains(&format!("SKIPPED: {name}: no such hardware\n")),
        "{stderr}"
    );
    assert!(
        stderr.contains(&format!("SKIPPED: {name}: wishing: in vain\n")),
        "{stderr}"
    );
}

#[test]
fn unavailable_conditions_skip_the_test() {
    let name = "unavailable_conditions_skip_the_test";
    if std::env::var_os(isolate::STRICT).is_some_and(|strict| !strict.is_empty()) {
        let output = run(isolated_command(name)
            .env(isolate::STRICT, "")
            .env(isolate::SKIPS, ""));
        assert!(output.status.success());
        return;
    }
    let body = || panic!("the body is not to run");
    isolated_by(
        "no_such_test",
        |_| Err(Unavailable::new("this line", "is expected")),
        body,
    );
}

mod within {
    use hostmem_test_support::isolate::{is_isolated, isolated, test_path};

    #[test]
    fn a_test_in_a_module_is_found_by_its_path() {
        let mut ran = false;
        isolated!("a_test_in_a_module_is_found_by_its_path", || ran = true);
        let path = test_path!("a_test_in_a_module_is_found_by_its_path");
        assert_eq!(path, "within::a_test_in_a_module_is_found_by_its_path");
        assert_eq!(
            is_isolated(&path),
            ran,
            "only the process of its own runs the body"
        );
    }
}
