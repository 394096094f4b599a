// Strings that grow by a few bytes at a time, many of them side by side, and a few long ones.
#include "common.h"

enum { STRINGS = 2000 };

typedef struct {
    char *text;
    size_t len;
} String;

static void append(String *string, const char *text, size_t len) {
    string->text = must(realloc(string->text, string->len + len + 1));
    memcpy(string->text + string->len, text, len);
    string->len += len;
    string->text[string->len] = 0;
}

int main(int argc, char **argv) {
    static const char words[] = "the quick brown fox jumps over the lazy dog and runs";
    size_t steps = share(argc, argv, 12000000);
    uint64_t check = 0;
    Random random = seeded(1);
    static String strings[STRINGS];
    for (size_t n = 0; n < steps; n++) {
        String *string = &strings[below(&random, STRINGS)];
        append(string, words + below(&random, 30), 1 + below(&random, 20));
        if (string->len > 2000 && below(&random, 8) == 0) {
            char *copy = must(strdup(string->text));
            check += strlen(copy);
            free(copy);
            free(string->text);
            string->text = NULL;
            string->len = 0;
        }
    }
    for (int round = 0; round < 4; round++) {
        String lines = {0};
        while (lines.len < steps * 4)
            append(&lines, words, 40 + (size_t)round);
        check += lines.len;
        free(lines.text);
    }
    for (size_t n = 0; n < STRINGS; n++) {
        check += strings[n].len;
        free(strings[n].text);
    }
    printf("%llu\n", (unsigned long long)check);
}
