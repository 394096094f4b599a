//! The backends mirror each other: the same files, the same trait implementations, so that a reader
//! of one can read all.
#![cfg(not(miri))]

#[cfg(all(target_os = "linux", feature = "linux"))]
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each backend's folder and its provider.
const BACKENDS: [(&str, &str); 3] = [
    ("backend-linux", "LinuxProvider"),
    ("backend-bsd", "BsdProvider"),
    ("backend-netbsd", "NetBsdProvider"),
];

fn sources(backend: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(backend)
        .join("src")
}

/// The files of a backend that lie directly in its `src`; what only one system or CPU has lies in
/// folders below.
fn files(backend: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(sources(backend)).expect("a backend has sources");
    entries
        .map(|entry| entry.expect("listed").file_name().into_string())
        .map(|name| name.expect("names are ASCII"))
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// Trait implementations by file, as `Trait for Type`, without `unsafe` and generics, and with the
/// provider's name taken out.
fn implementations(backend: &str, provider: &str) -> BTreeMap<String, BTreeSet<String>> {
    let one = |name: String| {
        let text = fs::read_to_string(sources(backend).join(&name)).expect("readable");
        let found = text.lines().filter_map(|line| {
            let line = line.strip_prefix("unsafe ").unwrap_or(line);
            let line = line.strip_prefix("impl")?.split(" {").next()?;
            let header = line.rsplit_once("> ").map_or(line, |(_, rest)| rest);
            let (what, whom) = header.trim().split_once(" for ")?;
            Some(format!("{what} for {}", whom.replace(provider, "Provider")))
        });
        (name, found.collect())
    };
    files(backend).into_iter().map(one).collect()
}

/// Traits of the seam: what a provider is.
fn seam(of: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<&str, BTreeSet<&str>> {
    let own = |found: &str| found.ends_with(" for Provider") || found.ends_with(" for OsFutex");
    of.iter()
        .map(|(file, all)| {
            let all = all.iter().map(String::as_str).filter(|i| own(i));
            (file.as_str(), all.collect())
        })
        .collect()
}

#[test]
fn backends_have_the_same_files() {
    let expected: BTreeSet<String> = [
        "dual.rs",
        "errno.rs",
        "lib.rs",
        "limits.rs",
        "map.rs",
        "object.rs",
        "pages.rs",
        "probe.rs",
        "random.rs",
        "sync.rs",
    ]
    .map(String::from)
    .into();
    for (backend, _) in BACKENDS {
        assert_eq!(files(backend), expected, "{backend}");
    }
}

#[test]
fn backends_implement_the_same_traits_in_the_same_files() {
    let [(linux, provider), others @ ..] = BACKENDS;
    let linux = implementations(linux, provider);
    let expected = seam(&linux);
    for needed in [
        ("pages.rs", "PageProvider for Provider"),
        ("dual.rs", "DualMapProvider for Provider"),
        ("dual.rs", "DualSteps for Provider"),
        ("map.rs", "ProcessMap for Provider"),
        ("sync.rs", "CoreSync for Provider"),
        ("sync.rs", "Clock for Provider"),
        ("sync.rs", "Futex for OsFutex"),
        ("lib.rs", "Default for Provider"),
    ] {
        assert!(expected[needed.0].contains(needed.1), "{needed:?}");
    }
    for (backend, provider) in others {
        let found = implementations(backend, provider);
        assert_eq!(seam(&found), expected, "{backend}");
    }
}

/// Functions that a provider has by itself.
#[test]
fn providers_have_the_same_public_functions() {
    let functions = |backend: &str| -> BTreeSet<String> {
        files(backend)
            .into_iter()
            .flat_map(|name| {
                let text = fs::read_to_string(sources(backend).join(name)).expect("readable");
                let public = |line: &str| {
                    let line = line.strip_prefix("    pub ")?;
                    let line = line.strip_prefix("const ").unwrap_or(line);
                    Some(line.strip_prefix("fn ")?.split('(').next()?.to_owned())
                };
                text.lines().filter_map(public).collect::<Vec<_>>()
            })
            .collect()
    };
    let expected = functions("backend-linux");
    for name in [
        "new",
        "with_directories",
        "directories",
        "probe",
        "probe_now",
    ] {
        assert!(expected.contains(name), "{name}");
    }
    for (backend, _) in BACKENDS {
        assert_eq!(functions(backend), expected, "{backend}");
    }
}

/// What differs between systems lies in whole files: `cfg` of a system is on modules and on what is
/// imported from them.
#[test]
fn functions_know_no_system() {
    for (backend, _) in BACKENDS {
        for name in files(backend) {
            let text = fs::read_to_string(sources(backend).join(&name)).expect("readable");
            let lines: Vec<_> = text.lines().map(str::trim_start).collect();
            for pair in lines.windows(2) {
                let [attribute, item] = pair else { continue };
                if !attribute.starts_with("#[cfg(") || !attribute.contains("target_os") {
                    continue;
                }
                let whole = ["mod ", "use ", "pub use ", "pub(crate) use "];
                assert!(
                    whole.iter().any(|start| item.starts_with(start)),
                    "{backend}/src/{name}: {attribute} {item}"
                );
            }
        }
    }
}
