/**
 * @file
 * @brief One long range of code.
 */
#ifndef HOSTMEM_CODE_RANGE_HPP
#define HOSTMEM_CODE_RANGE_HPP

#include "error.hpp"
#include "owner.hpp"

#include <cstddef>

namespace hostmem {

namespace detail {
inline void close(hm_code *code) noexcept { static_cast<void>(hm_code_close(code, nullptr)); }
} // namespace detail

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

} // namespace hostmem

#endif
