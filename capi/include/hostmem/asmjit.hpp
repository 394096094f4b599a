/**
 * @file
 * @brief Executable memory for AsmJit: `asmjit_runtime` takes the place of `asmjit::JitRuntime`.
 *
 * For AsmJit 1.9, as Debian 12 has it, and newer. It needs neither exceptions nor run-time types.
 */
#ifndef HOSTMEM_ASMJIT_HPP
#define HOSTMEM_ASMJIT_HPP

#include "jit.hpp"

#include <asmjit/core.h>

#include <cstddef>
#include <cstdint>

#if defined(ASMJIT_NO_JIT)
#error "AsmJit was configured without its JitRuntime"
#endif

namespace hostmem {

namespace detail {

/* Version 1.18 has other names for the same functions, and an enumeration for errors. */
#if ASMJIT_LIBRARY_VERSION >= 0x011200
#define HOSTMEM_ASMJIT_ERROR(name) ::asmjit::Error::k##name
inline ::asmjit::Error asmjit_link(::asmjit::CodeHolder &code) noexcept {
    return code.resolve_cross_section_fixups();
}
inline std::size_t asmjit_size(const ::asmjit::CodeHolder &code) noexcept {
    return code.code_size();
}
inline ::asmjit::Error asmjit_relocate(::asmjit::CodeHolder &code, const void *to) noexcept {
    return code.relocate_to_base(reinterpret_cast<std::uintptr_t>(to));
}
inline ::asmjit::Error asmjit_copy(::asmjit::CodeHolder &code, void *to, std::size_t len) noexcept {
    return code.copy_flattened_data(to, len, ::asmjit::CopySectionFlags::kPadSectionBuffer);
}
#else
#define HOSTMEM_ASMJIT_ERROR(name) ::asmjit::kError##name
inline ::asmjit::Error asmjit_link(::asmjit::CodeHolder &code) noexcept {
    return code.resolveUnresolvedLinks();
}
inline std::size_t asmjit_size(const ::asmjit::CodeHolder &code) noexcept {
    return code.codeSize();
}
inline ::asmjit::Error asmjit_relocate(::asmjit::CodeHolder &code, const void *to) noexcept {
    return code.relocateToBase(reinterpret_cast<std::uintptr_t>(to));
}
inline ::asmjit::Error asmjit_copy(::asmjit::CodeHolder &code, void *to, std::size_t len) noexcept {
    return code.copyFlattenedData(to, len, ::asmjit::CopySectionFlags::kPadSectionBuffer);
}
#endif

/** Says in AsmJit's terms what a call says. */
inline ::asmjit::Error asmjit_error(hm_status status) noexcept {
    switch (status) {
    case HM_OK: return HOSTMEM_ASMJIT_ERROR(Ok);
    case HM_INVALID_ARGUMENT: return HOSTMEM_ASMJIT_ERROR(InvalidArgument);
    case HM_OUT_OF_MEMORY: return HOSTMEM_ASMJIT_ERROR(OutOfMemory);
    case HM_TOO_LARGE: return HOSTMEM_ASMJIT_ERROR(TooLarge);
    case HM_DENIED:
    case HM_UNSUPPORTED: return HOSTMEM_ASMJIT_ERROR(FeatureNotEnabled);
    default: return HOSTMEM_ASMJIT_ERROR(InvalidState);
    }
}

} // namespace detail

/**
 * A runtime of AsmJit that places code in executable memory of hostmem: it is written through one
 * view and executed through the other, with whatever mapping and placement the `jit` has. Give it
 * to whoever takes an `asmjit::JitRuntime &`, of which it is one. Thread-safe, as the `jit` is.
 *
 * `release` checks its argument: what is not the start of live code of this memory, also what was
 * released already, is `kInvalidState`, and null `kInvalidArgument`. Where the host refuses
 * executable memory `add` returns `kFeatureNotEnabled`.
 */
class asmjit_runtime : public ::asmjit::JitRuntime {
public:
    /** Makes a runtime on executable memory, which must outlive it and all code. Code that was
     * added stays when the runtime ends, until it is released or the memory closed. */
    explicit asmjit_runtime(const jit &of) noexcept : jit_(of.get()) {}

    /** Returns the executable memory, for calls of hostmem.h. */
    hm_jit *get() const noexcept { return jit_; }

    /** AsmJit's own allocator has none of the code. */
    ::asmjit::JitAllocator *allocator() const = delete;

    /** Releases all code in the executable memory at once, also what others have there. No thread
     * executes or adds any meanwhile. */
    ::asmjit::Error
    reset(::asmjit::ResetPolicy policy = ::asmjit::ResetPolicy::kSoft) noexcept {
        const hm_reset how =
            policy == ::asmjit::ResetPolicy::kHard ? HM_RESET_HARD : HM_RESET_SOFT;
        return detail::asmjit_error(hm_jit_reset(jit_, how, nullptr));
    }

    /** Places the code of a holder, and stores where it is executed through `to`; null after an
     * error. Called by `add`. */
    ::asmjit::Error _add(void **to, ::asmjit::CodeHolder *code) noexcept override {
        *to = nullptr;
        ::asmjit::Error error = code->flatten();
        if (error == ok) {
            error = detail::asmjit_link(*code);
        }
        if (error != ok) {
            return error;
        }
        const std::size_t most = detail::asmjit_size(*code);
        if (most == 0) {
            return HOSTMEM_ASMJIT_ERROR(NoCodeGenerated);
        }
        hm_span span = {};
        const hm_status made = allocate(*code, most, span);
        if (made != HM_OK) {
            return detail::asmjit_error(made);
        }
        error = detail::asmjit_relocate(*code, span.rx);
        if (error == ok) {
            fill_context context = {code, ok};
            error = detail::asmjit_error(hm_jit_write_with(jit_, &span, fill, &context, nullptr));
            error = error == ok ? context.error : error;
        }
        if (error != ok) {
            static_cast<void>(hm_jit_release(jit_, &span, nullptr));
            return error;
        }
        *to = span.rx;
        return ok;
    }

    /** Releases code that was added, which no thread executes any more. Called by `release`. */
    ::asmjit::Error _release(void *code) noexcept override {
        if (code == nullptr) {
            return HOSTMEM_ASMJIT_ERROR(InvalidArgument);
        }
        hm_live live = {};
        hm_status status = hm_jit_query(jit_, code, &live);
        if (status == HM_OK && live.span.rx != code) {
            status = HM_UNKNOWN_POINTER;
        }
        if (status == HM_OK) {
            status = hm_jit_release(jit_, &live.span, nullptr);
        }
        return detail::asmjit_error(status);
    }

private:
    static constexpr ::asmjit::Error ok = HOSTMEM_ASMJIT_ERROR(Ok);
    /** What every span is a multiple of, whatever the configuration. */
    static constexpr std::uint32_t always_aligned = 16;

    struct fill_context {
        ::asmjit::CodeHolder *code;
        ::asmjit::Error error;
    };

    static std::size_t fill(void *context, void *rw, void *, std::size_t) {
        fill_context &of = *static_cast<fill_context *>(context);
        /* Relocation may have found that addresses in a table are within reach without it. */
        const std::size_t len = detail::asmjit_size(*of.code);
        of.error = detail::asmjit_copy(*of.code, rw, len);
        return len;
    }

    hm_status allocate(const ::asmjit::CodeHolder &code, std::size_t len, hm_span &span) noexcept {
        std::uint32_t align = always_aligned;
        for (const ::asmjit::Section *section : code.sections()) {
            align = section->alignment() > align ? section->alignment() : align;
        }
        if (align == always_aligned) {
            return hm_jit_alloc(jit_, len, &span, nullptr);
        }
        hm_placement where = {};
        where.align = align;
        return hm_jit_alloc_placed(jit_, len, &where, &span, nullptr);
    }

    hm_jit *jit_;
};

#undef HOSTMEM_ASMJIT_ERROR

} // namespace hostmem

#endif
