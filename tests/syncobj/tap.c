#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE = 60 }; /* seconds; a case takes a tenth of one */

static const char *current;
static int cases, bad;

void not_ok(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    char why[512];

    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    dprintf(STDOUT_FILENO, "not ok %s: %s:%d: %s\n", current, file, line, why);
    _exit(1); /* of whichever thread found it */
}

static const char *describe(char *text, size_t size, long long value)
{
    if (value < 0 && value > -4096)
        snprintf(text, size, "%lld (%s)", value, strerror((int)-value));
    else
        snprintf(text, size, "%lld", value);
    return text;
}

void gives(const char *file, int line, const char *what, long long got, long long expected)
{
    char is[80], should_be[80];

    if (got != expected)
        not_ok(file, line, "%s: expected %s, got %s", what, describe(should_be, sizeof should_be, expected),
               describe(is, sizeof is, got));
}

static _Noreturn void child(const char *path, case_function *run, const struct variant *variant)
{
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    CHECK(!path || fd >= 0, "open %s: %s", path, strerror(errno));
    alarm(PATIENCE);
    run(fd, variant);
    _exit(0);
}

void run_case(const char *path, const char *name, case_function *run, const struct variant *variant)
{
    int status;
    pid_t pid;

    cases++;
    current = name;
    pid = fork();
    if (pid == 0)
        child(path, run, variant);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid, "fork or waitpid: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        dprintf(STDOUT_FILENO, "ok %s\n", name);
        return;
    }
    bad++;
    if (WIFSIGNALED(status))
        dprintf(STDOUT_FILENO, "not ok %s: %s\n", name,
                WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
}

int finish(void)
{
    dprintf(STDOUT_FILENO, "1..%d\n", cases);
    return bad ? 1 : 0;
}
