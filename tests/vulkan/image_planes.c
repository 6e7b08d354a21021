/* Images of two and three planes (Y'CbCr): each plane's bytes go in and come out, whole and in part. */
#include "vk.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 318
#define HEIGHT 202

static const struct {
    const char *name;
    VkFormat format;
    uint32_t planes;
    struct {
        uint32_t across, down, texel; /* how often coarser than the image; bytes */
    } plane[3];
} FORMATS[] = {
    { "NV12", VK_FORMAT_G8_B8R8_2PLANE_420_UNORM, 2, { { 1, 1, 1 }, { 2, 2, 2 } } },
    { "I420", VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM, 3, { { 1, 1, 1 }, { 2, 2, 1 }, { 2, 2, 1 } } },
    { "4:2:2, two planes", VK_FORMAT_G8_B8R8_2PLANE_422_UNORM, 2, { { 1, 1, 1 }, { 2, 1, 2 } } },
    { "4:4:4, three planes",
      VK_FORMAT_G8_B8_R8_3PLANE_444_UNORM,
      3,
      { { 1, 1, 1 }, { 1, 1, 1 }, { 1, 1, 1 } } },
    { "P010", VK_FORMAT_G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16, 2, { { 1, 1, 2 }, { 2, 2, 4 } } },
};

static const VkImageAspectFlagBits ASPECTS[] = { VK_IMAGE_ASPECT_PLANE_0_BIT, VK_IMAGE_ASPECT_PLANE_1_BIT,
                                                 VK_IMAGE_ASPECT_PLANE_2_BIT };

static void run(const struct gpu *gpu, size_t index)
{
    VkImageCreateInfo info = image_info(FORMATS[index].format, WIDTH, HEIGHT, 1);
    VkBufferImageCopy whole[3], part;
    VkDeviceSize packed = 0;
    struct image image;
    VkCommandBuffer commands;

    if (!image_supported(gpu, &info)) {
        verified("(no images of %s)", FORMATS[index].name);
        return;
    }
    image = image_new(gpu, &info, 0);
    for (uint32_t i = 0; i < FORMATS[index].planes; i++) {
        uint32_t width = WIDTH / FORMATS[index].plane[i].across,
                 height = HEIGHT / FORMATS[index].plane[i].down;

        packed = (packed + 3) / 4 * 4;
        whole[i] = (VkBufferImageCopy){ .bufferOffset = packed,
                                        .imageSubresource = { ASPECTS[i], 0, 0, 1 },
                                        .imageExtent = { width, height, 1 } };
        packed += width * height * FORMATS[index].plane[i].texel;
    }
    struct buffer in = buffer_new(gpu, packed, HOST), out = buffer_new(gpu, packed, HOST);
    uint8_t *expected = bytes_new(packed);

    pattern(in.bytes, packed, 1, 0);
    memcpy(expected, in.bytes, packed);
    memcpy(out.bytes, in.bytes, packed); /* between planes nothing is written */
    commands = commands_begin(gpu);
    image_ready(commands, &image);
    vkCmdCopyBufferToImage(commands, in.handle, image.handle, VK_IMAGE_LAYOUT_GENERAL, FORMATS[index].planes,
                           whole);
    commands_run(gpu, commands);

    /* 21x13 of the last plane, tight in the buffer. */
    uint32_t last = FORMATS[index].planes - 1, texel = FORMATS[index].plane[last].texel;
    part = (VkBufferImageCopy){ .imageSubresource = { ASPECTS[last], 0, 0, 1 },
                                .imageOffset = { 35, 17, 0 },
                                .imageExtent = { 21, 13, 1 } };
    pattern(in.bytes, packed, 2, 0);
    for (uint32_t y = 0; y < 13; y++)
        memcpy(expected + whole[last].bufferOffset + ((17 + y) * whole[last].imageExtent.width + 35) * texel,
               in.bytes + y * 21 * texel, 21 * texel);
    commands = commands_begin(gpu);
    vkCmdCopyBufferToImage(commands, in.handle, image.handle, VK_IMAGE_LAYOUT_GENERAL, 1, &part);
    commands_barrier(commands);
    vkCmdCopyImageToBuffer(commands, image.handle, VK_IMAGE_LAYOUT_GENERAL, out.handle, FORMATS[index].planes,
                           whole);
    commands_run(gpu, commands);
    SAME(out.bytes, expected, packed, "%s", FORMATS[index].name);
    verified("%s: %u planes", FORMATS[index].name, FORMATS[index].planes);
    free(expected);
    image_free(gpu, &image);
    buffer_free(gpu, &in);
    buffer_free(gpu, &out);
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
