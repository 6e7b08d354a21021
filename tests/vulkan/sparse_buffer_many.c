/*
 * Twelve thousand binds in one vkQueueBindSparse, no two of which are neighbours in memory as in the buffer,
 * so that none can be joined; each block tells where it lies. Then all move by one block in one more call,
 * and all are unbound.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define BLOCKS 12000u
#define TOLD 64 /* bytes of a block that are looked at */

/* Neighbours in the buffer are 7919 blocks apart in memory: a prime, so that all are met. */
static VkDeviceSize memory_block(uint32_t block, uint32_t turn)
{
    return ((uint64_t)block * 7919 + turn) % BLOCKS;
}

static void bind_all(const struct gpu *gpu, const struct buffer *sparse, VkDeviceMemory memory,
                     VkDeviceSize block, uint32_t turn)
{
    VkSparseMemoryBind *binds = bytes_new(BLOCKS * sizeof *binds);

    for (uint32_t i = 0; i < BLOCKS; i++)
        binds[i] =
            (VkSparseMemoryBind){ i * block, block, memory, memory ? memory_block(i, turn) * block : 0, 0 };
    sparse_bind_buffer(gpu, sparse->handle, binds, BLOCKS);
    free(binds);
}

/* The first bytes of every block, to or from a buffer in which they lie side by side. */
static void heads(const struct gpu *gpu, const struct buffer *sparse, const struct buffer *packed,
                  VkDeviceSize block, bool write)
{
    VkBufferCopy *regions = bytes_new(BLOCKS * sizeof *regions);
    VkCommandBuffer commands = commands_begin(gpu);

    for (uint32_t i = 0; i < BLOCKS; i++)
        regions[i] =
            write ? (VkBufferCopy){ i * TOLD, i * block, TOLD } : (VkBufferCopy){ i * block, i * TOLD, TOLD };
    if (write)
        vkCmdCopyBuffer(commands, packed->handle, sparse->handle, BLOCKS, regions);
    else
        vkCmdCopyBuffer(commands, sparse->handle, packed->handle, BLOCKS, regions);
    commands_run(gpu, commands);
    free(regions);
}

int main(void)
{
    struct gpu gpu;
    uint8_t *expected = bytes_new(BLOCKS * TOLD), *in_memory = bytes_new(BLOCKS * TOLD);

    gpu_open(&gpu,
             &(struct wish){ .features = { .sparseBinding = VK_TRUE, .sparseResidencyBuffer = VK_TRUE } });
    struct buffer probe = buffer_sparse(&gpu, 1, RESIDENCY);
    VkDeviceSize block = buffer_needs(&gpu, probe.handle).alignment;
    struct buffer sparse = buffer_sparse(&gpu, BLOCKS * block, RESIDENCY);
    VkMemoryRequirements needs = buffer_needs(&gpu, sparse.handle);
    VkDeviceMemory memory = memory_new(&gpu, needs.size, needs.memoryTypeBits, 0);
    struct buffer packed = buffer_new(&gpu, BLOCKS * TOLD, HOST);

    bind_all(&gpu, &sparse, memory, block, 0);
    pattern(packed.bytes, packed.size, 1, 0);
    for (uint32_t i = 0; i < BLOCKS; i++)
        memcpy(in_memory + memory_block(i, 0) * TOLD, packed.bytes + i * TOLD, TOLD);
    heads(&gpu, &sparse, &packed, block, true);
    memcpy(expected, packed.bytes, packed.size);
    memset(packed.bytes, 0, packed.size);
    heads(&gpu, &sparse, &packed, block, false);
    SAME(packed.bytes, expected, packed.size, "bound");
    verified("%u binds of blocks that are not neighbours", BLOCKS);

    bind_all(&gpu, &sparse, memory, block, 1);
    for (uint32_t i = 0; i < BLOCKS; i++)
        memcpy(expected + i * TOLD, in_memory + memory_block(i, 1) * TOLD, TOLD);
    heads(&gpu, &sparse, &packed, block, false);
    SAME(packed.bytes, expected, packed.size, "bound to the next block");
    verified("all bound to the next block");

    bind_all(&gpu, &sparse, VK_NULL_HANDLE, block, 0);
    heads(&gpu, &sparse, &packed, block, false);
    if (gpu.properties.sparseProperties.residencyNonResidentStrict)
        ZERO(packed.bytes, packed.size, "unbound");
    verified("all unbound");

    buffer_free(&gpu, &probe);
    buffer_free(&gpu, &sparse);
    buffer_free(&gpu, &packed);
    vkFreeMemory(gpu.device, memory, NULL);
    gpu_close(&gpu);
    free(expected);
    free(in_memory);
    return 0;
}
