/*
 * Copies of parts between buffers and images: offsets into the image, bufferRowLength and bufferImageHeight
 * larger than the part, buffer offsets, several layers and slices, many regions in one command; what lies
 * around the parts, in the image and in the buffer, stays.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 203
#define HEIGHT 119
#define SLICES 9 /* layers, or the depth */

struct part {
    int32_t x, y, z;
    uint32_t width, height, depth;
    uint32_t row, rows; /* bufferRowLength, bufferImageHeight; 0: tight */
    VkDeviceSize texel_offset;
};

static const struct part PARTS[] = {
    { 0, 0, 0, 1, 1, 1, 0, 0, 0 },
    { 3, 5, 1, 17, 31, 2, 0, 0, 64 },
    { 64, 8, 0, 64, 64, SLICES, 80, 70, 5000 },
    { 100, 101, 4, 103, 18, 5, 104, 0, 60000 }, /* to the right and lower edges */
    { 0, 90, 3, 61, 1, 1, 203, 119, 90000 },
    { 150, 0, 2, 1, 60, 3, 7, 61, 100001 },
};

static uint64_t texel_in_buffer(const struct part *part, uint32_t x, uint32_t y, uint32_t z)
{
    uint64_t row = part->row ? part->row : part->width, rows = part->rows ? part->rows : part->height;

    return part->texel_offset + (z * rows + y) * row + x;
}

static VkBufferImageCopy region(const struct part *part, bool is_3d, uint32_t texel)
{
    return (VkBufferImageCopy){
        .bufferOffset = part->texel_offset * texel,
        .bufferRowLength = part->row,
        .bufferImageHeight = part->rows,
        .imageSubresource = { VK_IMAGE_ASPECT_COLOR_BIT, 0, is_3d ? 0 : (uint32_t)part->z,
                              is_3d ? 1 : part->depth },
        .imageOffset = { part->x, part->y, is_3d ? part->z : 0 },
        .imageExtent = { part->width, part->height, is_3d ? part->depth : 1 },
    };
}

/* The same on packed bytes: `to` is the image if `in`, the buffer otherwise. */
static void model(uint8_t *to, const uint8_t *from, const struct part *part, uint32_t texel, bool in)
{
    for (uint32_t z = 0; z < part->depth; z++)
        for (uint32_t y = 0; y < part->height; y++)
            for (uint32_t x = 0; x < part->width; x++) {
                uint64_t image = ((part->z + z) * (uint64_t)HEIGHT + part->y + y) * WIDTH + part->x + x;
                uint64_t buffer = texel_in_buffer(part, x, y, z);

                memcpy(to + (in ? image : buffer) * texel, from + (in ? buffer : image) * texel, texel);
            }
}

static void run(const struct gpu *gpu, VkFormat format, VkImageTiling tiling, bool is_3d)
{
    VkImageCreateInfo info = image_info(format, WIDTH, HEIGHT, is_3d ? SLICES : 1);
    uint32_t texel = texel_size(format);
    VkDeviceSize packed = (VkDeviceSize)WIDTH * HEIGHT * SLICES * texel;
    VkBufferImageCopy regions[LEN(PARTS)];
    uint8_t *expected = bytes_new(packed);
    struct image image;
    VkCommandBuffer commands;

    info.tiling = tiling;
    info.arrayLayers = is_3d ? 1 : SLICES;
    if (!image_supported(gpu, &info)) {
        verified("(none offered: VkFormat %d, tiling %d, %s)", format, tiling, is_3d ? "3D" : "layers");
        return;
    }
    struct buffer in = buffer_new(gpu, packed, HOST), out = buffer_new(gpu, packed, HOST);
    image = image_new(gpu, &info, 0);
    pattern(in.bytes, packed, 1, 0);
    memcpy(expected, in.bytes, packed);
    commands = commands_begin(gpu);
    image_ready(commands, &image);
    image_upload(commands, &image, &in);
    commands_run(gpu, commands);

    pattern(in.bytes, packed, 2, 0);
    for (size_t i = 0; i < LEN(PARTS); i++) {
        regions[i] = region(&PARTS[i], is_3d, texel);
        model(expected, in.bytes, &PARTS[i], texel, true);
    }
    commands = commands_begin(gpu);
    vkCmdCopyBufferToImage(commands, in.handle, image.handle, VK_IMAGE_LAYOUT_GENERAL, LEN(regions), regions);
    commands_barrier(commands);
    image_download(commands, &image, &out);
    commands_run(gpu, commands);
    SAME(out.bytes, expected, packed, "parts into an image, VkFormat %d, tiling %d, 3D %d", format, tiling,
         is_3d);

    memcpy(in.bytes, expected, packed);
    pattern(out.bytes, packed, 3, 0);
    pattern(expected, packed, 3, 0);
    for (size_t i = 0; i < LEN(PARTS); i++)
        model(expected, in.bytes, &PARTS[i], texel, false);
    commands = commands_begin(gpu);
    vkCmdCopyImageToBuffer(commands, image.handle, VK_IMAGE_LAYOUT_GENERAL, out.handle, LEN(regions),
                           regions);
    commands_run(gpu, commands);
    SAME(out.bytes, expected, packed, "parts out of an image, VkFormat %d, tiling %d, 3D %d", format, tiling,
         is_3d);
    verified("%zu parts in and out, VkFormat %d, %s tiling, %s", LEN(PARTS), format,
             tiling == VK_IMAGE_TILING_LINEAR ? "linear" : "optimal", is_3d ? "3D" : "layers");
    free(expected);
    image_free(gpu, &image);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
}

int main(void)
{
    static const VkFormat formats[] = { VK_FORMAT_R8_UNORM, VK_FORMAT_R16_UINT, VK_FORMAT_R8G8B8A8_UNORM,
                                        VK_FORMAT_R32G32_UINT, VK_FORMAT_R32G32B32A32_UINT };
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    for (size_t i = 0; i < LEN(formats); i++)
        for (uint32_t kind = 0; kind < 4; kind++)
            run(&gpu, formats[i], kind & 1 ? VK_IMAGE_TILING_LINEAR : VK_IMAGE_TILING_OPTIMAL, kind & 2);
    gpu_close(&gpu);
    return 0;
}
