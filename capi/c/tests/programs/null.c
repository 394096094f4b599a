/* Every call with null for all pointers, and then with objects and null for the rest: each says
 * that this cannot be, and none touches memory that it was not given. */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <sys/mman.h>

#define BAD(call) STATUS(HM_INVALID_ARGUMENT, call)

static void without_objects(void) {
    const hm_range none = {NULL, 0};
    hm_live live;
    hm_region_range range;
    hm_mapped_range mapped;
    hm_gap gap;
    hm_span span;
    memset(&span, 0, sizeof span);

    BAD(hm_probe_host(NULL, NULL));
    BAD(hm_set_host(NULL, NULL));
    BAD(hm_pages_reserve(NULL, NULL, NULL, NULL));
    BAD(hm_pages_commit(NULL, none, HM_ACCESS_READ, 0, 0, NULL));
    BAD(hm_pages_protect(NULL, none, HM_ACCESS_READ, NULL));
    BAD(hm_pages_purge(NULL, none, NULL, NULL));
    BAD(hm_pages_decommit(NULL, none, NULL));
    BAD(hm_pages_release(NULL, none, NULL));
    BAD(hm_dual_map(NULL, NULL, NULL, NULL));
    BAD(hm_dual_unmap(NULL, NULL, NULL));
    BAD(hm_dual_purge(NULL, NULL, 0, 4096, NULL));
    BAD(hm_dual_refill(NULL, NULL, 0, 4096, NULL));
    hm_flush_icache(NULL, 100);

    hm_code_info info = HM_CODE_INFO_INIT;
    size_t offset;
    void *place;
    BAD(hm_code_create(NULL, NULL, NULL));
    BAD(hm_code_close(NULL, NULL));
    BAD(hm_code_get_info(NULL, &info, NULL));
    BAD(hm_code_offset(NULL, NULL, &offset));
    BAD(hm_code_begin_write(NULL, 0, 1, &place, NULL));
    BAD(hm_code_end_write(NULL, 0, 1, NULL));
    BAD(hm_code_publish(NULL, 0, 1, HM_BARRIER_NOW, NULL));
    BAD(hm_code_write(NULL, 0, "x", 1, HM_BARRIER_NOW, NULL));
    BAD(hm_code_sync(NULL, NULL));
    BAD(hm_code_recycle(NULL, NULL));
    BAD(hm_code_purge(NULL, 0, 4096, NULL));
    BAD(hm_code_shrink(NULL, 0, 4096, NULL));

    BAD(hm_jit_create(NULL, NULL, NULL));
    BAD(hm_jit_close(NULL, NULL));
    BAD(hm_jit_alloc(NULL, 1, &span, NULL));
    BAD(hm_jit_alloc_near(NULL, 1, NULL, 1, &span, NULL));
    BAD(hm_jit_alloc_placed(NULL, 1, NULL, &span, NULL));
    BAD(hm_jit_alloc_at(NULL, 1, 1, &span, NULL));
    BAD(hm_jit_write(NULL, &span, 0, NULL, 0, NULL));
    BAD(hm_jit_write_deferred(NULL, &span, 0, NULL, 0, NULL));
    BAD(hm_jit_write_many(NULL, NULL, 0, NULL, NULL));
    BAD(hm_jit_write_with(NULL, &span, NULL, NULL, NULL));
    BAD(hm_jit_publish(NULL, NULL));
    BAD(hm_jit_patch_u32(NULL, &span, 0, 0, 0, NULL));
    BAD(hm_jit_patch_u64(NULL, &span, 0, 0, 0, NULL));
    BAD(hm_jit_patch_u32_at(NULL, NULL, 0, 0, NULL));
    BAD(hm_jit_patch_u64_at(NULL, NULL, 0, 0, NULL));
    BAD(hm_jit_shrink(NULL, &span, 1, NULL));
    BAD(hm_jit_query(NULL, NULL, &live));
    BAD(hm_jit_set_word(NULL, &span, 0, NULL));
    BAD(hm_jit_set_group(NULL, &span, 0, NULL));
    BAD(hm_jit_release(NULL, &span, NULL));
    BAD(hm_jit_release_many(NULL, NULL, 0, NULL, NULL));
    BAD(hm_jit_release_group(NULL, 0, NULL, NULL));
    BAD(hm_jit_reset(NULL, 0, NULL));
    BAD(hm_jit_spans(NULL, 0, 0, NULL, NULL, NULL, NULL));
    BAD(hm_jit_trim(NULL, NULL, NULL));
    BAD(hm_jit_get_statistics(NULL, NULL, NULL));
    BAD(hm_jit_get_mapping(NULL, NULL, NULL));
    BAD(hm_jit_fork_prepare(NULL, NULL));
    BAD(hm_jit_fork_parent(NULL, NULL));
    BAD(hm_jit_fork_child(NULL, NULL));

    BAD(hm_retire_create(NULL, NULL, NULL, NULL));
    BAD(hm_retire_close(NULL, NULL));
    BAD(hm_retire_span(NULL, &span, NULL));
    BAD(hm_retire_reclaim(NULL, NULL, NULL));
    BAD(hm_retire_get_statistics(NULL, NULL, NULL));
    BAD(hm_retire_fork_prepare(NULL, NULL));
    BAD(hm_retire_fork_parent(NULL, NULL));
    BAD(hm_retire_fork_child(NULL, NULL, 0, NULL));
    BAD(hm_executor_register(NULL, NULL, NULL));
    BAD(hm_executor_unregister(NULL, NULL));
    hm_executor_quiescent(NULL);
    hm_executor_offline(NULL);
    hm_executor_online(NULL);

    BAD(hm_heap_create(NULL, NULL, NULL));
    BAD(hm_heap_close(NULL, 0, NULL));
    BAD(hm_heap_close(NULL, 1, NULL));
    BAD(hm_heap_alloc(NULL, 1, 1, 0, NULL, NULL));
    CHECK(hm_heap_malloc(NULL, 1) == NULL && hm_heap_calloc(NULL, 1, 1) == NULL);
    CHECK(hm_heap_aligned_alloc(NULL, 1, 1) == NULL && hm_heap_realloc(NULL, NULL, 1) == NULL);
    BAD(hm_heap_free(NULL, NULL));
    BAD(hm_heap_free_sized(NULL, NULL, 1, 1));
    CHECK(hm_heap_usable_size(NULL, NULL) == 0 && hm_heap_owns(NULL, NULL) == 0);
    CHECK(hm_heap_block_of(NULL, NULL, NULL) == NULL && hm_heap_of(NULL) == NULL);
    BAD(hm_heap_trim(NULL, 0, NULL));
    BAD(hm_heap_trim_to(NULL, 0, NULL, NULL));
    BAD(hm_heap_tick(NULL, 0, NULL));
    BAD(hm_heap_try_alloc(NULL, 1, 1, 0, NULL, NULL));
    BAD(hm_heap_try_realloc(NULL, NULL, 1, 1, 1, NULL));
    BAD(hm_heap_try_free(NULL, NULL, NULL));
    BAD(hm_heap_walk(NULL, NULL, NULL, NULL));
    BAD(hm_heap_classes(NULL, NULL, NULL, NULL));
    BAD(hm_heap_ranges(NULL, NULL, NULL, NULL));
    BAD(hm_heap_get_statistics(NULL, NULL, NULL));
    CHECK(hm_heap_lua_alloc(NULL, NULL, 0, 0) == NULL);
    CHECK(hm_local_lua_alloc(NULL, NULL, 0, 0) == NULL);
    BAD(hm_local_attach(NULL, NULL, NULL));
    BAD(hm_local_detach(NULL, NULL));
    CHECK(hm_local_malloc(NULL, 1) == NULL && hm_local_calloc(NULL, 1, 1) == NULL);
    CHECK(hm_local_aligned_alloc(NULL, 1, 1) == NULL && hm_local_realloc(NULL, NULL, 1) == NULL);
    BAD(hm_local_free(NULL, NULL));
    BAD(hm_local_free_sized(NULL, NULL, 1, 1));
    BAD(hm_local_flush(NULL, NULL));

    BAD(hm_region_create(NULL, NULL, NULL));
    BAD(hm_region_close(NULL, NULL));
    BAD(hm_region_claim(NULL, NULL, NULL, NULL));
    BAD(hm_region_adopt(NULL, none, NULL));
    BAD(hm_region_release_unused(NULL, 0, NULL, NULL));
    BAD(hm_region_map(NULL, NULL, 0, 0, 0, 0, NULL, NULL));
    BAD(hm_region_map_over(NULL, none, 0, 0, 0, 0, NULL));
    BAD(hm_region_unmap(NULL, none, NULL));
    BAD(hm_region_protect(NULL, none, 0, NULL));
    BAD(hm_region_purge(NULL, none, NULL, NULL));
    BAD(hm_region_remap(NULL, none, 0, 0, 0, NULL, NULL));
    BAD(hm_region_query(NULL, NULL, &range));
    BAD(hm_region_walk(NULL, 0, 0, NULL, NULL, NULL));
    BAD(hm_region_largest_gap(NULL, 0, 0, &gap));
    BAD(hm_region_get_statistics(NULL, NULL, NULL));
    BAD(hm_region_free_interrupted(NULL, NULL, NULL));
    OK(hm_region_set_default(NULL, NULL));
    CHECK(hm_region_get_default() == NULL);
    CHECK(hm_region_mmap(NULL, 0, 0, 0, 0, 0) == MAP_FAILED && errno == ENODEV);
    CHECK(hm_region_mremap(NULL, 0, 0, 0) == MAP_FAILED && errno == ENODEV);
    CHECK(hm_region_munmap(NULL, 0) == -1 && hm_region_mprotect(NULL, 0, 0) == -1);
    CHECK(hm_region_madvise(NULL, 0, 0) == -1 && errno == ENODEV);

    BAD(hm_range_map_create(NULL, NULL, NULL));
    BAD(hm_range_map_close(NULL, NULL));
    BAD(hm_range_map_query(NULL, 0, &mapped));
    BAD(hm_range_map_next(NULL, 0, &mapped));
    BAD(hm_range_map_prev(NULL, 0, &mapped));
    BAD(hm_range_map_insert(NULL, 0, 4095, 0, NULL, NULL));
    BAD(hm_range_map_insert_new(NULL, 0, 4095, 0, NULL));
    BAD(hm_range_map_remove(NULL, 0, 4095, NULL, NULL));
    BAD(hm_range_map_rewrite(NULL, 0, 4095, NULL, NULL, NULL, NULL));
    BAD(hm_range_map_prepare(NULL, 1, NULL));
    BAD(hm_range_map_find_gap(NULL, 4096, 0, 0, 0, 0, 0, 0, &gap, NULL));
    BAD(hm_range_map_largest_gap(NULL, 0, 0, &gap));
    BAD(hm_range_map_walk(NULL, 0, 0, NULL, NULL, NULL));
    BAD(hm_range_map_get_statistics(NULL, NULL, NULL));
    OK(hm_fork_child_all(NULL)); /* Nothing is locked, so that there is nothing to repair. */
}

static void with_objects(void) {
    const hm_range none = {NULL, 0};
    hm_jit *jit = NULL;
    hm_retire *retire = NULL;
    hm_heap *heap = NULL;
    hm_region *region = NULL;
    hm_range_map *map = NULL;
    hm_range_map_config config = HM_RANGE_MAP_CONFIG_INIT;
    config.last = 0xffffffff;
    OK(hm_jit_create(NULL, &jit, NULL));
    OK(hm_retire_create(jit, NULL, &retire, NULL));
    OK(hm_heap_create(NULL, &heap, NULL));
    OK(hm_region_create(NULL, &region, NULL));
    OK(hm_range_map_create(&config, &map, NULL));

    BAD(hm_jit_alloc(jit, 1, NULL, NULL));
    BAD(hm_jit_alloc_near(jit, 1, NULL, 1, NULL, NULL));
    BAD(hm_jit_alloc_placed(jit, 1, NULL, NULL, NULL));
    BAD(hm_jit_alloc_at(jit, 1, 1, NULL, NULL));
    BAD(hm_jit_write(jit, NULL, 0, NULL, 0, NULL));
    BAD(hm_jit_write_deferred(jit, NULL, 0, NULL, 0, NULL));
    BAD(hm_jit_write_many(jit, NULL, 1, NULL, NULL));
    BAD(hm_jit_write_with(jit, NULL, NULL, NULL, NULL));
    BAD(hm_jit_patch_u32(jit, NULL, 0, 0, 0, NULL));
    BAD(hm_jit_patch_u64(jit, NULL, 0, 0, 0, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_patch_u32_at(jit, NULL, 0, 0, NULL));
    BAD(hm_jit_shrink(jit, NULL, 1, NULL));
    BAD(hm_jit_query(jit, NULL, NULL));
    BAD(hm_jit_set_word(jit, NULL, 0, NULL));
    BAD(hm_jit_set_group(jit, NULL, 0, NULL));
    BAD(hm_jit_release(jit, NULL, NULL));
    BAD(hm_jit_release_many(jit, NULL, SIZE_MAX, NULL, NULL));
    BAD(hm_jit_spans(jit, 0, 0, NULL, NULL, NULL, NULL));
    OK(hm_jit_trim(jit, NULL, NULL));
    BAD(hm_jit_get_statistics(jit, NULL, NULL));
    BAD(hm_jit_get_mapping(jit, NULL, NULL));
    BAD(hm_retire_create(jit, NULL, NULL, NULL));
    BAD(hm_retire_span(retire, NULL, NULL));
    OK(hm_retire_reclaim(retire, NULL, NULL));
    BAD(hm_retire_get_statistics(retire, NULL, NULL));
    BAD(hm_retire_fork_child(retire, NULL, 1, NULL));
    BAD(hm_executor_register(retire, NULL, NULL));

    BAD(hm_heap_alloc(heap, 1, 1, 0, NULL, NULL));
    OK(hm_heap_free(heap, NULL));
    OK(hm_heap_free_sized(heap, NULL, 1, 0));
    OK(hm_heap_trim_to(heap, 0, NULL, NULL));
    BAD(hm_heap_try_alloc(heap, 1, 1, 0, NULL, NULL));
    BAD(hm_heap_try_realloc(heap, NULL, 1, 1, 1, NULL));
    OK(hm_heap_try_free(heap, NULL, NULL));
    BAD(hm_heap_walk(heap, NULL, NULL, NULL));
    BAD(hm_heap_classes(heap, NULL, NULL, NULL));
    BAD(hm_heap_ranges(heap, NULL, NULL, NULL));
    BAD(hm_heap_get_statistics(heap, NULL, NULL));
    BAD(hm_local_attach(heap, NULL, NULL));

    BAD(hm_region_claim(region, NULL, NULL, NULL));
    BAD(hm_region_adopt(region, none, NULL));
    BAD(hm_region_map(region, NULL, 0, 0, 0, 0, NULL, NULL));
    BAD(hm_region_map_over(region, none, 0, 0, 0, 0, NULL));
    BAD(hm_region_unmap(region, none, NULL));
    BAD(hm_region_protect(region, none, 0, NULL));
    BAD(hm_region_purge(region, none, NULL, NULL));
    BAD(hm_region_remap(region, none, 0, 0, 0, NULL, NULL));
    BAD(hm_region_query(region, NULL, NULL));
    BAD(hm_region_walk(region, 0, 0, NULL, NULL, NULL));
    BAD(hm_region_largest_gap(region, 0, 0, NULL));
    BAD(hm_region_get_statistics(region, NULL, NULL));
    CHECK(hm_region_munmap_in(region, NULL, 4096) == -1 && errno == EINVAL);
    CHECK(hm_region_mprotect_in(region, NULL, 4096, 0) == -1 && errno == EINVAL);
    CHECK(hm_region_mremap_in(region, NULL, 4096, 4096, 0) == MAP_FAILED && errno == EINVAL);
    CHECK(hm_region_madvise_in(region, NULL, 4096, 0) == -1 && errno == EINVAL);
    BAD(hm_region_set_default((hm_region *)(void *)heap, NULL));

    BAD(hm_range_map_query(map, 0, NULL));
    BAD(hm_range_map_next(map, 0, NULL));
    BAD(hm_range_map_prev(map, 0, NULL));
    OK(hm_range_map_insert(map, 0, 4095, 0, NULL, NULL));
    OK(hm_range_map_remove(map, 0, 4095, NULL, NULL));
    BAD(hm_range_map_rewrite(map, 0, 4095, NULL, NULL, NULL, NULL));
    BAD(hm_range_map_find_gap(map, 4096, 0, 0, 0, 0, 0, 0, NULL, NULL));
    BAD(hm_range_map_largest_gap(map, 0, 0, NULL));
    BAD(hm_range_map_walk(map, 0, 0, NULL, NULL, NULL));
    BAD(hm_range_map_get_statistics(map, NULL, NULL));

    OK(hm_range_map_close(map, NULL));
    OK(hm_region_close(region, NULL));
    OK(hm_heap_close(heap, 0, NULL));
    OK(hm_retire_close(retire, NULL));
    OK(hm_jit_close(jit, NULL));
}

int main(void) {
    without_objects();
    with_objects();
    puts("all hold");
    return 0;
}
