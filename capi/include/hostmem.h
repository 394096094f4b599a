/**
 * @file
 * @brief Host memory for emulators and JIT runtimes: heaps, executable memory, regions.
 *
 * Made of the Rust crate hostmem_c by cbindgen; docs/C.md is its guide.
 *
 * Calls return an `hm_status`, of which `HM_OK` is 0, and tell more through an `hm_error` if one is
 * given. A struct that may grow begins with its size: start with its `HM_..._INIT`, and zero in a
 * field is the default. Handles are used until their object is closed; null, and a handle of
 * another kind or one that was closed, is refused with `HM_INVALID_ARGUMENT`. Other pointers are
 * null, which is refused unless the comment says what it stands for, or point to what their type
 * says.
 *
 * A function that the library is given a pointer to, and a context for it, must not unwind: no C++
 * exception leaves it.
 *
 * Each comment says from where a call may be made. "Thread-safe" means by any threads at the same
 * time; "safe in signal handlers" means also by a handler that interrupted any call.
 */

#ifndef HOSTMEM_H
#define HOSTMEM_H

#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
/** Makes a struct that begins with its size, and zeros. */
template <class T> inline T hm_sized() noexcept {
    T sized = T();
    sized.size = static_cast<uint32_t>(sizeof(T));
    return sized;
}
#define HM_SIZED(type) (hm_sized<type>())
#else
#define HM_SIZED(type) { .size = (uint32_t)sizeof(type) }
#endif

#define HM_ERROR_INIT HM_SIZED(hm_error)
#define HM_SOURCE_INIT HM_SIZED(hm_source)
#define HM_PROVIDER_INIT HM_SIZED(hm_provider)
#define HM_REQUEST_INIT HM_SIZED(hm_request)
#define HM_PROBE_INIT HM_SIZED(hm_probe)
#define HM_DUAL_REQUEST_INIT HM_SIZED(hm_dual_request)
#define HM_DUAL_INIT HM_SIZED(hm_dual)
#define HM_JIT_CONFIG_INIT HM_SIZED(hm_jit_config)
#define HM_JIT_STATISTICS_INIT HM_SIZED(hm_jit_statistics)
#define HM_CODE_CONFIG_INIT HM_SIZED(hm_code_config)
#define HM_CODE_INFO_INIT HM_SIZED(hm_code_info)
#define HM_RETIRE_CONFIG_INIT HM_SIZED(hm_retire_config)
#define HM_RETIRE_STATISTICS_INIT HM_SIZED(hm_retire_statistics)
#define HM_HEAP_CONFIG_INIT HM_SIZED(hm_heap_config)
#define HM_HEAP_STATISTICS_INIT HM_SIZED(hm_heap_statistics)
#define HM_REGION_CONFIG_INIT HM_SIZED(hm_region_config)
#define HM_REGION_STATISTICS_INIT HM_SIZED(hm_region_statistics)
#define HM_CLAIM_INIT HM_SIZED(hm_claim)
#define HM_CLAIM_REPORT_INIT HM_SIZED(hm_claim_report)
#define HM_RANGE_MAP_CONFIG_INIT HM_SIZED(hm_range_map_config)
#define HM_RANGE_MAP_STATISTICS_INIT HM_SIZED(hm_range_map_statistics)

/**
 * The version of this header: major, minor and patch, eight bits each.
 */
#define HM_VERSION 256

/**
 * No guard at the start of a claim.
 */
#define HM_NO_GUARD 1

/**
 * What a call returns.
 */
enum hm_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It did what it was asked for.
     */
    HM_OK = 0,
    /**
     * An argument that no host could make sense of: null, misaligned, zero, or a setting out of
     * its range, which the `setting` of an `hm_error` names.
     */
    HM_INVALID_ARGUMENT = 1,
    /**
     * No memory, addresses, descriptors or mappings are left, or a configured limit is reached.
     */
    HM_OUT_OF_MEMORY = 2,
    /**
     * A size or an alignment larger than anything there is.
     */
    HM_TOO_LARGE = 3,
    /**
     * The address is not of this object, or nothing live is there: it was given back already.
     */
    HM_UNKNOWN_POINTER = 4,
    /**
     * The place asked for is in use.
     */
    HM_EXISTS = 5,
    /**
     * The host's policy refuses.
     */
    HM_DENIED = 6,
    /**
     * The host, the provider, the configuration or this version of the library does not have it.
     */
    HM_UNSUPPORTED = 7,
    /**
     * The place asked for lies outside of the range, the span or the object.
     */
    HM_OUT_OF_RANGE = 8,
    /**
     * Something else has to end first: an object that others still use, a queue that is full.
     */
    HM_BUSY = 9,
    /**
     * The call failed, and the range that it was given now belongs to somebody else.
     */
    HM_RANGE_LOST = 10,
    /**
     * Memory was written by a user that did not own it; found by a hardened heap.
     */
    HM_CORRUPT = 11,
    /**
     * The host said something else; the `system_error` of an `hm_error` is its number.
     */
    HM_SYSTEM_ERROR = 12,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum hm_status hm_status;
#else
typedef uint32_t hm_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * One long range of executable memory, without an allocator: a program that throws its code away
 * all at once moves a pointer through it, from the bottom or from the top. Places in it are given
 * by their offset in bytes.
 */
typedef struct hm_code hm_code;

/**
 * A heap: a value, of which a program has as many as it likes. Every call on it is thread-safe.
 */
typedef struct hm_heap hm_heap;

/**
 * Executable memory for many small pieces of code. Every call on it is thread-safe.
 */
typedef struct hm_jit hm_jit;

/**
 * A map of disjoint ranges of addresses, a guest's for instance, each with a value of 64 bits.
 * Every call on it is thread-safe.
 */
typedef struct hm_range_map hm_range_map;

/**
 * An allocator of addresses: mmap's calls, inside of what it has claimed. Every call on it is
 * thread-safe.
 */
typedef struct hm_region hm_region;

/**
 * A queue of spans that are released once no thread can be running them. Every call on it is
 * thread-safe.
 */
typedef struct hm_retire hm_retire;

/**
 * How blocks are mapped.
 */
typedef uint32_t hm_mapping;

/**
 * What a provider can do; numbers are added up.
 */
typedef uint32_t hm_capability;

/**
 * Which place is wanted.
 */
typedef uint32_t hm_place;

/**
 * Where something may lie. All zeros: anywhere.
 */
typedef struct hm_placement {
    /**
     * The lowest address of the window.
     */
    size_t first;
    /**
     * The highest address of the window; 0 for no bound.
     */
    size_t last;
    /**
     * The alignment in bytes, a power of two; 0 for pages, or whatever is the unit.
     */
    size_t align;
    /**
     * The address that `place` means.
     */
    size_t at;
    /**
     * Which place.
     */
    hm_place place;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_placement;

/**
 * A request for addresses. Begin with `HM_REQUEST_INIT`, and set at least `len`.
 */
typedef struct hm_request {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Not zero: the range is left out of core files.
     */
    uint32_t exclude_from_core;
    /**
     * Usable bytes, rounded up to pages.
     */
    size_t len;
    /**
     * As few usable bytes will do where no hole is longer; 0 for no fewer than `len`.
     */
    size_t min_len;
    /**
     * Where.
     */
    struct hm_placement placement;
    /**
     * Bytes before the usable ones that stay inaccessible, rounded up to pages.
     */
    size_t guard_before;
    /**
     * Bytes behind the usable ones that stay inaccessible, rounded up to pages.
     */
    size_t guard_after;
    /**
     * A name for the process map, up to 79 bytes, or null.
     */
    const char *name;
} hm_request;

/**
 * A range of memory.
 */
typedef struct hm_range {
    /**
     * Where it starts.
     */
    void *start;
    /**
     * Its length in bytes.
     */
    size_t len;
} hm_range;

/**
 * What may be done with a page.
 */
typedef uint32_t hm_access;

/**
 * The most that pages may be given by a later protect, of which some hosts want to know when they
 * are committed.
 */
typedef uint32_t hm_ceiling;

/**
 * Which pages are wished for. A number from 4096 on is a size of large pages in bytes, which the
 * probe lists: memory is refused where there are none.
 */
typedef size_t hm_page_wish;

/**
 * What purged pages show until they are written.
 */
typedef uint32_t hm_purged;

/**
 * What a forked child sees of code.
 */
typedef uint32_t hm_fork;

/**
 * A request for a dual mapping. Begin with `HM_DUAL_REQUEST_INIT`, and set at least `len`.
 */
typedef struct hm_dual_request {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * What a forked child sees: all but `HM_FORK_DETACH`'s private copy, which is for
     * `hm_jit_fork_child`.
     */
    hm_fork fork;
    /**
     * Bytes of each view, whole pages.
     */
    size_t len;
    /**
     * As few bytes will do where no hole is longer; 0 for no fewer than `len`.
     */
    size_t min_len;
    /**
     * Where the writable view goes.
     */
    struct hm_placement rw;
    /**
     * Where the executable view goes.
     */
    struct hm_placement rx;
    /**
     * A size of large pages, or 0 for the host's pages.
     */
    size_t large_pages;
    /**
     * Not zero: indirect branches into the executable view must land on a landing pad.
     */
    uint32_t landing_pads;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * A name for the process map, or null.
     */
    const char *name;
} hm_dual_request;

/**
 * A strategy for dual mappings.
 */
typedef uint32_t hm_step;

/**
 * The same pages, seen through a writable and through an executable view. It stands for both views
 * until `hm_dual_unmap`. Begin with `HM_DUAL_INIT`.
 */
typedef struct hm_dual {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * How it was made.
     */
    hm_step step;
    /**
     * The writable view.
     */
    void *rw;
    /**
     * The executable view.
     */
    void *rx;
    /**
     * Bytes of each view.
     */
    size_t len;
    /**
     * The size of its pages.
     */
    size_t page_size;
    /**
     * What a forked child sees.
     */
    hm_fork fork;
    /**
     * Whether `hm_dual_purge` works: 0 or 1.
     */
    uint32_t purges;
} hm_dual;

/**
 * A provider of memory of the program's own: functions that are called with `context` first, from
 * any thread, by several at the same time; they return an `hm_status`. They must not unwind, nor
 * call what stands on the provider. Those that fail change nothing. Begin with
 * `HM_PROVIDER_INIT`; the table stays as long as what is made on it.
 *
 * Pages are free, reserved or committed. `reserve` makes free ones reserved, `commit` reserved
 * ones committed, `decommit` either reserved, and `release` either free. Each may be asked of
 * parts of what an earlier call made.
 */
typedef struct hm_provider {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * What the provider can do.
     */
    hm_capability capabilities;
    /**
     * The first argument of all functions.
     */
    void *context;
    /**
     * The size of pages, a power of two from 4096 to 65536: the unit of all ranges.
     */
    size_t page_size;
    /**
     * Finds free pages, of which no other code knows. The range is as long as usable bytes and
     * guards, each rounded up to pages; less, by no more than `min_len` allows, where nothing is
     * longer. The first byte behind the leading guard is a multiple of the alignment. `HM_EXISTS`
     * where an exact place is in use, `HM_OUT_OF_RANGE` where it lies outside the window,
     * `HM_OUT_OF_MEMORY` where nothing fits.
     */
    uint32_t (*reserve)(void *context, const struct hm_request *wanted, struct hm_range *range);
    /**
     * Gives pages memory that reads zero.
     */
    uint32_t (*commit)(void *context,
                       struct hm_range range,
                       hm_access access,
                       hm_ceiling ceiling,
                       hm_page_wish wish);
    /**
     * Changes the access of committed pages.
     */
    uint32_t (*protect)(void *context, struct hm_range range, hm_access access);
    /**
     * Takes the memory of pages away, which are inaccessible then.
     */
    uint32_t (*decommit)(void *context, struct hm_range range);
    /**
     * Makes pages free.
     */
    uint32_t (*release)(void *context, struct hm_range range);
    /**
     * Gives the memory of committed pages back and keeps them; stores what they show then. Null
     * where the provider cannot.
     */
    uint32_t (*purge)(void *context, struct hm_range range, hm_purged *shown);
    /**
     * Maps pages twice, zeroed: fills in all of `dual` but its size, with `HM_STEP_OTHER`. Null
     * where the provider cannot; then executable memory needs another mapping than
     * `HM_MAPPING_DUAL`.
     */
    uint32_t (*map_dual)(void *context, const struct hm_dual_request *wanted, struct hm_dual *dual);
    /**
     * Unmaps both views. Not null where `map_dual` is not.
     */
    uint32_t (*unmap_dual)(void *context, const struct hm_dual *dual);
    /**
     * Has no thread of the process execute instructions that it fetched before. Null where the
     * provider cannot.
     */
    uint32_t (*sync_cores)(void *context);
} hm_provider;

/**
 * Where memory comes from. A null pointer to one, or all zeros, is the host. Begin with
 * `HM_SOURCE_INIT`.
 */
typedef struct hm_source {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * A region in which everything is placed, or null. It must not be closed before what is made
     * on it.
     */
    struct hm_region *region;
    /**
     * The lowest address that may be used.
     */
    size_t first;
    /**
     * The highest address that may be used; 0 for no bound.
     */
    size_t last;
    /**
     * A provider of the program's own, or null: then there is no region. It stays as long as what
     * is made on it.
     */
    const struct hm_provider *provider;
} hm_source;

/**
 * The configuration of a code range. Begin with `HM_CODE_CONFIG_INIT` and set at least `len`; in
 * every other field zero is the default.
 */
typedef struct hm_code_config {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * How the range is mapped.
     */
    hm_mapping mapping;
    /**
     * Where memory comes from; null for the host. It need not live longer than the call.
     */
    const struct hm_source *source;
    /**
     * Bytes of code, up to 2 GiB, rounded up to pages. They get memory when they are written.
     */
    size_t len;
    /**
     * Where the executable view goes, its guards included.
     */
    struct hm_placement rx;
    /**
     * Bytes before and behind the executable view that stay inaccessible, rounded up to pages.
     */
    size_t guard;
    /**
     * The pages wished for. Where the range is toggled, large ones are no more than advice.
     */
    hm_page_wish pages;
    /**
     * What a forked child sees, but for `HM_FORK_DETACH`, which is zero and stands for
     * `HM_FORK_LOSES_RW`: a child that wants to write code makes a range of its own.
     */
    hm_fork fork;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * A name for the process map, or null for this library's. It must stay as long as the object.
     */
    const char *name;
} hm_code_config;

/**
 * The details of an error. A call that fails stores them through its last argument, unless that
 * is null; a call that succeeds leaves it alone. Begin with `HM_ERROR_INIT`.
 */
typedef struct hm_error {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * What the call returned.
     */
    hm_status status;
    /**
     * The host's error number (`errno`), or 0 where no call of the host failed.
     */
    int32_t system_error;
    /**
     * The error number that Linux's `mmap`, `munmap`, `mprotect` or `mremap` would give for the
     * same mistake: what an emulator answers a guest.
     */
    int32_t guest_error;
    /**
     * The first strategy for a dual mapping that failed, or `HM_STEP_NONE`.
     */
    hm_step step;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * What went wrong, in English, on one line without a full stop. Never null, and never freed.
     */
    const char *message;
    /**
     * The name of the setting that is out of its range, or null. Never freed.
     */
    const char *setting;
    /**
     * The value that the setting has.
     */
    uint64_t value;
    /**
     * The least value that it may have.
     */
    uint64_t least;
    /**
     * The greatest value that it may have.
     */
    uint64_t most;
    /**
     * The block that was found corrupt, or 0.
     */
    size_t address;
    /**
     * How many bytes of addresses would do, where a window or a limit leaves too few for a heap,
     * or 0.
     */
    size_t needed;
} hm_error;

/**
 * What a code range is. Begin with `HM_CODE_INFO_INIT`.
 */
typedef struct hm_code_info {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * How it is mapped.
     */
    hm_mapping mapping;
    /**
     * Where code is executed.
     */
    void *rx;
    /**
     * Where code is written, between `hm_code_begin_write` and `hm_code_end_write`.
     */
    void *rw;
    /**
     * The length in bytes.
     */
    size_t len;
    /**
     * The size of the pages got, in bytes.
     */
    size_t page_size;
    /**
     * Whether other cores are made to see code that replaces code: 0 or 1.
     */
    uint32_t syncs_cores;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_code_info;

/**
 * What a patch does so that other cores run the code that it replaced.
 */
typedef uint32_t hm_barrier;

/**
 * What a heap does to find faults of its users.
 */
typedef uint32_t hm_hardening;

/**
 * When free memory goes back to the host.
 */
typedef uint32_t hm_return;

/**
 * The configuration of a heap. Begin with `HM_HEAP_CONFIG_INIT`; in every field zero is the
 * default.
 */
typedef struct hm_heap_config {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * What is done to find faults.
     */
    hm_hardening hardening;
    /**
     * Where memory comes from; null for the host. It need not live longer than the call. Metadata
     * keeps out of a window, and lies in a region.
     */
    const struct hm_source *source;
    /**
     * The most bytes of addresses for metadata; 1 GiB.
     */
    size_t metadata;
    /**
     * Bytes of free blocks that a thread's handle keeps of each size; 64 KiB.
     */
    size_t magazine;
    /**
     * Bytes of addresses that are reserved at first, a multiple of 64 KiB up to 64 MiB; 4 MiB.
     */
    size_t segment;
    /**
     * In how many parts with locks of their own blocks are kept, 1 to 64; 4.
     */
    uint32_t shards;
    /**
     * When free memory goes back.
     */
    hm_return memory_return;
    /**
     * How long it is free before, in milliseconds; 250.
     */
    uint32_t return_ms;
    /**
     * Not zero: the host is not asked for large pages.
     */
    uint32_t no_large_pages;
    /**
     * Not zero: calls look at no clock, and memory goes back by `hm_heap_tick` only.
     */
    uint32_t no_clock;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Bytes of freed blocks up to 256 KiB that wait before they serve again, with
     * `HM_HARDENING_FULL`; 1 MiB.
     */
    size_t quarantine;
    /**
     * Bytes of addresses of larger freed blocks that wait; 1 GiB.
     */
    size_t quarantine_addresses;
    /**
     * How many mappings of the host guards may take; half of those that are left.
     */
    size_t mappings;
    /**
     * Not zero: calls without a thread's handle take a lock each. By default they have caches of
     * free blocks, which threads use by turns; a thread may end in any way.
     */
    uint32_t no_thread_caches;
    /**
     * Zero.
     */
    uint32_t reserved_more;
    /**
     * 32 random bytes, from which a heap with `HM_HARDENING_FULL` makes canaries and the order of
     * its blocks; null to ask the host for them. They need not live longer than the call.
     */
    const uint8_t *keys;
} hm_heap_config;

/**
 * How much work is done to give memory back.
 */
typedef uint32_t hm_trim;

/**
 * Is told of a live block; returns 0 to go on, and anything else to stop. It must not unwind.
 */
typedef int (*hm_heap_visit_fn)(void *context, void *block, size_t size);

/**
 * Blocks that are rounded up to one size.
 */
typedef struct hm_heap_class {
    /**
     * Bytes of a block.
     */
    size_t block_size;
    /**
     * How many slabs there are.
     */
    size_t slabs;
    /**
     * How many blocks they have, live and free.
     */
    size_t blocks;
    /**
     * How many blocks are live.
     */
    size_t used;
    /**
     * How many free blocks threads have.
     */
    size_t cached;
    /**
     * How many freed blocks wait before they serve again.
     */
    size_t quarantined;
} hm_heap_class;

/**
 * Is told of blocks of one size; returns 0 to go on, and anything else to stop. It must not
 * unwind.
 */
typedef int (*hm_heap_class_visit_fn)(void *context, const struct hm_heap_class *found);

/**
 * The kind of memory in addresses that a heap holds.
 */
typedef uint32_t hm_heap_range_kind;

/**
 * Addresses that a heap holds, with or without memory.
 */
typedef struct hm_heap_range {
    /**
     * The first address.
     */
    size_t first;
    /**
     * The last address.
     */
    size_t last;
    /**
     * The kind of memory there.
     */
    hm_heap_range_kind kind;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_heap_range;

/**
 * Is told of addresses that a heap holds; returns 0 to go on, and anything else to stop. It must
 * not unwind.
 */
typedef int (*hm_heap_range_visit_fn)(void *context, const struct hm_heap_range *found);

/**
 * What a heap holds, in bytes where nothing else is said. Begin with `HM_HEAP_STATISTICS_INIT`.
 */
typedef struct hm_heap_statistics {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t padding;
    /**
     * Ever asked for.
     */
    uint64_t requested;
    /**
     * Of live blocks, as they are rounded up.
     */
    uint64_t used;
    /**
     * Of free blocks that threads' handles have.
     */
    uint64_t cached;
    /**
     * Of slabs, free blocks in them included.
     */
    uint64_t slabs;
    /**
     * Of blocks without a slab, up to 1 MiB each.
     */
    uint64_t large;
    /**
     * How many of them are live.
     */
    uint64_t large_blocks;
    /**
     * Of larger blocks.
     */
    uint64_t huge;
    /**
     * How many of them are live.
     */
    uint64_t huge_blocks;
    /**
     * How many segments there are.
     */
    uint64_t segments;
    /**
     * Of addresses, those of metadata excluded.
     */
    uint64_t reserved;
    /**
     * That have memory, or get it when they are written.
     */
    uint64_t committed;
    /**
     * An estimate of what the host has in memory.
     */
    uint64_t resident;
    /**
     * Free, but the host did not take them back.
     */
    uint64_t refused;
    /**
     * That a forked child could not take over.
     */
    uint64_t abandoned;
    /**
     * How many blocks were found corrupt.
     */
    uint64_t corrupt_blocks;
    /**
     * Of freed blocks that wait before they serve again.
     */
    uint64_t quarantined;
    /**
     * Of addresses of larger ones that wait.
     */
    uint64_t quarantined_addresses;
    /**
     * How many live blocks have no guards that should have.
     */
    uint64_t unguarded_blocks;
    /**
     * Of metadata that has memory, without the page map.
     */
    uint64_t metadata;
    /**
     * Of addresses of the page map.
     */
    uint64_t page_map;
    /**
     * How many calls of the provider for blocks there were.
     */
    uint64_t provider_calls;
} hm_heap_statistics;

/**
 * A thread's own handle of a heap, with free blocks of its own, so that most calls take no lock;
 * in the memory of the program, thread-local for instance: begin with zeros. It may go to another
 * thread, but one at a time uses it; a copy of it is refused. Any block of the heap may be freed
 * by any handle, and by the heap's own calls.
 */
typedef struct hm_local {
    /**
     * Not for programs.
     */
    size_t opaque[4];
} hm_local;

/**
 * When other cores are made to see code that replaces code.
 */
typedef uint32_t hm_sync;

/**
 * What memory that belongs to no span reads as.
 */
typedef uint32_t hm_fill;

/**
 * The configuration of executable memory. Begin with `HM_JIT_CONFIG_INIT`; in every field zero is
 * the default.
 */
typedef struct hm_jit_config {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * How blocks are mapped.
     */
    hm_mapping mapping;
    /**
     * Where memory comes from; null for the host. It need not live longer than the call.
     */
    const struct hm_source *source;
    /**
     * The unit and alignment of spans in bytes, a power of two from 16 to 4096; 64.
     */
    size_t granularity;
    /**
     * The size of the first block, a power of two from 64 KiB to 1 GiB; 128 KiB.
     */
    size_t block_size;
    /**
     * The size up to which blocks double, as `block_size`; 32 MiB, or `block_size` if that is
     * more.
     */
    size_t max_block_size;
    /**
     * Where executable views go.
     */
    struct hm_placement rx;
    /**
     * Where writable views go.
     */
    struct hm_placement rw;
    /**
     * The most bytes of metadata; 256 MiB.
     */
    size_t metadata;
    /**
     * The most bytes of code that are mapped at a time; no limit.
     */
    size_t limit;
    /**
     * The size of large pages in bytes, which blocks are made of where the host has them; none.
     */
    size_t large_pages;
    /**
     * Not zero: every block is made a multiple of `large_pages`.
     */
    uint32_t align_large_pages;
    /**
     * What a forked child sees.
     */
    hm_fork fork;
    /**
     * When other cores are made to see code that replaces code.
     */
    hm_sync sync_cores;
    /**
     * How many granularities there are, 1 to 3, each twice the one before; 1.
     */
    uint32_t pools;
    /**
     * How many threads can allocate without waiting for each other, a power of two up to 16; 16.
     */
    uint32_t shards;
    /**
     * What memory that belongs to no span reads as.
     */
    hm_fill fill;
    /**
     * The pattern of `HM_FILL_PATTERN`.
     */
    uint32_t fill_pattern;
    /**
     * Bits of the word that spans carry for the program: 0, 32 or 64.
     */
    uint32_t word_bits;
    /**
     * Not zero: spans have groups.
     */
    uint32_t groups;
    /**
     * Not zero: indirect branches into code must land on a landing pad (`bti` on AArch64).
     */
    uint32_t landing_pads;
    /**
     * Not zero: a block is unmapped as soon as it is empty.
     */
    uint32_t immediate_release;
    /**
     * Not zero: the first granule of a block may be a span's.
     */
    uint32_t no_padding;
    /**
     * Not zero: refused where memory would be writable and executable at once.
     */
    uint32_t strict;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * A name for the process map, or null for this library's. It must stay as long as the object.
     */
    const char *name;
} hm_jit_config;

/**
 * A piece of executable memory, a name that may be copied. Once the span was released, all copies
 * of its name are refused, whatever has its memory.
 */
typedef struct hm_span {
    /**
     * Where the code is executed.
     */
    void *rx;
    /**
     * Where the code is written. Whoever writes there by itself publishes it by `hm_flush_icache`.
     */
    void *rw;
    /**
     * The length in bytes: what was asked for, rounded up.
     */
    size_t len;
    /**
     * What tells the span from others that had its memory; never zero.
     */
    uint32_t number;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_span;

/**
 * One of several writes: `len` bytes from `bytes`, to `offset` in a span.
 */
typedef struct hm_write {
    /**
     * The span.
     */
    struct hm_span span;
    /**
     * Where in it.
     */
    size_t offset;
    /**
     * What; outside of executable memory of this library.
     */
    const void *bytes;
    /**
     * How many bytes.
     */
    size_t len;
} hm_write;

/**
 * Fills a span: writes code through `rw`, which will run at `rx`, and returns how many bytes of
 * the span to keep, or `len` or more for all. It must not unwind, nor leave by `longjmp`.
 */
typedef size_t (*hm_jit_fill_fn)(void *context, void *rw, void *rx, size_t len);

/**
 * A live span, with what it carries.
 */
typedef struct hm_live {
    /**
     * The span.
     */
    struct hm_span span;
    /**
     * Its word; zero until one is set.
     */
    uint64_t word;
    /**
     * Its group; zero until one is set.
     */
    uint32_t group;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_live;

/**
 * What a reset does with the blocks.
 */
typedef uint32_t hm_reset;

/**
 * Is told of a live span; returns 0 to go on, and anything else to stop. It must not unwind.
 */
typedef int (*hm_jit_visit_fn)(void *context, const struct hm_live *live);

/**
 * A block of memory that spans are cut from.
 */
typedef struct hm_jit_block {
    /**
     * Where its code is executed.
     */
    struct hm_range rx;
    /**
     * Where it is written; the same where blocks are mapped once.
     */
    struct hm_range rw;
    /**
     * The size of its pages.
     */
    size_t page_size;
    /**
     * The unit of its spans.
     */
    size_t granularity;
    /**
     * Live spans.
     */
    uint64_t spans;
    /**
     * Bytes of live spans.
     */
    uint64_t used;
} hm_jit_block;

/**
 * Is told of a block; returns 0 to go on, and anything else to stop. It must not unwind.
 */
typedef int (*hm_jit_block_visit_fn)(void *context, const struct hm_jit_block *block);

/**
 * What is held, in bytes where nothing else is said. Begin with `HM_JIT_STATISTICS_INIT`.
 */
typedef struct hm_jit_statistics {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Whether other cores are made to see code that replaces code: 0 or 1.
     */
    uint32_t syncs_cores;
    /**
     * Blocks mapped.
     */
    uint64_t blocks;
    /**
     * Live spans.
     */
    uint64_t spans;
    /**
     * Of live spans.
     */
    uint64_t used;
    /**
     * Mapped for code, once for both views.
     */
    uint64_t reserved;
    /**
     * Of metadata that has memory, but for what spans carry.
     */
    uint64_t metadata;
    /**
     * Of what spans carry: words, groups and numbers.
     */
    uint64_t tags;
} hm_jit_statistics;

/**
 * The configuration of a range map. Begin with `HM_RANGE_MAP_CONFIG_INIT`; set at least `last`.
 */
typedef struct hm_range_map_config {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Not zero: signals are blocked while the map is locked, so that a handler may change it, too.
     */
    uint32_t block_signals;
    /**
     * Where the map's own memory comes from; null for the host. It need not live longer than the
     * call.
     */
    const struct hm_source *source;
    /**
     * The lowest address that a range may have, a multiple of pages.
     */
    size_t first;
    /**
     * The highest address that a range may have: the last byte of a page.
     */
    size_t last;
    /**
     * The size of pages, a power of two, which need not be the host's; 4096. With 1 it is a map of
     * any ranges.
     */
    size_t page_size;
    /**
     * The most bytes of the map's own memory; 64 MiB.
     */
    size_t metadata;
    /**
     * Not zero: ranges that touch stay apart though they have the same value.
     */
    uint32_t keep_apart;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_range_map_config;

/**
 * A range of a map.
 */
typedef struct hm_mapped_range {
    /**
     * Its first address.
     */
    size_t first;
    /**
     * Its last address.
     */
    size_t last;
    /**
     * Its value.
     */
    uint64_t value;
} hm_mapped_range;

/**
 * Says what is to lie in a piece of a map: `has_value` is not zero where there was a range, whose
 * value is in `piece`. Returns 1 to have there the value that it leaves in `piece`, and 0 to have
 * nothing. It must not unwind, nor call the map but by what signal handlers may.
 */
typedef int (*hm_range_map_change_fn)(void *context, struct hm_mapped_range *piece, int has_value);

/**
 * Which free addresses are taken first.
 */
typedef uint32_t hm_order;

/**
 * Free addresses.
 */
typedef struct hm_gap {
    /**
     * The first address.
     */
    size_t first;
    /**
     * The last address.
     */
    size_t last;
} hm_gap;

/**
 * Is told of a range; returns 0 to go on, and anything else to stop. It must not unwind.
 */
typedef int (*hm_range_map_visit_fn)(void *context, const struct hm_mapped_range *range);

/**
 * What a map holds. Begin with `HM_RANGE_MAP_STATISTICS_INIT`.
 */
typedef struct hm_range_map_statistics {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Ranges.
     */
    uint64_t ranges;
    /**
     * Pages that the ranges cover.
     */
    uint64_t pages;
    /**
     * Bytes of memory that the map holds.
     */
    uint64_t metadata;
    /**
     * Bytes that a forked child left behind.
     */
    uint64_t abandoned;
} hm_range_map_statistics;

/**
 * Whether a setting of the host is on.
 */
typedef uint32_t hm_setting;

/**
 * A strategy for dual mappings, and whether it works.
 */
typedef struct hm_probe_step {
    /**
     * The strategy; `HM_STEP_NONE` behind the last.
     */
    hm_step step;
    /**
     * Whether it works: 0 or 1.
     */
    uint32_t works;
    /**
     * The host's error number where it does not, or 0.
     */
    int32_t system_error;
} hm_probe_step;

/**
 * What a host allows, found out by trying. Begin with `HM_PROBE_INIT`. What is allowed is 1, and
 * what is not is 0.
 */
typedef struct hm_probe {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * The bits of an address of the process, or 0 where that is not known.
     */
    uint32_t address_bits;
    /**
     * The page size.
     */
    size_t page_size;
    /**
     * The sizes of large pages that the host knows; 0 behind the last.
     */
    size_t large_pages[8];
    /**
     * How many mappings a process may have, or 0 where that is not known.
     */
    size_t max_mappings;
    /**
     * Memory can be writable and executable at once. This is never tried.
     */
    uint32_t read_write_exec;
    /**
     * A page can go from writable to executable.
     */
    uint32_t toggle_exec;
    /**
     * Pages can refuse indirect branches that do not land on a landing pad.
     */
    uint32_t landing_pads;
    /**
     * Other cores can be made to see new code.
     */
    uint32_t core_sync;
    /**
     * The process map can be read.
     */
    uint32_t process_map;
    /**
     * Memory that was writable is kept from being executable (Linux: MDWE).
     */
    hm_setting deny_write_execute;
    /**
     * Whatever is readable is executable, too (Linux: `READ_IMPLIES_EXEC`).
     */
    hm_setting read_implies_exec;
    /**
     * The strategy that dual mappings use, or `HM_STEP_NONE`.
     */
    hm_step best_step;
    /**
     * Each strategy, best first.
     */
    struct hm_probe_step steps[8];
} hm_probe;

/**
 * The configuration of a region. Begin with `HM_REGION_CONFIG_INIT`; in every field zero is the
 * default.
 */
typedef struct hm_region_config {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Which free addresses are taken first.
     */
    hm_order order;
    /**
     * The most bytes of metadata; 64 MiB, which serve three million ranges.
     */
    size_t metadata;
    /**
     * How many mappings the host allows a process; 65,530, as Linux has it.
     */
    size_t mapping_limit;
    /**
     * Not zero: signals are blocked while the region is locked, so that a handler may map and
     * unmap, too. Two system calls for each call.
     */
    uint32_t block_signals;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Where its addresses and its memory come from; null for the host. It need not live longer
     * than the call.
     */
    const struct hm_source *source;
} hm_region_config;

/**
 * What a region is to claim. Begin with `HM_CLAIM_INIT`; set at least `first`.
 */
typedef struct hm_claim {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Not zero: the program break is kept from growing.
     */
    uint32_t block_break;
    /**
     * The lowest address to claim.
     */
    size_t first;
    /**
     * The highest address to claim; 0 for all that there are.
     */
    size_t last;
    /**
     * The first address of a part that is claimed to be inaccessible for good.
     */
    size_t hole_first;
    /**
     * The last address of that part; 0 for none.
     */
    size_t hole_last;
    /**
     * The first address of a part that is left as it is.
     */
    size_t leave_first;
    /**
     * The last address of that part; 0 for none.
     */
    size_t leave_last;
    /**
     * Bytes at the start that are claimed to be inaccessible for good; a multiple of pages. Zero
     * for 64 KiB, and `HM_NO_GUARD` for none.
     */
    size_t guard;
    /**
     * How long a growing stack may come to be; 0 for what the host's limit allows and some more.
     */
    size_t stack_room;
    /**
     * Gaps shorter than this are not claimed; 0 for pages.
     */
    size_t least;
    /**
     * Bytes that are not claimed where the host limits a process's addresses; 0 for a quarter.
     */
    size_t spare;
    /**
     * Not zero: a claim that misses anything is an error, and nothing is claimed then.
     */
    uint32_t require_complete;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_claim;

/**
 * What became of a claim. Begin with `HM_CLAIM_REPORT_INIT`.
 */
typedef struct hm_claim_report {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Whether all is claimed that was to be: 0 or 1.
     */
    uint32_t complete;
    /**
     * The first address that the host has of what was asked for.
     */
    size_t first;
    /**
     * The last one; 0 where it has none.
     */
    size_t last;
    /**
     * How many free pieces could not be had.
     */
    uint64_t missed_ranges;
    /**
     * Their bytes.
     */
    uint64_t missed_bytes;
    /**
     * The host's error number for the first of them, or 0.
     */
    int32_t system_error;
    /**
     * Whether the process map could be read: 0 or 1.
     */
    uint32_t saw_map;
    /**
     * Bytes of the memory that `brk` gave that lie in the range: the C library goes on to serve
     * from there.
     */
    uint64_t heap_bytes;
    /**
     * Whether a page lies behind the program break now, so that it cannot grow: 0 or 1.
     */
    uint32_t break_blocked;
    /**
     * The bits of an address of this process, or 0 where that is not known.
     */
    uint32_t address_bits;
} hm_claim_report;

/**
 * The state of pages.
 */
typedef uint32_t hm_state;

/**
 * Pages that were given out, all alike.
 */
typedef struct hm_region_range {
    /**
     * The first address.
     */
    size_t first;
    /**
     * The last address.
     */
    size_t last;
    /**
     * The state of the pages.
     */
    hm_state state;
    /**
     * Their access, of pages that have memory.
     */
    hm_access access;
    /**
     * The tag that they were mapped with.
     */
    uint16_t tag;
    /**
     * Zeros.
     */
    uint16_t reserved[3];
} hm_region_range;

/**
 * Is told of pages; returns 0 to go on, and anything else to stop. It must not unwind.
 */
typedef int (*hm_region_visit_fn)(void *context, const struct hm_region_range *range);

/**
 * Is told of free addresses; returns 0 to go on, and anything else to stop. It must not unwind.
 */
typedef int (*hm_gap_visit_fn)(void *context, const struct hm_gap *gap);

/**
 * What a region holds, in bytes where nothing else is said. Begin with
 * `HM_REGION_STATISTICS_INIT`.
 */
typedef struct hm_region_statistics {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Whether the region has adopted anything; before, it passes everything on to the host.
     */
    uint32_t active;
    /**
     * Addresses that were adopted and not returned.
     */
    uint64_t adopted;
    /**
     * Addresses given out.
     */
    uint64_t used;
    /**
     * Ranges that the region tells apart.
     */
    uint64_t ranges;
    /**
     * Metadata that has memory.
     */
    uint64_t metadata;
    /**
     * Metadata that a forked child left behind.
     */
    uint64_t abandoned;
    /**
     * How many mappings the host keeps for the region, of which it allows a process
     * `mapping_limit`.
     */
    uint64_t host_mappings;
    /**
     * Whether that is more than three quarters of the limit: 0 or 1.
     */
    uint32_t mapping_pressure;
    /**
     * Zero.
     */
    uint32_t reserved;
} hm_region_statistics;

/**
 * The configuration of a retire queue. Begin with `HM_RETIRE_CONFIG_INIT`; in every field zero is
 * the default.
 */
typedef struct hm_retire_config {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * How many spans may wait, up to 1,048,576; 4096.
     */
    size_t waiting;
    /**
     * How many executors can be registered at a time, up to 1024; 64.
     */
    size_t executors;
} hm_retire_config;

/**
 * A thread that runs code, in the memory of the program: begin with zeros. It may go to another
 * thread, but one at a time uses it; a copy of it is refused.
 */
typedef struct hm_executor {
    /**
     * Not for programs.
     */
    size_t opaque[6];
} hm_executor;

/**
 * What waits, and what came before. Begin with `HM_RETIRE_STATISTICS_INIT`.
 */
typedef struct hm_retire_statistics {
    /**
     * The size of this struct.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Spans that wait.
     */
    uint64_t waiting_spans;
    /**
     * Their bytes.
     */
    uint64_t waiting_bytes;
    /**
     * Spans that were released so far.
     */
    uint64_t reclaimed_spans;
    /**
     * Their bytes.
     */
    uint64_t reclaimed_bytes;
    /**
     * Spans that were not taken back, because a reset or a fork had taken them.
     */
    uint64_t refused;
    /**
     * Executors that are registered.
     */
    uint64_t executors;
    /**
     * Executors that are online: those that spans can wait for.
     */
    uint64_t online;
    /**
     * Bytes of metadata that has memory.
     */
    uint64_t metadata;
} hm_retire_statistics;

/**
 * As `HM_HARDENING_CHECKED`.
 */
#define HM_HARDENING_DEFAULT 0

/**
 * Frees of what is no live block are refused.
 */
#define HM_HARDENING_CHECKED 1

/**
 * That, and canaries behind blocks, a pattern at the start of free ones, and frees by a wrong
 * size.
 */
#define HM_HARDENING_CANARIES 2

/**
 * All that the heap can find: guards, quarantine, frees at the same time.
 */
#define HM_HARDENING_FULL 3

/**
 * When it was free for `return_ms` milliseconds.
 */
#define HM_RETURN_LATER 0

/**
 * At once.
 */
#define HM_RETURN_EAGER 1

/**
 * Only by `hm_heap_trim`.
 */
#define HM_RETURN_NEVER 2

/**
 * What is free as a whole: segments, granules of 64 KiB.
 */
#define HM_TRIM_FREE 0

/**
 * That, and pages between live blocks.
 */
#define HM_TRIM_DEEP 1

/**
 * Blocks up to 1 MiB, live and free ones, or room for them.
 */
#define HM_HEAP_RANGE_SEGMENT 0

/**
 * One larger block, and what its reservation is longer by.
 */
#define HM_HEAP_RANGE_HUGE 1

/**
 * One larger block that was freed, and is kept for the next, or until it can be released.
 */
#define HM_HEAP_RANGE_KEPT 2

/**
 * Metadata: descriptors, bitmaps and magazines.
 */
#define HM_HEAP_RANGE_ARENA 3

/**
 * Metadata: a part of the page map.
 */
#define HM_HEAP_RANGE_PAGE_MAP 4

/**
 * Twice: written through one view, executed through the other. Nothing is ever both.
 */
#define HM_MAPPING_DUAL 0

/**
 * Once, executable, and writable instead for the time of a write: no thread executes code in the
 * same pages then.
 */
#define HM_MAPPING_TOGGLE 1

/**
 * Twice; where the host refuses every strategy for that, as `HM_MAPPING_TOGGLE`.
 */
#define HM_MAPPING_AUTO 2

/**
 * Once, writable and executable at once.
 */
#define HM_MAPPING_READ_WRITE_EXEC 3

/**
 * No writable view; after `hm_jit_fork_child` a private copy of all code at the same addresses.
 */
#define HM_FORK_DETACH 0

/**
 * No writable view. The executable view still shows what the parent writes.
 */
#define HM_FORK_LOSES_RW 1

/**
 * Neither view.
 */
#define HM_FORK_LOSES_BOTH 2

/**
 * Both views, shared with the parent.
 */
#define HM_FORK_SHARE 3

/**
 * With each write, where the host can.
 */
#define HM_SYNC_WHEN_REUSED 0

/**
 * With each write; a host that cannot is refused.
 */
#define HM_SYNC_REQUIRED 1

/**
 * By the next `hm_jit_publish`.
 */
#define HM_SYNC_DEFERRED 2

/**
 * Never: the program has one thread, or synchronizes the others itself.
 */
#define HM_SYNC_NEVER 3

/**
 * Whatever it held.
 */
#define HM_FILL_KEEP 0

/**
 * An instruction that traps.
 */
#define HM_FILL_TRAP 1

/**
 * The `fill_pattern` of the configuration.
 */
#define HM_FILL_PATTERN 2

/**
 * Nothing.
 */
#define HM_BARRIER_NEVER 0

/**
 * It leaves that to the next `hm_jit_publish`.
 */
#define HM_BARRIER_DEFERRED 1

/**
 * It returns when they do.
 */
#define HM_BARRIER_NOW 2

/**
 * One block of each kind is kept, the others are unmapped.
 */
#define HM_RESET_SOFT 0

/**
 * All are unmapped.
 */
#define HM_RESET_HARD 1

/**
 * All are kept.
 */
#define HM_RESET_KEEP 2

/**
 * The host does not have it.
 */
#define HM_SETTING_ABSENT 0

/**
 * It is off.
 */
#define HM_SETTING_OFF 1

/**
 * It is on.
 */
#define HM_SETTING_ON 2

/**
 * `protect` can take a page from writable to executable and back, where its ceiling says so.
 */
#define HM_CAN_TOGGLE_EXEC 1

/**
 * Memory can be writable and executable at once.
 */
#define HM_CAN_READ_WRITE_EXEC 2

/**
 * Memory is executable only where that was asked for.
 */
#define HM_CAN_KEEP_FROM_EXEC 4

/**
 * The lowest.
 */
#define HM_ORDER_LOWEST 0

/**
 * The highest.
 */
#define HM_ORDER_HIGHEST 1

/**
 * Those nearest to what was taken last.
 */
#define HM_ORDER_RECENT 2

/**
 * Given out, and without memory.
 */
#define HM_STATE_RESERVED 0

/**
 * Given out, with memory.
 */
#define HM_STATE_COMMITTED 1

/**
 * A view of a dual mapping.
 */
#define HM_STATE_DUAL 2

/**
 * In a forked child: a call of another thread was mapping or unmapping these pages when the
 * process forked; see `hm_region_free_interrupted`.
 */
#define HM_STATE_INTERRUPTED 3

/**
 * Zero.
 */
#define HM_PURGED_ZERO 0

/**
 * Zero, or the old contents as long as the host has not taken the memory.
 */
#define HM_PURGED_ZERO_OR_OLD 1

/**
 * The old contents: the host keeps the memory.
 */
#define HM_PURGED_KEPT 2

/**
 * None.
 */
#define HM_STEP_NONE 0

/**
 * `memfd_create`.
 */
#define HM_STEP_MEMFD 1

/**
 * `memfd_create` with large pages.
 */
#define HM_STEP_MEMFD_LARGE 2

/**
 * An anonymous object of shared memory.
 */
#define HM_STEP_ANON_SHM 3

/**
 * An anonymous object of shared memory, of large pages.
 */
#define HM_STEP_ANON_SHM_LARGE 4

/**
 * A duplicate of a mapping.
 */
#define HM_STEP_REMAP_DUP 5

/**
 * A named object of shared memory, unlinked at once.
 */
#define HM_STEP_POSIX_SHM 6

/**
 * An unlinked file in `/dev/shm`.
 */
#define HM_STEP_DEV_SHM 7

/**
 * An unlinked file in another directory.
 */
#define HM_STEP_DIRECTORY 8

/**
 * Another way, that of a provider of the program's own.
 */
#define HM_STEP_OTHER 9

/**
 * Nothing: every access faults.
 */
#define HM_ACCESS_NONE 0

/**
 * Reading.
 */
#define HM_ACCESS_READ 1

/**
 * Reading and writing.
 */
#define HM_ACCESS_READ_WRITE 2

/**
 * Reading and executing.
 */
#define HM_ACCESS_READ_EXEC 3

/**
 * Everything at once. Whoever can write such memory can run what was written, and hardened hosts
 * refuse it.
 */
#define HM_ACCESS_READ_WRITE_EXEC 4

/**
 * As the access says now: reading and writing for memory that cannot be executed, reading and
 * executing for memory that can.
 */
#define HM_CEILING_DEFAULT 0

/**
 * Reading.
 */
#define HM_CEILING_READ 1

/**
 * Reading and writing.
 */
#define HM_CEILING_READ_WRITE 2

/**
 * Reading and executing.
 */
#define HM_CEILING_READ_EXEC 3

/**
 * Writing or executing, never both at once.
 */
#define HM_CEILING_WRITE_XOR_EXEC 4

/**
 * Everything at once.
 */
#define HM_CEILING_READ_WRITE_EXEC 5

/**
 * The host's pages.
 */
#define HM_PAGES_BASE 0

/**
 * The host's pages, and advice that large ones are welcome.
 */
#define HM_PAGES_TRANSPARENT 1

/**
 * The host's pages, and advice that large ones are not welcome.
 */
#define HM_PAGES_NEVER_LARGE 2

/**
 * Any.
 */
#define HM_PLACE_ANYWHERE 0

/**
 * The free place closest to the address `at`.
 */
#define HM_PLACE_NEAR 1

/**
 * The address `at` if it is free, else any.
 */
#define HM_PLACE_HINT 2

/**
 * The address `at` or none. What is there is never replaced.
 */
#define HM_PLACE_EXACT 3

/**
 * The lowest free place of the window. Executable memory that is placed so is handed out lowest
 * first.
 */
#define HM_PLACE_LOWEST 4

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the library, as `HM_VERSION` is the header's: the same major number
 * serves, of the same minor number or a greater one; before 1.0 the same minor number.
 *
 * Thread-safe, and safe in signal handlers.
 */
uint32_t hm_version(void);

/**
 * Makes a code range.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_code_create(const struct hm_code_config *config,
                         struct hm_code **code,
                         struct hm_error *error);

/**
 * Unmaps the range and closes the object. Nothing of it may be executed, or used in another call,
 * any more.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_code_close(struct hm_code *code, struct hm_error *error);

/**
 * Stores where the range lies, and how it is mapped.
 *
 * Thread-safe, and safe in signal handlers.
 */
hm_status hm_code_get_info(struct hm_code *code, struct hm_code_info *info, struct hm_error *error);

/**
 * Stores the offset of an address in the executable or the writable view. Returns
 * `HM_UNKNOWN_POINTER` for one that lies in neither.
 *
 * Thread-safe, and safe in signal handlers.
 */
hm_status hm_code_offset(struct hm_code *code, const void *address, size_t *offset);

/**
 * Makes `len` bytes from `offset` writable, and stores where they are written. Costs no system
 * call unless the range is toggled, or the part was purged. A writer may leave by `longjmp`: pages
 * that are toggled stay writable until the next begin or end of a write.
 *
 * Thread-safe, and safe in signal handlers. Where the range is toggled, one thread at a time is
 * between this call and `hm_code_end_write`, and no thread executes code in those pages, or in
 * those that the last writer left.
 */
hm_status hm_code_begin_write(struct hm_code *code,
                              size_t offset,
                              size_t len,
                              void **rw,
                              struct hm_error *error);

/**
 * Makes what `hm_code_begin_write` made writable executable again. It publishes nothing.
 *
 * Thread-safe, and safe in signal handlers; as `hm_code_begin_write` where the range is toggled.
 */
hm_status hm_code_end_write(struct hm_code *code,
                            size_t offset,
                            size_t len,
                            struct hm_error *error);

/**
 * Makes `len` bytes from `offset`, which were written, visible to instruction fetches. Bytes that
 * were published before may have been fetched by other cores: the barrier says what is done about
 * that.
 *
 * Thread-safe, and safe in signal handlers.
 */
hm_status hm_code_publish(struct hm_code *code,
                          size_t offset,
                          size_t len,
                          hm_barrier kind,
                          struct hm_error *error);

/**
 * Writes `len` bytes at `offset` and publishes them: begin, copy, end and publish in one call. The
 * bytes lie outside of the range.
 *
 * Thread-safe, and safe in signal handlers; as `hm_code_begin_write` where the range is toggled.
 */
hm_status hm_code_write(struct hm_code *code,
                        size_t offset,
                        const void *from,
                        size_t len,
                        hm_barrier kind,
                        struct hm_error *error);

/**
 * Makes other cores see all code whose barrier was deferred. Costs nothing where none was.
 *
 * Thread-safe, and safe in signal handlers.
 */
hm_status hm_code_sync(struct hm_code *code, struct hm_error *error);

/**
 * Takes the whole range for one that no code was published in, with one barrier: to begin anew
 * after all code was thrown away. From now on no thread executes code that was published before.
 *
 * Not thread-safe beside calls that publish; safe in signal handlers.
 */
hm_status hm_code_recycle(struct hm_code *code, struct hm_error *error);

/**
 * Gives the memory of whole pages back to the host; their addresses stay. No thread uses them
 * until they were written again, after an `hm_code_begin_write`.
 *
 * Thread-safe, and safe in signal handlers.
 */
hm_status hm_code_purge(struct hm_code *code, size_t offset, size_t len, struct hm_error *error);

/**
 * Gives memory and addresses of both ends of the range back to the host, but for `len` bytes from
 * `offset`, which are whole pages. Offsets count from `offset` afterwards. No thread uses what
 * goes.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_code_shrink(struct hm_code *code, size_t offset, size_t len, struct hm_error *error);

/**
 * Repairs all regions, range maps, heaps and code ranges in the child of a fork, on its only
 * thread, before any other call: a thread that the child does not have may have been in a call of
 * them. The parent takes no lock for a fork. `pthread_atfork(NULL, NULL, child)` with a `child`
 * that calls this is enough; executable memory has hooks of its own, which come after this.
 *
 * Children of `vfork`, and of `clone` with `CLONE_VM`, share their parent's memory and must not
 * call it. Where there is no memory for something, the rest is repaired all the same, and the call
 * may be made again.
 *
 * For the only thread of a forked child, also where the fork was made in a signal handler.
 */
hm_status hm_fork_child_all(struct hm_error *error);

/**
 * Makes a heap. It reserves metadata, but no memory for blocks yet. A null configuration stands
 * for the defaults.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_create(const struct hm_heap_config *config,
                         struct hm_heap **heap,
                         struct hm_error *error);

/**
 * Closes a heap and gives all of its memory back: its blocks are not used any more. Returns
 * `HM_BUSY` while a thread's handle is attached to it. With `force` not zero those are forgotten,
 * and not used again: handles of threads that ended without detaching, or that are not in this
 * forked child.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_heap_close(struct hm_heap *heap, int force, struct hm_error *error);

/**
 * Allocates `size` bytes at a multiple of `align`, a power of two, or 0 for 16. They read zero if
 * `zeroed` is not zero. As `hm_heap_malloc`, and says why there is no block.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_alloc(struct hm_heap *heap,
                        size_t size,
                        size_t align,
                        int zeroed,
                        void **block,
                        struct hm_error *error);

/**
 * Allocates `size` bytes at a multiple of 16; a block of size zero has an address of its own.
 * Returns null without memory, and for a null or closed heap. A lock is seldom waited for; see
 * `no_thread_caches`. `hm_local_malloc` is quicker still.
 *
 * Thread-safe; not for signal handlers.
 */
void *hm_heap_malloc(struct hm_heap *heap, size_t size);

/**
 * Allocates `count` times `size` bytes that read zero. Returns null as `hm_heap_malloc` does, and
 * where the product overflows.
 *
 * Thread-safe; not for signal handlers.
 */
void *hm_heap_calloc(struct hm_heap *heap, size_t count, size_t size);

/**
 * Allocates `size` bytes at a multiple of `align`, a power of two. Returns null as
 * `hm_heap_malloc` does, and for another alignment.
 *
 * Thread-safe; not for signal handlers.
 */
void *hm_heap_aligned_alloc(struct hm_heap *heap, size_t align, size_t size);

/**
 * Makes a block `size` bytes long, where it lies or elsewhere; its contents stay, as far as they
 * fit. A null block is allocated anew; a size of zero leaves a block of size zero. Returns null
 * without memory, and where no live block of the heap starts at `block`: it stays as it is then.
 * A block that moves is aligned to 16.
 *
 * Thread-safe; not for signal handlers.
 */
void *hm_heap_realloc(struct hm_heap *heap, void *block, size_t size);

/**
 * Frees a block of the heap, allocated by any call; null is passed by. Returns
 * `HM_UNKNOWN_POINTER`, and changes nothing, where no live block of the heap starts there.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_free(struct hm_heap *heap, void *block);

/**
 * Frees as `hm_heap_free` does a block that was allocated with this size and alignment (0 for 16),
 * or last resized to this size, for which the alignment is 0; a hardened heap compares them.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_free_sized(struct hm_heap *heap, void *block, size_t size, size_t align);

/**
 * Allocates as `hm_heap_alloc` does, without waiting and without asking the host: from what is
 * free and has memory. Returns `HM_BUSY` where nothing is, or where the thread that was
 * interrupted, or another one, has locked what is.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt.
 */
hm_status hm_heap_try_alloc(struct hm_heap *heap,
                            size_t size,
                            size_t align,
                            int zeroed,
                            void **block,
                            struct hm_error *error);

/**
 * Makes a block `size` bytes long as `hm_heap_realloc` does, without waiting; stores where it lies
 * then. It was allocated with `old_size` bytes and this alignment (0 for 16), or last resized to
 * `old_size`. Returns the statuses of `hm_heap_try_alloc` and `hm_heap_try_free`; the block stays
 * as it is then.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt.
 */
hm_status hm_heap_try_realloc(struct hm_heap *heap,
                              void **block,
                              size_t old_size,
                              size_t align,
                              size_t size,
                              struct hm_error *error);

/**
 * Frees a block as `hm_heap_free` does, without waiting: its memory serves again after the next
 * call that takes a lock.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt.
 */
hm_status hm_heap_try_free(struct hm_heap *heap, void *block, struct hm_error *error);

/**
 * Returns how many bytes of the live block that starts at `block` may be used; 0 where none does.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
size_t hm_heap_usable_size(struct hm_heap *heap, const void *block);

/**
 * Says whether an address, any address at all, lies in the heap's memory, freed blocks included: 1
 * or 0. Touches nothing there.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
int hm_heap_owns(struct hm_heap *heap, const void *address);

/**
 * Returns the start of the live block around an address, any address at all, and stores through
 * `size`, unless that is null, how many bytes of it may be used. Returns null where there is none.
 * Exact for a block that is not being freed at that moment.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
void *hm_heap_block_of(struct hm_heap *heap, const void *address, size_t *size);

/**
 * Returns the open heap that an address, any address at all, lies in the memory of, or null: to
 * free a block of one of several heaps. No heap is closed meanwhile.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
struct hm_heap *hm_heap_of(const void *address);

/**
 * Gives free memory back to the host. What other threads' handles have goes back at their next
 * calls.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_trim(struct hm_heap *heap, hm_trim how, struct hm_error *error);

/**
 * Gives memory back until no more than `bytes` of it are resident, or no more is free; stores
 * through `resident`, unless that is null, how many are then.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_trim_to(struct hm_heap *heap,
                          size_t bytes,
                          size_t *resident,
                          struct hm_error *error);

/**
 * Gives back what was free for long enough, by a clock of the program that only goes forwards, in
 * milliseconds: for heaps with `no_clock`.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_tick(struct hm_heap *heap, uint64_t now_ms, struct hm_error *error);

/**
 * Tells `visit` of live blocks: exact while no other thread allocates or frees. `visit` holds no
 * lock, and may use the heap.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_walk(struct hm_heap *heap,
                       hm_heap_visit_fn visit,
                       void *context,
                       struct hm_error *error);

/**
 * Tells `visit` of each size up to 256 KiB that blocks are rounded up to, and of the blocks of that
 * size. `visit` holds no lock and may use the heap.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_classes(struct hm_heap *heap,
                          hm_heap_class_visit_fn visit,
                          void *context,
                          struct hm_error *error);

/**
 * Tells `visit` of the addresses that the heap holds: first those of blocks, then those of
 * metadata, each by address. What it holds from the first to the last is told, as one range or as
 * several. `visit` holds no lock and may use the heap.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_ranges(struct hm_heap *heap,
                         hm_heap_range_visit_fn visit,
                         void *context,
                         struct hm_error *error);

/**
 * Stores what is held.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_heap_get_statistics(struct hm_heap *heap,
                                 struct hm_heap_statistics *to,
                                 struct hm_error *error);

/**
 * Lua's allocator (`lua_Alloc`): `context` is a heap. Frees for a new size of zero, allocates for
 * a null block, and resizes else. A block that is made shorter never fails.
 *
 * Thread-safe; not for signal handlers.
 */
void *hm_heap_lua_alloc(void *context, void *block, size_t old_size, size_t new_size);

/**
 * Attaches a thread's handle to a heap. It takes three kilobytes of metadata, and more as it is
 * used.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_local_attach(struct hm_heap *heap, struct hm_local *local, struct hm_error *error);

/**
 * Detaches a thread's handle, which gives its free blocks to the others; its memory is zeros then.
 * A thread that ends without this leaves the free blocks of its handle unused until the heap is
 * closed.
 *
 * Not for signal handlers.
 */
hm_status hm_local_detach(struct hm_local *local, struct hm_error *error);

/**
 * As `hm_heap_malloc`, by a thread's handle: takes a lock only once in many calls.
 *
 * On the handle's thread; not for signal handlers.
 */
void *hm_local_malloc(struct hm_local *local, size_t size);

/**
 * As `hm_heap_calloc`, by a thread's handle.
 *
 * On the handle's thread; not for signal handlers.
 */
void *hm_local_calloc(struct hm_local *local, size_t count, size_t size);

/**
 * As `hm_heap_aligned_alloc`, by a thread's handle.
 *
 * On the handle's thread; not for signal handlers.
 */
void *hm_local_aligned_alloc(struct hm_local *local, size_t align, size_t size);

/**
 * As `hm_heap_realloc`, by a thread's handle.
 *
 * On the handle's thread; not for signal handlers.
 */
void *hm_local_realloc(struct hm_local *local, void *block, size_t size);

/**
 * As `hm_heap_free`, by a thread's handle.
 *
 * On the handle's thread; not for signal handlers.
 */
hm_status hm_local_free(struct hm_local *local, void *block);

/**
 * As `hm_heap_free_sized`, by a thread's handle: a little faster than `hm_local_free`.
 *
 * On the handle's thread; not for signal handlers.
 */
hm_status hm_local_free_sized(struct hm_local *local, void *block, size_t size, size_t align);

/**
 * Gives the free blocks of a thread's handle back to the heap: before the thread does nothing for
 * long.
 *
 * On the handle's thread; not for signal handlers.
 */
hm_status hm_local_flush(struct hm_local *local, struct hm_error *error);

/**
 * `hm_heap_lua_alloc` by a thread's handle, which is `context`: for a state of Lua's that has a
 * handle of its own. It may be used on any thread, by one at a time, as the state is.
 *
 * One thread at a time; not for signal handlers.
 */
void *hm_local_lua_alloc(void *context, void *block, size_t old_size, size_t new_size);

/**
 * Sets the provider that is the host, on a system for which this library has none: there, what is
 * made without a provider is made on it, and without one that is set there is nothing but
 * `HM_UNSUPPORTED`. Handles live on its pages too, so make this the first call. The table stays
 * until the program ends. A second call is refused with `HM_EXISTS`; on Linux, which has a host,
 * every one is with `HM_UNSUPPORTED`.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_set_host(const struct hm_provider *provider, struct hm_error *error);

/**
 * Makes executable memory. Nothing is mapped for code before the first allocation. A null
 * configuration stands for the defaults.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_create(const struct hm_jit_config *config,
                        struct hm_jit **jit,
                        struct hm_error *error);

/**
 * Unmaps all code and closes the object. Nothing of it may be executed, or used in another call,
 * any more. Returns `HM_BUSY` while there is a retire queue in front of it.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_jit_close(struct hm_jit *jit, struct hm_error *error);

/**
 * Allocates `size` bytes and stores the span's name. What is there is undefined.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_alloc(struct hm_jit *jit,
                       size_t size,
                       struct hm_span *span,
                       struct hm_error *error);

/**
 * Allocates `size` bytes that are executed as close to `anchor` as can be, no more than `reach`
 * bytes away: 128 MiB for a branch of AArch64, 2 GiB for one of x86-64.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_alloc_near(struct hm_jit *jit,
                            size_t size,
                            const void *anchor,
                            size_t reach,
                            struct hm_span *span,
                            struct hm_error *error);

/**
 * Allocates `size` bytes where `where_to` says, for which there are `HM_PLACE_ANYWHERE` and
 * `HM_PLACE_NEAR`; within its window, and with its alignment.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_alloc_placed(struct hm_jit *jit,
                              size_t size,
                              const struct hm_placement *where_to,
                              struct hm_span *span,
                              struct hm_error *error);

/**
 * Allocates `size` bytes that are executed `offset` bytes behind the start of the window, where a
 * code cache from a file has them. For executable memory whose `rx` is placed by
 * `HM_PLACE_LOWEST`.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_alloc_at(struct hm_jit *jit,
                          size_t offset,
                          size_t size,
                          struct hm_span *span,
                          struct hm_error *error);

/**
 * Writes `len` bytes at `offset` in a span and publishes them: they can be executed when the call
 * returns, on all cores. The bytes lie outside of executable memory of this library.
 *
 * Costs a system call only where code was published before. One thread at a time writes the same
 * bytes, and no thread executes them meanwhile, unless any mix of old and new bytes does no harm.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_write(struct hm_jit *jit,
                       const struct hm_span *span,
                       size_t offset,
                       const void *from,
                       size_t len,
                       struct hm_error *error);

/**
 * Writes as `hm_jit_write` does, and leaves what makes other cores see it to the next
 * `hm_jit_publish`: until then no other thread executes it.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_write_deferred(struct hm_jit *jit,
                                const struct hm_span *span,
                                size_t offset,
                                const void *from,
                                size_t len,
                                struct hm_error *error);

/**
 * Writes many pieces with one pass of cache maintenance and one barrier: none of them is executed
 * before the call returns. Stores through `done`, unless that is null, how many were written: all
 * of them, or those before the one that failed, which are published.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_write_many(struct hm_jit *jit,
                            const struct hm_write *writes,
                            size_t count,
                            size_t *done,
                            struct hm_error *error);

/**
 * Lets `fill` write code into a span in place, publishes all of it, and shrinks the span if asked
 * to, of which `span` then tells. `fill` may call this library, but not release this span.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_write_with(struct hm_jit *jit,
                            struct hm_span *span,
                            hm_jit_fill_fn fill,
                            void *context,
                            struct hm_error *error);

/**
 * Makes other cores see all code whose barrier was left to this call, by any thread.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_publish(struct hm_jit *jit, struct hm_error *error);

/**
 * Stores four bytes at `offset`, a multiple of four, in a span whose code other threads may be
 * executing: they run the old ones or the new ones. What a CPU allows to be replaced so, the
 * documentation of Rust's `JitAllocator::patch_u32` lists.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_patch_u32(struct hm_jit *jit,
                           const struct hm_span *span,
                           size_t offset,
                           uint32_t value,
                           hm_barrier when,
                           struct hm_error *error);

/**
 * Stores eight bytes as `hm_jit_patch_u32` stores four.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_patch_u64(struct hm_jit *jit,
                           const struct hm_span *span,
                           size_t offset,
                           uint64_t value,
                           hm_barrier when,
                           struct hm_error *error);

/**
 * Stores four bytes, as `hm_jit_patch_u32` does, that are executed at `rx`, in whatever span is
 * live there: which is the caller's, and is not released during the call.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_patch_u32_at(struct hm_jit *jit,
                              const void *rx,
                              uint32_t value,
                              hm_barrier when,
                              struct hm_error *error);

/**
 * Stores eight bytes as `hm_jit_patch_u32_at` stores four.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_patch_u64_at(struct hm_jit *jit,
                              const void *rx,
                              uint64_t value,
                              hm_barrier when,
                              struct hm_error *error);

/**
 * Shrinks a span to `len` bytes, rounded up, of which `span` then tells. Other copies of its name
 * serve as before, with a length that is too long.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_shrink(struct hm_jit *jit,
                        struct hm_span *span,
                        size_t len,
                        struct hm_error *error);

/**
 * Finds the live span around an address, any address at all, and stores what is known of it.
 * Returns `HM_UNKNOWN_POINTER` where there is none. Touches nothing at the address. Exact for a
 * span that is not being released or shrunk at that moment.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
hm_status hm_jit_query(struct hm_jit *jit, const void *address, struct hm_live *live);

/**
 * Sets the word of a span, which a query returns and which goes with the span; see `word_bits` of
 * the configuration.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_set_word(struct hm_jit *jit,
                          const struct hm_span *span,
                          uint64_t word,
                          struct hm_error *error);

/**
 * Sets the group of a span, which goes with the span; see `groups` of the configuration.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_set_group(struct hm_jit *jit,
                           const struct hm_span *span,
                           uint32_t group,
                           struct hm_error *error);

/**
 * Releases a span, which no thread executes any more. The name of a span that was released is
 * refused with `HM_UNKNOWN_POINTER`; of several calls for one span, one succeeds.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_release(struct hm_jit *jit, const struct hm_span *span, struct hm_error *error);

/**
 * Releases many spans. Those that are not live are passed by: stores through `refused`, unless
 * that is null, how many those were.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_release_many(struct hm_jit *jit,
                              const struct hm_span *spans,
                              size_t count,
                              size_t *refused,
                              struct hm_error *error);

/**
 * Releases all spans of a group, which no thread executes or names any more; stores through
 * `count`, unless that is null, how many those were.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_release_group(struct hm_jit *jit,
                               uint32_t group,
                               size_t *count,
                               struct hm_error *error);

/**
 * Releases all spans at once: no thread executes, names or touches one during the call or later.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_jit_reset(struct hm_jit *jit, hm_reset how, struct hm_error *error);

/**
 * Tells `visit` of the live spans by address, while others may allocate and release: a span that
 * is there all the time is told once. `first` and `last` bound where spans start, and `last` may
 * be 0 for no bound; `group` is null, or the group whose spans are told.
 *
 * `visit` holds no lock and may call this library.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_spans(struct hm_jit *jit,
                       size_t first,
                       size_t last,
                       const uint32_t *group,
                       hm_jit_visit_fn visit,
                       void *context,
                       struct hm_error *error);

/**
 * Tells `visit` of the blocks of memory that spans are cut from, by address, each as it is then.
 *
 * `visit` holds no lock and may call this library.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_blocks(struct hm_jit *jit,
                        hm_jit_block_visit_fn visit,
                        void *context,
                        struct hm_error *error);

/**
 * Gives the memory of blocks that are kept empty back to the host; stores through `bytes`, unless
 * that is null, how much that was.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_trim(struct hm_jit *jit, size_t *bytes, struct hm_error *error);

/**
 * Stores what is held.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_get_statistics(struct hm_jit *jit,
                                struct hm_jit_statistics *to,
                                struct hm_error *error);

/**
 * Stores how blocks are mapped: as the configuration said, or what `HM_MAPPING_AUTO` became.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_jit_get_mapping(struct hm_jit *jit, hm_mapping *to, struct hm_error *error);

/**
 * Locks the object for a fork by this thread, and copies its code where a child is to have it.
 * Answered by `hm_jit_fork_parent` in the parent, also where no fork came about, and by
 * `hm_jit_fork_child` in the child. After an error nothing is locked.
 *
 * Not for signal handlers.
 */
hm_status hm_jit_fork_prepare(struct hm_jit *jit, struct hm_error *error);

/**
 * Unlocks in the parent what this thread's `hm_jit_fork_prepare` locked.
 *
 * Not for signal handlers.
 */
hm_status hm_jit_fork_parent(struct hm_jit *jit, struct hm_error *error);

/**
 * Makes the code the child's own, on its only thread, and unlocks it. A region that the code lies
 * in is repaired before, by `hm_fork_child_all`.
 *
 * Not for signal handlers.
 */
hm_status hm_jit_fork_child(struct hm_jit *jit, struct hm_error *error);

/**
 * Makes code that was written through the address itself, or another one of the same memory,
 * visible to the calling core's execution. What other cores have fetched before is another matter:
 * `hm_sync_cores`.
 *
 * Thread-safe, and safe in signal handlers.
 */
void hm_flush_icache(const void *code, size_t len);

/**
 * Makes an empty map.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_range_map_create(const struct hm_range_map_config *config,
                              struct hm_range_map **map,
                              struct hm_error *error);

/**
 * Closes a map and gives its memory back.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_range_map_close(struct hm_range_map *map, struct hm_error *error);

/**
 * Stores the range that has an address. Returns `HM_UNKNOWN_POINTER` where none has.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
hm_status hm_range_map_query(struct hm_range_map *map,
                             size_t address,
                             struct hm_mapped_range *found);

/**
 * Stores the first range that does not lie wholly below an address. Returns `HM_UNKNOWN_POINTER`
 * where there is none.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
hm_status hm_range_map_next(struct hm_range_map *map,
                            size_t address,
                            struct hm_mapped_range *found);

/**
 * Stores the last range that does not lie wholly above an address. Returns `HM_UNKNOWN_POINTER`
 * where there is none.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
hm_status hm_range_map_prev(struct hm_range_map *map,
                            size_t address,
                            struct hm_mapped_range *found);

/**
 * Gives a range a value, whatever was there: what overlaps partly is cut. Stores through `had`,
 * unless that is null, how many of its pages had one. Readers see all of it or nothing.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_insert(struct hm_range_map *map,
                              size_t first,
                              size_t last,
                              uint64_t value,
                              size_t *had,
                              struct hm_error *error);

/**
 * Gives a range a value if none of its pages has one. Returns `HM_EXISTS` where one has.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_insert_new(struct hm_range_map *map,
                                  size_t first,
                                  size_t last,
                                  uint64_t value,
                                  struct hm_error *error);

/**
 * Takes a range away, whatever parts of ranges lie in it. Stores through `had`, unless that is
 * null, how many pages had a value.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_remove(struct hm_range_map *map,
                              size_t first,
                              size_t last,
                              size_t *had,
                              struct hm_error *error);

/**
 * Changes what lies in a window by what `change` says of each range and each gap in it, in order,
 * cut off at its ends. Readers see all of it or nothing. Stores through `had`, unless that is
 * null, how many pages had a value.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_rewrite(struct hm_range_map *map,
                               size_t first,
                               size_t last,
                               hm_range_map_change_fn change,
                               void *context,
                               size_t *had,
                               struct hm_error *error);

/**
 * Makes sure that the next `changes` changes cannot fail for want of memory.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_prepare(struct hm_range_map *map, size_t changes, struct hm_error *error);

/**
 * Makes sure that the next change cannot fail for want of memory, if that is a rewrite of this
 * window, however many ranges it holds, or an insertion or a removal.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_prepare_rewrite(struct hm_range_map *map,
                                       size_t first,
                                       size_t last,
                                       struct hm_error *error);

/**
 * Gives a range a value as `hm_range_map_insert` does, without waiting. Returns `HM_BUSY` where
 * the thread that was interrupted, or another one, is changing the map. Nothing changed then.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt.
 */
hm_status hm_range_map_try_insert(struct hm_range_map *map,
                                  size_t first,
                                  size_t last,
                                  uint64_t value,
                                  size_t *had,
                                  struct hm_error *error);

/**
 * Gives a range a value as `hm_range_map_insert_new` does, without waiting. Returns `HM_BUSY` as
 * `hm_range_map_try_insert` does.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt.
 */
hm_status hm_range_map_try_insert_new(struct hm_range_map *map,
                                      size_t first,
                                      size_t last,
                                      uint64_t value,
                                      struct hm_error *error);

/**
 * Takes a range away as `hm_range_map_remove` does, without waiting. Returns `HM_BUSY` as
 * `hm_range_map_try_insert` does.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt.
 */
hm_status hm_range_map_try_remove(struct hm_range_map *map,
                                  size_t first,
                                  size_t last,
                                  size_t *had,
                                  struct hm_error *error);

/**
 * Changes what lies in a window as `hm_range_map_rewrite` does, without waiting. Returns `HM_BUSY`
 * as `hm_range_map_try_insert` does; `change` was not called then.
 *
 * Thread-safe, and safe in signal handlers, whatever they interrupt, if `change` is.
 */
hm_status hm_range_map_try_rewrite(struct hm_range_map *map,
                                   size_t first,
                                   size_t last,
                                   hm_range_map_change_fn change,
                                   void *context,
                                   size_t *had,
                                   struct hm_error *error);

/**
 * Finds a gap of `len` bytes within a window, whose byte at `offset` is a multiple of `align`;
 * an `align` of 0 is that of pages, and a `last` of 0 is no bound. No other thread is kept from
 * taking it. Returns `HM_OUT_OF_MEMORY` where nothing fits.
 *
 * Of the orders there are `HM_ORDER_LOWEST`, `HM_ORDER_HIGHEST`, and `HM_ORDER_RECENT` for the one
 * nearest to `near`.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_find_gap(struct hm_range_map *map,
                                size_t len,
                                size_t align,
                                size_t offset,
                                size_t first,
                                size_t last,
                                hm_order order,
                                size_t near,
                                struct hm_gap *gap,
                                struct hm_error *error);

/**
 * Stores the longest gap of a window, the lowest of several; a `last` of 0 is no bound. Returns
 * `HM_UNKNOWN_POINTER` where there is none.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_largest_gap(struct hm_range_map *map,
                                   size_t first,
                                   size_t last,
                                   struct hm_gap *gap);

/**
 * Tells `visit` of the ranges that share an address with a window, whole and in order; what
 * changes meanwhile is told or not. A `last` of 0 is no bound.
 *
 * Thread-safe, and safe in signal handlers, as far as `visit` is: it takes no lock.
 */
hm_status hm_range_map_walk(struct hm_range_map *map,
                            size_t first,
                            size_t last,
                            hm_range_map_visit_fn visit,
                            void *context,
                            struct hm_error *error);

/**
 * Stores what is held.
 *
 * Thread-safe; not for signal handlers, unless the map blocks signals.
 */
hm_status hm_range_map_get_statistics(struct hm_range_map *map,
                                      struct hm_range_map_statistics *to,
                                      struct hm_error *error);

#if defined(__linux__)
/**
 * Sets the region of `hm_region_mmap` and its kin; null for none, where they fail with `ENODEV`.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_region_set_default(struct hm_region *region, struct hm_error *error);
#endif

#if defined(__linux__)
/**
 * Returns the region of `hm_region_mmap` and its kin, or null.
 *
 * Thread-safe, and safe in signal handlers.
 */
struct hm_region *hm_region_get_default(void);
#endif

#if defined(__linux__)
/**
 * Maps as `mmap` does, in a region: the flags are `MAP_PRIVATE` or `MAP_SHARED`, with
 * `MAP_ANONYMOUS`, `MAP_FIXED`, `MAP_FIXED_NOREPLACE`, `MAP_NORESERVE`, `MAP_STACK`,
 * `MAP_POPULATE`, `MAP_LOCKED`, `MAP_NONBLOCK`, `MAP_HUGETLB` and its sizes, and `MAP_32BIT`;
 * others fail with `EOPNOTSUPP`. An address without `MAP_FIXED` is a hint. Returns `MAP_FAILED`,
 * and says why by `errno`, with the numbers that `mmap` would use; addresses that are not of the
 * region cannot be replaced, which is `ENOMEM`. A region on a provider of the program's own has
 * private memory alone: for files and flags that ask the kernel for more it fails with
 * `EOPNOTSUPP`.
 *
 * What a program does to such memory by the kernel's own calls is described in the guide.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
void *hm_region_mmap_in(struct hm_region *region,
                        void *address,
                        size_t len,
                        int prot,
                        int flags,
                        int fd,
                        int64_t offset);
#endif

#if defined(__linux__)
/**
 * Unmaps as `munmap` does: any parts of mappings of the region. Returns 0, or -1 and says why by
 * `errno`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
int hm_region_munmap_in(struct hm_region *region, void *address, size_t len);
#endif

#if defined(__linux__)
/**
 * Changes the access as `mprotect` does. Returns 0, or -1 and says why by `errno`; nothing has
 * changed then.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
int hm_region_mprotect_in(struct hm_region *region, void *address, size_t len, int prot);
#endif

#if defined(__linux__)
/**
 * Makes a mapping longer or shorter as `mremap` does, of whose flags there is `MREMAP_MAYMOVE`:
 * others fail with `EINVAL`. The mapping has one access all over. Returns where it lies then, or
 * `MAP_FAILED` and says why by `errno`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
void *hm_region_mremap_in(struct hm_region *region,
                          void *address,
                          size_t len,
                          size_t new_len,
                          int flags);
#endif

#if defined(__linux__)
/**
 * Gives advice as `madvise` does: `MADV_NORMAL`, `MADV_RANDOM`, `MADV_SEQUENTIAL`,
 * `MADV_WILLNEED`, `MADV_DONTNEED`, `MADV_FREE`, `MADV_COLD`, `MADV_PAGEOUT`, `MADV_HUGEPAGE`,
 * `MADV_NOHUGEPAGE`, `MADV_DONTDUMP`, `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE`; others fail
 * with `EINVAL`. Pages that the region has not given out fail with `ENOMEM`, and nothing is done.
 * In a region on a provider of the program's own what only the kernel can do fails with
 * `EOPNOTSUPP`, and so does `MADV_DONTNEED` where purged pages need not show zeros.
 * Returns 0, or -1 and says why by `errno`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
int hm_region_madvise_in(struct hm_region *region, void *address, size_t len, int advice);
#endif

#if defined(__linux__)
/**
 * As `hm_region_mmap_in`, in the region of `hm_region_set_default`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
void *hm_region_mmap(void *address, size_t len, int prot, int flags, int fd, int64_t offset);
#endif

#if defined(__linux__)
/**
 * As `hm_region_munmap_in`, in the region of `hm_region_set_default`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
int hm_region_munmap(void *address, size_t len);
#endif

#if defined(__linux__)
/**
 * As `hm_region_mprotect_in`, in the region of `hm_region_set_default`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
int hm_region_mprotect(void *address, size_t len, int prot);
#endif

#if defined(__linux__)
/**
 * As `hm_region_mremap_in`, in the region of `hm_region_set_default`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
void *hm_region_mremap(void *address, size_t len, size_t new_len, int flags);
#endif

#if defined(__linux__)
/**
 * As `hm_region_madvise_in`, in the region of `hm_region_set_default`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
int hm_region_madvise(void *address, size_t len, int advice);
#endif

/**
 * Reserves addresses: nothing else lands there, and every access faults. The guards of the request
 * lie within the range that is stored.
 *
 * Thread-safe; safe in signal handlers without a region.
 */
hm_status hm_pages_reserve(const struct hm_source *from,
                           const struct hm_request *wanted,
                           struct hm_range *range,
                           struct hm_error *error);

/**
 * Gives reserved pages memory, which reads zero.
 *
 * Thread-safe; safe in signal handlers without a region.
 */
hm_status hm_pages_commit(const struct hm_source *from,
                          struct hm_range range,
                          hm_access access,
                          hm_ceiling ceiling,
                          hm_page_wish wish,
                          struct hm_error *error);

/**
 * Changes the access of pages that have memory. Where this fails in the middle, pages in front may
 * have the new access.
 *
 * Thread-safe; safe in signal handlers without a region.
 */
hm_status hm_pages_protect(const struct hm_source *from,
                           struct hm_range range,
                           hm_access to,
                           struct hm_error *error);

/**
 * Gives the memory of pages back to the host and keeps the pages, which show what is stored
 * through `shown`, unless that is null.
 *
 * Thread-safe; safe in signal handlers without a region.
 */
hm_status hm_pages_purge(const struct hm_source *from,
                         struct hm_range range,
                         hm_purged *shown,
                         struct hm_error *error);

/**
 * Takes the memory of pages back: they are reserved then.
 *
 * Thread-safe; safe in signal handlers without a region.
 */
hm_status hm_pages_decommit(const struct hm_source *from,
                            struct hm_range range,
                            struct hm_error *error);

/**
 * Gives pages back, any part of what was reserved: whatever is mapped next may land there.
 *
 * Thread-safe; safe in signal handlers without a region.
 */
hm_status hm_pages_release(const struct hm_source *from,
                           struct hm_range range,
                           struct hm_error *error);

/**
 * Maps new pages twice, by the first strategy that the host allows. They read zero.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_dual_map(const struct hm_source *from,
                      const struct hm_dual_request *wanted,
                      struct hm_dual *dual,
                      struct hm_error *error);

/**
 * Unmaps both views, which are not used any more. After an error both are still mapped, or the
 * writable one is reserved, and the call may be made again.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_dual_unmap(const struct hm_source *from, struct hm_dual *dual, struct hm_error *error);

/**
 * Gives the pages of `len` bytes from `offset` back to the host. Nobody uses them before
 * `hm_dual_refill`; then they read zero.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_dual_purge(const struct hm_source *from,
                        const struct hm_dual *dual,
                        size_t offset,
                        size_t len,
                        struct hm_error *error);

/**
 * Makes sure that the pages of `len` bytes from `offset` have memory, after they were purged.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_dual_refill(const struct hm_source *from,
                         const struct hm_dual *dual,
                         size_t offset,
                         size_t len,
                         struct hm_error *error);

/**
 * Has no thread of the process execute instructions that it fetched before. Returns
 * `HM_UNSUPPORTED` or `HM_DENIED` where the host cannot.
 *
 * Thread-safe, and safe in signal handlers.
 */
hm_status hm_sync_cores(struct hm_error *error);

/**
 * Finds out what the host allows to this process now. Everything is tried, but for memory that is
 * writable and executable at once, and nothing is left behind.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_probe_host(struct hm_probe *to, struct hm_error *error);

/**
 * Makes a region without addresses: it passes everything on to its source, the host by default,
 * until it adopts some. A null configuration stands for the defaults.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_region_create(const struct hm_region_config *config,
                           struct hm_region **region,
                           struct hm_error *error);

/**
 * Closes a region. What it adopted stays claimed until the process ends, and what was mapped in it
 * stays mapped: unmap it, and call `hm_region_release_unused`, before. Returns `HM_BUSY` while
 * something made on the region is open.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_region_close(struct hm_region *region, struct hm_error *error);

/**
 * Claims all that is free in a range of addresses, so that what others map lands elsewhere, and
 * places everything new in it from then on. Stores what became of it through `report`, unless that
 * is null. That something could not be had is no error, unless all was required. For a region on
 * the host itself; others adopt what their source has reserved.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_region_claim(struct hm_region *region,
                          const struct hm_claim *claim,
                          struct hm_claim_report *report,
                          struct hm_error *error);

/**
 * Takes over addresses that the program has reserved by `hm_pages_reserve` from the region's
 * source; from now on they are the region's alone. Those of the host may be mapped by others, too,
 * without access and private.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_region_adopt(struct hm_region *region, struct hm_range range, struct hm_error *error);

/**
 * Gives free addresses back to the host, in pieces of `least` bytes or more; stores through
 * `bytes`, unless that is null, how many went.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_region_release_unused(struct hm_region *region,
                                   size_t least,
                                   size_t *bytes,
                                   struct hm_error *error);

/**
 * Finds addresses and maps memory there, all but the guards, which lie within the range that is
 * stored through `range`. `tag` is what `hm_region_query` tells of it.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_map(struct hm_region *region,
                        const struct hm_request *wanted,
                        hm_access access,
                        hm_ceiling ceiling,
                        hm_page_wish wish,
                        uint16_t tag,
                        struct hm_range *range,
                        struct hm_error *error);

/**
 * Maps memory at exactly this range, in place of whatever the region has there. Where this fails
 * what was there may be gone, and its addresses free.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_map_over(struct hm_region *region,
                             struct hm_range range,
                             hm_access access,
                             hm_ceiling ceiling,
                             hm_page_wish wish,
                             uint16_t tag,
                             struct hm_error *error);

/**
 * Takes pages away, whatever parts of however many mappings they are. Their addresses are free for
 * the region again, never for others. What is free already is left alone.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_unmap(struct hm_region *region, struct hm_range range, struct hm_error *error);

/**
 * Changes the access of pages that have memory. A change that fails in the middle is undone.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_protect(struct hm_region *region,
                            struct hm_range range,
                            hm_access access,
                            struct hm_error *error);

/**
 * Gives the memory of pages back to the host and keeps the pages, which show what is stored
 * through `shown`, unless that is null.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_purge(struct hm_region *region,
                          struct hm_range range,
                          hm_purged *shown,
                          struct hm_error *error);

/**
 * Makes a mapping of one access `len` bytes long, rounded up to pages: where it lies or, with
 * `may_move` not zero, elsewhere. New pages have `access`, which is that of the mapping, and read
 * zero. Stores where it lies then through `range`.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_remap(struct hm_region *region,
                          struct hm_range from,
                          size_t len,
                          int may_move,
                          hm_access access,
                          struct hm_range *range,
                          struct hm_error *error);

/**
 * Names pages in the process map, by up to 79 bytes, unless `name` is null; with
 * `exclude_from_core` not zero they are left out of core files from now on. Pages that are free,
 * and views of dual mappings, are passed by.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_describe(struct hm_region *region,
                             struct hm_range range,
                             const char *name,
                             int exclude_from_core,
                             struct hm_error *error);

/**
 * Says of memory that large pages are welcome (`HM_PAGES_TRANSPARENT`), or not
 * (`HM_PAGES_NEVER_LARGE`): advice, which changes no contents. Pages without memory are passed by.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_wish_pages(struct hm_region *region,
                               struct hm_range range,
                               hm_page_wish wish,
                               struct hm_error *error);

/**
 * Stores what is known of the page around an address, any address at all. Returns
 * `HM_UNKNOWN_POINTER` where it is free or not of the region.
 *
 * Thread-safe, and safe in signal handlers: it takes no lock.
 */
hm_status hm_region_query(struct hm_region *region,
                          const void *address,
                          struct hm_region_range *range);

/**
 * Tells `visit` of what was given out in a window, whole and in order; what changes meanwhile is
 * told or not. `last` may be 0 for no bound.
 *
 * Thread-safe, and safe in signal handlers, as far as `visit` is: it takes no lock.
 */
hm_status hm_region_walk(struct hm_region *region,
                         size_t first,
                         size_t last,
                         hm_region_visit_fn visit,
                         void *context,
                         struct hm_error *error);

/**
 * Stores the longest free piece of a window, the lowest of several. Returns `HM_UNKNOWN_POINTER`
 * where none is free.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_largest_gap(struct hm_region *region,
                                size_t first,
                                size_t last,
                                struct hm_gap *gap);

/**
 * Tells `visit` of the free pieces of a window, in order; `last` may be 0 for no bound. The lock
 * is taken for each anew, so that `visit` may map there, or find that another thread has.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_gaps(struct hm_region *region,
                         size_t first,
                         size_t last,
                         hm_gap_visit_fn visit,
                         void *context,
                         struct hm_error *error);

/**
 * Stores what is held. Looks at every range.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_get_statistics(struct hm_region *region,
                                   struct hm_region_statistics *to,
                                   struct hm_error *error);

/**
 * Frees, in a forked child, what a call of a thread that the child does not have was mapping or
 * unmapping; stores through `bytes`, unless that is null, how much that was. The thread that
 * forked was in no call of the region, or that call has returned.
 *
 * Thread-safe; not for signal handlers, unless the region blocks signals.
 */
hm_status hm_region_free_interrupted(struct hm_region *region,
                                     size_t *bytes,
                                     struct hm_error *error);

/**
 * Makes a queue in front of executable memory. A null configuration stands for the defaults.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_retire_create(struct hm_jit *jit,
                           const struct hm_retire_config *config,
                           struct hm_retire **retire,
                           struct hm_error *error);

/**
 * Releases all that waits, and closes the queue. Returns `HM_BUSY` while executors are registered.
 *
 * Not thread-safe for this object; not for signal handlers.
 */
hm_status hm_retire_close(struct hm_retire *retire, struct hm_error *error);

/**
 * Registers the calling thread as one that runs code. It is online: spans that are retired from
 * now on wait for its quiescent points.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_executor_register(struct hm_retire *retire,
                               struct hm_executor *executor,
                               struct hm_error *error);

/**
 * Unregisters an executor: nothing waits for it any more. Its memory is zeros then.
 *
 * Not for signal handlers.
 */
hm_status hm_executor_unregister(struct hm_executor *executor, struct hm_error *error);

/**
 * Says that the executor is not within any code, and will not use an address of code that it
 * looked up before: between two pieces of code. Two loads, and a store if anything was retired.
 * Null, and one that is not registered, is passed by.
 *
 * On the executor's thread; also in a signal handler there.
 */
void hm_executor_quiescent(struct hm_executor *executor);

/**
 * As `hm_executor_quiescent`, and nothing waits for the executor until `hm_executor_online`: for
 * the way into a blocking system call.
 *
 * On the executor's thread; also in a signal handler there.
 */
void hm_executor_offline(struct hm_executor *executor);

/**
 * Says that the executor will run code again, whose addresses it looks up after this call.
 *
 * On the executor's thread; also in a signal handler there.
 */
void hm_executor_online(struct hm_executor *executor);

/**
 * Puts a span aside that no thread comes to any more, and that is released once each executor has
 * had a quiescent point. Its name is refused from now on. Returns `HM_BUSY` where as many wait as
 * the configuration allows; the span is the caller's then.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_retire_span(struct hm_retire *retire,
                         const struct hm_span *span,
                         struct hm_error *error);

/**
 * Releases all that can be released now; stores through `spans`, unless that is null, how many
 * spans those were.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_retire_reclaim(struct hm_retire *retire, uint64_t *spans, struct hm_error *error);

/**
 * Stores what waits, and what came before.
 *
 * Thread-safe; not for signal handlers.
 */
hm_status hm_retire_get_statistics(struct hm_retire *retire,
                                   struct hm_retire_statistics *to,
                                   struct hm_error *error);

/**
 * Locks the queue for a fork by this thread: before `hm_jit_fork_prepare` of its executable
 * memory. Answered by `hm_retire_fork_parent` or `hm_retire_fork_child`.
 *
 * Not for signal handlers.
 */
hm_status hm_retire_fork_prepare(struct hm_retire *retire, struct hm_error *error);

/**
 * Unlocks in the parent what this thread's `hm_retire_fork_prepare` locked; after
 * `hm_jit_fork_parent`.
 *
 * Not for signal handlers.
 */
hm_status hm_retire_fork_parent(struct hm_retire *retire, struct hm_error *error);

/**
 * Unlocks in the child, on its only thread, after `hm_jit_fork_child`. Of all executors, `own`, an
 * array of `count` pointers, stay: those of the thread that forked. The others are gone.
 *
 * Not for signal handlers.
 */
hm_status hm_retire_fork_child(struct hm_retire *retire,
                               struct hm_executor *const *own,
                               size_t count,
                               struct hm_error *error);

/**
 * Returns what a status means, in English: a string that is never freed. Any number may be asked
 * for.
 *
 * Thread-safe, and safe in signal handlers.
 */
const char *hm_status_string(uint32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HOSTMEM_H */
