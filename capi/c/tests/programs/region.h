/* A region that the tests of regions share. */
#ifndef REGION_H
#define REGION_H

#include "check.h"

#define LEN ((size_t)64 << 20)

static size_t page;
static hm_region *region;
static hm_range whole;

static inline hm_range range(size_t first, size_t pages) {
    hm_range range = {(char *)whole.start + first * page, pages * page};
    return range;
}

static inline void adopt(const hm_region_config *config) {
    hm_request request = HM_REQUEST_INIT;
    request.len = LEN;
    OK(hm_pages_reserve(NULL, &request, &whole, NULL));
    OK(hm_region_create(config, &region, NULL));
    OK(hm_region_adopt(region, whole, NULL));
    STATUS(HM_EXISTS, hm_region_adopt(region, whole, NULL));
}

static inline void give_back(void) {
    OK(hm_region_unmap(region, whole, NULL));
    size_t bytes = 0;
    OK(hm_region_release_unused(region, 1, &bytes, NULL));
    CHECK(bytes == LEN);
    OK(hm_region_close(region, NULL));
}

#endif
