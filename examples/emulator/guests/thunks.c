/* Calls functions of the host: blocks of its low heap, checksums, packing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THUNK(number, type, name, ...)                                                             \
    __attribute__((naked, noinline)) static type name(__VA_ARGS__) {                               \
        __asm__(".insn i 0x0b, 0, x0, x0, " #number "\n ret");                                     \
    }

THUNK(0, void *, host_alloc, size_t len)
THUNK(1, int, host_free, void *block)
THUNK(2, uint32_t, host_crc32, uint32_t seed, const void *bytes, size_t len)
THUNK(3, void *, host_deflate, const void *bytes, size_t len, size_t *out_len)
THUNK(4, void *, host_inflate, const void *bytes, size_t len, size_t *out_len)
THUNK(5, int, host_owns, const void *addr)

/* Blocks go back to where they came from. */
static int any_free(void *block) {
    if (host_owns(block))
        return host_free(block);
    free(block);
    return 0;
}

int main(void) {
    if (host_crc32(0, "123456789", 9) != 0xcbf43926)
        return 1;
    enum { LEN = 1 << 20 };
    unsigned char *text = malloc(LEN);
    for (int i = 0; i < LEN; i++)
        text[i] = "hostmem, "[i % 9];
    size_t packed_len = 0, len = 0;
    unsigned char *packed = host_deflate(text, LEN, &packed_len);
    if (!packed || packed_len == 0 || packed_len > LEN / 50 || !host_owns(packed))
        return 2;
    unsigned char *plain = host_inflate(packed, packed_len, &len);
    if (!plain || len != LEN || memcmp(plain, text, LEN))
        return 3;
    packed[2] ^= 0xff;
    unsigned char *wrong = host_inflate(packed, packed_len, &len);
    if (any_free(wrong) || any_free(plain) || any_free(packed) || any_free(text))
        return 4;
    if (host_free(packed) == 0 || host_free(&len) == 0 || host_owns(&len))
        return 5;
    void *blocks[100];
    for (int i = 0; i < 100; i++) {
        blocks[i] = host_alloc(i * 1000);
        if (!blocks[i])
            return 6;
        memset(blocks[i], i, i * 1000);
    }
    for (int i = 0; i < 100; i++) {
        if (i && *((unsigned char *)blocks[i] + i * 1000 - 1) != i)
            return 7;
        if (host_free(blocks[i]))
            return 8;
    }
    printf("packed %u bytes into fewer than %u\n", LEN, LEN / 50);
    return 0;
}
