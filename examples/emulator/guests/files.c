/* Files: written, read, sought, listed, removed; what is not there, and what lies outside. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    char text[100];
    if (mkdir("folder", 0755) || chdir("folder") || !getcwd(text, sizeof text) || strcmp(text, "/folder"))
        return 1;
    FILE *file = fopen("numbers", "w+");
    if (!file)
        return 2;
    for (int i = 0; i < 1000; i++)
        fprintf(file, "%d\n", i);
    fseek(file, 0, SEEK_SET);
    int sum = 0, n;
    while (fscanf(file, "%d", &n) == 1)
        sum += n;
    fclose(file);
    struct stat about;
    if (sum != 499500 || stat("/folder/numbers", &about) || about.st_size != 3890)
        return 3;
    int fd = open("numbers", O_RDONLY);
    const char *mapped = mmap(0, 3890, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED || memcmp(mapped + 3886, "999\n", 4) || mapped[3890])
        return 4;
    if (rename("numbers", "others") || access("numbers", F_OK) == 0 || errno != ENOENT)
        return 5;
    DIR *folder = opendir(".");
    int seen = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        seen += !strcmp(entry->d_name, "others");
    closedir(folder);
    if (seen != 1 || unlink("others") || chdir("..") || rmdir("folder"))
        return 6;
    if (open("../../../../../../etc/passwd", O_RDONLY) >= 0 || open("/etc/passwd", O_RDONLY) >= 0)
        return 7;
    if (close(77) == 0 || errno != EBADF || read(0, (void *)0x10, 0) != 0)
        return 8;
    struct timespec before, after, pause = {.tv_nsec = 5000000};
    clock_gettime(CLOCK_MONOTONIC, &before);
    nanosleep(&pause, 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if ((after.tv_sec - before.tv_sec) * 1000000000ll + after.tv_nsec - before.tv_nsec < 5000000)
        return 9;
    printf("files work\n");
    return 0;
}
