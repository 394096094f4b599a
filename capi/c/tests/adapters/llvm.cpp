// LLVM's code in executable memory of hostmem: segments by themselves, linked modules, and what a
// thousand small modules hold.
#include "llvm_modules.h"
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

static hostmem::llvm_memory make(hm_jit_config config) {
    std::error_code code;
    auto memory =
        hostmem::llvm_memory::create(code, hostmem::llvm_memory::default_addresses, config);
    CHECK(memory && !code);
    return memory;
}

static void is_empty(const hostmem::llvm_memory &memory) {
    CHECK(memory.code().statistics().spans == 0);
    CHECK(memory.data().statistics().used == 0);
}

static llvm::Expected<jitlink::SimpleSegmentAlloc>
segments(hostmem::llvm_memory_manager &manager, jitlink::SimpleSegmentAlloc::SegmentMap wanted) {
#if LLVM_VERSION_MAJOR >= 20
    static auto names = std::make_shared<orc::SymbolStringPool>();
    const llvm::Triple triple(llvm::sys::getProcessTriple());
    return jitlink::SimpleSegmentAlloc::Create(manager, names, triple, nullptr, std::move(wanted));
#else
    return jitlink::SimpleSegmentAlloc::Create(manager, nullptr, std::move(wanted));
#endif
}

static void segments_lie_where_they_are_used(hm_mapping mapping) {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.mapping = mapping;
    const hostmem::llvm_memory memory = make(config);
    hostmem::llvm_memory_manager manager(memory);
    for (int round = 0; round < 2; round++) {
        auto made = fine(segments(manager, {{executes, {40, llvm::Align(16)}},
                                            {reads, {100, llvm::Align(256)}},
                                            {writes, {9, llvm::Align(128)}},
                                            {group(writes, temporary), {50, llvm::Align(8)}},
                                            {group(executes, temporary), {60, llvm::Align(8)}}}));
        CHECK(memory.code().statistics().spans == 2);
        const auto code = made.getSegInfo(executes), constants = made.getSegInfo(reads);
        const auto data = made.getSegInfo(writes);
        unsigned char *answers = reinterpret_cast<unsigned char *>(code.WorkingMem.data());
        CHECK(code.WorkingMem.size() == 40 && code.Addr.getValue() % 16 == 0);
        CHECK(constants.WorkingMem.size() == 100 && constants.Addr.getValue() % 256 == 0);
        CHECK(data.WorkingMem.size() == 9 && data.Addr.getValue() % 128 == 0);
        const char *working = constants.WorkingMem.data();
        CHECK(working != constants.Addr.toPtr<char *>());
        CHECK(data.WorkingMem.data() == data.Addr.toPtr<char *>());
        answer(answers, 1234);
        memset(constants.WorkingMem.data(), 5, 100);
        memset(data.WorkingMem.data(), 6, 9);

        auto finalized = fine(made.finalize());
        CHECK(memory.code().statistics().spans == 1);
        CHECK(run(code.Addr.toPtr<void *>()) == 1234);
        CHECK(constants.Addr.toPtr<char *>()[99] == 5);
        data.Addr.toPtr<char *>()[0] = 7;
        hm_live live = {}, other = {};
        CHECK(memory.code().query(code.Addr.toPtr<void *>(), live));
        CHECK(memory.code().query(constants.Addr.toPtr<void *>(), other));
        CHECK(live.span.number == other.span.number);
        CHECK(!memory.code().query(data.Addr.toPtr<void *>(), other));
        CHECK(memory.data().owns(data.Addr.toPtr<void *>()));
        fine(manager.deallocate(std::move(finalized)));
        is_empty(memory);
    }
    // Given up before it is linked.
    { auto dropped = fine(segments(manager, {{executes, {40, llvm::Align(16)}}})); }
    is_empty(memory);
}

static void tells_why_there_is_no_memory() {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.limit = config.block_size = 64 << 10;
    const hostmem::llvm_memory memory = make(config);
    hostmem::llvm_memory_manager manager(memory);
    const llvm::Align align(16);
    const auto fails = [&](hm_status expected, jitlink::SimpleSegmentAlloc::SegmentMap wanted) {
        auto made = segments(manager, std::move(wanted));
        CHECK(!made);
        CHECK(llvm::errorToErrorCode(made.takeError()) == expected);
        is_empty(memory);
    };
    fails(HM_OUT_OF_MEMORY, {{writes, {100, align}}, {executes, {1 << 20, align}}});
    fails(HM_OUT_OF_MEMORY, {{executes, {100, align}}, {writes, {size_t{1} << 31, align}}});
    fails(HM_UNSUPPORTED, {{all, {100, align}}});

    std::error_code code;
    CHECK(!hostmem::llvm_memory::create(code, size_t{1} << 31) && code == HM_TOO_LARGE);
    config.granularity = 3;
    CHECK(!hostmem::llvm_memory::create(code, 1 << 28, config) && code == HM_INVALID_ARGUMENT);
}

// Modules call each other and what is far away, and their memory goes with them.
static void links_modules(hm_mapping mapping) {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.mapping = mapping;
    const hostmem::llvm_memory memory = make(config);
    hostmem::llvm_memory_manager manager(memory);
    // Twice, as memory that was used before is not zero.
    for (int round = 0; round < 2; round++) {
        const auto session = jit(links_by(manager));
        const auto objects = compiled(50);
        for (const auto &object : objects) {
            add(*session, *object);
        }
        const auto last = find(*session, "f49");
        CHECK(last(1) == expected(49));
        CHECK(last(1) == expected(49) + 50 * 6); // Counters have gone up by one, zeros to five.
        hm_live live = {};
        CHECK(memory.code().query(reinterpret_cast<void *>(last), live));
        CHECK(memory.code().statistics().spans >= 50);
    }
    is_empty(memory);
}

#ifdef HOSTMEM_EXCEPTIONS
#if LLVM_VERSION_MAJOR < 20
static int thrower(int number) { throw number; }

// Frames of linked code are unwound by what lies beside it.
static void exceptions_pass() {
    const hostmem::llvm_memory memory = make(HM_JIT_CONFIG_INIT);
    hostmem::llvm_memory_manager manager(memory);
    const auto session = jit(links_by(manager));
    const std::string address = std::to_string(reinterpret_cast<std::uintptr_t>(thrower));
    const std::string type = LLVM_VERSION_MAJOR >= 15 ? "ptr" : "i32 (i32)*";
    auto context = std::make_unique<llvm::LLVMContext>();
    llvm::SMDiagnostic error;
    auto parsed = llvm::parseAssemblyString(
        "define i32 @passes(i32 %n) uwtable {\n  %f = inttoptr i64 " + address + " to " + type +
            "\n  %r = call i32 %f(i32 %n)\n  %s = add i32 %r, 1\n  ret i32 %s\n}\n",
        error, *context);
    CHECK(parsed != nullptr);
    fine(session->addIRModule(orc::ThreadSafeModule(std::move(parsed), std::move(context))));
    const auto passes = find(*session, "passes");
    int caught = 0;
    try {
        passes(42);
    } catch (int number) {
        caught = number;
    }
    CHECK(caught == 42);
}
#endif
#endif

// Two managers of one mapper, as RuntimeDyld makes one for each module.
static void maps_sections() {
    hostmem::llvm_memory_mapper mapper;
    std::error_code code;
    const auto purpose = llvm::SectionMemoryManager::AllocationPurpose::Code;
    const unsigned written = llvm::sys::Memory::MF_READ | llvm::sys::Memory::MF_WRITE;
    const unsigned runs = llvm::sys::Memory::MF_READ | llvm::sys::Memory::MF_EXEC;
    auto block = mapper.allocateMappedMemory(purpose, 0, nullptr, written, code);
    CHECK(block.base() == nullptr && !code);
    block = mapper.allocateMappedMemory(purpose, 5000, nullptr, written, code);
    CHECK(!code && block.allocatedSize() == 8192);
    char *base = static_cast<char *>(block.base());
    answer(reinterpret_cast<unsigned char *>(base + 4100), 4321);
    // A part of a page stands for all of it.
    CHECK(!mapper.protectMappedMemory(llvm::sys::MemoryBlock(base + 4100, 10), runs));
    CHECK(run(base + 4100) == 4321);
    base[0] = 1;
    CHECK(mapper.protectMappedMemory(block, written | runs) == HM_UNSUPPORTED);
    const llvm::sys::MemoryBlock far_near(&code, 1);
    auto other = mapper.allocateMappedMemory(purpose, 1, &far_near, written, code);
    CHECK(!code && std::abs(static_cast<char *>(other.base()) - base) < ptrdiff_t{1} << 31);
    CHECK(mapper.allocateMappedMemory(purpose, size_t{1} << 40, nullptr, written, code).base() ==
          nullptr);
    CHECK(code == HM_OUT_OF_MEMORY || code == HM_OUT_OF_RANGE);
    CHECK(!mapper.releaseMappedMemory(other) && other.base() == nullptr);
    CHECK(!mapper.releaseMappedMemory(block) && !mapper.releaseMappedMemory(block));

    const auto session = jit([&mapper](orc::ExecutionSession &s) {
#if LLVM_VERSION_MAJOR >= 21
        auto manager = [&mapper](const llvm::MemoryBuffer &) {
#else
        auto manager = [&mapper] {
#endif
            return std::make_unique<llvm::SectionMemoryManager>(&mapper);
        };
        return std::make_unique<orc::RTDyldObjectLinkingLayer>(s, manager);
    });
    const auto objects = compiled(20);
    for (const auto &object : objects) {
        add(*session, *object);
    }
    CHECK(find(*session, "f19")(1) == expected(19));
}

// Resident bytes that are no file's, nor malloc's, which all lies in the heap that a break ends.
static std::size_t resident() {
    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps != nullptr);
    char line[4096];
    bool counts = false;
    std::size_t total = 0, kib = 0, first = 0;
    while (fgets(line, sizeof line, maps) != nullptr) {
        char name[1024] = "";
        if (sscanf(line, "%zx-%*x %*s %*s %*s %*s %1023[^\n]", &first, name) >= 1 &&
            strchr(line, '-') != nullptr && strchr(line, ':') > strchr(line, '-')) {
            counts = name[0] != '/' || strncmp(name, "/memfd:", 7) == 0;
            counts = counts && strcmp(name, "[heap]") != 0 && strcmp(name, "[stack]") != 0;
        } else if (counts && sscanf(line, "Pss: %zu kB", &kib) == 1) {
            total += kib << 10; // A page that is mapped twice counts by halves.
        }
    }
    fclose(maps);
    return total;
}

// Links all modules in a process of its own, and returns by how much resident memory has grown.
template <class Make> static std::size_t held(const object_files &objects, Make make) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    fflush(nullptr);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const auto session = make();
        const std::size_t before = resident();
        for (const auto &object : objects) {
            add(*session, *object);
        }
        for (std::size_t n = 0; n < objects.size(); n++) {
            CHECK(find(*session, ("f" + std::to_string(n)).c_str()) != nullptr);
        }
        const auto last = find(*session, "f999");
        CHECK(last(1) == expected(999));
        const std::size_t grown = resident() - before;
        CHECK(write(ends[1], &grown, sizeof grown) == sizeof grown);
        _exit(0);
    }
    std::size_t grown = 0;
    CHECK(read(ends[0], &grown, sizeof grown) == sizeof grown);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ends[0]);
    close(ends[1]);
    return grown;
}

static void small_modules_share_pages() {
    CHECK(mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_ARENA_MAX, 1) == 1);
    const auto objects = compiled(1000);
    const std::size_t ours = held(objects, [] {
        static const hostmem::llvm_memory memory = make(HM_JIT_CONFIG_INIT);
        static hostmem::llvm_memory_manager manager(memory);
        return jit(links_by(manager));
    });
    const std::size_t peer = held(objects, [] {
        static const auto manager = fine(jitlink::InProcessMemoryManager::Create());
        return jit(links_by(*manager));
    });
    const double ratio = static_cast<double>(ours) / static_cast<double>(peer);
    printf("row: llvm-modules-1000 ours=%zuB peer=llvm:%zuB ratio=%.3f target=0.125 met=%s\n", ours,
           peer, ratio, ratio <= 0.125 ? "yes" : "no");
    CHECK(ratio <= 0.125);
}

int main() {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    for (const hm_mapping mapping : {HM_MAPPING_DUAL, HM_MAPPING_TOGGLE}) {
        segments_lie_where_they_are_used(mapping);
        links_modules(mapping);
    }
    tells_why_there_is_no_memory();
#ifdef HOSTMEM_EXCEPTIONS
#if LLVM_VERSION_MAJOR < 20
    exceptions_pass();
#endif
#endif
    maps_sections();
    small_modules_share_pages();
    puts("all hold");
    return 0;
}
