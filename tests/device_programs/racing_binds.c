/* Binds that race with copies, in an order that is always the same: a copy waits for a word in memory.
 * rebind: memory is replaced under a copy. early: a copy does not wait for the bind of its source.
 * unmap: memory is taken away under a copy of something else in the same job. waits: none of it. */
#include "nouveau.h"

#define PUSHES 0x100000000ull
#define SOURCE 0x200000000ull
#define TARGET 0x300000000ull
#define OTHER 0x400000000ull
#define SIZE 65536u
#define WORD 0x8000u /* of the push buffers' object */
#define RUN_ASYNC 1
#define UNMAP 1

static int fd;
static uint32_t *memory, used; /* the push buffers, and bytes of them */

static uint32_t new_channel(void)
{
    struct channel_alloc alloc = {.tt = 1};
    MUST(ioctl(fd, CHANNEL_ALLOC, &alloc));
    return (uint32_t)alloc.channel;
}

static void submit(uint32_t channel, int acquires, uint64_t source, uint32_t done)
{
    const uint64_t word = PUSHES + WORD;
    const uint32_t wait[] = {0x20040004, word >> 32, (uint32_t)word, 1, 1 << 12 | 4};
    const uint32_t copy[] = {
        0x20088100, source >> 32, (uint32_t)source, TARGET >> 32, (uint32_t)TARGET, SIZE, SIZE, SIZE, 1,
        0x200180c0, 0x386,
    };
    struct push push = {.va = PUSHES + used};
    if (acquires) {
        memcpy((char *)memory + used, wait, sizeof wait);
        used += sizeof wait;
    }
    memcpy((char *)memory + used, copy, sizeof copy);
    used += sizeof copy;
    push.len = (uint32_t)(PUSHES + used - push.va);
    struct sync signal = {.handle = done};
    struct exec exec = {.channel = channel, .pushes = 1, .signals = 1, .signal_ptr = (uintptr_t)&signal,
                        .push_ptr = (uintptr_t)&push};
    MUST(ioctl(fd, EXEC, &exec));
}

static void change(struct bind_op op, uint32_t flags, uint32_t wait)
{
    struct sync sync = {.handle = wait};
    op.range = SIZE;
    struct vm_bind bind = {.ops = 1, .flags = flags, .waits = wait != 0, .wait_ptr = (uintptr_t)&sync,
                           .op_ptr = (uintptr_t)&op};
    MUST(ioctl(fd, VM_BIND, &bind));
}

int main(int argc, char **argv)
{
    const char *scene = argc > 1 ? argv[1] : "waits";
    fd = open_node();
    vm_init(fd);
    uint32_t first = new_channel(), second = new_channel();
    uint32_t done = syncobj_create(fd, 0), other_done = syncobj_create(fd, 0);
    struct gem_info pushes = gem_new(fd, SIZE), another = gem_new(fd, SIZE);
    memory = map_object(fd, pushes);
    bind_object(fd, PUSHES, pushes);
    bind_object(fd, SOURCE, gem_new(fd, SIZE));
    bind_object(fd, OTHER, gem_new(fd, SIZE));
    bind_object(fd, TARGET, gem_new(fd, SIZE));
    submit(first, 1, SOURCE, done);
    if (!strcmp(scene, "rebind"))
        change((struct bind_op){.handle = another.handle, .addr = SOURCE}, 0, 0);
    else if (!strcmp(scene, "unmap"))
        change((struct bind_op){.op = UNMAP, .addr = OTHER}, 0, 0);
    else if (!strcmp(scene, "early")) {
        change((struct bind_op){.handle = another.handle, .addr = OTHER}, RUN_ASYNC, done);
        submit(second, 0, OTHER, other_done);
        MUST(syncobj_wait(fd, other_done, FOREVER));
    }
    __atomic_store_n(memory + WORD / 4, 1, __ATOMIC_RELEASE);
    MUST(syncobj_wait(fd, done, FOREVER));
    if (!strcmp(scene, "waits"))
        change((struct bind_op){.handle = another.handle, .addr = SOURCE}, 0, 0);
    return 0;
}
