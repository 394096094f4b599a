// What the test of the adapters for LLVM links: names that versions have changed, and modules.
#ifndef LLVM_MODULES_H
#define LLVM_MODULES_H

#include "../programs/check.h"
#include <hostmem/llvm.hpp>
#include <llvm/AsmParser/Parser.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/ExecutionEngine/JITLink/EHFrameSupport.h>
#include <llvm/ExecutionEngine/Orc/CompileUtils.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/ExecutionEngine/Orc/ObjectLinkingLayer.h>
#include <llvm/ExecutionEngine/Orc/RTDyldObjectLinkingLayer.h>
#include <llvm/Support/SourceMgr.h>
#include <llvm/Support/TargetSelect.h>
#if LLVM_VERSION_MAJOR >= 17
#include <llvm/TargetParser/Host.h>
#endif
#include <string>

namespace jitlink = llvm::jitlink;
namespace orc = llvm::orc;

// What other versions call the same.
#if LLVM_VERSION_MAJOR >= 16
using memory_access = orc::MemProt;
using group = orc::AllocGroup;
#else
using memory_access = jitlink::MemProt;
using group = jitlink::AllocGroup;
#endif
#if LLVM_VERSION_MAJOR >= 18
constexpr auto temporary = orc::MemLifetime::Finalize;
#elif LLVM_VERSION_MAJOR == 17
constexpr auto temporary = orc::MemLifetimePolicy::Finalize;
#elif LLVM_VERSION_MAJOR == 16
constexpr auto temporary = orc::MemDeallocPolicy::Finalize;
#else
constexpr auto temporary = jitlink::MemDeallocPolicy::Finalize;
#endif
#if LLVM_VERSION_MAJOR >= 15
#define INT_POINTER "ptr"
#else
#define INT_POINTER "i32*"
#endif

static memory_access both(memory_access a, memory_access b) {
    return static_cast<memory_access>(static_cast<int>(a) | static_cast<int>(b));
}

static const auto reads = memory_access::Read;
static const auto executes = both(reads, memory_access::Exec);
static const auto writes = both(reads, memory_access::Write);
static const auto all = both(executes, memory_access::Write);

// Ends the test where LLVM reports an error.
template <class T> static T fine(llvm::Expected<T> result) {
    if (!result) {
        fprintf(stderr, "%s\n", llvm::toString(result.takeError()).c_str());
        exit(1);
    }
    return std::move(*result);
}
static void fine(llvm::Error error) {
    if (error) {
        fprintf(stderr, "%s\n", llvm::toString(std::move(error)).c_str());
        exit(1);
    }
}

// A module that calls the one before, with code, constants, data and zeros.
static std::unique_ptr<llvm::Module> module(llvm::LLVMContext &context, int number) {
    const std::string n = std::to_string(number), previous = std::to_string(number - 1);
    std::string text = "@counter" + n + " = global i32 " + n + "\n";
    text += "@zero" + n + " = global i32 0\n";
    text += "@table" + n + " = constant [4 x i32] [i32 1, i32 20, i32 300, i32 4000]\n";
    if (number > 0) {
        text += "declare i32 @f" + previous + "(i32)\n";
    }
    text += "define i32 @f" + n + "(i32 %index) uwtable {\n";
    text += "  %old = load i32, " INT_POINTER " @counter" + n + "\n";
    text += "  %new = add i32 %old, 1\n";
    text += "  store i32 %new, " INT_POINTER " @counter" + n + "\n";
    text += "  %at = getelementptr [4 x i32], ";
    text += LLVM_VERSION_MAJOR >= 15 ? "ptr" : "[4 x i32]*";
    text += " @table" + n + ", i32 0, i32 %index\n";
    text += "  %constant = load i32, " INT_POINTER " %at\n";
    text += "  %zero = load i32, " INT_POINTER " @zero" + n + "\n";
    text += "  store i32 5, " INT_POINTER " @zero" + n + "\n";
    text += "  %most = add i32 %old, %constant\n  %sum = add i32 %most, %zero\n";
    if (number > 0 && number % 100 != 0) {
        text += "  %rest = call i32 @f" + previous + "(i32 %index)\n";
        text += "  %both = add i32 %sum, %rest\n";
        text += "  ret i32 %both\n}\n";
    } else {
        text += "  ret i32 %sum\n}\n";
    }
    llvm::SMDiagnostic error;
    auto parsed = llvm::parseAssemblyString(text, error, context);
    if (parsed == nullptr) {
        fprintf(stderr, "%s\n", error.getMessage().str().c_str());
        exit(1);
    }
    return parsed;
}

// What the function of that module returns when it is called for the first time.
static int expected(int number) {
    int sum = 0;
    for (int n = number;; n--) {
        sum += n + 20;
        if (n % 100 == 0) {
            return sum;
        }
    }
}

static orc::JITTargetMachineBuilder host() {
    auto machine = fine(orc::JITTargetMachineBuilder::detectHost());
    machine.setRelocationModel(llvm::Reloc::PIC_);
    machine.setCodeModel(llvm::CodeModel::Small);
    return machine;
}

using layer_fn = std::function<std::unique_ptr<orc::ObjectLayer>(orc::ExecutionSession &)>;

static std::unique_ptr<orc::LLJIT> jit(layer_fn layer) {
    orc::LLJITBuilder builder;
    builder.setJITTargetMachineBuilder(host());
#if LLVM_VERSION_MAJOR >= 21
    builder.setObjectLinkingLayerCreator([=](orc::ExecutionSession &s) { return layer(s); });
#else
    builder.setObjectLinkingLayerCreator(
        [=](orc::ExecutionSession &s, const llvm::Triple &) { return layer(s); });
#endif
    return fine(builder.create());
}

static layer_fn links_by(jitlink::JITLinkMemoryManager &manager) {
    return [&manager](orc::ExecutionSession &session) {
        auto layer = std::make_unique<orc::ObjectLinkingLayer>(session, manager);
#if LLVM_VERSION_MAJOR < 20
        layer->addPlugin(std::make_unique<orc::EHFrameRegistrationPlugin>(
            session, std::make_unique<jitlink::InProcessEHFrameRegistrar>()));
#endif
        return layer;
    };
}

static int (*find(orc::LLJIT &jit, const char *name))(int) {
    auto symbol = fine(jit.lookup(name));
#if LLVM_VERSION_MAJOR >= 15
    return symbol.toPtr<int (*)(int)>();
#else
    return reinterpret_cast<int (*)(int)>(symbol.getAddress());
#endif
}

using object_files = std::vector<std::unique_ptr<llvm::MemoryBuffer>>;

// Compiled modules, which both managers are given.
static object_files compiled(int count) {
    llvm::LLVMContext context;
    auto machine = fine(host().createTargetMachine());
    orc::SimpleCompiler compile(*machine);
    object_files objects;
    for (int n = 0; n < count; n++) {
        auto parsed = module(context, n);
        parsed->setDataLayout(machine->createDataLayout());
        parsed->setTargetTriple(llvm::Triple(machine->getTargetTriple())
#if LLVM_VERSION_MAJOR < 21
                                    .str()
#endif
        );
        objects.push_back(fine(compile(*parsed)));
    }
    return objects;
}

static void add(orc::LLJIT &jit, const llvm::MemoryBuffer &object) {
    fine(jit.addObjectFile(llvm::MemoryBuffer::getMemBuffer(object.getMemBufferRef(), false)));
}

#endif
