/* Maps, protects and unmaps single pages of 4 KiB, as they are on hosts with larger pages, too. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 64 };

static sigjmp_buf out;
static volatile uintptr_t where;
static volatile int code;

static void faults(int signal, siginfo_t *info, void *context) {
    where = (uintptr_t)info->si_addr;
    code = info->si_code;
    siglongjmp(out, 1);
}

/* Says whether a load, or a store of what is there, works; if not, it must be for this address. */
static int works(volatile char *at, int stores, int expected) {
    if (sigsetjmp(out, 1)) {
        if (where != (uintptr_t)at || code != expected)
            _exit(100);
        return 0;
    }
    char byte = *at;
    if (stores)
        *at = byte;
    return 1;
}

static char *fresh(void) {
    char *all = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        _exit(101);
    for (int page = 0; page < PAGES; page++)
        memset(all + page * PAGE, page + 1, PAGE);
    return all;
}

static int protects(void) {
    static const int ways[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    char *all = fresh();
    /* Neighbors have all pairs of ways, at all places in a host's page. */
    for (int page = 0; page < PAGES; page++)
        if (mprotect(all + page * PAGE, PAGE, ways[page * page / 3 % 3]))
            return 0;
    for (int page = 0; page < PAGES; page++) {
        int way = ways[page * page / 3 % 3];
        for (int at = 0; at < PAGE; at += PAGE - 1) {
            char *byte = all + page * PAGE + at;
            if (works(byte, 0, SEGV_ACCERR) != (way != PROT_NONE))
                return 0;
            if (works(byte, 1, SEGV_ACCERR) != (way == (PROT_READ | PROT_WRITE)))
                return 0;
        }
    }
    if (mprotect(all, PAGES * PAGE, PROT_READ | PROT_WRITE))
        return 0;
    for (int page = 0; page < PAGES; page++)
        for (int at = 0; at < PAGE; at++)
            if (all[page * PAGE + at] != page + 1)
                return 0;
    return munmap(all, PAGES * PAGE) == 0;
}

static int unmaps(void) {
    char *all = fresh();
    for (int page = 0; page < PAGES; page += 3)
        if (munmap(all + page * PAGE, PAGE))
            return 0;
    for (int page = 0; page < PAGES; page++) {
        char *at = all + page * PAGE;
        if (works(at + 7, 1, SEGV_MAPERR) != (page % 3 != 0))
            return 0;
        if (page % 3 && (at[0] != page + 1 || at[PAGE - 1] != page + 1))
            return 0;
    }
    for (int page = 0; page < PAGES; page += 3) {
        char *at = mmap(all + page * PAGE, PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (at != all + page * PAGE)
            return 0;
        for (int byte = 0; byte < PAGE; byte++)
            if (at[byte])
                return 0;
    }
    /* Over others, and what is given up. */
    if (mmap(all + 5 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
            all + 5 * PAGE || all[5 * PAGE + 9] || works(all + 5 * PAGE, 1, SEGV_ACCERR))
        return 0;
    if (all[4 * PAGE] != 5 || all[7 * PAGE] != 8)
        return 0;
    if (madvise(all + 4 * PAGE, PAGE, MADV_DONTNEED) || all[4 * PAGE] || all[4 * PAGE + 4095] ||
        all[7 * PAGE] != 8)
        return 0;
    /* A page that moves takes its contents along. */
    char *moved = mremap(all + 7 * PAGE, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED || moved[PAGE - 1] != 8 || moved[PAGE] || moved[3 * PAGE - 1])
        return 0;
    return munmap(all, PAGES * PAGE) == 0 && munmap(moved, 3 * PAGE) == 0;
}

/* The kernel reads and writes where the guest may, beside what it may not. */
static int calls(void) {
    int ends[2];
    char *all = fresh();
    if (pipe(ends) || mprotect(all, PAGE, PROT_NONE) || munmap(all + 2 * PAGE, PAGE))
        return 0;
    strcpy(all + PAGE, "through a pipe");
    if (write(ends[1], all + PAGE, 15) != 15 || read(ends[0], all + PAGE + 100, 15) != 15)
        return 0;
    if (strcmp(all + PAGE + 100, "through a pipe"))
        return 0;
    close(ends[0]);
    close(ends[1]);
    return munmap(all, PAGES * PAGE) == 0;
}

static char *shared;

static void *adds(void *unused) {
    for (int i = 0; i < 300; i++)
        atomic_fetch_add((_Atomic int *)(shared + PAGE), 1);
    /* Bytes of words that others change. */
    ((volatile char *)shared)[2 * PAGE - 1] = 9;
    return 0;
}

/* Atomic operations, locks and code in pages that have a forbidden neighbor. */
static int threads(void) {
    shared = fresh();
    if (mprotect(shared, PAGE, PROT_NONE))
        return 0;
    *(int *)(shared + PAGE) = 0;
    pthread_mutex_t *lock = (void *)(shared + PAGE + 64);
    pthread_mutex_init(lock, 0);
    pthread_mutex_lock(lock);
    pthread_t all[3];
    for (int i = 0; i < 3; i++)
        if (pthread_create(&all[i], 0, adds, 0))
            return 0;
    for (int i = 0; i < 3; i++)
        pthread_join(all[i], 0);
    pthread_mutex_unlock(lock);
    if (*(int *)(shared + PAGE) != 900)
        return 0;
    /* li a0, 42; ret, in a page that may be executed, and not be written any more. */
    uint32_t *function = (uint32_t *)(shared + 3 * PAGE - 8);
    function[0] = 0x02a00513;
    function[1] = 0x00008067;
    if (mprotect(shared + 2 * PAGE, PAGE, PROT_READ | PROT_EXEC))
        return 0;
    if (((int (*)(void))function)() != 42 || works((char *)function, 1, SEGV_ACCERR))
        return 0;
    return munmap(shared, PAGES * PAGE) == 0;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = faults, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    if (!protects())
        return 1;
    if (!unmaps())
        return 2;
    if (!calls())
        return 3;
    if (!threads())
        return 4;
    puts("pages of 4 KiB");
    return 0;
}
