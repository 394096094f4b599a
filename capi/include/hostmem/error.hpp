/**
 * @file
 * @brief The status of a call as a `std::error_code`, and what calls throw.
 */
#ifndef HOSTMEM_ERROR_HPP
#define HOSTMEM_ERROR_HPP

#include "../hostmem.h"

#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>
#include <type_traits>

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

} // namespace detail

} // namespace hostmem

#endif
