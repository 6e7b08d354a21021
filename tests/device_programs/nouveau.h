/* The calls of the uAPI that the programs here make, by structures of our own, and what makes them short. */
#ifndef NOUVEAU_H
#define NOUVEAU_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct drm_version {
    int major, minor, patch;
    uint64_t name_len, name, date_len, date, desc_len, desc;
};
struct drm_handle {
    uint32_t handle, flags; /* or padding */
};
struct drm_cap {
    uint64_t capability, value;
};
struct drm_prime {
    uint32_t handle, flags;
    int32_t fd;
};
struct drm_syncobj_wait {
    uint64_t handles;
    int64_t timeout;
    uint32_t count, flags, first, pad;
    uint64_t deadline;
};
struct drm_syncobj_array {
    uint64_t handles;
    uint32_t count, pad;
};
struct getparam {
    uint64_t param, value;
};
struct channel_alloc {
    uint32_t fb, tt;
    int32_t channel;
    uint32_t domains, notifier, subchan[16], nr_subchan;
};
struct vm_init {
    uint64_t addr, size;
};
struct sync {
    uint32_t flags, handle;
    uint64_t value;
};
struct bind_op {
    uint32_t op, flags, handle, pad;
    uint64_t addr, offset, range;
};
struct vm_bind {
    uint32_t ops, flags, waits, signals;
    uint64_t wait_ptr, signal_ptr, op_ptr;
};
struct push {
    uint64_t va;
    uint32_t len, flags;
};
struct exec {
    uint32_t channel, pushes, waits, signals;
    uint64_t wait_ptr, signal_ptr, push_ptr;
};
struct gem_info {
    uint32_t handle, domain;
    uint64_t size, offset, map_handle;
    uint32_t tile_mode, tile_flags;
};
struct gem_new {
    struct gem_info info;
    uint32_t channel_hint, align;
};

#define VERSION _IOWR('d', 0x00, struct drm_version)
#define GEM_CLOSE _IOW('d', 0x09, struct drm_handle)
#define GET_CAP _IOWR('d', 0x0c, struct drm_cap)
#define PRIME_HANDLE_TO_FD _IOWR('d', 0x2d, struct drm_prime)
#define PRIME_FD_TO_HANDLE _IOWR('d', 0x2e, struct drm_prime)
#define SYNCOBJ_CREATE _IOWR('d', 0xbf, struct drm_handle)
#define SYNCOBJ_DESTROY _IOWR('d', 0xc0, struct drm_handle)
#define SYNCOBJ_WAIT _IOWR('d', 0xc3, struct drm_syncobj_wait)
#define SYNCOBJ_SIGNAL _IOWR('d', 0xc5, struct drm_syncobj_array)
#define GETPARAM _IOWR('d', 0x40, struct getparam)
#define CHANNEL_ALLOC _IOWR('d', 0x42, struct channel_alloc)
#define VM_INIT _IOWR('d', 0x50, struct vm_init)
#define VM_BIND _IOWR('d', 0x51, struct vm_bind)
#define EXEC _IOWR('d', 0x52, struct exec)
#define GEM_NEW _IOWR('d', 0x80, struct gem_new)

#define GART 4
#define FOREVER INT64_MAX
#define RENDER_NODE "/dev/dri/renderD128"

/* Ends the program if a call fails that must not. */
#define MUST(call) must((call), #call, __LINE__)
static inline long must(long result, const char *what, int line)
{
    if (result < 0) {
        fprintf(stderr, "line %d: %s: %s\n", line, what, strerror(errno));
        exit(1);
    }
    return result;
}

static inline int open_node(void)
{
    return (int)MUST(open(RENDER_NODE, O_RDWR | O_CLOEXEC));
}

static inline void vm_init(int fd)
{
    struct vm_init init = {.addr = 1ull << 46, .size = 1ull << 46};
    MUST(ioctl(fd, VM_INIT, &init));
}

static inline struct gem_info gem_new(int fd, uint64_t size)
{
    struct gem_new new = {.info = {.domain = GART, .size = size}};
    MUST(ioctl(fd, GEM_NEW, &new));
    return new.info;
}

static inline void *map_object(int fd, struct gem_info info)
{
    void *bytes = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)info.map_handle);
    MUST(bytes == MAP_FAILED ? -1 : 0);
    return bytes;
}

static inline void bind_object(int fd, uint64_t addr, struct gem_info info)
{
    struct bind_op op = {.handle = info.handle, .addr = addr, .range = info.size};
    struct vm_bind bind = {.ops = 1, .op_ptr = (uintptr_t)&op};
    MUST(ioctl(fd, VM_BIND, &bind));
}

static inline uint32_t syncobj_create(int fd, uint32_t flags)
{
    struct drm_handle syncobj = {.flags = flags};
    MUST(ioctl(fd, SYNCOBJ_CREATE, &syncobj));
    return syncobj.handle;
}

static inline int syncobj_wait(int fd, uint32_t handle, int64_t timeout)
{
    struct drm_syncobj_wait wait = {.handles = (uintptr_t)&handle, .timeout = timeout, .count = 1};
    return ioctl(fd, SYNCOBJ_WAIT, &wait);
}

#endif
