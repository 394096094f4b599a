// AsmJit's code in executable memory of hostmem.
#include "../programs/check.h"
#include <asmjit/core.h>
#include <asmjit/x86.h>
#include <cstdint>
#include <hostmem/asmjit.hpp>
#include <vector>

namespace x86 = asmjit::x86;

// The names are those of 1.18 and newer.
#if ASMJIT_LIBRARY_VERSION >= 0x011200
#define ERROR(name) asmjit::Error::k##name
#define OUT(place) asmjit::Out(place)
#else
#define ERROR(name) asmjit::kError##name
#define OUT(place) &place
#define embed_int32 embedInt32
#define embed_label embedLabel
#define new_label newLabel
#define new_section newSection
#define set_virtual_size setVirtualSize
#endif
#define FINE(call) CHECK((call) == ERROR(Ok))

using number_fn = int (*)();

static hostmem::jit make(hm_jit_config config) {
    std::error_code code;
    hostmem::jit jit = hostmem::jit::create(config, code);
    CHECK(jit && !code);
    return jit;
}

static hostmem::jit make(hm_mapping mapping) {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.mapping = mapping;
    return make(config);
}

// Adds a function that returns a number.
static asmjit::Error add(asmjit::JitRuntime &runtime, int number, number_fn *to) {
    asmjit::CodeHolder holder;
    FINE(holder.init(runtime.environment()));
    x86::Assembler a(&holder);
    FINE(a.mov(x86::eax, number));
    FINE(a.ret());
    return runtime.add(to, &holder);
}

// Whoever has a reference to AsmJit's class calls this one.
static void places_and_releases(hm_mapping mapping) {
    const hostmem::jit jit = make(mapping);
    hostmem::asmjit_runtime runtime(jit);
    asmjit::JitRuntime &base = runtime;
    std::vector<number_fn> functions;
    for (int n = 0; n < 1000; n++) {
        number_fn function = nullptr;
        FINE(add(base, n, &function));
        functions.push_back(function);
    }
    CHECK(jit.statistics().spans == 1000);
    for (int n = 0; n < 1000; n++) {
        CHECK(functions[n]() == n);
        hm_live live = {};
        CHECK(jit.query(reinterpret_cast<void *>(functions[n]), live));
        CHECK((live.span.rw != live.span.rx) == (mapping == HM_MAPPING_DUAL));
        FINE(base.release(functions[n]));
        CHECK(!jit.query(reinterpret_cast<void *>(functions[n]), live));
    }
    CHECK(jit.statistics().spans == 0);
}

static void refuses_what_is_no_code() {
    const hostmem::jit jit = make(HM_MAPPING_DUAL);
    hostmem::asmjit_runtime runtime(jit);
    number_fn function = nullptr;
    FINE(add(runtime, 7, &function));
    char *inside = reinterpret_cast<char *>(function) + 1;
    int local = 0;
    CHECK(runtime.release(inside) == ERROR(InvalidState));
    CHECK(runtime.release(&local) == ERROR(InvalidState));
    CHECK(runtime.release(static_cast<void *>(nullptr)) == ERROR(InvalidArgument));
    CHECK(function() == 7);
    FINE(runtime.release(function));
    CHECK(runtime.release(function) == ERROR(InvalidState));

    asmjit::CodeHolder empty;
    FINE(empty.init(runtime.environment()));
    CHECK(runtime.add(&function, &empty) == ERROR(NoCodeGenerated) && function == nullptr);
    CHECK(jit.statistics().spans == 0);
}

static void tells_why_there_is_no_memory() {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.limit = 64 << 10;
    config.block_size = 64 << 10;
    const hostmem::jit small = make(config);
    hostmem::asmjit_runtime runtime(small);
    number_fn function = nullptr;
    asmjit::Error error = ERROR(Ok);
    for (int n = 0; error == ERROR(Ok); n++) {
        CHECK(n < 64 << 10);
        error = add(runtime, n, &function);
        CHECK((error == ERROR(Ok)) == (function != nullptr));
    }
    CHECK(error == ERROR(OutOfMemory));
    // What was there is released at once.
    FINE(runtime.reset(asmjit::ResetPolicy::kHard));
    CHECK(small.statistics().spans == 0 && small.statistics().reserved == 0);
    FINE(add(runtime, 3, &function));
    CHECK(function() == 3);
    FINE(runtime.reset());

    hostmem::asmjit_runtime none{hostmem::jit()};
    CHECK(add(none, 1, &function) == ERROR(InvalidArgument) && function == nullptr);
}

// A label that is never bound is an error of AsmJit's, after which no memory is held.
static void gives_back_what_cannot_be_relocated() {
    const hostmem::jit jit = make(HM_MAPPING_DUAL);
    hostmem::asmjit_runtime runtime(jit);
    asmjit::CodeHolder holder;
    FINE(holder.init(runtime.environment()));
    x86::Assembler a(&holder);
    const asmjit::Label nowhere = a.new_label();
    FINE(a.embed_label(nowhere));
    number_fn function = nullptr;
    CHECK(runtime.add(&function, &holder) != ERROR(Ok) && function == nullptr);
    CHECK(jit.statistics().spans == 0);
}

static int far_function() { return 99; }

// Sections, their alignment, zeros behind what is stored, and calls through AsmJit's table.
static void has_sections() {
    const hostmem::jit jit = make(HM_MAPPING_DUAL);
    hostmem::asmjit_runtime runtime(jit);
    // Memory that was used before is not zero.
    hm_span used = {};
    OK(hm_jit_alloc(jit.get(), 60000, &used, nullptr));
    memset(used.rw, 0xcc, used.len);
    OK(hm_jit_release(jit.get(), &used, nullptr));

    asmjit::CodeHolder holder;
    FINE(holder.init(runtime.environment()));
    asmjit::Section *data = nullptr;
    FINE(holder.new_section(OUT(data), "data", SIZE_MAX, asmjit::SectionFlags::kNone, 1024));
    data->set_virtual_size(4096);
    x86::Assembler a(&holder);
    const asmjit::Label table = a.new_label();
    FINE(a.lea(x86::rdx, x86::ptr(table)));
    FINE(a.mov(x86::ptr(x86::rdi), x86::rdx));
    FINE(a.sub(x86::rsp, 8));
    FINE(a.call(asmjit::imm(reinterpret_cast<std::uintptr_t>(far_function))));
    FINE(a.add(x86::rsp, 8));
    FINE(a.ret());
    FINE(a.section(data));
    FINE(a.bind(table));
    FINE(a.embed_int32(41));

    int (*function)(const unsigned char **) = nullptr;
    FINE(runtime.add(&function, &holder));
    hm_live live = {};
    CHECK(jit.query(reinterpret_cast<void *>(function), live));
    CHECK(live.span.len < 1024 + 4096 + 512);
    const unsigned char *found = nullptr;
    CHECK(function(&found) == 99);
    CHECK(found == static_cast<unsigned char *>(live.span.rx) + 1024);
    CHECK(reinterpret_cast<std::uintptr_t>(found) % 1024 == 0);
    CHECK(found[0] == 41);
    for (int n = 4; n < 4096; n++) {
        CHECK(found[n] == 0);
    }
    FINE(runtime.release(function));
}

// A call that turns out to be within reach needs no entry of AsmJit's table: the memory of that is
// free again.
static void keeps_no_bytes_that_relocation_saves() {
    const hostmem::jit jit = make(HM_MAPPING_DUAL);
    hostmem::asmjit_runtime runtime(jit);
    number_fn near = nullptr;
    FINE(add(runtime, 5, &near));
    asmjit::CodeHolder holder;
    FINE(holder.init(runtime.environment()));
    x86::Assembler a(&holder);
    for (int n = 0; n < 48; n++) {
        FINE(a.nop());
    }
    FINE(a.sub(x86::rsp, 8));
    FINE(a.call(asmjit::imm(reinterpret_cast<std::uintptr_t>(near))));
    FINE(a.add(x86::rsp, 8));
    FINE(a.ret());
    number_fn function = nullptr;
    FINE(runtime.add(&function, &holder));
    CHECK(function() == 5);
    hm_live live = {};
    CHECK(jit.query(reinterpret_cast<void *>(function), live));
    // Code of up to 64 bytes, and an entry behind them until its address was known.
    CHECK(live.span.len == 64 && jit.statistics().used == 128);
}

int main() {
    places_and_releases(HM_MAPPING_DUAL);
    places_and_releases(HM_MAPPING_TOGGLE);
    refuses_what_is_no_code();
    tells_why_there_is_no_memory();
    gives_back_what_cannot_be_relocated();
    has_sections();
    keeps_no_bytes_that_relocation_saves();
    puts("all hold");
    return 0;
}
