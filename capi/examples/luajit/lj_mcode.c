/* LuaJIT's machine code in a code range of hostmem: takes the place of LuaJIT's own lj_mcode.c. See
 * adopt.sh.
 *
 * Every state has one range as long as the parameter maxmcode, within reach of relative jumps from
 * LuaJIT's own code. Areas as long as sizemcode are taken from it, from the top down, and each area
 * is filled from the top with traces and from the bottom with exit stubs and constants.
 *
 *   start                                                          end
 *   ┌──────────┬──────────────────────┬───────┬────────────┬────────┐
 *   │ unwinder │ free areas           │ stubs │ ..  traces │ traces │
 *   └──────────┴──────────────────────┴───────┴────────────┴────────┘
 *                                     mcarea  mcbot  mctop
 */
#define lj_mcode_c
#define LUA_CORE

#include "lj_obj.h"

#include <hostmem.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lj_err.h"
#include "lj_jit.h"
#include "lj_mcode.h"
#include "lj_trace.h"
#include "lj_vm.h"

/* How ranges are mapped. Only the assembler for x86-64 keeps the two addresses of code apart. */
#ifndef LJ_HM_MAPPING
#if LJ_TARGET_X64
#define LJ_HM_MAPPING HM_MAPPING_AUTO
#else
#define LJ_HM_MAPPING HM_MAPPING_TOGGLE
#endif
#endif

/* Bytes at the end of a range that stay unused: the address behind a trace is in the range, too. A
 * line of the cache, so that traces lie in lines as those of LuaJIT's own areas do. */
#define RANGE_TAIL 64

extern void __register_frame(const void *);

static struct {
    pthread_mutex_t lock;
    HMRange *first;
    hm_heap *heap;
} all = {PTHREAD_MUTEX_INITIALIZER, NULL, NULL};

static pthread_once_t started = PTHREAD_ONCE_INIT;

/* -- Ranges ---------------------------------------------------------------- */

/* Maps a range at an address, or near LuaJIT's own code. */
static hm_status range_map(HMRange *range, size_t len, uint8_t *at) {
    hm_code_config config = HM_CODE_CONFIG_INIT;
    config.mapping = LJ_HM_MAPPING;
    config.len = len;
    config.name = "LuaJIT";
    if (at != NULL) {
        config.rx.place = HM_PLACE_EXACT;
        config.rx.at = (size_t)at;
    } else {
        /* Half of the way that a jump reaches, so that ranges reach one another. */
        size_t reach = ((size_t)1 << (LJ_TARGET_JUMPRANGE - 1)) - (1 << 21);
        size_t own = (size_t)(void *)lj_vm_exit_handler;
        config.rx.place = HM_PLACE_NEAR;
        config.rx.at = own;
        config.rx.first = own > reach ? own - reach : 0;
        config.rx.last = own + reach;
    }
    hm_status status = hm_code_create(&config, &range->code, NULL);
    if (status != HM_OK) {
        range->code = NULL;
        return status;
    }
    hm_code_info info = HM_CODE_INFO_INIT;
    hm_code_get_info(range->code, &info, NULL);
    range->rw = info.rw;
    range->len = info.len;
    range->to_rx = (uint8_t *)info.rx - (uint8_t *)info.rw;
    return HM_OK;
}

static void range_unmap(HMRange *range) {
    hm_code_close(range->code, NULL);
    range->code = NULL;
    range->rw = NULL;
    range->len = 0;
    range->to_rx = 0;
}

/* -- Forks ----------------------------------------------------------------- */

/* A range that is mapped twice is shared with a forked child, which must not run what its parent
 * writes from then on. So the child gets a range of its own at the same addresses, with a copy that
 * the parent made before. One that is mapped once is the child's own anyway. */

static void fork_prepare(void) {
    pthread_mutex_lock(&all.lock);
    for (HMRange *range = all.first; range != NULL; range = range->next) {
        /* States of other threads, which may move these meanwhile, do not run in the child. */
        size_t from = *(volatile size_t *)&range->used_from;
        size_t to = *(volatile size_t *)&range->used_to;
        range->copied_from = from;
        range->copied_to = to;
        range->copy = range->to_rx != 0 ? malloc(to + (range->len - from)) : NULL;
        if (range->copy != NULL) {
            memcpy(range->copy, range->rw, to);
            memcpy(range->copy + to, range->rw + from, range->len - from);
        }
    }
}

static void fork_done(void) {
    for (HMRange *range = all.first; range != NULL; range = range->next) {
        free(range->copy);
        range->copy = NULL;
    }
    pthread_mutex_unlock(&all.lock);
}

/* Copies a range's code back, into a new range at the same addresses. */
static void range_restore(HMRange *range) {
    size_t len = range->len, from = range->copied_from, to = range->copied_to;
    uint8_t *old = range->rw, *rx = range->rw + range->to_rx;
    range_unmap(range);
    if (range_map(range, len, rx) != HM_OK ||
        hm_code_write(range->code, 0, range->copy, to, HM_BARRIER_NEVER, NULL) != HM_OK ||
        hm_code_write(range->code, from, range->copy + to, len - from, HM_BARRIER_NEVER, NULL) !=
            HM_OK) {
        abort(); /* The child would return to code that is gone. */
    }
    jit_State *J = range->J;
    if (J != NULL && J->mcarea != NULL) {
        J->mcarea = range->rw + (J->mcarea - old);
        J->mctop = range->rw + (J->mctop - old);
        J->mcbot = range->rw + (J->mcbot - old);
    }
}

static void fork_child(void) {
    hm_fork_child_all(NULL);
    for (HMRange *range = all.first; range != NULL; range = range->next) {
        if (range->copy != NULL) {
            range_restore(range);
        }
    }
    fork_done();
}

static void start(void) {
    pthread_atfork(fork_prepare, fork_done, fork_child);
    hm_heap_config config = HM_HEAP_CONFIG_INIT;
    if (hm_heap_create(&config, &all.heap, NULL) != HM_OK) {
        all.heap = NULL;
    }
}

static hm_status range_open(HMRange *range, size_t len) {
    pthread_once(&started, start); /* A program may make states on memory of its own. */
    pthread_mutex_lock(&all.lock);
    hm_status status = range_map(range, len, NULL);
    if (status == HM_OK) {
        range->used_from = range->len;
        range->used_to = 0;
        range->next = all.first;
        range->way = &all.first;
        if (range->next != NULL) {
            range->next->way = &range->next;
        }
        all.first = range;
    }
    pthread_mutex_unlock(&all.lock);
    return status;
}

static void range_close(HMRange *range) {
    pthread_mutex_lock(&all.lock);
    *range->way = range->next;
    if (range->next != NULL) {
        range->next->way = range->way;
    }
    range_unmap(range);
    pthread_mutex_unlock(&all.lock);
}

/* -- Memory of states ------------------------------------------------------ */

/* The heap is all states'; each has a handle of its own, so that it seldom takes a lock. */
typedef struct {
    hm_local local;
    void *state; /* The first block, and the last that is freed: the state itself. */
    int *closed;
} Memory;

/* Allocates the state, and frees it. */
static LJ_NOINLINE void *memory_state(Memory *memory, void *block, size_t old_size,
                                      size_t new_size) {
    void *got = hm_local_lua_alloc(&memory->local, block, old_size, new_size);
    if (block == NULL) {
        memory->state = got;
    } else if (new_size == 0) {
        if (memory->closed != NULL) {
            *memory->closed = 1;
        }
        hm_local_detach(&memory->local, NULL);
        free(memory);
    }
    return got;
}

static void *memory_alloc(void *context, void *block, size_t old_size, size_t new_size) {
    Memory *memory = context;
    /* Null is the state until there is one. */
    if (LJ_UNLIKELY(block == memory->state)) {
        return memory_state(memory, block, old_size, new_size);
    }
    return hm_local_lua_alloc(&memory->local, block, old_size, new_size);
}

lua_State *lj_hm_newstate(void) {
    pthread_once(&started, start);
    Memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL || hm_local_attach(all.heap, &memory->local, NULL) != HM_OK) {
        free(memory);
        return NULL;
    }
    int closed = 0;
    memory->closed = &closed;
    lua_State *L = lua_newstate(memory_alloc, memory);
    if (!closed) {
        memory->closed = NULL;
    }
    if (L == NULL && !closed) {
        hm_local_detach(&memory->local, NULL);
        free(memory);
    }
    return L;
}

/* -- Callbacks ------------------------------------------------------------- */

void *lj_hm_begin(HMRange *range, size_t len) {
    void *rw;
    if (range_open(range, len) != HM_OK) {
        return NULL;
    }
    if (hm_code_begin_write(range->code, 0, len, &rw, NULL) != HM_OK) {
        range_close(range);
        return NULL;
    }
    return rw;
}

void *lj_hm_end(HMRange *range) {
    range->used_from = 0;
    if (hm_code_end_write(range->code, 0, range->len, NULL) != HM_OK ||
        hm_code_publish(range->code, 0, range->len, HM_BARRIER_NOW, NULL) != HM_OK) {
        range_close(range);
        return NULL;
    }
    return range->rw + range->to_rx;
}

void lj_hm_free(HMRange *range) {
    if (range->code != NULL) {
        range_close(range);
    }
}

/* -- Areas ----------------------------------------------------------------- */

static size_t pages(size_t kilobytes) {
    size_t bytes = kilobytes << 10;
    return (bytes + LJ_PAGESIZE - 1) & ~(size_t)(LJ_PAGESIZE - 1);
}

static size_t area_len(jit_State *J) {
    return pages((size_t)J->param[JIT_P_sizemcode]);
}

/* How long the range is to be: all areas, and one that is longer than all may be. */
static size_t all_len(jit_State *J) {
    size_t most = pages((size_t)J->param[JIT_P_maxmcode]), one = area_len(J);
    return most > one ? most : one;
}

/* Makes the range, shorter where there is no room for all of it, and tells the unwinder of it. */
static void traces_open(jit_State *J) {
    HMRange *range = &J->hm;
    void *rw;
    size_t len = all_len(J);
    range->wanted = len;
    while (range_open(range, len) != HM_OK) {
        len = pages(len >> 11);
        if (len == 0 || len < area_len(J)) {
            lj_trace_err(J, LJ_TRERR_MCODEAL);
        }
    }
    if (hm_code_begin_write(range->code, 0, LJ_PAGESIZE, &rw, NULL) != HM_OK) {
        range_close(range);
        lj_trace_err(J, LJ_TRERR_MCODEAL);
    }
    range->J = J;
    uint8_t *first = rw;
    range->used_to = (size_t)(lj_err_register_mcode(first, range->len, first) - first);
    if (range->to_rx != 0 && range->used_to != 0) {
        /* What was written tells of code by its distance: the unwinder is to read it where that
         * runs. */
        lj_err_deregister_mcode(first, range->len, first);
        __register_frame(range->rw + range->to_rx);
    }
}

void lj_mcode_close(jit_State *J) {
    HMRange *range = &J->hm;
    if (range->code != NULL) {
        uint8_t *rx = range->rw + range->to_rx;
        if (range->used_to != 0) {
            lj_err_deregister_mcode(rx, range->len, rx);
        }
        range_close(range);
    }
    J->mcarea = NULL;
    J->szallmcarea = 0;
}

/* Goes on to the area below. Says whether there is one. */
static int next_area(jit_State *J) {
    HMRange *range = &J->hm;
    size_t len = area_len(J), at = range->used_from;
    if (len > at) {
        return 0;
    }
    range->used_from = at - len;
    J->mcarea = range->rw + (at - len);
    J->szmcarea = len;
    J->szallmcarea += len;
    J->mcbot = J->mcarea + (at == len ? range->used_to : 0);
    J->mctop = range->rw + at - (at == range->len ? RANGE_TAIL : 0);
    return 1;
}

/* Throws all code away. The range stays, unless it is to be longer or shorter from now on, or the
 * writable view was lost in a child that did not run `fork_child`. */
void lj_mcode_free(jit_State *J) {
    HMRange *range = &J->hm;
    void *rw;
    if (range->code == NULL) {
        return;
    }
    if (range->wanted != all_len(J) || hm_code_recycle(range->code, NULL) != HM_OK ||
        hm_code_begin_write(range->code, 0, 0, &rw, NULL) != HM_OK) {
        lj_mcode_close(J);
        return;
    }
    range->used_from = range->len;
    J->mcarea = NULL;
    J->szallmcarea = 0;
}

/* -- What the assembler calls ---------------------------------------------- */

static size_t offset_of(jit_State *J, const MCode *rw) {
    return (size_t)(rw - J->hm.rw);
}

static void end_write(jit_State *J) {
    if (J->hm.code != NULL) {
        hm_code_end_write(J->hm.code, 0, 0, NULL);
    }
}

/* Makes the rest of the area writable; returns its end, and stores its start. Where that fails, the
 * trace is given up and all code is thrown away. */
MCode *lj_mcode_reserve(jit_State *J, MCode **lim) {
    if (J->hm.code == NULL) {
        traces_open(J);
    }
    if (J->mcarea == NULL && !next_area(J)) {
        lj_trace_err(J, LJ_TRERR_MCODEAL);
    }
    void *rw;
    size_t len = (size_t)(J->mctop - J->mcbot);
    if (hm_code_begin_write(J->hm.code, offset_of(J, J->mcbot), len, &rw, NULL) != HM_OK) {
        lj_trace_err(J, LJ_TRERR_MCODEAL);
    }
    *lim = J->mcbot;
    return J->mctop;
}

/* Keeps what was written from `top`, where the new trace begins, up to the top of before. */
void lj_mcode_commit(jit_State *J, MCode *top) {
    MCode *old = J->mctop, *now = mcode_rw(J, top);
    J->mctop = now;
    end_write(J);
    hm_code *code = J->hm.code;
    /* Exit stubs and constants first: the trace needs them. */
    hm_code_publish(code, offset_of(J, J->mcarea), (size_t)(J->mcbot - J->mcarea),
                    HM_BARRIER_NEVER, NULL);
    hm_code_publish(code, offset_of(J, now), (size_t)(old - now), HM_BARRIER_NOW, NULL);
}

void lj_mcode_abort(jit_State *J) {
    end_write(J);
}

/* Makes an older trace, the parent of the one that is being compiled, writable to change a jump in
 * it, or executable again. */
MCode *lj_mcode_patch(jit_State *J, MCode *ptr, int finish) {
    GCtrace *T = traceref(J, J->parent);
    size_t at = offset_of(J, mcode_rw(J, ptr)), len = T->szmcode;
    lj_assertJ(T->mcode == ptr, "patch of a trace that is no parent");
    if (finish) {
        end_write(J);
        hm_code_publish(J->hm.code, at, len, HM_BARRIER_NOW, NULL);
        return NULL;
    }
    void *rw;
    if (hm_code_begin_write(J->hm.code, at, len, &rw, NULL) != HM_OK) {
        lj_trace_err(J, LJ_TRERR_MCODEAL);
    }
    return ptr;
}

/* The area is full. */
void lj_mcode_limiterr(jit_State *J, size_t need) {
    lj_mcode_abort(J);
    if (need * sizeof(MCode) > area_len(J)) {
        lj_trace_err(J, LJ_TRERR_MCODEOV);
    }
    size_t most = (size_t)J->param[JIT_P_maxmcode] << 10;
    if (J->szallmcarea + area_len(J) > most || !next_area(J)) {
        lj_trace_err(J, LJ_TRERR_MCODEAL);
    }
    lj_trace_err(J, LJ_TRERR_MCODELM); /* Once more, in the new area. */
}

/* Makes code visible to instruction fetches of this core. Traces are published when they are
 * committed. */
void lj_mcode_sync(void *start, void *end) {
    __builtin___clear_cache(start, end);
}
