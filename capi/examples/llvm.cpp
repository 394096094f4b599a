// A module that LLVM compiles, in memory of hostmem: its code and constants in executable memory,
// its data in a heap within reach.
//
//   c++ -std=c++17 llvm.cpp $(pkg-config --cflags --libs hostmem) -o llvm
//
// with what llvm-config --cppflags --ldflags --libs core orcjit native says.
#include <cstdio>
#include <hostmem.hpp>
#include <hostmem/llvm.hpp>
#include <llvm/Config/llvm-config.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/ExecutionEngine/Orc/ObjectLinkingLayer.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/Support/TargetSelect.h>

namespace orc = llvm::orc;

// Makes a function that adds two numbers, and the number of times that it was called before.
static orc::ThreadSafeModule sum() {
    auto context = std::make_unique<llvm::LLVMContext>();
    auto module = std::make_unique<llvm::Module>("sum", *context);
    llvm::IRBuilder<> builder(*context);
    llvm::Type *i32 = builder.getInt32Ty();
    auto *calls = new llvm::GlobalVariable(*module, i32, false, llvm::GlobalValue::InternalLinkage,
                                           builder.getInt32(0), "calls");
    auto *function =
        llvm::Function::Create(llvm::FunctionType::get(i32, {i32, i32}, false),
                               llvm::GlobalValue::ExternalLinkage, "sum", module.get());
    builder.SetInsertPoint(llvm::BasicBlock::Create(*context, "", function));
    llvm::Value *before = builder.CreateLoad(i32, calls);
    builder.CreateStore(builder.CreateAdd(before, builder.getInt32(1)), calls);
    llvm::Value *both = builder.CreateAdd(function->getArg(0), function->getArg(1));
    builder.CreateRet(builder.CreateAdd(both, before));
    return orc::ThreadSafeModule(std::move(module), std::move(context));
}

static llvm::Error run(hostmem::llvm_memory_manager &manager, int &result) {
    auto machine = orc::JITTargetMachineBuilder::detectHost();
    if (!machine) {
        return machine.takeError();
    }
    machine->setRelocationModel(llvm::Reloc::PIC_);
    machine->setCodeModel(llvm::CodeModel::Small);
    orc::LLJITBuilder builder;
    builder.setJITTargetMachineBuilder(std::move(*machine));
    // LLVM 21 leaves the triple out.
    builder.setObjectLinkingLayerCreator([&](orc::ExecutionSession &session, auto &&...) {
        return std::make_unique<orc::ObjectLinkingLayer>(session, manager);
    });
    auto jit = builder.create();
    if (!jit) {
        return jit.takeError();
    }
    if (llvm::Error error = (*jit)->addIRModule(sum())) {
        return error;
    }
    auto symbol = (*jit)->lookup("sum");
    if (!symbol) {
        return symbol.takeError();
    }
#if LLVM_VERSION_MAJOR >= 15
    const auto function = symbol->toPtr<int (*)(int, int)>();
#else
    const auto function = reinterpret_cast<int (*)(int, int)>(symbol->getAddress());
#endif
    function(1, 1);
    result = function(39, 2);
    return llvm::Error::success();
}

int main() {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    std::error_code code;
    const hostmem::llvm_memory memory = hostmem::llvm_memory::create(code);
    if (code) {
        std::fprintf(stderr, "no memory: %s\n", code.message().c_str());
        return 1;
    }
    hostmem::llvm_memory_manager manager(memory);
    int result = 0;
    if (llvm::Error error = run(manager, result)) {
        std::fprintf(stderr, "%s\n", llvm::toString(std::move(error)).c_str());
        return 1;
    }
    // LLVM has freed what it linked.
    const auto spans = memory.code().statistics().spans;
    std::printf("39 + 2 + 1 = %d, spans left: %u\n", result, static_cast<unsigned>(spans));
    return result == 42 && spans == 0 ? 0 : 1;
}
