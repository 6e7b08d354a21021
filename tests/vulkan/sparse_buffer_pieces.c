/*
 * Many small copies in one command out of a sparse buffer with holes, and into it: pieces that begin, end and
 * lie across the edges of holes, aligned and not ("multi copy" of CTS sparse_resources.buffer.ssbo).
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static VkDeviceSize block;

/* Blocks 0, 3, 6, ... are bound. */
static bool resident(VkDeviceSize at)
{
    return at / block % 3 == 0;
}

static uint32_t pieces(VkBufferCopy *regions, VkDeviceSize size)
{
    uint32_t count = 0;

    for (VkDeviceSize edge = block; edge < size; edge += block) {
        regions[count++] = (VkBufferCopy){ edge - 29, edge - 29, 13 };
        regions[count++] = (VkBufferCopy){ edge - 16, edge - 16, 18 }; /* over the edge */
        regions[count++] = (VkBufferCopy){ edge + 2, edge + 2, 1 };
        regions[count++] = (VkBufferCopy){ edge + 4, edge + 4, 16 };
        regions[count++] = (VkBufferCopy){ edge + 100, edge + 100, block / 2 + 1 };
    }
    regions[count++] = (VkBufferCopy){ size - 5, size - 5, 5 };
    return count;
}

static void run(const struct gpu *gpu, const struct buffer *from, const struct buffer *to,
                const VkBufferCopy *regions, uint32_t count)
{
    VkCommandBuffer commands = commands_begin(gpu);

    vkCmdCopyBuffer(commands, from->handle, to->handle, count, regions);
    commands_run(gpu, commands);
}

static void check(const struct gpu *gpu, const uint8_t *got, const uint8_t *content,
                  const VkBufferCopy *regions, uint32_t count, const char *what)
{
    bool strict = gpu->properties.sparseProperties.residencyNonResidentStrict;

    for (uint32_t i = 0; i < count; i++)
        for (VkDeviceSize at = regions[i].srcOffset; at < regions[i].srcOffset + regions[i].size; at++)
            if (resident(at) || strict)
                CHECK(got[at] == (resident(at) ? content[at] : 0),
                      "%s, piece %u, byte %llu: expected %#x, got %#x", what, i, (unsigned long long)at,
                      resident(at) ? content[at] : 0, got[at]);
    verified("%u %s", count, what);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu,
             &(struct wish){ .features = { .sparseBinding = VK_TRUE, .sparseResidencyBuffer = VK_TRUE } });
    struct buffer sparse = buffer_sparse(&gpu, 2 * MIB, RESIDENCY);
    VkMemoryRequirements needs = buffer_needs(&gpu, sparse.handle);
    VkDeviceMemory memory = memory_new(&gpu, needs.size, needs.memoryTypeBits, 0);
    struct buffer in = buffer_new(&gpu, sparse.size, HOST), out = buffer_new(&gpu, sparse.size, HOST);
    VkBufferCopy *regions = bytes_new((5 * sparse.size / needs.alignment + 1) * sizeof *regions);
    uint32_t count;

    block = needs.alignment;
    count = pieces(regions, sparse.size);
    bind_every(&gpu, &sparse, memory, 0, 3);

    pattern(in.bytes, in.size, 1, 0);
    copy_now(&gpu, in.handle, 0, sparse.handle, 0, in.size);
    memset(out.bytes, 0x5a, out.size);
    run(&gpu, &sparse, &out, regions, count);
    check(&gpu, out.bytes, in.bytes, regions, count, "pieces copied out of a buffer with holes");

    pattern(in.bytes, in.size, 2, 0);
    run(&gpu, &in, &sparse, regions, count);
    copy_now(&gpu, sparse.handle, 0, out.handle, 0, out.size);
    check(&gpu, out.bytes, in.bytes, regions, count, "pieces copied into a buffer with holes");

    free(regions);
    buffer_free(&gpu, &sparse);
    buffer_free(&gpu, &in);
    buffer_free(&gpu, &out);
    vkFreeMemory(gpu.device, memory, NULL);
    gpu_close(&gpu);
    return 0;
}
