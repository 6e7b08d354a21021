// Lists directories, a line each, opens the node, and looks whether it is alone in its root directory.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int by_name(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static void list(const char *path)
{
    static char *names[256];
    int count = 0;
    DIR *directory = opendir(path);
    printf("%s:", path);
    for (struct dirent *entry; directory && count < 256 && (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            names[count++] = strdup(entry->d_name);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++)
        printf(" %s", names[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    struct stat root, above;
    for (int i = 1; i < argc; i++)
        list(argv[i]);
    if (open("/dev/dri/renderD128", O_RDWR) < 0 || stat("/", &root) || stat("/..", &above))
        return 1;
    printf("opened, alone: %s\n", root.st_ino == above.st_ino && root.st_dev == above.st_dev ? "yes" : "no");
    return 0;
}
