/* Each thread makes objects and binds them, on an open of its own, while signals rain on all threads. A call
 * that was carried out twice leaves a gap in the numbers of handles, or makes one bind too many.
 * Arguments: threads, objects of each, "restart" or "end". */
#define _GNU_SOURCE
#include "nouveau.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { MOST = 16, PAGE = 65536 };

static int threads, objects;
static pid_t process, tids[MOST];
static volatile int finished;
static volatile sig_atomic_t handled;
static pthread_barrier_t all_there;

static void note(int number)
{
    (void)number;
    handled++;
}

/* As drmIoctl does; other errors end the program. */
static void repeat(int fd, unsigned long request, void *argument, int line)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result == -1 && errno == EINTR);
    must(result, "ioctl", line);
}
#define REPEAT(fd, request, argument) repeat(fd, request, argument, __LINE__)

static void expect(uint32_t handle, uint32_t expected, int line)
{
    if (handle != expected) {
        fprintf(stderr, "line %d: handle %u, expected %u\n", line, handle, expected);
        exit(1);
    }
}

static int open_again(void)
{
    int fd;
    do
        fd = open(RENDER_NODE, O_RDWR | O_CLOEXEC);
    while (fd == -1 && errno == EINTR);
    return (int)MUST(fd);
}

static void *worker(void *argument)
{
    tids[(long)argument] = (pid_t)syscall(SYS_gettid);
    pthread_barrier_wait(&all_there);
    int fd = open_again();
    struct vm_init init = {.addr = 1ull << 46, .size = 1ull << 46};
    REPEAT(fd, VM_INIT, &init);
    for (int i = 0; i < objects; i++) {
        struct gem_new new = {.info = {.domain = GART, .size = PAGE}};
        REPEAT(fd, GEM_NEW, &new);
        expect(new.info.handle, (uint32_t)i + 1, __LINE__);

        struct drm_handle syncobj = {0};
        REPEAT(fd, SYNCOBJ_CREATE, &syncobj);
        expect(syncobj.handle, (uint32_t)i + 1, __LINE__);

        /* One bind that the call waits for, and one that signals. */
        struct bind_op op = {.handle = new.info.handle, .addr = 0x100000 + (uint64_t)i * 2 * PAGE, .range = PAGE};
        struct vm_bind bind = {.ops = 1, .op_ptr = (uintptr_t)&op};
        REPEAT(fd, VM_BIND, &bind);
        struct sync done = {.handle = syncobj.handle};
        op.addr += PAGE;
        bind = (struct vm_bind){.ops = 1, .flags = 1, .signals = 1, .op_ptr = (uintptr_t)&op,
                                .signal_ptr = (uintptr_t)&done};
        REPEAT(fd, VM_BIND, &bind);
        struct drm_syncobj_wait wait = {.handles = (uintptr_t)&syncobj.handle, .timeout = FOREVER, .count = 1};
        REPEAT(fd, SYNCOBJ_WAIT, &wait);
    }
    return (void *)(long)close(fd);
}

static void *rain(void *unused)
{
    pthread_barrier_wait(&all_there);
    for (unsigned turn = 0; !finished; turn++) {
        syscall(SYS_tgkill, process, tids[turn % (unsigned)threads], SIGUSR1);
        struct timespec pause = {0, 300000};
        nanosleep(&pause, NULL);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t workers[MOST], sender;
    struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = note};
    void *result;
    if (argc != 4)
        return 2;
    threads = atoi(argv[1]);
    objects = atoi(argv[2]);
    action.sa_flags = strcmp(argv[3], "restart") ? 0 : SA_RESTART;
    process = getpid();
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    pthread_barrier_init(&all_there, NULL, (unsigned)threads + 1);
    MUST(-pthread_create(&sender, NULL, rain, NULL));
    for (long i = 0; i < threads; i++)
        MUST(-pthread_create(&workers[i], NULL, worker, (void *)i));
    setitimer(ITIMER_REAL, &every, NULL);
    for (int i = 0; i < threads; i++) {
        MUST(-pthread_join(workers[i], &result));
        MUST((long)result);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    finished = 1;
    MUST(-pthread_join(sender, NULL));
    printf("%s\n", handled > 20 ? "stormy" : "calm");
    return 0;
}
