// Prints the nanoseconds of a call, or of a pair of them: the least of some rounds. For what costs a few
// instructions.
#include "common.h"
#include <time.h>

int hostmem_is_known_allocation(const void *) __attribute__((weak));
void *hostmem_block_of(const void *, size_t *) __attribute__((weak));

// Hidden from the compiler, which leaves out pairs that it sees.
static void *(*volatile allocate)(size_t) = malloc;
static void (*volatile release)(void *) = free;

enum { BLOCKS = 10000, CALLS = 1 << 20, ROUNDS = 60 };

static char *blocks[BLOCKS];
static const char *asked[CALLS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static uint64_t pairs(void) {
    for (size_t n = 0; n < CALLS; n++) {
        void *block = malloc(64);
        __asm__ volatile("" : : "r"(block) : "memory");
        free(block);
    }
    return 0;
}

static uint64_t known(void) {
    uint64_t sum = 0;
    for (size_t n = 0; n < CALLS; n++)
        sum += (uint64_t)hostmem_is_known_allocation(asked[n]);
    return sum;
}

static uint64_t block_of(void) {
    uint64_t sum = 0;
    for (size_t n = 0; n < CALLS; n++) {
        size_t size = 0;
        sum += hostmem_block_of(asked[n], &size) != NULL;
        sum += size;
    }
    return sum;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "pairs";
    uint64_t (*call)(void) = strcmp(what, "known") == 0      ? known
                             : strcmp(what, "block-of") == 0 ? block_of
                                                             : pairs;
    if (call != pairs && (!hostmem_is_known_allocation || !hostmem_block_of))
        return 2;
    Random random = seeded(1);
    static size_t sizes[BLOCKS];
    for (size_t n = 0; n < BLOCKS; n++) {
        sizes[n] = 16 + below(&random, 4080);
        blocks[n] = must(allocate(sizes[n]));
    }
    for (size_t n = 0; n < CALLS; n++) {
        size_t block = below(&random, BLOCKS);
        asked[n] = blocks[block] + below(&random, sizes[block]);
    }
    double least = 1e18;
    uint64_t sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double before = now();
        sum += call();
        double took = (now() - before) / CALLS;
        if (took < least)
            least = took;
    }
    for (size_t n = 0; n < BLOCKS; n++)
        release(blocks[n]);
    fprintf(stderr, "%llu\n", (unsigned long long)sum);
    printf("%.4f\n", least);
}
