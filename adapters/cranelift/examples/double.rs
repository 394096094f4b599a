//! Compiles a function with cranelift-jit into hostmem memory, and calls it.
//!
//! ```text
//! cargo run -p hostmem-cranelift --example double
//! ```

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use cranelift_codegen::ir::{AbiParam, InstBuilder, types::I64};
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
    use cranelift_jit::{JITBuilder, JITModule};
    use cranelift_module::{Linkage, Module, default_libcall_names};
    use hostmem_cranelift::{CraneliftConfig, CraneliftMemory};

    let memory = CraneliftMemory::new(CraneliftConfig::new())?;
    let mut builder = JITBuilder::new(default_libcall_names())?;
    builder.memory_provider(Box::new(memory));
    let mut module = JITModule::new(builder);

    let mut context = module.make_context();
    context.func.signature.params.push(AbiParam::new(I64));
    context.func.signature.returns.push(AbiParam::new(I64));
    let double = module.declare_function("double", Linkage::Local, &context.func.signature)?;
    let mut reused = FunctionBuilderContext::new();
    let mut function = FunctionBuilder::new(&mut context.func, &mut reused);
    let block = function.create_block();
    function.append_block_params_for_function_params(block);
    function.switch_to_block(block);
    let argument = function.block_params(block)[0];
    let sum = function.ins().iadd(argument, argument);
    function.ins().return_(&[sum]);
    function.seal_all_blocks();
    function.finalize(module.target_config());
    module.define_function(double, &mut context)?;
    module.finalize_definitions()?;

    let code = module.get_finalized_function(double);
    // SAFETY: it was compiled for this type and this host, and the module's memory is still there.
    let double: extern "C" fn(i64) -> i64 = unsafe { core::mem::transmute(code) };
    println!("{}", double(21));
    // SAFETY: the function is not called after this.
    unsafe { module.free_memory() };
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this example compiles on Linux");
}
