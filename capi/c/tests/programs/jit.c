/* Executable memory: names of spans, writes, words, mappings. */
#define _GNU_SOURCE
#include "jit.h"
#include <signal.h>

static void names(void) {
    hm_jit *jit = make(NULL);
    hm_span span = function(jit, 1);
    CHECK(span.len == 64 && span.number != 0 && span.rx != span.rw);
    hm_span copy = span;
    hm_live live;
    OK(hm_jit_query(jit, (char *)span.rx + 63, &live));
    CHECK(live.span.rx == span.rx && live.span.rw == span.rw && live.span.len == 64);
    CHECK(live.span.number == span.number && live.word == 0 && live.group == 0);
    STATUS(HM_UNKNOWN_POINTER, hm_jit_query(jit, (char *)span.rx + 64, &live));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_query(jit, NULL, &live));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_query(jit, &live, &live));
    unsigned char byte = 0;
    STATUS(HM_OUT_OF_RANGE, hm_jit_write(jit, &span, 64, &byte, 1, NULL));
    STATUS(HM_OUT_OF_RANGE, hm_jit_write(jit, &span, SIZE_MAX, &byte, 1, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_write(jit, &span, 0, NULL, 1, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_write(jit, &span, 0, &byte, SIZE_MAX, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_write(jit, NULL, 0, &byte, 1, NULL));
    OK(hm_jit_write(jit, &span, 64, NULL, 0, NULL));
    /* A name that was changed is none. */
    hm_span wrong = span;
    wrong.number++;
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &wrong, NULL));
    wrong = span;
    wrong.rx = (char *)span.rx + 16;
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &wrong, NULL));
    memset(&wrong, 0, sizeof wrong);
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &wrong, NULL));
    memset(&wrong, 0xff, sizeof wrong);
    STATUS(HM_UNKNOWN_POINTER, hm_jit_write(jit, &wrong, 0, &byte, 1, NULL));

    OK(hm_jit_release(jit, &span, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &copy, NULL));
    /* Another span with the same memory is not the old one. */
    hm_span spans[300];
    size_t count = 0;
    do {
        CHECK(count < 300);
        spans[count] = function(jit, 2);
    } while (spans[count++].rx != copy.rx);
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &copy, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_shrink(jit, &copy, 16, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_write(jit, &copy, 0, &byte, 1, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_patch_u32(jit, &copy, 0, 0, HM_BARRIER_NOW, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_set_word(jit, &copy, 0, NULL));
    CHECK(run(spans[count - 1].rx) == 2);
    size_t refused = 9;
    OK(hm_jit_release_many(jit, spans, count, &refused, NULL));
    CHECK(refused == 0);
    OK(hm_jit_release_many(jit, spans, count, &refused, NULL));
    CHECK(refused == count);
    STATUS(HM_INVALID_ARGUMENT, hm_jit_release_many(jit, NULL, 2, &refused, NULL));
    OK(hm_jit_release_many(jit, NULL, 0, NULL, NULL));
    hm_jit_statistics held = HM_JIT_STATISTICS_INIT;
    OK(hm_jit_get_statistics(jit, &held, NULL));
    CHECK(held.spans == 0 && held.used == 0 && held.blocks == 1 && held.reserved >= 64 << 10);
    /* A span of another allocator is none here. */
    hm_jit *other = make(NULL);
    hm_span foreign = function(other, 3);
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &foreign, NULL));
    OK(hm_jit_close(other, NULL));
    OK(hm_jit_close(jit, NULL));
}

static void sizes(void) {
    hm_jit *jit = make(NULL);
    hm_span span;
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc(jit, 0, &span, NULL));
    STATUS(HM_TOO_LARGE, hm_jit_alloc(jit, SIZE_MAX, &span, NULL));
    OK(hm_jit_alloc(jit, 1000, &span, NULL));
    CHECK(span.len == 1024);
    hm_span before = span;
    OK(hm_jit_shrink(jit, &span, 100, NULL));
    CHECK(span.len == 128 && span.rx == before.rx && span.number == before.number);
    STATUS(HM_OUT_OF_RANGE, hm_jit_shrink(jit, &span, 1000, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_shrink(jit, &span, 0, NULL));
    /* The older copy still names it. */
    OK(hm_jit_release(jit, &before, NULL));
    OK(hm_jit_alloc_near(jit, 100, span.rx, (size_t)1 << 30, &span, NULL));
    size_t far = (size_t)span.rx > (size_t)before.rx ? (size_t)span.rx - (size_t)before.rx
                                                    : (size_t)before.rx - (size_t)span.rx;
    CHECK(far < (size_t)1 << 30);
    hm_placement low = {.first = 0x10000, .last = 0x7fffffff, .place = HM_PLACE_ANYWHERE};
    OK(hm_jit_alloc_placed(jit, 100, &low, &span, NULL));
    CHECK((size_t)span.rx < 0x80000000);
    low.place = 99;
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc_placed(jit, 100, &low, &span, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc_placed(jit, 100, NULL, &span, NULL));
    /* Only with an order. */
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc_at(jit, 64, 100, &span, NULL));
    OK(hm_jit_close(jit, NULL));

    /* A window in which nothing lies. */
    hm_request request = HM_REQUEST_INIT;
    request.len = 64 << 20;
    hm_range free;
    OK(hm_pages_reserve(NULL, &request, &free, NULL));
    OK(hm_pages_release(NULL, free, NULL));
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.rx.first = (size_t)free.start;
    config.rx.last = (size_t)free.start + free.len - 1;
    config.rx.place = HM_PLACE_LOWEST;
    jit = make(&config);
    OK(hm_jit_alloc_at(jit, 4096, 100, &span, NULL));
    CHECK((size_t)span.rx == config.rx.first + 4096);
    hm_span again;
    STATUS(HM_EXISTS, hm_jit_alloc_at(jit, 4096, 100, &again, NULL));
    OK(hm_jit_close(jit, NULL));

    hm_jit_config limited = HM_JIT_CONFIG_INIT;
    limited.limit = 128 << 10;
    jit = make(&limited);
    OK(hm_jit_alloc(jit, 100 << 10, &span, NULL));
    STATUS(HM_OUT_OF_MEMORY, hm_jit_alloc(jit, 100 << 10, &span, NULL));
    OK(hm_jit_close(jit, NULL));
}

struct filling {
    uint32_t number;
    size_t keep;
    hm_jit *jit;
};

static size_t fill(void *context, void *rw, void *rx, size_t len) {
    struct filling *filling = context;
    CHECK(rw != NULL && rx != NULL && len == 256);
    /* The library may be called. */
    hm_span other = function(filling->jit, 7);
    OK(hm_jit_release(filling->jit, &other, NULL));
    answer(rw, filling->number);
    return filling->keep;
}

static void writes(void) {
    hm_jit *jit = make(NULL);
    hm_write writes[100];
    unsigned char code[100][ANSWER_MOST];
    for (uint32_t n = 0; n < 100; n++) {
        writes[n].len = answer(code[n], n);
        writes[n].bytes = code[n];
        writes[n].offset = 0;
        OK(hm_jit_alloc(jit, ANSWER_MOST, &writes[n].span, NULL));
    }
    size_t done = 0;
    OK(hm_jit_write_many(jit, writes, 100, &done, NULL));
    CHECK(done == 100);
    for (uint32_t n = 0; n < 100; n++) {
        CHECK(run(writes[n].span.rx) == n);
    }
    /* Those before one that fails are written. */
    for (uint32_t n = 0; n < 100; n++) {
        answer(code[n], n + 1000);
    }
    hm_span kept = writes[50].span;
    writes[50].span.number = 12345678;
    STATUS(HM_UNKNOWN_POINTER, hm_jit_write_many(jit, writes, 100, &done, NULL));
    CHECK(done == 50);
    CHECK(run(writes[49].span.rx) == 1049 && run(kept.rx) == 50 && run(writes[51].span.rx) == 51);
    OK(hm_jit_write_deferred(jit, &kept, 0, code[50], ANSWER_MOST, NULL));
    OK(hm_jit_publish(jit, NULL));
    CHECK(run(kept.rx) == 1050);

    hm_span span;
    OK(hm_jit_alloc(jit, 256, &span, NULL));
    struct filling filling = {77, 256, jit};
    OK(hm_jit_write_with(jit, &span, fill, &filling, NULL));
    CHECK(span.len == 256 && run(span.rx) == 77);
    filling.number = 78;
    filling.keep = 10;
    OK(hm_jit_write_with(jit, &span, fill, &filling, NULL));
    CHECK(span.len == 64 && run(span.rx) == 78);
    STATUS(HM_INVALID_ARGUMENT, hm_jit_write_with(jit, &span, NULL, &filling, NULL));
    OK(hm_jit_release(jit, &span, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_write_with(jit, &span, fill, &filling, NULL));

    /* Patches: the number that a function returns is in its first four aligned bytes. */
    span = function(jit, 1);
    unsigned char patched[ANSWER_MOST] = {0};
    answer(patched, 2);
    uint64_t both;
    uint32_t first;
    memcpy(&both, patched, 8);
    memcpy(&first, patched, 4);
    OK(hm_jit_patch_u64(jit, &span, 0, both, HM_BARRIER_NOW, NULL));
    CHECK(run(span.rx) == 2);
    answer(patched, 3);
    memcpy(&first, patched, 4);
    OK(hm_jit_patch_u32(jit, &span, 0, first, HM_BARRIER_DEFERRED, NULL));
    OK(hm_jit_publish(jit, NULL));
    CHECK(run(span.rx) == 3);
    answer(patched, 4);
    memcpy(&first, patched, 4);
    memcpy(&both, patched, 8);
    OK(hm_jit_patch_u32_at(jit, span.rx, first, HM_BARRIER_NOW, NULL));
    CHECK(run(span.rx) == 4);
    OK(hm_jit_patch_u64_at(jit, span.rx, both, HM_BARRIER_NEVER, NULL));
    STATUS(HM_OUT_OF_RANGE, hm_jit_patch_u32(jit, &span, 2, 0, HM_BARRIER_NOW, NULL));
    STATUS(HM_OUT_OF_RANGE, hm_jit_patch_u32(jit, &span, 64, 0, HM_BARRIER_NOW, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_patch_u32(jit, &span, 0, 0, 9, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_patch_u32_at(jit, &span, 0, HM_BARRIER_NOW, NULL));

    /* Through the writable view, by hand. */
    answer(span.rw, 9);
    hm_flush_icache(span.rx, ANSWER_MOST);
    OK(hm_sync_cores(NULL));
    CHECK(run(span.rx) == 9);
    hm_flush_icache(NULL, 10);
    OK(hm_jit_close(jit, NULL));
}

struct seen {
    size_t count, most;
    uint64_t words;
    const void *last;
};

static int see(void *context, const hm_live *live) {
    struct seen *seen = context;
    CHECK(live->span.rx > seen->last && live->span.number != 0);
    seen->last = live->span.rx;
    seen->words += live->word;
    return ++seen->count == seen->most;
}

static int see_block(void *context, const hm_jit_block *block) {
    memcpy(context, block, sizeof *block);
    return 1;
}

static void tags(void) {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.word_bits = 64;
    config.groups = 1;
    hm_jit *jit = make(&config);
    hm_span spans[20];
    for (uint32_t n = 0; n < 20; n++) {
        spans[n] = function(jit, n);
        OK(hm_jit_set_word(jit, &spans[n], (uint64_t)n << 40, NULL));
        OK(hm_jit_set_group(jit, &spans[n], n % 2, NULL));
    }
    hm_live live;
    OK(hm_jit_query(jit, spans[5].rx, &live));
    CHECK(live.word == (uint64_t)5 << 40 && live.group == 1);
    struct seen all = {0, 0, 0, NULL};
    OK(hm_jit_spans(jit, 0, 0, NULL, see, &all, NULL));
    CHECK(all.count == 20 && all.words == (uint64_t)190 << 40);
    struct seen few = {0, 3, 0, NULL};
    OK(hm_jit_spans(jit, 0, 0, NULL, see, &few, NULL));
    CHECK(few.count == 3);
    struct seen odd = {0, 0, 0, NULL};
    uint32_t group = 1;
    OK(hm_jit_spans(jit, 0, 0, &group, see, &odd, NULL));
    CHECK(odd.count == 10 && odd.words == (uint64_t)100 << 40);
    struct seen one = {0, 0, 0, NULL};
    OK(hm_jit_spans(jit, (size_t)spans[4].rx, (size_t)spans[4].rx, NULL, see, &one, NULL));
    CHECK(one.count == 1 && one.last == spans[4].rx);
    STATUS(HM_INVALID_ARGUMENT, hm_jit_spans(jit, 0, 0, NULL, NULL, NULL, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_spans(jit, 5, 4, NULL, see, &one, NULL));
    hm_jit_block block = {{NULL, 0}, {NULL, 0}, 0, 0, 0, 0};
    OK(hm_jit_blocks(jit, see_block, &block, NULL));
    CHECK((size_t)spans[4].rx - (size_t)block.rx.start < block.rx.len);
    CHECK((size_t)spans[4].rw - (size_t)block.rw.start < block.rw.len);
    CHECK(block.rx.len == block.rw.len && block.used % block.granularity == 0 && block.spans > 4);
    STATUS(HM_INVALID_ARGUMENT, hm_jit_blocks(jit, NULL, NULL, NULL));
    size_t released = 0;
    OK(hm_jit_release_group(jit, 1, &released, NULL));
    CHECK(released == 10);
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &spans[1], NULL));
    OK(hm_jit_reset(jit, HM_RESET_KEEP, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_jit_release(jit, &spans[0], NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_reset(jit, 5, NULL));
    OK(hm_jit_reset(jit, HM_RESET_SOFT, NULL));
    size_t given = 0;
    OK(hm_jit_trim(jit, &given, NULL));
    CHECK(given != 0);
    spans[0] = function(jit, 5);
    OK(hm_jit_reset(jit, HM_RESET_HARD, NULL));
    hm_jit_statistics held = HM_JIT_STATISTICS_INIT;
    OK(hm_jit_get_statistics(jit, &held, NULL));
    CHECK(held.blocks == 0 && held.spans == 0);
    OK(hm_jit_close(jit, NULL));
    jit = make(NULL);
    spans[0] = function(jit, 0);
    STATUS(HM_UNSUPPORTED, hm_jit_set_word(jit, &spans[0], 1, NULL));
    STATUS(HM_UNSUPPORTED, hm_jit_set_group(jit, &spans[0], 1, NULL));
    STATUS(HM_UNSUPPORTED, hm_jit_release_group(jit, 1, NULL, NULL));
    OK(hm_jit_close(jit, NULL));
}

static void mappings(void) {
    const hm_mapping kinds[] = {HM_MAPPING_DUAL, HM_MAPPING_TOGGLE, HM_MAPPING_AUTO,
                                HM_MAPPING_READ_WRITE_EXEC};
    const hm_fill fills[] = {HM_FILL_KEEP, HM_FILL_TRAP, HM_FILL_PATTERN};
    for (size_t n = 0; n < 4 * 3; n++) {
        hm_jit_config config = HM_JIT_CONFIG_INIT;
        config.mapping = kinds[n % 4];
        config.fill = fills[n / 4];
        config.fill_pattern = 0x01020304;
        config.name = "tests of C";
        hm_jit *jit = NULL;
        hm_error error = HM_ERROR_INIT;
        hm_status made = hm_jit_create(&config, &jit, &error);
        if (made == HM_UNSUPPORTED) {
            continue;
        }
        OK(made);
        hm_span span;
        made = hm_jit_alloc(jit, ANSWER_MOST, &span, &error);
        if (made != HM_DENIED) {
            OK(made);
            unsigned char code[ANSWER_MOST];
            OK(hm_jit_write(jit, &span, 0, code, answer(code, 5), NULL));
            CHECK(run(span.rx) == 5);
            hm_mapping got = 99;
            OK(hm_jit_get_mapping(jit, &got, NULL));
            CHECK(got == config.mapping || config.mapping == HM_MAPPING_AUTO);
            int once = got == HM_MAPPING_TOGGLE || got == HM_MAPPING_READ_WRITE_EXEC;
            CHECK((span.rx == span.rw) == once);
        }
        OK(hm_jit_close(jit, NULL));
    }
}

static hm_jit *asked;
static volatile sig_atomic_t answers;

static void handler(int number) {
    (void)number;
    hm_live live;
    if (hm_jit_query(asked, (const void *)(size_t)&answers, &live) == HM_UNKNOWN_POINTER) {
        answers++;
    }
}

static void signals(void) {
    asked = make(NULL);
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    CHECK(answers == 1);
    OK(hm_jit_close(asked, NULL));
}

/* Code in a window, and in a region. */
static void sources(void) {
    hm_source low = HM_SOURCE_INIT;
    low.first = 0x10000;
    low.last = 0x7fffffff;
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.source = &low;
    hm_jit *jit = make(&config);
    hm_span span = function(jit, 1);
    CHECK((size_t)span.rx < 0x80000000 && (size_t)span.rw < 0x80000000);
    OK(hm_jit_close(jit, NULL));

    hm_request request = HM_REQUEST_INIT;
    request.len = 64 << 20;
    hm_range range;
    OK(hm_pages_reserve(NULL, &request, &range, NULL));
    hm_region *region = NULL;
    OK(hm_region_create(NULL, &region, NULL));
    OK(hm_region_adopt(region, range, NULL));
    hm_source inside = HM_SOURCE_INIT;
    inside.region = region;
    config.source = &inside;
    jit = make(&config);
    span = function(jit, 2);
    size_t start = (size_t)range.start, end = start + range.len;
    CHECK((size_t)span.rx >= start && (size_t)span.rx < end);
    CHECK((size_t)span.rw >= start && (size_t)span.rw < end);
    hm_region_range what;
    OK(hm_region_query(region, span.rx, &what));
    CHECK(what.state == HM_STATE_DUAL);
    STATUS(HM_BUSY, hm_region_close(region, NULL));
    OK(hm_jit_close(jit, NULL));
    OK(hm_region_release_unused(region, 1, NULL, NULL));
    OK(hm_region_close(region, NULL));
}

int main(void) {
    names();
    sizes();
    writes();
    tags();
    mappings();
    signals();
    sources();
    puts("all hold");
    return 0;
}
