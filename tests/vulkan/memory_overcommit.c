/*
 * Several devices, each with half of the device's memory and more, take turns: what one uses has to make room
 * for the other's, and comes back whole. Argument: MiB of memory for each device (five eighths of the heap if
 * none is given); of large memory only parts are used, so that it takes the host little.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define DEVICES 3
#define ROUNDS 3
#define CHUNKS 20
#define USED (512 * KIB) /* of a chunk: its start, the part behind its middle, its end */

static VkDeviceSize chunk_size(const struct gpu *gpu, const char *argument)
{
    VkDeviceSize heap =
        gpu->memory.memoryHeaps[gpu->memory.memoryTypes[memory_type(gpu, ~0u, LOCAL)].heapIndex].size;

    if (argument)
        return strtoull(argument, NULL, 0) * MIB / CHUNKS / MIB * MIB;
    if (heap > 512 * MIB)
        lacks("a heap small enough to be filled (%llu MiB)", (unsigned long long)(heap / MIB));
    return heap / 8 * 5 / CHUNKS / MIB * MIB;
}

static VkDeviceSize part(const struct buffer *chunk, uint32_t number)
{
    return number == 0 ? 0 : number == 1 ? chunk->size / 2 : chunk->size - USED;
}

/* Every part of every chunk of every device has words of its own in every round, and a pattern in them. */
static uint32_t word(uint32_t device, uint32_t chunk, uint32_t number, uint32_t round)
{
    return device << 24 | chunk << 16 | number << 8 | round;
}

static void write_chunks(const struct gpu *gpu, struct buffer *chunks, uint32_t device, uint32_t round)
{
    VkCommandBuffer commands = commands_begin(gpu);
    uint8_t head[4096];

    for (uint32_t i = 0; i < CHUNKS; i++)
        for (uint32_t number = 0; number < 3; number++) {
            uint32_t fill = word(device, i, number, round);
            VkDeviceSize at = part(&chunks[i], number);

            vkCmdFillBuffer(commands, chunks[i].handle, at, USED, fill);
            commands_barrier(commands);
            pattern(head, sizeof head, fill, 0);
            vkCmdUpdateBuffer(commands, chunks[i].handle, at + 12 * KIB, sizeof head, head);
        }
    commands_run(gpu, commands);
}

static void check_chunks(const struct gpu *gpu, struct buffer *chunks, uint32_t device, uint32_t round)
{
    struct buffer back = buffer_new(gpu, USED, HOST);
    uint8_t *expected = bytes_new(USED);

    for (uint32_t i = 0; i < CHUNKS; i++)
        for (uint32_t number = 0; number < 3; number++) {
            uint32_t fill = word(device, i, number, round);

            for (VkDeviceSize at = 0; at < USED; at += 4)
                memcpy(expected + at, &fill, 4);
            pattern(expected + 12 * KIB, 4096, fill, 0);
            copy_now(gpu, chunks[i].handle, part(&chunks[i], number), back.handle, 0, USED);
            SAME(back.bytes, expected, USED, "device %u, chunk %u, part %u, round %u", device, i, number,
                 round);
        }
    free(expected);
    buffer_free(gpu, &back);
}

int main(int argc, char **argv)
{
    struct gpu gpus[DEVICES];
    struct buffer chunks[DEVICES][CHUNKS];

    for (uint32_t i = 0; i < DEVICES; i++) {
        gpu_open(&gpus[i], NULL);
        for (uint32_t j = 0; j < CHUNKS; j++)
            chunks[i][j] = buffer_new(&gpus[i], chunk_size(&gpus[i], argc > 1 ? argv[1] : NULL), LOCAL);
    }
    CHECK(chunks[0][0].size >= 4 * USED, "%llu bytes are too few for a chunk",
          (unsigned long long)chunks[0][0].size);
    verified("%u devices with %u chunks of %llu MiB each", DEVICES, CHUNKS,
             (unsigned long long)(chunks[0][0].size / MIB));
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < DEVICES; i++)
            write_chunks(&gpus[i], chunks[i], i, round);
        for (uint32_t i = 0; i < DEVICES; i++)
            check_chunks(&gpus[i], chunks[i], i, round);
        verified("round %u: all devices' chunks hold what was written", round);
    }
    for (uint32_t i = 0; i < DEVICES; i++) {
        for (uint32_t j = 0; j < CHUNKS; j++)
            buffer_free(&gpus[i], &chunks[i][j]);
        gpu_close(&gpus[i]);
    }
    return 0;
}
