/* A thread waits for a fence, of a syncobj, and gets a signal, or its process is killed.
 * Argument: restart, end, or kill. */
#define _GNU_SOURCE
#include "nouveau.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { WAIT_FOR_SUBMIT = 2 };

static int fd;
static uint32_t syncobj;
static volatile sig_atomic_t handled;
static volatile pid_t waiting;

#define EXPECT(what) MUST((what) ? 0 : -1)

static void signal_fence(int number)
{
    struct drm_syncobj_array array = {.handles = (uintptr_t)&syncobj, .count = 1};
    (void)number;
    handled++;
    MUST(ioctl(fd, SYNCOBJ_SIGNAL, &array));
}

static int wait_for_submit(void)
{
    struct drm_syncobj_wait wait = {
        .handles = (uintptr_t)&syncobj, .timeout = FOREVER, .count = 1, .flags = WAIT_FOR_SUBMIT};
    return ioctl(fd, SYNCOBJ_WAIT, &wait);
}

static void *waiter(void *restart)
{
    waiting = (pid_t)syscall(SYS_gettid);
    int result = wait_for_submit();
    EXPECT(restart ? result == 0 : result == -1 && errno == EINTR);
    EXPECT(handled == 1);
    return NULL;
}

/* Until the thread sleeps in its ioctl. */
static void await_sleep(pid_t thread)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/syscall", thread);
    int file = (int)MUST(open(path, O_RDONLY));
    do
        text[MUST(pread(file, text, sizeof text - 1, 0))] = 0;
    while (atoi(text) != SYS_ioctl);
    close(file);
}

static void interrupted(int flags)
{
    pthread_t thread;
    struct sigaction action = {.sa_handler = signal_fence, .sa_flags = flags};
    sigaction(SIGUSR1, &action, NULL);
    MUST(-pthread_create(&thread, NULL, waiter, flags ? &fd : NULL));
    while (!waiting)
        sched_yield();
    await_sleep(waiting);
    MUST(syscall(SYS_tgkill, getpid(), waiting, SIGUSR1));
    MUST(-pthread_join(thread, NULL));
}

static void killed(void)
{
    int status;
    for (int i = 0; i < 20; i++) {
        pid_t child = (pid_t)MUST(fork());
        if (child == 0) {
            wait_for_submit();
            _exit(1);
        }
        await_sleep(child);
        kill(child, SIGKILL);
        MUST(waitpid(child, &status, 0));
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    signal_fence(0);
    MUST(wait_for_submit());
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    fd = open_node();
    syncobj = syncobj_create(fd, 0);
    if (!strcmp(argv[1], "kill"))
        killed();
    else
        interrupted(strcmp(argv[1], "restart") ? 0 : SA_RESTART);
    return 0;
}
