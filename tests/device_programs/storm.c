// Threads that call while signals rain on them. Each prints how many calls of its succeeded, and how many its
// handler made: the server must have counted the same, no call twice and none lost.
// Arguments: threads, calls of each, "restart" or "end".
#include "toy.h"

enum { MOST = 16, IN_HANDLER = 100 };

static __thread long own_index = -1;
static __thread volatile sig_atomic_t in_handler;
static long calls, done[MOST], handlers_done[MOST];
static pid_t process, tids[MOST];
static int threads, flags;
static volatile int finished;
static pthread_barrier_t all_there;

// As drmIoctl does.
static int repeated(int (*what)(long), long argument)
{
    int result;
    do {
        result = what(argument);
        CHECK(result == 0 || (result == -1 && errno == EINTR));
    } while (result != 0);
    return result;
}

static void call_too(int number)
{
    int before = errno;
    (void)number;
    if (own_index >= 0 && !in_handler) {
        in_handler = 1;
        repeated(count, IN_HANDLER + own_index);
        handlers_done[own_index]++;
        in_handler = 0;
    }
    errno = before;
}

static void *worker(void *argument)
{
    own_index = (long)argument;
    tids[own_index] = syscall(SYS_gettid);
    pthread_barrier_wait(&all_there);
    for (long i = 0; i < calls; i++) {
        repeated(count, own_index);
        done[own_index]++;
    }
    return NULL;
}

// Signals for threads; ITIMER_REAL sends those for the process.
static void *rain(void *unused)
{
    pthread_barrier_wait(&all_there);
    for (unsigned turn = 0; !finished; turn++) {
        thread_kill(process, tids[turn % threads], turn % 3 ? SIGUSR1 : SIGUSR2);
        struct timespec pause = {0, 100000};
        nanosleep(&pause, NULL);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t workers[MOST], sender;
    struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    CHECK(argc == 4);
    threads = atoi(argv[1]);
    calls = atol(argv[2]);
    flags = strcmp(argv[3], "restart") ? 0 : SA_RESTART;
    process = getpid();
    on_signal(SIGUSR1, call_too, flags);
    on_signal(SIGUSR2, call_too, flags | SA_NODEFER);
    on_signal(SIGALRM, call_too, flags);
    pthread_barrier_init(&all_there, NULL, threads + 1);
    CHECK(pthread_create(&sender, NULL, rain, NULL) == 0);
    for (long i = 1; i < threads; i++)
        CHECK(pthread_create(&workers[i], NULL, worker, (void *)i) == 0);
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
    worker((void *)0);
    for (int i = 1; i < threads; i++)
        CHECK(pthread_join(workers[i], NULL) == 0);
    setitimer(ITIMER_REAL, &never, NULL);
    finished = 1;
    CHECK(pthread_join(sender, NULL) == 0);
    for (int i = 0; i < threads; i++)
        printf("%d %ld %ld\n", i, done[i], handlers_done[i]);
    return 0;
}
