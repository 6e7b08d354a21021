/*
 * Blocks of a sparse image bound to one memory, then to another, in all mips and layers; then one block in
 * every direction from the first goes back, in the last layer alone: it shows what the first memory held, all
 * else what the second does. The cases of CTS sparse_resources.image_rebind, with mips and tails beside.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t width, height, depth, layers;
    bool cube;
} SHAPES[] = {
    { "2D", 512, 256, 1, 1, false },           { "2D even", 128, 128, 1, 1, false },
    { "2D odd", 503, 137, 1, 1, false },       { "2D array", 512, 256, 1, 6, false },
    { "2D array odd", 503, 137, 1, 3, false }, { "cube", 256, 256, 1, 6, true },
    { "cube array", 137, 137, 1, 18, true },   { "3D", 256, 256, 16, 1, false },
    { "3D odd", 503, 137, 3, 1, false },
};

static struct place back_again; /* the block that goes back to the first memory */

static bool is_back(const struct place *place)
{
    return memcmp(place, &back_again, sizeof *place) == 0;
}

static void write_all(const struct gpu *gpu, const struct image *image, const struct buffer *in,
                      uint32_t seed)
{
    VkCommandBuffer commands = commands_begin(gpu);

    pattern(in->bytes, in->size, seed, 0);
    image_ready(commands, image);
    image_upload(commands, image, in);
    commands_run(gpu, commands);
}

static void check(const struct gpu *gpu, const struct image *image, const struct buffer *out,
                  const uint8_t *expected, const char *shape, const char *what)
{
    VkCommandBuffer commands = commands_begin(gpu);

    memset(out->bytes, 0, out->size);
    image_download(commands, image, out);
    commands_run(gpu, commands);
    SAME(out->bytes, expected, out->size, "%s, VkFormat %d, %s", shape, image->info.format, what);
}

static void run(const struct gpu *gpu, const VkImageCreateInfo *info, const char *shape)
{
    struct image image = image_sparse(gpu, info);
    struct blocks blocks = blocks_of(gpu, &image);
    VkDeviceSize tails_at = blocks_size(&image, &blocks), size = tails_at + tails_size(&blocks);
    VkExtent3D in_mip_0 = blocks_in(&image, &blocks, 0);
    struct buffer in = buffer_new(gpu, packed_offset(&image, info->mipLevels), HOST);
    struct buffer out = buffer_new(gpu, in.size, HOST);
    uint8_t *first_content = bytes_new(in.size), *expected = bytes_new(in.size);
    VkDeviceMemory memories[2];

    for (uint32_t i = 0; i < 2; i++) {
        memories[i] = memory_new(gpu, size, blocks.type_bits, 0);
        bind_blocks(gpu, &image, &blocks, memories[i], 0, NULL);
        bind_tails(gpu, &image, &blocks, memories[i], tails_at);
        write_all(gpu, &image, &in, i + 1);
        memcpy(i ? expected : first_content, in.bytes, in.size);
        check(gpu, &image, &out, in.bytes, shape, i ? "bound to a second memory" : "bound");
    }

    if (blocks.tail) { /* else all of it is tail */
        back_again = (struct place){ 0, info->arrayLayers - 1, in_mip_0.width > 1, in_mip_0.height > 1,
                                     in_mip_0.depth > 1 };
        bind_blocks(gpu, &image, &blocks, memories[0],
                    ((((VkDeviceSize)back_again.layer * in_mip_0.depth + back_again.z) * in_mip_0.height +
                      back_again.y) *
                         in_mip_0.width +
                     back_again.x) *
                        blocks.size,
                    is_back);
        packed_take(&image, &blocks, expected, first_content, is_back);
        check(gpu, &image, &out, expected, shape, "one block back on the first memory");
    }

    bind_blocks(gpu, &image, &blocks, memories[0], 0, NULL);
    bind_tails(gpu, &image, &blocks, memories[0], tails_at);
    check(gpu, &image, &out, first_content, shape, "all back on the first memory");
    verified("%s, VkFormat %d, blocks of %ux%ux%u, %u mips in the tail", shape, info->format,
             blocks.extent.width, blocks.extent.height, blocks.extent.depth, info->mipLevels - blocks.tail);
    free(first_content);
    free(expected);
    image_free(gpu, &image);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    vkFreeMemory(gpu->device, memories[0], NULL);
    vkFreeMemory(gpu->device, memories[1], NULL);
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R16_UINT, VK_FORMAT_R8G8B8A8_UNORM,
                                        VK_FORMAT_R32G32_UINT, VK_FORMAT_R32G32B32A32_UINT };
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .sparseBinding = VK_TRUE,
                                                 .sparseResidencyImage2D = VK_TRUE,
                                                 .sparseResidencyImage3D = VK_TRUE,
                                                 .sparseResidencyAliased = VK_TRUE,
                                                 .imageCubeArray = VK_TRUE } });
    for (size_t i = 0; i < LEN(SHAPES); i++)
        for (size_t j = 0; j < 2 * LEN(formats); j++) {
            VkImageCreateInfo info =
                image_info(formats[j / 2], SHAPES[i].width, SHAPES[i].height, SHAPES[i].depth);

            info.flags = VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT |
                         (SHAPES[i].cube ? VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT : 0);
            info.arrayLayers = SHAPES[i].layers;
            info.mipLevels = j % 2 ? 8 : 1; /* 2^7: the smallest larger side */
            if (blocks_supported(&gpu, &info))
                run(&gpu, &info, SHAPES[i].name);
            else
                verified("(no sparse image %s of VkFormat %d)", SHAPES[i].name, info.format);
        }
    gpu_close(&gpu);
    return 0;
}
