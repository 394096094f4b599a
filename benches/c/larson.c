// A server's threads: each replaces blocks of a table at random, and leaves the table to a thread that
// comes after it. After "Memory Allocation for Long-Running Server Applications" (Larson, Krishnan).
#include "common.h"

enum { THREADS = 2, BLOCKS = 5000, GENERATIONS = 40 };

static size_t steps;

typedef struct {
    char *blocks[BLOCKS];
    size_t sizes[BLOCKS];
    uint64_t sum;
    unsigned number;
} Table;

static void *serve(void *with) {
    Table *table = with;
    Random random = seeded(++table->number);
    for (size_t n = 0; n < steps; n++) {
        size_t place = below(&random, BLOCKS), size = 8 + below(&random, 500);
        char *old = table->blocks[place];
        if (old)
            table->sum += (unsigned char)old[0] + (unsigned char)old[table->sizes[place] - 1];
        free(old);
        char *block = must(malloc(size));
        block[0] = (char)n;
        block[size - 1] = (char)size;
        table->blocks[place] = block;
        table->sizes[place] = size;
    }
    return NULL;
}

int main(int argc, char **argv) {
    static Table tables[THREADS];
    steps = share(argc, argv, 400000);
    for (unsigned n = 0; n < THREADS; n++)
        tables[n].number = n * 1000;
    for (int generation = 0; generation < GENERATIONS; generation++)
        run_for_each(serve, tables, sizeof *tables, THREADS);
    printf("%llu\n", (unsigned long long)(tables[0].sum + tables[1].sum));
}
