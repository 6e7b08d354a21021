// Opens paths that other threads change meanwhile. Whatever it gets is one of the two files, or an error that either
// could have given: seconds, then nothing is left open.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NODE "/dev/dri/renderD128"
#define OTHER "/dev/null//////////"

static char text[64] = NODE;
static char scratch[4096];
static atomic_int over;
static atomic_long nodes, others, refused;

static void *rewrite(void *unused)
{
    (void)unused;
    while (!over) {
        memcpy(text, OTHER, sizeof NODE - 1);
        memcpy(text, NODE, sizeof NODE - 1);
    }
    return NULL;
}

// A link that now is to the node and now to the other file, each replaced in one step.
static void *relink(void *unused)
{
    char link[4128], next[4128];
    (void)unused;
    snprintf(link, sizeof link, "%s/link", scratch);
    snprintf(next, sizeof next, "%s/next", scratch);
    for (int i = 0; !over; i++) {
        if (symlink(i & 1 ? NODE : "/dev/null", next) || rename(next, link))
            abort();
    }
    return NULL;
}

// Directories that are moved about while paths lead through them.
static void *move(void *unused)
{
    char here[4128], there[4128];
    (void)unused;
    snprintf(here, sizeof here, "%s/here", scratch);
    snprintf(there, sizeof there, "%s/there", scratch);
    while (!over)
        if (rename(here, there) || rename(there, here))
            abort();
    return NULL;
}

static void count(int fd)
{
    struct stat status;
    if (fd < 0) {
        if (errno != ENOENT && errno != EACCES && errno != ENXIO && errno != ENOTDIR)
            printf("refused with %d\n", errno);
        refused++;
        return;
    }
    if (fstat(fd, &status) || !S_ISCHR(status.st_mode))
        printf("a descriptor of mode %o\n", status.st_mode);
    else if (status.st_rdev == makedev(226, 128))
        nodes++;
    else if (status.st_rdev == makedev(1, 3))
        others++;
    else
        printf("a descriptor of %u:%u\n", major(status.st_rdev), minor(status.st_rdev));
    close(fd);
}

static void *opens(void *argument)
{
    char link[4128], moved[4128];
    snprintf(link, sizeof link, "%s/link", scratch);
    snprintf(moved, sizeof moved, "%s/here/deep/../deep/link", scratch);
    for (int i = 0; i < *(int *)argument; i++) {
        count(open(text, O_RDWR));
        count(open(link, O_RDWR));
        count(open(moved, O_RDWR));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t changing[3], opening[3];
    char path[4128];
    int rounds = argc > 2 ? atoi(argv[2]) : 100;
    snprintf(scratch, sizeof scratch, "%s", argv[1]);
    snprintf(path, sizeof path, "%s/here", scratch);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/here/deep", scratch);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/here/deep/link", scratch);
    if (symlink("../../link", path))
        return 1;
    snprintf(path, sizeof path, "%s/link", scratch);
    if (symlink(NODE, path))
        return 1;
    pthread_create(&changing[0], NULL, rewrite, NULL);
    pthread_create(&changing[1], NULL, relink, NULL);
    pthread_create(&changing[2], NULL, move, NULL);
    for (int i = 0; i < 3; i++)
        pthread_create(&opening[i], NULL, opens, &rounds);
    for (int i = 0; i < 3; i++)
        pthread_join(opening[i], NULL);
    over = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(changing[i], NULL);
    printf("%ld in all, %s\n", nodes + others + refused, nodes && others ? "some of each" : "not of each");
    return 0;
}
