//! Compiles the shims of those peers that are installed, and says which by `cfg`.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(asmjit)");
    println!("cargo::rerun-if-changed=peers");
    #[cfg(feature = "peers")]
    peers::find();
}

#[cfg(feature = "peers")]
mod peers {
    use std::env;

    /// Looks for AsmJit where the compiler looks for headers, and for what the variable names.
    pub fn find() {
        println!("cargo::rerun-if-env-changed=HOSTMEM_ASMJIT");
        // A cross compiler that finds a header of the host's would not find a library.
        if env::var_os("HOST") != env::var_os("TARGET") || !compiles("peers/asmjit_header.cpp") {
            return;
        }
        match shim()
            .file("peers/asmjit.cpp")
            .try_compile("hostmem_asmjit")
        {
            Ok(()) => {
                if let Some(prefix) = env::var_os("HOSTMEM_ASMJIT") {
                    println!("cargo::rustc-link-search={}/lib", prefix.display());
                }
                println!("cargo::rustc-link-lib=asmjit");
                println!("cargo::rustc-cfg=asmjit");
            }
            Err(error) => println!("cargo::warning=AsmJit is there, but not usable: {error}"),
        }
    }

    fn shim() -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17");
        if let Some(prefix) = env::var_os("HOSTMEM_ASMJIT") {
            build.include(std::path::Path::new(&prefix).join("include"));
        }
        build
    }

    /// Says whether a file passes the preprocessor. That one does not is no news, so it is quiet.
    fn compiles(file: &str) -> bool {
        let mut build = shim();
        build.cargo_warnings(false).cargo_output(false).file(file);
        build.try_expand().is_ok()
    }
}
