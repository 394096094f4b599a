// Two threads, of which each frees what the other allocated.
#include "common.h"
#include <sched.h>
#include <stdatomic.h>

enum { ROOM = 4096 };

static size_t steps;

// From one thread to the other.
typedef struct {
    _Alignas(64) _Atomic size_t put;
    _Alignas(64) _Atomic size_t taken;
    _Alignas(64) char *blocks[ROOM];
} Queue;

static Queue queues[2];
static uint64_t sums[2];

static void *run(void *with) {
    size_t self = (size_t)with;
    Queue *out = &queues[self], *in = &queues[1 - self];
    Random random = seeded(self + 1);
    size_t put = 0, taken = 0;
    while (taken < steps || put < steps) {
        size_t room = put < steps ? ROOM - (put - atomic_load(&out->taken)) : 0;
        for (size_t n = 0; n < room && n < 64 && put < steps; n++, put++) {
            size_t size = 16 + below(&random, 240);
            char *block = must(malloc(size));
            memset(block, (int)put, size < 32 ? size : 32);
            out->blocks[put % ROOM] = block;
        }
        atomic_store(&out->put, put);
        size_t there = atomic_load(&in->put);
        if (there == taken)
            sched_yield();
        for (; taken < there; taken++) {
            char *block = in->blocks[taken % ROOM];
            sums[self] += (unsigned char)block[7];
            free(block);
        }
        atomic_store(&in->taken, taken);
    }
    return NULL;
}

int main(int argc, char **argv) {
    steps = share(argc, argv, 12000000);
    pthread_t threads[2];
    for (size_t n = 0; n < 2; n++)
        start(&threads[n], run, (void *)n);
    for (int n = 0; n < 2; n++)
        join(threads[n]);
    printf("%llu\n", (unsigned long long)(sums[0] + sums[1]));
}
