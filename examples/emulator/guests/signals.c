/* Signals: raised, blocked, by faults, on a stack of their own, by a timer. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int count;
static sigjmp_buf out;
static char *guarded;

static void counted(int signal) { count += signal == SIGUSR1 ? 1 : 100; }

static void opens(int signal, siginfo_t *info, void *context) {
    /* Makes the page writable, and lets the store be tried again. */
    if (info->si_addr != guarded + 8 || info->si_code != SEGV_ACCERR)
        _exit(20);
    mprotect(guarded, 4096, PROT_READ | PROT_WRITE);
    count++;
}

static void leaves(int signal, siginfo_t *info, void *context) {
    int here;
    char *stack = (char *)&here;
    uintptr_t sp = ((ucontext_t *)context)->uc_mcontext.__gregs[2];
    if (info->si_addr != (void *)0x10 || info->si_code != SEGV_MAPERR || sp == (uintptr_t)stack)
        _exit(21);
    siglongjmp(out, 1);
}

static void skips(int signal, siginfo_t *info, void *context) {
    /* Goes on behind the instruction that is none. */
    ((ucontext_t *)context)->uc_mcontext.__gregs[0] += 4;
    ((ucontext_t *)context)->uc_mcontext.__gregs[10] = 42;
}

int main(void) {
    struct sigaction action = {.sa_handler = counted};
    sigaction(SIGUSR1, &action, 0);
    raise(SIGUSR1);
    if (count != 1)
        return 1;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, 0);
    raise(SIGUSR1);
    if (count != 1)
        return 2;
    sigprocmask(SIG_UNBLOCK, &set, 0);
    if (count != 2)
        return 3;
    kill(getpid(), SIGUSR1);
    if (count != 3)
        return 4;

    /* Waits with another mask, which holds in the handler, and no longer. */
    sigset_t none, now;
    sigprocmask(SIG_BLOCK, &set, 0);
    raise(SIGUSR1);
    sigemptyset(&none);
    sigsuspend(&none);
    sigprocmask(SIG_BLOCK, 0, &now);
    if (count != 4 || !sigismember(&now, SIGUSR1))
        return 8;
    sigprocmask(SIG_UNBLOCK, &set, 0);
    count = 3;

    guarded = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    action = (struct sigaction){.sa_sigaction = opens, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    *(volatile int *)(guarded + 8) = 77;
    if (count != 4 || *(volatile int *)(guarded + 8) != 77)
        return 5;

    stack_t stack = {.ss_sp = malloc(SIGSTKSZ), .ss_size = SIGSTKSZ};
    sigaltstack(&stack, 0);
    action = (struct sigaction){.sa_sigaction = leaves, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, 0);
    for (int i = 0; i < 100; i++)
        if (!sigsetjmp(out, 1)) {
            *(volatile int *)0x10 = i;
            return 6;
        }

    action = (struct sigaction){.sa_sigaction = skips, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, 0);
    register int a0 __asm__("a0") = 1;
    __asm__ volatile(".word 0xffffffff" : "+r"(a0) : : "memory");
    if (a0 != 42)
        return 7;

    action = (struct sigaction){.sa_handler = counted};
    sigaction(SIGALRM, &action, 0);
    struct itimerval timer = {.it_value = {.tv_usec = 20000}};
    setitimer(ITIMER_REAL, &timer, 0);
    while (count < 100)
        ;
    printf("all signals came\n");
    return 0;
}
