/* Reservations: a word that another thread changes and changes back is not stored to, and loops
   that the specification calls constrained succeed, with branches within them too. */
#include <pthread.h>
#include <stdio.h>

static volatile int word = 1, turn;

static void *change_and_back(void *unused) {
    while (turn != 1)
        ;
    word = 2;
    __sync_synchronize();
    word = 1;
    __sync_synchronize();
    turn = 2;
    return unused;
}

/* Says whether the store failed, between which and the load the other thread has its turn. */
static int fails_after_change_and_back(void) {
    int failed;
    __asm__ volatile("lr.w.aqrl t0, (%1)\n\t"
                     "li t1, 1\n\t"
                     "sw t1, (%2)\n\t"
                     "li t1, 2\n"
                     "1: lw t0, (%2)\n\t"
                     "bne t0, t1, 1b\n\t"
                     "sc.w.aqrl %0, t1, (%1)"
                     : "=&r"(failed)
                     : "r"(&word), "r"(&turn)
                     : "t0", "t1", "memory");
    return failed;
}

static volatile unsigned largest, sum, byte_sum;

/* A loop with a branch that is taken now and then between the load and the store. */
static void store_larger(unsigned value) {
    __asm__ volatile("1: lr.w t0, (%0)\n\t"
                     "mv t1, t0\n\t"
                     "bgeu t0, %1, 2f\n\t"
                     "mv t1, %1\n"
                     "2: sc.w t2, t1, (%0)\n\t"
                     "bnez t2, 1b"
                     :
                     : "r"(&largest), "r"(value)
                     : "t0", "t1", "t2", "memory");
}

static void add_one(void) {
    __asm__ volatile("1: lr.w t0, (%0)\n\t"
                     "addi t0, t0, 1\n\t"
                     "sc.w t1, t0, (%0)\n\t"
                     "bnez t1, 1b"
                     :
                     : "r"(&sum)
                     : "t0", "t1", "memory");
}

static void *work(void *first) {
    for (unsigned i = 0; i < 5000; i++) {
        store_larger((unsigned)(size_t)first + i * 4);
        add_one();
        __atomic_fetch_add((unsigned char *)&byte_sum + 1, 1, __ATOMIC_SEQ_CST);
    }
    return 0;
}

int main(void) {
    pthread_t other, threads[4];
    pthread_create(&other, 0, change_and_back, 0);
    if (!fails_after_change_and_back() || word != 1)
        return 1;
    pthread_join(other, 0);
    for (size_t i = 0; i < 4; i++)
        pthread_create(&threads[i], 0, work, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], 0);
    if (largest != 3 + 4999 * 4 || sum != 20000 || byte_sum != 20000 % 256 << 8)
        return 2;
    printf("reservations hold\n");
    return 0;
}
