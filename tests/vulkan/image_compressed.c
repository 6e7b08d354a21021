/*
 * Block-compressed images: copies whole and in parts, with extents that are no multiple of the 4x4 texel
 * block, all mips, buffer rows longer than the part; and a copy of blocks to an image of plain texels of
 * their size.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 237
#define HEIGHT 101
#define MIPS 8
#define LAYERS 2
#define ACROSS(extent) (((extent) + 3) / 4) /* texel blocks */

static const struct {
    const char *name;
    VkFormat format, plain; /* `plain`: a texel of it is as large as a block */
    uint32_t size;          /* of a block */
} FORMATS[] = {
    { "BC1_RGB_UNORM", VK_FORMAT_BC1_RGB_UNORM_BLOCK, VK_FORMAT_R32G32_UINT, 8 },
    { "BC3_UNORM", VK_FORMAT_BC3_UNORM_BLOCK, VK_FORMAT_R32G32B32A32_UINT, 16 },
    { "BC7_SRGB", VK_FORMAT_BC7_SRGB_BLOCK, VK_FORMAT_R32G32B32A32_UINT, 16 },
};

static uint32_t mips_packed(const struct image *image, uint32_t size, VkBufferImageCopy *regions,
                            VkDeviceSize *end)
{
    *end = 0;
    for (uint32_t mip = 0; mip < MIPS; mip++) {
        VkExtent3D extent = mip_extent(image, mip);

        regions[mip] = (VkBufferImageCopy){ .bufferOffset = *end,
                                            .imageSubresource = { VK_IMAGE_ASPECT_COLOR_BIT, mip, 0, LAYERS },
                                            .imageExtent = extent };
        *end += (VkDeviceSize)ACROSS(extent.width) * ACROSS(extent.height) * LAYERS * size;
    }
    return MIPS;
}

/* 7x5 blocks from block (3, 2) on, and the blocks at the right and lower edges, which are cut by the extent;
 * in the buffer each with rows of 20 blocks, one after the other. */
static const struct {
    uint32_t x, y, width, height; /* in blocks */
} PARTS[] = { { 3, 2, 7, 5 }, { ACROSS(WIDTH) - 4, 0, 4, 9 }, { 5, ACROSS(HEIGHT) - 3, 13, 3 } };
#define ROW 20
#define PART_SIZE(size) (ROW * 9 * (size))

static VkBufferImageCopy part_region(uint32_t part, uint32_t size)
{
    uint32_t x = PARTS[part].x * 4, y = PARTS[part].y * 4, width = PARTS[part].width * 4,
             height = PARTS[part].height * 4;

    return (VkBufferImageCopy){
        .bufferOffset = part * PART_SIZE(size),
        .bufferRowLength = ROW * 4,
        .imageSubresource = { VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 1 },
        .imageOffset = { (int32_t)x, (int32_t)y, 0 },
        .imageExtent = { width < WIDTH - x ? width : WIDTH - x, height < HEIGHT - y ? height : HEIGHT - y,
                         1 },
    };
}

static void run(const struct gpu *gpu, size_t index)
{
    VkImageCreateInfo info = image_info(FORMATS[index].format, WIDTH, HEIGHT, 1);
    VkImageCreateInfo plain_info = image_info(FORMATS[index].plain, ACROSS(WIDTH), ACROSS(HEIGHT), 1);
    uint32_t size = FORMATS[index].size, layer = ACROSS(WIDTH) * ACROSS(HEIGHT) * size;
    VkBufferImageCopy regions[MIPS], parts[LEN(PARTS)];
    struct image image, plain = image_new(gpu, &plain_info, 0);
    VkDeviceSize packed;
    VkCommandBuffer commands = commands_begin(gpu);

    info.mipLevels = MIPS;
    info.arrayLayers = LAYERS;
    CHECK(image_supported(gpu, &info), "no images of %s", FORMATS[index].name);
    image = image_new(gpu, &info, 0);
    mips_packed(&image, size, regions, &packed);
    struct buffer in = buffer_new(gpu, packed, HOST), out = buffer_new(gpu, packed, HOST);
    uint8_t *expected = bytes_new(packed);

    pattern(in.bytes, packed, 1, 0);
    memcpy(expected, in.bytes, packed);
    image_ready(commands, &image);
    image_ready(commands, &plain);
    vkCmdCopyBufferToImage(commands, in.handle, image.handle, VK_IMAGE_LAYOUT_GENERAL, MIPS, regions);
    commands_barrier(commands);
    vkCmdCopyImageToBuffer(commands, image.handle, VK_IMAGE_LAYOUT_GENERAL, out.handle, MIPS, regions);
    commands_run(gpu, commands);
    SAME(out.bytes, expected, packed, "%s, whole", FORMATS[index].name);

    pattern(in.bytes, packed, 2, 0);
    for (uint32_t i = 0; i < LEN(PARTS); i++) {
        parts[i] = part_region(i, size);
        for (uint32_t y = 0; y < PARTS[i].height; y++)
            memcpy(expected + layer + ((PARTS[i].y + y) * ACROSS(WIDTH) + PARTS[i].x) * size,
                   in.bytes + i * PART_SIZE(size) + y * ROW * size, PARTS[i].width * size);
    }
    commands = commands_begin(gpu);
    vkCmdCopyBufferToImage(commands, in.handle, image.handle, VK_IMAGE_LAYOUT_GENERAL, LEN(parts), parts);
    commands_barrier(commands);
    vkCmdCopyImageToBuffer(commands, image.handle, VK_IMAGE_LAYOUT_GENERAL, out.handle, MIPS, regions);
    vkCmdCopyImage(commands, image.handle, VK_IMAGE_LAYOUT_GENERAL, plain.handle, VK_IMAGE_LAYOUT_GENERAL, 1,
                   &(VkImageCopy){ .srcSubresource = { VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 1 },
                                   .dstSubresource = { VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1 },
                                   .extent = { WIDTH, HEIGHT, 1 } });
    commands_run(gpu, commands);
    SAME(out.bytes, expected, packed, "%s, parts", FORMATS[index].name);

    commands = commands_begin(gpu);
    image_download(commands, &plain, &out);
    commands_run(gpu, commands);
    SAME(out.bytes, expected + layer, layer, "%s, copied to plain texels", FORMATS[index].name);
    verified("%s, whole, in parts and as plain texels", FORMATS[index].name);
    free(expected);
    image_free(gpu, &image);
    image_free(gpu, &plain);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, &(struct wish){ .features = { .textureCompressionBC = VK_TRUE } });
    for (size_t i = 0; i < LEN(FORMATS); i++)
        run(&gpu, i);
    gpu_close(&gpu);
    return 0;
}
