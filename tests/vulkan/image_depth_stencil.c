/*
 * Depth and stencil copied one aspect at a time: each aspect's bytes come back and the other's stay. In
 * D24_UNORM_S8_UINT a copied depth texel is four bytes, the low three of which count.
 */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 139
#define HEIGHT 61
#define LAYERS 2

static const struct {
    const char *name;
    VkFormat format;
    uint32_t depth_size, stencil_size; /* bytes of one texel of the aspect in a buffer */
    bool last_byte;                    /* whether the last byte of a depth texel says something */
} FORMATS[] = {
    { "D16_UNORM", VK_FORMAT_D16_UNORM, 2, 0, true },
    { "D32_SFLOAT", VK_FORMAT_D32_SFLOAT, 4, 0, true },
    { "X8_D24_UNORM_PACK32", VK_FORMAT_X8_D24_UNORM_PACK32, 4, 0, false },
    { "S8_UINT", VK_FORMAT_S8_UINT, 0, 1, true },
    { "D24_UNORM_S8_UINT", VK_FORMAT_D24_UNORM_S8_UINT, 4, 1, false },
    { "D32_SFLOAT_S8_UINT", VK_FORMAT_D32_SFLOAT_S8_UINT, 4, 1, true },
};

static VkBufferImageCopy whole(VkImageAspectFlags aspect)
{
    return (VkBufferImageCopy){ .imageSubresource = { aspect, 0, 0, LAYERS },
                                .imageExtent = { WIDTH, HEIGHT, 1 } };
}

static void write_aspect(const struct gpu *gpu, VkImage image, VkImageAspectFlags aspect,
                         const struct buffer *from)
{
    VkCommandBuffer commands = commands_begin(gpu);
    VkBufferImageCopy region = whole(aspect);

    vkCmdCopyBufferToImage(commands, from->handle, image, VK_IMAGE_LAYOUT_GENERAL, 1, &region);
    commands_run(gpu, commands);
}

static void check_aspect(const struct gpu *gpu, VkImage image, VkImageAspectFlags aspect,
                         const struct buffer *want, uint32_t texel, bool last_byte, const char *what)
{
    struct buffer out = buffer_new(gpu, want->size, HOST);
    uint8_t *expected = bytes_new(want->size);
    VkCommandBuffer commands = commands_begin(gpu);
    VkBufferImageCopy region = whole(aspect);

    memset(out.bytes, 0x5a, out.size);
    vkCmdCopyImageToBuffer(commands, image, VK_IMAGE_LAYOUT_GENERAL, out.handle, 1, &region);
    commands_run(gpu, commands);
    memcpy(expected, want->bytes, want->size);
    for (VkDeviceSize at = texel - 1; at < want->size && !last_byte; at += texel)
        expected[at] = out.bytes[at];
    SAME(out.bytes, expected, want->size, "%s", what);
    verified("%s", what);
    free(expected);
    buffer_free(gpu, &out);
}

/* Depth floats must be numbers: a driver may go through floating point. */
static void depth_pattern(struct buffer *buffer, VkFormat format, uint32_t seed)
{
    pattern(buffer->bytes, buffer->size, seed, 0);
    if (format != VK_FORMAT_D32_SFLOAT && format != VK_FORMAT_D32_SFLOAT_S8_UINT)
        return;
    for (VkDeviceSize at = 0; at < buffer->size; at += 4) {
        uint16_t number;
        float depth;

        memcpy(&number, buffer->bytes + at, sizeof number);
        depth = (float)number / 65535;
        memcpy(buffer->bytes + at, &depth, 4);
    }
}

static void run(const struct gpu *gpu, size_t index)
{
    VkFormat format = FORMATS[index].format;
    VkImageCreateInfo info = image_info(format, WIDTH, HEIGHT, 1);
    uint32_t texels = WIDTH * HEIGHT * LAYERS, d = FORMATS[index].depth_size, s = FORMATS[index].stencil_size;
    VkImageAspectFlags aspects = (d ? VK_IMAGE_ASPECT_DEPTH_BIT : 0) | (s ? VK_IMAGE_ASPECT_STENCIL_BIT : 0);
    struct image image;
    VkCommandBuffer commands;

    info.arrayLayers = LAYERS;
    if (!image_supported(gpu, &info)) {
        verified("(no images of %s)", FORMATS[index].name);
        return;
    }
    image = image_new(gpu, &info, 0);
    struct buffer depth = buffer_new(gpu, texels * (d ? d : 1), HOST),
                  stencil = buffer_new(gpu, texels, HOST);
    commands = commands_begin(gpu);
    image_ready_aspects(commands, &image, aspects);
    commands_run(gpu, commands);
    for (uint32_t round = 0; round < 2; round++) { /* depth, then stencil; and the other way */
        depth_pattern(&depth, format, 10 + round);
        pattern(stencil.bytes, stencil.size, 20 + round, 0);
        if (s && round)
            write_aspect(gpu, image.handle, VK_IMAGE_ASPECT_STENCIL_BIT, &stencil);
        if (d)
            write_aspect(gpu, image.handle, VK_IMAGE_ASPECT_DEPTH_BIT, &depth);
        if (s && !round)
            write_aspect(gpu, image.handle, VK_IMAGE_ASPECT_STENCIL_BIT, &stencil);
        if (d)
            check_aspect(gpu, image.handle, VK_IMAGE_ASPECT_DEPTH_BIT, &depth, d, FORMATS[index].last_byte,
                         FORMATS[index].name);
        if (s)
            check_aspect(gpu, image.handle, VK_IMAGE_ASPECT_STENCIL_BIT, &stencil, 1, true,
                         FORMATS[index].name);
    }
    image_free(gpu, &image);
    buffer_free(gpu, &depth);
    buffer_free(gpu, &stencil);
}

int main(void)
{
    struct gpu gpu;

    gpu_open(&gpu, NULL);
    for (size_t i = 0; i < LEN(FORMATS); i++)
        run(&gpu, i);
    gpu_close(&gpu);
    return 0;
}
