//! Compiling with cranelift-jit: functions of 64-bit integers, and how to call them.

use super::OS;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, Function, InstBuilder, Signature, UserFuncName, Value, condcodes::IntCC,
    types::I64,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, default_libcall_names};
use hostmem::{
    jit::Mapping,
    page::PageRange,
    provider::{DualMapProvider, PageProvider},
};
use hostmem_cranelift::{CraneliftConfig, CraneliftMemory};

pub(super) type Unary = extern "C" fn(i64) -> i64;
pub(super) type Binary = extern "C" fn(i64, i64) -> i64;

/// A module over hostmem memory, and where that memory lies.
pub(super) struct Jit {
    pub(super) module: JITModule,
    pub(super) region: PageRange,
}

impl Jit {
    pub(super) fn new(mapping: Mapping) -> Self {
        Self::over(OS, CraneliftConfig::new().mapping(mapping))
    }

    pub(super) fn over<P: PageProvider + DualMapProvider + 'static>(
        p: P,
        config: CraneliftConfig,
    ) -> Self {
        let memory = CraneliftMemory::on(p, config).expect("addresses");
        let region = memory.region().expect("reserved just now");
        let mut builder = JITBuilder::new(default_libcall_names()).expect("a known CPU");
        builder.symbol("host_triple", (host_triple as *const ()).cast());
        builder.memory_provider(Box::new(memory));
        let module = JITModule::new(builder);
        Self { module, region }
    }

    pub(super) fn signature(&self, arguments: usize) -> Signature {
        let mut signature = self.module.make_signature();
        signature.params.resize(arguments, AbiParam::new(I64));
        signature.returns.push(AbiParam::new(I64));
        signature
    }

    pub(super) fn declare(&mut self, name: &str, linkage: Linkage, arguments: usize) -> FuncId {
        let signature = self.signature(arguments);
        let id = self.module.declare_function(name, linkage, &signature);
        id.expect("declared once")
    }

    /// Compiles a function whose result `build` computes from its arguments.
    pub(super) fn define(
        &mut self,
        name: &str,
        arguments: usize,
        build: impl FnOnce(&mut JITModule, &mut FunctionBuilder<'_>, &[Value]) -> Value,
    ) -> FuncId {
        let id = self.declare(name, Linkage::Export, arguments);
        let mut context = self.module.make_context();
        context.func =
            Function::with_name_signature(UserFuncName::default(), self.signature(arguments));
        let frontend = self.module.target_config();
        let mut reused = FunctionBuilderContext::new();
        let mut function = FunctionBuilder::new(&mut context.func, &mut reused);
        let block = function.create_block();
        function.append_block_params_for_function_params(block);
        function.switch_to_block(block);
        let arguments = function.block_params(block).to_vec();
        let result = build(&mut self.module, &mut function, &arguments);
        function.ins().return_(&[result]);
        function.seal_all_blocks();
        function.finalize(frontend);
        self.module
            .define_function(id, &mut context)
            .expect("compiled");
        id
    }

    pub(super) fn define_data(
        &mut self,
        name: &str,
        writable: bool,
        data: &DataDescription,
    ) -> DataId {
        let id = self
            .module
            .declare_data(name, Linkage::Local, writable, false);
        let id = id.expect("declared once");
        self.module.define_data(id, data).expect("memory");
        id
    }

    pub(super) fn finalize(&mut self) {
        self.module.finalize_definitions().expect("finalized");
    }

    pub(super) fn address(&self, id: FuncId) -> *const u8 {
        self.module.get_finalized_function(id)
    }

    pub(super) fn unary(&self, id: FuncId) -> Unary {
        // SAFETY: compiled with this signature, for this host; every test calls before it frees.
        unsafe { core::mem::transmute(self.address(id)) }
    }

    pub(super) fn binary(&self, id: FuncId) -> Binary {
        // SAFETY: compiled with this signature, for this host; every test calls before it frees.
        unsafe { core::mem::transmute(self.address(id)) }
    }

    pub(super) fn free(self) {
        // SAFETY: the tests that call this call no functions afterwards.
        unsafe { self.module.free_memory() };
    }
}

extern "C" fn host_triple(n: i64) -> i64 {
    n * 3
}

pub(super) fn call_of(
    module: &mut JITModule,
    function: &mut FunctionBuilder<'_>,
    id: FuncId,
    arguments: &[Value],
) -> Value {
    let callee = module.declare_func_in_func(id, function.func);
    let call = function.ins().call(callee, arguments);
    function.inst_results(call)[0]
}

/// `add(a, b)`.
pub(super) fn define_add(jit: &mut Jit, name: &str) -> FuncId {
    jit.define(name, 2, |_, f, arguments| {
        f.ins().iadd(arguments[0], arguments[1])
    })
}

/// The sum of 1 to n, by a loop that calls `add`.
pub(super) fn define_sum(jit: &mut Jit, add: FuncId) -> FuncId {
    jit.define("sum", 1, |module, f, arguments| {
        let (head, body, done) = (f.create_block(), f.create_block(), f.create_block());
        for block in [head, body] {
            f.append_block_param(block, I64);
            f.append_block_param(block, I64);
        }
        f.append_block_param(done, I64);
        let zero = f.ins().iconst(I64, 0);
        f.ins()
            .jump(head, &[BlockArg::Value(arguments[0]), zero.into()]);
        f.switch_to_block(head);
        let [n, sum] = [f.block_params(head)[0], f.block_params(head)[1]];
        let more = f.ins().icmp_imm_s(IntCC::SignedGreaterThan, n, 0);
        f.ins()
            .brif(more, body, &[n.into(), sum.into()], done, &[sum.into()]);
        f.switch_to_block(body);
        let [n, sum] = [f.block_params(body)[0], f.block_params(body)[1]];
        let sum = call_of(module, f, add, &[sum, n]);
        let n = f.ins().iadd_imm_s(n, -1);
        f.ins().jump(head, &[n.into(), sum.into()]);
        f.switch_to_block(done);
        f.block_params(done)[0]
    })
}

/// The address of a data object, as code sees it.
pub(super) fn data_address(
    module: &mut JITModule,
    f: &mut FunctionBuilder<'_>,
    id: DataId,
) -> Value {
    let value = module.declare_data_in_func(id, f.func);
    f.ins().symbol_value(I64, value)
}
