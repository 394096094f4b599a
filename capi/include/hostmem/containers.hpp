/**
 * @file
 * @brief A heap for containers: `std::pmr`, and an allocator.
 */
#ifndef HOSTMEM_CONTAINERS_HPP
#define HOSTMEM_CONTAINERS_HPP

#include "heap.hpp"

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory_resource>
#include <new>
#include <type_traits>

namespace hostmem {

/** A heap as a resource of `std::pmr`'s containers. What cannot be freed ends the program. */
class memory_resource final : public std::pmr::memory_resource {
public:
    /** Makes a resource of a heap, which must outlive it. */
    explicit memory_resource(const heap &of) noexcept : heap_(of.get()) {}

    /** Returns the heap. */
    hm_heap *get() const noexcept { return heap_; }

private:
    void *do_allocate(std::size_t size, std::size_t align) override {
        void *block = hm_heap_aligned_alloc(heap_, align, size);
        if (block == nullptr) {
            detail::no_memory();
        }
        return block;
    }

    void do_deallocate(void *block, std::size_t size, std::size_t align) override {
        if (hm_heap_free_sized(heap_, block, size, align) != HM_OK) {
            std::abort();
        }
    }

    /* Without run-time types there is no telling what another resource is. */
    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override {
        return this == &other;
    }

    hm_heap *heap_;
};

/** A heap as an allocator of containers. What cannot be freed ends the program. */
template <class T> class allocator {
public:
    using value_type = T;
    using propagate_on_container_copy_assignment = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;

    /** Makes an allocator of a heap, which must outlive it. */
    explicit allocator(const heap &of) noexcept : heap_(of.get()) {}
    template <class U> allocator(const allocator<U> &other) noexcept : heap_(other.get()) {}

    /** Returns the heap. */
    hm_heap *get() const noexcept { return heap_; }

    T *allocate(std::size_t count) {
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
#ifdef HOSTMEM_EXCEPTIONS
            throw std::bad_array_new_length();
#else
            std::abort();
#endif
        }
        void *block = hm_heap_aligned_alloc(heap_, alignof(T), count * sizeof(T));
        if (block == nullptr) {
            detail::no_memory();
        }
        return static_cast<T *>(block);
    }

    void deallocate(T *block, std::size_t count) noexcept {
        if (hm_heap_free_sized(heap_, block, count * sizeof(T), alignof(T)) != HM_OK) {
            std::abort();
        }
    }

    template <class U> friend bool operator==(const allocator &a, const allocator<U> &b) noexcept {
        return a.get() == b.get();
    }
    template <class U> friend bool operator!=(const allocator &a, const allocator<U> &b) noexcept {
        return a.get() != b.get();
    }

private:
    hm_heap *heap_;
};

} // namespace hostmem

#endif
