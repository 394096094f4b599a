/* A translator's code buffer: blocks are put one behind the other, and when it is full all of them
 * are thrown away.
 *
 *   cc code_range.c $(pkg-config --cflags --libs hostmem) -o code_range && ./code_range
 */
#include <hostmem.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
/* lea eax, [rdi + n]; ret */
#define BLOCK(n) {0x8d, 0x47, (unsigned char)(n), 0xc3}
#elif defined(__aarch64__)
/* add w0, w0, #n; ret */
#define BLOCK(n) {0x00, (unsigned char)((n) << 2), 0x00, 0x11, 0xc0, 0x03, 0x5f, 0xd6}
#else
#error "this example has no code for this CPU"
#endif

struct buffer {
    hm_code *code;
    hm_code_info info;
    size_t used, flushes;
};

/* Puts a block into the buffer; returns where it runs, or null. */
static void *emit(struct buffer *to, const unsigned char *block, size_t len) {
    if (to->used + len > to->info.len) {
        /* All threads have left the code of before: the translator has seen to that. */
        if (hm_code_recycle(to->code, NULL) != HM_OK) {
            return NULL;
        }
        to->used = 0;
        to->flushes++;
    }
    void *rw;
    if (hm_code_begin_write(to->code, to->used, len, &rw, NULL) != HM_OK) {
        return NULL;
    }
    memcpy(rw, block, len); /* An assembler would write here. */
    if (hm_code_end_write(to->code, to->used, len, NULL) != HM_OK ||
        hm_code_publish(to->code, to->used, len, HM_BARRIER_NOW, NULL) != HM_OK) {
        return NULL;
    }
    void *runs = (char *)to->info.rx + to->used;
    to->used += (len + 15) & ~(size_t)15;
    return runs;
}

int main(void) {
    hm_error error = HM_ERROR_INIT;
    hm_code_config config = HM_CODE_CONFIG_INIT;
    config.len = 1 << 20;
    config.guard = 4096; /* A jump that runs off either end faults. */
    config.mapping = HM_MAPPING_AUTO;
    struct buffer buffer = {NULL, HM_CODE_INFO_INIT, 0, 0};
    if (hm_code_create(&config, &buffer.code, &error) != HM_OK ||
        hm_code_get_info(buffer.code, &buffer.info, &error) != HM_OK) {
        fprintf(stderr, "no code buffer: %s\n", error.message);
        return 1;
    }
    int sum = 0;
    for (int n = 0; n < 200000; n++) {
        const unsigned char block[] = BLOCK(n % 50);
        void *code = emit(&buffer, block, sizeof block);
        int (*function)(int);
        memcpy(&function, &code, sizeof function);
        if (code == NULL || function(n) != n + n % 50) {
            fprintf(stderr, "block %d is not right\n", n);
            return 1;
        }
        sum += function(1) - 1;
    }
    printf("200000 blocks in a buffer of 1 MiB, %zu times thrown away; they add up to %d\n",
           buffer.flushes, sum);
    size_t offset;
    if (hm_code_offset(buffer.code, (char *)buffer.info.rx + 100, &offset) == HM_OK) {
        printf("a pc inside has the offset %zu\n", offset);
    }
    hm_code_close(buffer.code, NULL);
    return 0;
}
