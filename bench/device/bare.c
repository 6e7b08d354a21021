// The floor: a supervisor that receives and answers, and does nothing. bare [--sync-wake-up] PROGRAM ARG...
//
// What it catches are the calls of client.c that `gpuvm run` catches. An open to read and write is of the node: it gets
// a descriptor of /dev/null. All ioctls of DRM are done, 0; those without an argument, other opens and states go on.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Of Linux 6.6; older headers lack them.
#define SET_FLAGS SECCOMP_IOW(4, __u64)
#define SYNC_WAKE_UP 1ul

static void failed(const char *what)
{
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static int listen_to_calls(void)
{
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define CATCH_IF(value) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
    struct sock_filter code[] = {
        LOAD(nr),
        CATCH_IF(SYS_openat),
        CATCH_IF(SYS_newfstatat),
        CATCH_IF(SYS_fstat),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4),
        LOAD(args[1]),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
        CATCH_IF('d' << 8),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        failed("PR_SET_NO_NEW_PRIVS");
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void ended(int signal)
{
    int status;
    (void)signal;
    _exit(wait(&status) > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

static void answer(int listener, const struct seccomp_notif *call, int null)
{
    struct seccomp_notif_resp answer = {.id = call->id};
    if (call->data.nr == SYS_openat && (call->data.args[2] & O_ACCMODE) == O_RDWR) {
        struct seccomp_notif_addfd given = {.id = call->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = (__u32)null};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &given) < 0)
            failed("SECCOMP_IOCTL_NOTIF_ADDFD");
        return;
    }
    if (call->data.nr != SYS_ioctl || !call->data.args[2])
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer))
        failed("SECCOMP_IOCTL_NOTIF_SEND");
}

int main(int count, char **words)
{
    int sync = count > 1 && !strcmp(words[1], "--sync-wake-up"), listener, ready[2], null;
    if (pipe(ready) || (null = open("/dev/null", O_RDWR)) < 0)
        failed("pipe");
    signal(SIGCHLD, ended);
    // The descriptors are shared until the program is executed, so the listener is here, too.
    long child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);
    if (!child) {
        if ((listener = listen_to_calls()) < 0)
            failed("SECCOMP_FILTER_FLAG_NEW_LISTENER");
        if (write(ready[1], &listener, sizeof listener) != sizeof listener)
            failed("write");
        execv(words[1 + sync], words + 1 + sync);
        failed(words[1 + sync]);
    }
    if (child < 0 || read(ready[0], &listener, sizeof listener) != sizeof listener)
        failed("clone");
    if (sync && ioctl(listener, SET_FLAGS, SYNC_WAKE_UP))
        failed("SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP");
    for (;;) {
        struct seccomp_notif call = {0};
        if (!ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call))
            answer(listener, &call, null);
        else if (errno != EINTR && errno != ENOENT)
            failed("SECCOMP_IOCTL_NOTIF_RECV");
    }
}
