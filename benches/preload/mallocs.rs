//! Ours and the peers, as libraries to preload.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A malloc that can be preloaded.
#[derive(Clone, Debug)]
pub struct Malloc {
    /// Who it is.
    pub name: &'static str,
    /// Its library; `None` is the C library's own.
    pub library: Option<PathBuf>,
}

impl Malloc {
    /// Has a program run on this malloc.
    pub fn preload<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match &self.library {
            Some(library) => command.env("LD_PRELOAD", library),
            None => command.env_remove("LD_PRELOAD"),
        }
    }
}

/// Folders that Debian's packages `libmimalloc2.0` and `libjemalloc2` put libraries into.
const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// Finds a peer: where a variable says, for another version, or as a package of the system.
fn find(variable: &str, files: &[&str]) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let paths = FOLDERS
        .iter()
        .flat_map(|folder| files.iter().map(move |file| Path::new(folder).join(file)));
    paths.into_iter().find(|path| path.exists())
}

/// Returns the peers that are here.
pub fn peers() -> Vec<Malloc> {
    let files = [
        (
            "mimalloc",
            "HOSTMEM_MIMALLOC",
            &["libmimalloc.so.3", "libmimalloc.so.2"][..],
        ),
        ("jemalloc", "HOSTMEM_JEMALLOC", &["libjemalloc.so.2"][..]),
    ];
    let found = files.into_iter().filter_map(|(name, variable, files)| {
        let library = Some(find(variable, files)?);
        Some(Malloc { name, library })
    });
    let glibc = Malloc {
        name: "glibc",
        library: None,
    };
    found.chain([glibc]).collect()
}

/// The folder that ours is installed into.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let root = env::temp_dir().join(format!("hostmem-preload-{}", std::process::id()));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../capi/install.sh");
        let mut install = Command::new("bash");
        install.args([script, "/usr"]).env("DESTDIR", &root);
        // Set for this program's own build.
        install.env_remove("CARGO_TARGET_DIR");
        let status = install.status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "ours is built and installed"
        );
        root.join("usr/lib")
    })
}

/// Removes what was installed.
pub fn clean() -> io::Result<()> {
    match installed().ancestors().nth(2) {
        Some(root) => fs::remove_dir_all(root),
        None => Ok(()),
    }
}

/// Returns ours.
pub fn ours() -> Malloc {
    Malloc {
        name: "ours",
        library: Some(installed().join("libhostmem_malloc.so.0")),
    }
}

/// Returns ours, to be linked.
pub fn archive() -> PathBuf {
    installed().join("libhostmem_malloc.a")
}

/// Notes which peers there are.
pub fn describe() {
    for peer in peers() {
        match &peer.library {
            Some(library) => {
                let real = fs::canonicalize(library).unwrap_or_else(|_| library.clone());
                println!("note: {} is {}", peer.name, real.display());
            }
            None => println!("note: glibc is the C library of this system"),
        }
    }
}
