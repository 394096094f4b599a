/* Writes code, runs it, and writes it anew. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

int main(void) {
    uint32_t *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t sum = 0;
    for (uint32_t n = 0; n < 2000; n++) {
        code[0] = 0x00000513 | n % 2048 << 20; /* li a0, n */
        code[1] = 0x00008067;                  /* ret */
        __asm__ volatile("fence.i" ::: "memory");
        sum += ((uint32_t(*)(void))code)();
    }
    if (sum != 1999 * 2000 / 2)
        return 1;
    /* Written while it is not executable, then protected again. */
    for (uint32_t n = 0; n < 200; n++) {
        mprotect(code, 4096, PROT_READ | PROT_WRITE);
        code[0] = 0x00000513 | n << 20;
        mprotect(code, 4096, PROT_READ | PROT_EXEC);
        if (((uint32_t(*)(void))code)() != n)
            return 2;
    }
    printf("rewritten\n");
    return 0;
}
