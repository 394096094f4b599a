/* Heaps. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

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

static int is_zero(const unsigned char *bytes, size_t len) {
    for (size_t n = 0; n < len; n++) {
        if (bytes[n] != 0) {
            return 0;
        }
    }
    return 1;
}

static void calls(void) {
    hm_heap *heap = make(NULL);
    const size_t sizes[] = {0, 1, 16, 100, 5000, 100000, 3 << 20};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        size_t size = sizes[n];
        unsigned char *block = hm_heap_malloc(heap, size);
        CHECK(block != NULL && (size_t)block % 16 == 0);
        memset(block, 0xab, size);
        CHECK(hm_heap_usable_size(heap, block) >= size);
        CHECK(hm_heap_owns(heap, block) == 1);
        size_t usable = 0;
        CHECK(hm_heap_block_of(heap, block + size / 2, &usable) == block);
        CHECK(usable == hm_heap_usable_size(heap, block));
        CHECK(hm_heap_usable_size(heap, block + 1) == 0);
        CHECK(hm_heap_of(block) == heap);
        STATUS(HM_UNKNOWN_POINTER, hm_heap_free(heap, block + 1));
        unsigned char *larger = hm_heap_realloc(heap, block, size * 2 + 1);
        CHECK(larger != NULL && (size == 0 || (larger[0] == 0xab && larger[size - 1] == 0xab)));
        OK(hm_heap_free(heap, larger));
        STATUS(HM_UNKNOWN_POINTER, hm_heap_free(heap, larger));
        CHECK(hm_heap_realloc(heap, larger, 10) == NULL);
        unsigned char *zeros = hm_heap_calloc(heap, size, 3);
        CHECK(zeros != NULL && is_zero(zeros, size * 3));
        OK(hm_heap_free_sized(heap, zeros, size * 3, 0));
        for (size_t align = 1; align <= 1 << 20; align *= 32) {
            void *aligned = hm_heap_aligned_alloc(heap, align, size);
            CHECK(aligned != NULL && (size_t)aligned % align == 0);
            OK(hm_heap_free_sized(heap, aligned, size, align));
        }
    }
    CHECK(hm_heap_malloc(heap, SIZE_MAX) == NULL && hm_heap_malloc(heap, SIZE_MAX / 2) == NULL);
    CHECK(hm_heap_calloc(heap, SIZE_MAX / 2, 3) == NULL);
    CHECK(hm_heap_aligned_alloc(heap, 24, 8) == NULL && hm_heap_aligned_alloc(heap, 0, 8) == NULL);
    OK(hm_heap_free(heap, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_free_sized(heap, NULL, 8, 24));
    void *block = hm_heap_realloc(heap, NULL, 10);
    CHECK(block != NULL);
    block = hm_heap_realloc(heap, block, 0);
    CHECK(block != NULL);
    OK(hm_heap_free(heap, block));

    hm_error error = HM_ERROR_INIT;
    block = NULL;
    STATUS(HM_TOO_LARGE, hm_heap_alloc(heap, SIZE_MAX, 0, 0, &block, &error));
    CHECK(block == NULL && error.status == HM_TOO_LARGE);
    STATUS(HM_INVALID_ARGUMENT, hm_heap_alloc(heap, 8, 24, 0, &block, &error));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_alloc(heap, 8, 0, 0, NULL, &error));
    OK(hm_heap_alloc(heap, 1000, 4096, 1, &block, &error));
    CHECK((size_t)block % 4096 == 0 && is_zero(block, 1000));
    OK(hm_heap_free(heap, block));

    int local = 0;
    STATUS(HM_UNKNOWN_POINTER, hm_heap_free(heap, &local));
    CHECK(hm_heap_owns(heap, &local) == 0 && hm_heap_block_of(heap, &local, NULL) == NULL);
    CHECK(hm_heap_of(&local) == NULL && hm_heap_of(NULL) == NULL);
    CHECK(hm_heap_usable_size(heap, NULL) == 0);
    CHECK(held(heap).used == 0);
    OK(hm_heap_close(heap, 0, NULL));
}

/* Blocks of several heaps go back to the heap that they are of. */
static void two(void) {
    hm_source low = HM_SOURCE_INIT;
    low.first = 0x10000;
    low.last = 0xffffffff;
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.source = &low;
    hm_heap *heaps[2] = {make(NULL), make(&config)};
    void *blocks[1000];
    for (int n = 0; n < 1000; n++) {
        blocks[n] = hm_heap_malloc(heaps[n % 2], (size_t)n * 7);
        CHECK(blocks[n] != NULL);
        CHECK(n % 2 == 0 || (size_t)blocks[n] <= 0xffffffff);
    }
    for (int n = 0; n < 1000; n++) {
        CHECK(hm_heap_of(blocks[n]) == heaps[n % 2]);
        STATUS(HM_UNKNOWN_POINTER, hm_heap_free(heaps[1 - n % 2], blocks[n]));
        OK(hm_heap_free(hm_heap_of(blocks[n]), blocks[n]));
    }
    CHECK(held(heaps[0]).used == 0 && held(heaps[1]).used == 0);
    OK(hm_heap_close(heaps[0], 0, NULL));
    CHECK(hm_heap_of(blocks[0]) == NULL && hm_heap_of(blocks[1]) == heaps[1]);
    OK(hm_heap_close(heaps[1], 0, NULL));
}

static hm_heap *shared;
static void *handed[4][1000];
static pthread_barrier_t all;

/* Allocates, and frees what another thread has allocated. */
static void *work(void *context) {
    size_t self = (size_t)context;
    hm_local local;
    memset(&local, 0, sizeof local);
    CHECK(hm_local_malloc(&local, 10) == NULL);
    STATUS(HM_INVALID_ARGUMENT, hm_local_free(&local, NULL));
    OK(hm_local_attach(shared, &local, NULL));
    for (int round = 0; round < 20; round++) {
        for (size_t n = 0; n < 1000; n++) {
            size_t size = n % 10 == 9 ? n * 100 : n;
            size_t *block = n % 3 == 0   ? hm_local_calloc(&local, 1, size + 8)
                            : n % 3 == 1 ? hm_local_malloc(&local, size + 8)
                                         : hm_local_aligned_alloc(&local, 64, size + 8);
            CHECK(block != NULL);
            *block = size + 8;
            handed[self][n] = block;
        }
        pthread_barrier_wait(&all);
        for (size_t n = 0; n < 1000; n++) {
            size_t *block = handed[(self + 1) % 4][n];
            size_t size = *block;
            if (n % 4 == 0) {
                OK(hm_local_free_sized(&local, block, size, n % 3 == 2 ? 64 : 0));
            } else if (n % 4 == 1) {
                OK(hm_heap_free(shared, block));
            } else {
                block = hm_local_realloc(&local, block, size * 2);
                CHECK(block != NULL && *block == size);
                OK(hm_local_free(&local, block));
            }
        }
        pthread_barrier_wait(&all);
        if (round == 10) {
            OK(hm_local_flush(&local, NULL));
        }
    }
    void *block = hm_local_malloc(&local, 8);
    OK(hm_local_free(&local, block));
    STATUS(HM_UNKNOWN_POINTER, hm_local_free(&local, block));
    STATUS(HM_UNKNOWN_POINTER, hm_local_free(&local, &local));
    CHECK(hm_local_realloc(&local, &local, 8) == NULL);
    CHECK(hm_local_calloc(&local, SIZE_MAX, 2) == NULL);
    OK(hm_local_detach(&local, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_local_detach(&local, NULL));
    return NULL;
}

static void threads(void) {
    shared = make(NULL);
    CHECK(pthread_barrier_init(&all, NULL, 4) == 0);
    pthread_t threads[4];
    for (size_t n = 0; n < 4; n++) {
        CHECK(pthread_create(&threads[n], NULL, work, (void *)n) == 0);
    }
    for (size_t n = 0; n < 4; n++) {
        CHECK(pthread_join(threads[n], NULL) == 0);
    }
    OK(hm_heap_trim(shared, HM_TRIM_FREE, NULL));
    CHECK(held(shared).used == 0 && held(shared).cached == 0);
    hm_local local = {{0}};
    STATUS(HM_INVALID_ARGUMENT, hm_local_attach(NULL, &local, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_local_attach(shared, NULL, NULL));
    OK(hm_local_attach(shared, &local, NULL));
    hm_local copy = local;
    CHECK(hm_local_malloc(&copy, 8) == NULL);
    STATUS(HM_INVALID_ARGUMENT, hm_local_detach(&copy, NULL));
    memset(&copy, 0xab, sizeof copy);
    CHECK(hm_local_malloc(&copy, 8) == NULL);
    STATUS(HM_BUSY, hm_heap_close(shared, 0, NULL));
    OK(hm_heap_close(shared, 1, NULL));
}

struct seen {
    size_t count, bytes, most;
    hm_heap *heap;
};

static int see(void *context, void *block, size_t size) {
    struct seen *seen = context;
    CHECK(hm_heap_usable_size(seen->heap, block) == size);
    seen->bytes += size;
    return ++seen->count == seen->most;
}

static void looks(void) {
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.memory_return = HM_RETURN_NEVER;
    hm_heap *heap = make(&config);
    void *blocks[200];
    for (size_t n = 0; n < 200; n++) {
        blocks[n] = hm_heap_malloc(heap, n * 1000);
        memset(blocks[n], 1, n * 1000);
    }
    struct seen seen = {0, 0, 0, heap};
    OK(hm_heap_walk(heap, see, &seen, NULL));
    CHECK(seen.count == 200 && seen.bytes == held(heap).used);
    struct seen few = {0, 0, 5, heap};
    OK(hm_heap_walk(heap, see, &few, NULL));
    CHECK(few.count == 5);
    STATUS(HM_INVALID_ARGUMENT, hm_heap_walk(heap, NULL, NULL, NULL));
    for (size_t n = 0; n < 200; n++) {
        OK(hm_heap_free(heap, blocks[n]));
    }
    size_t before = (size_t)held(heap).resident, left = SIZE_MAX;
    CHECK(before > 10 << 20);
    OK(hm_heap_trim_to(heap, before / 2, &left, NULL));
    CHECK(left <= before / 2 && left == held(heap).resident);
    OK(hm_heap_trim(heap, HM_TRIM_DEEP, NULL));
    CHECK(held(heap).resident < 1 << 20);
    OK(hm_heap_trim(heap, HM_TRIM_FREE, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_trim(heap, 2, NULL));
    OK(hm_heap_tick(heap, 1000, NULL));
    OK(hm_heap_close(heap, 0, NULL));
}

static void faults(void) {
    const hm_hardening levels[] = {HM_HARDENING_CANARIES, HM_HARDENING_FULL};
    for (int n = 0; n < 2; n++) {
        hm_heap_config config = HM_HEAP_CONFIG_INIT;
        config.hardening = levels[n];
        hm_heap *heap = make(&config);
        unsigned char *block = hm_heap_malloc(heap, 100);
        CHECK(block != NULL);
        STATUS(HM_INVALID_ARGUMENT, hm_heap_free_sized(heap, block, 99, 0));
        OK(hm_heap_free_sized(heap, block, 100, 0));
        block = hm_heap_malloc(heap, 100);
        block[100] ^= 1;
        STATUS(HM_CORRUPT, hm_heap_free(heap, block));
        CHECK(held(heap).corrupt_blocks == 1);
        OK(hm_heap_close(heap, 0, NULL));
    }
}

/* Lua's: frees, allocates, resizes. */
static void lua_by(void *(*alloc)(void *, void *, size_t, size_t), void *context) {
    CHECK(alloc(context, NULL, 5, 0) == NULL);
    unsigned char *block = alloc(context, NULL, 5, 100);
    CHECK(block != NULL);
    memset(block, 3, 100);
    block = alloc(context, block, 100, 100000);
    CHECK(block != NULL && block[0] == 3 && block[99] == 3);
    block = alloc(context, block, 100000, 10);
    CHECK(block != NULL && block[9] == 3);
    CHECK(alloc(context, block, 10, SIZE_MAX) == NULL);
    CHECK(block[9] == 3);
    CHECK(alloc(context, block, 10, 0) == NULL);
    CHECK(alloc(NULL, NULL, 0, 8) == NULL);
}

static void lua(void) {
    hm_heap *heap = make(NULL);
    lua_by(hm_heap_lua_alloc, heap);
    CHECK(held(heap).used == 0);
    hm_local local;
    OK(hm_local_attach(heap, &local, NULL));
    lua_by(hm_local_lua_alloc, &local);
    /* A block is the heap's, whichever call made it. */
    void *block = hm_local_lua_alloc(&local, NULL, 0, 50);
    CHECK(hm_heap_owns(heap, block));
    CHECK(hm_heap_lua_alloc(heap, block, 50, 0) == NULL);
    hm_local copy = local;
    CHECK(hm_local_lua_alloc(&copy, NULL, 0, 8) == NULL);
    OK(hm_local_detach(&local, NULL));
    CHECK(hm_local_lua_alloc(&local, NULL, 0, 8) == NULL);
    CHECK(held(heap).used == 0);
    OK(hm_heap_close(heap, 0, NULL));
}

static int stop;

static void *churn(void *context) {
    hm_heap *heap = context;
    size_t n = 0;
    void *blocks[64] = {NULL};
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        OK(hm_heap_free(heap, blocks[n % 64]));
        blocks[n % 64] = hm_heap_malloc(heap, n * 37 % 3000);
        n++;
    }
    for (n = 0; n < 64; n++) {
        OK(hm_heap_free(heap, blocks[n]));
    }
    return NULL;
}

/* Children of a process whose threads are within calls go on, with nothing done in the parent. */
static void forks(void) {
    hm_heap *heap = make(NULL);
    hm_source source = HM_SOURCE_INIT;
    hm_request request = HM_REQUEST_INIT;
    request.len = (size_t)1 << 30;
    hm_range range;
    OK(hm_pages_reserve(NULL, &request, &range, NULL));
    OK(hm_region_create(NULL, &source.region, NULL));
    OK(hm_region_adopt(source.region, range, NULL));
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.source = &source;
    hm_heap *inside = make(&config);
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, churn, heap) == 0);
    CHECK(pthread_create(&threads[1], NULL, churn, inside) == 0);
    for (int n = 0; n < 100; n++) {
        void *kept = hm_heap_malloc(inside, 1000);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(100);
            OK(hm_fork_child_all(NULL));
            CHECK(hm_heap_usable_size(inside, kept) >= 1000);
            for (size_t size = 0; size < 100000; size += 999) {
                void *block = hm_heap_malloc(n % 2 ? heap : inside, size);
                CHECK(block != NULL);
                memset(block, 1, size);
                OK(hm_heap_free(hm_heap_of(block), block));
            }
            OK(hm_heap_free(inside, kept));
            _exit(0);
        }
        int ended = -1;
        CHECK(waitpid(child, &ended, 0) == child && ended == 0);
        OK(hm_heap_free(inside, kept));
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    CHECK(held(inside).used == 0);
    STATUS(HM_BUSY, hm_region_close(source.region, NULL));
    OK(hm_heap_close(inside, 0, NULL));
    OK(hm_region_release_unused(source.region, 1, NULL, NULL));
    OK(hm_region_close(source.region, NULL));
    OK(hm_heap_close(heap, 0, NULL));
}

static hm_heap *asked;
static void *block;
static volatile sig_atomic_t answers;

static void handler(int number) {
    (void)number;
    answers = hm_heap_owns(asked, block) && hm_heap_block_of(asked, block, NULL) == block &&
              hm_heap_of(block) == asked && hm_heap_usable_size(asked, block) >= 10;
}

static void signals(void) {
    asked = make(NULL);
    block = hm_heap_malloc(asked, 10);
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    CHECK(answers == 1);
    OK(hm_heap_close(asked, 0, NULL));
}

int main(void) {
    calls();
    two();
    threads();
    looks();
    faults();
    lua();
    forks();
    signals();
    puts("all hold");
    return 0;
}
