/* The host, pages and dual mappings. */
#include "check.h"
#include <unistd.h>

static void probe(void) {
    hm_probe probe = HM_PROBE_INIT;
    OK(hm_probe_host(&probe, NULL));
    CHECK(probe.page_size == (size_t)sysconf(_SC_PAGESIZE));
    CHECK(probe.address_bits >= 39 || probe.address_bits == 0);
    CHECK(probe.best_step == HM_STEP_NONE || probe.steps[0].step != HM_STEP_NONE);
    int found = probe.best_step == HM_STEP_NONE;
    for (int n = 0; n < 8; n++) {
        const hm_probe_step *step = &probe.steps[n];
        found |= step->step == probe.best_step && step->works == 1;
        CHECK(step->works == 0 || step->system_error == 0);
    }
    CHECK(found);
    STATUS(HM_INVALID_ARGUMENT, hm_probe_host(NULL, NULL));
}

static void states(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    hm_request request = HM_REQUEST_INIT;
    hm_error error = HM_ERROR_INIT;
    hm_range range;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_reserve(NULL, &request, &range, &error));
    request.len = 64 * page;
    request.placement.align = 1 << 20;
    request.name = "tests of C";
    OK(hm_pages_reserve(NULL, &request, &range, NULL));
    CHECK(range.len == 64 * page && (size_t)range.start % (1 << 20) == 0);
    OK(hm_pages_commit(NULL, range, HM_ACCESS_READ_WRITE, HM_CEILING_DEFAULT, HM_PAGES_BASE, NULL));
    unsigned char *bytes = range.start;
    CHECK(bytes[0] == 0 && bytes[range.len - 1] == 0);
    memset(bytes, 7, range.len);
    OK(hm_pages_protect(NULL, range, HM_ACCESS_READ, NULL));
    CHECK(bytes[5] == 7);
    OK(hm_pages_protect(NULL, range, HM_ACCESS_READ_WRITE, NULL));
    hm_purged shown = 99;
    OK(hm_pages_purge(NULL, range, &shown, NULL));
    CHECK(shown == HM_PURGED_ZERO && bytes[5] == 0);
    OK(hm_pages_decommit(NULL, range, NULL));
    hm_range part = {bytes + page, page};
    OK(hm_pages_commit(NULL, part, HM_ACCESS_READ_WRITE, HM_CEILING_WRITE_XOR_EXEC,
                       HM_PAGES_NEVER_LARGE, NULL));
    bytes[page] = 1;

    STATUS(HM_INVALID_ARGUMENT, hm_pages_protect(NULL, part, 9, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_pages_commit(NULL, part, HM_ACCESS_READ_WRITE, HM_CEILING_READ,
                                                HM_PAGES_BASE, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_pages_commit(NULL, part, HM_ACCESS_READ_WRITE,
                                                HM_CEILING_DEFAULT, 5000, NULL));
    hm_range wrong = {bytes + 1, page};
    STATUS(HM_INVALID_ARGUMENT, hm_pages_release(NULL, wrong, NULL));
    wrong.start = bytes;
    wrong.len = page + 1;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_release(NULL, wrong, NULL));
    wrong.start = NULL;
    wrong.len = page;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_release(NULL, wrong, NULL));

    /* The same place again. */
    request.placement.place = HM_PLACE_EXACT;
    request.placement.at = (size_t)range.start;
    STATUS(HM_EXISTS, hm_pages_reserve(NULL, &request, &wrong, &error));
    CHECK(error.guest_error == 17);
    OK(hm_pages_release(NULL, range, NULL));
    OK(hm_pages_reserve(NULL, &request, &wrong, NULL));
    CHECK(wrong.start == range.start);
    OK(hm_pages_release(NULL, wrong, NULL));
    request.placement.place = HM_PLACE_ANYWHERE;

    /* Guards, and a window. */
    request.guard_before = 1;
    request.guard_after = page;
    request.placement.align = 0;
    request.placement.last = 0xffffffff;
    OK(hm_pages_reserve(NULL, &request, &range, NULL));
    CHECK(range.len == 66 * page && (size_t)range.start + range.len <= (size_t)1 << 32);
    OK(hm_pages_release(NULL, range, NULL));
    hm_source low = HM_SOURCE_INIT;
    low.last = 0x7fffffff;
    request.placement.last = 0;
    OK(hm_pages_reserve(&low, &request, &range, NULL));
    CHECK((size_t)range.start + range.len <= (size_t)1 << 31);
    OK(hm_pages_release(&low, range, NULL));
    low.first = 1 << 30;
    low.last = 1 << 20;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_reserve(&low, &request, &range, NULL));
}

static void twice(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    hm_dual_request request = HM_DUAL_REQUEST_INIT;
    hm_dual dual = HM_DUAL_INIT;
    hm_error error = HM_ERROR_INIT;
    STATUS(HM_INVALID_ARGUMENT, hm_dual_map(NULL, &request, &dual, &error));
    request.len = 16 * page;
    hm_status made = hm_dual_map(NULL, &request, &dual, &error);
    if (made != HM_OK) {
        fprintf(stderr, "skipped: %s (%d)\n", error.message, error.system_error);
        CHECK(error.step != HM_STEP_NONE);
        return;
    }
    CHECK(dual.len == request.len && dual.rw != dual.rx && dual.step != HM_STEP_NONE);
    size_t len = answer(dual.rw, 33);
    hm_flush_icache(dual.rx, len);
    CHECK(run(dual.rx) == 33);
    if (dual.purges) {
        OK(hm_dual_purge(NULL, &dual, 0, page, NULL));
        OK(hm_dual_refill(NULL, &dual, 0, page, NULL));
        CHECK(EMULATED || *(unsigned char *)dual.rx == 0);
    }
    STATUS(HM_INVALID_ARGUMENT, hm_dual_purge(NULL, &dual, 1, page, NULL));
    OK(hm_dual_unmap(NULL, &dual, NULL));
    CHECK(dual.size == sizeof dual && dual.rw == NULL && dual.rx == NULL && dual.len == 0);
    STATUS(HM_INVALID_ARGUMENT, hm_dual_unmap(NULL, &dual, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_dual_unmap(NULL, NULL, NULL));

    /* A place that is taken is no fault of a strategy. */
    request.rx.place = HM_PLACE_EXACT;
    request.rx.at = (size_t)&page / page * page;
    STATUS(HM_EXISTS, hm_dual_map(NULL, &request, &dual, &error));
    CHECK(error.step == HM_STEP_NONE);
}

int main(void) {
    probe();
    states();
    twice();
    puts("all hold");
    return 0;
}
