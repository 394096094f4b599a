// Holds the calls to what the manual says of them, and prints each line that is broken.
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int broken;
// Whether the malloc is the C library's, which does a little more in some places.
static int is_libc;
#define MUST(x)                                                                                    \
    do                                                                                             \
        if (!(x)) {                                                                                \
            printf("line %d: %s\n", __LINE__, #x);                                                 \
            broken = 1;                                                                            \
        }                                                                                          \
    while (0)

// What fails, with this number, and what it returns.
#define FAILS(x, number)                                                                           \
    do {                                                                                           \
        errno = 0;                                                                                 \
        void *volatile got = (x);                                                                  \
        MUST(got == NULL && errno == (number));                                                    \
    } while (0)

// Hidden from the compiler, which knows these calls and would leave them out.
static void *(*volatile m)(size_t) = malloc;
static void *(*volatile c)(size_t, size_t) = calloc;
static void *(*volatile r)(void *, size_t) = realloc;
static void *(*volatile ra)(void *, size_t, size_t) = reallocarray;
static void (*volatile f)(void *) = free;
static void *(*volatile aa)(size_t, size_t) = aligned_alloc;
static void *(*volatile ma)(size_t, size_t) = memalign;
static int (*volatile pm)(void **, size_t, size_t) = posix_memalign;
static volatile size_t most = PTRDIFF_MAX;

static int holds(const void *block, int byte, size_t size) {
    const unsigned char *at = block;
    for (size_t n = 0; n < size; n++)
        if (at[n] != byte)
            return 0;
    return 1;
}

static int is_multiple(const void *block, size_t of) {
    return ((uintptr_t)block & (of - 1)) == 0;
}

static void sizes(void) {
    for (size_t size = 0; size < 9000000; size = size * 5 / 3 + 1) {
        unsigned char *a = m(size), *b = m(size);
        MUST(a && b && a != b && is_multiple(a, 16) && is_multiple(b, 16));
        MUST(malloc_usable_size(a) >= size && malloc_usable_size(b) >= size);
        // All that may be used, not only what was asked for.
        memset(a, 0xa5, malloc_usable_size(a));
        memset(b, 0x5a, malloc_usable_size(b));
        a = r(a, size * 2 + 1);
        MUST(a && holds(a, 0xa5, size));
        memset(a, 0xa5, size * 2 + 1);
        a = r(a, size / 3 + 1);
        MUST(a && holds(a, 0xa5, size / 3 + 1) && holds(b, 0x5a, size));
        f(a);
        f(b);
        for (int n = 0; n < 3; n++) {
            a = n % 2 ? c(size, 1) : c(1, size);
            MUST(a && holds(a, 0, size));
            memset(a, 1, size);
            f(a);
        }
    }
}

static void absurd_sizes(void) {
    FAILS(m(most + 1), ENOMEM);
    FAILS(m(SIZE_MAX), ENOMEM);
    FAILS(m(most), ENOMEM);
    FAILS(m(most - 100), ENOMEM);
    FAILS(m((size_t)1 << 50), ENOMEM);
    FAILS(c(most, 3), ENOMEM);
    FAILS(c(SIZE_MAX / 2, 2), ENOMEM);
    FAILS(c(1, most), ENOMEM);
    FAILS(ra(NULL, SIZE_MAX / 2, 3), ENOMEM);
    FAILS(aa(64, most), ENOMEM);
    FAILS(pvalloc(SIZE_MAX - 100), ENOMEM);
    FAILS(valloc(SIZE_MAX - 100), ENOMEM);
    char *text = m(10);
    strcpy(text, "text");
    FAILS(r(text, most), ENOMEM);
    FAILS(r(text, (size_t)1 << 50), ENOMEM);
    FAILS(ra(text, SIZE_MAX / 2, 3), ENOMEM);
    MUST(strcmp(text, "text") == 0);
    errno = 0;
    MUST(r(text, 0) == NULL && errno == 0);
    text = r(NULL, 5);
    MUST(text != NULL);
    text = ra(text, 1000, 1000);
    MUST(text && malloc_usable_size(text) >= 1000000);
    f(text);
}

static void alignments(void) {
    for (size_t align = 1; align <= (size_t)1 << 26; align *= 2)
        for (size_t size = 0; size < 200000; size = size * 7 + 3) {
            void *block = aa(align, size);
            MUST(block && is_multiple(block, align) && malloc_usable_size(block) >= size);
            memset(block, 7, size);
            block = r(block, size + 100);
            MUST(block && holds(block, 7, size));
            f(block);
            block = ma(align, size);
            MUST(block && is_multiple(block, align) && malloc_usable_size(block) >= size);
            f(block);
            if (align < sizeof(void *))
                continue;
            errno = 77;
            MUST(pm(&block, align, size) == 0 && errno == 77);
            MUST(is_multiple(block, align) && malloc_usable_size(block) >= size);
            f(block);
        }
    void *block = &broken;
    errno = 77;
    MUST(pm(&block, 0, 8) == EINVAL && pm(&block, 3, 8) == EINVAL && pm(&block, 4, 8) == EINVAL);
    MUST(pm(&block, 24, 8) == EINVAL && pm(&block, 16, most) == ENOMEM);
    MUST(pm(&block, (size_t)1 << 62, 8) == ENOMEM);
    MUST(block == &broken && (errno == 77 || is_libc));
    FAILS(ma((size_t)1 << 63 | 1, 8), EINVAL);
    FAILS(ma((size_t)1 << 62, 8), ENOMEM);
    block = ma(48, 100);
    MUST(block && is_multiple(block, 64));
    f(block);
    block = valloc(10);
    MUST(block && is_multiple(block, 4096));
    f(block);
    for (size_t size = 0; size < 20000; size += 4095) {
        block = pvalloc(size);
        MUST(block && is_multiple(block, 4096));
        MUST(malloc_usable_size(block) >= (size + 4095) / 4096 * 4096);
        f(block);
    }
}

static void errno_stays(void) {
    errno = 1234;
    f(NULL);
    for (size_t size = 1; size < 64 << 20; size *= 3) {
        void *block = m(size);
        MUST(block && errno == 1234);
        memset(block, 1, size);
        f(block);
        MUST(errno == 1234);
    }
    malloc_trim(0);
    MUST(errno == 1234);
    MUST(malloc_usable_size(NULL) == 0);
}

static void numbers(void) {
    enum { COUNT = 20000 };
    static void *blocks[COUNT];
    struct mallinfo2 before = mallinfo2();
    for (int n = 0; n < COUNT; n++) {
        blocks[n] = m(1000);
        memset(blocks[n], 1, 1000);
    }
    void *huge = m(30 << 20);
    struct mallinfo2 now = mallinfo2();
    MUST(now.uordblks >= before.uordblks + COUNT * 1000 + (30 << 20));
    MUST(now.hblkhd >= before.hblkhd + (30 << 20) && now.hblks > before.hblks);
    MUST(now.arena >= COUNT * 1000);
    f(huge);
    for (int n = 0; n < COUNT; n++)
        f(blocks[n]);
    // Unless all went back at once.
    const char *purge = getenv("HOSTMEM_PURGE_MS");
    MUST(malloc_trim(0) == 1 || (purge && strcmp(purge, "0") == 0));
    now = mallinfo2();
    MUST(now.uordblks < before.uordblks + 1000000 && now.hblks == before.hblks);
    MUST(now.arena < 4000000);
}

int main(int argc, char **argv) {
    is_libc = argc > 1 && strcmp(argv[1], "libc") == 0;
    sizes();
    absurd_sizes();
    alignments();
    errno_stays();
    // Numbers of the C library's malloc mean something else.
    if (!is_libc)
        numbers();
    puts(broken ? "broken" : "all hold");
    return broken;
}
