// Ways past an open: other paths to its descriptor, which are opens of their own, and attempts to cut the file off.
#include "node.h"
#include <signal.h>
#include <sys/stat.h>

static const uint64_t size = 1 << 16;

static int path_to(char *path, const char *format, int fd, int flags)
{
    snprintf(path, 64, format, fd);
    int other = open(path, flags);
    CHECK(other >= 0);
    return other;
}

// A sync object of one open is none of another.
static int same(int fd, int other)
{
    struct drm_handle made = {.handle = 0};
    CHECK(ioctl(fd, SYNCOBJ_CREATE, &made) == 0);
    int known = ioctl(other, SYNCOBJ_DESTROY, &made) == 0;
    if (!known)
        CHECK(errno == EINVAL && ioctl(fd, SYNCOBJ_DESTROY, &made) == 0);
    return known;
}

static void paths(int fd)
{
    char path[64];
    const char *formats[] = {"/proc/self/fd/%d", "/dev/fd/%d", "/proc/thread-self/fd/%d", "/dev/../dev/fd/%d"};
    for (unsigned i = 0; i < sizeof formats / sizeof *formats; i++) {
        int other = path_to(path, formats[i], fd, O_RDWR | O_TRUNC);
        CHECK(works(other) && !same(fd, other));
        close(other);
        CHECK(works(fd));
    }
    int copy = dup(fd);
    CHECK(same(fd, copy));
    close(copy);
    close(path_to(path, "/proc/self/fd/%d", fd, O_PATH));
    CHECK(works(fd));
}

static void cut(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(ftruncate(fd, 0) == -1 && errno == EINVAL);
    CHECK(truncate(path, 0) == -1 && errno == EINVAL);
    CHECK(truncate(RENDER_NODE, 0) == -1 && errno == EINVAL);
    CHECK(fallocate(fd, 0, 0, 4096) == -1 && errno == ENODEV);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1ul << 40) == -1 && errno == ENODEV);
    close(path_to(path, "/proc/self/fd/%d", fd, O_WRONLY | O_TRUNC | O_CREAT));
    CHECK(open(path, O_RDWR | O_CREAT | O_EXCL) == -1 && errno == EEXIST);
}

static void no_such_calls(int number)
{
    (void)number;
    _exit(77);
}

// By the calls of 32-bit programs, which nobody catches.
static long call_32(long number, long a, long b)
{
    long result;
    signal(SIGSEGV, no_such_calls);
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(int count, char **words)
{
    int fd = open_node();
    struct gem_info object = gem_new(fd, size);
    char *bytes = map_object(fd, object);
    memset(bytes, 0x31, size);
    if (count > 1 && !strcmp(words[1], "by-32-bit-calls")) {
        CHECK(call_32(93, fd, 0) == 0);
        step("cut off");
        CHECK(works(fd));
        bytes[0] = 1; // there again
        step("mended");
        return 0;
    }
    paths(fd);
    cut(fd);
    for (uint64_t i = 0; i < size; i++)
        CHECK(bytes[i] == 0x31);
    struct stat status;
    CHECK(fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_size == 0);
    return 0;
}
