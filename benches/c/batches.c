// Batches of small objects, freed in the order in which they came, in the other one, or by every second
// one.
#include "common.h"

enum { THREADS = 2, MOST = 20000 };

static size_t rounds;

static size_t size(Random *random) {
    // Most are small.
    size_t kind = below(random, 100);
    return kind < 70 ? 8 + below(random, 56) : kind < 95 ? 64 + below(random, 192) : 256 + below(random, 768);
}

static void *run(void *with) {
    uint64_t *sum = with;
    Random random = seeded(*sum + 1);
    char **blocks = must(malloc(MOST * sizeof *blocks));
    for (size_t round = 0; round < rounds; round++) {
        size_t count = 100 + below(&random, MOST - 100);
        for (size_t n = 0; n < count; n++) {
            size_t bytes = size(&random);
            blocks[n] = must(malloc(bytes));
            blocks[n][0] = (char)n;
            blocks[n][bytes - 1] = (char)bytes;
        }
        switch (round % 3) {
        case 0:
            for (size_t n = 0; n < count; n++)
                *sum += (unsigned char)blocks[n][0], free(blocks[n]);
            break;
        case 1:
            for (size_t n = count; n--;)
                *sum += (unsigned char)blocks[n][0], free(blocks[n]);
            break;
        default:
            for (size_t first = 0; first < 2; first++)
                for (size_t n = first; n < count; n += 2)
                    *sum += (unsigned char)blocks[n][0], free(blocks[n]);
        }
    }
    free(blocks);
    return NULL;
}

int main(int argc, char **argv) {
    uint64_t sums[THREADS] = {0, 1};
    rounds = share(argc, argv, 1000);
    run_for_each(run, sums, sizeof *sums, THREADS);
    printf("%llu\n", (unsigned long long)(sums[0] + sums[1]));
}
