// A function for x86-64 that AsmJit assembles, in executable memory of hostmem.
//
//   c++ -std=c++17 asmjit.cpp $(pkg-config --cflags --libs hostmem) -lasmjit -lrt -o asmjit
#include <asmjit/core.h>
#include <asmjit/x86.h>
#include <cstdio>
#include <hostmem.hpp>
#include <hostmem/asmjit.hpp>

int main() {
    std::error_code code;
    const hm_jit_config config = HM_JIT_CONFIG_INIT;
    const hostmem::jit jit = hostmem::jit::create(config, code);
    if (code) {
        std::fprintf(stderr, "no executable memory: %s\n", code.message().c_str());
        return 1;
    }
    hostmem::asmjit_runtime runtime(jit);

    asmjit::CodeHolder holder;
    holder.init(runtime.environment());
    asmjit::x86::Assembler assembler(&holder);
    assembler.lea(asmjit::x86::eax, asmjit::x86::ptr(asmjit::x86::rdi, asmjit::x86::rsi));
    assembler.ret();

    int (*sum)(int, int) = nullptr;
    const asmjit::Error error = runtime.add(&sum, &holder);
    if (error != asmjit::kErrorOk) {
        std::fprintf(stderr, "AsmJit's error %u\n", static_cast<unsigned>(error));
        return 1;
    }
    const int result = sum(40, 2);
    std::printf("40 + 2 = %d\n", result);
    return runtime.release(sum) == asmjit::kErrorOk && result == 42 ? 0 : 1;
}
