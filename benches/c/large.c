// Twenty to thirty blocks of 5 to 25 MB, all of which are written.
#include "common.h"

int main(int argc, char **argv) {
    enum { MOST = 30 };
    size_t steps = share(argc, argv, 300);
    char *blocks[MOST] = {0};
    uint64_t check = 0;
    Random random = seeded(1);
    for (size_t n = 0; n < steps; n++) {
        size_t place = below(&random, MOST);
        size_t size = 5000000 + below(&random, 20000000);
        if (blocks[place])
            check += (unsigned char)blocks[place][4000000];
        free(blocks[place]);
        blocks[place] = NULL;
        if (below(&random, 6) == 0)
            continue;
        blocks[place] = must(malloc(size));
        for (size_t at = 0; at < size; at += 512)
            blocks[place][at] = (char)(n + at / 512);
        blocks[place][4000000] = (char)n;
    }
    for (int n = 0; n < MOST; n++)
        free(blocks[n]);
    printf("%llu\n", (unsigned long long)check);
}
