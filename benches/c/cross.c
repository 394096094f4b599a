// Two threads, of which each frees what the other allocated, batch by batch.
#include "common.h"

enum { BATCH = 10000 };

static size_t rounds;
static pthread_barrier_t both;
// A batch that a thread makes, and one that the other one frees meanwhile.
static char *batches[2][2][BATCH];
static uint64_t sums[2];

static void *run(void *with) {
    size_t self = (size_t)with;
    Random random = seeded(self + 1);
    for (size_t round = 0; round < rounds; round++) {
        char **own = batches[self][round % 2], **other = batches[1 - self][round % 2];
        for (size_t n = 0; n < BATCH; n++) {
            size_t size = 16 + below(&random, 240);
            own[n] = must(malloc(size));
            memset(own[n], (int)n, size < 32 ? size : 32);
        }
        // Sleeps, as waiting takes CPU time otherwise.
        pthread_barrier_wait(&both);
        for (size_t n = 0; n < BATCH; n++) {
            sums[self] += (unsigned char)other[n][7];
            free(other[n]);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = share(argc, argv, 1200);
    pthread_barrier_init(&both, NULL, 2);
    pthread_t threads[2];
    for (size_t n = 0; n < 2; n++)
        start(&threads[n], run, (void *)n);
    for (int n = 0; n < 2; n++)
        join(threads[n]);
    printf("%llu\n", (unsigned long long)(sums[0] + sums[1]));
}
