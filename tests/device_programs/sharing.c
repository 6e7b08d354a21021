// What two processes share by descriptors: memory, sync objects, fences; and an end of descriptors.
#include "node.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

static int pair[2];

// Forks; each side has its own end of the pair in `pair[0]`.
static pid_t split(void)
{
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child)
        pair[0] = pair[1];
    return child;
}

static void meet(char says)
{
    char other;
    CHECK(write(pair[0], &says, 1) == 1 && read(pair[0], &other, 1) == 1 && other == says);
}

static void end_of(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static uint32_t import_object(int fd, int dma_buf)
{
    struct drm_prime in = {.fd = dma_buf};
    CHECK(ioctl(fd, PRIME_FD_TO_HANDLE, &in) == 0);
    return in.handle;
}

// The importer has the bytes, and keeps them when the exporter is gone.
static void prime(void)
{
    pid_t child = split();
    int fd = open_as(O_RDWR);
    if (!child) {
        struct gem_info object = gem_new(fd, 1 << 16);
        strcpy(map_object(fd, object), "from the exporter");
        int dma_buf = export_object(fd, object.handle);
        CHECK(import_object(fd, dma_buf) == object.handle);
        CHECK(fcntl(dma_buf, F_GETFD) == FD_CLOEXEC);
        send_fd(pair[0], dma_buf);
        _exit(0);
    }
    int dma_buf = receive_fd(pair[0]);
    end_of(child);
    step("a buffer's");
    uint32_t handle = import_object(fd, dma_buf);
    CHECK(import_object(fd, dma_buf) == handle);
    struct gem_info info = {.handle = handle};
    CHECK(ioctl(fd, GEM_INFO, &info) == 0 && info.size == 1 << 16);
    char *bytes = map_object(fd, info);
    CHECK(!strcmp(bytes, "from the exporter"));
    close(dma_buf);
    struct drm_handle close_it = {.handle = handle};
    CHECK(ioctl(fd, GEM_CLOSE, &close_it) == 0);
    CHECK(ioctl(fd, GEM_INFO, &info) == -1 && errno == ENOENT);
    step("a mapping's");
}

// One signals what the other waits for.
static void syncobj(void)
{
    pid_t child = split();
    int fd = open_as(O_RDWR);
    if (!child) {
        uint32_t handle = syncobj_create(fd, 0);
        struct syncobj_fd out = {.handle = handle};
        CHECK(ioctl(fd, SYNCOBJ_HANDLE_TO_FD, &out) == 0);
        CHECK(fcntl(out.fd, F_GETFD) == FD_CLOEXEC);
        send_fd(pair[0], out.fd);
        close(out.fd);
        CHECK(wait_for(fd, handle, 0) == -1 && errno == ETIME);
        meet('1');
        CHECK(wait_for(fd, handle, FOREVER) == 0);
        _exit(0);
    }
    struct syncobj_fd in = {.fd = receive_fd(pair[0])};
    CHECK(ioctl(fd, SYNCOBJ_FD_TO_HANDLE, &in) == 0);
    meet('1');
    struct drm_syncobj_array signal = {.handles = (uintptr_t)&in.handle, .count = 1};
    CHECK(ioctl(fd, SYNCOBJ_SIGNAL, &signal) == 0);
    end_of(child);
    // What is no descriptor, or of something else.
    int wrong[] = {-1, 999, 0, fd, INT32_MAX, INT32_MIN};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct syncobj_fd bad = {.fd = wrong[i]};
        CHECK(ioctl(fd, SYNCOBJ_FD_TO_HANDLE, &bad) == -1 && errno == EINVAL);
        struct drm_prime none = {.fd = wrong[i]};
        int expected = fcntl(wrong[i], F_GETFD) < 0 ? EBADF : EINVAL;
        CHECK(ioctl(fd, PRIME_FD_TO_HANDLE, &none) == -1 && errno == expected);
    }
}

struct merge { char name[32]; int32_t fd2, fence; uint32_t flags, pad; };
struct file_info { char name[32]; int32_t status; uint32_t flags, num_fences, pad; uint64_t infos; };
struct sw_fence { uint32_t value; char name[32]; int32_t fence; };
struct eventfd_call { uint32_t handle, flags; uint64_t point; int32_t fd; uint32_t pad; };
#define MERGE _IOWR('>', 3, struct merge)
#define FILE_INFO _IOWR('>', 4, struct file_info)
#define CREATE_FENCE _IOWR('W', 0, struct sw_fence)
#define INC _IOW('W', 1, uint32_t)
#define EVENTFD _IOWR('d', 0xcf, struct eventfd_call)

static int is_ready(int fd)
{
    struct pollfd one = {fd, POLLIN, 0};
    return poll(&one, 1, 0);
}

static int sw_fence(int timeline, uint32_t value)
{
    struct sw_fence made = {.value = value};
    CHECK(ioctl(timeline, CREATE_FENCE, &made) == 0);
    return made.fence;
}

// Sync files of a sw_sync timeline, merged, polled, imported; an eventfd that is told.
static void fences(void)
{
    int fd = open_as(O_RDWR), timeline = open("/sys/kernel/debug/sync/sw_sync", O_RDWR);
    CHECK(timeline >= 0);
    int first = sw_fence(timeline, 1), second = sw_fence(timeline, 2);
    struct merge both = {.name = "both", .fd2 = second};
    CHECK(ioctl(first, MERGE, &both) == 0);
    struct file_info info = {0};
    CHECK(ioctl(both.fence, FILE_INFO, &info) == 0 && info.status == 0 && !strcmp(info.name, "both"));
    struct syncobj_fd in = {.handle = syncobj_create(fd, 0), .flags = 1, .fd = both.fence};
    CHECK(ioctl(fd, SYNCOBJ_FD_TO_HANDLE, &in) == 0);
    int told = eventfd(0, EFD_NONBLOCK);
    struct eventfd_call tell = {.handle = in.handle, .fd = told};
    CHECK(ioctl(fd, EVENTFD, &tell) == 0);
    uint32_t one = 1;
    CHECK(ioctl(timeline, INC, &one) == 0);
    CHECK(is_ready(first) && !is_ready(second) && !is_ready(both.fence) && !is_ready(told));
    CHECK(wait_for(fd, in.handle, 0) == -1 && errno == ETIME);
    pid_t child = fork();
    if (!child) {
        CHECK(ioctl(timeline, INC, &one) == 0);
        _exit(0);
    }
    CHECK(wait_for(fd, in.handle, FOREVER) == 0);
    end_of(child);
    CHECK(is_ready(second) && is_ready(both.fence) && is_ready(told));
    int late = sw_fence(timeline, 3);
    close(timeline);
    step("the timeline's end");
    struct pollfd soon = {late, POLLIN, 0}; // the last close is seen a moment later
    CHECK(poll(&soon, 1, -1) == 1);
    CHECK(ioctl(late, FILE_INFO, &(struct file_info){0}) == 0);
    CHECK(ioctl(late, MERGE, 8) == -1 && errno == EFAULT);
    CHECK(ioctl(late, _IO('>', 9), 0) == -1 && errno == ENOTTY);
    tell.fd = timeline;
    CHECK(ioctl(fd, EVENTFD, &tell) == -1 && errno == EBADF);
    tell.fd = late;
    CHECK(ioctl(fd, EVENTFD, &tell) == -1 && errno == EINVAL);
}

// Where no descriptor is left every call that makes one says so, and nothing is left of it.
static void exhausted(void)
{
    int fd = open_as(O_RDWR);
    uint32_t handle = syncobj_create(fd, 1);
    struct gem_info object = gem_new(fd, 1 << 12);
    struct rlimit few = {.rlim_cur = fd + 1, .rlim_max = fd + 1};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    for (int i = 0; i < 100; i++) {
        CHECK(open(RENDER_NODE, O_RDWR) == -1 && errno == EMFILE);
        struct drm_prime prime = {.handle = object.handle};
        CHECK(ioctl(fd, PRIME_HANDLE_TO_FD, &prime) == -1 && errno == EMFILE);
        struct syncobj_fd out = {.handle = handle};
        CHECK(ioctl(fd, SYNCOBJ_HANDLE_TO_FD, &out) == -1 && errno == EMFILE);
        out.flags = 1;
        CHECK(ioctl(fd, SYNCOBJ_HANDLE_TO_FD, &out) == -1 && errno == EMFILE);
    }
    step("one");
}

// The same of the other side.
static void exhausted_there(void)
{
    int fd = open_as(O_RDWR), out = export_object(fd, gem_new(fd, 1 << 12).handle);
    uint32_t handle = syncobj_create(fd, 1);
    step("before");
    CHECK(open(RENDER_NODE, O_RDWR) == -1 && errno == ENFILE);
    struct drm_prime in = {.fd = out};
    CHECK(ioctl(fd, PRIME_FD_TO_HANDLE, &in) == -1 && errno == ENFILE);
    struct syncobj_fd file = {.handle = handle};
    CHECK(ioctl(fd, SYNCOBJ_HANDLE_TO_FD, &file) == -1 && (errno == EMFILE || errno == ENFILE));
    CHECK(works(fd));
    step("short");
    CHECK(ioctl(fd, PRIME_FD_TO_HANDLE, &in) == 0);
    CHECK(open(RENDER_NODE, O_RDWR) >= 0);
    step("after");
}

int main(int count, char **words)
{
    const char *scene = count > 1 ? words[1] : "";
    if (!strcmp(scene, "prime"))
        prime();
    else if (!strcmp(scene, "syncobj"))
        syncobj();
    else if (!strcmp(scene, "fences"))
        fences();
    else if (!strcmp(scene, "exhausted"))
        exhausted();
    else if (!strcmp(scene, "exhausted-there"))
        exhausted_there();
    else
        CHECK(!"a scene");
    return 0;
}
