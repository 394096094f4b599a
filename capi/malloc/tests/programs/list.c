// Uses every name that the library has, so that none is looked for in the C library: a static
// program with them links, and each does what it is for.
#define _GNU_SOURCE
#include "hostmem_malloc.h"
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// Where the library is preloaded they are found when the program starts.
#pragma weak hostmem_block_of
#pragma weak hostmem_is_known_allocation
#pragma weak hostmem_malloc_fork_child
#pragma weak hostmem_malloc_statistics

void cfree(void *);
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_reallocarray(void *, size_t, size_t);
void __libc_free(void *);
void __libc_cfree(void *);
void *__libc_memalign(size_t, size_t);
int __posix_memalign(void **, size_t, size_t);
void *__libc_valloc(size_t);
void *__libc_pvalloc(size_t);
struct mallinfo __libc_mallinfo(void);
struct mallinfo2 __libc_mallinfo2(void);
int __libc_mallopt(int, int);
#pragma weak cfree
#pragma weak free_sized
#pragma weak free_aligned_sized
#pragma weak __libc_reallocarray
#pragma weak __libc_cfree
#pragma weak __posix_memalign
#pragma weak __libc_valloc
#pragma weak __libc_pvalloc
#pragma weak __libc_mallinfo2

static int broken;
#define MUST(x)                                                                                    \
    do                                                                                             \
        if (!(x)) {                                                                                \
            printf("line %d: %s\n", __LINE__, #x);                                                 \
            broken = 1;                                                                            \
        }                                                                                          \
    while (0)

// A block of this library, at that alignment, of which that many bytes can be written.
static void *check(void *block, size_t align, size_t size) {
    MUST(block && ((uintptr_t)block & (align - 1)) == 0);
    MUST(hostmem_is_known_allocation(block));
    memset(block, 0xee, size);
    return block;
}

static void calls(void) {
    void *block;
    free(check(malloc(100), 16, 100));
    cfree(check(calloc(10, 10), 16, 100));
    free_sized(check(realloc(NULL, 100), 16, 100), 100);
    free(check(reallocarray(malloc(1), 100, 100), 16, 10000));
    free_aligned_sized(check(aligned_alloc(64, 128), 64, 128), 64, 128);
    free(check(memalign(256, 100), 256, 100));
    MUST(posix_memalign(&block, 4096, 100) == 0);
    free(check(block, 4096, 100));
    free(check(valloc(100), 4096, 100));
    free(check(pvalloc(100), 4096, 4096));
    block = __libc_malloc(100);
    block = __libc_realloc(check(block, 16, 100), 2000);
    block = __libc_reallocarray(check(block, 16, 2000), 50, 100);
    __libc_free(check(block, 16, 5000));
    __libc_cfree(check(__libc_calloc(3, 100), 16, 300));
    __libc_free(check(__libc_memalign(128, 100), 128, 100));
    MUST(__posix_memalign(&block, 64, 100) == 0);
    __libc_free(check(block, 64, 100));
    __libc_free(check(__libc_valloc(100), 4096, 100));
    __libc_free(check(__libc_pvalloc(5000), 4096, 8192));
}

static void numbers(void) {
    void *huge = malloc(30 << 20);
    struct mallinfo2 long_numbers = mallinfo2();
    MUST(long_numbers.hblks >= 1 && long_numbers.hblkhd >= 30 << 20);
    MUST(__libc_mallinfo2().hblkhd == long_numbers.hblkhd);
    struct mallinfo numbers = mallinfo();
    MUST(numbers.hblkhd >= 30 << 20 && __libc_mallinfo().hblkhd == numbers.hblkhd);
    MUST(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && __libc_mallopt(M_ARENA_MAX, 1) == 1);
    MUST(mallopt(12345, 67) == 1);
    struct hostmem_malloc_statistics held;
    MUST(hostmem_malloc_statistics(&held, sizeof held) == 0);
    MUST(held.huge == long_numbers.hblkhd && held.huge_blocks == long_numbers.hblks);
    MUST(held.used >= held.huge && held.reserved >= held.huge && held.requested >= held.huge);
    // A shorter structure than the library knows, and a longer one.
    uint64_t some[40];
    memset(some, 0xff, sizeof some);
    MUST(hostmem_malloc_statistics(some, sizeof some[0]) == 0);
    MUST(some[0] >= held.huge && some[1] == UINT64_MAX);
    MUST(hostmem_malloc_statistics(some, sizeof some) == 0);
    MUST(some[5] == held.huge && some[sizeof held / sizeof some[0]] == 0 && some[39] == 0);
    free(huge);
    MUST(malloc_trim(0) == 1);
    MUST(mallinfo2().hblks == long_numbers.hblks - 1);
}

static void reports(void) {
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    MUST(stream && malloc_info(1, stream) == EINVAL);
    MUST(malloc_info(0, stream) == 0);
    fclose(stream);
    static const char begin[] = "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n";
    MUST(strncmp(text, begin, sizeof begin - 1) == 0);
    MUST(strstr(text, "<system type=\"current\" size=\"") != NULL);
    MUST(len > 10 && strcmp(text + len - 10, "</malloc>\n") == 0);
    free(text);
    malloc_stats();
}

static void blocks(void) {
    char *block = malloc(1000);
    size_t size = 0;
    MUST(hostmem_block_of(block, &size) == block && size >= 1000);
    MUST(size == malloc_usable_size(block));
    MUST(hostmem_block_of(block + 999, NULL) == block);
    char *huge = malloc(50 << 20);
    MUST(hostmem_block_of(huge + (40 << 20), &size) == huge && size >= 50 << 20);
    MUST(hostmem_is_known_allocation(huge + (40 << 20)));
    free(huge);
    int local;
    static int variable;
    MUST(!hostmem_is_known_allocation(&local) && !hostmem_is_known_allocation(&variable));
    MUST(!hostmem_is_known_allocation(NULL) && !hostmem_is_known_allocation((void *)calls));
    MUST(!hostmem_is_known_allocation((void *)UINTPTR_MAX));
    MUST(!hostmem_block_of(&local, &size) && !hostmem_block_of((void *)(UINTPTR_MAX / 3), NULL));
    free(block);
    // Its slab has other blocks.
    MUST(hostmem_block_of(block, NULL) == NULL && hostmem_is_known_allocation(block));
}

static void *run(void *unused) {
    for (int n = 0; n < 1000; n++)
        free(malloc(n));
    return unused;
}

int main(void) {
    void *kept = malloc(1);
    calls();
    numbers();
    reports();
    blocks();
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, run, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(run(NULL) != NULL);
    int status = -1;
    MUST(waitpid(child, &status, 0) == child && status == 0);
    free(kept);
    puts(broken ? "broken" : "all are there");
    return broken;
}
