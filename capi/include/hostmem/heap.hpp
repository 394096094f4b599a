/**
 * @file
 * @brief Heaps, and the handles that threads have of them.
 */
#ifndef HOSTMEM_HEAP_HPP
#define HOSTMEM_HEAP_HPP

#include "error.hpp"
#include "owner.hpp"

#include <cstddef>

namespace hostmem {

namespace detail {
inline void close(hm_heap *heap) noexcept { static_cast<void>(hm_heap_close(heap, 0, nullptr)); }
} // namespace detail

/** A heap. It must outlive the handles, resources and allocators that refer to it. */
class heap : public detail::owner<hm_heap, detail::close> {
public:
    /** No heap. */
    heap() noexcept = default;
    /** Takes a handle over. */
    explicit heap(hm_heap *handle) noexcept : owner(handle) {}

    /** Makes a heap; one without an object where `code` says so. */
    static heap create(const hm_heap_config &config, std::error_code &code) noexcept {
        hm_heap *made = nullptr;
        detail::tell(code, [&](hm_error *e) { return hm_heap_create(&config, &made, e); });
        return heap(made);
    }

#ifdef HOSTMEM_EXCEPTIONS
    /** Makes a heap. */
    static heap create(const hm_heap_config &config = HM_HEAP_CONFIG_INIT) {
        hm_heap *made = nullptr;
        detail::check("hostmem::heap",
                      [&](hm_error *e) { return hm_heap_create(&config, &made, e); });
        return heap(made);
    }
#endif

    /** Allocates, at a multiple of 16; null without memory. */
    void *allocate(std::size_t size) noexcept { return hm_heap_malloc(get(), size); }
    /** Allocates at a multiple of `align`; null without memory. */
    void *allocate(std::size_t size, std::size_t align) noexcept {
        return hm_heap_aligned_alloc(get(), align, size);
    }
    /** Frees a block of this heap; says so where it is none. */
    hm_status free(void *block) noexcept { return hm_heap_free(get(), block); }
    /** Says whether an address lies in the heap. */
    bool owns(const void *address) const noexcept { return hm_heap_owns(get(), address) != 0; }
    /** Returns the start of the live block around an address, or null. */
    void *block_of(const void *address, std::size_t *size = nullptr) const noexcept {
        return hm_heap_block_of(get(), address, size);
    }
    /** Gives free memory back to the host. */
    void trim(hm_trim how = HM_TRIM_FREE) noexcept {
        static_cast<void>(hm_heap_trim(get(), how, nullptr));
    }
    /** Returns what is held. */
    hm_heap_statistics statistics() const noexcept {
        hm_heap_statistics held = HM_HEAP_STATISTICS_INIT;
        static_cast<void>(hm_heap_get_statistics(get(), &held, nullptr));
        return held;
    }
};

/** A thread's handle of a heap: for one thread at a time. It cannot move, as it is in use there. */
class local_heap {
public:
    /** Attaches a handle; allocations return null where `code` says that there is none. */
    local_heap(const heap &of, std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *e) { return hm_local_attach(of.get(), &local_, e); });
    }
#ifdef HOSTMEM_EXCEPTIONS
    /** Attaches a handle. */
    explicit local_heap(const heap &of) {
        detail::check("hostmem::local_heap",
                      [&](hm_error *e) { return hm_local_attach(of.get(), &local_, e); });
    }
#endif
    local_heap(const local_heap &) = delete;
    local_heap &operator=(const local_heap &) = delete;
    ~local_heap() { static_cast<void>(hm_local_detach(&local_, nullptr)); }

    /** Returns the handle, for calls of hostmem.h. */
    hm_local *get() noexcept { return &local_; }
    /** Allocates, at a multiple of 16; null without memory. */
    void *allocate(std::size_t size) noexcept { return hm_local_malloc(&local_, size); }
    /** Allocates at a multiple of `align`; null without memory. */
    void *allocate(std::size_t size, std::size_t align) noexcept {
        return hm_local_aligned_alloc(&local_, align, size);
    }
    /** Frees a block of the heap; says so where it is none. */
    hm_status free(void *block) noexcept { return hm_local_free(&local_, block); }
    /** Gives the free blocks of this handle back to the heap. */
    void flush() noexcept { static_cast<void>(hm_local_flush(&local_, nullptr)); }

private:
    hm_local local_ = {};
};

} // namespace hostmem

#endif
