// A disk that fails: counts the operations that write below one folder, and at a chosen one lets the disk be
// full (ENOSPC, from then on), fail once (EIO), or kills the process. Loaded with LD_PRELOAD, so that Python
// and its libraries meet it where they call the system.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, FULL, BROKEN_ONCE, KILL };

static char folder[PATH_MAX];
static long at, count;
static int action, below[65536];

void failing_disk_arm(const char *path, long when, int what) {
    snprintf(folder, sizeof folder, "%s", path);
    at = when, action = what, count = 0;
    memset(below, 0, sizeof below);
}

long failing_disk_count(void) { return count; }

static int inside(const char *path) {
    char whole[2 * PATH_MAX], here[PATH_MAX];
    if (!*folder || !path) return 0;
    if (*path != '/' && getcwd(here, sizeof here)) snprintf(whole, sizeof whole, "%s/%s", here, path);
    else snprintf(whole, sizeof whole, "%s", path);
    return !strncmp(whole, folder, strlen(folder));
}

static int fails(void) {
    count++;
    if (action == KILL && count == at) kill(getpid(), SIGKILL);
    if (action == FULL && count >= at) { errno = ENOSPC; return 1; }
    if (action == BROKEN_ONCE && count == at) { errno = EIO; return 1; }
    return 0;
}

// `real` looks the system's own function up; `known` is whether a file descriptor lies below the folder.
#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define known(fd) ((fd) >= 0 && (fd) < 65536 && below[fd])

#define OPEN(name, parameters, path, arguments)                                                    \
    int name parameters {                                                                          \
        REAL(name);                                                                                \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = va_arg(more, mode_t);                                                        \
        va_end(more);                                                                              \
        int writes = (flags & O_ACCMODE) != O_RDONLY && inside(path);                              \
        if (writes && (flags & (O_CREAT | O_TRUNC)) && fails()) return -1;                         \
        int fd = real arguments;                                                                   \
        if (fd >= 0 && fd < 65536) below[fd] = writes;                                             \
        return fd;                                                                                 \
    }
OPEN(open, (const char *path, int flags, ...), path, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), path, (path, flags, mode))
OPEN(openat, (int place, const char *path, int flags, ...), path, (place, path, flags, mode))
OPEN(openat64, (int place, const char *path, int flags, ...), path, (place, path, flags, mode))

#define ON_FILE(type, name, parameters, arguments)                                                 \
    type name parameters {                                                                         \
        REAL(name);                                                                                \
        if (known(fd) && fails()) return -1;                                                       \
        return real arguments;                                                                     \
    }
ON_FILE(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
ON_FILE(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t o), (fd, data, n, o))
ON_FILE(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t o), (fd, data, n, o))
ON_FILE(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
ON_FILE(int, fsync, (int fd), (fd))
ON_FILE(int, fdatasync, (int fd), (fd))
ON_FILE(int, ftruncate, (int fd, off_t n), (fd, n))
ON_FILE(int, ftruncate64, (int fd, off64_t n), (fd, n))

#define ON_PATH(name, parameters, path, arguments)                                                 \
    int name parameters {                                                                          \
        REAL(name);                                                                                \
        if (inside(path) && fails()) return -1;                                                    \
        return real arguments;                                                                     \
    }
ON_PATH(mkdir, (const char *path, mode_t mode), path, (path, mode))
ON_PATH(rename, (const char *from, const char *to), to, (from, to))
ON_PATH(renameat, (int a, const char *from, int b, const char *to), to, (a, from, b, to))
ON_PATH(renameat2, (int a, const char *from, int b, const char *to, unsigned how), to, (a, from, b, to, how))

// A full disk lets files be removed; only a kill may come between.
#define REMOVES(name, parameters, path, arguments)                                                 \
    int name parameters {                                                                          \
        REAL(name);                                                                                \
        if (action == KILL && inside(path)) fails();                                               \
        return real arguments;                                                                     \
    }
REMOVES(unlink, (const char *path), path, (path))
REMOVES(rmdir, (const char *path), path, (path))
