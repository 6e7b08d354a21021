// Every call with whatever a program can pass: pointers that lead nowhere, counts that are too large, and so on.
// Prints for each call how often it had which result.
#include "node.h"
#include <signal.h>

#define PAGE 0x1000ul

static const uint32_t requests[] = {
    0xc0406400, 0x40086409, 0xc010640c, 0x40046411, 0xc00c642d, 0xc00c642e, 0xc00864bf, 0xc00864c0,
    0xc01864c1, 0xc01864c2, 0xc02864c3, 0xc01064c4, 0xc01064c5, 0xc03064ca, 0xc01864cb, 0xc02064cc,
    0xc01864cd, 0xc01864cf, 0xc0106440, 0xc0586442, 0x40046443, 0xc0406447, 0xc0106450, 0xc0286451,
    0xc0286452, 0xc0306480, 0xc0406481, 0x40086482, 0x40046483, 0xc0286484,
};
#define REQUESTS (sizeof requests / sizeof *requests)
static int results[256][140];

static uint64_t state;
static uint32_t next(void)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33;
}

// Two pages that are there, one that can only be read, one that is nobody's, and the end.
static char *arena;

static uint64_t pointer(void)
{
    uint64_t place = (uintptr_t)arena;
    switch (next() % 16) {
    case 0: return 0;
    case 1: return place + 2 * PAGE;
    case 2: return place + 3 * PAGE - 1 - next() % 64;
    case 3: return place + 3 * PAGE;
    case 4: return ~0ull << (next() % 64);
    case 5: return (1ull << 47) - next() % 128;
    case 6: return 0xffffffff81000000ull;
    case 7: return place + next() % (2 * PAGE);
    default: return place + next() % 64 * 64;
    }
}

static uint64_t word(void)
{
    switch (next() % 8) {
    case 0: return next();
    case 1: return ~0ull >> (next() % 64);
    case 2: return 1ull << (next() % 64);
    case 3: return pointer();
    default: return next() % 5;
    }
}

// No call may last, so no wait is for later, and nobody waits for what nobody will submit.
static void tame(uint32_t request, char *data)
{
    uint32_t number = request & 0xff;
    if (number == 0xc3)
        ((int64_t *)data)[1] = next() % 2;
    if (number == 0xca)
        ((int64_t *)data)[2] = next() % 2;
    if (number == 0xcc)
        ((uint32_t *)data)[6] &= ~2u;
    if (number == 0xcf || number == 0x2e || number == 0xc2)
        ((uint32_t *)data)[number == 0xcf ? 4 : 2] = next() % 40;
    if (number == 0x80 && next() % 4)
        ((uint64_t *)data)[1] = (next() % 8) * PAGE, ((uint32_t *)data)[1] = next() % 16;
}

static void one_call(int fd)
{
    uint32_t request = requests[next() % REQUESTS];
    if (next() % 32 == 0)
        request ^= 1u << (next() % 32);
    char data[512];
    for (unsigned i = 0; i < sizeof data / 8; i++)
        ((uint64_t *)data)[i] = word();
    tame(request, data);
    for (unsigned i = 0; i < 64; i++)
        ((uint64_t *)arena)[next() % 512] = next() % 4 ? next() % 9 : word();
    int result = ioctl(fd, request, next() % 8 ? (uint64_t)(uintptr_t)data : pointer());
    results[request & 0xff][result < 0 ? errno : 0]++;
    if (result == 0 && ((request & 0xff) == 0x2d || (request & 0xff) == 0xc1))
        close(((int32_t *)data)[2]);
}

static void calls(int seed, int times)
{
    state = seed;
    int fd = open_as(O_RDWR);
    for (int i = 0; i < times; i++) {
        one_call(fd);
        if (i % 500 == 499) {
            close(fd);
            fd = open_as(next() % 2 ? O_RDWR : O_RDONLY);
        }
    }
    CHECK(works(fd));
    for (int number = 0; number < 256; number++)
        for (int result = 0; result < 140; result++)
            if (results[number][result])
                printf("%d %d %d\n", number, result, results[number][result]);
    step("done");
}

// A process is killed while a long array of it is read.
static void vanish(int times)
{
    int fd = open_node(), ready[2];
    vm_init(fd);
    uint32_t count = 1 << 20;
    size_t size = count * sizeof(struct bind_op);
    for (int i = 0; i < times; i++) {
        CHECK(pipe(ready) == 0);
        pid_t child = fork();
        if (!child) {
            struct bind_op *ops = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            CHECK(ops != MAP_FAILED);
            struct vm_bind bind = {.ops = count, .op_ptr = (uintptr_t)ops};
            CHECK(write(ready[1], "x", 1) == 1);
            for (;;)
                CHECK(ioctl(fd, VM_BIND, &bind) == -1 && errno == ENOENT);
        }
        char byte;
        CHECK(read(ready[0], &byte, 1) == 1);
        CHECK(works(fd)); // so ours is served while his is
        CHECK(kill(child, SIGKILL) == 0);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        close(ready[0]);
        close(ready[1]);
    }
    CHECK(works(fd));
    step("done");
}

int main(int count, char **words)
{
    CHECK(count >= 3);
    arena = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(arena != MAP_FAILED);
    CHECK(mprotect(arena + 2 * PAGE, PAGE, PROT_READ) == 0);
    CHECK(mprotect(arena + 3 * PAGE, PAGE, PROT_NONE) == 0);
    if (!strcmp(words[1], "calls"))
        calls(atoi(words[2]), atoi(words[3]));
    else
        vanish(atoi(words[2]));
    return 0;
}
