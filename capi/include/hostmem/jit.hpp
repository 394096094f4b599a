/**
 * @file
 * @brief Executable memory: spans and functions.
 */
#ifndef HOSTMEM_JIT_HPP
#define HOSTMEM_JIT_HPP

#include "error.hpp"
#include "owner.hpp"

#include <cstddef>
#include <utility>

namespace hostmem {

namespace detail {
inline void close(hm_jit *jit) noexcept { static_cast<void>(hm_jit_close(jit, nullptr)); }
} // namespace detail

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

} // namespace hostmem

#endif
