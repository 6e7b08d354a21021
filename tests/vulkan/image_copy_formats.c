/*
 * A buffer copied into an image and back: formats of one to sixteen bytes, sizes that are odd, prime and
 * larger than a tile, in one, two and three dimensions, with all mips and several layers; optimal tiling, and
 * linear where it is offered.
 */
#include "vk.h"

#include <string.h>

static const VkFormat FORMATS[] = {
    VK_FORMAT_R8_UNORM,          VK_FORMAT_R8G8_UINT,           VK_FORMAT_R5G6B5_UNORM_PACK16,
    VK_FORMAT_R8G8B8A8_UNORM,    VK_FORMAT_B8G8R8A8_UNORM,      VK_FORMAT_A2B10G10R10_UNORM_PACK32,
    VK_FORMAT_R32_SFLOAT,        VK_FORMAT_R16G16B16A16_SFLOAT, VK_FORMAT_R32G32_UINT,
    VK_FORMAT_R32G32B32A32_UINT,
};

static const struct {
    uint32_t width, height, depth, mips, layers; /* height 0: one dimension */
} SHAPES[] = {
    { 1, 1, 1, 1, 1 },    { 64, 64, 1, 7, 1 },   { 11, 137, 1, 8, 3 }, { 503, 137, 1, 9, 2 },
    { 1000, 7, 1, 1, 1 }, { 318, 202, 1, 2, 1 }, { 11, 0, 1, 1, 3 },   { 1024, 0, 1, 11, 8 },
    { 64, 64, 64, 7, 1 }, { 37, 21, 11, 6, 1 },  { 5, 3, 129, 8, 1 },
};

static bool run(const struct gpu *gpu, const VkImageCreateInfo *info, uint32_t seed)
{
    struct image image;
    struct buffer in, out;
    VkCommandBuffer commands;

    if (!image_supported(gpu, info))
        return false;
    image = image_new(gpu, info, 0);
    in = buffer_new(gpu, packed_offset(&image, info->mipLevels), HOST);
    out = buffer_new(gpu, in.size, HOST);
    pattern(in.bytes, in.size, seed, 0);
    memset(out.bytes, 0, out.size);
    commands = commands_begin(gpu);
    image_ready(commands, &image);
    image_upload(commands, &image, &in);
    commands_barrier(commands);
    image_download(commands, &image, &out);
    commands_run(gpu, commands);
    SAME(out.bytes, in.bytes, in.size, "VkFormat %d, %ux%ux%u, %u mips, %u layers, tiling %d", info->format,
         info->extent.width, info->extent.height, info->extent.depth, info->mipLevels, info->arrayLayers,
         info->tiling);
    image_free(gpu, &image);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
    return true;
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    for (size_t i = 0; i < LEN(FORMATS); i++) {
        uint32_t optimal = 0, linear = 0;

        for (uint32_t j = 0; j < LEN(SHAPES); j++) {
            VkImageCreateInfo info =
                image_info(FORMATS[i], SHAPES[j].width, SHAPES[j].height, SHAPES[j].depth);

            info.mipLevels = SHAPES[j].mips;
            info.arrayLayers = SHAPES[j].layers;
            CHECK(run(&gpu, &info, j), "VkFormat %d: no image of shape %u", FORMATS[i], j);
            optimal++;
            info.tiling = VK_IMAGE_TILING_LINEAR;
            info.mipLevels = info.arrayLayers = 1; /* more need not be offered */
            linear += run(&gpu, &info, j + 100);
        }
        verified("VkFormat %d: %u images of optimal tiling, %u of linear", FORMATS[i], optimal, linear);
    }
    gpu_close(&gpu);
    return 0;
}
