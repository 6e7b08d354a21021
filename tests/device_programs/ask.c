/* Opens the render node, asks it what it is, writes to an object of its own, and leaves. */
#include "nouveau.h"
#include <sys/stat.h>
#include <sys/sysmacros.h>

int main(void)
{
    int fd = open_node();
    struct stat st;
    MUST(fstat(fd, &st));
    printf("%s %u:%u\n", S_ISCHR(st.st_mode) ? "character device" : "file", major(st.st_rdev), minor(st.st_rdev));

    char name[32] = "";
    struct drm_version version = {.name_len = sizeof name - 1, .name = (uintptr_t)name};
    MUST(ioctl(fd, VERSION, &version));
    printf("%s %d.%d.%d\n", name, version.major, version.minor, version.patch);

    struct getparam chipset = {.param = 11};
    MUST(ioctl(fd, GETPARAM, &chipset));
    printf("chipset %#llx\n", (unsigned long long)chipset.value);

    struct getparam vram = {.param = 8};
    MUST(ioctl(fd, GETPARAM, &vram));
    printf("vram %#llx\n", (unsigned long long)vram.value);

    struct gem_info info = gem_new(fd, 65536);
    char *bytes = map_object(fd, info);
    memset(bytes, 7, info.size);
    printf("byte %d\n", bytes[65535]);
    MUST(munmap(bytes, info.size));
    struct drm_handle handle = {.handle = info.handle};
    MUST(ioctl(fd, GEM_CLOSE, &handle));
    return (int)MUST(close(fd));
}
