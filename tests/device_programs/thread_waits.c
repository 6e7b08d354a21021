// A process of several threads that gets signals while some of them, or all, wait in calls.
#include "toy.h"

enum { THREADS = 6 };

static volatile sig_atomic_t handled[THREADS + 1];
static __thread int own_index; // 0: the first thread of the process
static pid_t process, tids[THREADS + 1];
static pthread_t threads[THREADS + 1];
static pthread_barrier_t all_there;
static int expected_flags;

static int times_handled(void)
{
    int sum = 0;
    for (int i = 0; i <= THREADS; i++)
        sum += handled[i];
    return sum;
}

static void note(int number)
{
    (void)number;
    handled[own_index]++;
}

static void waits_once(void)
{
    int result = wait_for(1);
    if (expected_flags & SA_RESTART)
        CHECK(result == 0);
    else
        CHECK(result == 0 || (result == -1 && errno == EINTR && handled[own_index]));
}

static void *thread(void *argument)
{
    own_index = (long)argument;
    tids[own_index] = syscall(SYS_gettid);
    pthread_barrier_wait(&all_there);
    waits_once();
    return NULL;
}

static void start_threads(int flags)
{
    expected_flags = flags;
    process = tids[0] = getpid();
    on_signal(SIGUSR1, note, flags);
    pthread_barrier_init(&all_there, NULL, THREADS + 1);
    for (long i = 1; i <= THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread, (void *)i) == 0);
    pthread_barrier_wait(&all_there);
}

static void join_threads(void)
{
    for (int i = 1; i <= THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void sleep_until(int (*reached)(void), int count)
{
    while (reached() < count)
        sched_yield();
}

// A signal for one thread is handled by that thread, in its wait; the others wait on.
static void directed(int flags)
{
    start_threads(flags);
    sleepers(THREADS);
    for (int i = 1; i <= THREADS; i++) {
        CHECK(thread_kill(process, tids[i], SIGUSR1) == 0);
        sleep_until(times_handled, i);
        CHECK(handled[i] == 1);
    }
    release(1);
    join_threads();
    CHECK(times_handled() == THREADS);
}

// A signal for the process, whose threads all wait: one of them handles it, all go on waiting.
// It is sent by a child, to the process, or to one of its threads by kill, which means the process all the same.
static void for_all(int flags, int to_thread)
{
    int status;
    start_threads(flags);
    pid_t child = fork();
    if (child == 0) {
        sleepers(THREADS + 1);
        kill(tids[to_thread], SIGUSR1);
        interrupted(1);
        release(1);
        _exit(0);
    }
    waits_once();
    join_threads();
    CHECK(times_handled() == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

// A signal for the process that one thread has blocked no less than all others: it stays pending, and ends
// nobody's wait; the first to unblock it handles it.
static void blocked(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    start_threads(SA_RESTART);
    sleepers(THREADS);
    kill(process, SIGUSR1);
    looks(5 * THREADS);
    CHECK(times_handled() == 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    CHECK(handled[0] == 1);
    release(1);
    join_threads();
}

// Only the last thread does not block it: it is the one.
static void one_taker(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    start_threads(SA_RESTART);
    sleepers(THREADS);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 10; i++) {
        int before = times_handled();
        kill(process, SIGUSR1);
        sleep_until(times_handled, before + 1);
        CHECK(handled[0] == 0);
    }
    release(1);
    join_threads();
}

// A thread that is in the program takes it; the waits last.
static void somebody_idle(void)
{
    start_threads(SA_RESTART);
    sleepers(THREADS);
    for (int i = 0; i < 20; i++) {
        kill(process, SIGUSR1);
        sleep_until(times_handled, i + 1);
    }
    CHECK(handled[0] == 20);
    release(1);
    join_threads();
}

// The whole process stops, also those of its threads that wait, and goes on.
static void stop(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        start_threads(SA_RESTART);
        waits_once();
        join_threads();
        _exit(0);
    }
    for (int i = 0; i < 3; i++) {
        sleepers((THREADS + 1) * (i + 1));
        kill(child, SIGSTOP);
        CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
        kill(child, SIGCONT);
        CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    }
    sleepers((THREADS + 1) * 4);
    release(1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

// One thread becomes another program; the others are in calls, and are gone.
static void become(const char *self)
{
    start_threads(SA_RESTART);
    sleepers(THREADS);
    execl(self, self, "after-exec", NULL);
    CHECK(!"exec");
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    const char *what = argv[1];
    int flags = argc > 2 && !strcmp(argv[2], "restart") ? SA_RESTART : 0;
    if (!strcmp(what, "directed"))
        directed(flags);
    else if (!strcmp(what, "process"))
        for_all(flags, 0);
    else if (!strcmp(what, "process-by-thread"))
        for_all(flags, THREADS);
    else if (!strcmp(what, "blocked"))
        blocked();
    else if (!strcmp(what, "one-taker"))
        one_taker();
    else if (!strcmp(what, "somebody-idle"))
        somebody_idle();
    else if (!strcmp(what, "stop"))
        stop();
    else if (!strcmp(what, "exec"))
        become(argv[0]);
    else if (!strcmp(what, "after-exec"))
        return interrupted(THREADS) != 0 || count(1) != 0;
    else
        return 2;
    return 0;
}
