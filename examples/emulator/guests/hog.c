/* Maps all memory that there is, and gives it back; then uses what it has in all ways. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(void) {
    static struct { char *at; size_t len; } got[4096];
    size_t count = 0;
    uint64_t total = 0;
    for (size_t len = (size_t)2 << 30; len >= 4096; len /= 2)
        while (count < 4096) {
            char *at = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (at == MAP_FAILED)
                break;
            at[0] = 1;
            at[len - 1] = 2;
            got[count].at = at;
            got[count++].len = len;
            total += len;
        }
    for (size_t i = 0; i < count; i++) {
        if (got[i].at[0] != 1 || got[i].at[got[i].len - 1] != 2)
            return 2;
        if (munmap(got[i].at, got[i].len))
            return 3;
    }
    printf("mapped %s\n", total >= 4187593113ull ? "3.9 GiB or more" : "less than 3.9 GiB");
    /* What was given back reads zero when it comes again; moving keeps what is in it. */
    char *a = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 1 << 20; i++)
        if (a[i])
            return 4;
    memset(a, 7, 1 << 20);
    char *b = mmap(a + (1 << 20), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    a = mremap(a, 1 << 20, 4 << 20, MREMAP_MAYMOVE);
    if (a == MAP_FAILED || a[(1 << 20) - 1] != 7 || a[1 << 20])
        return 5;
    a = mremap(a, 4 << 20, 1 << 19, 0);
    if (a == MAP_FAILED || a[0] != 7)
        return 6;
    if (madvise(a, 4096, MADV_DONTNEED) || a[0] || a[4096] != 7)
        return 7;
    for (int i = 0; i < 100; i++) {
        char *p = malloc(i * 10007);
        if (p) {
            memset(p, i, i * 10007);
            p = realloc(p, i * 20011);
            if (i && p[i * 10007 - 1] != i)
                return 8;
        }
        free(p);
    }
    (void)b;
    printf("done\n");
    return 0;
}
