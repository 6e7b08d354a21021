/* Asks for what the device does not have: calls, parameters, capabilities, classes, files. */
#include "node.h"

struct unknown {
    uint32_t words[5];
};
struct nvif_new {
    uint8_t version, type, pad[4], owner, route;
    uint64_t token, object;
    uint8_t new_version, new_pad[6], new_route;
    uint64_t new_token, new_object;
    uint32_t handle;
    int32_t oclass;
};

static void asks(const char *what, int result)
{
    printf("%s: %s\n", what, result ? strerror(errno) : "done");
}

int main(void)
{
    int fd = open_node();
    struct unknown unknown = {{0x11111111, 2, 3, 4, 0x55555555}};
    struct getparam param = {.param = 99};
    struct drm_cap cap = {.capability = 0x77};
    struct nvif_new new = {.type = 2, .new_object = 5, .oclass = 0x1234};
    asks("unknown", ioctl(fd, _IOWR('d', 0x9e, struct unknown), &unknown));
    asks("again", ioctl(fd, _IOWR('d', 0x9e, struct unknown), &unknown));
    asks("pointer", ioctl(fd, _IOWR('d', 0x9d, struct unknown), (void *)8));
    asks("other type", ioctl(fd, _IO('b', 0x55)));
    struct syncobj_fd file = {.handle = syncobj_create(fd, 1), .flags = 1};
    MUST(ioctl(fd, SYNCOBJ_HANDLE_TO_FD, &file));
    asks("sync file", ioctl(file.fd, _IO('>', 0x77)));
    asks("display", ioctl(fd, _IOWR('d', 0xa0, struct unknown), &unknown));
    asks("param", ioctl(fd, GETPARAM, &param));
    asks("capability", ioctl(fd, GET_CAP, &cap));
    asks("class", ioctl(fd, _IOWR('d', 0x47, struct nvif_new), &new));
    asks("path", open("/dev/nvidiactl", O_RDWR) < 0);
    asks("relative path", chdir("/dev") || open("dri/renderD129", O_RDONLY) < 0);
    return 0;
}
