/* A range map of a guest's mappings, asked in a SIGSEGV handler: the fault is the guest's, and
 * something is to be done about it, or it is the program's own.
 *
 *   cc guest_faults.c $(pkg-config --cflags --libs hostmem) -o guest_faults && ./guest_faults
 */
#define _GNU_SOURCE
#include <hostmem.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the guest has mapped where: an index in a table of mappings. */
static hm_range_map *guest;

struct mapping {
    const char *name;
    volatile sig_atomic_t faults;
    int writable_later;
};

static struct mapping mappings[] = {
    {"code", 0, 0},
    {"stack, which grows", 0, 1},
};

static sigjmp_buf out;
static size_t page;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    hm_mapped_range found;
    if (hm_range_map_query(guest, address, &found) != HM_OK) {
        /* Not the guest's: the program is wrong, and ends. */
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    struct mapping *mapping = &mappings[found.value];
    mapping->faults++;
    if (mapping->writable_later) {
        /* Goes on, and the access is made again. */
        void *start = (void *)(address / page * page);
        mprotect(start, page, PROT_READ | PROT_WRITE);
        return;
    }
    /* The guest gets a signal of its own. */
    siglongjmp(out, 1);
}

int main(void) {
    page = (size_t)sysconf(_SC_PAGESIZE);
    hm_error error = HM_ERROR_INIT;
    hm_range_map_config config = HM_RANGE_MAP_CONFIG_INIT;
    config.last = ((uintptr_t)1 << 47) - 1;
    if (hm_range_map_create(&config, &guest, &error) != HM_OK) {
        fprintf(stderr, "no map: %s\n", error.message);
        return 1;
    }
    char *memory = mmap(NULL, 64 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return 1;
    }
    uintptr_t start = (uintptr_t)memory;
    uintptr_t middle = start + 32 * page, end = start + 64 * page;
    if (hm_range_map_insert_new(guest, start, middle - 1, 0, &error) != HM_OK ||
        hm_range_map_insert_new(guest, middle, end - 1, 1, &error) != HM_OK) {
        fprintf(stderr, "not mapped: %s\n", error.message);
        return 1;
    }
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);

    *(volatile char *)(memory + 40 * page) = 1;
    if (sigsetjmp(out, 1) == 0) {
        *(volatile char *)memory = 1;
        return 1;
    }
    for (size_t n = 0; n < sizeof mappings / sizeof *mappings; n++) {
        printf("%s: %d fault\n", mappings[n].name, (int)mappings[n].faults);
    }
    hm_range_map_close(guest, NULL);
    munmap(memory, 64 * page);
    return 0;
}
