/* Heaps without handles: threads use their caches by turns, and may end in any way. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define THREADS 40
#define BLOCKS 200

static hm_heap *heap;
static size_t *handed[THREADS][BLOCKS];
static pthread_barrier_t all;
static int ends_raw;

static hm_heap_statistics held(void) {
    hm_heap_statistics held = HM_HEAP_STATISTICS_INIT;
    OK(hm_heap_get_statistics(heap, &held, NULL));
    return held;
}

/* Allocates by one call of several; frees what another thread has allocated. */
static void *work(void *context) {
    size_t self = (size_t)context;
    for (size_t round = 0; round < 20; round++) {
        for (size_t n = 0; n < BLOCKS; n++) {
            size_t size = (n % 10 == 9 ? n * 400 : n * 7) + sizeof(size_t);
            size_t *block = n % 4 == 0   ? hm_heap_calloc(heap, 1, size)
                            : n % 4 == 1 ? hm_heap_aligned_alloc(heap, 64, size)
                            : n % 4 == 2 ? hm_heap_lua_alloc(heap, NULL, 0, size)
                                         : hm_heap_malloc(heap, size);
            CHECK(block != NULL && hm_heap_usable_size(heap, block) >= size);
            *block = self * BLOCKS + n;
            handed[self][n] = block;
        }
        pthread_barrier_wait(&all);
        size_t other = (self + 1) % THREADS;
        for (size_t n = 0; n < BLOCKS; n++) {
            size_t *block = handed[other][n];
            CHECK(*block == other * BLOCKS + n);
            if (n % 3 == 0) {
                block = hm_heap_realloc(heap, block, n * 20 + sizeof(size_t));
                CHECK(block != NULL && *block == other * BLOCKS + n);
            }
            OK(hm_heap_free(heap, block));
        }
        pthread_barrier_wait(&all);
    }
    if (ends_raw) {
        syscall(SYS_exit, 0);
    }
    return NULL;
}

static void run_threads(void) {
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&all, NULL, THREADS) == 0);
    for (size_t n = 0; n < THREADS; n++) {
        CHECK(pthread_create(&threads[n], NULL, work, (void *)n) == 0);
    }
    for (size_t n = 0; n < THREADS; n++) {
        CHECK(pthread_join(threads[n], NULL) == 0);
    }
    CHECK(pthread_barrier_destroy(&all) == 0);
    CHECK(held().used == 0);
}

static void with(const hm_heap_config *config) {
    OK(hm_heap_create(config, &heap, NULL));
    run_threads();
    CHECK((held().cached == 0) == (config->no_thread_caches != 0));
    OK(hm_heap_trim(heap, HM_TRIM_DEEP, NULL));
    CHECK(held().cached == 0);
    void *block = hm_heap_malloc(heap, 100);
    CHECK(block != NULL);
    OK(hm_heap_free(heap, block));
    STATUS(HM_UNKNOWN_POINTER, hm_heap_free(heap, block));
    STATUS(HM_UNKNOWN_POINTER, hm_heap_free(heap, &heap));
    CHECK(hm_heap_realloc(heap, block, 10) == NULL);
    /* Nothing is attached. */
    OK(hm_heap_close(heap, 0, NULL));
}

int main(void) {
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    with(&config);
    /* An emulator and AddressSanitizer keep account of threads, and miss ends like that. */
    ends_raw = !EMULATED && !SANITIZED;
    with(&config);
    config.hardening = HM_HARDENING_FULL;
    with(&config);
    config.hardening = HM_HARDENING_DEFAULT;
    config.no_thread_caches = 1;
    with(&config);
    puts("all hold");
    return 0;
}
