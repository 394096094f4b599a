// A function for x86-64 that Xbyak assembles, in pages of hostmem that are writable or executable,
// and never both.
//
//   c++ -std=c++17 xbyak.cpp $(pkg-config --cflags --libs hostmem) -o xbyak
#include <cstdio>
#include <hostmem.hpp>
#include <hostmem/xbyak.hpp>

struct sum : Xbyak::CodeGenerator {
    explicit sum(Xbyak::Allocator &allocator)
        : CodeGenerator(4096, Xbyak::DontSetProtectRWE, &allocator) {
        lea(eax, ptr[rdi + rsi]);
        ret();
        setProtectModeRE();
    }
};

int main() {
    try {
        const hostmem::jit jit = hostmem::jit::create(hostmem::xbyak_allocator::config());
        hostmem::xbyak_allocator allocator(jit);
        int result = 0;
        {
            const sum code(allocator);
            result = code.getCode<int (*)(int, int)>()(40, 2);
            std::printf("40 + 2 = %d, spans: %u\n", result,
                        static_cast<unsigned>(jit.statistics().spans));
        }
        // The generator has freed its pages.
        return result == 42 && jit.statistics().spans == 0 ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
