/*
 * Two sparse images of one kind on one memory, each with mip tails of its own: what is written to one shows
 * in the other, but in the tails. The cases of CTS sparse_resources.image_sparse_memory_aliasing.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t width, height, depth, layers;
    bool cube;
} SHAPES[] = {
    { "2D", 512, 256, 1, 1, false },           { "2D odd", 503, 137, 1, 1, false },
    { "2D small", 11, 37, 1, 1, false },       { "2D array", 512, 256, 1, 6, false },
    { "2D array odd", 503, 137, 1, 3, false }, { "cube", 256, 256, 1, 6, true },
    { "cube array", 137, 137, 1, 18, true },   { "3D", 256, 256, 16, 1, false },
    { "3D odd", 503, 137, 3, 1, false },
};

static uint32_t first_tail_mip;

static bool in_tail(const struct place *place)
{
    return place->mip >= first_tail_mip;
}

static void write_all(const struct gpu *gpu, const struct image *image, const struct buffer *in,
                      uint32_t seed)
{
    VkCommandBuffer commands = commands_begin(gpu);

    pattern(in->bytes, in->size, seed, 0);
    image_upload(commands, image, in);
    commands_run(gpu, commands);
}

static void run(const struct gpu *gpu, const VkImageCreateInfo *info, const char *shape)
{
    struct image reads = image_sparse(gpu, info), writes = image_sparse(gpu, info);
    struct blocks blocks = blocks_of(gpu, &reads);
    VkDeviceSize shared = blocks_size(&reads, &blocks), tails = tails_size(&blocks);
    VkDeviceMemory memory = memory_new(gpu, shared + 2 * tails, blocks.type_bits, 0);
    struct buffer in = buffer_new(gpu, packed_offset(&reads, info->mipLevels), HOST);
    struct buffer out = buffer_new(gpu, in.size, HOST);
    uint8_t *expected = bytes_new(in.size);
    VkCommandBuffer commands = commands_begin(gpu);

    first_tail_mip = blocks.tail;
    bind_blocks(gpu, &reads, &blocks, memory, 0, NULL);
    bind_blocks(gpu, &writes, &blocks, memory, 0, NULL);
    bind_tails(gpu, &reads, &blocks, memory, shared);
    bind_tails(gpu, &writes, &blocks, memory, shared + tails);
    image_ready(commands, &reads);
    image_ready(commands, &writes);
    commands_run(gpu, commands);

    write_all(gpu, &reads, &in, 1);
    memcpy(expected, in.bytes, in.size);
    write_all(gpu, &writes, &in, 2);
    packed_take(&reads, &blocks, in.bytes, expected, in_tail); /* the second's blocks, the first's tails */
    memcpy(expected, in.bytes, in.size);

    commands = commands_begin(gpu);
    image_download(commands, &reads, &out);
    commands_run(gpu, commands);
    SAME(out.bytes, expected, out.size, "%s, VkFormat %d, %u mips of %u in the tail", shape, info->format,
         info->mipLevels - blocks.tail, info->mipLevels);
    verified("%s, VkFormat %d: %llu KiB shared, %u tails apart", shape, info->format,
             (unsigned long long)(shared / KIB), blocks.tails);
    free(expected);
    image_free(gpu, &reads);
    image_free(gpu, &writes);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    vkFreeMemory(gpu->device, memory, NULL);
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R8G8B8A8_UNORM,
                                        VK_FORMAT_R32G32B32A32_UINT };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyImage2D = VK_TRUE,
                                                 .sparseResidencyImage3D = VK_TRUE,
                                                 .sparseResidencyAliased = VK_TRUE,
                                                 .imageCubeArray = VK_TRUE } });
    for (size_t i = 0; i < LEN(SHAPES); i++)
        for (size_t j = 0; j < LEN(formats); j++) {
            VkImageCreateInfo info =
                image_info(formats[j], SHAPES[i].width, SHAPES[i].height, SHAPES[i].depth);

            info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT |
                         VK_IMAGE_CREATE_SPARSE_ALIASED_BIT |
                         (SHAPES[i].cube ? VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT : 0);
            info.arrayLayers = SHAPES[i].layers;
            info.mipLevels = SHAPES[i].width < 64 ? 6 : 8; /* down to one texel in a side */
            if (blocks_supported(&gpu, &info))
                run(&gpu, &info, SHAPES[i].name);
            else
                verified("(no sparse image %s of VkFormat %d)", SHAPES[i].name, formats[j]);
        }
    gpu_close(&gpu);
    return 0;
}
