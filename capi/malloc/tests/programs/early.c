// Allocates before main, before the C library has begun even, and after main.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int hostmem_is_known_allocation(const void *) __attribute__((weak));

extern char **environ;
static char *first, *second, *kept;
static int had_environment = -1;
static pthread_key_t key;

// The first of all functions of a program: those of libraries come later.
static void before_all(void) {
    had_environment = environ != NULL;
    first = malloc(1000);
    memset(first, 1, 1000);
}
#ifndef STATIC
__attribute__((section(".preinit_array"), used)) static void (*preinit)(void) = before_all;
#endif

__attribute__((constructor)) static void before(void) {
#ifdef STATIC
    before_all();
#endif
    second = malloc(100000);
    memset(second, 2, 100000);
    kept = malloc(10);
}

static void use(const char *when) {
    for (int n = 0; n < 2000; n++) {
        char *block = malloc(n);
        if (!block || (hostmem_is_known_allocation && !hostmem_is_known_allocation(block)))
            _exit(7);
        memset(block, 3, n);
        free(block);
    }
    free(kept);
    kept = malloc(20);
    printf("%s\n", when);
    fflush(stdout);
}

static void ended(void *block) {
    free(block);
    use("a thread's end");
}

static void *run(void *unused) {
    pthread_setspecific(key, malloc(100));
    return unused;
}

static void at_exit(void) {
    use("atexit");
}

__attribute__((destructor)) static void after(void) {
    use("the end");
}

int main(int argc, char **argv) {
    const char *wish = argc > 1 ? argv[1] : "";
    if (atexit(at_exit) || pthread_key_create(&key, ended))
        return 2;
    if (strcmp(wish, "no-environment") == 0 && had_environment) {
        puts("there was an environment");
        return 3;
    }
    int is_low = (uintptr_t)first <= UINT32_MAX - 1000 && (uintptr_t)second <= UINT32_MAX - 100000;
    const char *set = getenv("HOSTMEM_LOW4G");
    if (is_low != (set && strcmp(set, "1") == 0)) {
        printf("blocks at %p and %p\n", (void *)first, (void *)second);
        return 4;
    }
    free(first);
    free(second);
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL) || pthread_join(thread, NULL))
        return 5;
    use("main");
}
