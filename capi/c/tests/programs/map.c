/* Range maps. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)

static hm_range_map *make(int apart, int signals) {
    hm_range_map_config config = HM_RANGE_MAP_CONFIG_INIT;
    config.last = 0xffffffff;
    config.keep_apart = (uint32_t)apart;
    config.block_signals = (uint32_t)signals;
    hm_range_map *map = NULL;
    OK(hm_range_map_create(&config, &map, NULL));
    return map;
}

static void insert(hm_range_map *map, size_t page, size_t pages, uint64_t value) {
    OK(hm_range_map_insert(map, page * PAGE, (page + pages) * PAGE - 1, value, NULL, NULL));
}

static int has(hm_range_map *map, size_t address, size_t page, size_t pages, uint64_t value) {
    hm_mapped_range found;
    return hm_range_map_query(map, address, &found) == HM_OK && found.first == page * PAGE &&
           found.last == (page + pages) * PAGE - 1 && found.value == value;
}

static void changes(int apart) {
    hm_range_map *map = make(apart, 0);
    hm_mapped_range found;
    STATUS(HM_UNKNOWN_POINTER, hm_range_map_query(map, 0, &found));
    STATUS(HM_UNKNOWN_POINTER, hm_range_map_next(map, 0, &found));
    STATUS(HM_UNKNOWN_POINTER, hm_range_map_prev(map, SIZE_MAX, &found));
    insert(map, 10, 10, (uint64_t)-1);
    insert(map, 20, 5, (uint64_t)-1);
    CHECK(apart ? has(map, 24 * PAGE, 20, 5, (uint64_t)-1)
                : has(map, 24 * PAGE + 5, 10, 15, (uint64_t)-1));
    size_t had = 0;
    OK(hm_range_map_insert(map, 12 * PAGE, 14 * PAGE - 1, 7, &had, NULL));
    CHECK(had == 2 && has(map, 12 * PAGE, 12, 2, 7) && has(map, 10 * PAGE, 10, 2, (uint64_t)-1));
    STATUS(HM_EXISTS, hm_range_map_insert_new(map, 13 * PAGE, 15 * PAGE - 1, 8, NULL));
    OK(hm_range_map_insert_new(map, 0, PAGE - 1, 9, NULL));
    OK(hm_range_map_next(map, PAGE, &found));
    CHECK(found.first == 10 * PAGE && found.last == 12 * PAGE - 1);
    OK(hm_range_map_prev(map, 9 * PAGE, &found));
    CHECK(found.first == 0 && found.value == 9);
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_insert(map, 1, PAGE - 1, 1, NULL, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_insert(map, PAGE, 5, 1, NULL, NULL));
    STATUS(HM_OUT_OF_RANGE,
           hm_range_map_insert(map, (size_t)1 << 32, ((size_t)1 << 32) + PAGE - 1, 1, NULL, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_query(NULL, 1, &found));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_query(map, 1, NULL));
    OK(hm_range_map_remove(map, 11 * PAGE, 13 * PAGE - 1, &had, NULL));
    CHECK(had == 2 && has(map, 13 * PAGE, 13, 1, 7) && has(map, 10 * PAGE, 10, 1, (uint64_t)-1));
    OK(hm_range_map_prepare(map, 10, NULL));
    OK(hm_range_map_prepare_rewrite(map, 10 * PAGE, 20 * PAGE - 1, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_prepare_rewrite(map, 2, 1, NULL));
    hm_range_map_statistics held = HM_RANGE_MAP_STATISTICS_INIT;
    OK(hm_range_map_get_statistics(map, &held, NULL));
    CHECK(held.pages == 1 + 1 + 1 + 11 && held.ranges == (apart ? 5 : 4) && held.metadata != 0);
    OK(hm_range_map_close(map, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_query(map, 1, &found));
}

static void gaps(void) {
    hm_range_map *map = make(0, 0);
    insert(map, 0, 10, 1);
    insert(map, 12, 10, 1);
    hm_gap gap;
    OK(hm_range_map_find_gap(map, 2 * PAGE, 0, 0, 0, 0, HM_ORDER_LOWEST, 0, &gap, NULL));
    CHECK(gap.first == 10 * PAGE && gap.last == 12 * PAGE - 1);
    OK(hm_range_map_find_gap(map, 3 * PAGE, 0, 0, 0, 0, HM_ORDER_LOWEST, 0, &gap, NULL));
    CHECK(gap.first == 22 * PAGE);
    OK(hm_range_map_find_gap(map, 2 * PAGE, 0, 0, 0, 0, HM_ORDER_HIGHEST, 0, &gap, NULL));
    CHECK(gap.last == 0xffffffff);
    OK(hm_range_map_find_gap(map, PAGE, 0, 0, 0, 0, HM_ORDER_RECENT, 11 * PAGE, &gap, NULL));
    CHECK(gap.first == 11 * PAGE);
    OK(hm_range_map_find_gap(map, PAGE, 1 << 20, 0, 1, 0, HM_ORDER_LOWEST, 0, &gap, NULL));
    CHECK(gap.first == 1 << 20);
    STATUS(HM_OUT_OF_MEMORY,
           hm_range_map_find_gap(map, 3 * PAGE, 0, 0, 0, 20 * PAGE, 0, 0, &gap, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_find_gap(map, 0, 0, 0, 0, 0, 0, 0, &gap, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_find_gap(map, PAGE, 0, 0, 0, 0, 7, 0, &gap, NULL));
    OK(hm_range_map_largest_gap(map, 0, 0, &gap));
    CHECK(gap.first == 22 * PAGE && gap.last == 0xffffffff);
    OK(hm_range_map_largest_gap(map, 0, 20 * PAGE, &gap));
    CHECK(gap.first == 10 * PAGE && gap.last == 12 * PAGE - 1);
    STATUS(HM_UNKNOWN_POINTER, hm_range_map_largest_gap(map, 0, 9 * PAGE, &gap));
    OK(hm_range_map_close(map, NULL));
}

static int count(void *context, const hm_mapped_range *range) {
    uint64_t *sum = context;
    *sum += range->value;
    return range->value == 100;
}

/* Doubles values, takes what becomes 40, and fills gaps with 1. */
static int change(void *context, hm_mapped_range *piece, int has_value) {
    size_t *pieces = context;
    ++*pieces;
    if (!has_value) {
        CHECK(piece->value == 0);
        piece->value = 1;
        return 1;
    }
    piece->value *= 2;
    return piece->value != 40;
}

static void walks(void) {
    hm_range_map *map = make(0, 0);
    for (size_t n = 0; n < 10; n++) {
        insert(map, n * 10, 5, n * 10);
    }
    uint64_t sum = 0;
    OK(hm_range_map_walk(map, 0, 0, count, &sum, NULL));
    CHECK(sum == 450);
    sum = 0;
    OK(hm_range_map_walk(map, 12 * PAGE, 31 * PAGE, count, &sum, NULL));
    CHECK(sum == 60);
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_walk(map, 0, 0, NULL, NULL, NULL));
    size_t pieces = 0, had = 0;
    OK(hm_range_map_rewrite(map, 12 * PAGE, 31 * PAGE - 1, change, &pieces, &had, NULL));
    CHECK(pieces == 5 && had == 3 + 5 + 1);
    CHECK(has(map, 10 * PAGE, 10, 2, 10) && has(map, 12 * PAGE, 12, 3, 20));
    CHECK(has(map, 15 * PAGE, 15, 5, 1) && has(map, 25 * PAGE, 25, 5, 1));
    CHECK(has(map, 30 * PAGE, 30, 1, 60) && has(map, 31 * PAGE, 31, 4, 30));
    hm_mapped_range found;
    STATUS(HM_UNKNOWN_POINTER, hm_range_map_query(map, 22 * PAGE, &found));
    STATUS(HM_INVALID_ARGUMENT,
           hm_range_map_rewrite(map, 0, PAGE - 1, NULL, &pieces, &had, NULL));
    OK(hm_range_map_close(map, NULL));

    /* Pages of a byte. */
    hm_range_map_config config = HM_RANGE_MAP_CONFIG_INIT;
    config.first = 1;
    config.last = 1000;
    config.page_size = 1;
    OK(hm_range_map_create(&config, &map, NULL));
    OK(hm_range_map_insert(map, 7, 7, 1, NULL, NULL));
    OK(hm_range_map_query(map, 7, &found));
    CHECK(found.first == 7 && found.last == 7);
    OK(hm_range_map_close(map, NULL));
    config.page_size = 3;
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_create(&config, &map, NULL));
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_create(NULL, &map, NULL));
}

static hm_range_map *asked;
static volatile sig_atomic_t answers;

static pthread_t churner;
static volatile sig_atomic_t refused;

static int next_number(void *context, hm_mapped_range *piece, int has_value) {
    (void)context;
    piece->value++;
    return has_value;
}

static void *send(void *context) {
    (void)context;
    while (answers < 20 || refused < 20) {
        pthread_kill(churner, SIGUSR1);
        sched_yield();
    }
    return NULL;
}

/* Changes the map that it may have interrupted a change of, as signals are blocked for one. */
static void handler(int number) {
    (void)number;
    hm_mapped_range found;
    size_t page = (size_t)answers % 1000;
    OK(hm_range_map_insert(asked, page * 2 * PAGE, (page * 2 + 1) * PAGE - 1, 5, NULL, NULL));
    OK(hm_range_map_query(asked, page * 2 * PAGE, &found));
    answers++;
}

static void signals(void) {
    asked = make(0, 1);
    pid_t self = getpid();
    signal(SIGUSR1, handler);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (;;) {
            kill(self, SIGUSR1);
        }
    }
    for (size_t n = 0; answers < 1000; n++) {
        size_t page = n % 1000;
        OK(hm_range_map_remove(asked, page * PAGE, (page + 3) * PAGE - 1, NULL, NULL));
    }
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    signal(SIGUSR1, SIG_IGN);
    OK(hm_range_map_close(asked, NULL));
}

/* Changes the map unless it has interrupted a change of it. */
static void handler_that_tries(int number) {
    (void)number;
    size_t first = 5000 * PAGE, last = 5001 * PAGE - 1, had = 0;
    hm_status status = hm_range_map_try_insert_new(asked, first, last, 5, NULL);
    refused += status == HM_BUSY;
    if (status == HM_OK) {
        STATUS(HM_EXISTS, hm_range_map_try_insert_new(asked, first, last, 5, NULL));
        OK(hm_range_map_try_rewrite(asked, first, last, next_number, NULL, &had, NULL));
        CHECK(had == 1 && has(asked, first, 5000, 1, 6));
        OK(hm_range_map_try_insert(asked, first, last, 7, NULL, NULL));
        OK(hm_range_map_try_remove(asked, first, last, &had, NULL));
        CHECK(had == 1);
        answers++;
    }
}

static void tries(void) {
    asked = make(0, 0);
    answers = 0;
    STATUS(HM_INVALID_ARGUMENT, hm_range_map_try_insert(asked, 1, 2, 3, NULL, NULL));
    STATUS(HM_INVALID_ARGUMENT,
           hm_range_map_try_rewrite(asked, 0, PAGE - 1, NULL, NULL, NULL, NULL));
    churner = pthread_self();
    signal(SIGUSR1, handler_that_tries);
    pthread_t sender;
    CHECK(pthread_create(&sender, NULL, send, NULL) == 0);
    for (size_t n = 0; answers < 20 || refused < 20; n++) {
        size_t page = n % 1000;
        OK(hm_range_map_insert(asked, page * PAGE, (page + 3) * PAGE - 1, n, NULL, NULL));
    }
    CHECK(pthread_join(sender, NULL) == 0);
    signal(SIGUSR1, SIG_IGN);
    OK(hm_range_map_close(asked, NULL));
}

static int stop;

static void *churn(void *context) {
    hm_range_map *map = context;
    for (size_t n = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++) {
        size_t page = n * 7 % 5000;
        OK(hm_range_map_insert(map, page * PAGE, (page + 3) * PAGE - 1, n, NULL, NULL));
        page = n * 11 % 5000;
        OK(hm_range_map_remove(map, page * PAGE, (page + 2) * PAGE - 1, NULL, NULL));
    }
    return NULL;
}

/* A child goes on with the map that another thread was changing. */
static void forks(void) {
    hm_range_map *map = make(1, 0);
    insert(map, 6000, 10, 42);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, churn, map) == 0);
    for (int n = 0; n < 200; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(100);
            CHECK(has(map, 6005 * PAGE, 6000, 10, 42));
            OK(hm_fork_child_all(NULL));
            CHECK(has(map, 6005 * PAGE, 6000, 10, 42));
            insert(map, 6002, 1, 43);
            CHECK(has(map, 6002 * PAGE, 6002, 1, 43));
            for (size_t page = 0; page < 5000; page += 10) {
                insert(map, page, 10, page);
                CHECK(has(map, page * PAGE, page, 10, page));
            }
            OK(hm_range_map_close(map, NULL));
            _exit(0);
        }
        int ended = -1;
        CHECK(waitpid(child, &ended, 0) == child && ended == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(has(map, 6005 * PAGE, 6000, 10, 42));
    OK(hm_range_map_close(map, NULL));
}

int main(void) {
    changes(0);
    changes(1);
    gaps();
    walks();
    signals();
    tries();
    if (!EMULATED) {
        forks();
    }
    puts("all hold");
    return 0;
}
