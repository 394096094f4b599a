/* Heaps in signal handlers, which allocate whatever they interrupt. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>

static hm_heap *asked;
static pthread_t churner;
static volatile sig_atomic_t served, is_wrong;

static void handler_that_allocates(int number) {
    (void)number;
    void *own = NULL;
    hm_status status = hm_heap_try_alloc(asked, 40, 0, 1, &own, NULL);
    if (status == HM_BUSY) {
        return;
    }
    for (size_t n = 0; n < 40; n++) {
        is_wrong |= ((unsigned char *)own)[n] != 0;
    }
    memset(own, 7, 40);
    status = hm_heap_try_realloc(asked, &own, 40, 0, 400, NULL);
    is_wrong |= status != HM_OK && status != HM_BUSY;
    is_wrong |= ((unsigned char *)own)[39] != 7;
    is_wrong |= hm_heap_try_free(asked, own, NULL) != HM_OK;
    is_wrong |= hm_heap_try_free(asked, own, NULL) != HM_UNKNOWN_POINTER;
    served = served + 1;
}

static void *send(void *context) {
    (void)context;
    while (served < 2000 && !is_wrong) {
        pthread_kill(churner, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

int main(void) {
    OK(hm_heap_create(NULL, &asked, NULL));
    churner = pthread_self();
    signal(SIGUSR1, handler_that_allocates);
    pthread_t sender;
    CHECK(pthread_create(&sender, NULL, send, NULL) == 0);
    void *blocks[64] = {NULL};
    for (size_t n = 0; served < 2000 && !is_wrong; n++) {
        OK(hm_heap_free(asked, blocks[n % 64]));
        blocks[n % 64] = hm_heap_malloc(asked, n % 7 == 0 ? 20000 : n % 500);
        CHECK(blocks[n % 64] != NULL);
    }
    CHECK(pthread_join(sender, NULL) == 0 && !is_wrong);
    for (size_t n = 0; n < 64; n++) {
        OK(hm_heap_free(asked, blocks[n]));
    }
    OK(hm_heap_trim(asked, HM_TRIM_DEEP, NULL));
    hm_heap_statistics held = HM_HEAP_STATISTICS_INIT;
    OK(hm_heap_get_statistics(asked, &held, NULL));
    CHECK(held.used == 0);
    void *none = NULL;
    STATUS(HM_INVALID_ARGUMENT, hm_heap_try_alloc(asked, 8, 24, 0, &none, NULL));
    STATUS(HM_TOO_LARGE, hm_heap_try_alloc(asked, SIZE_MAX, 0, 0, &none, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_heap_try_realloc(asked, &none, 8, 0, 9, NULL));
    STATUS(HM_UNKNOWN_POINTER, hm_heap_try_free(asked, &none, NULL));
    OK(hm_heap_close(asked, 0, NULL));
    puts("all hold");
    return 0;
}
