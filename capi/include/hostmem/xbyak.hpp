/**
 * @file
 * @brief Executable memory for Xbyak: `xbyak_allocator` is an `Xbyak::Allocator`.
 *
 * For Xbyak 6 and newer. With `XBYAK_NO_EXCEPTION` it needs no exceptions, and never run-time
 * types.
 */
#ifndef HOSTMEM_XBYAK_HPP
#define HOSTMEM_XBYAK_HPP

#include "jit.hpp"

#include <xbyak/xbyak.h>

#include <cstddef>
#include <cstdint>

namespace hostmem {

/**
 * An allocator of Xbyak's that takes whole pages of a `jit`. Xbyak writes and runs code at one
 * address, and changes the access of pages by itself, so the memory is mapped once:
 *
 * | mapping | pages are | Xbyak changes their access |
 * |---|---|---|
 * | `HM_MAPPING_TOGGLE` | writable until Xbyak makes them executable | yes |
 * | `HM_MAPPING_READ_WRITE_EXEC` | writable and executable | where the generator is asked to |
 *
 * A generator that is made the plain way asks for pages that are both; one that is made with
 * `Xbyak::DontSetProtectRWE`, or `Xbyak::AutoGrow` and `readyRE()`, never has both at once.
 *
 * Memory mapped twice, as by default, is refused with `HM_UNSUPPORTED` when the allocator is made.
 * Later errors are reported as Xbyak's own allocators do, by an `Xbyak::Error`, or by
 * `Xbyak::GetError()` with `XBYAK_NO_EXCEPTION`: `ERR_CANT_ALLOC` where there is no memory,
 * `ERR_BAD_PARAMETER` for an address that is no block of this memory, `ERR_CANT_PROTECT` where the
 * host refuses.
 *
 * Pages may be where code was before, which another thread may have fetched: before it runs new
 * code there for the first time call `hm_sync_cores`, unless Xbyak changed the access of the pages.
 * Thread-safe, as the `jit` is.
 */
class xbyak_allocator : public Xbyak::Allocator {
public:
    /** Returns the configuration of a `jit` that is made for an allocator alone. */
    static hm_jit_config config(hm_mapping mapping = HM_MAPPING_TOGGLE) noexcept {
        hm_jit_config made = HM_JIT_CONFIG_INIT;
        made.mapping = mapping;
        made.granularity = page;
        made.no_padding = 1;
        return made;
    }

    /** Makes an allocator on executable memory, which must outlive it and its blocks; one that has
     * no memory where `code` says so. */
    xbyak_allocator(const jit &of, std::error_code &code) noexcept {
        detail::tell(code, [&](hm_error *) { return open(of); });
    }
#ifdef HOSTMEM_EXCEPTIONS
    /** Makes an allocator on executable memory, which must outlive it and its blocks. */
    explicit xbyak_allocator(const jit &of) {
        const hm_status status = open(of);
        if (status != HM_OK) {
            hm_error details = HM_ERROR_INIT;
            details.status = status;
            details.message = hm_status_string(status);
            throw error(status, details,
                        status == HM_UNSUPPORTED
                            ? "hostmem::xbyak_allocator: Xbyak has one address for code, and "
                              "HM_MAPPING_DUAL has two"
                            : "hostmem::xbyak_allocator");
        }
    }
#endif

    /** Returns the executable memory, for calls of hostmem.h; null where it was refused. */
    hm_jit *get() const noexcept { return jit_; }

    /** Allocates whole pages that are writable. */
    std::uint8_t *alloc(std::size_t size) override {
        hm_span span = {};
        hm_placement where = {};
        where.align = page;
        const std::size_t pages = (size + (page - 1)) & ~(page - 1);
        if (jit_ == nullptr || pages < size ||
            hm_jit_alloc_placed(jit_, pages, &where, &span, nullptr) != HM_OK) {
            return fail(Xbyak::ERR_CANT_ALLOC);
        }
        if (is_toggled_ && !Xbyak::CodeArray::protect(span.rx, span.len,
                                                      Xbyak::CodeArray::PROTECT_RW)) {
            static_cast<void>(hm_jit_release(jit_, &span, nullptr));
            return fail(Xbyak::ERR_CANT_PROTECT);
        }
        return static_cast<std::uint8_t *>(span.rx);
    }

    /** Frees a block, which no thread executes any more. Null is passed by. */
    void free(std::uint8_t *block) override {
        if (block == nullptr) {
            return;
        }
        hm_live live = {};
        if (hm_jit_query(jit_, block, &live) != HM_OK || live.span.rx != block) {
            fail(Xbyak::ERR_BAD_PARAMETER);
            return;
        }
        /* The next span that has the pages finds them as the executable memory knows them. */
        if (!Xbyak::CodeArray::protect(block, live.span.len,
                                       is_toggled_ ? Xbyak::CodeArray::PROTECT_RE
                                                   : Xbyak::CodeArray::PROTECT_RWE)) {
            fail(Xbyak::ERR_CANT_PROTECT);
            return;
        }
        if (hm_jit_release(jit_, &live.span, nullptr) != HM_OK) {
            fail(Xbyak::ERR_BAD_PARAMETER);
        }
    }

    /** Says whether generators change the access of their pages without being asked to. */
    bool useProtect() const override { return is_toggled_; }

private:
    /** Xbyak is for CPUs whose pages have this size. */
    static constexpr std::size_t page = 4096;

    /** Reports an error as Xbyak is configured to. */
    static std::uint8_t *fail(int error) {
#ifdef XBYAK_NO_EXCEPTION
        Xbyak::local::SetError(error);
        return nullptr;
#else
        throw Xbyak::Error(error);
#endif
    }

    hm_status open(const jit &of) noexcept {
        hm_mapping mapping = HM_MAPPING_DUAL;
        const hm_status status = hm_jit_get_mapping(of.get(), &mapping, nullptr);
        if (status != HM_OK) {
            return status;
        }
        if (mapping != HM_MAPPING_TOGGLE && mapping != HM_MAPPING_READ_WRITE_EXEC) {
            return HM_UNSUPPORTED;
        }
        jit_ = of.get();
        is_toggled_ = mapping == HM_MAPPING_TOGGLE;
        return HM_OK;
    }

    hm_jit *jit_ = nullptr;
    bool is_toggled_ = false;
};

} // namespace hostmem

#endif
