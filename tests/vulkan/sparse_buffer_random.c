/*
 * A thousand random binds, unbinds, fills and copies on a sparse buffer with residency, beside a model: a
 * table of blocks and the memories' bytes. Blocks may alias. Argument: the seed (1 if none).
 */
#include "vk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 48
#define MEMORIES 3
#define MEMORY_BLOCKS 32
#define HOLE (-1)
#define STEPS 1000

static VkDeviceSize block;
static int bound[BLOCKS]; /* block of all memories together, or HOLE */
static uint8_t *content;  /* of all memories, one after the other */
static VkDeviceMemory memories[MEMORIES];
static uint64_t state;

static uint32_t random_below(uint32_t bound_)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((state >> 33) % bound_);
}

/* The byte behind the buffer's byte `at`; NULL in a hole. */
static uint8_t *behind(VkDeviceSize at)
{
    int in = bound[at / block];

    return in == HOLE ? NULL : content + (VkDeviceSize)in * block + at % block;
}

/* Up to eight runs of blocks, in one call. Runs of one call do not overlap: they are made left to right. */
static void random_binds(const struct gpu *gpu, const struct buffer *sparse)
{
    VkSparseMemoryBind binds[8];
    uint32_t count = 0, at = random_below(BLOCKS / 2);

    while (count < LEN(binds) && at < BLOCKS) {
        uint32_t length = 1 + random_below(6), memory = random_below(MEMORIES), from;
        bool hole = random_below(4) == 0;

        if (length > BLOCKS - at)
            length = BLOCKS - at;
        from = random_below(MEMORY_BLOCKS - length + 1);
        binds[count++] =
            (VkSparseMemoryBind){ at * block, length * block, hole ? VK_NULL_HANDLE : memories[memory],
                                  hole ? 0 : from * block, 0 };
        for (uint32_t i = 0; i < length; i++)
            bound[at + i] = hole ? HOLE : (int)(memory * MEMORY_BLOCKS + from + i);
        at += length + random_below(6);
    }
    sparse_bind_buffer(gpu, sparse->handle, binds, count);
}

static void random_fill(VkCommandBuffer commands, const struct buffer *sparse)
{
    uint32_t word = random_below(1u << 31), first = random_below((uint32_t)(sparse->size / 4));
    uint32_t words = 1 + random_below((uint32_t)(sparse->size / 4) - first);

    vkCmdFillBuffer(commands, sparse->handle, first * 4ull, words * 4ull, word);
    commands_barrier(commands);
    for (VkDeviceSize at = first * 4ull; at < (first + words) * 4ull; at += 4)
        if (behind(at))
            memcpy(behind(at), &word, 4);
}

/* Within one block only: blocks that alias would be written twice by one copy, in no order. */
static void random_copy(VkCommandBuffer commands, const struct buffer *sparse, const struct buffer *in)
{
    VkDeviceSize at = (VkDeviceSize)random_below(BLOCKS) * block, offset = random_below((uint32_t)block);
    VkDeviceSize size = 1 + random_below((uint32_t)(block - offset));

    vkCmdCopyBuffer(commands, in->handle, sparse->handle, 1,
                    &(VkBufferCopy){ at + offset, at + offset, size });
    commands_barrier(commands);
    if (behind(at))
        memcpy(behind(at) + offset, in->bytes + at + offset, size);
}

/* Holes are zero where the driver says so; elsewhere any byte is right. */
static void check(const struct gpu *gpu, const struct buffer *sparse, const struct buffer *out, uint32_t step)
{
    uint8_t *expected = bytes_new(sparse->size);

    copy_now(gpu, sparse->handle, 0, out->handle, 0, sparse->size);
    for (uint32_t i = 0; i < BLOCKS; i++)
        if (bound[i] != HOLE)
            memcpy(expected + i * block, behind(i * block), block);
        else if (!gpu->properties.sparseProperties.residencyNonResidentStrict)
            memcpy(expected + i * block, out->bytes + i * block, block);
    SAME(out->bytes, expected, sparse->size, "after step %u", step);
    free(expected);
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1, checks = 0;
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyBuffer = VK_TRUE,
                                                 .sparseResidencyAliased = VK_TRUE } });
    printf("seed %u\n", seed);
    state = seed;
    struct buffer probe = buffer_sparse(&gpu, 1, RESIDENCY | ALIASED);
    block = buffer_needs(&gpu, probe.handle).alignment;
    buffer_free(&gpu, &probe);
    struct buffer sparse = buffer_sparse(&gpu, BLOCKS * block, RESIDENCY | ALIASED);
    struct buffer in = buffer_new(&gpu, sparse.size, HOST), out = buffer_new(&gpu, sparse.size, HOST);

    content = bytes_new(MEMORIES * MEMORY_BLOCKS * block);
    pattern(in.bytes, in.size, seed, 0);
    for (uint32_t i = 0; i < BLOCKS; i++)
        bound[i] = HOLE;
    for (uint32_t i = 0; i < MEMORIES; i++) {
        VkSparseMemoryBind whole = { .size = MEMORY_BLOCKS * block };
        VkCommandBuffer commands = commands_begin(&gpu);

        memories[i] =
            memory_new(&gpu, MEMORY_BLOCKS * block, buffer_needs(&gpu, sparse.handle).memoryTypeBits, 0);
        whole.memory = memories[i]; /* new memory holds anything: make it zero */
        sparse_bind_buffer(&gpu, sparse.handle, &whole, 1);
        vkCmdFillBuffer(commands, sparse.handle, 0, whole.size, 0);
        commands_run(&gpu, commands);
        whole.memory = VK_NULL_HANDLE;
        sparse_bind_buffer(&gpu, sparse.handle, &whole, 1);
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        VkCommandBuffer commands;

        random_binds(&gpu, &sparse);
        if (random_below(2))
            continue;
        commands = commands_begin(&gpu);
        for (uint32_t i = random_below(4); i; i--)
            random_below(2) ? random_fill(commands, &sparse) : random_copy(commands, &sparse, &in);
        commands_run(&gpu, commands);
        if (random_below(4) == 0 || step == STEPS - 1) {
            check(&gpu, &sparse, &out, step);
            checks++;
        }
    }
    verified("%u steps as the model says, checked %u times", STEPS, checks);
    free(content);
    buffer_free(&gpu, &sparse);
    buffer_free(&gpu, &in);
    buffer_free(&gpu, &out);
    for (uint32_t i = 0; i < MEMORIES; i++)
        vkFreeMemory(gpu.device, memories[i], NULL);
    gpu_close(&gpu);
    return 0;
}
