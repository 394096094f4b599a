/* What a debugger is tried on: calls three deep, variables that it changes, a thread, and a fault.
 * Without a C library, so that its debug information is short. */
#include <stdint.h>

volatile int wanted = 3;
volatile int sum;
volatile int done;
static char stack[4096] __attribute__((aligned(16)));

static long call(long number, long a, long b, long c) {
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
    register long a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}

__attribute__((noinline)) int inner(int number) {
    sum += number;
    return sum;
}

__attribute__((noinline)) int middle(int number) {
    return inner(number * 2) + 1;
}

__attribute__((noinline)) int fault(void) {
    return *(volatile int *)16;
}

void in_thread(void) { done = 1; }

/* Runs a function in a thread that shares all. */
static void spawn(void (*function)(void), char *top) {
    register long a0 __asm__("a0") = 0x50f00, a7 __asm__("a7") = 220;
    register char *a1 __asm__("a1") = top;
    register void (*a6)(void) __asm__("a6") = function;
    __asm__ volatile("ecall; bnez a0, 1f; jalr a6; li a7, 93; li a0, 0; ecall; 1:"
                     : "+r"(a0), "+r"(a1), "+r"(a6), "+r"(a7)
                     :
                     : "memory", "ra", "t0", "t1", "t2", "a2", "a3", "a4", "a5");
}

int main(void) {
    spawn(in_thread, stack + sizeof stack);
    while (!done) {
    }
    for (int n = 1; n <= wanted; n++)
        middle(n);
    call(64, 1, (long)"summed\n", 7);
    if (sum == 12)
        return 5;
    return fault();
}

void _start(void) { call(93, main(), 0, 0); }
