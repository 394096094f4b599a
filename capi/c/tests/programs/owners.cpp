// The C++ interface, with exceptions and without.
#include "check.h"
#include <hostmem.hpp>
#include <list>
#include <map>
#include <string>
#include <vector>

#ifdef HOSTMEM_EXCEPTIONS
#define REFUSED(expected, call)                                                                    \
    do {                                                                                           \
        bool thrown_ = false;                                                                      \
        try {                                                                                      \
            call;                                                                                  \
        } catch (const hostmem::error &e) {                                                        \
            thrown_ = e.code() == (expected) && e.details().status == (expected);                  \
        }                                                                                          \
        CHECK(thrown_);                                                                            \
    } while (0)
#endif

static void codes() {
    std::error_code code = HM_BUSY;
    CHECK(code && code.message() == hm_status_string(HM_BUSY) && code == HM_BUSY);
    CHECK(std::string(code.category().name()) == "hostmem");
    CHECK(code == std::errc::device_or_resource_busy);
    CHECK(make_error_code(HM_OUT_OF_MEMORY) == std::errc::not_enough_memory);
    CHECK(make_error_code(HM_CORRUPT) != std::errc::not_enough_memory);
    CHECK(!make_error_code(HM_OK));
}

static void heaps() {
    std::error_code code;
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.shards = 1000;
    CHECK(!hostmem::heap::create(config, code) && code == HM_INVALID_ARGUMENT);
    config.shards = 0;
    hostmem::heap heap = hostmem::heap::create(config, code);
    CHECK(heap && !code);
    hostmem::heap moved = std::move(heap);
    CHECK(!heap && moved && heap.allocate(8) == nullptr);
    heap = std::move(moved);
    void *block = heap.allocate(100, 64);
    CHECK(heap.owns(block) && heap.block_of(static_cast<char *>(block) + 9) == block);
    CHECK(heap.free(block) == HM_OK && heap.free(block) == HM_UNKNOWN_POINTER);
    {
        hostmem::local_heap local(heap, code);
        CHECK(!code);
        block = local.allocate(10);
        CHECK(block != nullptr && local.free(block) == HM_OK);
        CHECK(local.free(block) == HM_UNKNOWN_POINTER);
        block = local.allocate(10, 128);
        CHECK(heap.free(block) == HM_OK);
        local.flush();
        hostmem::local_heap none(hostmem::heap(), code);
        CHECK(code == HM_INVALID_ARGUMENT && none.allocate(8) == nullptr);
    }
    {
        hostmem::memory_resource resource(heap);
        std::pmr::vector<std::pmr::string> strings(&resource);
        std::pmr::map<int, std::pmr::string> map(&resource);
        for (int n = 0; n < 1000; n++) {
            strings.emplace_back("a string that is too long to be kept inside of itself");
            map.emplace(n, "another one that is too long to be kept inside of itself");
        }
        CHECK(heap.owns(strings.data()) && heap.owns(strings.back().data()));
        CHECK(heap.owns(&*map.begin()) && heap.statistics().used > 100000);
        CHECK(resource == resource && resource != *std::pmr::new_delete_resource());
        struct alignas(256) wide {
            char bytes[256];
        };
        std::pmr::vector<wide> aligned(10, &resource);
        CHECK(reinterpret_cast<std::uintptr_t>(aligned.data()) % 256 == 0);
    }
    {
        hostmem::allocator<int> allocator(heap);
        std::vector<int, hostmem::allocator<int>> vector(1000, 7, allocator);
        std::list<int, hostmem::allocator<int>> list(vector.begin(), vector.end(), allocator);
        CHECK(heap.owns(vector.data()) && heap.owns(&list.front()) && list.size() == 1000);
        std::vector<int, hostmem::allocator<int>> copy = vector;
        CHECK(copy.get_allocator() == allocator);
        CHECK(hostmem::allocator<char>(allocator) == allocator);
        hostmem::heap other = hostmem::heap::create(config, code);
        CHECK(hostmem::allocator<int>(other) != allocator);
    }
    heap.trim(HM_TRIM_DEEP);
    CHECK(heap.statistics().used == 0);
    // Closed once: by its owner, or by the code that it is given to.
    hm_heap *handle = heap.release();
    CHECK(!heap && hm_heap_close(handle, 0, nullptr) == HM_OK);
#ifdef HOSTMEM_EXCEPTIONS
    config.shards = 1000;
    REFUSED(HM_INVALID_ARGUMENT, hostmem::heap::create(config));
    hostmem::heap small = hostmem::heap::create();
    hostmem::local_heap local(small);
    CHECK(local.free(local.allocate(1)) == HM_OK);
    hostmem::allocator<int> allocator(small);
    bool thrown = false;
    try {
        static_cast<void>(allocator.allocate(SIZE_MAX / 2));
    } catch (const std::bad_array_new_length &) {
        thrown = true;
    }
    CHECK(thrown);
    thrown = false;
    try {
        static_cast<void>(allocator.allocate(SIZE_MAX / 8));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
#endif
}

static void code_ranges() {
    std::error_code error;
    hm_code_config config = HM_CODE_CONFIG_INIT;
    CHECK(!hostmem::code_range::create(config, error) && error == HM_INVALID_ARGUMENT);
    config.len = 1 << 20;
    config.mapping = HM_MAPPING_TOGGLE;
    hostmem::code_range range = hostmem::code_range::create(config, error);
    CHECK(range && !error);
    unsigned char bytes[ANSWER_MOST];
    const std::size_t len = answer(bytes, 21);
    CHECK(range.write(0, bytes, len, error) && run(range.info().rx) == 21);
    CHECK(!range.write(range.info().len, bytes, len, error) && error == HM_OUT_OF_RANGE);
    const auto fill = [](unsigned char *to) { answer(to, 22); };
    CHECK(range.write_with(64, ANSWER_MOST, fill, error) && !error);
    CHECK(run(static_cast<char *>(range.info().rx) + 64) == 22 && range.recycle(error));
#ifdef HOSTMEM_EXCEPTIONS
    bool left = false;
    try {
        range.write_with(128, 64, [](unsigned char *) { throw 5; }, error);
    } catch (int) {
        left = true;
    }
    range.write(1 << 19, bytes, len);
    CHECK(left && run(range.info().rx) == 21);
    hostmem::code_range other = hostmem::code_range::create(config);
    other = std::move(range);
    CHECK(!range && run(other.info().rx) == 21);
#endif
}

static void code() {
    std::error_code error;
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    hostmem::jit jit = hostmem::jit::create(config, error);
    CHECK(jit && !error);
    unsigned char bytes[ANSWER_MOST];
    const std::size_t len = answer(bytes, 17);
    {
        auto function = jit.add<std::uint32_t()>(bytes, len, error);
        CHECK(function && !error && function() == 17 && function.get()() == 17);
        auto moved = std::move(function);
        CHECK(!function && moved() == 17);
        hm_live live;
        CHECK(jit.query(moved.code().rx(), live) && live.span.number == moved.code().name().number);
        CHECK(jit.statistics().spans == 1);
        hostmem::span near = jit.allocate_near(1000, moved.code().rx(), 1 << 30, error);
        CHECK(near && near.size() == 1024 && near.rw() != nullptr);
        near.shrink(100, error);
        CHECK(!error && near.size() == 128);
        near.write(127, bytes, 2, error);
        CHECK(error == HM_OUT_OF_RANGE);
        near = jit.allocate(10, error);
        CHECK(jit.statistics().spans == 2);
        hm_span name = near.release();
        CHECK(!near && hm_jit_release(jit.get(), &name, nullptr) == HM_OK);
        CHECK(!jit.allocate(0, error) && error == HM_INVALID_ARGUMENT);
        CHECK(!jit.add<void()>(nullptr, 5, error) && error == HM_INVALID_ARGUMENT);
    }
    CHECK(jit.statistics().spans == 0);
#ifdef HOSTMEM_EXCEPTIONS
    hostmem::jit other = hostmem::jit::create();
    auto function = other.add<std::uint32_t()>(bytes, len);
    CHECK(function() == 17);
    REFUSED(HM_OUT_OF_RANGE, function.code().write(64, bytes, 1));
    REFUSED(HM_OUT_OF_RANGE, function.code().shrink(1000));
    REFUSED(HM_TOO_LARGE, other.allocate(SIZE_MAX));
#endif
}

static void addresses() {
    std::error_code error;
    hm_request request = HM_REQUEST_INIT;
    request.len = 64 << 20;
    hm_range range;
    CHECK(hm_pages_reserve(nullptr, &request, &range, nullptr) == HM_OK);
    hm_region_config config = HM_REGION_CONFIG_INIT;
    hostmem::region region = hostmem::region::create(config, error);
    region.adopt(range, error);
    CHECK(region && !error);
    request.len = 1 << 20;
    hm_range got = region.map(request, HM_ACCESS_READ_WRITE, 5, error);
    hm_region_range found;
    CHECK(!error && region.query(got.start, found) && found.tag == 5);
    {
        hm_source source = region.source();
        hm_heap_config inside = HM_HEAP_CONFIG_INIT;
        inside.source = &source;
        hostmem::heap heap = hostmem::heap::create(inside, error);
        CHECK(heap && region.query(heap.allocate(10), found));
    }
    region.unmap(got, error);
    CHECK(!error && !region.query(got.start, found));
    request.len = 0;
    region.map(request, HM_ACCESS_READ, 0, error);
    CHECK(error == std::errc::invalid_argument);
    hm_claim claim = HM_CLAIM_INIT;
    region.claim(claim, nullptr, error);
    CHECK(error == HM_INVALID_ARGUMENT);

    hm_range_map_config bounds = HM_RANGE_MAP_CONFIG_INIT;
    bounds.last = 0xffffffff;
    hostmem::range_map map = hostmem::range_map::create(bounds, error);
    CHECK(map && map.insert(4096, 8191, 3, error) == 0 && !error);
    hm_mapped_range mapped;
    CHECK(map.query(5000, mapped) && mapped.value == 3 && !map.query(9000, mapped));
    CHECK(map.remove(0, 0xffffffff, error) == 1 && !error);
    map.insert(1, 2, 3, error);
    CHECK(error == HM_INVALID_ARGUMENT);
#ifdef HOSTMEM_EXCEPTIONS
    REFUSED(HM_INVALID_ARGUMENT, map.insert(1, 2, 3));
    REFUSED(HM_INVALID_ARGUMENT, map.remove(1, 2));
    bounds.page_size = 3;
    REFUSED(HM_INVALID_ARGUMENT, hostmem::range_map::create(bounds));
    hostmem::region other = hostmem::region::create();
    REFUSED(HM_INVALID_ARGUMENT, other.claim(claim));
    REFUSED(HM_INVALID_ARGUMENT, other.map(request, HM_ACCESS_READ));
    request.len = 4096;
    other.unmap(other.map(request, HM_ACCESS_READ));
    REFUSED(HM_EXISTS, region.adopt(range));
#endif
}

int main() {
    codes();
    heaps();
    code();
    code_ranges();
    addresses();
    std::puts("all hold");
    return 0;
}
