/* Regions that stand on something else than the host: a provider of the program's own, a window,
 * another region. */
#define _GNU_SOURCE
#include "provider.h"
#include <errno.h>
#include <sys/wait.h>

#define LEN ((size_t)64 << 20)

static hm_range reserve_from(const hm_source *source, size_t len) {
    hm_request request = HM_REQUEST_INIT;
    request.len = len;
    hm_range range;
    OK(hm_pages_reserve(source, &request, &range, NULL));
    return range;
}

static hm_region *region_on(const hm_source *source) {
    hm_region_config config = HM_REGION_CONFIG_INIT;
    config.source = source;
    hm_region *region = NULL;
    OK(hm_region_create(&config, &region, NULL));
    return region;
}

static int is_in(hm_range range, const void *address) {
    return (size_t)address - (size_t)range.start < range.len;
}

/* mmap's signatures serve where the kernel is not needed for them. */
static void signatures(hm_region *region, hm_range whole, size_t page) {
    const int private = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
    char *got = hm_region_mmap_in(region, NULL, 3 * page, rw, private, -1, 0);
    CHECK(got != MAP_FAILED && is_in(whole, got));
    memset(got, 1, 3 * page);
    CHECK(hm_region_mprotect_in(region, got, page, PROT_READ) == 0);
    CHECK(hm_region_mprotect_in(region, got, page, rw) == 0);
    CHECK(hm_region_madvise_in(region, got, page, MADV_DONTNEED) == 0 && got[0] == 0);
    CHECK(got[page] == 1);
    CHECK(hm_region_madvise_in(region, got, page, MADV_FREE) == 0);
    CHECK(hm_region_madvise_in(region, got, page, MADV_SEQUENTIAL) == -1 && errno == EOPNOTSUPP);
    CHECK(hm_region_mprotect_in(region, got + 4096 / 2, page, rw) == -1 && errno == EINVAL);
    char *other = hm_region_mmap_in(region, got, page, rw, MAP_FIXED | private, -1, 0);
    CHECK(other == got && got[0] == 0);
    const int shared = MAP_SHARED | MAP_ANONYMOUS;
    CHECK(hm_region_mmap_in(region, NULL, page, rw, shared, -1, 0) == MAP_FAILED);
    CHECK(errno == EOPNOTSUPP);
    CHECK(hm_region_mmap_in(region, got, page, rw, MAP_FIXED | shared, -1, 0) == MAP_FAILED);
    CHECK(errno == EOPNOTSUPP && got[page] == 1);
    got = hm_region_mremap_in(region, got, 3 * page, 5 * page, MREMAP_MAYMOVE);
    CHECK(got != MAP_FAILED && got[page] == 1 && got[4 * page] == 0);
    CHECK(hm_region_munmap_in(region, got, 5 * page) == 0);
}

static void use(hm_region *region, hm_range whole) {
    hm_source source = HM_SOURCE_INIT;
    source.region = region;
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.source = &source;
    hm_heap *heap = NULL;
    OK(hm_heap_create(&config, &heap, NULL));
    STATUS(HM_BUSY, hm_region_close(region, NULL));
    for (size_t n = 1; n < 300; n++) {
        void *block = hm_heap_malloc(heap, n * n);
        CHECK(block != NULL && is_in(whole, block));
        memset(block, 1, n * n);
        if (n % 2) {
            OK(hm_heap_free(heap, block));
        }
    }
    OK(hm_heap_close(heap, 0, NULL));

    hm_jit_config code = HM_JIT_CONFIG_INIT;
    code.source = &source;
    code.mapping = HM_MAPPING_TOGGLE;
    hm_jit *jit = NULL;
    OK(hm_jit_create(&code, &jit, NULL));
    unsigned char bytes[ANSWER_MOST];
    hm_span span;
    OK(hm_jit_alloc(jit, ANSWER_MOST, &span, NULL));
    OK(hm_jit_write(jit, &span, 0, bytes, answer(bytes, 8), NULL));
    CHECK(is_in(whole, span.rx) && run(span.rx) == 8);
    OK(hm_jit_close(jit, NULL));

    hm_code_config many = HM_CODE_CONFIG_INIT;
    many.source = &source;
    many.mapping = HM_MAPPING_TOGGLE;
    many.len = (size_t)1 << 20;
    hm_code *range = NULL;
    OK(hm_code_create(&many, &range, NULL));
    hm_code_info info = HM_CODE_INFO_INIT;
    OK(hm_code_get_info(range, &info, NULL));
    CHECK(is_in(whole, info.rx));
    void *rw;
    OK(hm_code_begin_write(range, 0, ANSWER_MOST, &rw, NULL));
    answer(rw, 9);
    OK(hm_code_end_write(range, 0, ANSWER_MOST, NULL));
    OK(hm_code_publish(range, 0, ANSWER_MOST, HM_BARRIER_NOW, NULL));
    CHECK(run(info.rx) == 9);
    OK(hm_code_close(range, NULL));

    hm_range_map_config values = HM_RANGE_MAP_CONFIG_INIT;
    values.source = &source;
    values.last = 0xffffffff;
    hm_range_map *map = NULL;
    OK(hm_range_map_create(&values, &map, NULL));
    for (size_t n = 0; n < 3000; n++) {
        OK(hm_range_map_insert(map, n * 8192, n * 8192 + 4095, n, NULL, NULL));
    }
    OK(hm_range_map_close(map, NULL));
}

static void give_back(hm_region *region, hm_range whole) {
    size_t bytes = 0;
    OK(hm_region_unmap(region, whole, NULL));
    OK(hm_region_release_unused(region, 1, &bytes, NULL));
    CHECK(bytes == whole.len);
    OK(hm_region_close(region, NULL));
}

static void on_a_provider(size_t page) {
    hm_source source = open_arena_of(2 * LEN, page);
    hm_region *region = region_on(&source);
    hm_request request = HM_REQUEST_INIT;
    request.len = page;
    hm_range early, range;
    /* It passes on what is asked of it. */
    OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &early, NULL));
    CHECK(is_inside(early.start) && early.len == page);
    hm_range whole = reserve_from(&source, LEN);
    OK(hm_region_adopt(region, whole, NULL));
    STATUS(HM_EXISTS, hm_region_adopt(region, whole, NULL));
    OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 3, &range, NULL));
    CHECK(is_in(whole, range.start) && range.len == page);
    hm_region_range found;
    OK(hm_region_query(region, (char *)range.start + page - 1, &found));
    CHECK(found.tag == 3 && found.last == (size_t)range.start + page - 1);
    hm_range half = {range.start, page / 2};
    STATUS(HM_INVALID_ARGUMENT, hm_region_unmap(region, half, NULL));
    OK(hm_region_unmap(region, range, NULL));
    OK(hm_region_unmap(region, early, NULL));

    /* What the provider refuses changes nothing. */
    arena.refuse_at = arena.calls + 1;
    STATUS(HM_OUT_OF_MEMORY,
           hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 3, &range, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_region_query(region, whole.start, &found));
    arena.refuse_at = 0;

    signatures(region, whole, page);
    use(region, whole);

    hm_claim claim = HM_CLAIM_INIT;
    claim.first = (size_t)1 << 32;
    hm_error error = HM_ERROR_INIT;
    STATUS(HM_UNSUPPORTED, hm_region_claim(region, &claim, NULL, &error));
    CHECK(error.status == HM_UNSUPPORTED);
    give_back(region, whole);
    close_arena();
}

static void child(hm_region *inner) {
    OK(hm_fork_child_all(NULL));
    hm_request request = HM_REQUEST_INIT;
    request.len = 1;
    hm_range range;
    OK(hm_region_map(inner, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &range, NULL));
    *(char *)range.start = 1;
    _exit(0);
}

static void in_a_region(void) {
    hm_region *outer = region_on(NULL);
    hm_range whole = reserve_from(NULL, 2 * LEN);
    OK(hm_region_adopt(outer, whole, NULL));
    hm_source source = HM_SOURCE_INIT;
    source.region = outer;
    hm_region *inner = region_on(&source);
    hm_range part = reserve_from(&source, LEN);
    CHECK(is_in(whole, part.start));
    OK(hm_region_adopt(inner, part, NULL));
    STATUS(HM_BUSY, hm_region_close(outer, NULL));
    use(inner, part);
    hm_region_range found;
    OK(hm_region_query(outer, part.start, &found));
    CHECK(found.state == HM_STATE_RESERVED);

    /* It is the host's memory, so that files can be mapped. */
    char *shared = hm_region_mmap_in(inner, NULL, 4096, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK((void *)shared != MAP_FAILED && is_in(part, shared) && *shared == 0);
    *shared = 1;
    CHECK(hm_region_munmap_in(inner, shared, 4096) == 0);

    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0) {
        child(inner);
    }
    int status = 1;
    CHECK(waitpid(process, &status, 0) == process && status == 0);
    give_back(inner, part);
    give_back(outer, whole);
}

static void in_a_window(void) {
    /* Where there is room. */
    hm_range room = reserve_from(NULL, (size_t)1 << 30);
    OK(hm_pages_release(NULL, room, NULL));
    hm_source source = HM_SOURCE_INIT;
    source.first = (size_t)room.start;
    source.last = source.first + room.len - 1;
    hm_region *region = region_on(&source);
    hm_request request = HM_REQUEST_INIT;
    request.len = 1;
    hm_range range;
    OK(hm_region_map(region, &request, HM_ACCESS_READ_WRITE, 0, 0, 0, &range, NULL));
    CHECK((size_t)range.start >= source.first && (size_t)range.start <= source.last);
    OK(hm_region_unmap(region, range, NULL));
    hm_claim claim = HM_CLAIM_INIT;
    claim.first = source.first;
    STATUS(HM_UNSUPPORTED, hm_region_claim(region, &claim, NULL, NULL));
    OK(hm_region_close(region, NULL));
}

int main(void) {
    on_a_provider((size_t)sysconf(_SC_PAGESIZE));
    on_a_provider((size_t)64 << 10);
    in_a_region();
    in_a_window();
    puts("all hold");
    return 0;
}
