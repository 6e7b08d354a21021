// A file system of our own that never answers: paths into it sleep, and the device goes on.
#define _GNU_SOURCE
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "node.h"

static char inside[4096];

static void *opens(void *unused)
{
    (void)unused;
    open(inside, O_RDWR);
    return NULL;
}

static void *stats(void *unused)
{
    struct stat status;
    (void)unused;
    fstatat(AT_FDCWD, inside, &status, 0);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (unshare(CLONE_NEWNS)) {
        printf("no FUSE\n");
        return 0;
    }
    char options[128], buffer[FUSE_MIN_READ_BUFFER * 2];
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0) {
        printf("no FUSE\n");
        return 0;
    }
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", fuse, geteuid(),
             getegid());
    if (mount("silent", argv[1], "fuse", MS_NOSUID | MS_NODEV, options)) {
        printf("no FUSE\n");
        return 0;
    }
    CHECK(read(fuse, buffer, sizeof buffer) > 0);
    struct fuse_in_header *asked = (void *)buffer;
    struct fuse_init_in *theirs = (void *)(asked + 1);
    CHECK(asked->opcode == FUSE_INIT);
    struct { struct fuse_out_header header; struct fuse_init_out init; } answer = {
        .header = {.len = sizeof answer, .unique = asked->unique},
        .init = {.major = FUSE_KERNEL_VERSION, .minor = theirs->minor, .max_readahead = theirs->max_readahead,
                 .max_write = 4096},
    };
    CHECK(write(fuse, &answer, sizeof answer) == sizeof answer);
    snprintf(inside, sizeof inside, "%s/a/b", argv[1]);
    pid_t child = fork();  // whoever waits for us must not be what keeps us open
    if (!child) {
        pthread_t threads[8];
        close(fuse);
        for (int i = 0; i < 8; i++)
            CHECK(pthread_create(&threads[i], NULL, i & 1 ? opens : stats, NULL) == 0);
        pause();
    }
    CHECK(read(fuse, buffer, sizeof buffer) > 0);  // somebody sleeps by now
    for (int i = 0; i < 50; i++) {
        int fd = open_node();
        CHECK(works(fd));
        close(fd);
    }
    printf("the device goes on\n");
    fflush(stdout);
    kill(child, SIGKILL);
    close(fuse);
    CHECK(waitpid(child, NULL, 0) == child);
    return 0;
}
