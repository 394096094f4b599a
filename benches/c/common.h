// What the programs share: numbers that are the same in each run, and how much there is to do.
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t state;
} Random;

// A generator after Marsaglia, "Xorshift RNGs", with a multiplication at its end.
static inline uint64_t next(Random *random) {
    uint64_t n = random->state;
    n ^= n >> 12;
    n ^= n << 25;
    n ^= n >> 27;
    random->state = n;
    return n * 0x2545f4914f6cdd1dull;
}

// A number below `bound`.
static inline size_t below(Random *random, size_t bound) {
    return (size_t)((next(random) >> 32) * (uint64_t)bound >> 32);
}

static inline Random seeded(uint64_t seed) {
    Random random = {seed * 0x9e3779b97f4a7c15ull + 1};
    next(&random);
    return random;
}

// The first argument: hundredths of what a full run does.
static inline size_t share(int argc, char **argv, size_t full) {
    size_t percent = argc > 1 ? (size_t)atoi(argv[1]) : 100;
    size_t part = full / 100 * percent;
    return part ? part : 1;
}

static inline void *must(void *block) {
    if (!block) {
        fputs("no memory\n", stderr);
        exit(2);
    }
    return block;
}

static inline void start(pthread_t *thread, void *(*run)(void *), void *with) {
    if (pthread_create(thread, NULL, run, with)) {
        fputs("no thread\n", stderr);
        exit(2);
    }
}

static inline void join(pthread_t thread) {
    pthread_join(thread, NULL);
}

// Runs a thread for each element of a table, of `size` bytes each, and waits for all of them.
static inline void run_for_each(void *(*run)(void *), void *table, size_t size, size_t count) {
    pthread_t threads[count];
    for (size_t n = 0; n < count; n++)
        start(&threads[n], run, (char *)table + n * size);
    for (size_t n = 0; n < count; n++)
        join(threads[n]);
}

#endif
