// A mix of sizes and alignments, some of which grow, in two threads that now and then free blocks of
// each other.
#include "common.h"

enum { THREADS = 2, BLOCKS = 8000, SHARED = 1024 };

static size_t steps;
static void *shared[SHARED];

static void *run(void *with) {
    uint64_t *sum = with;
    Random random = seeded(*sum + 1);
    char **blocks = must(calloc(BLOCKS, sizeof *blocks));
    for (size_t n = 0; n < steps; n++) {
        size_t place = below(&random, BLOCKS), kind = below(&random, 16);
        size_t size = 16 + below(&random, n % 64 ? 2000 : 30000);
        char *block = blocks[place];
        if (kind < 9) {
            free(block);
            block = must(malloc(size));
        } else if (kind < 12) {
            free(block);
            block = must(aligned_alloc((size_t)16 << below(&random, 5), (size + 255) / 256 * 256));
            *sum += ((uintptr_t)block & 15) == 0;
        } else if (kind < 14) {
            block = must(realloc(block, size));
        } else if (kind < 15) {
            free(block);
            block = must(calloc(1, size));
            *sum += block[size / 2] == 0;
        } else {
            // For another thread to free.
            size_t slot = below(&random, SHARED);
            free(__atomic_exchange_n(&shared[slot], block, __ATOMIC_ACQ_REL));
            block = must(malloc(size));
        }
        block[0] = (char)n;
        block[size - 1] = (char)n;
        blocks[place] = block;
    }
    for (size_t n = 0; n < BLOCKS; n++)
        free(blocks[n]);
    free(blocks);
    return NULL;
}

int main(int argc, char **argv) {
    uint64_t sums[THREADS] = {0, 1};
    steps = share(argc, argv, 4000000);
    run_for_each(run, sums, sizeof *sums, THREADS);
    printf("%llu\n", (unsigned long long)(sums[0] + sums[1]));
}
