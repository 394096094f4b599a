//! A function that is replaced a hundred times while four threads call it.
//!
//! ```text
//! cargo run --release --example replace
//! ```

use hostmem::{FuncCell, JitConfig, JitRuntime, RetireConfig, RetireQueue};
use std::thread;

fn code(returns: u8) -> Vec<u8> {
    if cfg!(target_arch = "aarch64") {
        let words = [0x5280_0000 | u32::from(returns) << 5, 0xd65f_03c0];
        return words.map(u32::to_le_bytes).concat(); // mov w0, returns; ret
    }
    vec![0xb8, returns, 0, 0, 0, 0xc3] // mov eax, returns; ret
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = JitRuntime::new(JitConfig::new())?;
    let queue = RetireQueue::new(runtime.allocator(), RetireConfig::new())?;
    // SAFETY: it is a function of this type, and does no harm.
    let cell = unsafe { FuncCell::new(&queue, runtime.add(&code(0))?)? };
    let call_until_100 = |cell: &FuncCell<'_, extern "C" fn() -> u32>| {
        let mut me = queue.register().expect("there is room for 64");
        while cell.get(&mut me).expect("it is of this queue").call() != 100 {
            me.quiescent();
        }
    };
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| call_until_100(&cell))));
        for n in 1..=100 {
            // SAFETY: it is a function of this type, and does no harm.
            unsafe { cell.replace(runtime.add(&code(n))?)? };
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    println!("released {} functions", queue.reclaim().spans);
    Ok(())
}
