/* What all calls share: versions, errors, structs that grow, handles. */
#include "check.h"
#include <errno.h>

/* Zeros, longer than any struct. */
static union {
    unsigned char bytes[1024];
    uint64_t aligned;
    hm_error error;
    hm_jit_config jit;
    hm_heap_config heap;
    hm_heap_statistics statistics;
} room;

static void strings(void) {
    CHECK(hm_version() == HM_VERSION);
#ifdef PACKAGE_VERSION
    char version[32];
    snprintf(version, sizeof version, "%u.%u.%u", hm_version() >> 16, hm_version() >> 8 & 255,
             hm_version() & 255);
    CHECK(strcmp(version, PACKAGE_VERSION) == 0);
#endif
    for (uint32_t a = 0; a <= HM_SYSTEM_ERROR; a++) {
        CHECK(strlen(hm_status_string(a)) > 3);
        for (uint32_t b = 0; b < a; b++) {
            CHECK(strcmp(hm_status_string(a), hm_status_string(b)) != 0);
        }
    }
    CHECK(strcmp(hm_status_string(HM_SYSTEM_ERROR + 1), "unknown status") == 0);
    CHECK(strcmp(hm_status_string(UINT32_MAX), "unknown status") == 0);
}

static void settings(void) {
    hm_error error = HM_ERROR_INIT;
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    hm_heap *heap = NULL;
    config.shards = 100;
    STATUS(HM_INVALID_ARGUMENT, hm_heap_create(&config, &heap, &error));
    CHECK(heap == NULL);
    CHECK(error.size == sizeof error && error.status == HM_INVALID_ARGUMENT);
    CHECK(strcmp(error.setting, "shards") == 0);
    CHECK(error.value == 100 && error.least == 1 && error.most == 64);
    CHECK(error.system_error == 0 && error.guest_error == EINVAL && error.message != NULL);

    hm_jit_config jit_config = HM_JIT_CONFIG_INIT;
    hm_jit *jit = NULL;
    jit_config.granularity = 48;
    STATUS(HM_INVALID_ARGUMENT, hm_jit_create(&jit_config, &jit, &error));
    CHECK(strcmp(error.setting, "granularity") == 0 && error.value == 48);
    CHECK(error.least == 16 && error.most == 4096);
    jit_config.granularity = 0;
    jit_config.mapping = 77;
    STATUS(HM_INVALID_ARGUMENT, hm_jit_create(&jit_config, &jit, &error));
    CHECK(error.setting == NULL && error.value == 0);
    CHECK(jit == NULL);

    /* A window without room says how much would do. */
    hm_source source = HM_SOURCE_INIT;
    source.first = 1 << 20;
    source.last = (2 << 20) - 1;
    hm_heap_config small = HM_HEAP_CONFIG_INIT;
    small.source = &source;
    STATUS(HM_OUT_OF_MEMORY, hm_heap_create(&small, &heap, &error));
    CHECK(error.needed > 1 << 20);
    source.last = 1;
    STATUS(HM_INVALID_ARGUMENT, hm_heap_create(&small, &heap, &error));
}

/* Structs of older and newer versions. */
static void sizes(void) {
    hm_heap *heap = NULL;
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    const uint32_t first = offsetof(hm_heap_config, no_thread_caches);
    for (uint32_t size = 0; size < first; size += 4) {
        config.size = size;
        STATUS(HM_INVALID_ARGUMENT, hm_heap_create(&config, &heap, NULL));
    }
    /* Older: what it ends before is not looked at. */
    config.size = first;
    config.no_thread_caches = 99;
    config.reserved_more = 99;
    OK(hm_heap_create(&config, &heap, NULL));
    OK(hm_heap_close(heap, 0, NULL));
    /* Newer, with nothing that this version does not know. */
    memset(&room, 0, sizeof room);
    room.heap.size = 1000;
    OK(hm_heap_create(&room.heap, &heap, NULL));
    /* With something. */
    hm_heap *other = NULL;
    room.bytes[999] = 1;
    STATUS(HM_UNSUPPORTED, hm_heap_create(&room.heap, &other, NULL));
    room.heap.size = 1 << 20;
    STATUS(HM_INVALID_ARGUMENT, hm_heap_create(&room.heap, &other, NULL));
    STATUS(HM_INVALID_ARGUMENT,
           hm_heap_create((const hm_heap_config *)(const void *)(room.bytes + 1), &other, NULL));
    CHECK(other == NULL);

    /* Results: zeros behind what is known, and nothing behind the struct. */
    memset(&room, 0xee, sizeof room);
    room.statistics.size = 900;
    OK(hm_heap_get_statistics(heap, &room.statistics, NULL));
    CHECK(room.statistics.size == 900 && room.statistics.padding == 0);
    CHECK(room.statistics.used == 0 && room.statistics.metadata != 0);
    for (size_t at = sizeof(hm_heap_statistics); at < 900; at++) {
        CHECK(room.bytes[at] == 0);
    }
    CHECK(room.bytes[900] == 0xee);
    room.statistics.size = 20;
    STATUS(HM_INVALID_ARGUMENT, hm_heap_get_statistics(heap, &room.statistics, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_get_statistics(heap, NULL, NULL));

    /* An error without its size is passed by, and the status is the same. */
    memset(&room, 0, sizeof room);
    STATUS(HM_INVALID_ARGUMENT, hm_heap_trim(heap, 9, &room.error));
    CHECK(room.error.status == HM_OK && room.error.message == NULL);
    OK(hm_heap_close(heap, 0, NULL));
}

/* Handles that are null, of another kind, closed, or no handles at all. */
static void handles(void) {
    hm_heap *heap = NULL;
    hm_jit *jit = NULL;
    OK(hm_heap_create(NULL, &heap, NULL));
    OK(hm_jit_create(NULL, &jit, NULL));
    hm_error error = HM_ERROR_INIT;
    hm_span span;
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc(NULL, 64, &span, &error));
    CHECK(error.message != NULL && error.status == HM_INVALID_ARGUMENT);
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc((hm_jit *)(void *)heap, 64, &span, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc(jit, 64, NULL, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_alloc((hm_jit *)(void *)((char *)jit + 1), 64, &span, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_create(NULL, NULL, NULL));
    CHECK(hm_heap_malloc(NULL, 8) == NULL);
    CHECK(hm_heap_malloc((hm_heap *)(void *)jit, 8) == NULL);
    CHECK(hm_heap_owns(NULL, &span) == 0 && hm_heap_block_of(NULL, &span, NULL) == NULL);
    OK(hm_heap_close(heap, 0, NULL));
    CHECK(hm_heap_malloc(heap, 8) == NULL);
    STATUS(HM_INVALID_ARGUMENT, hm_heap_close(heap, 0, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_free(heap, NULL));
    OK(hm_jit_close(jit, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_close(jit, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_jit_query(jit, &span, (hm_live *)(void *)&room));
    /* Objects' memory serves again, so that this needs no more of it. */
    for (int n = 0; n < 10000; n++) {
        OK(hm_heap_create(NULL, &heap, NULL));
        OK(hm_heap_close(heap, 0, NULL));
    }
}

int main(void) {
    strings();
    settings();
    sizes();
    handles();
    puts("all hold");
    return 0;
}
