// The calls of tests/toys.py, and how a program of the transport's tests checks.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("%s:%d: %s; errno %d\n", __FILE__, __LINE__, #what, errno);                     \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static inline int call(int number, long argument)
{
    return ioctl(-1, _IO('d', number), argument);
}

// Counts; never sleeps.
static inline int count(long what) { return call(1, what); }
// Sleeps until release(what); a signal may end it.
static inline int wait_for(long what) { return call(2, what); }
static inline int release(long what) { return call(3, what); }
// Sleeps until release(what); no signal ends it.
static inline int insist_on(long what) { return call(4, what); }
// Sleeps until wait_for and insist_on began to sleep so many times in all.
static inline int sleepers(long times) { return call(5, times); }
// Sleeps until so many waits ended by a signal or by their caller's death.
static inline int interrupted(long times) { return call(6, times); }
// Sleeps until the watcher has looked at callers' signals so many times more.
static inline int looks(long times) { return call(7, times); }
// Sleeps so many microseconds; a signal may end it.
static inline int doze(long microseconds) { return call(8, microseconds); }

static inline void on_signal(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(number, &action, NULL) == 0);
}

static inline int thread_kill(pid_t process, pid_t thread, int number)
{
    return syscall(SYS_tgkill, process, thread, number);
}
