/* What the tests share: checks that end the program, and code for this CPU. */
#ifndef CHECK_H
#define CHECK_H

#include <hostmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Asserts what a call returns, and says what its error was. */
#define STATUS(expected, call)                                                                     \
    do {                                                                                           \
        hm_status got_ = (call);                                                                   \
        if (got_ != (expected)) {                                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, hm_status_string(got_)); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define OK(call) STATUS(HM_OK, call)

/* Whether the program runs under qemu-user, which takes some advice for done (MADV_DONTFORK,
 * MADV_REMOVE), and has other numbers for some errors. */
#ifndef EMULATED
#define EMULATED 0
#endif

typedef uint32_t (*answer_fn)(void);

#define ANSWER_MOST 8

/* Writes a function that returns a number below 65536; returns its length. */
static inline size_t answer(unsigned char *to, uint32_t number) {
#if defined(__x86_64__)
    const unsigned char code[6] = {0xb8, (unsigned char)number, (unsigned char)(number >> 8), 0, 0,
                                   0xc3};
    memcpy(to, code, sizeof code);
    return sizeof code;
#elif defined(__aarch64__)
    const uint32_t code[2] = {0x52800000u | number << 5, 0xd65f03c0u};
    memcpy(to, code, sizeof code);
    return sizeof code;
#else
#error "code for this CPU is to be added"
#endif
}

/* Calls the code at an address. */
static inline uint32_t run(const void *code) {
    answer_fn function;
    memcpy(&function, &code, sizeof function);
    return function();
}

#endif
