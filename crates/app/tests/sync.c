/* Makes a store's syncs slow, or fail. Preloaded into a process:
 *   SYNC_MIN_US=n      each takes at least so many microseconds;
 *   SYNC_FAILS=path    each fails as a failing disk does while this file exists. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int sync_with(long number, int fd) {
    const char *fails = getenv("SYNC_FAILS"), *min = getenv("SYNC_MIN_US");
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    int result = (int)syscall(number, fd);
    if (min) {
        long ns = end.tv_nsec + atol(min) % 1000000 * 1000;
        end.tv_sec += atol(min) / 1000000 + ns / 1000000000;
        end.tv_nsec = ns % 1000000000;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {}
    }
    if (fails && access(fails, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return result;
}

int fsync(int fd) { return sync_with(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }
