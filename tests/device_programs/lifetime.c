// One open of the node through all that descriptors can go through; what is left of it is the test's to see.
#include "node.h"

// The descriptor is a child's, when the parent has closed it.
static void forked(void)
{
    int fd = open_as(O_RDWR | O_CLOEXEC);
    gem_new(fd, 1 << 16);
    pid_t child = fork();
    if (!child) {
        step("shared");
        CHECK(works(fd));
        step("the child's");
        _exit(0);
    }
    close(fd);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    step("nobody's");
}

static void duplicated(void)
{
    int fd = open_as(O_RDWR);
    int copy = dup(fd), third = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    CHECK(dup2(fd, 50) == 50);
    close(fd);
    close(copy);
    close(50);
    CHECK(!works(fd) && errno == EBADF);
    CHECK(works(third));
    step("the third's");
    close(third);
    step("nobody's");
}

// Descriptors close to exec, and others.
static void executed(const char *self)
{
    char number[16];
    open_as(O_RDWR | O_CLOEXEC);
    snprintf(number, sizeof number, "%d", open_as(O_RDWR));
    step("both");
    execl(self, self, "executed-then", number, NULL);
    CHECK(0);
}

static void executed_then(const char *number)
{
    CHECK(works(atoi(number)));
    step("one");
    close(atoi(number));
    step("nobody's");
}

// It is in a message that nobody has received, whose sender has ended.
static void sent(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pid_t sender = fork();
    if (!sender) {
        int fd = open_as(O_RDWR);
        struct gem_info object = gem_new(fd, 1 << 16);
        memcpy(map_object(fd, object), &object, sizeof object);
        CHECK(write(pair[0], &object, sizeof object) == sizeof object);
        send_fd(pair[0], fd);
        _exit(0);
    }
    int status;
    CHECK(waitpid(sender, &status, 0) == sender && status == 0);
    step("under way");
    struct gem_info object;
    CHECK(read(pair[1], &object, sizeof object) == sizeof object);
    int fd = receive_fd(pair[1]);
    CHECK(memcmp(map_object(fd, object), &object, sizeof object) == 0);
    CHECK(works(fd));
    step("received");
    close(fd);
    step("a mapping's");
}

// A mapping is all that is left.
static void mapped(void)
{
    int fd = open_as(O_RDWR);
    struct gem_info object = gem_new(fd, 1 << 20);
    char *bytes = map_object(fd, object);
    memset(bytes, 0x5a, object.size);
    close(fd);
    step("a mapping's");
    for (uint64_t i = 0; i < object.size; i++)
        CHECK(bytes[i] == 0x5a);
    munmap(bytes, object.size / 2);
    bytes[object.size - 1] = 1;
    step("half a mapping's");
    munmap(bytes + object.size / 2, object.size / 2);
    step("nobody's");
}

// Closed objects stay as long as anybody has them mapped: a child too, which inherited that.
static void inherited(void)
{
    int fd = open_as(O_RDWR);
    struct gem_info object = gem_new(fd, 1 << 20), other = gem_new(fd, 1 << 16);
    char *bytes = map_object(fd, object);
    memset(bytes, 0x5a, object.size);
    map_object(fd, other);
    int closed[2];
    CHECK(pipe(closed) == 0);
    pid_t child = fork();
    if (!child) {
        char byte;
        CHECK(read(closed[0], &byte, 1) == 1);
        munmap(bytes, object.size / 2);
        step("both");
        for (uint64_t i = object.size / 2; i < object.size; i++)
            CHECK(bytes[i] == 0x5a);
        memset(bytes + object.size / 2, 0x33, object.size / 2);
        CHECK(bytes[object.size / 2] == 0x33 && bytes[object.size - 1] == 0x33);
        step("written");
        munmap(bytes + object.size / 2, object.size / 2);
        step("the other");
        _exit(0);
    }
    struct drm_handle first = {.handle = object.handle}, second = {.handle = other.handle};
    CHECK(ioctl(fd, GEM_CLOSE, &first) == 0 && ioctl(fd, GEM_CLOSE, &second) == 0);
    munmap(bytes, object.size);
    CHECK(write(closed[1], "x", 1) == 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    step("the parent's");
}

// A new open each time, and what it had is gone with it.
static void many(int times)
{
    for (int i = 0; i < times; i++) {
        int fd = open_as(O_RDWR);
        gem_new(fd, 1 << 16);
        syncobj_create(fd, 0);
        close(fd);
    }
    int last = 0;
    for (int i = 0; i < 200; i++)
        last = open_as(i % 3 == 0 ? O_RDONLY : i % 3 == 1 ? O_WRONLY : O_RDWR);
    CHECK(works(last));
    step("all");
    for (int fd = last - 199; fd <= last; fd++)
        close(fd);
    step("nobody's");
}

// All that can be killed is: while it waits, and while it calls.
static void killed(void)
{
    int fd = open_as(O_RDWR);
    uint32_t handle = syncobj_create(fd, 0);
    pid_t waits = fork();
    if (!waits) {
        wait_for(fd, handle, FOREVER);
        _exit(1);
    }
    pid_t calls = fork();
    if (!calls)
        for (;;) {
            struct gem_info object = gem_new(fd, 1 << 12);
            struct drm_handle close = {.handle = object.handle};
            ioctl(fd, GEM_CLOSE, &close);
        }
    printf("%d %d\n", waits, calls);
    step("busy");
    int status;
    CHECK(wait(&status) > 0 && WIFSIGNALED(status));
    CHECK(wait(&status) > 0 && WIFSIGNALED(status));
    CHECK(works(fd));
    close(fd);
    step("nobody's");
}

int main(int count, char **words)
{
    const char *scene = count > 1 ? words[1] : "";
    if (!strcmp(scene, "forked"))
        forked();
    else if (!strcmp(scene, "duplicated"))
        duplicated();
    else if (!strcmp(scene, "executed"))
        executed(words[0]);
    else if (!strcmp(scene, "executed-then"))
        executed_then(words[2]);
    else if (!strcmp(scene, "sent"))
        sent();
    else if (!strcmp(scene, "mapped"))
        mapped();
    else if (!strcmp(scene, "inherited"))
        inherited();
    else if (!strcmp(scene, "many"))
        many(atoi(words[2]));
    else if (!strcmp(scene, "killed"))
        killed();
    else
        CHECK(!"a scene");
    return 0;
}
