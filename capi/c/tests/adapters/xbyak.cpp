// Xbyak's code in executable memory of hostmem, with exceptions and without.
#include "../programs/check.h"
#include <cstdint>
#include <hostmem/xbyak.hpp>
#include <memory>
#include <vector>

#ifdef XBYAK_NO_EXCEPTION
#define FAILS(error, call)                                                                         \
    do {                                                                                           \
        Xbyak::ClearError();                                                                       \
        call;                                                                                      \
        CHECK(Xbyak::GetError() == (error));                                                       \
        Xbyak::ClearError();                                                                       \
    } while (0)
#else
#define FAILS(error, call)                                                                         \
    do {                                                                                           \
        int thrown_ = 0;                                                                           \
        try {                                                                                      \
            call;                                                                                  \
        } catch (const Xbyak::Error &e) {                                                          \
            thrown_ = e;                                                                           \
        }                                                                                          \
        CHECK(thrown_ == (error));                                                                 \
    } while (0)
#endif

// Functions that return a number, one behind the other.
struct numbers : Xbyak::CodeGenerator {
    numbers(Xbyak::Allocator &allocator, void *how, int first, int count, std::size_t size = 4096)
        : CodeGenerator(size, how, &allocator) {
        for (int n = 0; n < count; n++) {
            align(16);
            mov(eax, first + n);
            ret();
        }
    }
    int at(int n) const { return static_cast<int>(run(getCode() + 16 * n)); }
};

static hostmem::jit make(const hm_jit_config &config) {
    std::error_code code;
    hostmem::jit jit = hostmem::jit::create(config, code);
    CHECK(jit && !code);
    return jit;
}

// What the process map says of an address, "rwx".
static std::string access(const void *address) {
    FILE *maps = std::fopen("/proc/self/maps", "r");
    CHECK(maps != nullptr);
    char line[4096];
    std::string found;
    while (std::fgets(line, sizeof line, maps) != nullptr) {
        std::uintptr_t first = 0, end = 0;
        char rights[5] = {};
        CHECK(std::sscanf(line, "%lx-%lx %4s", &first, &end, rights) == 3);
        const auto at = reinterpret_cast<std::uintptr_t>(address);
        if (first <= at && at < end) {
            found.assign(rights, 3);
        }
    }
    std::fclose(maps);
    return found;
}

static void generates(const hm_jit_config &config) {
    const bool toggles = config.mapping == HM_MAPPING_TOGGLE;
    const hostmem::jit jit = make(config);
    std::error_code code;
    hostmem::xbyak_allocator allocator(jit, code);
    CHECK(!code && allocator.get() == jit.get() && allocator.useProtect() == toggles);
    // Twice, as the pages are used again.
    for (int round = 0; round < 2; round++) {
        std::vector<std::unique_ptr<numbers>> all;
        for (int n = 0; n < 20; n++) {
            all.push_back(std::make_unique<numbers>(allocator, nullptr, n, 1));
            CHECK(access(all.back()->getCode()) == "rwx");
            all.push_back(std::make_unique<numbers>(allocator, Xbyak::DontSetProtectRWE, n, 1));
            numbers &sealed = *all.back();
            CHECK(access(sealed.getCode()) == (toggles ? "rw-" : "rwx"));
            CHECK(sealed.setProtectModeRE() && access(sealed.getCode()) == "r-x");
        }
        CHECK(jit.statistics().spans == 40);
        for (int n = 0; n < 20; n++) {
            CHECK(all[2 * n]->at(0) == n && all[2 * n + 1]->at(0) == n);
        }
        // Other spans lie in pages of their own, whatever has become of these.
        hm_span other = {};
        OK(hm_jit_alloc(jit.get(), ANSWER_MOST, &other, nullptr));
        unsigned char bytes[ANSWER_MOST];
        OK(hm_jit_write(jit.get(), &other, 0, bytes, ::answer(bytes, 77), nullptr));
        CHECK(run(other.rx) == 77);
        OK(hm_jit_release(jit.get(), &other, nullptr));
    }
    CHECK(jit.statistics().spans == 0);
}

// Blocks move while they grow.
static void grows(const hm_jit_config &config) {
    const hostmem::jit jit = make(config);
    std::error_code code;
    hostmem::xbyak_allocator allocator(jit, code);
    {
        numbers code_(allocator, Xbyak::AutoGrow, 100, 3000, 16);
        code_.readyRE();
        for (int n = 0; n < 3000; n++) {
            CHECK(code_.at(n) == 100 + n);
        }
        CHECK(jit.statistics().spans == 1);
        if (config.mapping == HM_MAPPING_TOGGLE) {
            CHECK(access(code_.getCode()) == "r-x");
        }
    }
    CHECK(jit.statistics().spans == 0);
}

static void refuses_two_views() {
    const hm_jit_config config = HM_JIT_CONFIG_INIT;
    const hostmem::jit dual = make(config);
    std::error_code code;
    hostmem::xbyak_allocator none(dual, code);
    CHECK(code == HM_UNSUPPORTED && none.get() == nullptr);
    FAILS(Xbyak::ERR_CANT_ALLOC, none.alloc(1));
    const hostmem::jit nothing;
    hostmem::xbyak_allocator of_nothing(nothing, code);
    CHECK(code == HM_INVALID_ARGUMENT);
#ifdef HOSTMEM_EXCEPTIONS
    std::string said;
    try {
        hostmem::xbyak_allocator thrown(dual);
    } catch (const hostmem::error &e) {
        CHECK(e.code() == HM_UNSUPPORTED && e.details().status == HM_UNSUPPORTED);
        said = e.what();
    }
    CHECK(said.find("HM_MAPPING_DUAL") != std::string::npos);
#endif
}

static void fails_as_xbyak_does() {
    hm_jit_config config = hostmem::xbyak_allocator::config();
    config.block_size = 64 << 10;
    config.limit = 64 << 10;
    const hostmem::jit small = make(config);
    std::error_code code;
    hostmem::xbyak_allocator allocator(small, code);
    FAILS(Xbyak::ERR_CANT_ALLOC, allocator.alloc(1 << 20));
    FAILS(Xbyak::ERR_CANT_ALLOC, allocator.alloc(SIZE_MAX));
    FAILS(Xbyak::ERR_CANT_ALLOC, allocator.alloc(SIZE_MAX - 4096));
    std::uint8_t *block = allocator.alloc(1);
    CHECK(block != nullptr && reinterpret_cast<std::uintptr_t>(block) % 4096 == 0);
    FAILS(Xbyak::ERR_BAD_PARAMETER, allocator.free(block + 1));
    std::uint8_t local = 0;
    FAILS(Xbyak::ERR_BAD_PARAMETER, allocator.free(&local));
    FAILS(0, allocator.free(nullptr));
    FAILS(0, allocator.free(block));
    FAILS(Xbyak::ERR_BAD_PARAMETER, allocator.free(block));
    // As many pages as there are, and no more; all of them serve again.
    for (int round = 0; round < 2; round++) {
        std::vector<std::uint8_t *> blocks;
        for (int n = 0; n < 16; n++) {
            blocks.push_back(allocator.alloc(4096));
            memset(blocks.back(), 0xcc, 4096);
        }
        FAILS(Xbyak::ERR_CANT_ALLOC, allocator.alloc(1));
        for (std::uint8_t *each : blocks) {
            allocator.free(each);
        }
    }
    // A generator that gets nothing frees nothing.
    FAILS(Xbyak::ERR_CANT_ALLOC, Xbyak::CodeArray(1 << 20, nullptr, &allocator));
    CHECK(small.statistics().spans == 0);
}

int main() {
    for (const hm_mapping mapping : {HM_MAPPING_TOGGLE, HM_MAPPING_READ_WRITE_EXEC}) {
        hm_jit_config config = hostmem::xbyak_allocator::config(mapping);
        generates(config);
        grows(config);
        // And beside spans that are shorter than pages.
        config = HM_JIT_CONFIG_INIT;
        config.mapping = mapping;
        generates(config);
        grows(config);
    }
    refuses_two_views();
    fails_as_xbyak_does();
    puts("all hold");
    return 0;
}
