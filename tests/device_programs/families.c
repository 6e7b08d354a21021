// Processes: begotten in every way, killed in calls, becoming other programs. Arguments: what, how many.
#include "toy.h"
#include <sched.h>
#include <spawn.h>

static const char *self;

static void reap(int count, int killed)
{
    for (int i = 0; i < count; i++) {
        int status;
        CHECK(wait(&status) > 0);
        CHECK(killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0);
    }
}

static int clone_counts(void *argument)
{
    return count((long)argument) != 0;
}

// Each child counts once under number 1, by fork, vfork, clone with shared memory, posix_spawn; then some exec.
static void beget(int times)
{
    static char stacks[8][65536];
    for (volatile int i = 0; i < times; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (i % 2)
                execl(self, self, "count", "1", NULL);
            _exit(count(1) != 0);
        }
        CHECK(child > 0);
        child = vfork();
        if (child == 0) {
            execl(self, self, "count", "1", NULL);
            _exit(1);
        }
        CHECK(child > 0);
        CHECK(clone(clone_counts, stacks[i % 8] + 65536, CLONE_VM | SIGCHLD, (void *)1) > 0);
        char *arguments[] = {(char *)self, "count", "1", NULL};
        CHECK(posix_spawn(&child, self, NULL, NULL, arguments, NULL) == 0);
        reap(4, 0);
    }
}

// Children are killed while they wait in a call.
static void kill_waiting(int times)
{
    pid_t children[times];
    for (int i = 0; i < times; i++)
        if ((children[i] = fork()) == 0) {
            wait_for(1);
            _exit(1);
        }
    sleepers(times);
    for (int i = 0; i < times; i++)
        kill(children[i], SIGKILL);
    reap(times, 1);
    CHECK(interrupted(times) == 0);
}

// Children are killed anywhere in their calls.
static void kill_calling(int times)
{
    for (int i = 0; i < times; i++) {
        int gate[2];
        char byte;
        CHECK(pipe(gate) == 0);
        pid_t child = fork();
        if (child == 0) {
            count(1);
            CHECK(write(gate[1], "x", 1) == 1);
            for (;;)
                count(2);
        }
        CHECK(read(gate[0], &byte, 1) == 1);
        for (int spin = 0; spin < i * 37 % 1000; spin++)
            sched_yield();
        kill(child, SIGKILL);
        reap(1, 1);
        close(gate[0]);
        close(gate[1]);
    }
}

// A child outlives its parent, in a call.
static void orphan(void)
{
    if (fork() == 0) {
        CHECK(wait_for(1) == 0);
        count(1);
        _exit(0);
    }
    sleepers(1);
    if (fork() == 0) {
        pid_t parent = getppid();
        kill(parent, SIGKILL);
        while (getppid() == parent)
            sched_yield();
        release(1);
        _exit(0);
    }
    wait_for(2);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    self = argv[0];
    int times = atoi(argv[2]);
    if (!strcmp(argv[1], "count"))
        return count(times) != 0;
    if (!strcmp(argv[1], "beget"))
        beget(times);
    else if (!strcmp(argv[1], "kill-waiting"))
        kill_waiting(times);
    else if (!strcmp(argv[1], "kill-calling"))
        kill_calling(times);
    else if (!strcmp(argv[1], "orphan"))
        orphan();
    else
        return 2;
    return 0;
}
