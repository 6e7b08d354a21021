/* A program that renders: each frame makes an object, binds it, copies into it, waits, unbinds it.
 * --frames N: so many, 10 if not given. --fault N: frame N copies from an address where nothing is mapped; the
 * next one goes on in a new channel. --pause MS: sleeps between frames. */
#include "nouveau.h"

#include <time.h>

#define WAIT_FOR_SUBMIT 2
#define PUSHES 0x100000000ull
#define SOURCE 0x200000000ull
#define TARGET 0x300000000ull
#define NOWHERE 0x700000000ull
#define SIZE 65536u

struct exec_sync {
    uint32_t flags, handle;
    uint64_t value;
};
struct gem_close {
    uint32_t handle, pad;
};

static long option(int argc, char **argv, const char *name, long usual)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return atol(argv[i + 1]);
    return usual;
}

static uint32_t new_channel(int fd)
{
    struct channel_alloc alloc = {.tt = 1};
    MUST(ioctl(fd, CHANNEL_ALLOC, &alloc));
    return (uint32_t)alloc.channel;
}

static void unbind(int fd, uint64_t addr, uint64_t range)
{
    struct bind_op op = {.op = 1, .addr = addr, .range = range};
    struct vm_bind bind = {.ops = 1, .op_ptr = (uintptr_t)&op};
    MUST(ioctl(fd, VM_BIND, &bind));
}

static uint32_t write_copy(uint32_t *words, uint64_t source)
{
    const uint32_t copy[] = {
        1u << 29 | 8u << 16 | 4u << 13 | 0x400 >> 2, source >> 32, (uint32_t)source, TARGET >> 32,
        (uint32_t)TARGET, SIZE, SIZE, SIZE, 1,
        1u << 29 | 1u << 16 | 4u << 13 | 0x300 >> 2, 0x386,
    };
    memcpy(words, copy, sizeof copy);
    return sizeof copy;
}

int main(int argc, char **argv)
{
    long frames = option(argc, argv, "--frames", 10), fault = option(argc, argv, "--fault", -1);
    long pause = option(argc, argv, "--pause", 0);
    int fd = open_node();
    vm_init(fd);
    uint32_t channel = new_channel(fd), done = syncobj_create(fd, 0);
    struct gem_info pushes = gem_new(fd, SIZE);
    uint32_t *words = map_object(fd, pushes);
    bind_object(fd, PUSHES, pushes);
    bind_object(fd, SOURCE, gem_new(fd, SIZE));
    for (long frame = 0; frame < frames; frame++) {
        struct gem_info target = gem_new(fd, SIZE);
        bind_object(fd, TARGET, target);
        struct push push = {PUSHES, write_copy(words, frame == fault ? NOWHERE : SOURCE), 0};
        struct exec_sync signal = {.handle = done};
        struct exec exec = {.channel = channel, .pushes = 1, .signals = 1, .signal_ptr = (uintptr_t)&signal,
                            .push_ptr = (uintptr_t)&push};
        MUST(ioctl(fd, EXEC, &exec));
        MUST(syncobj_wait(fd, done, FOREVER));
        if (frame == fault)
            channel = new_channel(fd);
        unbind(fd, TARGET, SIZE);
        struct gem_close close = {.handle = target.handle};
        MUST(ioctl(fd, GEM_CLOSE, &close));
        printf("frame %ld\n", frame);
        fflush(stdout);
        nanosleep(&(struct timespec){pause / 1000, pause % 1000 * 1000000}, NULL);
    }
    return 0;
}
