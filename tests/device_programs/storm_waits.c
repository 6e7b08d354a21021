// Threads that wait in calls while signals of every kind rain on them. A wait may only end with EINTR where a
// handler that does not restart it ran in its thread. Arguments: threads, waits of each, "restart" or "end".
#include "toy.h"
#include <time.h>

enum { MOST = 16 };

static __thread long own_index = -1;
static __thread volatile sig_atomic_t handled;
static pid_t process, tids[MOST];
static int threads, flags;
static long waits, ended, handlers;
static volatile int finished;
static pthread_barrier_t all_there;

static void note(int number)
{
    (void)number;
    handled++;
}

static void *worker(void *argument)
{
    own_index = (long)argument;
    tids[own_index] = syscall(SYS_gettid);
    pthread_barrier_wait(&all_there);
    for (long i = 0; i < waits; i++) {
        int before = handled;
        int result = doze(5000);
        CHECK(result == 0 || (result == -1 && errno == EINTR && !(flags & SA_RESTART) && handled > before));
        if (result)
            __atomic_add_fetch(&ended, 1, __ATOMIC_RELAXED);
    }
    __atomic_add_fetch(&handlers, handled, __ATOMIC_RELAXED);
    return NULL;
}

static void *rain(void *unused)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    pthread_barrier_wait(&all_there);
    for (unsigned turn = 0; !finished; turn++) {
        if (turn % 3 == 0)
            kill(process, SIGUSR1);
        else if (turn % 3 == 1)
            kill(tids[turn % threads], SIGUSR2); // for the process, although it names a thread
        else
            thread_kill(process, tids[turn % threads], SIGRTMIN);
        struct timespec pause = {0, 1700000};
        nanosleep(&pause, NULL);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t workers[MOST], sender;
    CHECK(argc == 4);
    threads = atoi(argv[1]);
    waits = atol(argv[2]);
    flags = strcmp(argv[3], "restart") ? 0 : SA_RESTART;
    process = getpid();
    on_signal(SIGUSR1, note, flags);
    on_signal(SIGUSR2, note, flags);
    on_signal(SIGRTMIN, note, flags);
    on_signal(SIGRTMAX, note, flags);
    pthread_barrier_init(&all_there, NULL, threads + 1);
    CHECK(pthread_create(&sender, NULL, rain, NULL) == 0);
    for (long i = 1; i < threads; i++)
        CHECK(pthread_create(&workers[i], NULL, worker, (void *)i) == 0);

    // The kernel gives what this timer sends to whichever thread runs.
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMAX};
    struct itimerspec every = {{0, 3100000}, {0, 3100000}};
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &every, NULL) == 0);
    worker((void *)0);
    for (int i = 1; i < threads; i++)
        CHECK(pthread_join(workers[i], NULL) == 0);
    finished = 1;
    CHECK(pthread_join(sender, NULL) == 0);
    printf("%ld %ld\n", ended, handlers);
    return 0;
}
