// LLVM's code in executable memory of hostmem: segments by themselves, linked modules, and what a
// thousand small modules hold.
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
#include <malloc.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

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
