/* What a heap tells of itself, and what it hides. */
#include "check.h"

static hm_heap *make(const hm_heap_config *config) {
    hm_heap *heap = NULL;
    OK(hm_heap_create(config, &heap, NULL));
    return heap;
}

static hm_heap_statistics held(hm_heap *heap) {
    hm_heap_statistics held = HM_HEAP_STATISTICS_INIT;
    OK(hm_heap_get_statistics(heap, &held, NULL));
    return held;
}

typedef struct {
    size_t kinds[5];
    size_t of_blocks, last, used;
    const void *block;
    int found, left;
} seen;

static int see_range(void *context, const hm_heap_range *found) {
    seen *all = context;
    CHECK(found->first < found->last && found->kind < 5 && found->reserved == 0);
    int of_blocks = found->kind <= HM_HEAP_RANGE_KEPT;
    CHECK(!of_blocks || found->first > all->last);
    if (of_blocks) {
        all->last = found->last;
        all->of_blocks += found->last - found->first + 1;
        all->found += found->first <= (size_t)all->block && (size_t)all->block <= found->last;
    }
    all->kinds[found->kind]++;
    return --all->left == 0;
}

static int see_class(void *context, const hm_heap_class *found) {
    seen *all = context;
    CHECK(found->block_size > all->last && found->used + found->cached <= found->blocks);
    all->last = found->block_size;
    all->used += found->used * found->block_size;
    return --all->left == 0;
}

/* All that the heap holds is told. */
static void parts(void) {
    hm_heap *heap = make(NULL);
    void *large = hm_heap_malloc(heap, 10 << 20);
    void *small[100];
    for (size_t n = 0; n < 100; n++) {
        small[n] = hm_heap_malloc(heap, n * 10);
    }
    seen all = {.block = large};
    OK(hm_heap_ranges(heap, see_range, &all, NULL));
    CHECK(all.found == 1 && all.kinds[HM_HEAP_RANGE_HUGE] == 1);
    CHECK(all.kinds[HM_HEAP_RANGE_SEGMENT] > 0 && all.kinds[HM_HEAP_RANGE_ARENA] > 0);
    CHECK(all.of_blocks == held(heap).reserved);
    all = (seen){.block = small[50], .left = 1};
    OK(hm_heap_ranges(heap, see_range, &all, NULL));
    CHECK(all.found <= 1 && all.left == 0);
    all = (seen){0};
    OK(hm_heap_classes(heap, see_class, &all, NULL));
    CHECK(all.used + held(heap).huge == held(heap).used);
    all = (seen){.left = 1};
    OK(hm_heap_classes(heap, see_class, &all, NULL));
    CHECK(all.left == 0);
    OK(hm_heap_free(heap, large));
    for (size_t n = 0; n < 100; n++) {
        OK(hm_heap_free(heap, small[n]));
    }
    OK(hm_heap_close(heap, 0, NULL));
}

/* Stores where the first blocks lie, in their segment. */
static void lie(const unsigned char *keys, size_t offsets[40]) {
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.hardening = HM_HARDENING_FULL;
    config.keys = keys;
    hm_heap *heap = make(&config);
    for (size_t n = 0; n < 40; n++) {
        offsets[n] = (size_t)hm_heap_malloc(heap, 8) % 65536;
    }
    OK(hm_heap_close(heap, 0, NULL));
}

/* What a hardened heap hides comes from its keys. */
static void keys(void) {
    unsigned char one[32], other[32];
    memset(one, 1, sizeof one);
    memset(other, 2, sizeof other);
    size_t lies[4][40];
    lie(one, lies[0]);
    lie(one, lies[1]);
    lie(other, lies[2]);
    lie(NULL, lies[3]);
    CHECK(memcmp(lies[0], lies[1], sizeof *lies) == 0);
    CHECK(memcmp(lies[0], lies[2], sizeof *lies) != 0);
    CHECK(memcmp(lies[0], lies[3], sizeof *lies) != 0);
}

int main(void) {
    parts();
    keys();
    puts("all hold");
    return 0;
}
