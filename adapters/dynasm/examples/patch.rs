//! Assembles a function, calls it, and assembles a patch over it.
//!
//! ```text
//! cargo run -p hostmem-dynasm --example patch
//! ```

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use dynasmrt::{DynasmApi, dynasm};
    use hostmem::{Func, JitConfig, JitRuntime};
    use hostmem_dynasm::HostAssembler;

    let runtime = JitRuntime::new(JitConfig::new())?;
    let mut ops = HostAssembler::new();
    dynasm!(ops ; .arch x64 ; mov eax, 1 ; ret);
    let mut function = ops.finish(&runtime)?;
    // SAFETY: it is a whole function of this type, and does no harm.
    let before: Func<'_, extern "C" fn() -> i32> = unsafe { runtime.typed(&function)? };
    println!("before: {}", before.call());
    dynasm!(ops ; .arch x64 ; mov eax, 2);
    ops.patch(&runtime, &mut function, 0)?;
    // SAFETY: it is still a whole function of this type, which returns another number and does no
    // harm.
    let after: Func<'_, extern "C" fn() -> i32> = unsafe { runtime.typed(&function)? };
    println!("after: {}", after.call());
    Ok(())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("this example assembles for x86-64 Linux");
}
