// Arithmetic with big numbers, each of them a block: a continued fraction of a square root, whose terms
// grow, are added, multiplied by small numbers, and given up.
#include "common.h"

typedef struct {
    uint32_t len;
    uint32_t digits[];
} Number;

static Number *number(uint32_t len) {
    Number *n = must(malloc(sizeof *n + len * sizeof n->digits[0]));
    n->len = len;
    return n;
}

static Number *small(uint32_t value) {
    Number *n = number(1);
    n->digits[0] = value;
    return n;
}

// Returns `a` times `by`, and `b` added to it.
static Number *times_plus(const Number *a, uint32_t by, const Number *b) {
    uint32_t most = (a->len > b->len ? a->len : b->len) + 1;
    Number *sum = number(most);
    uint64_t carry = 0;
    for (uint32_t n = 0; n < most; n++) {
        carry += (n < a->len ? (uint64_t)a->digits[n] * by : 0) + (n < b->len ? b->digits[n] : 0);
        sum->digits[n] = (uint32_t)carry;
        carry >>= 32;
    }
    while (sum->len > 1 && sum->digits[sum->len - 1] == 0)
        sum->len--;
    return sum;
}

int main(int argc, char **argv) {
    size_t rounds = share(argc, argv, 60000);
    uint64_t check = 0;
    for (size_t round = 0; round < rounds; round++) {
        uint32_t square = (uint32_t)(round * 7 + 2), root = 1;
        while ((uint64_t)(root + 1) * (root + 1) <= square)
            root++;
        if (root * root == square)
            continue;
        uint32_t m = 0, d = 1, a = root;
        Number *before = small(1), *now = small(a), *under_before = small(0), *under = small(1);
        for (int term = 0; term < 100; term++) {
            m = d * a - m;
            d = (square - m * m) / d;
            a = (root + m) / d;
            Number *next_now = times_plus(now, a, before);
            Number *next_under = times_plus(under, a, under_before);
            free(before);
            free(under_before);
            before = now;
            under_before = under;
            now = next_now;
            under = next_under;
        }
        check += now->digits[0] ^ under->digits[under->len - 1];
        free(before);
        free(now);
        free(under_before);
        free(under);
    }
    printf("%llu\n", (unsigned long long)check);
}
