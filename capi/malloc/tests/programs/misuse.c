// Frees what is not allocated, in the way that the argument says.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void (*volatile release)(void *) = free;

int main(int argc, char **argv) {
    static char other[64];
    const char *way = argc > 1 ? argv[1] : "";
    // The next file that is opened gets the number of standard error, if that is closed.
    if (argc > 2 && open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600) != STDERR_FILENO)
        return 2;
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
    } else if (strcmp(way, "nowhere") == 0) {
        close(STDERR_FILENO);
        release(other);
    }
    puts("went on");
}
