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

/// Each backend's folder and its system.
const BACKENDS: [(&str, &str); 3] = [
    ("backend-linux", "Linux"),
    ("backend-bsd", "Bsd"),
    ("backend-netbsd", "NetBsd"),
];

/// What the backend of a system has by itself. The others have it in common: `hostmem_bsd::shared`.
const OF_LINUX_ALONE: [&str; 2] = ["errno.rs", "random.rs"];

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

/// Every file of a backend.
fn all_files(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).expect("a backend has sources");
    let paths = entries.map(|entry| entry.expect("listed").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => all_files(&path),
            false => vec![path],
        })
        .collect()
}

/// Trait implementations by file, as `Trait for Type`, without `unsafe`, and with the name of the
/// backend's system taken out.
fn implementations(backend: &str, system: &str) -> BTreeMap<String, BTreeSet<String>> {
    let one = |name: String| {
        let text = fs::read_to_string(sources(backend).join(&name)).expect("readable");
        let found = text.lines().filter_map(|line| {
            let line = line.strip_prefix("unsafe ").unwrap_or(line);
            let (what, whom) = line
                .strip_prefix("impl ")?
                .split(" {")
                .next()?
                .split_once(" for ")?;
            let whom = if whom == system { "the system" } else { whom };
            Some(format!("{what} for {whom}"))
        });
        (name, found.collect())
    };
    files(backend).into_iter().map(one).collect()
}

/// Traits of a backend: what it tells the core of its system, and how its threads sleep.
fn seam(of: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<&str, BTreeSet<&str>> {
    let own = |found: &str| found.ends_with(" for the system") || found.ends_with(" for OsFutex");
    // Those that all BSDs have alike are implemented for what they have in common.
    let shared = ["Calls for the system", "Clock for the system"];
    of.iter()
        .filter(|(file, _)| !OF_LINUX_ALONE.contains(&file.as_str()))
        .map(|(file, all)| {
            let all = all.iter().map(String::as_str);
            let all = all.filter(|i| own(i) && !shared.contains(i));
            (file.as_str(), all.collect())
        })
        .collect()
}

#[test]
fn backends_have_the_same_files() {
    let common = [
        "dual.rs",
        "lib.rs",
        "limits.rs",
        "map.rs",
        "object.rs",
        "pages.rs",
        "probe.rs",
        "sync.rs",
    ];
    for (backend, _) in BACKENDS {
        let mut expected: BTreeSet<String> = common.map(String::from).into();
        if backend == "backend-linux" {
            expected.extend(OF_LINUX_ALONE.map(String::from));
        }
        assert_eq!(files(backend), expected, "{backend}");
    }
}

#[test]
fn backends_implement_the_same_traits_in_the_same_files() {
    let [(linux, system), others @ ..] = BACKENDS;
    let linux = implementations(linux, system);
    let expected = seam(&linux);
    for needed in [
        ("pages.rs", "System for the system"),
        ("dual.rs", "DualSystem for the system"),
        ("map.rs", "ProcessMap for the system"),
        ("sync.rs", "CoreSync for the system"),
        ("sync.rs", "Futex for OsFutex"),
        ("probe.rs", "ProbeSystem for the system"),
    ] {
        assert!(expected[needed.0].contains(needed.1), "{needed:?}");
    }
    for (backend, system) in others {
        let found = implementations(backend, system);
        assert_eq!(seam(&found), expected, "{backend}");
    }
}

/// What a backend shows to programs: the system, its provider, and its lock.
#[test]
fn backends_have_the_same_public_items() {
    for (backend, system) in BACKENDS {
        let public = |name: String| {
            let text = fs::read_to_string(sources(backend).join(name)).expect("readable");
            let items = text.lines().filter_map(|line| {
                let item = line.strip_prefix("pub ")?;
                let item = item
                    .split(['(', ';', ' ', '='])
                    .filter(|word| !word.is_empty());
                item.take(2)
                    .map(str::to_owned)
                    .reduce(|kind, name| format!("{kind} {name}"))
            });
            items.collect::<Vec<_>>()
        };
        let found: BTreeSet<_> = files(backend).into_iter().flat_map(public).collect();
        let mut expected: BTreeSet<_> =
            ["use pages::", "use sync::", "struct OsFutex", "type OsLock"]
                .map(String::from)
                .into();
        expected.extend([format!("struct {system}"), format!("type {system}Provider")]);
        let found = found.into_iter().map(|item| match item.split_once("::") {
            Some((module, _)) => format!("{module}::"),
            None => item,
        });
        let found: BTreeSet<_> = found.filter(|item| item != "mod shared").collect();
        assert_eq!(found, expected, "{backend}");
    }
}

/// The lines of a file that are code: no comments, imports and closing brackets.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("readable");
    let mut lines = Vec::new();
    let mut imports = false;
    for line in text.lines().map(str::trim) {
        imports |= ["use ", "pub use ", "pub(crate) use "]
            .iter()
            .any(|start| line.starts_with(start));
        if !imports && line.len() > 2 && !line.starts_with("//") {
            lines.push(line.to_owned());
        }
        imports &= !line.ends_with(';');
    }
    lines
}

/// What stands in two files belongs in the core, or in what the BSDs share.
#[test]
fn no_body_stands_twice() {
    /// Lines that may be the same: signatures of traits, and calls that are one line each.
    const SAME: usize = 6;
    let mut seen: BTreeMap<Vec<String>, PathBuf> = BTreeMap::new();
    for (backend, _) in BACKENDS {
        for path in all_files(&sources(backend)) {
            for lines in code(&path).windows(SAME + 1) {
                if let Some(other) = seen.insert(lines.to_vec(), path.clone()) {
                    assert_eq!(other, path, "both have\n{}", lines.join("\n"));
                }
            }
        }
    }
    assert!(seen.len() > 1000, "there is code to be compared");
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
