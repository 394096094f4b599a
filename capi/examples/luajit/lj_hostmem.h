/* What LuaJIT's other files see of its code ranges: included by lj_jit.h. See adopt.sh.
 *
 * LuaJIT writes code by one address and runs it at another where a range is mapped twice. The
 * assembler has addresses in the writable view, traces and exit stubs those in the executable one.
 */
#ifndef LJ_HOSTMEM_H
#define LJ_HOSTMEM_H

#include <stddef.h>
#include <stdint.h>

struct hm_code;
struct jit_State;
struct lua_State;

/* A code range, and where it lies, so that an address is translated without a call. */
typedef struct HMRange {
    struct hm_code *code; /* NULL: there is none yet. */
    uint8_t *rw;
    size_t len;
    ptrdiff_t to_rx; /* From the writable view to the executable one; 0 if they are one. */

    struct jit_State *J; /* Whose traces are in it, or NULL. */
    size_t wanted;       /* As long as it was to be. */
    size_t used_from;    /* Code lies from here up to the end, */
    size_t used_to;      /* and from the start up to here. */

    /* In a fork, a copy of that code. */
    uint8_t *copy;
    size_t copied_from, copied_to;
    /* All ranges, for forks. */
    struct HMRange *next, **way;
} HMRange;

/* Returns where what is written at an address runs. Other addresses stay what they are. */
static inline uint8_t *lj_hm_rx(const HMRange *range, const void *address) {
    uintptr_t at = (uintptr_t)address;
    if (at - (uintptr_t)range->rw < range->len) {
        at += (uintptr_t)range->to_rx;
    }
    return (uint8_t *)at;
}

/* Returns where the code at an address of the executable view is written. */
static inline uint8_t *lj_hm_rw(const HMRange *range, const void *address) {
    return (uint8_t *)((uintptr_t)address - (uintptr_t)range->to_rx);
}

/* The same for machine code of traces. */
#define mcode_rx(J, p) ((MCode *)lj_hm_rx(&(J)->hm, (p)))
#define mcode_rw(J, p) ((MCode *)lj_hm_rw(&(J)->hm, (p)))

/* Unmaps a state's traces, when the state is closed. */
void lj_mcode_close(struct jit_State *J);

/* A range of one piece of code, for callbacks: returns where to write it, or NULL. */
void *lj_hm_begin(HMRange *range, size_t len);

/* Returns where that code runs, now that it was written, or NULL. */
void *lj_hm_end(HMRange *range);

void lj_hm_free(HMRange *range);

/* Makes a state whose objects lie in a heap of hostmem's; NULL where there is no memory. */
struct lua_State *lj_hm_newstate(void);

#endif
