/* Multiplies matrices of whole numbers. */
#include <stdio.h>
#include <stdlib.h>

enum { N = 128 };
static unsigned a[N][N], b[N][N], c[N][N];

int main(int argc, char **argv) {
    unsigned rounds = argc > 1 ? strtoul(argv[1], 0, 10) : 2;
    for (unsigned i = 0; i < N; i++)
        for (unsigned j = 0; j < N; j++) {
            a[i][j] = i * 7 + j * 3 + 1;
            b[i][j] = i * 5 + j * 11 + 2;
        }
    while (rounds--) {
        for (unsigned i = 0; i < N; i++)
            for (unsigned j = 0; j < N; j++) {
                unsigned sum = 0;
                for (unsigned k = 0; k < N; k++)
                    sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        for (unsigned i = 0; i < N; i++)
            for (unsigned j = 0; j < N; j++)
                a[i][j] = c[i][j] >> 3;
    }
    unsigned sum = 0;
    for (unsigned i = 0; i < N; i++)
        for (unsigned j = 0; j < N; j++)
            sum = sum * 31 + c[i][j];
    printf("checksum %08x\n", sum);
    return 0;
}
