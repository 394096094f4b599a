/* What C libraries ask of a system beside the usual: which descriptor comes next, whose files are,
 * how many there may be, how large the file system is, and which stack a handler runs on. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static volatile int failed;

static void handler(int signal) {
    stack_t now, other = {.ss_flags = SS_DISABLE};
    if (sigaltstack(0, &now) || now.ss_flags != SS_ONSTACK)
        failed = 1;
    if (sigaltstack(&other, 0) != -1 || errno != EPERM)
        failed = 2;
}

int main(void) {
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536}, now;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&stack, 0) || sigaction(SIGUSR1, &action, 0) || raise(SIGUSR1) || failed)
        return 1 + failed;
    if (sigaltstack(0, &now) || now.ss_flags)
        return 4;

    /* The lowest number that is free, whatever it was. */
    int first = dup(0);
    if (close(0) || read(0, &now, 1) != -1 || errno != EBADF || dup(first) != 0)
        return 5;
    int out = dup(1);
    if (close(1) || dup(out) != 1 || write(1, "written\n", 8) != 8)
        return 6;

    struct stat about;
    int fd = open("own", O_RDWR | O_CREAT, 0600);
    if (fd < 0 || fstat(fd, &about) || about.st_uid != geteuid() || about.st_gid != getegid())
        return 7;
    if (stat("own", &about) || about.st_uid != geteuid() || unlink("own"))
        return 8;

    struct statvfs system;
    if (fstatvfs(fd, &system) || system.f_bsize == 0 || system.f_bfree > system.f_blocks ||
        system.f_namemax < 14 || statvfs("/", &system) || system.f_namemax < 14)
        return 9;
    if (statvfs("/none", &system) != -1 || errno != ENOENT)
        return 10;

    struct rlimit limit, fewer = {.rlim_cur = fd + 2, .rlim_max = fd + 20};
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur < 100)
        return 11;
    if (setrlimit(RLIMIT_NOFILE, &fewer) || dup(0) != fd + 1 || dup(0) != -1 || errno != EMFILE)
        return 12;
    int pair[2];
    if (pipe(pair) != -1 || errno != EMFILE || fcntl(0, F_DUPFD, 0) != -1 || errno != EMFILE)
        return 13;
    fewer.rlim_cur = fd + 20;
    if (setrlimit(RLIMIT_NOFILE, &fewer) || pipe(pair) || pair[0] != fd + 2 || pair[1] != fd + 3)
        return 14;
    if (setrlimit(RLIMIT_NOFILE, &limit) != -1 || errno != EPERM)
        return 15;
    /* What is not kept is not promised. */
    if (getrlimit(RLIMIT_AS, &limit) || setrlimit(RLIMIT_AS, &limit))
        return 16;
    limit.rlim_cur = 1 << 20;
    if (setrlimit(RLIMIT_AS, &limit) != -1 || errno != EPERM)
        return 17;
    printf("limits hold\n");
    return 0;
}
