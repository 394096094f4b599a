/* What the tests of executable memory share. */
#ifndef JIT_H
#define JIT_H

#include "check.h"

static inline hm_jit *make(const hm_jit_config *config) {
    hm_jit *jit = NULL;
    OK(hm_jit_create(config, &jit, NULL));
    return jit;
}

/* Makes a function that returns a number. */
static inline hm_span function(hm_jit *jit, uint32_t number) {
    unsigned char code[ANSWER_MOST];
    size_t len = answer(code, number);
    hm_span span;
    OK(hm_jit_alloc(jit, len, &span, NULL));
    OK(hm_jit_write(jit, &span, 0, code, len, NULL));
    CHECK(run(span.rx) == number);
    return span;
}

#endif
