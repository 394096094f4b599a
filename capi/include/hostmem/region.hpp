/**
 * @file
 * @brief Regions of addresses.
 */
#ifndef HOSTMEM_REGION_HPP
#define HOSTMEM_REGION_HPP

#include "error.hpp"
#include "owner.hpp"

#include <cstdint>

namespace hostmem {

namespace detail {
inline void close(hm_region *region) noexcept {
    static_cast<void>(hm_region_close(region, nullptr));
}
} // namespace detail

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

} // namespace hostmem

#endif
