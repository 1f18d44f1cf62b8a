/* A clock that can be set, for one server: preloaded into it, this makes its clock differ from the
   machine's by the seconds in a file beside this library, if there is one. Only the time of day is
   changed: waits are measured with another clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char file[4096];

__attribute__((constructor)) static void find_file(void) {
    Dl_info self;
    if (dladdr((void *)find_file, &self)) snprintf(file, sizeof file, "%s.seconds", self.dli_fname);
}

/* The seconds by which the clock is ahead. Keeps errno. */
static long ahead(void) {
    char digits[32];
    long seconds = 0;
    int before = errno;
    int named = open(file, O_RDONLY | O_CLOEXEC);
    if (named >= 0) {
        ssize_t length = read(named, digits, sizeof digits - 1);
        close(named);
        digits[length > 0 ? length : 0] = '\0';
        seconds = strtol(digits, NULL, 10);
    }
    errno = before;
    return seconds;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    now->tv_sec += ahead();
    return result;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += ahead();
    return result;
}
time_t time(time_t *into) {
    time_t now = REAL(time)(NULL) + ahead();
    if (into) *into = now;
    return now;
}
