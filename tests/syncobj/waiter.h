/* A thread that waits for syncobjs while the case goes on. */
#ifndef WAITER_H
#define WAITER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "syncobj.h"

struct waiter {
    int fd;
    struct wait wait;
    int result;
    pthread_t thread;
    atomic_int tid;
    atomic_bool done;
};

/* Comes back when the thread's call has been taken up. */
void waiter_begin(struct waiter *waiter);
/* Fails unless the thread is still in its call. */
void waiter_still_waits(struct waiter *waiter);
/* Fails unless the wait succeeds. */
void waiter_succeeds(struct waiter *waiter);
/* Comes back when this thread sleeps in an ioctl. */
void until_in_ioctl(pid_t tid);

#endif
