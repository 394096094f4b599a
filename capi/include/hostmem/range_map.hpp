/**
 * @file
 * @brief Maps of ranges of addresses.
 */
#ifndef HOSTMEM_RANGE_MAP_HPP
#define HOSTMEM_RANGE_MAP_HPP

#include "error.hpp"
#include "owner.hpp"

#include <cstddef>
#include <cstdint>

namespace hostmem {

namespace detail {
inline void close(hm_range_map *map) noexcept {
    static_cast<void>(hm_range_map_close(map, nullptr));
}
} // namespace detail

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
