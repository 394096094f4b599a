// Frees what is not allocated, in the way that the argument says.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void (*volatile release)(void *) = free;

int main(int argc, char **argv) {
    static char other[64];
    const char *way = argc > 1 ? argv[1] : "";
    char *block = malloc(100);
    if (strcmp(way, "twice") == 0) {
        release(block);
        release(block);
    } else if (strcmp(way, "inside") == 0) {
        release(block + 16);
    } else if (strcmp(way, "other") == 0) {
        release(other);
    } else if (strcmp(way, "resized") == 0) {
        release(block);
        block = realloc(block, 1000);
    }
    puts("went on");
}
