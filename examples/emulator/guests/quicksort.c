/* Sorts numbers, by hand and by the C library with a comparison that is called. */
#include <stdio.h>
#include <stdlib.h>

static unsigned seed = 12345;

static unsigned next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static void sort(unsigned *v, int low, int high) {
    while (low < high) {
        unsigned pivot = v[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot)
                i++;
            while (v[j] > pivot)
                j--;
            if (i <= j) {
                unsigned t = v[i];
                v[i++] = v[j];
                v[j--] = t;
            }
        }
        if (j - low < high - i) {
            sort(v, low, j);
            low = i;
        } else {
            sort(v, i, high);
            high = j;
        }
    }
}

static int compare(const void *a, const void *b) {
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 200000;
    unsigned *v = malloc(n * sizeof *v), *w = malloc(n * sizeof *w);
    if (!v || !w)
        return 1;
    for (int i = 0; i < n; i++)
        v[i] = w[i] = next();
    sort(v, 0, n - 1);
    int m = n < 50000 ? n : 50000;
    qsort(w, m, sizeof *w, compare);
    for (int i = 1; i < n; i++)
        if (v[i - 1] > v[i])
            return 2;
    for (int i = 1; i < m; i++)
        if (w[i - 1] > w[i])
            return 3;
    printf("sorted %d: %u %u %u\n", n, v[0], v[n / 2], v[n - 1]);
    return 0;
}
