/* Code that waits until no thread runs it, and forks. */
#define _GNU_SOURCE
#include "jit.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static hm_retire *queue;
static hm_jit *shared;
static hm_span current;
static int running = 1;

/* Runs whatever code is current, between quiescent points. */
static void *execute(void *context) {
    (void)context;
    hm_executor me;
    memset(&me, 0, sizeof me);
    OK(hm_executor_register(queue, &me, NULL));
    STATUS(HM_BUSY, hm_retire_close(queue, NULL));
    size_t calls = 0;
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) || calls == 0) {
        const void *code = __atomic_load_n(&current.rx, __ATOMIC_ACQUIRE);
        CHECK(run(code) < 1000);
        hm_executor_quiescent(&me);
        if (++calls % 64 == 0) {
            hm_executor_offline(&me);
            hm_executor_online(&me);
        }
    }
    OK(hm_executor_unregister(&me, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_executor_unregister(&me, NULL));
    hm_executor_quiescent(&me);
    return NULL;
}

static void retirement(void) {
    hm_jit_config config = HM_JIT_CONFIG_INIT;
    config.fill = HM_FILL_TRAP; /* Whoever runs what was released is told. */
    shared = make(&config);
    OK(hm_retire_create(shared, NULL, &queue, NULL));
    STATUS(HM_BUSY, hm_jit_close(shared, NULL));
    current = function(shared, 0);
    pthread_t threads[3];
    for (int n = 0; n < 3; n++) {
        CHECK(pthread_create(&threads[n], NULL, execute, NULL) == 0);
    }
    for (uint32_t n = 1; n < 500; n++) {
        hm_span old = current;
        hm_span new = function(shared, n);
        current = new;
        __atomic_store_n(&current.rx, new.rx, __ATOMIC_RELEASE);
        OK(hm_retire_span(queue, &old, NULL));
        STATUS(HM_UNKNOWN_POINTER, hm_retire_span(queue, &old, NULL));
        STATUS(HM_UNKNOWN_POINTER, hm_jit_release(shared, &old, NULL));
        OK(hm_retire_reclaim(queue, NULL, NULL));
    }
    __atomic_store_n(&running, 0, __ATOMIC_RELEASE);
    for (int n = 0; n < 3; n++) {
        CHECK(pthread_join(threads[n], NULL) == 0);
    }
    uint64_t spans = 0;
    OK(hm_retire_reclaim(queue, &spans, NULL));
    hm_retire_statistics held = HM_RETIRE_STATISTICS_INIT;
    OK(hm_retire_get_statistics(queue, &held, NULL));
    CHECK(held.waiting_spans == 0 && held.reclaimed_spans == 499 && held.executors == 0);

    /* One that waits, and a queue that is full: the name serves again. */
    hm_retire_config small = HM_RETIRE_CONFIG_INIT;
    small.waiting = 1;
    small.executors = 1;
    hm_retire *little = NULL;
    OK(hm_retire_create(shared, &small, &little, NULL));
    hm_executor me = {{0}}, other = {{0}};
    OK(hm_executor_register(little, &me, NULL));
    STATUS(HM_BUSY, hm_executor_register(little, &other, NULL));
    other = me;
    hm_executor_quiescent(&other);
    STATUS(HM_INVALID_ARGUMENT, hm_executor_unregister(&other, NULL));
    hm_span first = function(shared, 1), second = function(shared, 2);
    OK(hm_retire_span(little, &first, NULL));
    STATUS(HM_BUSY, hm_retire_span(little, &second, NULL));
    CHECK(run(second.rx) == 2 && run(first.rx) == 1);
    hm_executor_quiescent(&me);
    OK(hm_retire_span(little, &second, NULL));
    OK(hm_executor_unregister(&me, NULL));
    OK(hm_retire_close(little, NULL));
    OK(hm_retire_close(queue, NULL));
    OK(hm_jit_close(shared, NULL));
}

/* Forks with the hooks around it; the child has code of its own. */
static void forks(void) {
    hm_jit *jit = make(NULL);
    hm_retire *retire = NULL;
    OK(hm_retire_create(jit, NULL, &retire, NULL));
    hm_executor me = {{0}};
    OK(hm_executor_register(retire, &me, NULL));
    hm_span span = function(jit, 10);
    OK(hm_retire_fork_prepare(retire, NULL));
    OK(hm_jit_fork_prepare(jit, NULL));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        OK(hm_fork_child_all(NULL));
        OK(hm_jit_fork_child(jit, NULL));
        hm_executor *own[] = {&me};
        OK(hm_retire_fork_child(retire, own, 1, NULL));
        CHECK(run(span.rx) == 10);
        unsigned char code[ANSWER_MOST];
        OK(hm_jit_write(jit, &span, 0, code, answer(code, 11), NULL));
        CHECK(run(span.rx) == 11);
        hm_span other = function(jit, 12);
        OK(hm_retire_span(retire, &other, NULL));
        hm_executor_quiescent(&me);
        uint64_t spans = 0;
        OK(hm_retire_reclaim(retire, &spans, NULL));
        CHECK(spans == 1);
        OK(hm_executor_unregister(&me, NULL));
        OK(hm_retire_close(retire, NULL));
        OK(hm_jit_close(jit, NULL));
        _exit(0);
    }
    OK(hm_jit_fork_parent(jit, NULL));
    OK(hm_retire_fork_parent(retire, NULL));
    int ended = -1;
    CHECK(waitpid(child, &ended, 0) == child && ended == 0);
    CHECK(run(span.rx) == 10);
    OK(hm_jit_release(jit, &span, NULL));
    OK(hm_executor_unregister(&me, NULL));
    OK(hm_retire_close(retire, NULL));
    OK(hm_jit_close(jit, NULL));
}

int main(void) {
    retirement();
    if (!EMULATED) {
        forks();
    }
    puts("all hold");
    return 0;
}
