/* What stands on a provider of the program's own. */
#define _GNU_SOURCE
#include "provider.h"

static void use_heap(hm_heap *heap) {
    void *blocks[500];
    for (size_t n = 0; n < 500; n++) {
        blocks[n] = hm_heap_calloc(heap, 1, n * n);
        CHECK(blocks[n] != NULL && is_inside(blocks[n]));
        memset(blocks[n], 1, n * n);
    }
    for (size_t n = 0; n < 500; n++) {
        OK(hm_heap_free(heap, blocks[n]));
    }
    /* More than there is. */
    CHECK(hm_heap_malloc(heap, (size_t)1 << 30) == NULL);
    OK(hm_heap_trim(heap, HM_TRIM_DEEP, NULL));
}

static void heaps(void) {
    hm_source source = open_arena((size_t)256 << 20);
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.source = &source;
    hm_heap *heap = NULL;
    OK(hm_heap_create(&config, &heap, NULL));
    use_heap(heap);
    OK(hm_heap_close(heap, 0, NULL));
    close_arena();

    /* Each call of the provider fails once, and nothing is left behind. */
    for (size_t n = 1; n < 40; n++) {
        source = open_arena((size_t)64 << 20);
        arena.refuse_at = n;
        if (hm_heap_create(&config, &heap, NULL) == HM_OK) {
            for (size_t size = 1; size < 4 << 20; size *= 2) {
                void *block = hm_heap_malloc(heap, size);
                CHECK(block == NULL || is_inside(block));
                OK(hm_heap_free(heap, block));
            }
            OK(hm_heap_close(heap, 0, NULL));
        }
        close_arena();
    }
}

static void code(void) {
    hm_source source = open_arena((size_t)64 << 20);
    const hm_mapping kinds[] = {HM_MAPPING_TOGGLE, HM_MAPPING_AUTO, HM_MAPPING_READ_WRITE_EXEC};
    for (int n = 0; n < 3; n++) {
        hm_jit_config config = HM_JIT_CONFIG_INIT;
        config.source = &source;
        config.mapping = kinds[n];
        config.sync_cores = HM_SYNC_NEVER;
        hm_jit *jit = NULL;
        OK(hm_jit_create(&config, &jit, NULL));
        unsigned char bytes[ANSWER_MOST];
        hm_span span;
        OK(hm_jit_alloc(jit, ANSWER_MOST, &span, NULL));
        OK(hm_jit_write(jit, &span, 0, bytes, answer(bytes, 8), NULL));
        CHECK(is_inside(span.rx) && run(span.rx) == 8);
        OK(hm_jit_close(jit, NULL));
    }
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.source = &source;
    hm_jit *jit = NULL;
    STATUS(HM_UNSUPPORTED, hm_jit_create(&config, &jit, NULL));
    config.mapping = HM_MAPPING_TOGGLE;
    config.sync_cores = HM_SYNC_REQUIRED;
    STATUS(HM_UNSUPPORTED, hm_jit_create(&config, &jit, NULL));
    close_arena();
}

static int mapped_twice;

static uint32_t map_dual(void *context, const hm_dual_request *wanted, hm_dual *dual) {
    CHECK(context == &arena && wanted->size == sizeof *wanted && wanted->fork == HM_FORK_SHARE);
    int file = memfd_create("test", 0);
    CHECK(file >= 0 && ftruncate(file, (off_t)wanted->len) == 0);
    dual->rw = mmap(NULL, wanted->len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    dual->rx = mmap(NULL, wanted->len, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    CHECK(dual->rw != MAP_FAILED && dual->rx != MAP_FAILED && close(file) == 0);
    dual->step = HM_STEP_OTHER;
    dual->len = wanted->len;
    mapped_twice++;
    return HM_OK;
}

static uint32_t unmap_dual(void *context, const hm_dual *dual) {
    CHECK(context == &arena && dual->size == sizeof *dual);
    CHECK(munmap(dual->rw, dual->len) == 0 && munmap(dual->rx, dual->len) == 0);
    mapped_twice--;
    return HM_OK;
}

static void twice(void) {
    hm_source source = open_arena((size_t)64 << 20);
    provider.map_dual = map_dual;
    STATUS(HM_INVALID_ARGUMENT, hm_dual_map(&source, NULL, NULL, NULL));
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.source = &source;
    config.fork = HM_FORK_SHARE;
    hm_jit *jit = NULL;
    STATUS(HM_INVALID_ARGUMENT, hm_jit_create(&config, &jit, NULL));
    provider.unmap_dual = unmap_dual;
    OK(hm_jit_create(&config, &jit, NULL));
    unsigned char bytes[ANSWER_MOST];
    hm_span span;
    OK(hm_jit_alloc(jit, ANSWER_MOST, &span, NULL));
    OK(hm_jit_write(jit, &span, 0, bytes, answer(bytes, 9), NULL));
    CHECK(run(span.rx) == 9 && mapped_twice == 1);
    OK(hm_jit_close(jit, NULL));
    CHECK(mapped_twice == 0);
    hm_dual_request request = HM_DUAL_REQUEST_INIT;
    hm_dual dual = HM_DUAL_INIT;
    request.len = 4 * arena.page;
    request.fork = HM_FORK_SHARE;
    OK(hm_dual_map(&source, &request, &dual, NULL));
    *(char *)dual.rw = 3;
    CHECK(*(char *)dual.rx == 3 && dual.step == HM_STEP_OTHER && dual.purges == 0);
    STATUS(HM_UNSUPPORTED, hm_dual_purge(&source, &dual, 0, arena.page, NULL));
    OK(hm_dual_unmap(&source, &dual, NULL));
    close_arena();
}

static uint32_t strange(void *context, hm_range range) {
    (void)context;
    (void)range;
    return 12345;
}

static void others(void) {
    hm_source source = open_arena((size_t)64 << 20);
    hm_range_map_config config = HM_RANGE_MAP_CONFIG_INIT;
    config.source = &source;
    config.last = 0xffffffff;
    hm_range_map *map = NULL;
    OK(hm_range_map_create(&config, &map, NULL));
    for (size_t n = 0; n < 10000; n++) {
        OK(hm_range_map_insert(map, n * 8192, n * 8192 + 4095, n, NULL, NULL));
    }
    OK(hm_range_map_close(map, NULL));
    /* Pages, in a window too. */
    hm_request request = HM_REQUEST_INIT;
    request.len = 10;
    hm_range range;
    source.first = (size_t)arena.start + (32 << 20);
    OK(hm_pages_reserve(&source, &request, &range, NULL));
    CHECK((size_t)range.start >= source.first && range.len == arena.page);
    OK(hm_pages_commit(&source, range, HM_ACCESS_READ_WRITE, 0, 0, NULL));
    *(char *)range.start = 1;
    hm_purged shown = 99;
    OK(hm_pages_purge(&source, range, &shown, NULL));
    CHECK(shown == HM_PURGED_ZERO && *(char *)range.start == 0);
    OK(hm_pages_protect(&source, range, HM_ACCESS_READ, NULL));
    OK(hm_pages_decommit(&source, range, NULL));
    OK(hm_pages_release(&source, range, NULL));

    /* A number that is no status. */
    provider.decommit = strange;
    hm_error error = HM_ERROR_INIT;
    OK(hm_pages_reserve(&source, &request, &range, NULL));
    STATUS(HM_SYSTEM_ERROR, hm_pages_decommit(&source, range, &error));
    CHECK(error.status == HM_SYSTEM_ERROR);
    provider.decommit = decommit;
    OK(hm_pages_release(&source, range, NULL));

    /* Linux is a host already. */
    STATUS(HM_UNSUPPORTED, hm_set_host(&provider, NULL));

    /* Tables that are none. */
    provider.release = NULL;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_reserve(&source, &request, &range, NULL));
    provider.release = release;
    provider.page_size = 5000;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_reserve(&source, &request, &range, NULL));
    provider.page_size = arena.page;
    provider.size = 8;
    STATUS(HM_INVALID_ARGUMENT, hm_pages_reserve(&source, &request, &range, NULL));
    provider.size = sizeof provider;
    OK(hm_region_create(NULL, &source.region, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_pages_reserve(&source, &request, &range, NULL));
    OK(hm_region_close(source.region, NULL));
    close_arena();
}

int main(void) {
    heaps();
    code();
    twice();
    others();
    puts("all hold");
    return 0;
}
