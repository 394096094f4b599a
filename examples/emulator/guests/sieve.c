/* Counts primes by the sieve of Eratosthenes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    unsigned limit = argc > 1 ? strtoul(argv[1], 0, 10) : 1000000;
    unsigned rounds = argc > 2 ? strtoul(argv[2], 0, 10) : 1;
    unsigned char *composite = malloc(limit + 1);
    unsigned count = 0;
    if (!composite)
        return 1;
    while (rounds--) {
        memset(composite, 0, limit + 1);
        count = 0;
        for (unsigned n = 2; n <= limit; n++) {
            if (composite[n])
                continue;
            count++;
            for (unsigned long long m = (unsigned long long)n * n; m <= limit; m += n)
                composite[m] = 1;
        }
    }
    printf("%u primes up to %u\n", count, limit);
    free(composite);
    return 0;
}
