// A program of one thread that gets signals while it waits in a call. The one who sends them is its parent.
#include "toy.h"

static volatile sig_atomic_t handled, nested_result, nested_errno;

static void note(int number)
{
    (void)number;
    handled++;
}

// Lets the wait go that it interrupted: a restarted call finds it done.
static void note_and_release(int number)
{
    note(number);
    nested_result = release(1);
    nested_errno = errno;
}

// Waits itself, and is interrupted itself, by another signal.
static void wait_in_handler(int number)
{
    note(number);
    nested_result = wait_for(2);
    nested_errno = errno;
    release(1);
}

static void nothing(int number)
{
    (void)number;
}

static pid_t child;

static int end_of_child(void)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void expect_success(void)
{
    CHECK(end_of_child() == 0);
}

// The call is repeated, and succeeds.
static void restart(void)
{
    if ((child = fork()) == 0) {
        on_signal(SIGUSR1, note_and_release, SA_RESTART);
        CHECK(wait_for(1) == 0);
        CHECK(handled == 1 && nested_result == 0);
        _exit(0);
    }
    sleepers(1);
    kill(child, SIGUSR1);
    expect_success();
}

static void no_restart(void)
{
    if ((child = fork()) == 0) {
        on_signal(SIGUSR1, note_and_release, 0);
        CHECK(wait_for(1) == -1 && errno == EINTR);
        CHECK(handled == 1 && nested_result == 0);
        _exit(0);
    }
    sleepers(1);
    kill(child, SIGUSR1);
    expect_success();
}

static void nested(void)
{
    if ((child = fork()) == 0) {
        on_signal(SIGUSR1, wait_in_handler, SA_RESTART);
        on_signal(SIGUSR2, note, 0);
        CHECK(wait_for(1) == 0);
        CHECK(handled == 2 && nested_result == -1 && nested_errno == EINTR);
        _exit(0);
    }
    sleepers(1);
    kill(child, SIGUSR1);
    sleepers(2);
    kill(child, SIGUSR2);
    expect_success();
}

// A signal that would do nothing does not end the wait.
static void of_no_effect(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    if ((child = fork()) == 0) {
        signal(SIGUSR1, SIG_IGN);
        on_signal(SIGUSR2, note, 0);
        sigprocmask(SIG_BLOCK, &set, NULL);
        CHECK(wait_for(1) == 0);
        CHECK(handled == 0);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        CHECK(handled == 1);
        _exit(0);
    }
    sleepers(1);
    for (int i = 0; i < 3; i++) {
        kill(child, SIGUSR1); // ignored
        kill(child, SIGUSR2); // blocked
        kill(child, SIGWINCH); // ignored, by default
        kill(child, SIGCONT);
        looks(6); // at the child, or at us
    }
    release(1);
    expect_success();
}

// The process stops although it waits in a call, and later waits on.
static void stop(int number)
{
    int status;
    if ((child = fork()) == 0) {
        setpgid(0, 0);  // a group that is an orphan, as ours may be, does not stop at SIGTSTP
        CHECK(wait_for(1) == 0);
        _exit(0);
    }
    sleepers(1);
    for (int i = 0; i < 3; i++) {
        kill(child, number);
        CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == number);
        kill(child, SIGCONT);
        CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
        sleepers(2 + i);
    }
    release(1);
    expect_success();
}

static void dies_of(int number)
{
    if ((child = fork()) == 0) {
        wait_for(1);
        _exit(1);
    }
    sleepers(1);
    kill(child, number);
    int status = end_of_child();
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == number);
    interrupted(1); // who served it is free again
}

// What no signal may end goes on to its end, and then the handler runs.
static void insist(void)
{
    if ((child = fork()) == 0) {
        on_signal(SIGUSR1, note, 0);
        CHECK(insist_on(1) == 0);
        CHECK(handled == 1);
        _exit(0);
    }
    sleepers(1);
    kill(child, SIGUSR1);
    looks(6);
    release(1);
    expect_success();
}

// A signal every millisecond for a while, and a wait that is repeated each time it is ended.
static void timer(int flags)
{
    if ((child = fork()) == 0) {
        struct itimerval every = {{0, 1000}, {0, 1000}};
        on_signal(SIGALRM, note, flags);
        setitimer(ITIMER_REAL, &every, NULL);
        for (int i = 0; i < 40; i++) {
            int result = wait_for(1);
            CHECK(result == 0 || (result == -1 && errno == EINTR && !(flags & SA_RESTART)));
            if (result == 0)
                break;
        }
        release(1);
        CHECK(handled > 5);
        _exit(0);
    }
    if (flags & SA_RESTART) {
        interrupted(20);
        release(1);
    }
    expect_success();
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    const char *what = argv[1];
    signal(SIGCHLD, nothing);
    if (!strcmp(what, "restart"))
        restart();
    else if (!strcmp(what, "no-restart"))
        no_restart();
    else if (!strcmp(what, "nested"))
        nested();
    else if (!strcmp(what, "of-no-effect"))
        of_no_effect();
    else if (!strcmp(what, "insist"))
        insist();
    else if (!strcmp(what, "timer-restart"))
        timer(SA_RESTART);
    else if (!strcmp(what, "timer"))
        timer(0);
    else if (!strcmp(what, "stop"))
        stop(argc > 2 ? atoi(argv[2]) : SIGSTOP);
    else if (!strcmp(what, "die"))
        dies_of(argc > 2 ? atoi(argv[2]) : SIGKILL);
    else
        return 2;
    return 0;
}
