/* A view glides along a long picture and back again. The picture is cut into tiles, of which few are in
 * memory: each comes when the view gets there, in the place of the oldest one. A frame is one copy of the
 * tiles in view to the screen, by a copy engine. A tile's pixels are a letter.
 *
 *     cc -o broken broken_streaming.c
 *     gpuvm run -- ./broken
 *
 * It has a bug, which docs/tutorial.md finds. With --fixed it has not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* The calls of <drm/drm.h> and <drm/nouveau_drm.h>; not every system has headers as new as VM_BIND. */
struct handle { uint32_t handle, flags; };
struct syncobj_wait { uint64_t handles; int64_t timeout; uint32_t count, flags, first, pad; };
struct channel_alloc {
    uint32_t fb, tt;
    int32_t channel;
    uint32_t domains, notifier, subchannels[16], count;
};
struct vm_init { uint64_t kernel_addr, kernel_size; };
struct sync { uint32_t flags, handle; uint64_t point; };
struct bind_op { uint32_t op, flags, handle, pad; uint64_t addr, offset, range; };
struct vm_bind { uint32_t ops, flags, waits, signals; uint64_t wait_ptr, signal_ptr, op_ptr; };
struct push { uint64_t addr; uint32_t bytes, flags; };
struct exec { uint32_t channel, pushes, waits, signals; uint64_t wait_ptr, signal_ptr, push_ptr; };
struct gem_new {
    uint32_t handle, domain;
    uint64_t size, offset, map_handle;
    uint32_t tile_mode, tile_flags, channel, align;
};

#define GEM_CLOSE _IOW('d', 0x09, struct handle)
#define SYNCOBJ_CREATE _IOWR('d', 0xbf, struct handle)
#define SYNCOBJ_DESTROY _IOWR('d', 0xc0, struct handle)
#define SYNCOBJ_WAIT _IOWR('d', 0xc3, struct syncobj_wait)
#define CHANNEL_ALLOC _IOWR('d', 0x42, struct channel_alloc)
#define CHANNEL_FREE _IOW('d', 0x43, int)
#define VM_INIT _IOW('d', 0x50, struct vm_init)
#define VM_BIND _IOW('d', 0x51, struct vm_bind)
#define EXEC _IOW('d', 0x52, struct exec)
#define GEM_NEW _IOWR('d', 0x80, struct gem_new)

enum { MAP, UNMAP };
enum { PAGE = 4096, TILE = 64 << 10, IN_VIEW = 4, SLOTS = 8, TURN = 8, FRAMES = 2 * TURN + 1 };
enum { TILES = TURN + IN_VIEW, WORD = PAGE / 2 };
static const uint64_t PICTURE = 0x100000000, SCREEN = 0x200000000, COMMANDS = 0x300000000;

struct object { uint32_t handle; char *bytes; }; /* memory that both processors see */

static int node, channel, frame;
static uint32_t frame_done; /* a syncobj */
static struct object slots, screen, commands;
static struct { int tile, since; } has[SLOTS]; /* which tile, and with which frame it came */

static void fail(const char *what)
{
    fflush(stdout);
    fprintf(stderr, "\nbroken: frame %d: %s: %s\n", frame, what, strerror(errno));
    exit(1);
}

static void call(unsigned long request, void *argument, const char *name)
{
    if (ioctl(node, request, argument))
        fail(name);
}

static void vm_bind(struct bind_op *ops, uint32_t count)
{
    struct vm_bind bind = {.ops = count, .op_ptr = (uintptr_t)ops};
    call(VM_BIND, &bind, "VM_BIND");
}

static struct object new_object(uint64_t size)
{
    struct gem_new new = {.domain = 4 /* GART */, .size = size, .align = PAGE};
    call(GEM_NEW, &new, "GEM_NEW");
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, node, (off_t)new.map_handle);
    if (bytes == MAP_FAILED)
        fail("mmap");
    return (struct object){new.handle, bytes};
}

static void set_up(void)
{
    struct vm_init init = {1ull << 46, 1ull << 46};
    struct channel_alloc alloc = {.fb = ~0u, .tt = 1 /* the engines that draw, with a copy engine */};
    struct handle syncobj = {0};
    node = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
    if (node < 0)
        fail("/dev/dri/renderD128");
    call(VM_INIT, &init, "VM_INIT");
    call(CHANNEL_ALLOC, &alloc, "CHANNEL_ALLOC");
    call(SYNCOBJ_CREATE, &syncobj, "SYNCOBJ_CREATE");
    channel = alloc.channel;
    frame_done = syncobj.handle;
    slots = new_object(SLOTS * TILE);
    screen = new_object(IN_VIEW * TILE);
    commands = new_object(PAGE);
    struct bind_op ops[] = {
        {.op = MAP, .handle = screen.handle, .addr = SCREEN, .range = IN_VIEW * TILE},
        {.op = MAP, .handle = commands.handle, .addr = COMMANDS, .range = PAGE},
    };
    vm_bind(ops, 2);
    for (int slot = 0; slot < SLOTS; slot++)
        has[slot].tile = -1;
}

static void clean_up(void)
{
    struct bind_op ops[] = {
        {.op = UNMAP, .addr = PICTURE, .range = TILES * TILE},
        {.op = UNMAP, .addr = SCREEN, .range = IN_VIEW * TILE},
        {.op = UNMAP, .addr = COMMANDS, .range = PAGE},
    };
    vm_bind(ops, 3);
    struct handle gone[] = {{slots.handle, 0}, {screen.handle, 0}, {commands.handle, 0}, {frame_done, 0}};
    for (int i = 0; i < 3; i++)
        call(GEM_CLOSE, &gone[i], "GEM_CLOSE");
    call(SYNCOBJ_DESTROY, &gone[3], "SYNCOBJ_DESTROY");
    call(CHANNEL_FREE, &channel, "CHANNEL_FREE");
}

/* The first tile in view. */
static int view(int at)
{
    return at <= TURN ? at : 2 * TURN - at;
}

/* A free slot, or that of the oldest tile that is not in view then. */
static int find_slot(int at)
{
    int oldest = -1;
    for (int slot = 0; slot < SLOTS; slot++) {
        if (has[slot].tile < 0)
            return slot;
        int in_view = has[slot].tile >= view(at) && has[slot].tile < view(at) + IN_VIEW;
        if (!in_view && (oldest < 0 || has[slot].since < has[oldest].since))
            oldest = slot;
    }
    return oldest;
}

static void bring(int tile, int at)
{
    for (int slot = 0; slot < SLOTS; slot++)
        if (has[slot].tile == tile)
            return;
    int slot = find_slot(at), goes = has[slot].tile;
    uint64_t addr = PICTURE + tile * TILE;
    struct bind_op ops[] = {
        {.op = MAP, .addr = addr, .range = TILE, .handle = slots.handle, .offset = slot * TILE},
        {.op = UNMAP, .addr = PICTURE + goes * TILE, .range = TILE},
    };
    vm_bind(ops, goes < 0 ? 1 : 2);
    memset(slots.bytes + slot * TILE, 'a' + tile, TILE); /* its pixels */
    has[slot].tile = tile;
    has[slot].since = at;
}

/* Brings the tiles that a frame shows. */
static void stream(int at)
{
    for (int tile = view(at); at < FRAMES && tile < view(at) + IN_VIEW; tile++)
        bring(tile, at);
}

/* The GPU gets the frame, and waits until a word has its number: see begin(). */
static void submit(void)
{
    uint64_t from = PICTURE + view(frame) * TILE, word = COMMANDS + WORD;
    const uint32_t words[] = {
        0x20018000, 0xc5b5,                                                      /* SET_OBJECT: copies */
        0x20040004, word >> 32, (uint32_t)word, (uint32_t)frame, 1 << 12 | 4,    /* SEMAPHORE: until >= */
        0x20048100, from >> 32, (uint32_t)from, SCREEN >> 32, (uint32_t)SCREEN,  /* from, to */
        0x20048104, TILE, TILE, TILE, IN_VIEW,                                   /* pitches, a line, lines */
        0x200180c0, 0x386,                                                       /* LAUNCH_DMA */
    };
    memcpy(commands.bytes, words, sizeof words);
    struct push push = {.addr = COMMANDS, .bytes = sizeof words};
    struct sync done = {.handle = frame_done};
    struct exec exec = {.channel = (uint32_t)channel, .pushes = 1, .push_ptr = (uintptr_t)&push,
                        .signals = 1, .signal_ptr = (uintptr_t)&done};
    call(EXEC, &exec, "EXEC");
}

/* The screen may be drawn on now. */
static void begin(void)
{
    __atomic_store_n((uint32_t *)(commands.bytes + WORD), (uint32_t)frame, __ATOMIC_RELEASE);
}

static void finish(void)
{
    struct syncobj_wait wait = {.handles = (uintptr_t)&frame_done, .timeout = INT64_MAX, .count = 1};
    call(SYNCOBJ_WAIT, &wait, "SYNCOBJ_WAIT");
    if (frame > 0)
        putchar(' ');
    for (int tile = 0; tile < IN_VIEW; tile++)
        putchar(screen.bytes[tile * TILE]);
}

int main(int argc, char **argv)
{
    int fixed = argc > 1 && !strcmp(argv[1], "--fixed");
    set_up();
    for (stream(0); frame < FRAMES; frame++) {
        submit();
        if (!fixed)
            stream(frame + 1); /* there is time for the next frame's tiles now */
        begin();
        finish();
        if (fixed)
            stream(frame + 1);
    }
    putchar('\n');
    clean_up();
    return 0;
}
