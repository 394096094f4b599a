/* A provider of the program's own: memory that it cuts from a part of its address space, of which
 * it keeps account, and which it can run out of. */
#ifndef PROVIDER_H
#define PROVIDER_H

#include "check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum state { FREE, RESERVED, COMMITTED };

struct arena {
    pthread_mutex_t lock;
    char *start;
    size_t pages, page;
    unsigned char *states;
    size_t calls, refuse_at;
};

/* Counts a call, and says whether it is the one that is to fail. */
static int refuses(struct arena *arena) {
    return ++arena->calls == arena->refuse_at;
}

static size_t index_of(struct arena *arena, hm_range range) {
    size_t offset = (size_t)((char *)range.start - arena->start);
    CHECK(offset % arena->page == 0 && range.len % arena->page == 0 && range.len != 0);
    CHECK(offset / arena->page + range.len / arena->page <= arena->pages);
    return offset / arena->page;
}

static void become(struct arena *arena, hm_range range, int from, int or_from, enum state to) {
    size_t first = index_of(arena, range);
    for (size_t n = first; n < first + range.len / arena->page; n++) {
        CHECK(arena->states[n] == from || arena->states[n] == or_from);
        arena->states[n] = (unsigned char)to;
    }
}

static int is_free(struct arena *arena, size_t first, size_t count) {
    for (size_t n = first; n < first + count; n++) {
        if (n >= arena->pages || arena->states[n] != FREE) {
            return 0;
        }
    }
    return 1;
}

static uint32_t reserve(void *context, const hm_request *wanted, hm_range *range) {
    struct arena *arena = context;
    hm_status status = HM_OUT_OF_MEMORY;
    pthread_mutex_lock(&arena->lock);
    CHECK(wanted->size == sizeof *wanted && wanted->len % arena->page == 0);
    size_t count = (wanted->guard_before + wanted->len + wanted->guard_after) / arena->page;
    size_t align = wanted->placement.align;
    if (refuses(arena)) {
        count = arena->pages + 1;
    }
    for (size_t n = 0; n + count <= arena->pages; n++) {
        size_t at = (size_t)arena->start + n * arena->page;
        const hm_placement *where = &wanted->placement;
        int fits = (at + wanted->guard_before) % align == 0 && at >= where->first &&
                   at + count * arena->page - 1 <= where->last &&
                   (where->place != HM_PLACE_EXACT || at == where->at);
        if (fits && is_free(arena, n, count)) {
            range->start = arena->start + n * arena->page;
            range->len = count * arena->page;
            become(arena, *range, FREE, FREE, RESERVED);
            status = HM_OK;
            break;
        }
    }
    pthread_mutex_unlock(&arena->lock);
    return status;
}

static int bits_of(hm_access access) {
    const int bits[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
                        PROT_READ | PROT_WRITE | PROT_EXEC};
    CHECK(access <= HM_ACCESS_READ_WRITE_EXEC);
    return bits[access];
}

static uint32_t commit(void *context, hm_range range, hm_access access, hm_ceiling ceiling,
                        hm_page_wish wish) {
    struct arena *arena = context;
    CHECK(ceiling >= HM_CEILING_READ && ceiling <= HM_CEILING_READ_WRITE_EXEC);
    CHECK(wish <= HM_PAGES_NEVER_LARGE);
    pthread_mutex_lock(&arena->lock);
    int refused = refuses(arena);
    if (!refused) {
        become(arena, range, RESERVED, RESERVED, COMMITTED);
        CHECK(mprotect(range.start, range.len, bits_of(access)) == 0);
    }
    pthread_mutex_unlock(&arena->lock);
    return refused ? HM_OUT_OF_MEMORY : HM_OK;
}

static uint32_t protect(void *context, hm_range range, hm_access access) {
    struct arena *arena = context;
    pthread_mutex_lock(&arena->lock);
    become(arena, range, COMMITTED, COMMITTED, COMMITTED);
    CHECK(mprotect(range.start, range.len, bits_of(access)) == 0);
    pthread_mutex_unlock(&arena->lock);
    return HM_OK;
}

static uint32_t empty(struct arena *arena, hm_range range, enum state to) {
    pthread_mutex_lock(&arena->lock);
    become(arena, range, RESERVED, COMMITTED, to);
    CHECK(mmap(range.start, range.len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          range.start);
    pthread_mutex_unlock(&arena->lock);
    return HM_OK;
}

static uint32_t decommit(void *context, hm_range range) {
    return empty(context, range, RESERVED);
}

static uint32_t release(void *context, hm_range range) {
    return empty(context, range, FREE);
}

static uint32_t purge(void *context, hm_range range, hm_purged *shown) {
    struct arena *arena = context;
    pthread_mutex_lock(&arena->lock);
    become(arena, range, COMMITTED, COMMITTED, COMMITTED);
    CHECK(madvise(range.start, range.len, MADV_DONTNEED) == 0);
    *shown = HM_PURGED_ZERO;
    pthread_mutex_unlock(&arena->lock);
    return HM_OK;
}

static struct arena arena;
static hm_provider provider;

static inline hm_source open_arena_of(size_t len, size_t page) {
    arena.page = page;
    arena.pages = len / arena.page;
    arena.calls = arena.refuse_at = 0;
    arena.states = calloc(arena.pages, 1);
    /* Its pages may be longer than the host's. */
    char *start = mmap(NULL, len + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(arena.states != NULL && (void *)start != MAP_FAILED);
    size_t before = (page - (size_t)start % page) % page;
    CHECK(before == 0 || munmap(start, before) == 0);
    CHECK(before == page || munmap(start + before + len, page - before) == 0);
    arena.start = start + before;
    CHECK(pthread_mutex_init(&arena.lock, NULL) == 0);
    hm_provider table = HM_PROVIDER_INIT;
    table.capabilities = HM_CAN_TOGGLE_EXEC | HM_CAN_READ_WRITE_EXEC | HM_CAN_KEEP_FROM_EXEC;
    table.context = &arena;
    table.page_size = arena.page;
    table.reserve = reserve;
    table.commit = commit;
    table.protect = protect;
    table.decommit = decommit;
    table.release = release;
    table.purge = purge;
    provider = table;
    hm_source source = HM_SOURCE_INIT;
    source.provider = &provider;
    return source;
}

static inline hm_source open_arena(size_t len) {
    return open_arena_of(len, (size_t)sysconf(_SC_PAGESIZE));
}

/* All has been given back. */
static inline void close_arena(void) {
    CHECK(is_free(&arena, 0, arena.pages));
    CHECK(munmap(arena.start, arena.pages * arena.page) == 0);
    free(arena.states);
}

static inline int is_inside(const void *address) {
    size_t offset = (size_t)address - (size_t)arena.start;
    return offset < arena.pages * arena.page;
}

#endif
