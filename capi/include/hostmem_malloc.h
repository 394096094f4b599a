/* The calls of hostmem's malloc that the C library has not: `libhostmem_malloc`.
 *
 * The allocation calls themselves are declared by <stdlib.h> and <malloc.h>. */
#ifndef HOSTMEM_MALLOC_H
#define HOSTMEM_MALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Says whether an address, any at all, lies in the memory of this malloc, freed blocks included: 1
 * or 0. Takes no lock, touches nothing there, and may be called in a signal handler. With
 * HOSTMEM_PASS=1 always 0. */
int hostmem_is_known_allocation(const void *address);

/* Returns the start of the live block around an address, any at all, and stores through `size`,
 * unless that is null, how many bytes of it may be used. Returns null where there is none. Exact
 * for a block that is not being freed at that moment. Takes no lock, touches nothing there, and may
 * be called in a signal handler. */
void *hostmem_block_of(const void *address, size_t *size);

/* What this malloc holds, in bytes where nothing else is said. Later versions add numbers at the
 * end. */
struct hostmem_malloc_statistics {
    uint64_t used;           /* of live blocks, as they are rounded up */
    uint64_t cached;         /* of free blocks that threads have cached */
    uint64_t slabs;          /* of slabs, free blocks in them included */
    uint64_t large;          /* of blocks without a slab, up to 1 MiB each */
    uint64_t large_blocks;   /* how many of them are live */
    uint64_t huge;           /* of larger blocks */
    uint64_t huge_blocks;    /* how many of them are live */
    uint64_t segments;       /* how many reservations for smaller blocks there are */
    uint64_t reserved;       /* of addresses, without those of metadata */
    uint64_t committed;      /* that have memory, or get it when they are written */
    uint64_t resident;       /* an estimate of what the host has in memory */
    uint64_t refused;        /* free, but the host did not take them back */
    uint64_t abandoned;      /* that a forked child could not take over */
    uint64_t corrupt_blocks; /* how many blocks were found corrupt, with HOSTMEM_HARDEN=2 */
    uint64_t metadata;       /* of metadata, without the page map */
    uint64_t page_map;       /* of addresses of the page map, most of which is never touched */
    uint64_t requested;      /* that were ever asked for */
    uint64_t low;            /* 1 with HOSTMEM_LOW4G=1, else 0 */
    uint64_t hardening;      /* the level of hardening: 0, 1 or 2 */
};

/* Stores what this malloc holds through `to`, as far as `size` bytes have room: pass
 * sizeof(struct hostmem_malloc_statistics). What this library does not know reads zero. Returns 0,
 * or -1 where there is no heap: with HOSTMEM_PASS=1, or without memory. Not for signal handlers. */
int hostmem_malloc_statistics(void *to, size_t size);

/* Repairs the heap in the child of a raw clone() that copied the memory of a process with threads;
 * to be called there once, before any other call of this library. The C library's fork() does so by
 * itself. Children of vfork(), or with CLONE_VM, share the heap of their parent and must not call
 * it. Returns 0, or -1 where there is no memory for it: then the child must not allocate. */
int hostmem_malloc_fork_child(void);

#ifdef __cplusplus
}
#endif

#endif
