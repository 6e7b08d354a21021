/* Uses the device: binds, executes a push that has a method nobody executes, and faults; and frees nothing. */
#include "nouveau.h"

#define PUSHES (1ull << 32)
#define TARGET (2ull << 32)

static uint32_t channel;

/* Executes words, and waits until they are done. */
static void run(int fd, uint32_t *pushes, const uint32_t *words, uint32_t count)
{
    uint32_t done = syncobj_create(fd, 0);
    struct sync signal = {.handle = done};
    struct push push = {.va = PUSHES, .len = 4 * count};
    struct exec exec = {
        .channel = channel, .pushes = 1, .signals = 1, .signal_ptr = (uintptr_t)&signal, .push_ptr = (uintptr_t)&push};
    memcpy(pushes, words, 4 * count);
    MUST(ioctl(fd, EXEC, &exec));
    MUST(syncobj_wait(fd, done, FOREVER));
}

int main(int argc, char **argv)
{
    int fd = open_node();
    vm_init(fd);
    struct gem_info push = gem_new(fd, 4096), target = gem_new(fd, 65536);
    uint32_t *pushes = map_object(fd, push), *bytes = map_object(fd, target);
    bind_object(fd, PUSHES, push);
    bind_object(fd, TARGET, target);
    struct channel_alloc alloc = {0};
    MUST(ioctl(fd, CHANNEL_ALLOC, &alloc));
    channel = (uint32_t)alloc.channel;

    /* the copy engine fills 256 words with 7; the 3D engine is asked to clear a surface, twice */
    const uint32_t fill[] = {
        0x20028102, TARGET >> 32, TARGET & 0xffffffff,       /* OFFSET_OUT */
        0x20028106, 256, 1,                                  /* LINE_LENGTH_IN, LINE_COUNT */
        0x200181c0, 7, 0x200181c2, 0x30004,                  /* SET_REMAP_CONST_A, SET_REMAP_COMPONENTS */
        0x200180c0, 0x586, 0x20010674, 1, 0x20010674, 2,     /* LAUNCH_DMA, CLEAR_SURFACE */
    };
    run(fd, pushes, fill, sizeof fill / 4);
    printf("filled with %u\n", bytes[255]);
    if (argc > 1 && !strcmp(argv[1], "fault")) {
        const uint32_t wild[] = {0x20028102, 3, 0x10000000, 0x200180c0, 0x586};
        run(fd, pushes, wild, sizeof wild / 4);
        const uint32_t nothing[] = {0};
        run(fd, pushes, nothing, 1); /* the channel is dead */
    }
    return 0;
}
