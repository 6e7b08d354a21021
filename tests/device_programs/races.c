// Calls whose structures and arrays other threads of the program rewrite while they are carried out.
#include "node.h"
#include <pthread.h>
#include <stdatomic.h>

#define PAGE 0x1000ull
#define AREA (64 * PAGE)
#define BASE (1ull << 32)
#define OPS 16
#define CALLERS 3

static int fd, calls;
static uint32_t handles[4], syncobjs[3];
static struct vm_bind binding;
static struct bind_op ops[OPS];
static struct sync syncs[4];
static uint32_t waited[4];
static struct drm_syncobj_wait waiting;
static atomic_int callers_left = CALLERS;

static uint32_t next(uint32_t *state)
{
    return *state = *state * 1664525 + 1013904223, *state >> 8;
}

static struct bind_op random_op(uint32_t *state)
{
    uint64_t at = next(state) % 60, pages = 1 + next(state) % 4;
    struct bind_op op = {.op = next(state) & 1, .addr = BASE + at * PAGE, .range = pages * PAGE};
    if (op.op == 0) {
        op.handle = handles[next(state) % 4];
        op.offset = (next(state) % 4) * PAGE;
    }
    switch (next(state) % 16) {
    case 0: op.addr = ~0ull << (next(state) % 64); break;
    case 1: op.range = ~0ull << (next(state) % 64); break;
    case 2: op.flags = 0x100; op.handle = 0; break;
    case 3: op.handle = next(state); break;
    case 4: op.op = next(state); break;
    }
    return op;
}

// Rewrites everything, all the time; now and then in one piece, most often while it is read.
static void *scribble(void *seed)
{
    uint32_t state = (uintptr_t)seed;
    while (atomic_load(&callers_left)) {
        ops[next(&state) % OPS] = random_op(&state);
        binding.ops = next(&state) % 8 ? next(&state) % (OPS + 1) : next(&state);
        binding.flags = next(&state) & 1;
        binding.waits = binding.signals = next(&state) % 4 ? 0 : 1 + next(&state) % 2;
        binding.op_ptr = next(&state) % 32 ? (uintptr_t)ops : next(&state) * 0x1000001ull;
        syncs[next(&state) % 4] = (struct sync){next(&state) & 1, syncobjs[next(&state) % 3], next(&state) % 9};
        waited[next(&state) % 4] = next(&state) % 8 ? syncobjs[next(&state) % 3] : next(&state);
        waiting.count = next(&state) % 8 ? next(&state) % 5 : next(&state);
        waiting.flags = next(&state) % 4;
    }
    return NULL;
}

static void *call(void *seed)
{
    uint32_t state = (uintptr_t)seed;
    for (int i = 0; i < calls; i++) {
        if (next(&state) % 4)
            ioctl(fd, VM_BIND, &binding);
        else
            ioctl(fd, SYNCOBJ_WAIT, &waiting);
        struct drm_syncobj_array signal = {(uintptr_t)&syncobjs[next(&state) % 3], 1, 0};
        MUST(ioctl(fd, SYNCOBJ_SIGNAL, &signal));
    }
    atomic_fetch_sub(&callers_left, 1);
    return NULL;
}

int main(int count, char **words)
{
    CHECK(count == 3);
    uintptr_t seed = atoi(words[1]);
    calls = atoi(words[2]);
    fd = open_node();
    vm_init(fd);
    struct gem_info guarded = gem_new(fd, AREA);
    memset(map_object(fd, guarded), 0x6b, AREA);
    bind_object(fd, 1ull << 40, guarded);
    for (int i = 0; i < 4; i++)
        handles[i] = gem_new(fd, 8 * PAGE).handle;
    for (int i = 0; i < 3; i++)
        syncobjs[i] = syncobj_create(fd, 1);
    binding = (struct vm_bind){
        .wait_ptr = (uintptr_t)syncs, .signal_ptr = (uintptr_t)(syncs + 2), .op_ptr = (uintptr_t)ops};
    waiting.handles = (uintptr_t)waited;
    pthread_t threads[CALLERS + 2];
    for (uintptr_t i = 0; i < CALLERS + 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, i < CALLERS ? call : scribble, (void *)(seed * 100 + i)));
    for (int i = 0; i < CALLERS + 2; i++)
        CHECK(!pthread_join(threads[i], NULL));
    char *bytes = map_object(fd, guarded);
    for (uint64_t i = 0; i < AREA; i++)
        CHECK(bytes[i] == 0x6b);
    step("done");
    return 0;
}
