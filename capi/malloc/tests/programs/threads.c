// Threads that come and go, with destructors that allocate, while others load libraries and fork.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_key_t keys[40];
static __thread int rounds;

static void ended(void *block) {
    free(block);
    char *other = malloc(300);
    if (!other)
        _exit(2);
    memset(other, 1, 300);
    free(other);
    if (rounds++ < 100)
        pthread_setspecific(keys[rounds % 40], malloc(50 + rounds));
}

static void *run(void *seed) {
    unsigned number = (unsigned)(size_t)seed;
    for (int n = 0; n < 40; n++) {
        // A thread that does this again and again.
        free(pthread_getspecific(keys[n]));
        pthread_setspecific(keys[n], malloc(100 + n));
    }
    char *own[64] = {0};
    for (int n = 0; n < 1000; n++) {
        number = number * 1664525 + 1013904223;
        int place = (number >> 8) % 64;
        size_t size = (number >> 16) % 3000;
        if (own[place] && own[place][0] != place + 1)
            _exit(3);
        free(own[place]);
        own[place] = malloc(size + 1);
        if (!own[place])
            _exit(4);
        own[place][0] = place + 1;
    }
    for (int n = 0; n < 64; n++)
        free(own[n]);
    return 0;
}

static volatile int stop;

static void *churn(void *seed) {
    while (!stop)
        run(seed);
    return 0;
}

// More libraries than there were when the threads began, so that the loader has to make room for
// what each thread has of them.
static void *load(void *unused) {
    (void)unused;
    static const char *const names[] = {"libm.so.6", "libresolv.so.2", "libutil.so.1",
                                        "librt.so.1"};
    while (!stop)
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            void *library = dlopen(names[n], RTLD_NOW);
            if (library)
                dlclose(library);
        }
    return 0;
}

int main(void) {
    for (int n = 0; n < 40; n++)
        if (pthread_key_create(&keys[n], ended))
            return 5;
    pthread_t churning[4], loading, thread;
    for (size_t n = 0; n < 4; n++)
        if (pthread_create(&churning[n], 0, churn, (void *)n))
            return 6;
    if (pthread_create(&loading, 0, load, 0))
        return 6;
    for (int n = 0; n < 60; n++) {
        pid_t child = fork();
        if (child == 0) {
            // Whatever the other threads were doing.
            alarm(100);
            run((void *)(size_t)n);
            if (pthread_create(&thread, 0, run, (void *)(size_t)n) || pthread_join(thread, 0))
                _exit(7);
            _exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            printf("child %d: status %#x\n", n, status);
            return 8;
        }
        if (pthread_create(&thread, 0, run, (void *)(size_t)n) || pthread_join(thread, 0))
            return 9;
    }
    stop = 1;
    for (int n = 0; n < 4; n++)
        pthread_join(churning[n], 0);
    pthread_join(loading, 0);
    puts("all ended");
}
