/* A program with something of everything that a trace has a table for: two clients that share an object and a
 * sync object, mappings that are cut, a sparse region, more VRAM than a device of 8 MiB has, an asynchronous bind
 * that waits for a copy, a refused call, and an EXEC that copies from where nothing is. */
#include "nouveau.h"

#define VRAM 2
#define SPARSE 0x100
#define UNMAP 1
#define RUN_ASYNC 1
#define COPY_SIZE 65536u
#define MIB 1048576ull

#define PUSHES 0x100000000ull
#define TILES 0x200000000ull
#define TARGET 0x300000000ull
#define REGION 0x400000000ull
#define NOWHERE 0x700000000ull

#define SYNCOBJ_HANDLE_TO_FD _IOWR('d', 0xc1, struct syncobj_file)
#define SYNCOBJ_FD_TO_HANDLE _IOWR('d', 0xc2, struct syncobj_file)
struct syncobj_file {
    uint32_t handle, flags;
    int32_t fd;
    uint32_t pad;
    uint64_t point;
};

static int bind(int fd, struct bind_op op)
{
    struct vm_bind bind = {.ops = 1, .op_ptr = (uintptr_t)&op};
    return ioctl(fd, VM_BIND, &bind);
}

static struct gem_info new_in_vram(int fd, uint64_t size)
{
    struct gem_new new = {.info = {.domain = VRAM, .size = size}};
    MUST(ioctl(fd, GEM_NEW, &new));
    return new.info;
}

static void copy(int fd, int channel, uint32_t *words, uint64_t source, uint32_t signal)
{
    const uint32_t methods[] = {
        1u << 29 | 8u << 16 | 4u << 13 | 0x400 >> 2, source >> 32, (uint32_t)source, TARGET >> 32,
        (uint32_t)TARGET, COPY_SIZE, COPY_SIZE, COPY_SIZE, 1,
        1u << 29 | 1u << 16 | 4u << 13 | 0x300 >> 2, 0x386,
    };
    memcpy(words, methods, sizeof methods);
    struct push push = {PUSHES, sizeof methods, 0};
    struct sync done = {.handle = signal};
    struct exec exec = {.channel = (uint32_t)channel, .pushes = 1, .signals = 1,
                        .signal_ptr = (uintptr_t)&done, .push_ptr = (uintptr_t)&push};
    MUST(ioctl(fd, EXEC, &exec));
    MUST(syncobj_wait(fd, signal, FOREVER));
}

int main(void)
{
    int first = open_node(), second = open_node();
    vm_init(first);
    vm_init(second);
    struct channel_alloc channel = {.tt = 1};
    MUST(ioctl(first, CHANNEL_ALLOC, &channel));
    uint32_t done = syncobj_create(first, 0);

    struct gem_info pushes = gem_new(first, COPY_SIZE), target = gem_new(first, COPY_SIZE);
    uint32_t *words = map_object(first, pushes);
    bind_object(first, PUSHES, pushes);
    bind_object(first, TARGET, target);

    uint32_t tiles[6];
    for (int i = 0; i < 6; i++) { /* 12 MiB, one tile in the place of another; those before are evicted */
        struct gem_info tile = new_in_vram(first, 2 * MIB);
        tiles[i] = tile.handle;
        bind_object(first, TILES, tile);
        copy(first, channel.channel, words, TILES, done);
    }

    bind(first, (struct bind_op){.flags = SPARSE, .addr = REGION, .range = 4 * MIB});
    bind(first, (struct bind_op){.handle = tiles[0], .addr = REGION + MIB, .range = COPY_SIZE});
    bind(first, (struct bind_op){.op = UNMAP, .addr = TILES + MIB, .range = COPY_SIZE});
    bind(first, (struct bind_op){.handle = 99, .addr = TILES, .range = COPY_SIZE}); /* ENOENT */

    struct drm_prime prime = {.handle = target.handle, .fd = -1};
    MUST(ioctl(first, PRIME_HANDLE_TO_FD, &prime));
    MUST(ioctl(second, PRIME_FD_TO_HANDLE, &prime));
    struct syncobj_file shared = {.handle = done, .fd = -1};
    MUST(ioctl(first, SYNCOBJ_HANDLE_TO_FD, &shared));
    MUST(ioctl(second, SYNCOBJ_FD_TO_HANDLE, &shared));
    struct bind_op op = {.handle = prime.handle, .addr = TARGET, .range = COPY_SIZE};
    struct sync wait = {.handle = shared.handle};
    struct vm_bind waits = {.ops = 1, .flags = RUN_ASYNC, .waits = 1, .wait_ptr = (uintptr_t)&wait,
                            .op_ptr = (uintptr_t)&op};
    MUST(ioctl(second, VM_BIND, &waits));

    bind(first, (struct bind_op){.op = UNMAP, .flags = SPARSE, .addr = REGION, .range = 4 * MIB});
    struct drm_handle tile = {.handle = tiles[5]};
    MUST(ioctl(first, GEM_CLOSE, &tile));
    copy(first, channel.channel, words, NOWHERE, done);
    return 0;
}
