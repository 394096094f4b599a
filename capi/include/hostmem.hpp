/**
 * @file
 * @brief hostmem for C++17: owners, `std::pmr`, `std::error_code`. Header only, over hostmem.h.
 *
 * Each class owns an object of hostmem.h, is moved and not copied, and closes it when it ends.
 * Calls that can fail come twice: with a `std::error_code &` last they are `noexcept` and say there
 * what went wrong; without one they throw `hostmem::error`, a `std::system_error`, and are left out
 * where exceptions are (`-fno-exceptions`). The header needs no run-time types (`-fno-rtti`).
 *
 * What a call does, and from where it may be made, hostmem.h says of the call of the same name.
 */
#ifndef HOSTMEM_HPP
#define HOSTMEM_HPP

#include "hostmem.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory_resource>
#include <new>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define HOSTMEM_EXCEPTIONS 1
#endif

/** An `hm_status` is an error code by itself. */
template <> struct std::is_error_code_enum<hm_status> : std::true_type {};

namespace hostmem {

/** The category of error codes that are an `hm_status`. */
class category final : public std::error_category {
public:
    const char *name() const noexcept override { return "hostmem"; }

    std::string message(int status) const override {
        return hm_status_string(static_cast<std::uint32_t>(status));
    }

    /** Says which of the standard's conditions a status is, where there is one. */
    std::error_condition default_error_condition(int status) const noexcept override {
        switch (static_cast<hm_status>(status)) {
        case HM_INVALID_ARGUMENT: return std::errc::invalid_argument;
        case HM_OUT_OF_MEMORY: return std::errc::not_enough_memory;
        case HM_EXISTS: return std::errc::file_exists;
        case HM_DENIED: return std::errc::permission_denied;
        case HM_UNSUPPORTED: return std::errc::not_supported;
        case HM_OUT_OF_RANGE: return std::errc::result_out_of_range;
        case HM_BUSY: return std::errc::device_or_resource_busy;
        default: return std::error_condition(status, *this);
        }
    }
};

/** Returns the category. */
inline const category &get_category() noexcept {
    static const category the_one;
    return the_one;
}

} // namespace hostmem

/** Makes an error code of a status; it is found by the name of its argument's type. */
inline std::error_code make_error_code(hm_status status) noexcept {
    return {static_cast<int>(status), hostmem::get_category()};
}

namespace hostmem {

using ::make_error_code;

#ifdef HOSTMEM_EXCEPTIONS
/** What calls without an error code throw. */
class error : public std::system_error {
public:
    error(hm_status status, const hm_error &details, const char *what)
        : std::system_error(make_error_code(status), what), details_(details) {}

    /** All that the library said. */
    const hm_error &details() const noexcept { return details_; }

private:
    hm_error details_;
};
#endif

namespace detail {

/** Makes a call, and stores its status as an error code. */
template <class Call> bool tell(std::error_code &code, Call call) noexcept {
    const hm_status status = call(nullptr);
    if (status == HM_OK) {
        code.clear();
    } else {
        code = make_error_code(status);
    }
    return status == HM_OK;
}

#ifdef HOSTMEM_EXCEPTIONS
/** Makes a call, and throws what it says. */
template <class Call> void check(const char *what, Call call) {
    hm_error details = HM_ERROR_INIT;
    const hm_status status = call(&details);
    if (status != HM_OK) {
        throw error(status, details, what);
    }
}
#endif

/** Ends a call that has no other way to say that there is no memory. */
[[noreturn]] inline void no_memory() {
#ifdef HOSTMEM_EXCEPTIONS
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

/** A handle that is closed when it ends. */
template <class T, void (*Close)(T *) noexcept> class owner {
public:
    owner() noexcept = default;
    explicit owner(T *handle) noexcept : handle_(handle) {}
    owner(owner &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    owner &operator=(owner &&other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.handle_, nullptr));
        }
        return *this;
    }
    owner(const owner &) = delete;
    owner &operator=(const owner &) = delete;
    ~owner() { reset(nullptr); }

    /** Returns the handle, for calls of hostmem.h; null if there is none. */
    T *get() const noexcept { return handle_; }
    /** Says whether there is an object. */
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    /** Gives the object up, which the caller closes. */
    T *release() noexcept { return std::exchange(handle_, nullptr); }

private:
    void reset(T *handle) noexcept {
        if (handle_ != nullptr) {
            Close(handle_);
        }
        handle_ = handle;
    }

    T *handle_ = nullptr;
};

/* What ends with an error was closed too early, or twice: there is nothing to tell that to. */
inline void close(hm_heap *heap) noexcept { static_cast<void>(hm_heap_close(heap, 0, nullptr)); }
inline void close(hm_jit *jit) noexcept { static_cast<void>(hm_jit_close(jit, nullptr)); }
inline void close(hm_code *code) noexcept { static_cast<void>(hm_code_close(code, nullptr)); }
inline void close(hm_region *region) noexcept {
    static_cast<void>(hm_region_close(region, nullptr));
}
inline void close(hm_range_map *map) noexcept {
    static_cast<void>(hm_range_map_close(map, nullptr));
}

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

class jit;

/** A span of executable memory, which is released when it ends: no thread executes it then. It must
 * not outlive its `jit`. */
class span {
public:
    /** No span. */
    span() noexcept = default;
    /** Takes a span over. */
    span(hm_jit *of, const hm_span &name) noexcept : jit_(of), name_(name) {}
    span(span &&other) noexcept : jit_(std::exchange(other.jit_, nullptr)), name_(other.name_) {}
    span &operator=(span &&other) noexcept {
        if (this != &other) {
            reset();
            jit_ = std::exchange(other.jit_, nullptr);
            name_ = other.name_;
        }
        return *this;
    }
    span(const span &) = delete;
    span &operator=(const span &) = delete;
    ~span() { reset(); }

    /** Says whether there is a span. */
    explicit operator bool() const noexcept { return jit_ != nullptr; }
    /** Returns where it is executed. */
    void *rx() const noexcept { return name_.rx; }
    /** Returns where it is written. */
    void *rw() const noexcept { return name_.rw; }
    /** Returns its length in bytes. */
    std::size_t size() const noexcept { return name_.len; }
    /** Returns its name, for calls of hostmem.h. */
    const hm_span &name() const noexcept { return name_; }

    /** Writes bytes and publishes them. */
    void write(std::size_t offset, const void *bytes, std::size_t len,
               std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *e) {
            return hm_jit_write(jit_, &name_, offset, bytes, len, e);
        });
    }
    /** Shrinks the span. */
    void shrink(std::size_t len, std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *e) { return hm_jit_shrink(jit_, &name_, len, e); });
    }
#ifdef HOSTMEM_EXCEPTIONS
    /** Writes bytes and publishes them. */
    void write(std::size_t offset, const void *bytes, std::size_t len) {
        detail::check("hostmem::span::write", [&](hm_error *e) {
            return hm_jit_write(jit_, &name_, offset, bytes, len, e);
        });
    }
    /** Shrinks the span. */
    void shrink(std::size_t len) {
        detail::check("hostmem::span::shrink",
                      [&](hm_error *e) { return hm_jit_shrink(jit_, &name_, len, e); });
    }
#endif
    /** Gives the span up, which the caller releases or retires. */
    hm_span release() noexcept {
        jit_ = nullptr;
        return name_;
    }

private:
    void reset() noexcept {
        if (jit_ != nullptr) {
            static_cast<void>(hm_jit_release(jit_, &name_, nullptr));
            jit_ = nullptr;
        }
    }

    hm_jit *jit_ = nullptr;
    hm_span name_ = {};
};

template <class Signature> class function;

/** A function of this type in executable memory, which is released when it ends: no thread executes
 * it then. It must not outlive its `jit`. */
template <class R, class... Args> class function<R(Args...)> {
public:
    /** The type of a pointer to it. */
    using pointer = R (*)(Args...);

    /** No function. */
    function() noexcept = default;
    /** Takes a span over, whose code is a function of this type. */
    explicit function(span &&code) noexcept : span_(std::move(code)) {}

    /** Says whether there is a function. */
    explicit operator bool() const noexcept { return static_cast<bool>(span_); }
    /** Returns a pointer to it, which is of no use once it was released. */
    pointer get() const noexcept { return reinterpret_cast<pointer>(span_.rx()); }
    /** Calls it. */
    R operator()(Args... args) const { return get()(std::forward<Args>(args)...); }
    /** Returns the span. */
    hostmem::span &code() noexcept { return span_; }

private:
    hostmem::span span_;
};

/** Executable memory. */
class jit : public detail::owner<hm_jit, detail::close> {
public:
    /** None. */
    jit() noexcept = default;
    /** Takes a handle over. */
    explicit jit(hm_jit *handle) noexcept : owner(handle) {}

    /** Makes executable memory; none where `code` says so. */
    static jit create(const hm_jit_config &config, std::error_code &code) noexcept {
        hm_jit *made = nullptr;
        detail::tell(code, [&](hm_error *e) { return hm_jit_create(&config, &made, e); });
        return jit(made);
    }
    /** Allocates a span; none where `code` says so. */
    span allocate(std::size_t size, std::error_code &code) noexcept {
        hm_span name = {};
        const bool ok =
            detail::tell(code, [&](hm_error *e) { return hm_jit_alloc(get(), size, &name, e); });
        return ok ? span(get(), name) : span();
    }
    /** Allocates a span near an address; none where `code` says so. */
    span allocate_near(std::size_t size, const void *anchor, std::size_t reach,
                       std::error_code &code) noexcept {
        hm_span name = {};
        const bool ok = detail::tell(code, [&](hm_error *e) {
            return hm_jit_alloc_near(get(), size, anchor, reach, &name, e);
        });
        return ok ? span(get(), name) : span();
    }
    /** Makes a function of bytes that are one; none where `code` says so. */
    template <class Signature>
    hostmem::function<Signature> add(const void *bytes, std::size_t len,
                                     std::error_code &code) noexcept {
        span made = allocate(len, code);
        if (made) {
            made.write(0, bytes, len, code);
        }
        return code ? hostmem::function<Signature>()
                    : hostmem::function<Signature>(std::move(made));
    }

#ifdef HOSTMEM_EXCEPTIONS
    /** Makes executable memory. */
    static jit create(const hm_jit_config &config = HM_JIT_CONFIG_INIT) {
        hm_jit *made = nullptr;
        detail::check("hostmem::jit",
                      [&](hm_error *e) { return hm_jit_create(&config, &made, e); });
        return jit(made);
    }
    /** Allocates a span. */
    span allocate(std::size_t size) {
        hm_span name = {};
        detail::check("hostmem::jit::allocate",
                      [&](hm_error *e) { return hm_jit_alloc(get(), size, &name, e); });
        return span(get(), name);
    }
    /** Makes a function of bytes that are one. */
    template <class Signature>
    hostmem::function<Signature> add(const void *bytes, std::size_t len) {
        span made = allocate(len);
        made.write(0, bytes, len);
        return hostmem::function<Signature>(std::move(made));
    }
#endif

    /** Finds the live span around an address; says whether there is one. */
    bool query(const void *address, hm_live &live) const noexcept {
        return hm_jit_query(get(), address, &live) == HM_OK;
    }
    /** Returns what is held. */
    hm_jit_statistics statistics() const noexcept {
        hm_jit_statistics held = HM_JIT_STATISTICS_INIT;
        static_cast<void>(hm_jit_get_statistics(get(), &held, nullptr));
        return held;
    }
};

/** One long range of code that the program fills by itself. Places in it are offsets. */
class code_range : public detail::owner<hm_code, detail::close> {
public:
    /** None. */
    code_range() noexcept = default;
    /** Takes a handle over. */
    explicit code_range(hm_code *handle) noexcept : owner(handle) {}

    /** Makes a code range; none where `code` says so. */
    static code_range create(const hm_code_config &config, std::error_code &code) noexcept {
        hm_code *made = nullptr;
        detail::tell(code, [&](hm_error *e) { return hm_code_create(&config, &made, e); });
        return code_range(made);
    }
    /** Lets `fill` write `len` bytes at an offset, which it is given the address of, and publishes
     * them. `fill` may leave by an exception: then nothing is published. */
    template <class Fill>
    bool write_with(std::size_t offset, std::size_t len, Fill fill, std::error_code &code) {
        void *rw = nullptr;
        if (!detail::tell(code, [&](hm_error *e) {
                return hm_code_begin_write(get(), offset, len, &rw, e);
            })) {
            return false;
        }
        fill(static_cast<unsigned char *>(rw));
        return detail::tell(code, [&](hm_error *e) {
                   return hm_code_end_write(get(), offset, len, e);
               }) &&
               detail::tell(code, [&](hm_error *e) {
                   return hm_code_publish(get(), offset, len, HM_BARRIER_NOW, e);
               });
    }
    /** Writes bytes at an offset and publishes them. */
    bool write(std::size_t offset, const void *bytes, std::size_t len,
               std::error_code &code) noexcept {
        return detail::tell(code, [&](hm_error *e) {
            return hm_code_write(get(), offset, bytes, len, HM_BARRIER_NOW, e);
        });
    }
    /** Takes the whole range for one that no code was published in. */
    bool recycle(std::error_code &code) noexcept {
        return detail::tell(code, [&](hm_error *e) { return hm_code_recycle(get(), e); });
    }

#ifdef HOSTMEM_EXCEPTIONS
    /** Makes a code range. */
    static code_range create(const hm_code_config &config) {
        hm_code *made = nullptr;
        detail::check("hostmem::code_range",
                      [&](hm_error *e) { return hm_code_create(&config, &made, e); });
        return code_range(made);
    }
    /** Writes bytes at an offset and publishes them. */
    void write(std::size_t offset, const void *bytes, std::size_t len) {
        detail::check("hostmem::code_range::write", [&](hm_error *e) {
            return hm_code_write(get(), offset, bytes, len, HM_BARRIER_NOW, e);
        });
    }
#endif

    /** Returns where the range lies, and how it is mapped. */
    hm_code_info info() const noexcept {
        hm_code_info found = HM_CODE_INFO_INIT;
        static_cast<void>(hm_code_get_info(get(), &found, nullptr));
        return found;
    }
};

/** A region of addresses. */
class region : public detail::owner<hm_region, detail::close> {
public:
    /** None. */
    region() noexcept = default;
    /** Takes a handle over. */
    explicit region(hm_region *handle) noexcept : owner(handle) {}

    /** Makes a region without addresses; none where `code` says so. */
    static region create(const hm_region_config &config, std::error_code &code) noexcept {
        hm_region *made = nullptr;
        detail::tell(code, [&](hm_error *e) { return hm_region_create(&config, &made, e); });
        return region(made);
    }
    /** Claims addresses. */
    void claim(const hm_claim &what, hm_claim_report *report, std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *e) { return hm_region_claim(get(), &what, report, e); });
    }
    /** Takes addresses over that the program has reserved. */
    void adopt(hm_range range, std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *e) { return hm_region_adopt(get(), range, e); });
    }
    /** Maps memory. */
    hm_range map(const hm_request &request, hm_access access, std::uint16_t tag,
                 std::error_code &code) noexcept {
        hm_range range = {};
        detail::tell(code, [&](hm_error *e) {
            return hm_region_map(get(), &request, access, HM_CEILING_DEFAULT, HM_PAGES_BASE, tag,
                                 &range, e);
        });
        return range;
    }
    /** Unmaps memory. */
    void unmap(hm_range range, std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *e) { return hm_region_unmap(get(), range, e); });
    }

#ifdef HOSTMEM_EXCEPTIONS
    /** Makes a region without addresses. */
    static region create(const hm_region_config &config = HM_REGION_CONFIG_INIT) {
        hm_region *made = nullptr;
        detail::check("hostmem::region",
                      [&](hm_error *e) { return hm_region_create(&config, &made, e); });
        return region(made);
    }
    /** Claims addresses; returns what became of it. */
    hm_claim_report claim(const hm_claim &what) {
        hm_claim_report report = HM_CLAIM_REPORT_INIT;
        detail::check("hostmem::region::claim",
                      [&](hm_error *e) { return hm_region_claim(get(), &what, &report, e); });
        return report;
    }
    /** Takes addresses over that the program has reserved. */
    void adopt(hm_range range) {
        detail::check("hostmem::region::adopt",
                      [&](hm_error *e) { return hm_region_adopt(get(), range, e); });
    }
    /** Maps memory. */
    hm_range map(const hm_request &request, hm_access access, std::uint16_t tag = 0) {
        hm_range range = {};
        detail::check("hostmem::region::map", [&](hm_error *e) {
            return hm_region_map(get(), &request, access, HM_CEILING_DEFAULT, HM_PAGES_BASE, tag,
                                 &range, e);
        });
        return range;
    }
    /** Unmaps memory. */
    void unmap(hm_range range) {
        detail::check("hostmem::region::unmap",
                      [&](hm_error *e) { return hm_region_unmap(get(), range, e); });
    }
#endif

    /** Finds what was given out around an address; says whether there is something. */
    bool query(const void *address, hm_region_range &found) const noexcept {
        return hm_region_query(get(), address, &found) == HM_OK;
    }
    /** Returns a source of memory in this region, which must outlive what is made on it. */
    hm_source source() const noexcept {
        hm_source source = HM_SOURCE_INIT;
        source.region = get();
        return source;
    }
};

/** A map of ranges of addresses. */
class range_map : public detail::owner<hm_range_map, detail::close> {
public:
    /** None. */
    range_map() noexcept = default;
    /** Takes a handle over. */
    explicit range_map(hm_range_map *handle) noexcept : owner(handle) {}

    /** Makes a map; none where `code` says so. */
    static range_map create(const hm_range_map_config &config, std::error_code &code) noexcept {
        hm_range_map *made = nullptr;
        detail::tell(code, [&](hm_error *e) { return hm_range_map_create(&config, &made, e); });
        return range_map(made);
    }
    /** Gives a range a value; returns how many of its pages had one. */
    std::size_t insert(std::size_t first, std::size_t last, std::uint64_t value,
                       std::error_code &code) noexcept {
        std::size_t had = 0;
        detail::tell(code, [&](hm_error *e) {
            return hm_range_map_insert(get(), first, last, value, &had, e);
        });
        return had;
    }
    /** Takes a range away; returns how many of its pages had a value. */
    std::size_t remove(std::size_t first, std::size_t last, std::error_code &code) noexcept {
        std::size_t had = 0;
        detail::tell(code, [&](hm_error *e) {
            return hm_range_map_remove(get(), first, last, &had, e);
        });
        return had;
    }

#ifdef HOSTMEM_EXCEPTIONS
    /** Makes a map. */
    static range_map create(const hm_range_map_config &config) {
        hm_range_map *made = nullptr;
        detail::check("hostmem::range_map",
                      [&](hm_error *e) { return hm_range_map_create(&config, &made, e); });
        return range_map(made);
    }
    /** Gives a range a value; returns how many of its pages had one. */
    std::size_t insert(std::size_t first, std::size_t last, std::uint64_t value) {
        std::size_t had = 0;
        detail::check("hostmem::range_map::insert", [&](hm_error *e) {
            return hm_range_map_insert(get(), first, last, value, &had, e);
        });
        return had;
    }
    /** Takes a range away; returns how many of its pages had a value. */
    std::size_t remove(std::size_t first, std::size_t last) {
        std::size_t had = 0;
        detail::check("hostmem::range_map::remove", [&](hm_error *e) {
            return hm_range_map_remove(get(), first, last, &had, e);
        });
        return had;
    }
#endif

    /** Finds the range that has an address; says whether there is one. */
    bool query(std::size_t address, hm_mapped_range &found) const noexcept {
        return hm_range_map_query(get(), address, &found) == HM_OK;
    }
};

} // namespace hostmem

#endif
