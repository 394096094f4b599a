/* Regions, and mmap's signatures in them beside the kernel's own calls. */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define LEN ((size_t)64 << 20)

static size_t page;
static hm_region *region;
static hm_range whole;

static hm_range range(size_t first, size_t pages) {
    hm_range range = {(char *)whole.start + first * page, pages * page};
    return range;
}

static void adopt(const hm_region_config *config) {
    hm_request request = HM_REQUEST_INIT;
    request.len = LEN;
    OK(hm_pages_reserve(NULL, &request, &whole, NULL));
    OK(hm_region_create(config, &region, NULL));
    OK(hm_region_adopt(region, whole, NULL));
    STATUS(HM_EXISTS, hm_region_adopt(region, whole, NULL));
}

static void give_back(void) {
    OK(hm_region_unmap(region, whole, NULL));
    size_t bytes = 0;
    OK(hm_region_release_unused(region, 1, &bytes, NULL));
    CHECK(bytes == LEN);
    OK(hm_region_close(region, NULL));
}

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

/* mmap's calls: the kernel's, and those in a region. */
struct calls {
    void *(*map)(void *, size_t, int, int, int, off_t);
    int (*unmap)(void *, size_t);
    int (*protect)(void *, size_t, int);
    void *(*remap)(void *, size_t, size_t, int);
    int (*advise)(void *, size_t, int);
    char *base;
};

static void *kernel_remap(void *address, size_t len, size_t new_len, int flags) {
    return mremap(address, len, new_len, flags);
}

static int kernel_protect(void *address, size_t len, int prot) {
    return mprotect(address, len, prot);
}

static void *region_map(void *address, size_t len, int prot, int flags, int fd, off_t offset) {
    return hm_region_mmap(address, len, prot, flags, fd, offset);
}

/* What a step gives: an offset from the base, or a number of an error. */
static long long step(const struct calls *to, int n, int file) {
    char *base = to->base;
    const int private = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
    const int fixed = MAP_FIXED, exact = MAP_FIXED_NOREPLACE;
    void *got = MAP_FAILED;
    int failed = -1;
    errno = 0;
    switch (n) {
    case 0:
        got = to->map(base, 10 * page, rw, private | exact, -1, 0);
        break;
    case 1:
        got = to->map(base + 5 * page, page, rw, private | exact, -1, 0);
        break;
    case 2:
        got = to->map(base + 5 * page, page, PROT_READ, private | fixed, -1, 0);
        break;
    case 3:
        got = to->map(base + 5 * page + 1, page, rw, private | fixed, -1, 0);
        break;
    case 4:
        got = to->map(base + 5 * page, 0, rw, private | fixed, -1, 0);
        break;
    case 5:
        got = to->map(base + 20 * page, 2 * page, rw, MAP_SHARED | exact, file, 0);
        break;
    case 6:
        got = to->map(base + 24 * page, 2 * page, rw, MAP_SHARED | exact, file, 1);
        break;
    case 7:
        got = to->map(base + 24 * page, 2 * page, rw, MAP_SHARED | exact, -1, 0);
        break;
    case 8:
        got = to->map(base + 24 * page, page, PROT_READ, MAP_PRIVATE | fixed, file, (off_t)page);
        break;
    case 9:
        got = to->map(base, page, rw, MAP_ANONYMOUS, -1, 0);
        break;
    case 10:
        failed = to->protect(base, 2 * page, PROT_READ);
        break;
    case 11:
        failed = to->protect(base + 1, page, PROT_READ);
        break;
    case 12:
        failed = to->protect(base + 30 * page, page, PROT_READ);
        break;
    case 13:
        failed = to->protect(base + 9 * page, 2 * page, PROT_READ);
        break;
    case 14:
        failed = to->protect(base, 0, PROT_READ);
        break;
    case 15:
        failed = to->unmap(base + 8 * page, 4 * page);
        break;
    case 16:
        failed = to->unmap(base + 40 * page, page);
        break;
    case 17:
        failed = to->unmap(base + 1, page);
        break;
    case 18:
        failed = to->unmap(base, 0);
        break;
    case 19:
        got = to->remap(base + 6 * page, 2 * page, 3 * page, 0);
        break;
    case 20:
        got = to->remap(base + 6 * page, 2 * page, 0, 0);
        break;
    case 21:
        got = to->remap(base + 50 * page, page, 2 * page, 0);
        break;
    case 22:
        got = to->remap(base + 2 * page, 3 * page, 4 * page, 0);
        break;
    case 23:
        got = to->remap(base + 6 * page, 3 * page, page, 0);
        break;
    case 24:
        failed = to->advise(base + 2 * page, page, MADV_DONTNEED);
        break;
    case 25:
        failed = to->advise(base + 60 * page, page, MADV_DONTNEED);
        break;
    case 26:
        failed = to->advise(base + 1, page, MADV_DONTNEED);
        break;
    case 27:
        failed = to->advise(base + 2 * page, page, 9999);
        break;
    case 28:
        failed = to->advise(base + 2 * page, 0, MADV_DONTNEED);
        break;
    case 29:
        failed = to->advise(base, page, MADV_NOHUGEPAGE);
        break;
    case 30:
        failed = to->advise(base, page, MADV_DONTDUMP);
        break;
    case 31:
        got = to->map(base + 70 * page, 4 * page, PROT_NONE, private | exact | MAP_NORESERVE, -1,
                      0);
        break;
    case 32:
        failed = to->protect(base + 70 * page, page, rw);
        break;
    case 33:
        got = to->map(base + 80 * page, page, rw, private | exact | MAP_POPULATE, -1, 0);
        break;
    case 34:
        got = to->map(base + 70 * page, 2 * page, PROT_READ, MAP_SHARED | fixed, file, 0);
        break;
    case 35:
        got = to->map(base + 70 * page, 2 * page, PROT_READ, MAP_SHARED | fixed, 12345, 0);
        break;
    case 36:
        got = to->map(base + 90 * page, page, rw, MAP_SHARED | MAP_ANONYMOUS | exact, -1, 0);
        break;
    case 37:
        got = to->map(base + 90 * page, SIZE_MAX, rw, private, -1, 0);
        break;
    case 38:
        got = to->map(base + 95 * page, page, rw, private, -1, 0);
        break;
    default: return -1000;
    }
    int error = errno;
    if (got != MAP_FAILED) {
        return (char *)got - base;
    }
    return failed == 0 ? 0 : -error;
}

static void signatures(void) {
    char name[] = "/tmp/hostmem-test-XXXXXX";
    int file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, (off_t)(4 * page)) == 0);
    errno = 0;
    CHECK(hm_region_mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    CHECK(errno == ENODEV && hm_region_munmap(NULL, page) == -1 && errno == ENODEV);
    adopt(NULL);
    OK(hm_region_set_default(region, NULL));
    CHECK(hm_region_get_default() == region);
    /* A hole of the same length, as nothing else maps. */
    void *hole = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(hole != MAP_FAILED && munmap(hole, LEN) == 0);
    struct calls kernel = {mmap, munmap, kernel_protect, kernel_remap, madvise, hole};
    struct calls ours = {region_map,       hm_region_munmap,  hm_region_mprotect,
                         hm_region_mremap, hm_region_madvise, whole.start};
    for (int n = 0; n <= 38; n++) {
        long long expected = step(&kernel, n, file), got = step(&ours, n, file);
        if (EMULATED && got < 0) {
            continue;
        }
        if (expected != got) {
            fprintf(stderr, "step %d: the kernel says %lld, the region %lld\n", n, expected, got);
            exit(1);
        }
    }
    char *base = whole.start;
    /* Shared pages of a file are the file's. */
    base[20 * page] = 'x';
    char byte = 0;
    CHECK(pread(file, &byte, 1, 0) == 1 && byte == 'x' && base[70 * page] == 'x');
    /* What was advised away reads zero, and what was protected can be written again. */
    base[3 * page] = 5;
    CHECK(hm_region_madvise(base + 3 * page, page, MADV_DONTNEED) == 0 && base[3 * page] == 0);
    CHECK(hm_region_mprotect(base, 2 * page, PROT_READ | PROT_WRITE) == 0);
    base[0] = 1;
    /* Moved, as what lies behind is in use. */
    char *moved = hm_region_mremap(base + 3 * page, page, 4 * page, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED && moved >= base && moved < base + LEN);
    CHECK(hm_region_mremap(moved, page, page, 8) == MAP_FAILED && errno == EINVAL);
    CHECK(hm_region_mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1,
                         0) == MAP_FAILED &&
          errno == EOPNOTSUPP);
    CHECK(hm_region_mmap(NULL, page, 64, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
          errno == EINVAL);
    /* Without a hint, and for a place that is not of the region. */
    void *any = hm_region_mmap(NULL, page, PROT_READ, MAP_PRIVATE, file, 0);
    CHECK(any != MAP_FAILED && (char *)any >= base && (char *)any < base + LEN);
    CHECK(*(char *)any == 'x');
    CHECK(hm_region_mmap(hole, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
              MAP_FAILED &&
          errno == ENOMEM);
    CHECK(munmap(hole, LEN) == 0);
    CHECK(hm_region_munmap_in(region, base, LEN) == 0);
    CHECK(hm_region_munmap_in(NULL, base, LEN) == -1 && errno == ENODEV);
    give_back();
    CHECK(hm_region_get_default() == NULL);
    close(file);
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
    signatures();
    signals();
    if (!EMULATED) {
        forks();
    }
    claims();
    puts("all hold");
    return 0;
}
