// Handlers that interrupt calls, the first ones of the process and of threads too, and leave them
// for good by siglongjmp.
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

enum { JUMPS = 200, THREADS = 8, JUMPS_OF_A_THREAD = 10, BLOCKS = 64 };

static __thread sigjmp_buf back;
static __thread volatile sig_atomic_t jumps, has_back;
// Whether the last jump has landed: a signal that came before would be handled on top of its
// handler, and so on until the stack ends.
static volatile sig_atomic_t has_landed;

static void leave(int signal) {
    (void)signal;
    if (has_back)
        siglongjmp(back, 1);
}

// Allocates until it was left so often.
static void be_left(int times) {
    char *volatile own[BLOCKS] = {0};
    volatile unsigned seed = 1;
    sigsetjmp(back, 1);
    has_landed = 1;
    has_back = 1;
    if (jumps++ >= times) {
        has_back = 0;
        return;
    }
    for (;;) {
        seed = seed * 1664525 + 1013904223;
        int place = (seed >> 8) % BLOCKS;
        char *block = own[place];
        // Forgotten before it is freed, since the call may be left in its middle.
        own[place] = NULL;
        free(block);
        own[place] = malloc(1 + (seed >> 16) % 3000);
    }
}

// Returns how many of some blocks cannot be had.
static int missing(void) {
    enum { COUNT = 1000 };
    static __thread void *blocks[COUNT];
    int missing = 0;
    for (int n = 0; n < COUNT; n++) {
        blocks[n] = malloc(1 + n * 50);
        missing += !blocks[n];
    }
    for (int n = 0; n < COUNT; n++)
        free(blocks[n]);
    return missing;
}

static volatile int is_done;

static void *run(void *unused) {
    (void)unused;
    be_left(JUMPS_OF_A_THREAD);
    is_done = 1;
    // SIGUSR1 does nothing from here on.
    return (void *)(size_t)missing();
}

int main(void) {
    signal(SIGALRM, leave);
    signal(SIGUSR1, leave);
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    be_left(JUMPS);
    setitimer(ITIMER_REAL, &never, NULL);
    if (missing()) {
        puts("the main thread lacks memory");
        return 1;
    }
    for (int n = 0; n < THREADS; n++) {
        pthread_t thread;
        void *lacks;
        is_done = has_landed = 0;
        if (pthread_create(&thread, NULL, run, NULL)) {
            puts("no thread");
            return 2;
        }
        while (!is_done) {
            if (has_landed) {
                has_landed = 0;
                pthread_kill(thread, SIGUSR1);
            }
        }
        pthread_join(thread, &lacks);
        if (lacks) {
            printf("thread %d lacks memory\n", n);
            return 3;
        }
    }
    puts("ok");
    return 0;
}
