#include "waiter.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"

static void *wait_in_thread(void *argument)
{
    struct waiter *waiter = argument;

    atomic_store(&waiter->tid, (int)syscall(SYS_gettid));
    waiter->result = syncobj_wait(waiter->fd, &waiter->wait);
    atomic_store(&waiter->done, true);
    return NULL;
}

/* proc(5): the file has the call's number while the thread sleeps in it, and "running" otherwise. */
static bool in_ioctl(pid_t tid)
{
    char path[64], text[32] = "";
    int fd;

    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = 0;
    close(fd);
    return atoi(text) == SYS_ioctl && text[0] != 'r';
}

void until_in_ioctl(pid_t tid)
{
    while (!in_ioctl(tid))
        rest(MILLISECOND / 10);
}

void waiter_begin(struct waiter *waiter)
{
    CHECK(pthread_create(&waiter->thread, NULL, wait_in_thread, waiter) == 0, "pthread_create");
    while (!atomic_load(&waiter->tid))
        rest(MILLISECOND / 10);
    until_in_ioctl(atomic_load(&waiter->tid));
    /* It sleeps; whether the driver has looked at its objects yet cannot be seen. Calls that are made later
     * and have been answered, and some time, make it all but certain. */
    for (int i = 0; i < 20; i++)
        GIVES(syncobj_wait(waiter->fd, &(struct wait){ .handles = NULL }), 0);
    rest(SHORT);
    waiter_still_waits(waiter);
}

void waiter_still_waits(struct waiter *waiter)
{
    CHECK(!atomic_load(&waiter->done), "the wait ended early, with %d (%s)", waiter->result,
          strerror(-waiter->result));
}

void waiter_succeeds(struct waiter *waiter)
{
    pthread_join(waiter->thread, NULL);
    GIVES(waiter->result, 0);
}
