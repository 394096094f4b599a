/* Regions: calls, claims, signals, forks. */
#define _GNU_SOURCE
#include "region.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static hm_region_range query(const void *address) {
    hm_region_range found;
    OK(hm_region_query(region, address, &found));
    return found;
}

static int count(void *context, const hm_region_range *range) {
    size_t *pages = context;
    CHECK(range->last > range->first);
    *pages += (range->last + 1 - range->first) / page;
    return 0;
}

static int add_gap(void *context, const hm_gap *gap) {
    size_t *pages = context;
    *pages += (gap->last + 1 - gap->first) / page;
    return 0;
}

/* Whether memory is left out of core files, as the kernel says. */
static int is_excluded(const void *address) {
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[512];
    int inside = 0, found = EMULATED;
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long first, last;
        if (sscanf(line, "%lx-%lx ", &first, &last) == 2) {
            inside = first <= (size_t)address && (size_t)address < last;
        }
        found |= inside && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd") != NULL;
    }
    fclose(file);
    return found;
}

static void calls(void) {
    adopt(NULL);
    hm_request request = HM_REQUEST_INIT;
    request.len = 10 * page;
    hm_range a, b, c;
    OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 7, &a, NULL));
    CHECK(a.start == whole.start && a.len == 10 * page);
    memset(a.start, 1, a.len);
    OK(hm_region_map(region, &request, HM_ACCESS_READ, HM_CEILING_READ_WRITE, 0, 8, &b, NULL));
    CHECK((char *)b.start == (char *)a.start + a.len);
    hm_region_range found = query((char *)b.start + 5);
    CHECK(found.first == (size_t)b.start && found.last == (size_t)b.start + b.len - 1);
    CHECK(found.tag == 8 && found.state == HM_STATE_COMMITTED && found.access == HM_ACCESS_READ);
    OK(hm_region_protect(region, b, HM_ACCESS_READ_WRITE, NULL));
    memset(b.start, 2, b.len);
    size_t pages = 0;
    OK(hm_region_walk(region, 0, 0, count, &pages, NULL));
    CHECK(pages == 20);
    STATUS(HM_INVALID_ARGUMENT, hm_region_walk(region, 0, 0, NULL, &pages, NULL));

    /* Behind a is b, so that it cannot become longer there. */
    STATUS(HM_EXISTS, hm_region_remap(region, a, 20 * page, 0, HM_ACCESS_READ_WRITE, &c, NULL));
    OK(hm_region_remap(region, a, 20 * page, 1, HM_ACCESS_READ_WRITE, &c, NULL));
    CHECK(c.start != a.start && c.len == 20 * page && query(c.start).tag == 7);
    CHECK(((char *)c.start)[10 * page - 1] == 1 && ((char *)c.start)[10 * page] == 0);
    STATUS(HM_UNKNOWN_POINTER, hm_region_query(region, a.start, &found));
    OK(hm_region_remap(region, c, 5 * page, 0, HM_ACCESS_READ_WRITE, &c, NULL));
    CHECK(c.len == 5 * page);
    hm_purged shown = 99;
    OK(hm_region_purge(region, c, &shown, NULL));
    CHECK(shown == HM_PURGED_ZERO && ((char *)c.start)[0] == 0);

    hm_gap gap;
    OK(hm_region_largest_gap(region, 0, 0, &gap));
    CHECK(gap.last == (size_t)whole.start + LEN - 1);
    STATUS(HM_UNKNOWN_POINTER,
           hm_region_largest_gap(region, (size_t)b.start, (size_t)b.start + b.len - 1, &gap));
    size_t free_pages = 0;
    OK(hm_region_gaps(region, 0, 0, add_gap, &free_pages, NULL));
    CHECK(free_pages == LEN / page - 15);
    free_pages = 0;
    OK(hm_region_gaps(region, (size_t)b.start, gap.first + page - 1, add_gap, &free_pages, NULL));
    CHECK(free_pages == 1 + (gap.first - (size_t)b.start - b.len - c.len) / page);
    STATUS(HM_INVALID_ARGUMENT, hm_region_gaps(region, 0, 0, NULL, NULL, NULL));

    /* Advice changes no contents; what it is about must be pages. */
    memset(b.start, 2, b.len);
    OK(hm_region_describe(region, b, "test", 1, NULL));
    OK(hm_region_describe(region, whole, NULL, 0, NULL));
    OK(hm_region_wish_pages(region, b, HM_PAGES_NEVER_LARGE, NULL));
    OK(hm_region_wish_pages(region, whole, HM_PAGES_TRANSPARENT, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_region_wish_pages(region, b, HM_PAGES_BASE, NULL));
    hm_range half = {b.start, page / 2};
    STATUS(HM_INVALID_ARGUMENT, hm_region_wish_pages(region, half, HM_PAGES_TRANSPARENT, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_region_describe(region, half, NULL, 0, NULL));
    CHECK(((char *)b.start)[b.len - 1] == 2 && is_excluded(b.start));

    hm_error error = HM_ERROR_INIT;
    request.placement.place = HM_PLACE_EXACT;
    request.placement.at = (size_t)b.start;
    STATUS(HM_EXISTS, hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &a, &error));
    CHECK(error.guest_error == EEXIST && error.system_error == 0);
    request.placement.at = 1 << 20;
    STATUS(HM_OUT_OF_RANGE,
           hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &a, &error));
    request.placement.place = HM_PLACE_ANYWHERE;
    request.len = LEN;
    STATUS(HM_OUT_OF_MEMORY,
           hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &a, &error));
    CHECK(error.guest_error == ENOMEM);
    request.len = 0;
    STATUS(HM_INVALID_ARGUMENT,
           hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &a, &error));
    STATUS(HM_INVALID_ARGUMENT, hm_region_map(region, NULL, HM_ACCESS_READ, 0, 0, 0, &a, NULL));
    OK(hm_region_map_over(region, range(10, 2), HM_ACCESS_READ_WRITE, 0, 0, 9, NULL));
    CHECK(query(b.start).tag == 9 && *(char *)b.start == 0);
    CHECK(query((char *)b.start + 2 * page).tag == 8);

    hm_region_statistics held = HM_REGION_STATISTICS_INIT;
    OK(hm_region_get_statistics(region, &held, NULL));
    CHECK(held.active == 1 && held.adopted == LEN && held.used == 15 * page);
    CHECK(held.host_mappings != 0 && held.mapping_pressure == 0);
    OK(hm_region_unmap(region, whole, NULL));
    OK(hm_region_get_statistics(region, &held, NULL));
    CHECK(held.used == 0);
    STATUS(HM_INVALID_ARGUMENT, hm_region_unmap(region, range(0, 0), NULL));
    OK(hm_region_free_interrupted(region, NULL, NULL));
    give_back();
}

/* All above 4 GiB is the program's. */
static void claims(void) {
    hm_claim claim = HM_CLAIM_INIT;
    hm_claim_report report = HM_CLAIM_REPORT_INIT;
    OK(hm_region_create(NULL, &region, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_region_claim(region, &claim, &report, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_region_claim(region, NULL, &report, NULL));
    /* Before, it passes everything on. */
    void *early = hm_region_mmap_in(region, NULL, page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(early != MAP_FAILED);
    claim.first = (size_t)1 << 32;
    OK(hm_region_claim(region, &claim, &report, NULL));
    CHECK(report.size == sizeof report && report.first >= claim.first);
    if (!report.complete) {
        fprintf(stderr, "the claim is not complete: %llu bytes are missed\n",
                (unsigned long long)report.missed_bytes);
    }
    void *inside = hm_region_mmap_in(region, NULL, page, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(inside != MAP_FAILED && (size_t)inside >= claim.first);
    void *other = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(other != MAP_FAILED && ((size_t)other < claim.first || !report.complete));
    CHECK(hm_region_munmap_in(region, early, page) == 0);
    hm_region_statistics held = HM_REGION_STATISTICS_INIT;
    OK(hm_region_get_statistics(region, &held, NULL));
    CHECK(held.adopted > (size_t)1 << 40 && held.used == page);
    OK(hm_region_close(region, NULL));
}

static volatile sig_atomic_t answers;

static void handler(int number) {
    (void)number;
    hm_request request = HM_REQUEST_INIT;
    request.len = 3 * page;
    hm_range got;
    OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 1, &got, NULL));
    *(char *)got.start = 1;
    CHECK(query(got.start).tag == 1);
    OK(hm_region_unmap(region, got, NULL));
    answers++;
}

static void signals(void) {
    hm_region_config config = HM_REGION_CONFIG_INIT;
    config.block_signals = 1;
    config.order = HM_ORDER_HIGHEST;
    adopt(&config);
    pid_t self = getpid();
    signal(SIGUSR1, handler);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (;;) {
            kill(self, SIGUSR1);
        }
    }
    hm_request request = HM_REQUEST_INIT;
    for (size_t n = 0; answers < 1000; n++) {
        request.len = (n % 10 + 1) * page;
        hm_range got;
        OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 2, &got, NULL));
        CHECK(query(got.start).tag == 2);
        OK(hm_region_unmap(region, got, NULL));
    }
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    signal(SIGUSR1, SIG_IGN);
    give_back();
    config.order = 9;
    STATUS(HM_INVALID_ARGUMENT, hm_region_create(&config, &region, NULL));
}

static int stop;

static void *churn(void *context) {
    hm_request request = HM_REQUEST_INIT;
    (void)context;
    for (size_t n = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++) {
        request.len = (n % 20 + 1) * page;
        hm_range got;
        OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 3, &got, NULL));
        OK(hm_region_protect(region, got, HM_ACCESS_READ, NULL));
        OK(hm_region_unmap(region, got, NULL));
    }
    return NULL;
}

/* A child goes on with the region that another thread was changing. */
static void forks(void) {
    adopt(NULL);
    hm_request request = HM_REQUEST_INIT;
    request.len = 5 * page;
    hm_range kept;
    OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 4, &kept, NULL));
    *(char *)kept.start = 9;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, churn, NULL) == 0);
    for (int n = 0; n < 100; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(100);
            OK(hm_fork_child_all(NULL));
            /* What the other thread was mapping is no longer used. */
            OK(hm_region_free_interrupted(region, NULL, NULL));
            CHECK(*(char *)kept.start == 9 && query(kept.start).tag == 4);
            for (size_t pages = 1; pages < 100; pages++) {
                request.len = pages * page;
                hm_range got;
                OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 5, &got, NULL));
                memset(got.start, 1, got.len);
                OK(hm_region_unmap(region, got, NULL));
            }
            OK(hm_region_unmap(region, whole, NULL));
            size_t bytes = 0;
            OK(hm_region_release_unused(region, 1, &bytes, NULL));
            CHECK(bytes == LEN);
            _exit(0);
        }
        int ended = -1;
        CHECK(waitpid(child, &ended, 0) == child && ended == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    give_back();
}

int main(void) {
    page = (size_t)sysconf(_SC_PAGESIZE);
    calls();
    signals();
    if (!EMULATED) {
        forks();
    }
    claims();
    puts("all hold");
    return 0;
}
