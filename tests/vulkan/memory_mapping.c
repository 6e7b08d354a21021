/*
 * Memory of the host: many mappings at once each with its own bytes, mapped again after unmapping, and a
 * mapping that a forked child keeps after the parent freed the memory and closed the device: the child still
 * reads and writes it, and nothing that the parent allocates later shows in it.
 */
#include "vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 64
#define SIZE(i) (64 * KIB * (1 + (i) % 7))

static void many(const struct gpu *gpu)
{
    VkDeviceMemory memories[COUNT];
    uint8_t *maps[COUNT], *expected = bytes_new(SIZE(6));

    for (uint32_t i = 0; i < COUNT; i++) {
        memories[i] = memory_new(gpu, SIZE(i), ~0u, HOST);
        maps[i] = memory_map(gpu, memories[i]);
        pattern(maps[i], SIZE(i), i, 0);
    }
    for (uint32_t i = 0; i < COUNT; i += 2) { /* every second one goes, and new ones take their place */
        vkUnmapMemory(gpu->device, memories[i]);
        if (i % 4)
            continue;
        vkFreeMemory(gpu->device, memories[i], NULL);
        memories[i] = memory_new(gpu, SIZE(i), ~0u, HOST);
        pattern(memory_map(gpu, memories[i]), SIZE(i), i, 0);
        vkUnmapMemory(gpu->device, memories[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i % 2 == 0)
            maps[i] = memory_map(gpu, memories[i]);
        pattern(expected, SIZE(i), i, 0);
        SAME(maps[i], expected, SIZE(i), "mapping %u of %u", i, COUNT);
        vkFreeMemory(gpu->device, memories[i], NULL);
    }
    free(expected);
    verified("%u mappings at once, half of them mapped again", COUNT);
}

/* In the child: no Vulkan, only the mapping. Reads one byte from `go` before it looks. */
static _Noreturn void child(uint8_t *map, int go)
{
    uint8_t *expected = bytes_new(4 * MIB);
    char byte;

    CHECK(read(go, &byte, 1) == 1, "the parent said nothing");
    pattern(expected, 4 * MIB, 7, 0);
    SAME(map, expected, 4 * MIB, "the child's mapping after the device was closed");
    pattern(expected, 4 * MIB, 8, 0);
    memcpy(map, expected, 4 * MIB);
    SAME(map, expected, 4 * MIB, "what the child wrote");
    _exit(0);
}

static void outlives(void)
{
    struct gpu gpu, later;
    struct buffer buffer, next;
    uint8_t *expected = bytes_new(4 * MIB);
    int pipe_ends[2], status;
    pid_t pid;

    gpu_open(&gpu, NULL);
    buffer = buffer_new(&gpu, 4 * MIB, HOST);
    pattern(buffer.bytes, buffer.size, 7, 0);
    CHECK(pipe(pipe_ends) == 0, "pipe");
    pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0)
        child(buffer.bytes, pipe_ends[0]);
    buffer_free(&gpu, &buffer);
    gpu_close(&gpu);

    gpu_open(&later, NULL);
    next = buffer_new(&later, 4 * MIB, HOST);
    pattern(expected, 4 * MIB, 9, 0);
    memcpy(next.bytes, expected, 4 * MIB);
    CHECK(write(pipe_ends[1], "g", 1) == 1, "the child is gone");
    CHECK(waitpid(pid, &status, 0) == pid, "waitpid");
    EQUAL(status, 0);
    SAME(next.bytes, expected, 4 * MIB, "memory of the next device while the child wrote");
    buffer_free(&later, &next);
    gpu_close(&later);
    free(expected);
    verified("a child's mapping outlives vkFreeMemory and vkDestroyDevice");
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    many(&gpu);
    gpu_close(&gpu);
    outlives();
    return 0;
}
