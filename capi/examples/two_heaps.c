/* Two heaps, of which one lies below 4 GiB: what a 32-bit guest gets, and what the host keeps for
 * itself. A library of the guest's that runs as host code (a thunk) frees whatever it is given:
 * each block goes back to the heap that it is of.
 *
 *   cc two_heaps.c $(pkg-config --cflags --libs hostmem) -o two_heaps && ./two_heaps
 */
#include <hostmem.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hm_heap *host, *guest;

/* The free of thunks. What is of neither heap is the C library's. */
static void thunk_free(void *block) {
    hm_heap *heap = hm_heap_of(block);
    if (heap == NULL) {
        free(block);
    } else if (hm_heap_free(heap, block) != HM_OK) {
        fprintf(stderr, "%p is no block\n", block);
        abort();
    }
}

/* A call of the host's library, made for the guest: its result must be one that a guest can see. */
static char *thunk_strdup(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = hm_heap_malloc(guest, size);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}

int main(void) {
    hm_error error = HM_ERROR_INIT;
    hm_source low = HM_SOURCE_INIT;
    low.first = 64 << 10;
    low.last = UINT32_MAX;
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    config.source = &low;
    if (hm_heap_create(NULL, &host, &error) != HM_OK ||
        hm_heap_create(&config, &guest, &error) != HM_OK) {
        fprintf(stderr, "no heaps: %s\n", error.message);
        return 1;
    }
    char *own = hm_heap_malloc(host, 100), *libc = malloc(100);
    char *shared = thunk_strdup("seen by the guest");
    if (own == NULL || libc == NULL || shared == NULL) {
        return 1;
    }
    printf("%s: below 4 GiB: %s\n", shared, (uintptr_t)shared <= UINT32_MAX ? "yes" : "no");
    thunk_free(shared);
    thunk_free(own);
    thunk_free(libc);
    hm_heap_statistics held = HM_HEAP_STATISTICS_INIT;
    hm_heap_get_statistics(guest, &held, NULL);
    printf("the guest's heap holds %llu bytes\n", (unsigned long long)held.used);
    hm_heap_close(guest, 0, NULL);
    hm_heap_close(host, 0, NULL);
    return 0;
}
