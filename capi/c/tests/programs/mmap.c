/* mmap's signatures in a region, beside the kernel's own calls. */
#define _GNU_SOURCE
#include "region.h"
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

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

int main(void) {
    page = (size_t)sysconf(_SC_PAGESIZE);
    signatures();
    puts("all hold");
    return 0;
}
