/* Threads that pass numbers through queues, and count with atomics. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, PLACES = 64 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    unsigned items[PLACES];
    unsigned count, first;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};

static atomic_uint counted;
static _Thread_local unsigned own;
static unsigned numbers;

static void put(unsigned item) {
    pthread_mutex_lock(&queue.lock);
    while (queue.count == PLACES)
        pthread_cond_wait(&queue.emptied, &queue.lock);
    queue.items[(queue.first + queue.count++) % PLACES] = item;
    pthread_cond_signal(&queue.filled);
    pthread_mutex_unlock(&queue.lock);
}

static unsigned take(void) {
    pthread_mutex_lock(&queue.lock);
    while (queue.count == 0)
        pthread_cond_wait(&queue.filled, &queue.lock);
    unsigned item = queue.items[queue.first];
    queue.first = (queue.first + 1) % PLACES;
    queue.count--;
    pthread_cond_signal(&queue.emptied);
    pthread_mutex_unlock(&queue.lock);
    return item;
}

static void *work(void *unused) {
    for (;;) {
        unsigned item = take();
        if (item == 0)
            break;
        own += item;
        atomic_fetch_add(&counted, 1);
    }
    return (void *)(unsigned long)own;
}

int main(int argc, char **argv) {
    numbers = argc > 1 ? strtoul(argv[1], 0, 10) : 20000;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], 0, work, 0))
            return 1;
    unsigned sum = 0;
    for (unsigned n = 1; n <= numbers; n++) {
        put(n);
        sum += n;
    }
    for (int i = 0; i < THREADS; i++)
        put(0);
    unsigned got = 0;
    for (int i = 0; i < THREADS; i++) {
        void *part;
        pthread_join(threads[i], &part);
        got += (unsigned)(unsigned long)part;
    }
    if (got != sum || counted != numbers || own != 0)
        return 2;
    printf("%d threads took %u numbers\n", THREADS, numbers);
    return 0;
}
