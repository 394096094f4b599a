// Two archives of Rust's in one program.
#include "hostmem_malloc.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t other_sum(uint64_t count);
void *other_block(void);

int main(void) {
    void *block = other_block();
    int is_known = hostmem_is_known_allocation(block);
    free(block);
    printf("sum=%d known=%d\n", (int)other_sum(1000), is_known);
}
