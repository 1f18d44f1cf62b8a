/* A full disk for one server: preloaded into it, this makes its writes fail with ENOSPC wherever a
   file would become longer, while a file beside this library names a part of the files' paths. What
   is allocated can be written to, as on a real disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char flag[4096];

__attribute__((constructor)) static void find_flag(void) {
    Dl_info self;
    if (dladdr((void *)find_flag, &self)) snprintf(flag, sizeof flag, "%s.full", self.dli_fname);
}

/* Whether a file may not become longer than it is. Keeps errno. */
static int is_full(int fd, off_t end) {
    char part[256], link[64], path[4096];
    struct stat found;
    int full = 0, before = errno;
    int named = open(flag, O_RDONLY | O_CLOEXEC);
    if (named >= 0) {
        ssize_t length = read(named, part, sizeof part - 1);
        close(named);
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t path_length = readlink(link, path, sizeof path - 1);
        if (length > 0 && path_length > 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode)) {
            part[length] = path[path_length] = '\0';
            full = strstr(path, part) != NULL && (end < 0 || end > found.st_size);
        }
    }
    errno = before;
    return full;
}

static size_t total(const struct iovec *parts, int count) {
    size_t bytes = 0;
    for (int part = 0; part < count; part++) bytes += parts[part].iov_len;
    return bytes;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FULL ({ errno = ENOSPC; -1; })

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return is_full(fd, offset + count) ? FULL : REAL(pwrite)(fd, bytes, count, offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return is_full(fd, offset + count) ? FULL : REAL(pwrite64)(fd, bytes, count, offset);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return is_full(fd, offset + total(parts, count)) ? FULL : REAL(pwritev)(fd, parts, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return is_full(fd, offset + total(parts, count)) ? FULL : REAL(pwritev64)(fd, parts, count, offset);
}
ssize_t write(int fd, const void *bytes, size_t count) {
    off_t offset = lseek(fd, 0, SEEK_CUR);
    return offset >= 0 && is_full(fd, offset + count) ? FULL : REAL(write)(fd, bytes, count);
}
int posix_fallocate(int fd, off_t offset, off_t count) {
    return is_full(fd, offset + count) ? ENOSPC : REAL(posix_fallocate)(fd, offset, count);
}
int posix_fallocate64(int fd, off64_t offset, off64_t count) {
    return is_full(fd, offset + count) ? ENOSPC : REAL(posix_fallocate64)(fd, offset, count);
}
