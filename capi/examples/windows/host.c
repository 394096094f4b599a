/* Windows as a host: the library has no backend for it, so this program gives it memory from a
 * range of addresses of its own, of which it keeps account, and then makes a heap, a range map and
 * code on it. ci/capi-package.sh says how it is built. */
#include <hostmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#define PAGE ((size_t)4096)
#define PAGES ((size_t)1 << 18)

static struct host {
    SRWLOCK lock;
    char *start;
    unsigned char used[PAGES];
} host;

static const DWORD bits[] = {PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE, PAGE_EXECUTE_READ,
                             PAGE_EXECUTE_READWRITE};

static void set_used(hm_range range, int used) {
    size_t first = (size_t)((char *)range.start - host.start) / PAGE;
    memset(host.used + first, used, range.len / PAGE);
}

static uint32_t reserve(void *context, const hm_request *wanted, hm_range *range) {
    const hm_placement *where = &wanted->placement;
    size_t len = wanted->guard_before + wanted->len + wanted->guard_after;
    uint32_t status = HM_OUT_OF_MEMORY;
    (void)context;
    AcquireSRWLockExclusive(&host.lock);
    for (size_t n = 0, found = 0; n < PAGES && status != HM_OK; n++) {
        found = host.used[n] ? 0 : found + 1;
        if (found < len / PAGE) {
            continue;
        }
        size_t at = (size_t)host.start + (n + 1) * PAGE - len;
        if ((at + wanted->guard_before) % where->align == 0 && at >= where->first &&
            at + len - 1 <= where->last && (where->place != HM_PLACE_EXACT || at == where->at)) {
            range->start = (void *)at;
            range->len = len;
            set_used(*range, 1);
            status = HM_OK;
        }
    }
    ReleaseSRWLockExclusive(&host.lock);
    return status;
}

static uint32_t commit(void *context, hm_range range, hm_access access, hm_ceiling ceiling,
                       hm_page_wish wish) {
    (void)context, (void)ceiling, (void)wish;
    return VirtualAlloc(range.start, range.len, MEM_COMMIT, bits[access]) ? HM_OK
                                                                          : HM_OUT_OF_MEMORY;
}

static uint32_t protect(void *context, hm_range range, hm_access access) {
    DWORD before;
    (void)context;
    return VirtualProtect(range.start, range.len, bits[access], &before) ? HM_OK : HM_DENIED;
}

static uint32_t decommit(void *context, hm_range range) {
    (void)context;
    return VirtualFree(range.start, range.len, MEM_DECOMMIT) ? HM_OK : HM_SYSTEM_ERROR;
}

static uint32_t release(void *context, hm_range range) {
    uint32_t status = decommit(context, range);
    AcquireSRWLockExclusive(&host.lock);
    set_used(range, 0);
    ReleaseSRWLockExclusive(&host.lock);
    return status;
}

static uint32_t sync_cores(void *context) {
    (void)context;
    FlushProcessWriteBuffers();
    return HM_OK;
}

/* Ends the program where a call did not return what it should have. */
static void want(hm_status wanted, hm_status got, const char *what) {
    if (wanted != got) {
        fprintf(stderr, "%s: %s\n", what, hm_status_string(got));
        exit(1);
    }
}
#define WANT(status, call) want(status, call, #call)

int main(void) {
    hm_heap *heap = NULL;
    hm_provider provider = HM_PROVIDER_INIT;
    provider.capabilities = HM_CAN_TOGGLE_EXEC | HM_CAN_KEEP_FROM_EXEC;
    provider.page_size = PAGE;
    provider.reserve = reserve;
    provider.commit = commit;
    provider.protect = protect;
    provider.decommit = decommit;
    provider.release = release;
    provider.sync_cores = sync_cores;

    host.start = VirtualAlloc(NULL, PAGES * PAGE, MEM_RESERVE, PAGE_NOACCESS);
    WANT(HM_UNSUPPORTED, hm_heap_create(NULL, &heap, NULL));
    WANT(HM_OK, hm_set_host(&provider, NULL));
    WANT(HM_EXISTS, hm_set_host(&provider, NULL));

    WANT(HM_OK, hm_heap_create(NULL, &heap, NULL));
    char *block = hm_heap_malloc(heap, 100);
    if (block == NULL || hm_heap_of(block) != heap) {
        return 1;
    }
    strcpy(block, "a block");
    WANT(HM_OK, hm_heap_free(heap, block));
    WANT(HM_UNKNOWN_POINTER, hm_heap_free(heap, block));
    WANT(HM_OK, hm_heap_close(heap, 0, NULL));

    hm_range_map *map = NULL;
    hm_range_map_config map_config = HM_RANGE_MAP_CONFIG_INIT;
    map_config.last = 0xffffffff;
    WANT(HM_OK, hm_range_map_create(&map_config, &map, NULL));
    WANT(HM_OK, hm_range_map_insert(map, 0x1000, 0x1fff, 7, NULL, NULL));
    WANT(HM_OK, hm_range_map_close(map, NULL));

    hm_jit *jit = NULL;
    hm_jit_config jit_config = HM_JIT_CONFIG_INIT;
    hm_span span;
    jit_config.mapping = HM_MAPPING_TOGGLE;
    WANT(HM_OK, hm_jit_create(&jit_config, &jit, NULL));
    WANT(HM_OK, hm_jit_alloc(jit, 64, &span, NULL));
    const unsigned char returns_42[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    WANT(HM_OK, hm_jit_write(jit, &span, 0, returns_42, sizeof returns_42, NULL));
    int (*function)(void);
    memcpy(&function, &span.rx, sizeof function);
    int answer = function();
    WANT(HM_OK, hm_jit_release(jit, &span, NULL));
    WANT(HM_OK, hm_jit_close(jit, NULL));

    hm_region *region = NULL;
    hm_region_config region_config = HM_REGION_CONFIG_INIT;
    region_config.block_signals = 1;
    WANT(HM_UNSUPPORTED, hm_region_create(&region_config, &region, NULL));
    printf("%d\n", answer);
    return 0;
}
