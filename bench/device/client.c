// Measures calls of its own: a line each with its name and the nanoseconds a call, least and median of all rounds.
// A line with two dashes says why a call is not measured here. client ROUNDS CALLS: so many calls a round.
#define _GNU_SOURCE
#include "nouveau.h"
#include <sys/stat.h>
#include <time.h>

enum { VRAM = 2, SIGNALED = 1, CHIPSET_ID = 11, BIND_OP_MAP = 0, BIND_OP_UNMAP = 1, MANY = 256 };
#define SLOT (64ull << 10)
// What one table covers. Its first slot stays mapped: a program that runs has its tables.
#define AREA (2ull << 20)
#define BASE (1ull << 38)
#define ANOTHER_FILE "/etc/passwd"
#define FOREIGN _IO('d', 0xff)

static int node = -1, no_space, file, ends[2];
static uint32_t syncobj;
static int32_t channel;
static struct bind_op maps[MANY], unmaps[MANY];

static long reading(void)
{
    char bytes[8];
    return pread(file, bytes, sizeof bytes, 0);
}

static long asking_who(void)
{
    return getpid();
}

static long mapping(void)
{
    void *bytes = mmap(NULL, SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return bytes == MAP_FAILED ? -1 : munmap(bytes, SLOT);
}

static long asking_pipe(void)
{
    int waiting;
    return ioctl(ends[0], FIONREAD, &waiting);
}

static long stating(void)
{
    struct stat found;
    return fstat(file, &found);
}

static long opened(int fd)
{
    return fd < 0 ? -1 : close(fd);
}

static long opening(void)
{
    return opened(open(ANOTHER_FILE, O_RDONLY | O_CLOEXEC));
}

static long opening_node(void)
{
    return opened(open(RENDER_NODE, O_RDWR | O_CLOEXEC));
}

static long asking_another(void)
{
    return ioctl(ends[0], FOREIGN, NULL) == -1 && errno == ENOTTY ? 0 : -1;
}

static long asking_node(void)
{
    struct getparam get = {.param = CHIPSET_ID};
    return ioctl(node, GETPARAM, &get);
}

static long waiting(void)
{
    return syncobj_wait(node, syncobj, FOREVER);
}

static long making(void)
{
    struct gem_new new = {.info = {.domain = VRAM, .size = SLOT}};
    if (ioctl(node, GEM_NEW, &new))
        return -1;
    struct drm_handle gone = {.handle = new.info.handle};
    return ioctl(node, GEM_CLOSE, &gone);
}

static long bind(struct bind_op *ops, uint32_t count)
{
    struct vm_bind bind = {.ops = count, .op_ptr = (uintptr_t)ops};
    return ioctl(node, VM_BIND, &bind);
}

static long binding_one(void)
{
    return bind(maps, 1) ? -1 : bind(unmaps, 1);
}

static long binding_many(void)
{
    return bind(maps, MANY) ? -1 : bind(unmaps, MANY);
}

static long executing(void)
{
    struct exec exec = {.channel = (uint32_t)channel};
    return ioctl(node, EXEC, &exec);
}

// What the calls need: 0, or -1 and errno.

static int nothing(void)
{
    return 0;
}

static int with_node(void)
{
    if (node >= 0)
        return 0;
    if ((node = open(RENDER_NODE, O_RDWR | O_CLOEXEC)) < 0)
        return -1;
    struct vm_init init = {.addr = 1ull << 46, .size = 1ull << 46}; // before all else, or it is refused
    no_space = ioctl(node, VM_INIT, &init) ? errno : 0;
    return 0;
}

static int with_syncobj(void)
{
    struct drm_handle made = {.flags = SIGNALED};
    if (with_node() || ioctl(node, SYNCOBJ_CREATE, &made))
        return -1;
    syncobj = made.handle;
    return 0;
}

static int with_space(void)
{
    if (maps[0].range)
        return 0;
    struct gem_new new = {.info = {.domain = VRAM, .size = SLOT * MANY}};
    if (with_node() || (errno = no_space) || ioctl(node, GEM_NEW, &new))
        return -1;
    struct bind_op stays = {.op = BIND_OP_MAP, .handle = new.info.handle, .range = SLOT};
    uint64_t addr = BASE;
    for (uint32_t slot = 0; slot < MANY; addr += SLOT) {
        if (addr % AREA == 0) {
            stays.addr = addr;
            if (bind(&stays, 1))
                return -1;
            continue;
        }
        maps[slot] = (struct bind_op){
            .op = BIND_OP_MAP, .handle = new.info.handle, .addr = addr, .offset = slot * SLOT, .range = SLOT};
        unmaps[slot++] = (struct bind_op){.op = BIND_OP_UNMAP, .addr = addr, .range = SLOT};
    }
    return 0;
}

static int with_channel(void)
{
    struct channel_alloc new = {0};
    if (with_node() || ioctl(node, CHANNEL_ALLOC, &new))
        return -1;
    channel = new.channel;
    return 0;
}

static const struct row {
    const char *name;
    long (*call)(void);
    int (*prepare)(void);
    int calls; // that are made by one `call`, of those that are counted
    int fewer; // so many times fewer in a round
} rows[] = {
    {"getpid", asking_who, nothing, 1, 1},
    {"read", reading, nothing, 1, 1},
    {"mmap", mapping, nothing, 1, 1},
    {"foreign", asking_pipe, nothing, 1, 1},
    {"foreign_d", asking_another, nothing, 1, 1},
    {"fstat", stating, nothing, 1, 1},
    {"open", opening, nothing, 1, 1},
    {"open_node", opening_node, with_node, 1, 4},
    {"getparam", asking_node, with_node, 1, 1},
    {"wait", waiting, with_syncobj, 1, 1},
    {"gem", making, with_node, 1, 2},
    {"bind_1", binding_one, with_space, 2, 2},
    {"bind_256", binding_many, with_space, 2, 8},
    {"exec", executing, with_channel, 1, 1},
};

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return 1e9 * (double)at.tv_sec + (double)at.tv_nsec;
}

static int by_size(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static int measure(const struct row *row, int rounds, int calls, double *each)
{
    int turns = (calls + row->fewer - 1) / row->fewer;
    for (int round = -1; round < rounds; round++) { // the first is not counted
        double begin = now();
        for (int turn = 0; turn < turns; turn++)
            if (row->call() < 0)
                return -1;
        if (round >= 0)
            each[round] = (now() - begin) / turns / row->calls;
    }
    qsort(each, (size_t)rounds, sizeof *each, by_size);
    return 0;
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: client ROUNDS CALLS\n");
        return 2;
    }
    int rounds = atoi(words[1]), calls = atoi(words[2]);
    double *each = calloc((size_t)rounds, sizeof *each);
    file = (int)MUST(open(ANOTHER_FILE, O_RDONLY | O_CLOEXEC));
    MUST(pipe2(ends, O_CLOEXEC));
    for (const struct row *row = rows; row < rows + sizeof rows / sizeof *rows; row++) {
        if (row->prepare() || measure(row, rounds, calls, each))
            printf("%s - - %s\n", row->name, strerror(errno));
        else
            printf("%s %.1f %.1f\n", row->name, each[0], each[rounds / 2]);
        fflush(stdout);
    }
    return 0;
}
