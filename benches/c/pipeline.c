// A thread that makes messages, each of some blocks, and another one that reads and frees them.
#include "common.h"

enum { WAITING = 1000 };

typedef struct Message {
    struct Message *next;
    char *text;
    uint32_t *numbers;
    size_t count;
} Message;

static size_t messages;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t is_more = PTHREAD_COND_INITIALIZER, is_room = PTHREAD_COND_INITIALIZER;
static Message *first, **last = &first;
static size_t waiting;

static Message *make(Random *random, size_t n) {
    Message *message = must(malloc(sizeof *message));
    message->next = NULL;
    message->text = must(malloc(64));
    snprintf(message->text, 64, "message %zu of many", n);
    message->count = 1 + below(random, n % 100 ? 100 : 5000);
    message->numbers = must(calloc(message->count, sizeof *message->numbers));
    message->numbers[message->count - 1] = (uint32_t)n;
    return message;
}

static void *produce(void *unused) {
    Random random = seeded(1);
    for (size_t n = 0; n < messages;) {
        // Several at once, so that it is the heap that is measured, and not the lock.
        Message *some = NULL, **end = &some;
        size_t count = 0;
        for (; count < 100 && n < messages; count++, n++) {
            *end = make(&random, n);
            end = &(*end)->next;
        }
        pthread_mutex_lock(&lock);
        while (waiting > WAITING)
            pthread_cond_wait(&is_room, &lock);
        *last = some;
        last = end;
        waiting += count;
        pthread_cond_signal(&is_more);
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

int main(int argc, char **argv) {
    messages = share(argc, argv, 3000000);
    uint64_t check = 0;
    pthread_t thread;
    start(&thread, produce, NULL);
    for (size_t done = 0; done < messages;) {
        pthread_mutex_lock(&lock);
        while (!first)
            pthread_cond_wait(&is_more, &lock);
        Message *some = first;
        first = NULL;
        last = &first;
        waiting = 0;
        pthread_cond_signal(&is_room);
        pthread_mutex_unlock(&lock);
        while (some) {
            Message *message = some;
            some = message->next;
            check += message->numbers[message->count - 1] + strlen(message->text);
            free(message->text);
            free(message->numbers);
            free(message);
            done++;
        }
    }
    join(thread);
    printf("%llu\n", (unsigned long long)check);
}
