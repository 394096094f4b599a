// Containers of the standard library in a heap below 4 GiB, and a function that its owner releases.
//
//   c++ -std=c++17 containers.cpp $(pkg-config --cflags --libs hostmem) -o containers
#include <cstdint>
#include <cstdio>
#include <hostmem.hpp>
#include <memory_resource>
#include <string>
#include <vector>

int main() {
    try {
        hm_source low = HM_SOURCE_INIT;
        low.first = 64 << 10;
        low.last = UINT32_MAX;
        hm_heap_config config = HM_HEAP_CONFIG_INIT;
        config.source = &low;
        hostmem::heap guest = hostmem::heap::create(config);

        hostmem::memory_resource resource(guest);
        std::pmr::vector<std::pmr::string> names(&resource);
        for (int n = 0; n < 100; n++) {
            names.emplace_back("a string that is too long to lie in its own object");
        }
        const bool is_low = reinterpret_cast<std::uintptr_t>(names.back().data()) <= UINT32_MAX;
        std::printf("strings below 4 GiB: %s\n", is_low ? "yes" : "no");

        std::vector<int, hostmem::allocator<int>> numbers(1000, 7, hostmem::allocator<int>(guest));
        std::printf("numbers in the heap: %s\n", guest.owns(numbers.data()) ? "yes" : "no");

#if defined(__x86_64__)
        const unsigned char code[] = {0x8d, 0x47, 0x01, 0xc3}; // lea eax, [rdi + 1]; ret
#elif defined(__aarch64__)
        const unsigned char code[] = {0x00, 0x04, 0x00, 0x11, 0xc0, 0x03, 0x5f, 0xd6};
#endif
        hostmem::jit jit = hostmem::jit::create();
        auto plus_one = jit.add<int(int)>(code, sizeof code);
        std::printf("%d\n", plus_one(41));

        // What is wrong is told by a code of the library's own category.
        std::error_code error;
        jit.allocate(0, error);
        std::printf("%s: %s\n", error.category().name(), error.message().c_str());
        return is_low ? 0 : 1;
    } catch (const hostmem::error &error) {
        std::fprintf(stderr, "%s (%s)\n", error.what(), error.details().message);
        return 1;
    }
}
