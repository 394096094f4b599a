// Children of all kinds, of a program whose threads allocate all the time.
#define _GNU_SOURCE
#include "hostmem_malloc.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Where the library is preloaded they are found when the program starts.
#pragma weak hostmem_block_of
#pragma weak hostmem_is_known_allocation
#pragma weak hostmem_malloc_fork_child
#pragma weak hostmem_malloc_statistics

enum { ROUNDS = 100, THREADS = 3 };

extern char **environ;
static volatile int stop;
static char *shared;

// Allocates what a program does, and looks whether all is its own.
static int churn(unsigned seed, int rounds) {
    enum { BLOCKS = 64 };
    unsigned char *own[BLOCKS] = {0};
    for (int n = 0; n < rounds; n++) {
        seed = seed * 1664525 + 1013904223;
        int place = (seed >> 8) % BLOCKS;
        size_t size = 1 + (seed >> 16) % (n % 50 ? 3000 : 300000);
        if (own[place] && own[place][0] != place + 1)
            return 3;
        free(own[place]);
        own[place] = malloc(size);
        if (!own[place])
            return 4;
        own[place][0] = place + 1;
    }
    for (int n = 0; n < BLOCKS; n++)
        free(own[n]);
    return 0;
}

static void *run(void *seed) {
    while (!stop)
        if (churn((unsigned)(size_t)seed, 500))
            _exit(11);
    return NULL;
}

static int waited(pid_t child, const char *kind) {
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child > 0 && status == 0)
        return 0;
    printf("%s: child %d, status %#x\n", kind, child, status);
    return 1;
}

// In a child whose memory is a copy.
static void live(int n) {
    alarm(100);
    _exit(churn(n, 2000));
}

static int by_fork(int n) {
    pid_t child = fork();
    if (child == 0)
        live(n);
    return waited(child, "fork");
}

// Its memory is its parent's, which waits.
static int by_vfork(int n) {
    free(shared);
    shared = NULL;
    pid_t child = vfork();
    if (child == 0) {
        shared = malloc(100 + n);
        strcpy(shared, "from the child");
        _exit(churn(n, 200));
    }
    if (waited(child, "vfork"))
        return 1;
    if (strcmp(shared, "from the child") || !hostmem_is_known_allocation(shared)) {
        puts("vfork: what the child allocated is lost");
        return 1;
    }
    return 0;
}

static int shared_child(void *n) {
    free(shared);
    shared = strdup("from a clone");
    return churn((unsigned)(size_t)n, 200);
}

static int by_shared_clone(int n) {
    static char stack[1 << 18] __attribute__((aligned(16)));
    pid_t child = clone(shared_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD,
                        (void *)(size_t)n);
    if (waited(child, "clone with CLONE_VM"))
        return 1;
    if (strcmp(shared, "from a clone")) {
        puts("clone with CLONE_VM: what the child allocated is lost");
        return 1;
    }
    return 0;
}

// The C library does not know of this child.
static int by_raw_clone(int n, int repair) {
    pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        if (repair && hostmem_malloc_fork_child())
            _exit(5);
        live(n);
    }
    return waited(child, "raw clone");
}

static int by_spawn(const char *self) {
    pid_t child;
    char *arguments[] = {(char *)self, "0", NULL};
    int failed = posix_spawn(&child, self, NULL, NULL, arguments, environ);
    if (failed) {
        printf("posix_spawn: %s\n", strerror(failed));
        return 1;
    }
    return waited(child, "posix_spawn");
}

static char **self;

static void *execute(void *unused) {
    (void)unused;
    char number[20];
    snprintf(number, sizeof number, "%d", atoi(self[1]) - 1);
    execl(self[0], self[0], number, (char *)0);
    _exit(9);
}

int main(int argc, char **argv) {
    // Programs that threads started in their own place.
    if (argc > 1) {
        self = argv;
        if (atoi(argv[1]) <= 0)
            return churn(1, 1000);
        pthread_t thread;
        for (size_t n = 0; n < THREADS; n++)
            if (pthread_create(&thread, NULL, run, (void *)n))
                return 6;
        if (pthread_create(&thread, NULL, execute, NULL))
            return 6;
        for (;;)
            pause();
    }
    for (int n = 0; n < 10; n++)
        if (by_raw_clone(n, 0))
            return 1;
    pthread_t threads[THREADS];
    for (size_t n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], NULL, run, (void *)n))
            return 6;
    for (int n = 0; n < ROUNDS; n++)
        if (by_fork(n) || by_vfork(n) || by_shared_clone(n) || by_raw_clone(n, 1) ||
            by_spawn(argv[0]))
            return 1;
    pid_t child = fork();
    if (child == 0)
        execl(argv[0], argv[0], "20", (char *)0);
    if (waited(child, "exec from threads"))
        return 1;
    stop = 1;
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    puts("all children ended well");
}
