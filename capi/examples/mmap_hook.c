/* An allocator that is not this library's takes its memory from a region, by hooks with mmap's
 * signatures, as rpmalloc, jemalloc and others have them: all that it maps lies in addresses that
 * belong to the program alone.
 *
 *   cc mmap_hook.c $(pkg-config --cflags --libs hostmem) -o mmap_hook && ./mmap_hook
 */
#define _GNU_SOURCE
#include <errno.h>
#include <hostmem.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* --- The other allocator: pools that are cut from front to back. --- */

struct hooks {
    void *(*map)(void *, size_t, int, int, int, int64_t);
    int (*unmap)(void *, size_t);
    int (*advise)(void *, size_t, int);
};

struct pool {
    const struct hooks *hooks;
    char *start;
    size_t len, used;
};

static int pool_open(struct pool *pool, const struct hooks *hooks, size_t len) {
    void *start = hooks->map(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        return -1;
    }
    *pool = (struct pool){hooks, start, len, 0};
    return 0;
}

static void *pool_take(struct pool *pool, size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (size > pool->len - pool->used) {
        return NULL;
    }
    void *block = pool->start + pool->used;
    pool->used += size;
    return block;
}

/* Forgets all blocks, and gives their memory back but not their addresses. */
static int pool_reset(struct pool *pool) {
    pool->used = 0;
    return pool->hooks->advise(pool->start, pool->len, MADV_DONTNEED);
}

static int pool_close(struct pool *pool) { return pool->hooks->unmap(pool->start, pool->len); }

/* --- The program. --- */

int main(void) {
    static const struct hooks in_region = {hm_region_mmap, hm_region_munmap, hm_region_madvise};
    hm_error error = HM_ERROR_INIT;
    hm_region *region;
    hm_request request = HM_REQUEST_INIT;
    request.len = (size_t)256 << 20;
    hm_range range;
    if (hm_region_create(NULL, &region, &error) != HM_OK ||
        hm_pages_reserve(NULL, &request, &range, &error) != HM_OK ||
        hm_region_adopt(region, range, &error) != HM_OK) {
        fprintf(stderr, "no region: %s\n", error.message);
        return 1;
    }
    /* An emulator calls hm_region_claim instead, for all addresses above its guest's. */
    hm_region_set_default(region, NULL);

    struct pool pool;
    if (pool_open(&pool, &in_region, 16 << 20) != 0) {
        perror("no pool");
        return 1;
    }
    char *block = pool_take(&pool, 100);
    strcpy(block, "from a pool");
    hm_region_range what;
    if (hm_region_query(region, block, &what) != HM_OK) {
        fputs("the pool is not in the region\n", stderr);
        return 1;
    }
    printf("%s of %zu MiB in the region\n", block, (what.last + 1 - what.first) >> 20);
    if (pool_reset(&pool) != 0 || block[0] != 0 || pool_close(&pool) != 0) {
        perror("the hooks");
        return 1;
    }
    struct pool large;
    if (pool_open(&large, &in_region, (size_t)1 << 30) != -1 || errno != ENOMEM) {
        return 1;
    }
    puts("what does not fit is ENOMEM, like mmap's");
    hm_region_release_unused(region, 1, NULL, NULL);
    hm_region_close(region, NULL);
    return 0;
}
