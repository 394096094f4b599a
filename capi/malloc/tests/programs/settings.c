// Says what the environment has made of the malloc.
#include "hostmem_malloc.h"
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

// Where the library is preloaded they are found when the program starts.
#pragma weak hostmem_block_of
#pragma weak hostmem_is_known_allocation
#pragma weak hostmem_malloc_fork_child
#pragma weak hostmem_malloc_statistics

int main(void) {
    int is_low = 1;
    void *last = NULL;
    for (size_t size = 1; size < 100 << 20; size = size * 3 / 2 + 1) {
        char *block = malloc(size);
        if (!block)
            return 2;
        memset(block, 1, size < 5000 ? size : 5000);
        is_low &= (uintptr_t)block + size <= (uintptr_t)UINT32_MAX + 1;
        block = realloc(block, size + 100);
        is_low &= (uintptr_t)block + size + 100 <= (uintptr_t)UINT32_MAX + 1;
        free(last);
        last = block;
    }
    int is_known = hostmem_is_known_allocation(last);
    size_t usable = malloc_usable_size(last);
    free(last);
    struct hostmem_malloc_statistics held;
    if (hostmem_malloc_statistics(&held, sizeof held) != 0)
        memset(&held, 0, sizeof held);
    printf("secure=%d low=%d hardening=%d known=%d usable=%d\n", getauxval(AT_SECURE) != 0,
           is_low, (int)held.hardening, is_known, usable != 0);
}
