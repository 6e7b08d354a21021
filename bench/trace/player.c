// Makes the calls of a file, as streaming_calls.py packs them, and prints the nanoseconds that they took: all of
// them together, and all of the program. player FILE ROUNDS: the second time and later with new opens of the device.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 16 };

struct step {
    uint32_t client, request, size, arrays;
};

struct array {
    uint32_t at, size;
};

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return 1e9 * (double)at.tv_sec + (double)at.tv_nsec;
}

static int failed(const char *what)
{
    fprintf(stderr, "player: %s: %s\n", what, strerror(errno));
    return 1;
}

// All calls once; the nanoseconds in them, -1 and errno if one was refused.
static double play(const char *at, const char *end)
{
    static char structure[1 << 14];
    int nodes[CLIENTS];
    double spent = 0;
    for (int client = 0; client < CLIENTS; client++)
        nodes[client] = -1;
    while (at < end) {
        struct step step;
        memcpy(&step, at, sizeof step);
        at += sizeof step;
        memcpy(structure, at, step.size);
        at += step.size;
        for (uint32_t i = 0; i < step.arrays; i++) {
            struct array array;
            memcpy(&array, at, sizeof array);
            at += sizeof array;
            uint64_t address = (uintptr_t)at;
            memcpy(structure + array.at, &address, sizeof address);
            at += array.size;
        }
        int *node = &nodes[step.client % CLIENTS];
        if (*node < 0 && (*node = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC)) < 0)
            return -1;
        double begin = now();
        int result = ioctl(*node, step.request, structure);
        spent += now() - begin;
        if (result)
            return -1;
    }
    for (int client = 0; client < CLIENTS; client++)
        if (nodes[client] >= 0)
            close(nodes[client]);
    return spent;
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: player FILE ROUNDS\n");
        return 2;
    }
    int file = open(words[1], O_RDONLY | O_CLOEXEC);
    struct stat found;
    if (file < 0 || fstat(file, &found))
        return failed(words[1]);
    const char *calls = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (calls == MAP_FAILED)
        return failed("mmap");
    for (int round = 0; round < atoi(words[2]); round++) {
        double begin = now(), spent = play(calls, calls + found.st_size);
        if (spent < 0)
            return failed("ioctl");
        printf("%.0f %.0f\n", spent, now() - begin);
        fflush(stdout);
    }
    return 0;
}
