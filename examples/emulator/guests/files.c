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
    if (mkdir("folder", 0755) || chdir("folder") || !getcwd(text, sizeof text) ||
        strcmp(text, "/folder"))
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
    int both = open("both", O_RDWR | O_CREAT, 0644);
    if (both < 0 || ftruncate(both, (1ll << 32) + 8192) || fstat(both, &about) ||
        about.st_size != (1ll << 32) + 8192 || ftruncate(both, 8192))
        return 10;
    char *one = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, both, 0);
    char *two = mmap(0, 4096, PROT_READ, MAP_SHARED, both, 4096);
    if (one == MAP_FAILED || two == MAP_FAILED)
        return 11;
    one[5000] = 'x';
    if (two[904] != 'x' || msync(one, 8192, MS_SYNC) || pread(both, text, 1, 5000) != 1 ||
        text[0] != 'x' || munmap(one, 8192) || two[904] != 'x' || munmap(two, 4096))
        return 12;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    if (fcntl(both, F_SETLK, &lock) || fcntl(both, F_GETLK, &lock) || lock.l_type != F_UNLCK)
        return 13;
    if (close(both) || unlink("both"))
        return 14;
    struct timespec old[2] = {{.tv_sec = 123}, {.tv_sec = 123}};
    struct timespec new[2] = {{.tv_sec = 4}, {.tv_sec = 4}};
    if (symlink("numbers", "link") || utimensat(AT_FDCWD, "link", old, 0) ||
        utimensat(AT_FDCWD, "link", new, AT_SYMLINK_NOFOLLOW) || stat("numbers", &about) ||
        about.st_mtime != 123 || lstat("link", &about) || about.st_mtime != 4 ||
        utimensat(AT_FDCWD, "link", new, 1) == 0 || errno != EINVAL || unlink("link"))
        return 15;
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
